-- The books, as those who check them or write them out read them.

-- name: snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- name: read_whole
-- What compares whole tables reads each of them once, whatever statistics say of tables that have just grown.
SET LOCAL enable_nestloop = off;

-- name: utc
-- Days are UTC's, wherever the server is.
SET LOCAL TIME ZONE 'UTC';

-- name: chains
SELECT partition, told FROM positions WHERE stage = 'ledger' ORDER BY partition;

-- name: outbox
SELECT partition, max(sequence) FROM ledger_outbox GROUP BY partition;

-- name: last_entries
SELECT partition, max(sequence) FROM ledger_entries GROUP BY partition;

-- name: chain
SELECT sequence, transaction_id::text, kind::text, COALESCE(wallet_id::text, external), direction::text, amount,
    currency, balance_after, wallet_version, round(extract(epoch FROM occurred_at) * 1000)::bigint,
    to_char(effective_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), hash
FROM ledger_entries
WHERE partition = %(partition)s AND sequence > %(after)s
ORDER BY sequence;

-- name: wrong_transactions
-- Completed transactions without their two entries, up to where the ledger has read, and entries of no such transaction.
WITH pairs AS (
    SELECT transaction_id, occurred_at, amount, count(*) AS entries
    FROM ledger_entries
    GROUP BY transaction_id, occurred_at, amount
), completed AS (
    SELECT id, completed_at, amount, count(*) AS transactions
    FROM transactions
    WHERE status = 'completed'
    GROUP BY id, completed_at, amount
)
SELECT COALESCE(pairs.transaction_id, completed.id)::text, COALESCE(entries, 0), COALESCE(transactions, 0)
FROM pairs
FULL JOIN completed ON completed.id = pairs.transaction_id AND completed.completed_at = pairs.occurred_at
    AND completed.amount = pairs.amount
WHERE COALESCE(entries, 0) <> 2 * COALESCE(transactions, 0)
LIMIT %(limit)s;

-- name: export
SELECT partition, sequence, transaction_id::text, kind::text, COALESCE(wallet_id::text, external), direction::text,
    amount, currency, balance_after, wallet_version, occurred_at, encode(hash, 'hex'),
    to_char(effective_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
FROM ledger_entries
WHERE (%(since)s::timestamptz IS NULL OR occurred_at >= %(since)s)
    AND (%(before)s::timestamptz IS NULL OR occurred_at < %(before)s)
ORDER BY occurred_at, partition, sequence;

-- name: accounts
SELECT COALESCE(wallet_id::text, external), currency, sum(CASE direction WHEN 'debit' THEN amount ELSE -amount END)
FROM ledger_entries
WHERE (%(since)s::timestamptz IS NULL OR occurred_at >= %(since)s)
    AND (%(before)s::timestamptz IS NULL OR occurred_at < %(before)s)
GROUP BY 1, 2
ORDER BY 1, 2;

-- name: lag
-- By partition, the number of the last event that was emitted of transactions, and of the last one that the ledger has.
SELECT emitted.told, COALESCE(ledger.sequence, 0)
FROM positions AS emitted
LEFT JOIN positions AS ledger ON ledger.stage = 'ledger' AND ledger.partition = emitted.partition
WHERE emitted.stage = 'transactions';

-- name: wallets
SELECT id::text, version, balance, status::text, overdraft_limit FROM wallets ORDER BY id;

-- name: wallets_then
-- Wallets as they were at some of their versions.
SELECT
    event.wallet_id::text, event.version, event.balance, event.status::text,
    COALESCE(
        (
            SELECT wallet_limits.overdraft_limit
            FROM wallet_limits
            WHERE wallet_limits.wallet_id = event.wallet_id
                AND wallet_limits.command_offset <= event.command_offset
            ORDER BY wallet_limits.command_offset DESC
            LIMIT 1
        ),
        wallets.opening_limit,
        wallets.overdraft_limit
    )
FROM unnest(%(ids)s::uuid[], %(versions)s::bigint[]) AS asked (id, number)
JOIN wallet_events AS event ON event.wallet_id = asked.id AND event.version = asked.number
JOIN wallets ON wallets.id = event.wallet_id;

-- name: wrong_wallets
-- Wallets that are not what their events add up to.
SELECT wallets.id::text, balance_now, version_now, sum(change)::bigint, count(*)
FROM (SELECT id, balance AS balance_now, version AS version_now FROM wallets) AS wallets
JOIN wallet_events ON wallet_id = id
GROUP BY id, balance_now, version_now
HAVING balance_now <> sum(change) OR version_now <> count(*) OR version_now <> max(version)
ORDER BY id
LIMIT %(limit)s;

-- name: wrong_limits
-- Wallets whose limit is not what it was changed to last.
SELECT id::text, wallets.overdraft_limit, last.overdraft_limit
FROM wallets
FULL JOIN (
    SELECT DISTINCT ON (wallet_id) wallet_id, overdraft_limit
    FROM wallet_limits
    ORDER BY wallet_id, command_offset DESC
) AS last ON last.wallet_id = id
WHERE (opening_limit IS NULL) <> (last.wallet_id IS NULL) OR wallets.overdraft_limit <> last.overdraft_limit
ORDER BY id
LIMIT %(limit)s;

-- name: wrong_entries
-- Entries that are not what happened to their wallet, as far as its events are here.
SELECT ledger_entries.wallet_id::text, wallet_version, amount, balance_after, change, wallet_events.balance
FROM ledger_entries
JOIN wallets ON wallets.id = wallet_id AND wallet_version <= wallets.version
LEFT JOIN wallet_events ON wallet_events.wallet_id = ledger_entries.wallet_id
    AND wallet_events.version = wallet_version
WHERE change IS NULL OR balance_after <> wallet_events.balance
    OR change <> CASE direction WHEN 'credit' THEN amount ELSE -amount END
ORDER BY 1, 2
LIMIT %(limit)s;

-- name: missing_entries
-- What completed transactions did to wallets and the ledger does not have.
SELECT wallet_events.wallet_id::text, wallet_events.version, change
FROM wallet_events
JOIN transactions ON created_at = initiated_at AND transactions.partition = initiated_partition
    AND transactions.command_offset = initiated_offset AND transactions.status = 'completed'
LEFT JOIN ledger_entries ON ledger_entries.wallet_id = wallet_events.wallet_id
    AND wallet_version = wallet_events.version
WHERE ledger_entries.wallet_id IS NULL
ORDER BY 1, 2
LIMIT %(limit)s;

-- name: money
-- By currency: what wallets have, what the ledger says that they have, and what is on its way.
SELECT currency,
    COALESCE((SELECT sum(balance) FROM wallets WHERE wallets.currency = all_of.currency), 0)::text,
    COALESCE(
        (
            SELECT sum(CASE direction WHEN 'credit' THEN amount ELSE -amount END)
            FROM ledger_entries
            WHERE wallet_id IS NOT NULL AND ledger_entries.currency = all_of.currency
        ),
        0
    )::text,
    COALESCE(
        (
            SELECT sum(amount)
            FROM transactions
            WHERE status = 'pending' AND transactions.currency = all_of.currency
        ),
        0
    )::text
FROM (SELECT DISTINCT currency FROM wallets) AS all_of
ORDER BY currency;

-- name: counted_up_to
SELECT COALESCE(max(read_offset), -1) FROM positions WHERE stage = 'analytics' AND partition = %(partition)s;

-- name: counted_days
SELECT day - DATE '1970-01-01', currency, kind::text, count, volume::text
FROM daily_totals
WHERE partition = %(partition)s;

-- name: counted_active
SELECT day - DATE '1970-01-01', currency, replace(wallet_id::text, '-', '')
FROM daily_active_wallets
WHERE partition = %(partition)s;

-- name: counted_users
SELECT replace(user_id::text, '-', ''), currency, kind::text, direction::text, count, volume::text,
    round(extract(epoch FROM last_activity_at) * 1000)::bigint
FROM user_totals
WHERE partition = %(partition)s;

-- name: wrong_days
-- Days that are not what the ledger's entries add up to, as far as analytics has read them.
WITH counted AS (
    SELECT day, currency, kind::text AS kind, partition, count, volume FROM daily_totals
    UNION ALL
    SELECT day, currency, 'active', partition, count(*), 0 FROM daily_active_wallets GROUP BY day, currency, partition
    UNION ALL
    SELECT day, currency, 'active without effective date', partition, count(*), 0
    FROM daily_active_wallets
    WHERE is_undated
    GROUP BY day, currency, partition
    UNION ALL
    SELECT day, currency, kind || ' effective, recorded on ' || recorded_on, partition, count, volume
    FROM effective_totals
    UNION ALL
    SELECT day, currency, 'active by effective date', partition, count(*), 0
    FROM effective_active_wallets
    GROUP BY day, currency, partition
), entries AS (
    SELECT ledger_entries.*, (occurred_at AT TIME ZONE 'UTC')::date AS day,
        (effective_at AT TIME ZONE 'UTC')::date AS effective_day
    FROM ledger_entries
    JOIN positions ON stage = 'analytics' AND positions.partition = ledger_entries.partition
        AND ledger_entries.sequence <= positions.sequence
), added_up AS (
    SELECT day, currency, kind::text AS kind, partition, count(*) AS count, sum(amount) AS volume
    FROM entries
    WHERE direction = 'credit'
    GROUP BY day, currency, kind, partition
    UNION ALL
    SELECT day, currency, 'active', partition, count(DISTINCT wallet_id), 0
    FROM entries
    WHERE wallet_id IS NOT NULL
    GROUP BY day, currency, partition
    UNION ALL
    SELECT day, currency, 'active without effective date', partition, count(DISTINCT wallet_id), 0
    FROM entries
    WHERE wallet_id IS NOT NULL AND effective_day IS NULL
    GROUP BY day, currency, partition
    UNION ALL
    SELECT effective_day, currency, kind || ' effective, recorded on ' || day, partition, count(*), sum(amount)
    FROM entries
    WHERE direction = 'credit' AND effective_day IS NOT NULL
    GROUP BY effective_day, currency, kind, day, partition
    UNION ALL
    SELECT effective_day, currency, 'active by effective date', partition, count(DISTINCT wallet_id), 0
    FROM entries
    WHERE wallet_id IS NOT NULL AND effective_day IS NOT NULL
    GROUP BY effective_day, currency, partition
)
SELECT day::text, currency, kind, partition, counted.count, counted.volume::text, added_up.count, added_up.volume::text
FROM counted
FULL JOIN added_up USING (day, currency, kind, partition)
WHERE (counted.count, counted.volume) IS DISTINCT FROM (added_up.count, added_up.volume)
ORDER BY 1, 2, 3, 4
LIMIT %(limit)s;

-- name: wrong_users
-- Users whose figures are not what the ledger's entries add up to, as far as analytics has read them.
WITH added_up AS (
    SELECT owner_id AS user_id, ledger_entries.currency, kind, direction, ledger_entries.partition, count(*) AS count,
        sum(amount) AS volume, max(occurred_at) AS last_activity_at
    FROM ledger_entries
    JOIN positions ON stage = 'analytics' AND positions.partition = ledger_entries.partition
        AND ledger_entries.sequence <= positions.sequence
    JOIN wallets ON wallets.id = wallet_id
    GROUP BY 1, 2, 3, 4, 5
)
SELECT user_id::text, currency, kind::text, direction::text, partition, counted.count, counted.volume::text,
    added_up.count, added_up.volume::text
FROM user_totals AS counted
FULL JOIN added_up USING (user_id, currency, kind, direction, partition)
WHERE (counted.count, counted.volume, counted.last_activity_at)
    IS DISTINCT FROM (added_up.count, added_up.volume, added_up.last_activity_at)
ORDER BY 1, 2, 3, 4, 5
LIMIT %(limit)s;
