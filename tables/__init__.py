"""The agents' state: Faust tables. Each has a changelog topic, and a RocksDB database for each partition."""
