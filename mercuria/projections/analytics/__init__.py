"""The analytics projection: counters in PostgreSQL, their queries, and their copies in Redis and RocksDB."""
