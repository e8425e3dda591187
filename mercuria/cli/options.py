"""Options that several commands share."""

import math
from typing import Any

import click

MOST = 2**31 - 1
"""The largest count that a command accepts: every server can handle it."""


class FiniteRange(click.FloatRange):
    """A range of numbers without infinity, and without `nan`, which passes every comparison."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def examples(*lines: str) -> str:
    """Return the epilog of a command's help with example calls, each on a line of its own."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
