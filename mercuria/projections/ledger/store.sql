-- The writing half of the ledger.

-- name: heads
SELECT chain, sequence, hash
FROM unnest(%(partitions)s::integer[]) AS chain
CROSS JOIN LATERAL (
    SELECT sequence, hash
    FROM ledger_entries
    WHERE partition = chain
    ORDER BY sequence DESC
    LIMIT 1
) AS last;

-- name: copy_entries
COPY ledger_entries (
    partition, sequence, transaction_id, kind, direction, wallet_id, external, amount, currency, balance_after,
    wallet_version, occurred_at, hash, effective_at
) FROM STDIN;
