-- The writing half of analytics. What is returned is what stands there now, for those who copy it.

-- name: add_days
INSERT INTO daily_totals AS known (day, currency, kind, partition, count, volume)
SELECT DATE '1970-01-01' + added.day, currency, kind, partition, count, volume
FROM unnest(
    %(days)s::integer[], %(currencies)s::text[], %(kinds)s::transaction_kind[], %(partitions)s::integer[],
    %(counts)s::bigint[], %(volumes)s::numeric[]
) AS added (day, currency, kind, partition, count, volume)
ON CONFLICT (day, currency, kind, partition) DO UPDATE
SET count = known.count + EXCLUDED.count, volume = known.volume + EXCLUDED.volume
RETURNING partition, day - DATE '1970-01-01', currency, kind::text, count, volume::text;

-- name: add_active
INSERT INTO daily_active_wallets AS known (day, currency, wallet_id, partition, is_undated)
SELECT DATE '1970-01-01' + added.day, currency, wallet_id, partition, is_undated
FROM unnest(
    %(days)s::integer[], %(currencies)s::text[], %(ids)s::uuid[], %(partitions)s::integer[], %(undated)s::boolean[]
) AS added (day, currency, wallet_id, partition, is_undated)
ON CONFLICT (day, currency, wallet_id, partition) DO UPDATE
SET is_undated = true
WHERE EXCLUDED.is_undated AND NOT known.is_undated;

-- name: add_effective
INSERT INTO effective_totals AS known (day, recorded_on, currency, kind, partition, count, volume)
SELECT DATE '1970-01-01' + added.day, DATE '1970-01-01' + recorded_on, currency, kind, partition, count, volume
FROM unnest(
    %(days)s::integer[], %(recorded_on)s::integer[], %(currencies)s::text[], %(kinds)s::transaction_kind[],
    %(partitions)s::integer[], %(counts)s::bigint[], %(volumes)s::numeric[]
) AS added (day, recorded_on, currency, kind, partition, count, volume)
ON CONFLICT (day, recorded_on, currency, kind, partition) DO UPDATE
SET count = known.count + EXCLUDED.count, volume = known.volume + EXCLUDED.volume;

-- name: add_effective_active
INSERT INTO effective_active_wallets (day, currency, wallet_id, partition)
SELECT DATE '1970-01-01' + added.day, currency, wallet_id, partition
FROM unnest(%(days)s::integer[], %(currencies)s::text[], %(ids)s::uuid[], %(partitions)s::integer[])
    AS added (day, currency, wallet_id, partition)
ON CONFLICT DO NOTHING;

-- name: add_users
INSERT INTO user_totals AS known (user_id, currency, kind, direction, partition, count, volume, last_activity_at)
SELECT * FROM unnest(
    %(ids)s::uuid[], %(currencies)s::text[], %(kinds)s::transaction_kind[], %(directions)s::entry_direction[],
    %(partitions)s::integer[], %(counts)s::bigint[], %(volumes)s::numeric[], %(times)s::timestamptz[]
)
ON CONFLICT (user_id, currency, kind, direction, partition) DO UPDATE
SET count = known.count + EXCLUDED.count,
    volume = known.volume + EXCLUDED.volume,
    last_activity_at = GREATEST(known.last_activity_at, EXCLUDED.last_activity_at)
RETURNING partition, replace(user_id::text, '-', ''), currency, kind::text, direction::text, count, volume::text,
    round(extract(epoch FROM last_activity_at) * 1000)::bigint;
