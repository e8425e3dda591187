"""The embedded stack: a real Kafka, PostgreSQL and Redis on loopback, and the workers beside them.

`stack.Stack` is the way in. Nothing here imports Faust: the stack starts before a Faust app can.
"""
