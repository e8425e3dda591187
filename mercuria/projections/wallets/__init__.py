"""The wallet projection in PostgreSQL: rows, store and queries of wallets, their events and transactions."""
