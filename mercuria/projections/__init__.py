"""What PostgreSQL has of the log: rows made of events, the store that writes them, checkpoints, outbox and relay.

Each projection has a package: its rows, its store, its queries.
"""
