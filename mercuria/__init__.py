"""Mercuria: an open wallet and ledger backend on Kafka and Faust."""

__version__ = "0.1.0"
