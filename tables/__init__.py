"""What the agents know: Faust tables, each a changelog topic with a RocksDB database per partition in front of it."""
