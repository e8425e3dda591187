"""A running stack answers whatever it is asked, and always as its OpenAPI document says."""

import re
import subprocess
from pathlib import Path

import pytest

from mercuria.embedded.stack import Stack
from tests.web.fuzz import fuzz

PHASES = ["Examples", "Coverage", "Fuzzing", "Stateful"]


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(live_stack: Stack, tmp_path: Path) -> None:
    options = ("--max-examples", "12", "--max-time", "45")
    done = fuzz(live_stack, tmp_path, *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)  # With the seed, and with what repeats a failure.
    assert done.returncode == 0
    assert re.findall(r"✅ +(\w+) \(in", done.stdout) == PHASES
    operations = re.search(r"Selected: (\d+)/(\d+)\n +Tested: (\d+)", done.stdout)
    assert operations is not None and len(set(operations.groups())) == 1
