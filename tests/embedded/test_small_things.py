"""The small things the stack is made of: ports, files, logs, rights, and doing several things at once."""

import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from mercuria.config import in_url
from mercuria.embedded.account import with_entry
from mercuria.embedded.concurrency import run_concurrently
from mercuria.embedded.directory import DataDirectory, env_lines
from mercuria.embedded.errors import StackError
from mercuria.embedded.files import (
    close_to_others,
    disk_errors_as_sentences,
    require_space,
    space_problem,
    write_atomically,
)
from mercuria.embedded.kafka import cluster_id
from mercuria.embedded.logs import LogFile
from mercuria.embedded.ports import (
    FIRST,
    LAST,
    LOOPBACK,
    Ports,
    accepts,
    free_port,
    hold,
    holder,
    is_free,
    read_ports,
)
from mercuria.embedded.worker import reachable_host


def test_a_port_is_kept_then_preferred_then_any(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = Ports(file).choose("http")
    assert FIRST <= first <= LAST
    assert Ports(file).choose("http", preferred=1) == first
    with socket.create_server(("127.0.0.1", first)):
        assert not is_free(first) and accepts("127.0.0.1", first)
        assert str(os.getpid()) in (holder(first) or "")
        other = free_port({first})
        assert Ports(file).choose("http", preferred=other) == other
    assert read_ports(file) == {"http": other}
    assert is_free(first) and not accepts("127.0.0.1", first) and holder(first) is None


def test_two_names_never_get_one_port(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json")
    port = ports.choose("kafka")
    assert ports.choose("redis", preferred=port) != port
    ports.forget("kafka")
    assert read_ports(tmp_path / "ports.json").keys() == {"redis"}


def test_a_port_is_held_though_connections_of_its_last_server_linger() -> None:
    port = free_port()
    # As a single worker does, which shares its port with no other.
    with socket.create_server((LOOPBACK, port)) as server:
        client = socket.create_connection((LOOPBACK, port))
        accepted, _ = server.accept()
        # The side that closes first keeps the port in TIME_WAIT.
        accepted.close()
        client.close()
    with hold(port, LOOPBACK):
        assert not is_free(port)
        with socket.create_server((LOOPBACK, port), reuse_port=True):
            assert accepts(LOOPBACK, port)
        assert not is_free(port)
    assert is_free(port)


@pytest.mark.parametrize("content", ["", "[]", "nonsense", "\x00", '{"http": "6066"}'])
def test_a_damaged_file_of_ports_is_no_port(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert read_ports(tmp_path / "ports.json") == {}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old", 0o600)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "new \ud800")
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_directory_of_before_is_closed_to_others_and_a_shared_one_is_left_as_it_is(tmp_path: Path) -> None:
    old, shared = tmp_path / "old", tmp_path / "shared"
    for directory in (old, shared):
        (directory / "worker-1").mkdir(parents=True)
        (directory / "logs").mkdir()
        for name in ("ports.json", "logs/worker-1.log", "notes.txt"):
            (directory / name).write_text("{}")
            (directory / name).chmod(0o664)
        for each in (directory, directory / "worker-1"):
            each.chmod(0o755)
        (directory / "leg.key").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_text("")
    (tmp_path / "outside").chmod(0o644)
    (old / "up.lock").touch()
    shared.chmod(0o1777)
    for directory in (old, shared, shared):
        opened = DataDirectory(directory)
        opened.open()
        opened.mark_ready()
        assert {mode(directory / name) for name in ("up.pid", "up.ready", "up.lock")} <= {0o600}
        opened.close()
    assert {mode(path) for path in (old, old / "worker-1", old / "logs")} == {0o700}
    for directory in (old, shared):
        assert {mode(directory / name) for name in ("ports.json", "logs/worker-1.log")} == {0o600}
        assert (mode(directory / "worker-1"), mode(directory / "notes.txt")) == (0o700, 0o664)
    assert mode(shared) == 0o1777
    assert mode(tmp_path / "outside") == 0o644


def test_a_new_directory_and_its_logs_are_closed_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = DataDirectory(tmp_path / "data")
        directory.open()
        log = directory.log("worker-1")
        with log.open() as file:
            file.write(b"x" * 20_000_000)
        log.rotate()
        write_atomically(directory.path / "ports.json", "{}")
        directory.close()
    finally:
        os.umask(before)
    modes = {path.name: mode(path) for path in directory.path.rglob("*")}
    assert modes == {
        "logs": 0o700,
        **dict.fromkeys(("up.lock", "ports.json", "worker-1.log", "worker-1.log.1"), 0o600),
    }
    assert mode(directory.path) == 0o700


def test_names_in_an_access_control_list_keep_what_they_may(tmp_path: Path) -> None:
    tmp_path.chmod(0o705)
    os.setxattr(tmp_path, "system.posix_acl_access", with_entry(b"", 0o705, 12345))
    close_to_others(tmp_path)
    assert mode(tmp_path) == 0o710, "the group's bits are the list's mask"


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_too_little_room_is_said_in_mebibytes() -> None:
    here = Path("/d")
    assert space_problem(10 * 2**20, 10 * 2**20, here) is None
    assert space_problem(10 * 2**20 - 1, 10 * 2**20, here) == (
        "There is no disk space for /d: 9 MiB are free and at least 10 MiB are needed."
    )
    assert (
        space_problem(0, 1, here)
        == "There is no disk space for /d: 0 MiB are free and at least 1 MiB are needed."
    )


def test_more_room_than_any_disk_has_is_refused(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(StackError, match=f"There is no disk space for {re.escape(str(tmp_path))}"):
        require_space(tmp_path, 2**70)


def test_a_disk_that_gets_full_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(StackError, match="There is no disk space left for /d"),
        disk_errors_as_sentences(Path("/d")),
        open("/dev/full", "w") as full,
    ):
        full.write("x")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(FileNotFoundError), disk_errors_as_sentences(Path("/d")):
        open("/d/absent/file").close()


def test_a_log_is_cut_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "part.log", max_bytes=100)
    assert log.last_lines(3) == []
    log.rotate()
    with log.open() as writer:
        writer.write(b"".join(b"line %d\n" % number for number in range(20)))
        log.rotate()
        assert log.last_lines(3) == []
        writer.write(b"after \xff\n")
    assert log.last_lines(3) == ["after \N{REPLACEMENT CHARACTER}"]
    assert LogFile(tmp_path / "part.log.1").last_lines(2) == ["line 18", "line 19"]


def test_all_actions_end_although_one_fails() -> None:
    done: list[int] = []

    def fail() -> None:
        raise StackError("one failed")

    with pytest.raises(StackError, match="one failed"):
        run_concurrently([fail, lambda: done.append(1), lambda: done.append(2)])
    assert sorted(done) == [1, 2]
    run_concurrently([])


@pytest.mark.parametrize(
    "value", ["plain", "", "a b", "it's", 'a "b"', "$HOME", "`id`", "a\\b", "x;y", "*", "ü", "#x", "a&b|c>d"]
)
def test_a_shell_reads_each_value_as_it_was_written(tmp_path: Path, value: str) -> None:
    file = tmp_path / "stack.env"
    file.write_text(env_lines({"VALUE": value}))
    outcome = subprocess.run(
        ["sh", "-eu", "-c", '. "$1"; printf %s "$VALUE"', "sh", str(file)], capture_output=True, check=True
    )
    assert outcome.stdout.decode() == value


def entries(acl: bytes) -> list[tuple[int, int, int]]:
    """Return the entries of an access control list: tag, permissions, id."""
    assert acl[:4] == (2).to_bytes(4, "little")
    return [
        tuple(int.from_bytes(acl[at + start : at + end], "little") for start, end in ((0, 2), (2, 4), (4, 8)))  # type: ignore[misc]
        for at in range(4, len(acl), 8)
    ]


def test_an_account_may_pass_and_nobody_else_gets_a_right() -> None:
    nobody = 0xFFFFFFFF
    acl = with_entry(b"", 0o700, 999)
    assert entries(acl) == [
        (0x01, 7, nobody),
        (0x02, 1, 999),
        (0x04, 0, nobody),
        (0x10, 1, nobody),
        (0x20, 0, nobody),
    ]
    assert with_entry(acl, 0o700, 999) == acl
    two = with_entry(acl, 0o700, 1000)
    assert [entry for entry in entries(two) if entry[0] == 0x02] == [(0x02, 1, 999), (0x02, 1, 1000)]


def test_a_cluster_id_is_22_characters_and_no_option() -> None:
    ids = {cluster_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", text) for text in ids)


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "[::1]"),
    ],
)
def test_where_a_worker_is_reached(host: str, reached: str) -> None:
    assert in_url(reachable_host({"MERCURIA_HTTP_HOST": host})) == reached
