"""Agents are added to the app that they are given, and to no other one."""

import sys
from subprocess import run

from mercuria import agents
from mercuria.config import current_settings
from mercuria.projections.rebuild import TABLES
from mercuria.tables.registration import register
from mercuria.worker import App

STAGES = {"wallets", *TABLES}


def test_two_apps_in_one_process_have_agents_of_their_own() -> None:
    apps = [App(current_settings()) for _ in range(2)]
    for app in apps:
        agents.register(app, register(app))
    for app in apps:
        assert set(app.agents) == STAGES
        assert app.worked_through.keys() == STAGES
        assert app.stage_waits.keys() == set(TABLES)
    assert not {id(agent) for agent in apps[0].agents.values()} & {
        id(agent) for agent in apps[1].agents.values()
    }


def test_importing_the_agents_makes_no_app() -> None:
    code = "import sys, mercuria.agents; sys.exit('mercuria.app' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
