-- The reading half of the ledger, and of what wallets held at a moment. Every page is a scan of an index from where the
-- page before it ended; filters that are NULL are gone before a statement is planned.

-- name: entries
SELECT *
FROM ledger_entries
WHERE (occurred_at, partition, sequence) < (%(before_at)s, %(before_partition)s, %(before_sequence)s)
    AND occurred_at >= %(since)s
ORDER BY occurred_at DESC, partition DESC, sequence DESC
LIMIT %(limit)s;

-- name: entries_of_currency
SELECT *
FROM ledger_entries
WHERE currency = %(currency)s
    AND (occurred_at, partition, sequence) < (%(before_at)s, %(before_partition)s, %(before_sequence)s)
    AND occurred_at >= %(since)s
ORDER BY occurred_at DESC, partition DESC, sequence DESC
LIMIT %(limit)s;

-- name: entries_of_wallet
SELECT *
FROM ledger_entries
WHERE wallet_id = %(wallet_id)s
    AND (occurred_at, partition, sequence) < (%(before_at)s, %(before_partition)s, %(before_sequence)s)
    AND occurred_at >= %(since)s
ORDER BY occurred_at DESC, partition DESC, sequence DESC
LIMIT %(limit)s;

-- name: entries_of_person
-- A page has entries of as many wallets as it has entries, at most: those whose newest ones are the newest. So of all
-- other wallets one place in the index is read.
SELECT entry.*
FROM (
    SELECT wallets.id
    FROM wallets
    CROSS JOIN LATERAL (
        SELECT occurred_at, partition, sequence
        FROM ledger_entries
        WHERE wallet_id = wallets.id
            AND (occurred_at, partition, sequence) < (%(before_at)s, %(before_partition)s, %(before_sequence)s)
            AND occurred_at >= %(since)s
        ORDER BY occurred_at DESC, partition DESC, sequence DESC
        LIMIT 1
    ) AS newest
    WHERE wallets.owner_id = %(owner_id)s AND (%(currency)s::text IS NULL OR wallets.currency = %(currency)s)
    ORDER BY newest.occurred_at DESC, newest.partition DESC, newest.sequence DESC
    LIMIT %(limit)s
) AS own
CROSS JOIN LATERAL (
    SELECT *
    FROM ledger_entries
    WHERE wallet_id = own.id
        AND (occurred_at, partition, sequence) < (%(before_at)s, %(before_partition)s, %(before_sequence)s)
        AND occurred_at >= %(since)s
    ORDER BY occurred_at DESC, partition DESC, sequence DESC
    LIMIT %(limit)s
) AS entry
ORDER BY entry.occurred_at DESC, entry.partition DESC, entry.sequence DESC
LIMIT %(limit)s;

-- name: entries_of_transaction
-- Both have the moment at which the transaction was completed, and the debit has the number before the credit's.
SELECT *
FROM ledger_entries
WHERE occurred_at = %(completed_at)s AND transaction_id = %(transaction_id)s
ORDER BY occurred_at, partition, sequence
LIMIT 2;

-- name: place
-- The first offset of a wallet's events at or after a moment, or one between it and the event before: a binary search,
-- as offsets and times grow together. An index by time would cost something with each event.
WITH RECURSIVE search (low, high) AS (
    VALUES (0::bigint, 9223372036854775807::bigint)
    UNION ALL
    SELECT
        CASE WHEN probe.occurred_at < %(moment)s THEN probe.command_offset + 1 ELSE low END,
        CASE WHEN probe.occurred_at < %(moment)s THEN high ELSE middle END
    FROM search
    CROSS JOIN LATERAL (SELECT low + (high - low) / 2 AS middle) AS half
    LEFT JOIN LATERAL (
        SELECT command_offset, occurred_at
        FROM wallet_events
        WHERE wallet_id = %(wallet_id)s AND command_offset >= middle
        ORDER BY command_offset
        LIMIT 1
    ) AS probe ON true
    WHERE low < high
)
SELECT low AS place FROM search WHERE low = high;

-- name: event_before
-- The limit is null where it was never changed.
SELECT
    command_offset, balance, status, version, occurred_at,
    COALESCE(
        (
            SELECT overdraft_limit
            FROM wallet_limits
            WHERE wallet_id = %(wallet_id)s AND command_offset < %(place)s
            ORDER BY command_offset DESC
            LIMIT 1
        ),
        (SELECT opening_limit FROM wallets WHERE id = %(wallet_id)s)
    ) AS overdraft_limit
FROM wallet_events
WHERE wallet_id = %(wallet_id)s AND command_offset < %(place)s
ORDER BY command_offset DESC
LIMIT 1;

-- name: event_since
SELECT occurred_at FROM (
    SELECT occurred_at
    FROM wallet_events
    WHERE wallet_id = %(wallet_id)s
    ORDER BY command_offset DESC
    LIMIT 1
) AS last
WHERE occurred_at >= %(moment)s;

-- name: lines
SELECT
    event.command_offset, event.occurred_at, event.kind, event.transaction_status, event.command_id,
    event.counterparty_id, event.change, event.balance, transactions.reference, transactions.effective_at
FROM wallet_events AS event
LEFT JOIN transactions
    ON transactions.created_at = event.initiated_at
    AND transactions.partition = event.initiated_partition
    AND transactions.command_offset = event.initiated_offset
WHERE event.wallet_id = %(wallet_id)s
    AND event.command_offset >= %(start)s
    AND event.command_offset < %(end)s
    AND event.change <> 0
ORDER BY event.command_offset
LIMIT %(limit)s;
