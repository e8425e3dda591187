"""The error of a load."""


class LoadError(Exception):
    """The load cannot begin or continue; the message is written for the person who started it."""
