"""Small things about words."""


def count(number: int, noun: str) -> str:
    """Return `1 wallet`, `2,000 wallets`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
