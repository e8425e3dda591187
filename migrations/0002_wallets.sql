-- What the event topic says, as people ask for it: wallets, what happened to them, and transactions.

CREATE TYPE wallet_status AS ENUM ('open', 'frozen', 'closed');
CREATE TYPE wallet_event_type AS ENUM ('wallet.created', 'wallet.balance_updated', 'wallet.status_changed');
CREATE TYPE transaction_kind AS ENUM ('deposit', 'withdrawal', 'transfer');
CREATE TYPE transaction_status AS ENUM ('pending', 'completed', 'failed');

-- How far each stage is. The row is written in the same transaction as the rows that it speaks of.
CREATE TABLE positions (
    stage text NOT NULL,
    partition integer NOT NULL,
    -- The last record of the stage's topic that is part of its tables.
    read_offset bigint NOT NULL,
    -- The highest record of the command topic whose event is part of them; what comes at or below it is told again.
    command_offset bigint NOT NULL,
    PRIMARY KEY (stage, partition)
) WITH (fillfactor = 20);

CREATE TABLE wallets (
    id uuid PRIMARY KEY,
    owner_id uuid NOT NULL,
    currency text NOT NULL,
    balance bigint NOT NULL,
    overdraft_limit bigint NOT NULL CHECK (overdraft_limit >= 0),
    status wallet_status NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- The command that opened it.
    opened_by uuid NOT NULL,
    CHECK (balance >= -overdraft_limit)
) WITH (fillfactor = 70);

CREATE INDEX wallets_by_owner ON wallets (owner_id, created_at, id);
CREATE INDEX wallets_by_command ON wallets (opened_by);

-- Accepted events. They are never changed.
CREATE TABLE wallet_events (
    wallet_id uuid NOT NULL,
    -- The record of the command topic that it answers; all of a wallet's are in its partition.
    command_offset bigint NOT NULL,
    partition integer NOT NULL,
    type wallet_event_type NOT NULL,
    version bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    owner_id uuid NOT NULL,
    -- Of money that moved, also the transaction's id.
    command_id uuid NOT NULL,
    -- What it added to the balance, in minor units.
    change bigint NOT NULL,
    balance bigint NOT NULL,
    status wallet_status NOT NULL,
    reason text,
    -- Of money that moved: the transaction as it was then, and which one it is.
    kind transaction_kind,
    transaction_status transaction_status,
    counterparty_id uuid,
    initiated_at timestamptz,
    initiated_partition integer,
    initiated_offset bigint,
    -- Whether the owner's list of transactions has the transaction through this event, and not through another one:
    -- a refund has its debit, and a transfer between wallets of one owner is listed once.
    is_listed boolean NOT NULL,
    PRIMARY KEY (wallet_id, command_offset),
    CHECK ((kind IS NULL) = (change = 0)),
    CHECK ((kind IS NULL) = (initiated_at IS NULL))
);

CREATE INDEX wallet_events_by_owner
    ON wallet_events (owner_id, initiated_at, initiated_partition, initiated_offset)
    WHERE is_listed;

CREATE INDEX wallet_events_refunds
    ON wallet_events (owner_id, initiated_at, initiated_partition, initiated_offset)
    WHERE transaction_status = 'failed';

-- A transaction is named by the record that began it, and by its time: its id is the client's, who may use one twice.
-- With the time in front, rows come at the end of the index, and the index has them in the order in which they are shown.
CREATE TABLE transactions (
    created_at timestamptz NOT NULL,
    partition integer NOT NULL,
    command_offset bigint NOT NULL,
    id uuid NOT NULL,
    kind transaction_kind NOT NULL,
    status transaction_status NOT NULL,
    from_wallet_id uuid,
    to_wallet_id uuid,
    from_owner_id uuid,
    to_owner_id uuid,
    -- Who tried it, where a wallet refused it. Such a one has no events.
    actor_id uuid,
    is_refused boolean NOT NULL,
    amount bigint NOT NULL,
    currency text,
    reference text,
    metadata jsonb NOT NULL,
    failure_code text,
    failure_detail text,
    completed_at timestamptz,
    PRIMARY KEY (created_at, partition, command_offset),
    CHECK (amount > 0 OR is_refused),
    CHECK (from_wallet_id IS NOT NULL OR to_wallet_id IS NOT NULL),
    CHECK ((status = 'failed') = (failure_code IS NOT NULL)),
    CHECK ((status = 'completed') = (completed_at IS NOT NULL))
);

CREATE INDEX transactions_by_id ON transactions (id);

CREATE INDEX transactions_by_status
    ON transactions (status, created_at, partition, command_offset)
    WHERE status <> 'completed';

CREATE INDEX transactions_by_actor
    ON transactions (actor_id, created_at, partition, command_offset)
    WHERE is_refused;

CREATE INDEX transactions_by_refusing_wallet
    ON transactions (COALESCE(from_wallet_id, to_wallet_id), command_offset)
    WHERE is_refused;
