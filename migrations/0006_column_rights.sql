-- What the role of workers may change is what workers change, column by column, and no more.

-- A worker sets passwords, and gives accounts of earlier versions the key of today (auth/accounts.sql). Roles are
-- given by `mercuria user`, which connects as the owner: who has a worker's password cannot make operators.
REVOKE UPDATE ON users FROM mercuria_app;
GRANT UPDATE (email_key, password_hash, password_changed_at) ON users TO mercuria_app;

-- The owner is not bound by these policies, and migrations, dumps and restores are the owner's.
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
CREATE POLICY users_are_seen ON users FOR SELECT TO mercuria_app USING (true);
CREATE POLICY users_are_no_operators ON users FOR INSERT TO mercuria_app WITH CHECK (role = 'user');
CREATE POLICY users_are_changed ON users FOR UPDATE TO mercuria_app USING (true);
CREATE POLICY users_are_deleted ON users FOR DELETE TO mercuria_app USING (true);

-- The stage of transactions copies wallets as their events say, so it needs the balance, which is checked against the
-- log by `mercuria reconcile`. Whose a wallet is, its currency and when it was opened never change.
REVOKE UPDATE ON wallets FROM mercuria_app;
GRANT UPDATE (balance, overdraft_limit, opening_limit, status, version, updated_at) ON wallets TO mercuria_app;
