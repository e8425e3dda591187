"""Observability of a worker: metrics, log lines, spans."""
