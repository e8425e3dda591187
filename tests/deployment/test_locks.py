"""The locks in requirements/ hold what setup.cfg and pyproject.toml ask for, within its range and with hashes."""

import configparser
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mercuria.cli.commands import EXTRA

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """One version of a package in a lock. A lock has several where Python's versions need different ones."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The package's name, as all files spell it."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The version, which is the only one."""
        (specifier,) = self.requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, self.requirement
        return specifier.version


def pins(lock: str) -> list[Pin]:
    """Return what a lock pins."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
    statements = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [
        Pin(Requirement(statement.partition(" --")[0]), tuple(HASH.findall(statement)))
        for statement in statements
    ]


def asked(*extras: str) -> list[Requirement]:
    """Return what setup.cfg asks for, with extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in extras]
    lines = [line for text in texts for line in text.splitlines() if line]
    return [Requirement(line) for line in lines if not line.startswith("mercuria[")]


def group(name: str) -> list[Requirement]:
    """Return what a dependency group of pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return [Requirement(text) for text in project["dependency-groups"][name]]


def missing(requirements: Iterable[Requirement], lock: str) -> list[str]:
    """Return the requirements that a lock does not meet."""
    pinned: dict[str, list[Pin]] = {}
    for pin in pins(lock):
        pinned.setdefault(pin.name, []).append(pin)
    return [
        str(requirement)
        for requirement in requirements
        if not (found := pinned.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(pin.version) for pin in found)
    ]


def test_every_requirement_is_locked_within_its_range() -> None:
    assert missing([*asked("embedded", "dev"), *group("build")], "dev") == []
    assert missing(asked(), "base") == []
    assert missing(group("build"), "build") == []
    assert missing(group("tools"), "tools") == []


def test_a_requirement_that_is_not_locked_is_found() -> None:
    wanted = [Requirement("click"), Requirement("click < 1"), Requirement("no-such-package")]
    assert missing(wanted, "base") == ["click<1", "no-such-package"]


def test_the_locks_cover_every_extra() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    assert set(setup["options.extras_require"]) == {"embedded", "dev"}
    assert "mercuria[embedded]" in setup["options.extras_require"]["dev"].splitlines()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_holds_pins_with_hashes_and_names_no_index(lock: Path) -> None:
    assert [pin.name for pin in pins(lock.stem) if not pin.version or not pin.hashes] == []
    text = lock.read_text("utf-8")
    assert "://" not in text
    assert set(re.findall(r"(?<!\S)--?[a-z-]+(?=[ =])", re.sub("#.*", "", text))) == {"--hash"}


def test_the_image_gets_the_versions_that_are_tested() -> None:
    tested = {(pin.name, pin.version) for pin in pins("dev")}
    assert {(pin.name, pin.version) for pin in [*pins("base"), *pins("build")]} <= tested


def test_the_image_gets_no_servers() -> None:
    base = {pin.name for pin in pins("base")}
    servers = {canonicalize_name(requirement.name) for requirement in asked("embedded")} - base
    assert servers == {canonicalize_name(module) for module in EXTRA}


def test_everything_is_installed_with_hashes() -> None:
    for name in ("Dockerfile", "Makefile"):
        lines = (ROOT / name).read_text("utf-8").splitlines()
        from_locks = [line for line in lines if re.search(r"install\b.*(-r|--requirement) ", line)]
        assert len(from_locks) == {"Dockerfile": 2, "Makefile": 3}[name]
        assert [line for line in from_locks if "--require-hashes" not in line] == []
        others = [
            line for line in lines if re.search(r"(pip|PIP\)) install\b", line) and line not in from_locks
        ]
        # Mercuria itself, for which nothing is fetched.
        assert [line for line in others if "--no-deps" not in line] == []


def test_images_and_actions_are_pinned_by_digest() -> None:
    images = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    assert len(images) == 2 and len(set(images)) == 1
    assert re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", images[0])
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    actions = re.findall(r"uses: (.*)", workflow)
    assert actions
    # With the version beside it, for the reader.
    assert [
        each for each in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)
    ] == []
