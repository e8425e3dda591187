"""What options take."""

import click
import pytest
from click.testing import CliRunner

from mercuria.cli.options import FiniteRange


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "0.5", "x", ""])
def test_a_time_that_never_ends_or_is_no_number_is_refused(text: str) -> None:
    @click.command()
    @click.option("--timeout", type=FiniteRange(1))
    def command(timeout: float) -> None:
        raise AssertionError(timeout)

    found = CliRunner().invoke(command, ["--timeout", text])
    assert found.exit_code == 2 and "Invalid value for '--timeout'" in found.output
