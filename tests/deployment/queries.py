"""Asks a real Prometheus, which watches a stack under load, all that the dashboard and the alerts ask.

    python -m tests.deployment.queries    # on a stack of its own, as `make queries` does

Prometheus and the node exporter are those of the machine or of `make prometheus`, with the repository's configuration:
only the targets are others, and all is looked at each second.
"""

import asyncio
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout

from mercuria.domain.commands import Transfer
from mercuria.embedded.ports import LOOPBACK, free_port
from mercuria.embedded.stack import Stack
from tests.conftest import MANY_PEOPLE
from tests.deployment.monitoring import (
    COMPOSE,
    PROMETHEUS,
    Question,
    program,
    questions_of_alerts,
    questions_of_panels,
)
from tests.harness.stacks import PARTITIONS, fresh_stack
from tests.protocol.kafka_client import KafkaClient, open_kafka_client
from tests.web.api_client import ApiClients, settle, until
from tests.web.wire import ask

LOOK_EVERY_S = 1
PATIENCE_S = 90.0
PROVOKED = "MercuriaDeadLetters"
"""Fires in time, as dead letters come."""
FROZEN_AT_MOST_S = 7.0
"""Shorter than the life of a lock and than Kafka's session: nobody takes the partitions over."""


class Prometheus:
    """A Prometheus that runs.

    Args:
        session: to ask with.
        port: where it is.
    """

    def __init__(self, session: ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://{LOOPBACK}:{port}"
        self._began_s = time.time()

    async def ready(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(ClientError):
                    async with self._session.get(f"{self._url}/-/ready") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.1)

    async def complaints(self) -> list[str]:
        """Return what is wrong at the moment, a sentence each."""
        found = [f"{job} is not reached: {error}" for job, error in await self._unreachable()]
        found += [f"{name} cannot be evaluated: {error}" for name, error in await self._unsound_rules()]
        for question in (*questions_of_alerts(), *questions_of_panels()):
            found += [f"{question.asked_by}: {what}" for what in await self._unknown_to(question)]
        for question in questions_of_panels():
            if not await self._is_answered(question.expression):
                found.append(f"{question.asked_by}: finds nothing by {question.expression}")
        return found + await self._wrong_alerts()

    async def _wrong_alerts(self) -> list[str]:
        """Return what is wrong with alerts that fire: the load makes one do so."""
        alerts = (await self._get("alerts"))["alerts"]
        texts = [text for alert in alerts for text in alert["annotations"].values()]
        wrong = [text for text in texts if "<error expanding template" in text]
        firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
        return wrong + [f"{name} does not fire" for name in {PROVOKED} - firing]

    async def _unreachable(self) -> list[tuple[str, str]]:
        targets = (await self._get("targets"))["activeTargets"]
        return [(each["labels"]["instance"], each["lastError"]) for each in targets if each["health"] != "up"]

    async def _unsound_rules(self) -> list[tuple[str, str]]:
        groups = (await self._get("rules"))["groups"]
        states = {each["name"]: each for group in groups for each in group["rules"]}
        wanted = [question.asked_by for question in questions_of_alerts()]
        return [(name, "it is not there") for name in wanted if name not in states] + [
            (name, each.get("lastError", each["health"]))
            for name, each in states.items()
            if each["health"] != "ok"
        ]

    async def _unknown_to(self, question: Question) -> list[str]:
        """Return what a question takes for granted and does not find: metrics, and their labels."""
        labels = {name: await self._labels(name) for name in question.metrics}
        wrong = [f"there is no {name}" for name, its in labels.items() if not its]
        for name, chosen_by in question.selectors:
            if labels.get(name) and not chosen_by <= labels[name]:
                wrong.append(f"{name} has no {chosen_by - labels[name]}")
        if not wrong and not question.groupings <= set().union(*labels.values()):
            wrong.append(f"nothing has {question.groupings - set().union(*labels.values())}")
        return wrong

    async def _labels(self, name: str) -> set[str]:
        return {label for series in await self._get("series", **{"match[]": name}) for label in series}

    async def _is_answered(self, expression: str) -> bool:
        times = {"start": self._began_s, "end": time.time(), "step": LOOK_EVERY_S}
        result = (await self._get("query_range", query=expression, **times))["result"]
        return any(math.isfinite(float(value)) for series in result for _, value in series["values"])

    async def _get(self, path: str, **parameters: Any) -> Any:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
            assert answer["status"] == "success", (parameters, answer)
            return answer["data"]


@asynccontextmanager
async def watching(stack: Stack, directory: Path) -> AsyncIterator[Prometheus]:
    """Let Prometheus watch a stack and this machine; `directory` holds its files."""
    with ExitStack() as stop:
        node = free_port()
        stop.enter_context(
            running(
                "prometheus-node-exporter",
                *of_node_exporter(),
                f"--web.listen-address={LOOPBACK}:{node}",
                "--log.level=error",
            )
        )
        configuration = directory / "prometheus.yml"
        ports = {"mercuria": [worker.port for worker in stack.workers], "node": [node]}
        configuration.write_text(yaml.safe_dump(with_targets(ports)))
        port = free_port([node])
        where = (f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address={LOOPBACK}:{port}")
        stop.enter_context(
            running("prometheus", f"--config.file={configuration}", *where, "--log.level=warn")
        )
        async with ClientSession(timeout=ClientTimeout(PATIENCE_S)) as session:
            prometheus = Prometheus(session, port)
            await prometheus.ready()
            yield prometheus


@contextmanager
def running(name: str, *arguments: str) -> Iterator[None]:
    """Let a program run."""
    process = subprocess.Popen([program(name), *arguments], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def of_node_exporter() -> list[str]:
    """Return what the compose file tells the node exporter, but for where the machine's files are in a container."""
    command = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["node-exporter"]["command"]
    return [each for each in command if not each.startswith("--path.")]


def with_targets(ports: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return Prometheus's configuration with other targets, by job; it looks often."""
    configuration: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    every = f"{LOOK_EVERY_S}s"
    configuration["global"] |= {
        "scrape_interval": every,
        "scrape_timeout": every,
        "evaluation_interval": every,
    }
    configuration["rule_files"] = [str(PROMETHEUS / name) for name in configuration["rule_files"]]
    for alertmanagers in configuration["alerting"]["alertmanagers"]:
        for files in alertmanagers["file_sd_configs"]:
            files["files"] = [str(PROMETHEUS / name) for name in files["files"]]
    for job in configuration["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"{LOOPBACK}:{port}" for port in ports[job["job_name"]]]}]
    return configuration


async def complaints(stack: Stack, directory: Path) -> list[str]:
    """Return what Prometheus still does not find after a while, while the stack has some of everything to do."""
    await settle(stack)
    async with watching(stack, directory) as prometheus:
        loading = asyncio.create_task(load(stack))
        try:
            until_s = time.monotonic() + PATIENCE_S
            while (found := await prometheus.complaints()) and time.monotonic() < until_s:
                if loading.done():
                    loading.result()
                await asyncio.sleep(LOOK_EVERY_S)
            return found
        finally:
            loading.cancel()
            await asyncio.wait([loading])


async def load(stack: Stack) -> None:
    """Let something of everything happen until cancelled: it is applied, refused, cached, in flight, or no command."""
    clients = ApiClients(stack)
    zoe = clients.user()
    source, target = await zoe.wallet(1_000_000), await zoe.wallet()
    async with open_kafka_client(stack) as kafka_client:
        is_told = False
        while True:
            # On a machine that has much to do, what freezes for a moment may go unnoticed.
            is_told = is_told or await let_money_be_in_flight(stack, kafka_client)
            await zoe.transfer(source, target, 1)
            await zoe.withdraw(target, 1_000_000)
            for worker in range(len(stack.workers)):
                await zoe.shown(source, worker=worker)
            await zoe.get(f"/wallets/{uuid4()}")
            await kafka_client.put(b"{", key=None, partition=0)
            await asyncio.sleep(0.2)


async def let_money_be_in_flight(stack: Stack, kafka_client: KafkaClient) -> bool:
    """Freeze a worker until the other one tells of money that has left its wallets; tell whether it did."""
    first, second = stack.workers
    wallets = [await kafka_client.wallet(100, partition=number) for number in range(PARTITIONS)]
    second.suspend()
    try:
        for source in wallets:
            for target in wallets:
                if source != target:
                    await kafka_client.send(transfer(source, target))
        async with asyncio.timeout(FROZEN_AT_MOST_S):
            return await until(partial(has_told_of_money_in_flight, first.port), bool)
    except TimeoutError:
        return False
    finally:
        second.resume()


def transfer(source: UUID, target: UUID) -> Transfer:
    """Return a transfer of one minor unit."""
    return Transfer(id=uuid4(), wallet_id=source, to_wallet_id=target, amount=1, currency="EUR")


async def has_told_of_money_in_flight(port: int) -> bool:
    """Return whether a worker tells of money in flight."""
    lines = (await ask(port, "GET", "/metrics")).body.decode().splitlines()
    told = [line.rpartition(" ")[2] for line in lines if line.startswith("mercuria_in_flight_minor_units{")]
    return any(float(value) > 0 for value in told)


def main() -> int:
    """Ask about a stack of its own, and tell what is not answered."""
    with tempfile.TemporaryDirectory(prefix="mercuria-queries-") as temporary:
        directory = Path(temporary)
        (directory / "prometheus").mkdir()
        with fresh_stack(directory / "data", 2, print, MANY_PEOPLE) as stack:
            found = asyncio.run(complaints(stack, directory / "prometheus"))
    asked = len(questions_of_panels()), len(questions_of_alerts())
    print(
        *found, f"{asked[0]} queries of the dashboard, {asked[1]} alerts: {len(found)} complaints.", sep="\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
