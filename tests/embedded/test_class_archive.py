"""The archive of Kafka's classes: made while the first broker works, used by the next, and never in the way."""

import os
import shutil
import threading
from pathlib import Path

from mercuria.embedded.class_archive import ClassArchive
from mercuria.embedded.jars import cache_directory
from mercuria.embedded.stack import Stack
from tests.embedded.conftest import clean_environ, only
from tests.embedded.test_jars import JARS, spoil

LOADED = "loaded.log"


def start(tmp_path: Path, name: str) -> Stack:
    """Return a stack with nothing but Kafka, in a directory and with a cache of the test's own."""
    environ = only("kafka") | {"MERCURIA_CACHE_DIR": str(tmp_path / "cache")}
    options = f"{environ.get('JDK_JAVA_OPTIONS', '')} -Xlog:class+load:file={LOADED}"
    return Stack(
        tmp_path / name, workers=0, on_progress=print, environ=environ | {"JDK_JAVA_OPTIONS": options}
    )


def archived(stack: Stack) -> int:
    """Return how many classes the running broker took from the archive."""
    return (stack.kafka.working_directory() / LOADED).read_text().count("source: shared objects file")


def test_a_second_start_takes_the_classes_from_an_archive_and_a_spoilt_one_is_ignored(tmp_path: Path) -> None:
    kept = cache_directory(clean_environ())
    cache = tmp_path / "cache" / kept.name
    cache.mkdir(parents=True)
    for jar in JARS:
        shutil.copy2(kept / jar.file_name, cache)
    (cache / ".classes-killed").mkdir()
    with start(tmp_path, "first") as stack:
        archive = stack.kafka.classes
        assert archived(stack) == 0
        assert archive.wait_made(timeout_s=120)
    with start(tmp_path, "second") as stack:
        assert stack.kafka.classes.path == archive.path
        assert archived(stack) > 5000
    spoil(archive.path)
    with start(tmp_path, "third") as stack:
        assert archived(stack) == 0
    assert sorted(cache.glob(".classes-*")) == []


def test_a_start_that_ends_early_leaves_no_half_archive(tmp_path: Path) -> None:
    jar = tmp_path / JARS[0].file_name
    shutil.copy2(cache_directory(clean_environ()) / JARS[0].file_name, jar)
    (tmp_path / "classes.list").write_text("java/lang/Object id: 0\njava/lang/Str")
    interrupted = threading.Event()
    interrupted.set()
    archive = ClassArchive([jar], interrupted)
    archive.make_soon(["sleep", "60"], tmp_path / "classes.list", {"PATH": os.defpath})
    assert not archive.wait_made(timeout_s=30)
    assert {path.name for path in tmp_path.iterdir()} == {jar.name, "classes.list", "classes.lock"}


def test_an_archive_belongs_to_the_jars_as_they_are(tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    jar.write_bytes(b"one")
    before = ClassArchive([jar], threading.Event()).path
    assert ClassArchive([jar], threading.Event()).path == before
    jar.write_bytes(b"more")
    assert ClassArchive([jar], threading.Event()).path != before
