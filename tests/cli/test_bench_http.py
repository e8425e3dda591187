"""`make bench`, of requests: that it counts what it should. It measures; nothing here looks at how fast anything is."""

import json
import socket
import subprocess
import threading
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.embedded.conftest import HARNESS, clean_environ
from tests.harness.bench.http.load import Load, Plan, read_answer

SMALL = {
    "--workers": 1,
    "--partitions": 2,
    "--wallets": 10,
    "--connections": 4,
    "--seconds": 1,
    "--rounds": 1,
    "--warm-up-s": 1,
    "--scale": 1,
}


def answer(status: str) -> bytes:
    return f'HTTP/1.1 {status} So\r\nServer: Test\r\nContent-Length: 7\r\n\r\n{{"a":1}}'.encode()


def test_the_report_has_what_was_measured_and_checked(tmp_path: Path) -> None:
    words = [str(word) for option in SMALL.items() for word in option]
    outcome = subprocess.run(
        [*HARNESS, "bench", "http", "--json", *words],
        env=clean_environ(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    report: dict[str, Any] = json.loads(outcome.stdout)
    settings = ("workers", "partitions", "wallets", "connections", "seconds", "warm_up_s")
    assert [report[name] for name in settings] == [1, 2, 10, 4, 1, 1]
    for name in ("transfers", "reads"):
        measured = report[name]
        (found,) = measured["rounds"]
        assert found["others"] == {}
        assert found["answered"] >= found["per_s"] == measured["median_per_s"] > 0
        assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]
        assert found["p50_ms"] == measured["p50_ms"]
        assert found["cpu_s"].keys() == {"kafka", "postgres", "redis", "worker-1", "load"}
        assert found["memory_mib"] > 0
    audit = report["audit"]
    assert audit["violations"] == []
    assert audit["transfers"] >= report["transfers"]["rounds"][0]["answered"]
    assert audit["wallets"] == 10
    assert audit["unsure_wallets"] == 0
    assert audit["sum_of_balances"] == audit["sum_of_deposits"] > 0
    assert report["pgbench"]["scale"] == 1
    assert report["ratio"] == report["transfers"]["median_per_s"] / report["pgbench"]["median_tps"]
    assert list(tmp_path.iterdir()) == [], "what it needs, it keeps elsewhere and removes"


@pytest.mark.parametrize("size", range(len(answer("201"))))
def test_an_answer_that_is_not_complete_is_none(size: int) -> None:
    assert read_answer(answer("201")[:size]) is None


def test_an_answer_is_read_to_its_end() -> None:
    assert read_answer(answer("201")) == (b"201", b'{"a":1}')


class Server:
    """Answers the requests of one connection at a time: with 201, with 503, by closing the connection; and again."""

    def __init__(self) -> None:
        self.given = Counter[str]()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until the client is gone, and stop."""
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the client does not close its connection"
        self._listening.close()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        for each in cycle(("201", "503", "lost")):
            if not connection.recv(65_536):
                break
            self.given[each] += 1
            if each == "lost":
                connection.close()
                connection, _ = self._listening.accept()
            else:
                connection.sendall(answer(each))
        connection.close()


def test_every_answer_is_counted_also_those_that_are_no_success() -> None:
    server = Server()
    wallets = [(36 * "a", "token"), (36 * "b", "token"), (36 * "c", "token")]
    plan = Plan("transfers", "test", "127.0.0.1", server.port, 1, 0.2, wallets, seed=1)
    outcome = Load(plan).run()
    server.close()
    given = server.given
    assert given["503"] > 0
    assert outcome.answered == given["201"]
    assert outcome.others == {"503": given["503"], "lost": given["lost"]}
    assert outcome.examples == {"503": '{"a":1}', "lost": ""}
    assert len(outcome.unsure) == 2 * (given["503"] + given["lost"])
    assert sum(outcome.moved) == 0 and any(outcome.moved)
