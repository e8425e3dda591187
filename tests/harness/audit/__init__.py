"""Audits of a stack at rest or under load, made from the outside: they share no state with the workers."""
