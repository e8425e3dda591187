-- The writing half of wallets, their events and transactions. All is COPY, or speaks of whole arrays.

-- name: make_room
CREATE TEMPORARY TABLE IF NOT EXISTS new_transactions (LIKE transactions) ON COMMIT DELETE ROWS;

-- name: copy_events
COPY wallet_events (
    wallet_id, command_offset, partition, type, version, occurred_at, owner_id, command_id, change, balance, status,
    reason, kind, transaction_status, counterparty_id, initiated_at, initiated_partition, initiated_offset, is_listed
) FROM STDIN;

-- name: copy_wallets
COPY wallets (
    id, owner_id, currency, balance, overdraft_limit, status, version, metadata, created_at, updated_at, opened_by
) FROM STDIN;

-- name: change_wallets
UPDATE wallets
SET balance = changed.balance, status = changed.status, version = changed.version, updated_at = changed.updated_at
FROM unnest(
    %(ids)s::uuid[], %(balances)s::bigint[], %(statuses)s::wallet_status[], %(versions)s::bigint[],
    %(times)s::timestamptz[]
) AS changed (id, balance, status, version, updated_at)
WHERE wallets.id = changed.id AND wallets.version < changed.version;

-- name: copy_limits
COPY wallet_limits (wallet_id, command_offset, overdraft_limit) FROM STDIN;

-- name: change_limits
UPDATE wallets
SET overdraft_limit = changed.overdraft_limit,
    opening_limit = COALESCE(wallets.opening_limit, wallets.overdraft_limit)
FROM unnest(%(ids)s::uuid[], %(limits)s::bigint[]) AS changed (id, overdraft_limit)
WHERE wallets.id = changed.id;

-- name: copy_transactions
COPY new_transactions (
    created_at, partition, command_offset, id, kind, status, from_wallet_id, to_wallet_id, from_owner_id, to_owner_id,
    actor_id, is_refused, amount, currency, reference, metadata, failure_code, failure_detail, completed_at,
    effective_at
) FROM STDIN;

-- name: keep_transactions
-- In one order for all: two workers that tell of the same transactions wait for each other, and never in a circle.
INSERT INTO transactions AS known
SELECT * FROM new_transactions
ORDER BY created_at, partition, command_offset
ON CONFLICT (created_at, partition, command_offset) DO UPDATE
SET status = excluded.status,
    to_owner_id = excluded.to_owner_id,
    failure_code = excluded.failure_code,
    failure_detail = excluded.failure_detail,
    completed_at = excluded.completed_at
WHERE known.status = 'pending';
