"""What keeps `mercuria up` from starting: each is one sentence on the command line, and exit code 2."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.conftest import MERCURIA, NOWHERE, CommandLine, clean_environ, eventually, survivors

ELSEWHERE = clean_environ() | NOWHERE


def refusal(outcome: tuple[int, str], code: int = 2) -> str:
    """Return the sentence of a refused start: the only line that says why."""
    ended, said = outcome
    assert ended == code, said
    assert "Traceback" not in said
    sentences = [line for line in said.splitlines() if line.startswith("mercuria: ")]
    assert sentences == said.splitlines()[-1:], said
    return sentences[0].removeprefix("mercuria: ")


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Return a port that a program listens on: this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken(tmp_path: Path, command_line: CommandLine, taken_port: int) -> None:
    said = refusal(command_line.run("up", "--data-dir", str(tmp_path), "--http-port", str(taken_port)))
    assert said.startswith(f"Port {taken_port} is taken by ")
    assert said.endswith("; choose another one with --http-port.")
    environ = ELSEWHERE | {"MERCURIA_HTTP_PORT": str(taken_port)}
    said = refusal(command_line.run("up", "--data-dir", str(tmp_path), environ=environ))
    assert said.startswith(f"Port {taken_port} is taken by ")


def test_a_directory_that_cannot_be_written(command_line: CommandLine) -> None:
    # The kernel's own file system, where root may make nothing either.
    said = refusal(command_line.run("up", "--data-dir", "/sys/mercuria", environ=ELSEWHERE))
    assert said.startswith("The directory /sys/mercuria cannot be written: ")


def test_a_directory_that_cannot_exist(command_line: CommandLine) -> None:
    said = refusal(command_line.run("up", "--data-dir", "/proc/mercuria", environ=ELSEWHERE))
    assert said.startswith("The directory /proc/mercuria cannot be written: ")


def test_a_directory_that_is_a_file(tmp_path: Path, command_line: CommandLine) -> None:
    file = tmp_path / "file"
    file.write_text("taken")
    said = refusal(command_line.run("up", "--data-dir", str(file), environ=ELSEWHERE))
    assert said.startswith(f"The directory {file} cannot be written: ")


def test_a_disk_without_space(tmp_path: Path, command_line: CommandLine) -> None:
    mount = 'mount -t tmpfs -o size=64m tmpfs "$1" && shift && exec "$@"'
    # A name space of its own, so that the mount is gone with the process.
    up = command_line.start(
        "unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh", str(tmp_path),
        *MERCURIA, "up", "--data-dir", str(tmp_path),
        environ=ELSEWHERE,
    )  # fmt: skip
    said = refusal((up.finish(), "\n".join(up.said)))
    assert (
        said == f"There is no disk space for {tmp_path}: 63 MiB are free and at least 512 MiB are needed."
        or (
            said == f"There is no disk space for {tmp_path}: 64 MiB are free and at least 512 MiB are needed."
        )
    )


def test_a_first_start_without_network(tmp_path: Path, command_line: CommandLine) -> None:
    environ = clean_environ() | {
        "MERCURIA_CACHE_DIR": str(tmp_path / "cache"),
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "https_proxy": "http://127.0.0.1:1",
    }
    said = refusal(command_line.run("up", "--data-dir", str(tmp_path / "data"), environ=environ))
    assert said.startswith("Kafka's jars could not be downloaded (")
    assert "Connection refused" in said
    assert said.endswith("): the first start needs the network, later ones do not.")
    assert survivors(tmp_path) == []
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


def test_options_of_java_that_do_not_end(tmp_path: Path, command_line: CommandLine) -> None:
    environ = clean_environ() | {"JDK_JAVA_OPTIONS": "-Da='b"}
    said = refusal(command_line.run("up", "--data-dir", str(tmp_path), environ=environ))
    assert said == """JDK_JAVA_OPTIONS="-Da='b" cannot be used: it must be Java's options, such as -Xmx2g."""


def test_a_cache_that_cannot_be_written(tmp_path: Path, command_line: CommandLine) -> None:
    environ = clean_environ() | {"MERCURIA_CACHE_DIR": "/sys/mercuria"}
    said = refusal(command_line.run("up", "--data-dir", str(tmp_path), environ=environ))
    assert said.startswith("The directory /sys/mercuria/kafka-")
    assert " cannot be written: " in said


def test_ctrl_c_during_a_download_that_hangs_is_no_failure(
    tmp_path: Path, command_line: CommandLine, silent_proxy: str
) -> None:
    environ = ELSEWHERE | {
        "MERCURIA_KAFKA": "",
        "MERCURIA_CACHE_DIR": str(tmp_path / "cache"),
        "HTTPS_PROXY": silent_proxy,
        "https_proxy": silent_proxy,
    }
    up = command_line.start(*MERCURIA, "up", "--data-dir", str(tmp_path / "data"), environ=environ)
    up.wait_for("Kafka is starting.")
    eventually(lambda: (tmp_path / "cache").exists() and any((tmp_path / "cache").rglob("*.jar")))
    up.send(signal.SIGINT)
    assert up.finish(timeout_s=5) == 0
    assert up.said[-1] == "Stopped."
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


@pytest.mark.parametrize(
    ("name", "value", "may_be"),
    [
        ("MERCURIA_PARTITIONS", "0", "a whole number from 1 to 1024"),
        ("MERCURIA_HTTP_PORT", "70000", "a whole number from 1 to 65535"),
        ("MERCURIA_KAFKA", "nonsense", "host:port, or several separated by commas"),
        ("MERCURIA_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_setting_that_cannot_be_used(
    tmp_path: Path, command_line: CommandLine, name: str, value: str, may_be: str
) -> None:
    said = refusal(
        command_line.run("up", "--data-dir", str(tmp_path), environ=ELSEWHERE | {name: value}), code=2
    )
    assert said == f"{name}={value!r} cannot be used: it must be {may_be}."
    assert survivors(tmp_path) == []


def test_a_url_that_cannot_be_used_keeps_its_password(tmp_path: Path, command_line: CommandLine) -> None:
    environ = ELSEWHERE | {"MERCURIA_DATABASE": "mysql://root:hunter2@127.0.0.1/mercuria"}
    said = refusal(command_line.run("up", "--data-dir", str(tmp_path), environ=environ))
    assert said.startswith("MERCURIA_DATABASE=") and "postgresql://" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("arguments", [["--workers", "65"], ["--http-port", "0"], ["--nonsense"]])
def test_an_option_that_cannot_be_used(command_line: CommandLine, arguments: list[str]) -> None:
    code, said = command_line.run("up", *arguments)
    assert code == 2 and arguments[0] in said and "Traceback" not in said
