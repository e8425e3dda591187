"""The verifier: checks a stack again and again while it has work and parts of it are killed.

It reads the logs as they grow, and runs the commands that an operator has: `mercuria ledger verify` and
`mercuria reconcile`, in processes of their own.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any, NamedTuple

from mercuria.embedded import processes
from mercuria.embedded.stack import Stack
from mercuria.kafka.client import event_reader
from mercuria.topics import WALLET_COMMANDS, WALLET_EVENTS
from tests.harness.audit.stack import stack_auditor, take_record
from tests.harness.audit.violations import Violations
from tests.harness.stacks import environ_without_settings

PROGRESS_EVERY_S = 2.0
CHECKED_WITHIN_S = 180.0
"""How soon a check has to succeed that a fault has made impossible."""
RETRY_AFTER_S = 5.0
COUNTS = {"ledger verify": "findings", "reconcile": "differences"}
"""The fields of the reports that count what is wrong."""


class CommandResult(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


class Verifier:
    """Checks a stack.

    Args:
        violations: where what is wrong is noted.
        errors: where it is noted that something could not be checked.
        every_s: how long to wait from one check by commands to the next.
    """

    def __init__(self, stack: Stack, violations: Violations, errors: Violations, every_s: float) -> None:
        self.done: Counter[str] = Counter()
        """How often each check was made."""
        self._stack = stack
        self._violations = violations
        self._errors = errors
        self._every_s = every_s
        self._auditor = stack_auditor(stack, violations)
        self._known: set[str] = set()

    async def follow(self) -> None:
        """Read both logs as they grow, and note at once what is wrong; until cancelled."""
        servers, checked_s = self._stack.env["MERCURIA_KAFKA"], time.monotonic()
        async with (
            event_reader(servers, WALLET_COMMANDS, from_beginning=True) as commands,
            event_reader(servers, WALLET_EVENTS, from_beginning=True) as events,
        ):
            while True:
                for reader in (commands, events):
                    for records in (await reader.getmany(timeout_ms=50, max_records=2000)).values():
                        for record in records:
                            take_record(self._auditor, record)
                if time.monotonic() >= checked_s + PROGRESS_EVERY_S:
                    checked_s = time.monotonic()
                    self._auditor.check_progress()
                    self.done["log and sums"] += 1

    async def check_again_and_again(self) -> None:
        """Run the commands one after the other, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.check("ledger verify", "--resume")
            await self.check("reconcile")

    async def check(self, command: str, *options: str) -> dict[str, Any]:
        """Run a command, again while it cannot check, and return what it reports; nothing where it never could."""
        deadline_s = time.monotonic() + CHECKED_WITHIN_S
        result = await self._run(command, *options)
        while result.code not in (0, 1) and time.monotonic() < deadline_s:
            await asyncio.sleep(RETRY_AFTER_S)
            result = await self._run(command, *options)
        with suppress(json.JSONDecodeError):
            report: dict[str, Any] = json.loads(result.out)
            self.done[command] += 1
            self._note(command, report)
            return report
        self._errors.add(
            f"`mercuria {command}` ended with {result.code}: {(result.err or result.out).strip()[-500:]}"
        )
        return {}

    def _note(self, command: str, report: dict[str, Any]) -> None:
        """Note what is wrong, and what was wrong before only once."""
        sentences = [f"{command}: {sentence}" for sentence in report["sentences"]]
        unlisted = report[COUNTS[command]] - len(sentences)
        new = [sentence for sentence in sentences if sentence not in self._known]
        self._known.update(new)
        self._violations.add_all(len(new) + (unlisted if new else 0), new)

    async def _run(self, command: str, *options: str) -> CommandResult:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mercuria", *command.split(), *options, "--json"),
            env=environ_without_settings()
            | self._stack.env
            | processes.mark(self._stack.directory.path, "verifier"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Ctrl-C in the terminal is for the soak alone.
            start_new_session=True,
        )
        try:
            out, err = await process.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return CommandResult(process.returncode or 0, out.decode(), err.decode())
