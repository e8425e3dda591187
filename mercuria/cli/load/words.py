"""Helpers for sentences: plural forms."""


def count(number: int, noun: str) -> str:
    """Return `1 wallet`, `2,000 wallets`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def were(number: int) -> str:
    """Return `1 was`, `2,000 were`."""
    return f"{number:,} {'was' if number == 1 else 'were'}"
