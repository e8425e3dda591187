"""Kafka's jars: pinned, checked at every start, and fetched again when they are not what they should be."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mercuria.embedded.errors import StackError, StackStopped
from mercuria.embedded.jars import KAFKA_VERSION, LOCK, Jar, cache_directory, ensure_jars, read_lock
from mercuria.embedded.stack import Stack
from tests.embedded.conftest import clean_environ

JARS = read_lock(LOCK.read_text("utf-8"))
SMALLEST = min(JARS, key=lambda jar: jar.size)


@pytest.fixture
def cache(tmp_path: Path, stack: Stack) -> Path:
    """Return a cache of the test's own, with the jars that the shared stack runs on."""
    assert stack.kafka.is_alive()
    kept = cache_directory(clean_environ())
    for jar in JARS:
        shutil.copyfile(kept / jar.file_name, tmp_path / jar.file_name)
    return tmp_path


def spoil(file: Path) -> None:
    """Change one bit of a file, as a bad disk would."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_lock_file_pins_kafka_and_every_library_once() -> None:
    assert f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}" in {jar.coordinate for jar in JARS}
    assert len({jar.file_name for jar in JARS}) == len(JARS) > 30
    for jar in JARS:
        assert jar.size > 0 and len(bytes.fromhex(jar.sha256)) == hashlib.sha256().digest_size


@pytest.mark.parametrize("damage", [spoil, Path.unlink, lambda file: os.truncate(file, 0)])
def test_a_jar_that_is_not_what_it_should_be_is_fetched_again_and_no_other(
    cache: Path, damage: Callable[[Path], None]
) -> None:
    file = cache / SMALLEST.file_name
    damage(file)
    assert not SMALLEST.is_in(cache)
    progress: list[tuple[int, int]] = []
    paths = ensure_jars(cache, lambda done, total: progress.append((done, total)), threading.Event())
    assert paths == [cache / jar.file_name for jar in JARS]
    assert SMALLEST.is_in(cache)
    assert progress[-1] == (SMALLEST.size, SMALLEST.size)


def test_what_is_in_the_cache_is_not_fetched(cache: Path) -> None:
    def fail(_done: int, _total: int) -> None:
        raise AssertionError("nothing is missing")

    assert len(ensure_jars(cache, fail, threading.Event())) == len(JARS)


def test_an_interrupted_download_leaves_nothing_half_done(cache: Path) -> None:
    (cache / SMALLEST.file_name).unlink()
    interrupted = threading.Event()
    interrupted.set()
    with pytest.raises(StackStopped):
        ensure_jars(cache, lambda _done, _total: None, interrupted)
    assert len(list(cache.iterdir())) == len(JARS) - 1


def test_a_network_that_hangs_is_given_up(
    tmp_path: Path, silent_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", silent_proxy)
    monkeypatch.setenv("https_proxy", silent_proxy)
    with pytest.raises(
        StackError, match=r"nothing has come for 1 seconds\): the first start needs the network"
    ):
        ensure_jars(tmp_path, lambda _done, _total: None, threading.Event(), silence_s=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"MERCURIA_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/mercuria"),
        ({"HOME": "/c"}, "/c/.cache/mercuria"),
        ({"MERCURIA_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/mercuria"),
    ],
)
def test_where_the_jars_are_kept(environ: Mapping[str, str], expected: str) -> None:
    assert cache_directory(environ) == Path(expected) / f"kafka-{KAFKA_VERSION}"


def test_comments_and_empty_lines_are_no_jars() -> None:
    assert read_lock("# none\n\ng:a:1 12 ab\n") == [Jar("g:a:1", 12, "ab")]
    assert Jar("g:a:1", 12, "ab").file_name == "a-1.jar"
