-- The books: double entry, written once, and how events leave for the topics that follow.

ALTER TABLE positions
    -- Of a topic whose events are numbered: the number of the last one that is part of the stage's tables.
    ADD COLUMN sequence bigint NOT NULL DEFAULT 0,
    -- The number of the last event that the stage's tables have told the next topic.
    ADD COLUMN told bigint NOT NULL DEFAULT 0,
    -- The highest number that was ever put into the stage's outbox. Tables that are filled anew tell nothing twice.
    ADD COLUMN sent bigint NOT NULL DEFAULT 0;

-- What was told and may not be in Kafka yet. A row is what one transaction has told in a partition: records of the
-- topic, in order, as a MessagePack array. It goes when Kafka has them.
CREATE TABLE outbox_events (
    partition integer NOT NULL,
    -- The number of its last event.
    sequence bigint NOT NULL,
    records bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, sequence)
);
CREATE TABLE ledger_outbox (LIKE outbox_events INCLUDING ALL);
-- It is read at most once: what compression saves, it costs twice.
ALTER TABLE outbox_events ALTER COLUMN records SET STORAGE EXTERNAL;
ALTER TABLE ledger_outbox ALTER COLUMN records SET STORAGE EXTERNAL;

CREATE TYPE entry_direction AS ENUM ('debit', 'credit');

-- Two entries for each completed transaction: a debit, and a credit of the same amount behind it.
-- Each partition of the log has a chain of its own. `hash` is
--   sha256(hash of the entry before || partition|sequence|transaction_id|kind|account|direction|amount|currency
--          |balance_after|wallet_version|occurred_at in ms)
-- with nothing for what is null, and 32 zero bytes before the first entry (`domain/ledger.py`).
CREATE TABLE ledger_entries (
    partition integer NOT NULL,
    sequence bigint NOT NULL,
    transaction_id uuid NOT NULL,
    kind transaction_kind NOT NULL,
    direction entry_direction NOT NULL,
    -- The account: a wallet, or what stands for the world outside.
    wallet_id uuid,
    external text CHECK (external IN ('external:deposits', 'external:withdrawals')),
    amount bigint NOT NULL CHECK (amount > 0),
    currency text NOT NULL,
    -- Of a wallet, as it was right after.
    balance_after bigint,
    wallet_version bigint,
    occurred_at timestamptz NOT NULL,
    hash bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (partition, sequence),
    CHECK ((wallet_id IS NULL) <> (external IS NULL)),
    CHECK ((wallet_id IS NULL) = (balance_after IS NULL)),
    CHECK ((wallet_id IS NULL) = (wallet_version IS NULL)),
    CHECK ((direction = 'debit') = (sequence % 2 = 1))
);

-- Both begin or go on with what grows, so that new entries touch few pages, however many there are.
CREATE INDEX ledger_entries_by_time ON ledger_entries (occurred_at, partition, sequence);
CREATE INDEX ledger_entries_by_wallet ON ledger_entries (wallet_id, occurred_at, partition, sequence)
    WHERE wallet_id IS NOT NULL;

-- As people read it.
CREATE VIEW ledger AS
SELECT
    partition, sequence, transaction_id, kind, COALESCE(wallet_id::text, external) AS account, direction, amount,
    currency, balance_after, wallet_version, occurred_at, hash
FROM ledger_entries;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER ledger_entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What one statement adds is whole: each debit has its credit, and a chain goes on where it ended.
CREATE FUNCTION check_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added
        GROUP BY partition, (sequence + 1) / 2
        HAVING count(*) <> 2 OR min(amount) <> max(amount) OR min(currency) <> max(currency)
            OR min(transaction_id::text) <> max(transaction_id::text) OR min(kind) <> max(kind)
            OR min(occurred_at) <> max(occurred_at)
    ) THEN
        RAISE EXCEPTION 'a transaction in the ledger does not balance' USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT partition, min(sequence) AS first, max(sequence) AS last, count(*) AS entries
            FROM added
            GROUP BY partition
        ) AS chains
        WHERE last - first + 1 <> entries
            OR first <> 1 + COALESCE(
                (
                    SELECT sequence FROM ledger_entries
                    WHERE ledger_entries.partition = chains.partition AND ledger_entries.sequence < chains.first
                    ORDER BY sequence DESC
                    LIMIT 1
                ),
                0
            )
    ) THEN
        RAISE EXCEPTION 'the ledger does not go on where it ended' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER ledger_entries_balance AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_entries();

-- Also while replicating, or with a setting that switches triggers off.
ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_final;
ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_balance;

-- The application's own role, which owns nothing. Who logs in for it is a member of it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mercuria_app') THEN
        CREATE ROLE mercuria_app NOLOGIN;
    END IF;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON users, refresh_families, refresh_tokens TO mercuria_app;
GRANT SELECT, INSERT, UPDATE ON positions, wallets, transactions TO mercuria_app;
GRANT SELECT, INSERT ON wallet_events, ledger_entries TO mercuria_app;
GRANT SELECT, INSERT, DELETE ON outbox_events, ledger_outbox TO mercuria_app;
GRANT SELECT ON ledger, _yoyo_migration TO mercuria_app;
