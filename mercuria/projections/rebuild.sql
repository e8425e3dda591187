-- Emptying what can be made again from the log. The tables' owner does it, in one transaction.

-- name: be_patient
SELECT set_config('lock_timeout', %(lock_timeout_ms)s, true), set_config('timezone', 'UTC', true);

-- name: be_alone
SELECT pg_advisory_xact_lock(%(number)s);

-- name: checkpoints
SELECT stage, partition, read_offset
FROM positions
WHERE stage = ANY (%(stages)s);

-- name: hold_places
-- Workers then leave these partitions alone, instead of waiting.
SELECT FROM positions
WHERE stage = ANY (%(stages)s)
ORDER BY stage, partition
FOR UPDATE;

-- name: hold_tables
LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;

-- name: open_books
ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_are_final;

-- name: empty
TRUNCATE {tables};

-- name: close_books
ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_final;

-- name: begin_again
-- What was ever sent stays as it is: what is emitted again from the beginning is not published a second time.
UPDATE positions
SET read_offset = -1, command_offset = -1, sequence = 0, told = 0
WHERE stage = ANY (%(stages)s);

-- name: count
SELECT count(*) FROM {table};
