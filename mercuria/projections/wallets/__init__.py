"""Wallets, their events and transactions in PostgreSQL: the rows, the store that writes them, the queries."""
