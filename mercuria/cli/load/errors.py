"""The one error of a load."""


class LoadError(Exception):
    """The load cannot begin or go on; the message is what the person who started it reads."""
