"""What the tests of locks, cache, keys and replies share: a Redis that can be stopped, killed, emptied and set back."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis as Client

from mercuria.embedded.redis import Redis
from mercuria.embedded.stack import Stack
from mercuria.redis.client import connect
from tests.embedded.conftest import only

WITHIN_S = 10.0


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Return a started Redis."""
    data_dir = tmp_path_factory.mktemp("redis") / "data"
    with Stack(data_dir, environ=only("redis"), supervise=False) as stack:
        yield stack.redis


@pytest.fixture
async def redis(server: Redis) -> AsyncIterator[Client]:
    """Return a client of an empty Redis."""
    client = connect(server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def files(server: Redis, tmp_path: Path) -> "Files":
    """Return what Redis has on disk."""
    return Files(server, tmp_path / "kept")


class Files:
    """What Redis has on disk: it can be kept, and given back to a Redis that has been killed."""

    def __init__(self, server: Redis, kept: Path) -> None:
        self._server = server
        self._kept = kept

    @property
    def _path(self) -> Path:
        return self._server.directory.subdirectory("redis")

    def keep(self) -> None:
        """Keep what is there now."""
        shutil.copytree(self._path, self._kept)

    def set_back(self) -> None:
        """Kill Redis, and start it with what was kept."""
        self._server.kill()
        shutil.rmtree(self._path)
        shutil.copytree(self._kept, self._path, dirs_exist_ok=True)
        self._server.start()


@contextmanager
def stopped(server: Redis) -> Iterator[None]:
    """Freeze Redis during the block."""
    server.suspend()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def away(server: Redis) -> Iterator[None]:
    """Kill Redis, and start it again with its data after the block."""
    server.kill()
    try:
        yield
    finally:
        server.start()


async def until(look: Callable[[], object | Awaitable[object]], within_s: float = WITHIN_S) -> None:
    """Look again and again until what is seen is true."""
    async with asyncio.timeout(within_s):
        while True:
            seen = look()
            if await seen if isinstance(seen, Awaitable) else seen:
                return
            await asyncio.sleep(0.01)
