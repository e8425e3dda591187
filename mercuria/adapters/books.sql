-- The books, as those who check them or write them out read them.

-- name: snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- name: chains
SELECT partition, told FROM positions WHERE stage = 'ledger' ORDER BY partition;

-- name: outbox
SELECT partition, max(sequence) FROM ledger_outbox GROUP BY partition;

-- name: last_entries
SELECT partition, max(sequence) FROM ledger_entries GROUP BY partition;

-- name: chain
SELECT sequence, transaction_id::text, kind::text, COALESCE(wallet_id::text, external), direction::text, amount,
    currency, balance_after, wallet_version, round(extract(epoch FROM occurred_at) * 1000)::bigint, hash
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
    amount, currency, balance_after, wallet_version, occurred_at, encode(hash, 'hex')
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
-- By partition, the number of the last event that was told of transactions, and of the last one that the ledger has.
SELECT told.told, COALESCE(ledger.sequence, 0)
FROM positions AS told
LEFT JOIN positions AS ledger ON ledger.stage = 'ledger' AND ledger.partition = told.partition
WHERE told.stage = 'transactions';
