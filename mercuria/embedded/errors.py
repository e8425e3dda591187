"""The errors of the embedded stack, with messages for the person who started it."""


class StackError(Exception):
    """The stack cannot continue; the message is the sentence to show, and says what to do."""


class StackStopped(StackError):
    """The stack was asked to stop while it was still starting."""

    def __init__(self) -> None:
        super().__init__("The stack was stopped while it was starting.")
