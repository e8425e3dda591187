"""What tests of the whole share: a real stack, with two workers that start at the same moment."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from mercuria.embedded.stack import Stack
from tests.harness.stacks import fresh_stack

os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
"""Kafka is started more than a hundred times, and never runs for long: better compiled soon than well."""

SESSION_S = 3.0
os.environ["MERCURIA_KAFKA_SESSION_MS"] = f"{SESSION_S * 1000:.0f}"
"""Workers are killed more than fifty times, and each time all that follows waits until their sessions are over."""

os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(prefix="mercuria-")
"""Where pytest puts the temporary directories of this run. It closes the directory that all runs of a user would share
to other accounts, whenever a run begins: also to the account under which PostgreSQL of another run works."""

MANY_PEOPLE = {
    "MERCURIA_BCRYPT_COST": "4",
    "MERCURIA_LOGIN_LIMIT_ADDRESS": "1000000/minute",
    "MERCURIA_LOGIN_LIMIT_ACCOUNT": "1000000/minute",
    "MERCURIA_REGISTER_LIMIT_ADDRESS": "1000000/hour",
}
"""Lets tests be many people, who all have one address."""

BEHIND_NGINX = {"MERCURIA_TRUSTED_PROXIES": "127.0.0.1/32"}
"""Lets nginx say on whose behalf it asks. Other addresses of loopback are clients like all others."""


STACKS = ("live_stack", "stack", "traced", "servers", "server", "postgres")
"""Fixtures that are servers which several tests share."""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """Remove the temporary directories of a run, unless a test has failed."""
    if exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(os.environ["PYTEST_DEBUG_TEMPROOT"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run together what shares servers, and what needs none of them first.

    Servers that wait for their next test take processor time from the others: in a folder, the tests that start what
    they need run before its own servers start, and whatever uses the stack that all folders share runs at the end.
    """
    folders = {
        folder: place for place, folder in enumerate(dict.fromkeys(item.path.parent for item in items))
    }

    def order(item: pytest.Item) -> tuple[bool, int, bool]:
        scopes = _scopes_of_stacks(item)
        return "session" in scopes, folders[item.path.parent], "package" in scopes

    items.sort(key=order)


def _scopes_of_stacks(item: pytest.Item) -> set[str]:
    if not isinstance(item, pytest.Function):
        return set()
    fixtures = item._fixtureinfo.name2fixturedefs
    return {fixtures[name][-1].scope for name in STACKS if name in fixtures}


@pytest.fixture(scope="session")
def said() -> list[str]:
    """Return what the shared stack has said so far."""
    return []


@pytest.fixture(scope="session")
def live_stack(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[Stack]:
    """Return a started stack: Kafka, PostgreSQL, Redis, and two workers that are started again when they die.

    Its log grows from test to test, and whoever audits it audits what the tests before did, too. Folders whose tests
    do much and audit much have one of their own. A test may stop a worker (`worker.stop()`); it starts it again
    (`worker.start()`) before it ends.
    """
    with living(tmp_path_factory, said) as stack:
        yield stack


def living(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> AbstractContextManager[Stack]:
    """Return a stack with two workers in a new directory, which is stopped at the end."""
    return fresh_stack(tmp_path_factory.mktemp("live"), 2, said.append, MANY_PEOPLE | BEHIND_NGINX)
