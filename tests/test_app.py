"""A worker is put together by `create_app`: an import reads no setting, opens nothing, and makes no app."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, run

from mercuria.app import create_app
from mercuria.config import current_settings
from mercuria.projections.registry import PROJECTIONS

REPOSITORY = Path(__file__).parents[1]


def test_apps_of_one_process_share_nothing_that_their_settings_decide(tmp_path: Path) -> None:
    settings = [replace(current_settings(), data_dir=tmp_path, partitions=count) for count in (3, 5)]
    apps = [create_app(each) for each in settings]
    for app, each in zip(apps, settings, strict=True):
        assert app.settings is each
        assert app.conf.topic_partitions == each.partitions
        assert set(app.agents) == {"wallets", *PROJECTIONS}
        assert set(app.tables) == {"balances", "receipts", "counters"}
    first, second = apps
    for name in ("redis", "database", "locks", "replies", "announcer"):
        assert getattr(first, name) is not getattr(second, name)


def test_an_import_reads_no_settings_and_makes_no_app() -> None:
    program = (
        "import gc, sys, mercuria.app, mercuria.config\n"
        "from mercuria.worker import App\n"
        "assert mercuria.config._current is None\n"
        "assert not [each for each in gc.get_objects() if isinstance(each, App)]\n"
    )
    environ = os.environ | {"MERCURIA_PARTITIONS": "none"}
    done = run([sys.executable, "-c", program], env=environ, stderr=PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_fausts_own_command_line_finds_the_app(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faust", "-A", "mercuria.app", "agents"]
    environ = os.environ | {"MERCURIA_DATA_DIR": str(tmp_path)}
    done = run(command, env=environ, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("wallets", *PROJECTIONS))


def test_a_name_that_the_module_lacks_is_no_app() -> None:
    assert not hasattr(sys.modules["mercuria.app"], "tables")
