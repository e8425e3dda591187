"""The repository itself: what gets installed, what is documented, and what must stand in no file."""

import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mercuria.cli.commands import EXTRA

ROOT = Path(__file__).resolve().parents[1]
MAPPED = ("agents", "tables", "web", "migrations")


def tracked_files() -> list[Path]:
    """Return the files that belong to the repository."""
    outcome = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [path for name in outcome.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def text_files() -> list[tuple[str, str]]:
    """Return the repository's text files: name and content."""
    texts = []
    for file in tracked_files():
        content = file.read_bytes()
        if b"\0" not in content:
            texts.append((str(file.relative_to(ROOT)), content.decode("utf-8")))
    return texts


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from what the image's build gets."""
    directory = tmp_path_factory.mktemp("wheel")
    # Everything is ignored but what is named with an exclamation mark.
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"]
    # A copy, since a build leaves its own folder behind.
    source = directory / "source"
    for file in tracked_files():
        if not any(file.is_relative_to(ROOT / name) for name in kept):
            continue
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(directory), str(source)], check=True)
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mercuria"}
    assert not [name for name in names if "tests" in name.split("/")]


def test_the_wheel_holds_every_module_and_every_file_that_is_read_at_run_time(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for file in tracked_files():
        top, *rest = file.relative_to(ROOT).parts
        if top in ("mercuria", *MAPPED) and file.suffix in (
            ".py",
            ".sql",
            ".lock",
            ".typed",
            ".json",
            ".lua",
            ".html",
            ".css",
            ".js",
            ".svg",
        ):
            expected.add("/".join([top, *rest] if top == "mercuria" else ["mercuria", top, *rest]))
    assert expected - names == set()


def test_setup_cfg_lists_every_package() -> None:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = parser["options"]["packages"].split()
    found = [
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in tracked_files()
        if file.name == "__init__.py" and file.relative_to(ROOT).parts[0] in ("mercuria", *MAPPED)
    ]
    assert sorted(listed) == sorted(f"mercuria.{name}" if name in MAPPED else name for name in found)


def test_the_wheel_asks_for_no_server_unless_for_an_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
    assert set(metadata.get_all("Provides-Extra", [])) == {"embedded", "dev"}
    asked = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]

    def names(extra: str) -> set[str]:
        """Return what an installation with an extra, or without one, asks for itself."""
        found = [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]
        return {canonicalize_name(each.name) for each in found}

    servers = {canonicalize_name(module) for module in EXTRA}
    assert names("") & servers == set()
    assert names("embedded") >= servers


def test_mapped_folders_are_no_top_level_modules_of_an_installation(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        "import importlib.util, sys; sys.path.insert(0, sys.argv[1]); import mercuria;"
        "assert mercuria.__file__.startswith(sys.argv[1]), mercuria.__file__;"
        "found = [name for name in sys.argv[2:] if importlib.util.find_spec(name)];"
        "inside = [name for name in sys.argv[2:] if not importlib.util.find_spec('mercuria.' + name)];"
        "sys.exit(f'found {found}, missing {inside}' if found or inside else 0)"
    )
    subprocess.run([sys.executable, "-I", "-c", script, str(tmp_path), *MAPPED], cwd=tmp_path, check=True)


def test_every_setting_is_documented() -> None:
    names = set(re.findall(r"MERCURIA_[A-Z_]+", (ROOT / "mercuria" / "config.py").read_text("utf-8")))
    assert "MERCURIA_KAFKA" in names
    documented = set(re.findall(r"MERCURIA_[A-Z_]+", (ROOT / "docs" / "configuration.md").read_text("utf-8")))
    assert names - documented == set()


def test_no_file_names_a_place_of_one_machine() -> None:
    # Written in two halves, so that this file does not name them either.
    places = [f"/{'root'}/", f"/{'work'}/", f"/{'home'}/", f"/{'Users'}/", str(ROOT)]
    found = [(name, place) for name, text in text_files() for place in places if place in text]
    assert found == []


def test_every_text_file_is_utf_8_and_ends_with_one_newline() -> None:
    assert [name for name, text in text_files() if text and (text[-1] != "\n" or text.endswith("\n\n"))] == []
