-- Overdraft limits that change, and the time at which a movement counts in reports (`effective_at`).
--
-- Whatever is there stays as it is: new columns are null, which stands for a limit that was never changed, and for a
-- movement that counts at the time of its record.

ALTER TYPE wallet_event_type ADD VALUE 'wallet.limits_changed';

-- A limit counts for what comes: the balance may be below it.
ALTER TABLE wallets
    DROP CONSTRAINT wallets_check,
    -- The limit before it was changed for the first time; null where it never was.
    ADD COLUMN opening_limit bigint CHECK (opening_limit >= 0);

-- What limits were changed to, by the event of the wallet. Limits change so seldom that events have no column for it.
CREATE TABLE wallet_limits (
    wallet_id uuid NOT NULL,
    command_offset bigint NOT NULL,
    overdraft_limit bigint NOT NULL CHECK (overdraft_limit >= 0),
    PRIMARY KEY (wallet_id, command_offset)
);

ALTER TABLE transactions ADD COLUMN effective_at timestamptz;

-- It is part of the hash where it is not null: behind all else, after another |, in RFC 3339 and UTC with milliseconds.
ALTER TABLE ledger_entries ADD COLUMN effective_at timestamptz;

CREATE OR REPLACE VIEW ledger AS
SELECT
    partition, sequence, transaction_id, kind, COALESCE(wallet_id::text, external) AS account, direction, amount,
    currency, balance_after, wallet_version, occurred_at, hash, effective_at
FROM ledger_entries;

-- As before, and both entries of a transaction count at the same time.
CREATE OR REPLACE FUNCTION check_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added
        GROUP BY partition, (sequence + 1) / 2
        HAVING count(*) <> 2 OR min(amount) <> max(amount) OR min(currency) <> max(currency)
            OR min(transaction_id::text) <> max(transaction_id::text) OR min(kind) <> max(kind)
            OR min(occurred_at) <> max(occurred_at)
            OR count(effective_at) = 1 OR min(effective_at) <> max(effective_at)
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

-- By effective day, what counts on another day than its record's says, or may: all that has an effective date. The
-- figures of a day by effective date are those of `daily_totals`, without what was recorded on it, and with what counts
-- on it. So what has no effective date costs nothing here.
CREATE TABLE effective_totals (
    day date NOT NULL,
    recorded_on date NOT NULL,
    currency text NOT NULL,
    kind transaction_kind NOT NULL,
    partition integer NOT NULL,
    count bigint NOT NULL,
    volume numeric NOT NULL,
    PRIMARY KEY (day, recorded_on, currency, kind, partition)
) WITH (fillfactor = 50);

CREATE INDEX effective_totals_by_record ON effective_totals (recorded_on);

-- A wallet that took part in a transaction that counts on a day because of its effective date.
CREATE TABLE effective_active_wallets (LIKE daily_active_wallets INCLUDING ALL);

-- Whether it took part in one without an effective date. All that is here already has none.
ALTER TABLE daily_active_wallets ADD COLUMN is_undated boolean NOT NULL DEFAULT true;

GRANT SELECT, INSERT ON wallet_limits, effective_active_wallets TO mercuria_app;
GRANT SELECT, INSERT, UPDATE ON effective_totals TO mercuria_app;
GRANT UPDATE (is_undated) ON daily_active_wallets TO mercuria_app;
