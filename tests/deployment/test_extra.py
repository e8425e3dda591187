"""Mercuria without the extra `embedded`: all that starts no servers works, and the rest says what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

from mercuria.cli.commands import EMBEDDED, EXTRA, MODULES

PLAIN = sorted(MODULES.keys() - EMBEDDED)

WITHOUT_EXTRA = f"import sys; sys.modules.update(dict.fromkeys({EXTRA!r}));"
"""Begins a program that cannot import what the extra brings."""


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program where the extra is not installed."""
    command = [sys.executable, "-c", WITHOUT_EXTRA + program, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def mercuria(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where the extra is not installed."""
    return run("from mercuria.cli import main; main()", "--data-dir", str(tmp_path), *words)


def test_a_worker_and_all_that_starts_no_servers_need_no_extra() -> None:
    modules = [f"mercuria.cli.{MODULES[name]}" for name in PLAIN]
    packages = ["mercuria.app", "mercuria.agents", "mercuria.tables", "mercuria.web"]
    program = (
        "import importlib, pkgutil\n"
        "for name in sys.argv[1:]:\n"
        "    module = importlib.import_module(name)\n"
        "    for inner in pkgutil.walk_packages(getattr(module, '__path__', ()), name + '.'):\n"
        "        importlib.import_module(inner.name)\n"
    )
    done = run(program, *packages, *modules)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["up", "join"])
def test_a_command_that_needs_the_extra_says_what_to_install(tmp_path: Path, command: str) -> None:
    done = mercuria(tmp_path, command, "--workers", "2", "anything")
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"mercuria: `mercuria {command}` needs ")
    assert sentence.endswith(" `pip install 'mercuria[embedded]'`.")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_lists_what_it_has_and_what_it_lacks(tmp_path: Path) -> None:
    done = mercuria(tmp_path, "--help")
    assert done.returncode == 0
    listed = {words[0]: words[1:] for line in done.stdout.splitlines() if (words := line.split())}
    needing = {name for name in MODULES if listed[name] == ["Needs", "mercuria[embedded]."]}
    assert needing == EMBEDDED


def test_keys_are_made_without_the_extra(tmp_path: Path) -> None:
    done = mercuria(tmp_path, "keys", "create")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "token-keys.json").exists()
