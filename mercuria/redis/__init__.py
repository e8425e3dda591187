"""The state in Redis: the cache of wallets and transactions, replies, idempotency keys, partition leases.

All of it may vanish at any time.
"""
