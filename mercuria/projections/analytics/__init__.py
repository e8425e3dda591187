"""The figures of analytics: counted in PostgreSQL, queried, and copied to Redis and RocksDB."""
