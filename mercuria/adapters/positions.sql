-- How far stages are.

-- name: places
SELECT partition, read_offset, command_offset
FROM positions
WHERE stage = %(stage)s;
