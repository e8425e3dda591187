"""The errors with which a run of the harness ends."""


class StalledError(Exception):
    """What is waited for does not come; the message is one sentence that names what is missing."""
