"""Projections of the log into PostgreSQL: rows, stores, checkpoints, outboxes and the relay.

Each projection has a package with its rows, its store and its queries.
"""
