-- What the writing halves of all stages share: their places, and their outboxes.

-- name: set_up
SELECT
    set_config('timezone', 'UTC', false),
    set_config('client_encoding', 'UTF8', false),
    set_config('statement_timeout', %(statement_timeout_ms)s, false),
    set_config('idle_in_transaction_session_timeout', %(idle_timeout_ms)s, false),
    -- Few rows are looked up in large tables, whatever the statistics say: those lag behind what was just written.
    set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false);

-- name: introduce
INSERT INTO positions (stage, partition, read_offset, command_offset)
SELECT %(stage)s, partition, -1, -1
FROM unnest(%(partitions)s::integer[]) AS partition
ON CONFLICT DO NOTHING;

-- name: lock
SELECT partition, read_offset, command_offset, sequence, told, sent
FROM positions
WHERE stage = %(stage)s AND partition = ANY (%(partitions)s::integer[])
ORDER BY partition
FOR UPDATE SKIP LOCKED;

-- name: move
UPDATE positions
SET read_offset = moved.read_offset,
    command_offset = moved.command_offset,
    sequence = moved.sequence,
    told = moved.told,
    sent = moved.sent
FROM unnest(
    %(partitions)s::integer[], %(read_offsets)s::bigint[], %(command_offsets)s::bigint[], %(sequences)s::bigint[],
    %(told)s::bigint[], %(sent)s::bigint[]
) AS moved (partition, read_offset, command_offset, sequence, told, sent)
WHERE positions.stage = %(stage)s AND positions.partition = moved.partition;

-- name: put
INSERT INTO {outbox} (partition, sequence, records)
SELECT * FROM unnest(%(partitions)s::integer[], %(sequences)s::bigint[], %(records)s::bytea[]);

-- name: left
SELECT partition, sequence, records
FROM {outbox}
WHERE partition = ANY (%(partitions)s::integer[])
ORDER BY partition, sequence;

-- name: drop
DELETE FROM {outbox}
USING unnest(%(partitions)s::integer[], %(sequences)s::bigint[]) AS published (partition, sequence)
WHERE {outbox}.partition = published.partition AND {outbox}.sequence <= published.sequence;
