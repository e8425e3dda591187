"""`make chaos`: breaks a stack of its own under load, and checks that nothing is lost or doubled.

In `kafka`, the load are commands in the log; in `http`, requests to the HTTP API.
"""
