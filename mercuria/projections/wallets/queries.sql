-- The reading half of wallets, their events and transactions. Every page is a scan of an index from where the page
-- before it ended; filters that are NULL are gone before a statement is planned.

-- name: wallet
SELECT id, owner_id, currency, balance, overdraft_limit, status, version, metadata, created_at, updated_at
FROM wallets
WHERE id = %(id)s;

-- name: wallets
SELECT id, owner_id, currency, balance, overdraft_limit, status, version, metadata, created_at, updated_at
FROM wallets
WHERE owner_id = %(owner_id)s
    AND (created_at, id) < (%(before_at)s, %(before_id)s)
    AND (%(status)s::wallet_status IS NULL OR status = %(status)s::wallet_status)
    AND (%(currency)s::text IS NULL OR currency = %(currency)s)
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;

-- name: events
SELECT
    type, version, occurred_at, command_id, change, balance, status, reason, kind, transaction_status, counterparty_id,
    partition, command_offset, overdraft_limit
FROM wallet_events
LEFT JOIN wallet_limits USING (wallet_id, command_offset)
WHERE wallet_id = %(wallet_id)s AND command_offset < %(before_offset)s
ORDER BY command_offset DESC
LIMIT %(limit)s;

-- name: transaction
SELECT *
FROM transactions
WHERE id = %(id)s
ORDER BY created_at DESC, partition DESC, command_offset DESC
LIMIT 1;

-- name: transactions
SELECT *
FROM transactions
WHERE (created_at, partition, command_offset) < (%(before_at)s, %(before_partition)s, %(before_offset)s)
    AND (%(status)s::transaction_status IS NULL OR status = %(status)s::transaction_status)
    AND (%(kind)s::transaction_kind IS NULL OR kind = %(kind)s::transaction_kind)
ORDER BY created_at DESC, partition DESC, command_offset DESC
LIMIT %(limit)s;

-- name: transactions_of_person
-- What they took part in, they have events of. What they were refused, nobody has. A transaction is looked up for one
-- event after the other, until the page is full: the planner would read all of a rich history to sort it.
(
    SELECT found.*
    FROM wallet_events AS event
    CROSS JOIN LATERAL (
        SELECT *
        FROM transactions
        WHERE created_at = event.initiated_at
            AND partition = event.initiated_partition
            AND command_offset = event.initiated_offset
            AND (%(status)s::transaction_status IS NULL OR status = %(status)s::transaction_status)
        LIMIT 1
    ) AS found
    WHERE event.is_listed
        AND event.owner_id = %(person_id)s
        AND (event.initiated_at, event.initiated_partition, event.initiated_offset)
            < (%(before_at)s, %(before_partition)s, %(before_offset)s)
        AND (%(kind)s::transaction_kind IS NULL OR event.kind = %(kind)s::transaction_kind)
        AND (
            %(wallet_id)s::uuid IS NULL OR %(wallet_id)s::uuid IN (event.wallet_id, event.counterparty_id)
        )
    ORDER BY event.initiated_at DESC, event.initiated_partition DESC, event.initiated_offset DESC
    LIMIT %(limit)s
)
UNION ALL
(
    SELECT *
    FROM transactions
    WHERE is_refused
        AND actor_id = %(person_id)s
        AND (created_at, partition, command_offset) < (%(before_at)s, %(before_partition)s, %(before_offset)s)
        AND (%(status)s::transaction_status IS NULL OR status = %(status)s::transaction_status)
        AND (%(kind)s::transaction_kind IS NULL OR kind = %(kind)s::transaction_kind)
        AND (%(wallet_id)s::uuid IS NULL OR %(wallet_id)s::uuid IN (from_wallet_id, to_wallet_id))
    ORDER BY created_at DESC, partition DESC, command_offset DESC
    LIMIT %(limit)s
)
ORDER BY created_at DESC, partition DESC, command_offset DESC
LIMIT %(limit)s;

-- name: failed_transactions_of_person
-- As above, but by the few refunds instead of all that was ever paid.
(
    SELECT found.*
    FROM wallet_events AS refund
    CROSS JOIN LATERAL (
        SELECT *
        FROM transactions
        WHERE created_at = refund.initiated_at
            AND partition = refund.initiated_partition
            AND command_offset = refund.initiated_offset
        LIMIT 1
    ) AS found
    WHERE refund.transaction_status = 'failed'
        AND refund.owner_id = %(person_id)s
        AND (refund.initiated_at, refund.initiated_partition, refund.initiated_offset)
            < (%(before_at)s, %(before_partition)s, %(before_offset)s)
        AND (%(kind)s::transaction_kind IS NULL OR refund.kind = %(kind)s::transaction_kind)
        AND (
            %(wallet_id)s::uuid IS NULL OR %(wallet_id)s::uuid IN (refund.wallet_id, refund.counterparty_id)
        )
    ORDER BY refund.initiated_at DESC, refund.initiated_partition DESC, refund.initiated_offset DESC
    LIMIT %(limit)s
)
UNION ALL
(
    SELECT *
    FROM transactions
    WHERE is_refused
        AND actor_id = %(person_id)s
        AND (created_at, partition, command_offset) < (%(before_at)s, %(before_partition)s, %(before_offset)s)
        AND (%(kind)s::transaction_kind IS NULL OR kind = %(kind)s::transaction_kind)
        AND (%(wallet_id)s::uuid IS NULL OR %(wallet_id)s::uuid IN (from_wallet_id, to_wallet_id))
    ORDER BY created_at DESC, partition DESC, command_offset DESC
    LIMIT %(limit)s
)
ORDER BY created_at DESC, partition DESC, command_offset DESC
LIMIT %(limit)s;

-- name: pending_transactions_of_person
-- Of all that are pending, which are few at any moment.
SELECT *
FROM transactions
WHERE status = 'pending'
    AND from_owner_id = %(person_id)s
    AND (created_at, partition, command_offset) < (%(before_at)s, %(before_partition)s, %(before_offset)s)
    AND (%(kind)s::transaction_kind IS NULL OR kind = %(kind)s::transaction_kind)
    AND (%(wallet_id)s::uuid IS NULL OR %(wallet_id)s::uuid IN (from_wallet_id, to_wallet_id))
ORDER BY created_at DESC, partition DESC, command_offset DESC
LIMIT %(limit)s;

-- name: transactions_of_wallet
-- In the order in which they came to the wallet. A refund comes with the transaction that its debit has begun.
(
    SELECT found.*, event.command_offset AS wallet_offset
    FROM wallet_events AS event
    CROSS JOIN LATERAL (
        SELECT *
        FROM transactions
        WHERE created_at = event.initiated_at
            AND partition = event.initiated_partition
            AND command_offset = event.initiated_offset
            AND (%(status)s::transaction_status IS NULL OR status = %(status)s::transaction_status)
        LIMIT 1
    ) AS found
    WHERE event.wallet_id = %(wallet_id)s
        AND event.command_offset < %(before_offset)s
        AND event.transaction_status <> 'failed'
        AND (%(kind)s::transaction_kind IS NULL OR event.kind = %(kind)s::transaction_kind)
    ORDER BY event.command_offset DESC
    LIMIT %(limit)s
)
UNION ALL
(
    SELECT transactions.*, transactions.command_offset AS wallet_offset
    FROM transactions
    WHERE is_refused
        AND COALESCE(from_wallet_id, to_wallet_id) = %(wallet_id)s
        AND command_offset < %(before_offset)s
        AND (%(person_id)s::uuid IS NULL OR actor_id = %(person_id)s::uuid)
        AND (%(status)s::transaction_status IS NULL OR status = %(status)s::transaction_status)
        AND (%(kind)s::transaction_kind IS NULL OR kind = %(kind)s::transaction_kind)
    ORDER BY command_offset DESC
    LIMIT %(limit)s
)
ORDER BY wallet_offset DESC
LIMIT %(limit)s;

-- name: commands_between
-- The limits keep the planner from reading a table as a whole: it cannot know how narrow the ranges are.
SELECT ranges.number, known.id
FROM unnest(%(lows)s::uuid[], %(highs)s::uuid[]) WITH ORDINALITY AS ranges (low, high, number)
CROSS JOIN LATERAL (
    (SELECT id FROM transactions WHERE id BETWEEN ranges.low AND ranges.high ORDER BY id LIMIT 1)
    UNION ALL
    (SELECT opened_by FROM wallets WHERE opened_by BETWEEN ranges.low AND ranges.high ORDER BY opened_by LIMIT 1)
) AS known (id);
