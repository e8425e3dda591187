"""What can go wrong with the embedded stack, said to the person who started it."""


class StackError(Exception):
    """The stack cannot go on; the message is the sentence to show, and says what to do about it."""


class StackStopped(StackError):
    """Somebody asked the stack to stop while it was still starting."""

    def __init__(self) -> None:
        super().__init__("The stack was stopped while it was starting.")
