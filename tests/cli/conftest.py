"""What the tests of the commands share: a stack with one worker, and the command line as a process of its own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mercuria.cli import wallet as tables
from mercuria.cli.preparing import prepare
from mercuria.config import read_stack_env
from mercuria.embedded.ports import free_port
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import event_reader
from mercuria.topics import WALLET_COMMANDS
from tests.embedded.conftest import clean_environ, eventually

BERKA = Path(__file__).parents[1] / "data" / "berka.csv"
HEADER = "transaction_id,date,account,operation,amount,balance_after,note"
TIMEOUT_S = 120
MERCURIA = (
    sys.executable,
    "-c",
    # pytest itself may have been started with SIGINT ignored, and its children inherit that.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "import mercuria.cli; mercuria.cli.main()",
)


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs `mercuria` with a data directory."""

    def __init__(self, data_dir: Path, scratch: Path) -> None:
        self.data_dir = data_dir
        self._scratch = scratch
        self._files = 0

    def __call__(self, *words: str | Path) -> Said:
        """Run `mercuria WORDS` to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=TIMEOUT_S)
        return Said(process.returncode, out, err)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start `mercuria WORDS`, where Ctrl-C (SIGINT) reaches it."""
        return subprocess.Popen(
            [*MERCURIA, "--data-dir", str(self.data_dir), *map(str, words)],
            env=clean_environ(),
            cwd=self._scratch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def file(self, *rows: str) -> Path:
        """Return a statement with these rows."""
        self._files += 1
        path = self._scratch / f"statement-{self._files}.csv"
        path.write_text("\n".join((HEADER, *rows)) + "\n", "utf-8")
        return path

    def wallets(self, *words: str) -> list[dict[str, Any]]:
        """Return what `mercuria wallet list WORDS --json` prints, once the tables have every command in Kafka.

        A worker writes its tables a moment after it has answered.
        """
        with ThreadPoolExecutor(1) as pool:
            ends = pool.submit(asyncio.run, self._command_ends()).result()
        eventually(lambda: all(self._decided(partition) >= end for partition, end in ends.items()), TIMEOUT_S)
        return self._listed(*words)

    async def _command_ends(self) -> dict[int, int]:
        servers = read_stack_env(self.data_dir)["MERCURIA_KAFKA"]
        async with event_reader(servers, WALLET_COMMANDS) as reader:
            ends = await reader.end_offsets(reader.assignment())
        return {tp.partition: end for tp, end in ends.items() if end}

    def _decided(self, partition: int) -> int:
        with tables._newest(tables._copies(self.data_dir, partition)) as database:
            return tables._offset(database) + 1

    def _listed(self, *words: str) -> list[dict[str, Any]]:
        said = self("wallet", "list", *words, "--json")
        assert said.code == 0, said.err
        wallets: list[dict[str, Any]] = json.loads(said.out)
        return wallets

    def wallet_of(self, account: str, currency: str) -> dict[str, Any]:
        """Return the wallet of a loaded account."""
        (wallet,) = (
            each for each in self.wallets("--currency", currency) if each["metadata"] == {"account": account}
        )
        return wallet


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a started stack with one worker; each test loads into a currency or an account of its own."""
    data_dir = tmp_path_factory.mktemp("cli") / "data"
    port = free_port(set())
    with Stack(data_dir, workers=1, http_port=port, prepare=prepare, environ=clean_environ()) as started:
        yield started


@pytest.fixture
def mercuria(stack: Stack, tmp_path: Path) -> CommandLine:
    """Return the command line of the running stack."""
    return CommandLine(stack.directory.path, tmp_path)


@pytest.fixture
def elsewhere(tmp_path: Path) -> CommandLine:
    """Return the command line of a data directory in which nothing has ever run."""
    return CommandLine(tmp_path / "data", tmp_path)


def lines(text: str) -> Sequence[str]:
    """Return the lines of a text without what indents them."""
    return [line.strip() for line in text.splitlines()]
