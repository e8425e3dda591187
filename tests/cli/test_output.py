"""`--output`: what is there keeps what it is, and what cannot be written is a sentence."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mercuria.cli.output import UnwritableError, output_file

OLD, NEW = "old\n", "new\r\nä漢\n"


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def write(path: Path | str, text: str = NEW) -> None:
    with output_file(str(path)) as file:
        file.write(text)


def read(path: Path) -> str:
    return path.read_bytes().decode()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    assert (read(tmp_path / "a.csv"), mode(tmp_path / "a.csv")) == (NEW, 0o640)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("before", [0o600, 0o644, 0o666, 0o755])
def test_a_file_keeps_its_mode(tmp_path: Path, before: int) -> None:
    file = tmp_path / "a.csv"
    file.write_text(OLD)
    file.chmod(before)
    write(file)
    assert (read(file), mode(file)) == (NEW, before)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_of_another_user_stays_theirs(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(OLD)
    # Only root can give a file away.
    owner = (12_345, 54_321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    write(file)
    assert (read(file), file.stat().st_uid, file.stat().st_gid) == (NEW, *owner)


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link, dangling = tmp_path / "there" / "a.csv", tmp_path / "link", tmp_path / "dangling"
    target.write_text(OLD)
    link.symlink_to("there/a.csv")
    dangling.symlink_to("there/b.csv")
    write(link)
    write(dangling)
    assert link.is_symlink() and dangling.is_symlink()
    assert read(target) == read(tmp_path / "there" / "b.csv") == NEW


def test_another_name_of_the_file_stays_one_of_the_same_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a text that is longer than the new one\n")
    other.hardlink_to(one)
    write(one)
    assert read(one) == read(other) == NEW
    assert one.samefile(other)


def test_a_reader_of_a_pipe_gets_what_is_written_and_the_pipe_stays(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join(10)
    assert (b"".join(got).decode(), pipe.is_fifo()) == (NEW, True)


def test_a_device_is_written_to_and_stays_a_device(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    write(tmp_path / "null")
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and (tmp_path / "null").is_symlink()
    if os.geteuid() == 0:
        node = tmp_path / "node"
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        write(node)
        assert stat.S_ISCHR(node.stat().st_mode)


def sentence(path: Path | str) -> str:
    with pytest.raises(UnwritableError) as raised:
        write(path)
    return str(raised.value)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(OLD)
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name, number in {
        tmp_path / "no" / "such" / "dir" / "a.csv": errno.ENOENT,
        tmp_path: errno.EISDIR,
        f"{tmp_path}/absent/": errno.EISDIR,
        tmp_path / "file" / "a.csv": errno.ENOTDIR,
        tmp_path / "loop": errno.ELOOP,
        tmp_path / ("x" * 256): errno.ENAMETOOLONG,
        tmp_path / "socket": errno.ENXIO,
        "/dev/full": errno.ENOSPC,
    }.items():
        assert sentence(name) == f"--output {name} cannot be written: {os.strerror(number)}"
    assert sentence("/sys/a.csv").startswith("--output /sys/a.csv cannot be written: ")
    assert sentence("") == "--output needs the name of a file, or - for standard output"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop", "socket"]
    assert read(tmp_path / "file") == OLD


def write_half(path: Path, error: type[BaseException] | BaseException) -> None:
    with output_file(str(path)) as file:
        file.write("half of it")
        file.flush()
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(errno.ENOSPC, "full")])
def test_after_a_failure_all_is_as_before(tmp_path: Path, error: type[BaseException]) -> None:
    file, links = tmp_path / "a.csv", tmp_path / "links"
    links.mkdir()
    for each in (file, links / "one"):
        each.write_text(OLD)
    (links / "other").hardlink_to(links / "one")
    for path in (file, links / "one", tmp_path / "new"):
        with pytest.raises((KeyboardInterrupt, ValueError, UnwritableError)):
            write_half(path, error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "links"]
    assert read(file) == read(links / "one") == OLD


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255))
    assert read(tmp_path / ("x" * 255)) == NEW


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "all.csv"])
def test_standard_output_goes_on_where_it_is(tmp_path: Path, name: str) -> None:
    script = (
        "import sys; from mercuria.cli.output import output_file\n"
        "with output_file(sys.argv[1]) as file: file.write('new\\r\\nä\\n')"
    )
    with open(tmp_path / "all.csv", "wb+") as file:
        file.write(b"before\n")
        file.flush()
        subprocess.run([sys.executable, "-c", script, name], cwd=tmp_path, stdout=file, check=True)
    assert read(tmp_path / "all.csv") == "before\nnew\r\nä\n"
    piped = subprocess.run(
        [sys.executable, "-c", script, name], cwd=tmp_path, capture_output=True, check=True
    )
    assert piped.stdout.decode() == ("" if name == "all.csv" else "new\r\nä\n")
