"""The HTTP API is added to the app that it is given, and to no other one."""

import importlib
import pkgutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from mercuria import web
from mercuria.auth.token_keys import JwkSet, new_key
from mercuria.auth.tokens import Caller, Tokens
from mercuria.config import Settings, current_settings
from mercuria.embedded.ports import free_port
from mercuria.tables import registration
from mercuria.web.endpoint import ENDPOINTS
from mercuria.web.routes import MODULES
from mercuria.worker import App
from tests.web.wire import Reply, ask

PARTITIONS = (3, 5)
LEDGER = "/api/v1/ledger?from=2026-02-01&to=2026-01-01"
"""A request that only a caller's token gets refused for its period, which needs no other server."""


class Served(NamedTuple):
    """An app whose HTTP API is served."""

    app: App
    port: int

    async def get(self, path: str, *headers: str) -> Reply:
        """Ask it."""
        return await ask(self.port, "GET", path, *headers)


def settings(directory: Path, partitions: int, port: int) -> Settings:
    """Return settings of an installation with its own keys."""
    keys = directory / f"keys-{partitions}.json"
    keys.write_text(JwkSet((new_key(int(time.time())),)).as_text())
    return replace(
        current_settings(),
        data_dir=directory,
        partitions=partitions,
        replication=partitions,
        token_keys_file=keys,
        http_port=port,
        worker_port=port,
    )


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[list[Served]]:
    """Serve two apps with different settings in this process."""
    ports = [first := free_port(), free_port([first])]
    apps = [
        App(settings(directory, partitions, port)) for partitions, port in zip(PARTITIONS, ports, strict=True)
    ]
    for app in apps:
        web.register(app, registration.register(app))
    async with AsyncExitStack() as stack:
        for app in apps:
            server = app.web.server
            await server.start()
            stack.push_async_callback(server.stop)
            await server.listen("127.0.0.1", app.settings.worker_port)
        yield [Served(app, app.settings.worker_port) for app in apps]


async def test_two_apps_in_one_process_have_routes_of_their_own(tmp_path: Path) -> None:
    async with served(tmp_path) as apps:
        for each, partitions in zip(apps, PARTITIONS, strict=True):
            paths = {route.resource.canonical for route in each.app.web.web_app.router.routes()}
            assert {endpoint.path for endpoint in ENDPOINTS} < paths
            assert {"/health/live", "/metrics", "/docs", "/console"} < paths
            channels = (await each.get("/api/v1/asyncapi.json")).document["channels"]
            bindings = [channel["bindings"]["kafka"] for channel in channels.values()]
            assert {(kafka["partitions"], kafka["replicas"]) for kafka in bindings} == {
                (partitions, partitions)
            }
            page = (await each.get("/docs/topics")).body.decode()
            assert f"<dt>Partitions</dt><dd>{partitions}</dd>" in page


async def test_each_app_knows_the_callers_of_its_own_keys(tmp_path: Path) -> None:
    async with served(tmp_path) as apps:
        for issuer in apps:
            tokens = Tokens(issuer.app.settings)
            assert (await issuer.get("/.well-known/jwks.json")).document == tokens.jwks()
            authorization = f"Authorization: Bearer {tokens.issue(Caller(uuid4(), 'user'))}"
            codes = {each: (await each.get(LEDGER, authorization)).code for each in apps}
            assert codes == {each: "invalid_period" if each is issuer else "invalid_token" for each in apps}


async def test_each_app_has_its_own_health(tmp_path: Path) -> None:
    async with served(tmp_path) as (first, second):
        first.app.web.server._gate.leaving = True
        reasons = [(await each.get("/health/ready")).document["reasons"] for each in (first, second)]
        assert ["the worker is stopping" in each for each in reasons] == [True, False]


def test_no_module_with_endpoints_is_left_out() -> None:
    declared = [each.path for each in ENDPOINTS]
    for module in pkgutil.iter_modules(web.__path__, f"{web.__name__}."):
        importlib.import_module(module.name)
    assert [each.path for each in ENDPOINTS] == declared
    assert {each.handler.__module__ for each in ENDPOINTS} == {each.__name__ for each in MODULES}
