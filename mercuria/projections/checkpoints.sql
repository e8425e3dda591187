-- How far stages are.

-- name: checkpoints
SELECT partition, read_offset, command_offset, sequence, told, sent
FROM positions
WHERE stage = %(stage)s;
