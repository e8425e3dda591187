"""The documents agree with the code: nothing is missing in them, and nothing that they name is gone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import click
import msgspec
import pytest

from mercuria.auth.accounts import Session, User
from mercuria.cli import commands
from mercuria.config import Settings
from mercuria.domain.commands import AnyCommand, ClientCommand, Leg, WalletSide
from mercuria.domain.events import TYPES, Failure
from mercuria.domain.rejections import DETAILS, Code
from mercuria.http.problems import MEANINGS, Problem
from mercuria.kafka.cloudevents import NUMBERED
from mercuria.projections.registry import PROJECTIONS
from mercuria.topics import (
    LEDGER_EVENTS,
    TOPICS,
    TRANSACTION_EVENTS,
    WALLET_COMMANDS,
    WALLET_DEAD_LETTERS,
    WALLET_EVENTS,
)
from mercuria.web.asyncapi import DEAD_LETTER_HEADERS
from mercuria.web.endpoint import ANYONE, ENDPOINTS, OPERATOR, SIGNED_IN
from mercuria.web.representations import (
    EntryBody,
    LineBody,
    MovementBody,
    Page,
    StatementBody,
    TransactionBody,
    WalletBody,
    WalletEventBody,
)
from tests.harness.bench.command import bench
from tests.harness.chaos.command import chaos
from tests.harness.soak.command import soak

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = sorted([ROOT / "README.md", *DOCS, ROOT / "tests" / "data" / "README.md"])
README = ROOT / "README.md"
HTTP_API, KAFKA = ROOT / "docs" / "http-api.md", ROOT / "docs" / "kafka.md"
CLI, BENCHMARKS, DEVELOPMENT = (ROOT / "docs" / f"{name}.md" for name in ("cli", "benchmarks", "development"))
CONFIGURATION, ARCHITECTURE, OPERATIONS = (
    ROOT / "docs" / f"{name}.md" for name in ("configuration", "architecture", "operations")
)

MAX_README_LINES = 250

TEXTS = {".py", ".sql", ".yml", ".json", ".js", ".html", ".conf", ".sh", ""}
"""Ends of the names of files that may refer to a document."""

NOT_SETTINGS = {"MERCURIA_PART", "MERCURIA_BENCH_DIR"}
"""What Mercuria tells its own processes."""

ANSWERS = {
    "session": Session,
    "user": User,
    "wallet": WalletBody,
    "transaction": TransactionBody,
    "event": WalletEventBody,
    "entry": EntryBody,
    "statement": StatementBody,
    "line": LineBody,
    "page": Page,
}
WHO = {ANYONE: "anyone", SIGNED_IN: "user", OPERATOR: "operator"}


class Row(NamedTuple):
    """A row of a table of a page: what its first cell names, and the other cells."""

    names: list[str]
    cells: list[str]


# What the tables list.


def rows(page: Path, heading: str) -> list[Row]:
    """Return the rows of all tables below a heading of a page, up to the next one."""
    _, _, below = page.read_text("utf-8").partition(f"\n{heading}\n")
    assert below, f"there is no {heading}"
    section = re.split(r"^#", below, maxsplit=1, flags=re.MULTILINE)[0]
    found = []
    for line in section.splitlines():
        first, *cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `"):
            found.append(Row(re.findall(r"`(.+?)`", first), cells))
    return found


def words(cell: str) -> list[str]:
    """Return what a cell, or a page, sets as code."""
    return re.findall(r"`(.+?)`", cell)


def words_of(page: Path) -> set[str]:
    """Return what a page sets as code."""
    return set(words(page.read_text("utf-8")))


def fields_of(struct: Any) -> list[str]:
    """Return the names of a struct's fields, as JSON has them."""
    return [field.encode_name for field in msgspec.structs.fields(struct)]


def tag(struct: Any) -> str:
    """Return the `type` of a command."""
    return str(struct.__struct_config__.tag)


def test_every_rejection_is_listed_with_its_sentence() -> None:
    listed = {row.names[0]: row.cells[0] for row in rows(KAFKA, "## Rejections")}
    assert listed == {str(code): DETAILS[code] for code in Code}


def test_every_problem_is_listed_with_its_status_and_its_sentence() -> None:
    listed = {row.names[0]: tuple(row.cells) for row in rows(HTTP_API, "## Errors")}
    assert listed == {code: (str(meaning.status), meaning.detail) for code, meaning in MEANINGS.items()}


def test_every_call_is_listed_with_who_may_and_its_fields() -> None:
    calls = [row for row in rows(HTTP_API, "## Calls") if " /" in row.names[0]]
    listed = {row.names[0]: row for row in calls}
    health = {"GET /health/live"}
    assert set(listed) - health == {f"{each.method} {each.path}" for each in ENDPOINTS}
    for each in ENDPOINTS:
        who, fields, answer = listed[f"{each.method} {each.path}"].cells
        assert WHO[each.access] == {"anyone": "anyone", "operator": "operator"}.get(who, "user")
        required, _, optional = fields.partition("(")
        asked = [field for kind in (each.query, each.body) if kind for field in msgspec.structs.fields(kind)]
        assert set(words(required)) == {field.encode_name for field in asked if field.required}
        assert set(words(optional)) == {field.encode_name for field in asked if not field.required}
        # What may take longer is told of all calls together.
        assert answer.partition(" ")[0] == str(min(each.answers))
        assert set(each.answers) - {202} == {min(each.answers)}


def test_every_answer_is_listed_with_its_fields() -> None:
    _, _, table = HTTP_API.read_text("utf-8").partition("| answer | fields |\n|---|---|\n")
    lines = table.partition("\n\n")[0].splitlines()
    listed = {name: words(fields) for name, fields in (line.strip("| ").split(" | ") for line in lines)}
    assert listed == {name: fields_of(kind) for name, kind in ANSWERS.items()}
    (movement,) = set(fields_of(MovementBody)) - set(fields_of(TransactionBody))
    assert movement in words_of(HTTP_API)


def test_a_problem_is_as_it_is_shown() -> None:
    _, _, section = HTTP_API.read_text("utf-8").partition("\n## Errors\n")
    shown = re.findall(r"^```json\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[0]
    made = Problem("insufficient_funds").document("9f1c2a7b60de-1f")
    assert msgspec.json.decode(shown) == msgspec.json.decode(made)


def test_every_command_is_listed_with_its_fields() -> None:
    structs = {tag(struct): struct for struct in get_args(ClientCommand)}
    listed = rows(KAFKA, "## Commands")
    types = [row.names[0] for row in listed if row.names[0] in structs]
    assert types == list(structs)
    fields = {row.names[0]: row.cells[0] for row in listed if row.names[0] not in structs}
    assert fields.pop("type") == "all"
    known = {name for struct in structs.values() for name in fields_of(struct)}
    assert fields.keys() == known
    for kind, struct in structs.items():
        for field in msgspec.structs.fields(struct):
            cell = fields[field.encode_name]
            # What is optional in some commands only stands in parts: `this`; `that`, optional.
            part = next((part for part in cell.split(";") if kind in words(part)), cell)
            assert part.startswith("all") or kind in words(part), (kind, field.encode_name)
            assert field.required != part.endswith("optional"), (kind, field.encode_name)
    for name, cell in fields.items():
        for kind in words(cell):
            assert name in fields_of(structs[kind]), (kind, name)


def test_every_leg_is_named() -> None:
    legs = {tag(struct) for struct in get_args(AnyCommand) if issubclass(struct, Leg)}
    assert legs <= words_of(KAFKA)


def test_every_event_is_listed_with_its_fields() -> None:
    listed = {row.names[0]: words(row.cells[0]) for row in rows(KAFKA, "## Events")}
    assert listed == {name: fields_of(struct) for struct, name in TYPES.items()}
    assert {*fields_of(WalletSide), *fields_of(Failure)} <= words_of(KAFKA)
    listed = {row.names[0]: words(row.cells[0]) for row in rows(KAFKA, "## Transactions and ledger entries")}
    assert listed == {name: fields_of(struct) for struct, (name, _) in NUMBERED.items()}


def test_every_header_of_a_dead_letter_is_listed() -> None:
    # tests/protocol/test_bad_input.py, test_hand_made_batches.py, test_sizes.py and test_skip.py see them.
    names = {name for row in rows(KAFKA, "## Dead letters") for name in row.names}
    assert names == set(DEAD_LETTER_HEADERS["properties"])


def test_every_topic_is_listed() -> None:
    listed = {row.names[0] for row in rows(KAFKA, "## Topics")}
    assert listed == {topic.name for topic in TOPICS}


def test_every_topic_for_clients_is_described() -> None:
    _, _, below = KAFKA.read_text("utf-8").partition("\n## Commands\n")
    clients = {WALLET_COMMANDS, WALLET_EVENTS, WALLET_DEAD_LETTERS, TRANSACTION_EVENTS, LEDGER_EVENTS}
    assert clients <= set(words(below))


def test_every_projection_is_listed_with_its_topics_and_tables() -> None:
    listed = {
        row.names[0]: [set(words(cell)) for cell in row.cells] for row in rows(ARCHITECTURE, "## Projections")
    }
    assert listed == {
        f"agents/{name}.py": [{flow.reads}, set(flow.fills), {flow.publishes} - {None}]
        for name, flow in PROJECTIONS.items()
    }
    assert any(row.names == list(PROJECTIONS) for row in rows(OPERATIONS, "## Health"))


def test_every_setting_is_listed_with_its_default() -> None:
    sources = [
        *(ROOT / "mercuria").rglob("*.py"),
        *(ROOT / "agents").glob("*.py"),
        *(ROOT / "web").glob("*.py"),
    ]
    known = {
        name
        for file in sources
        for name in re.findall(r"(?<!_)MERCURIA_[A-Z_]*[A-Z]", file.read_text("utf-8"))
    }
    listed = {row.names[0]: row.cells[0] for row in rows(CONFIGURATION, "## Settings")}
    assert listed.keys() == known - NOT_SETTINGS
    settings = Settings.from_env({"MERCURIA_DATA_DIR": "nowhere"})
    for name in (
        "kafka",
        "database",
        "redis",
        "partitions",
        "replication",
        "worker",
        "http_host",
        "http_port",
    ):
        assert words(listed[f"MERCURIA_{name.upper()}"])[0] == str(getattr(settings, name))
    assert words(listed["MERCURIA_RECEIPTS_DAYS"]) == [str(settings.receipts_days)]
    assert words(listed["MERCURIA_LOG_LEVEL"]) == [settings.log_level]


def commands_of(group: click.Group, path: str) -> Iterator[str]:
    """Yield the commands in a group, with the words that lead to them."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_every_command_of_the_command_line_is_listed() -> None:
    own = set(
        commands_of(
            click.Group(commands={each: commands.load(each) for each in commands.MODULES}), "mercuria"
        )
    )
    assert "mercuria wallet show" in own
    listed = {name for row in rows(CLI, "## Commands") for name in row.names}
    assert [
        each for each in sorted(own) if not any(f"{name} ".startswith(f"{each} ") for name in listed)
    ] == []
    foreign = {f"mercuria {name}" for name in commands.OF_FAUST}
    for name in listed:
        assert any(f"{name} ".startswith(f"{each} ") for each in own | foreign), f"there is no {name}"


def test_every_command_of_the_test_equipment_is_listed() -> None:
    equipment = set(commands_of(click.Group(commands={"bench": bench, "chaos": chaos, "soak": soak}), "make"))
    places = ((BENCHMARKS, "## Commands"), (DEVELOPMENT, "## Chaos and soak runs"))
    listed = {
        name.replace(' ARGS="', " ").rstrip('"')
        for place in places
        for row in rows(*place)
        for name in row.names
    }
    assert [
        each for each in sorted(equipment) if not any(f"{name} ".startswith(f"{each} ") for name in listed)
    ] == []
    for name in listed:
        assert any(f"{name} ".startswith(f"{each} ") for each in equipment), f"there is no {name}"


# What the pages lead to.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def without_code(text: str) -> str:
    """Return a page without its blocks of code, where `#` begins a comment."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> list[str]:
    """Return the headings of a page."""
    return re.findall(r"^#+ (.+)$", without_code(page.read_text("utf-8")), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: those of its headings, as GitHub makes them, and those that it sets itself."""
    of_headings = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings(page)]
    assert len(set(of_headings)) == len(of_headings), f"{page.name} has a heading twice"
    return {*of_headings, *re.findall(r'<a id="([\w-]+)"></a>', page.read_text("utf-8"))}


def sources() -> Iterator[tuple[Path, str]]:
    """Yield the files outside of the documents that may refer to them, each with its text in one line."""
    tops = ("mercuria", "agents", "tables", "web", "migrations", "deploy", "tests", ".github")
    files = [
        file for top in tops for file in (ROOT / top).rglob("*") if file.suffix in TEXTS and file.is_file()
    ]
    single = ("docker-compose.yml", "Dockerfile", "Makefile", "Procfile", ".env.example", "setup.cfg")
    for file in {*files, *(ROOT / name for name in single)} - {Path(__file__).resolve()}:
        yield file, " ".join(re.sub(r"\n *(--|#|//) ", " ", file.read_text("utf-8")).split())


def test_references_to_documents_lead_somewhere() -> None:
    reference = re.compile(r"""docs/([\w-]+\.md)(?:#([\w-]+)|, ["']([^"']+)["'])?""")
    found = 0
    for file, text in sources():
        for name, anchor, heading in reference.findall(text):
            found += 1
            page = ROOT / "docs" / name
            assert page in DOCS, (file, name)
            assert not anchor or anchor in anchors(page), (file, anchor)
            assert not heading or heading in headings(page), (file, heading)
    assert found > 30, "there are references, and the pattern finds them"


# How the documents are arranged.


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= MAX_README_LINES


def test_every_document_is_one_click_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README.read_text("utf-8")))
    assert linked == {f"docs/{page.name}" for page in DOCS}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_document_begins_with_what_it_is_for_and_what_it_is_not(page: Path) -> None:
    title, opening, *_ = page.read_text("utf-8").split("\n\n")
    assert title.startswith("# ")
    assert re.search(r"\b(not|neither)\b", opening), "it says what it is not for"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page: Path) -> None:
    text = without_code(page.read_text("utf-8"))
    tops = "|".join(("mercuria", "agents", "tables", "web", "migrations", "tests", "docs", r"\.ci"))
    named = [word for word in words(text) if re.fullmatch(rf"({tops})/[\w./-]*|[\w-]+\.cfg|Makefile", word)]
    assert [name for name in named if not (ROOT / name).exists()] == []
