"""What Redis keeps: the cache of wallets and transactions, replies, idempotency keys, leases of partitions.

All of it may vanish at any moment.
"""
