-- What analytics has counted, as people ask for it.

-- name: daily
SELECT
    day, currency, deposits, deposits_volume, withdrawals, withdrawals_volume, transfers, transfers_volume,
    active_wallets
FROM daily_metrics
WHERE day >= %(since)s AND day < %(until)s AND (%(currency)s::text IS NULL OR currency = %(currency)s)
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
