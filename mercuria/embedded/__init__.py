"""The embedded stack: a real Kafka, PostgreSQL and Redis on loopback, and the workers beside them.

The entry point is `stack.Stack`. This package does not import Faust, because the stack starts before a Faust
app can.
"""
