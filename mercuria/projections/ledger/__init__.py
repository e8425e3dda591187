"""The ledger in PostgreSQL: the rows of its entries, the store that writes them, queries, and snapshots for checks."""
