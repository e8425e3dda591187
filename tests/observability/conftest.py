"""What these tests share: a worker that logs all that it can, as JSON, while people use it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from mercuria.cli.chaos import fresh_stack
from mercuria.embedded.stack import Stack
from tests.conftest import MANY_PEOPLE
from tests.web.wire import Reply, ask

API = "/api/v1"


@dataclass
class Talkative:
    """A stack whose worker logs all that it can."""

    stack: Stack

    async def ask(self, method: str, path: str, body: Any = None, *fields: str, token: str = "") -> Reply:
        """Ask the worker. `fields` are further headers."""
        headers = [*fields, *([f"Authorization: Bearer {token}"] if token else [])]
        content = None
        if body is not None:
            headers.append("Content-Type: application/json")
            content = msgspec.json.encode(body)
        return await ask(self.stack.workers[0].port, method, API + path, *headers, body=content)

    @property
    def log(self) -> str:
        """What the worker has logged so far."""
        return self.stack.workers[0].log.path.read_text("utf-8")

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines that have these fields. The last line may not be complete yet."""
        lines = [
            msgspec.json.decode(line) for line in self.log.splitlines(keepends=True) if line.endswith("\n")
        ]
        return [line for line in lines if fields.items() <= line.items()]


@pytest.fixture(scope="package")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talkative]:
    """Return the stack."""
    settings = MANY_PEOPLE | {"MERCURIA_LOG_LEVEL": "debug", "MERCURIA_LOG_FORMAT": "json"}
    with fresh_stack(tmp_path_factory.mktemp("talkative"), 1, print, settings) as stack:
        yield Talkative(stack)
