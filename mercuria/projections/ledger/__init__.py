"""The ledger projection in PostgreSQL: its rows, store and queries, and snapshots for verification."""
