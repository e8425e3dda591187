"""Chaos runs over HTTP: clients use a stack while a part of it is away, and the event log judges their answers."""
