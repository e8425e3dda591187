"""Registers Mercuria's commands with Faust's command line."""

from mercuria.cli import (
    bench,
    chaos,
    join,
    keys,
    ledger,
    load,
    migrate,
    rebuild,
    reconcile,
    soak,
    up,
    user,
    wallet,
)

__all__ = [
    "bench",
    "chaos",
    "join",
    "keys",
    "ledger",
    "load",
    "migrate",
    "rebuild",
    "reconcile",
    "soak",
    "up",
    "user",
    "wallet",
]
