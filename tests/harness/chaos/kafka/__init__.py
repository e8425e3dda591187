"""Chaos runs on the log alone: a producer of commands, faults meanwhile, and an audit of all that came of them."""
