-- Analytics: what the ledger adds up to. Each partition of the log has rows of its own, which only the stage that has it
-- adds to, together with its place; the views add the partitions up. A day is UTC's.

CREATE TABLE daily_totals (
    day date NOT NULL,
    currency text NOT NULL,
    kind transaction_kind NOT NULL,
    partition integer NOT NULL,
    count bigint NOT NULL,
    -- In minor units. A sum may exceed what one amount can be.
    volume numeric NOT NULL,
    PRIMARY KEY (day, currency, kind, partition)
) WITH (fillfactor = 50);

-- A wallet that took part in a transaction. The sender's entry is in the receiver's partition, so a wallet may be there
-- several times on a day.
CREATE TABLE daily_active_wallets (
    day date NOT NULL,
    currency text NOT NULL,
    wallet_id uuid NOT NULL,
    partition integer NOT NULL,
    PRIMARY KEY (day, currency, wallet_id, partition)
);

-- By owner: what came into the owner's wallets (credit), and what left them (debit).
CREATE TABLE user_totals (
    user_id uuid NOT NULL,
    currency text NOT NULL,
    kind transaction_kind NOT NULL,
    direction entry_direction NOT NULL,
    partition integer NOT NULL,
    count bigint NOT NULL,
    volume numeric NOT NULL,
    last_activity_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, currency, kind, direction, partition)
) WITH (fillfactor = 80);

CREATE VIEW daily_metrics AS
SELECT
    day,
    currency,
    COALESCE(sum(count) FILTER (WHERE kind = 'deposit'), 0)::bigint AS deposits,
    COALESCE(sum(volume) FILTER (WHERE kind = 'deposit'), 0) AS deposits_volume,
    COALESCE(sum(count) FILTER (WHERE kind = 'withdrawal'), 0)::bigint AS withdrawals,
    COALESCE(sum(volume) FILTER (WHERE kind = 'withdrawal'), 0) AS withdrawals_volume,
    COALESCE(sum(count) FILTER (WHERE kind = 'transfer'), 0)::bigint AS transfers,
    COALESCE(sum(volume) FILTER (WHERE kind = 'transfer'), 0) AS transfers_volume,
    (
        SELECT count(DISTINCT wallet_id)
        FROM daily_active_wallets AS active
        WHERE active.day = totals.day AND active.currency = totals.currency
    ) AS active_wallets
FROM daily_totals AS totals
GROUP BY day, currency;

-- What came in and did not leave is the balance of the user's wallets of a currency, as of the entries that are counted.
CREATE VIEW user_snapshots AS
SELECT
    user_id,
    currency,
    COALESCE(sum(count) FILTER (WHERE kind = 'deposit'), 0)::bigint AS deposits,
    COALESCE(sum(volume) FILTER (WHERE kind = 'deposit'), 0) AS deposits_volume,
    COALESCE(sum(count) FILTER (WHERE kind = 'withdrawal'), 0)::bigint AS withdrawals,
    COALESCE(sum(volume) FILTER (WHERE kind = 'withdrawal'), 0) AS withdrawals_volume,
    COALESCE(sum(count) FILTER (WHERE kind = 'transfer' AND direction = 'credit'), 0)::bigint AS transfers_in,
    COALESCE(sum(volume) FILTER (WHERE kind = 'transfer' AND direction = 'credit'), 0) AS transfers_in_volume,
    COALESCE(sum(count) FILTER (WHERE kind = 'transfer' AND direction = 'debit'), 0)::bigint AS transfers_out,
    COALESCE(sum(volume) FILTER (WHERE kind = 'transfer' AND direction = 'debit'), 0) AS transfers_out_volume,
    COALESCE(sum(volume) FILTER (WHERE direction = 'credit'), 0) AS volume_in,
    COALESCE(sum(volume) FILTER (WHERE direction = 'debit'), 0) AS volume_out,
    sum(CASE direction WHEN 'credit' THEN volume ELSE -volume END) AS balance,
    max(last_activity_at) AS last_activity_at
FROM user_totals
GROUP BY user_id, currency;

GRANT SELECT, INSERT, UPDATE ON daily_totals, user_totals TO mercuria_app;
GRANT SELECT, INSERT ON daily_active_wallets TO mercuria_app;
GRANT SELECT ON daily_metrics, user_snapshots TO mercuria_app;
