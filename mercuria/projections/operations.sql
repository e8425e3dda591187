-- What operators want to see of everything at once. None of these is to be slow with millions of transactions.

-- name: checkpoints
SELECT stage, partition, read_offset, command_offset
FROM positions
ORDER BY stage, partition;

-- name: flow
-- A range of the primary key, which begins with the time, so it costs what the window holds, not what there is.
SELECT
    date_bin(make_interval(mins => %(step)s), created_at, 'epoch') AS at, kind, status, currency, failure_code,
    count(*) AS transactions, sum(amount) AS volume
FROM transactions
WHERE created_at >= %(since)s
GROUP BY at, kind, status, currency, failure_code
ORDER BY at, kind, status, currency, failure_code;

-- name: in_flight
-- By the index of those that have not been completed, of which few are pending at any moment.
SELECT currency, count(*) AS transactions, sum(amount) AS volume, min(created_at) AS oldest_at
FROM transactions
WHERE status = 'pending'
GROUP BY currency
ORDER BY currency;
