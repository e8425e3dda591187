"""`make chaos` as a person types it."""

import json
import os
import subprocess
from pathlib import Path

from tests.embedded.conftest import HARNESS


def chaos(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run `make chaos`, and return how it ended and what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MERCURIA_")}
    command = [*HARNESS, "chaos", *arguments, "--data-dir", str(data_dir)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=170)


def test_an_installation_that_exists_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "stack.env").write_text("MERCURIA_KAFKA=127.0.0.1:9092\n")
    ended = chaos("kill-workers", data_dir=tmp_path)
    assert ended.returncode == 2
    assert f"mercuria: {tmp_path} is not empty; name a directory" in ended.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["stack.env"]


def test_a_short_run_prints_its_figures(tmp_path: Path) -> None:
    ended = chaos(
        "kill-workers", "--kills=1", "--commands=2000", "--seed=7", "--json", data_dir=tmp_path / "data"
    )
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["seed"] == 7 and figures["faults"] == 1
    assert figures["audit"]["violations"] == [] and figures["audit"]["commands"] > 2000
    assert "Seed 7." in ended.stderr
