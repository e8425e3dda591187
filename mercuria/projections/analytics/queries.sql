-- What analytics has counted, as people ask for it.

-- name: daily
SELECT
    day, currency, deposits, deposits_volume, withdrawals, withdrawals_volume, transfers, transfers_volume,
    active_wallets
FROM daily_metrics
WHERE day >= %(since)s AND day < %(until)s AND (%(currency)s::text IS NULL OR currency = %(currency)s)
ORDER BY day, currency;

-- name: daily_effective
-- What was recorded on a day, without what counts on another one, and with what counts on it.
WITH counted AS (
    SELECT day, currency, kind, count, volume
    FROM daily_totals
    WHERE day BETWEEN %(first)s AND %(last)s
    UNION ALL
    SELECT recorded_on, currency, kind, -count, -volume
    FROM effective_totals
    WHERE recorded_on BETWEEN %(first)s AND %(last)s
    UNION ALL
    SELECT day, currency, kind, count, volume
    FROM effective_totals
    WHERE day BETWEEN %(first)s AND %(last)s
), active AS (
    SELECT day, currency, count(*) AS wallets
    FROM (
        SELECT day, currency, wallet_id
        FROM daily_active_wallets
        WHERE is_undated AND day BETWEEN %(first)s AND %(last)s
        UNION
        SELECT day, currency, wallet_id
        FROM effective_active_wallets
        WHERE day BETWEEN %(first)s AND %(last)s
    ) AS each
    GROUP BY day, currency
)
SELECT
    day,
    currency,
    COALESCE(sum(count) FILTER (WHERE kind = 'deposit'), 0)::bigint AS deposits,
    COALESCE(sum(volume) FILTER (WHERE kind = 'deposit'), 0) AS deposits_volume,
    COALESCE(sum(count) FILTER (WHERE kind = 'withdrawal'), 0)::bigint AS withdrawals,
    COALESCE(sum(volume) FILTER (WHERE kind = 'withdrawal'), 0) AS withdrawals_volume,
    COALESCE(sum(count) FILTER (WHERE kind = 'transfer'), 0)::bigint AS transfers,
    COALESCE(sum(volume) FILTER (WHERE kind = 'transfer'), 0) AS transfers_volume,
    COALESCE(max(active.wallets), 0) AS active_wallets
FROM counted
LEFT JOIN active USING (day, currency)
WHERE %(currency)s::text IS NULL OR currency = %(currency)s
GROUP BY day, currency
HAVING sum(count) > 0
ORDER BY day, currency;

-- name: user
SELECT
    currency, deposits, deposits_volume, withdrawals, withdrawals_volume, transfers_in, transfers_in_volume,
    transfers_out, transfers_out_volume, volume_in, volume_out, balance, last_activity_at
FROM user_snapshots
WHERE user_id = %(user_id)s
ORDER BY currency;

-- name: is_known
SELECT
    EXISTS (SELECT FROM users WHERE id = %(user_id)s) OR EXISTS (SELECT FROM wallets WHERE owner_id = %(user_id)s)
    AS is_known;
