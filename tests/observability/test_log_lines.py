"""How records of the log become lines."""

import json
import logging
import sys
from uuid import UUID

from mercuria.config import Settings
from mercuria.observability.log_lines import Lines


def line(form: str, message: str, *arguments: object, **extra: object) -> str:
    settings = Settings.from_env(
        {"MERCURIA_LOG_FORMAT": form, "MERCURIA_DATA_DIR": "nowhere", "MERCURIA_WORKER": "w-7"}
    )
    record = logging.LogRecord("mercuria.x", logging.WARNING, __file__, 1, message, arguments, None)
    record.created = 1_700_000_000.0129
    record.__dict__.update(extra)
    return Lines(settings).format(record)


def test_a_line_is_one_json_object() -> None:
    number = UUID(int=7)
    text = line(
        "json", "Partition %d\nis away.", 3, partition=3, command_id=number, duration_ms=1.5, user_id=None
    )
    assert "\n" not in text
    assert list(json.loads(text).items()) == [
        ("time", "2023-11-14T22:13:20.012Z"),
        ("level", "warning"),
        ("logger", "mercuria.x"),
        ("event", "Partition 3\nis away."),
        ("worker", "w-7"),
        ("partition", 3),
        ("command_id", str(number)),
        ("duration_ms", 1.5),
        ("user_id", None),
    ]


def test_what_a_service_of_faust_says_is_told_with_its_name() -> None:
    found = json.loads(line("json", "[^----Consumer]: Starting..."))
    assert (found["event"], found["service"]) == ("Starting...", "Consumer")


def test_an_exception_is_told_with_where_it_was_raised() -> None:
    try:
        raise ValueError("password=hunter2-Correct")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "Failed.", (), sys.exc_info())
    for form in ("json", "console"):
        settings = Settings.from_env({"MERCURIA_LOG_FORMAT": form, "MERCURIA_DATA_DIR": "nowhere"})
        text = Lines(settings).format(record)
        assert "Traceback" in text and "ValueError: password=***" in text and "hunter2" not in text


def test_a_text_that_is_no_utf_8_is_shown_escaped() -> None:
    assert json.loads(line("json", "GET %s", "/\udcff"))["event"] == "GET /\udcff"


def test_for_people_a_line_has_no_json() -> None:
    text = line("console", "Partition %d is away.", 3, partition=3, token="secret-token")
    assert text == (
        "2023-11-14T22:13:20.012Z [warning  ] Partition 3 is away. [mercuria.x] partition=3 token=***"
    )


FORGED = "x\n2023-11-14T22:13:20.012Z [info     ] All is well.\x1b[2J\u202e\x9b"


def test_for_people_no_text_begins_a_line_of_its_own_or_reaches_the_terminal() -> None:
    text = line("console", "GET %s", FORGED, reference=FORGED)
    first, second = text.split("\n")
    assert first == "2023-11-14T22:13:20.012Z [warning  ] GET x"
    assert second.startswith(
        r"    2023-11-14T22:13:20.012Z [info     ] All is well.\x1b[2J\u202e\x9b [mercuria.x]"
    )
    assert second.endswith(
        r"reference='x\\n2023-11-14T22:13:20.012Z [info     ] All is well.\\x1b[2J\\u202e\\x9b'"
    )


def test_for_people_the_lines_of_an_exception_are_indented() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        text = line("console", "Failed.", exc_info=sys.exc_info())
    _, *others = text.split("\n")
    assert others[0].strip() == "Traceback (most recent call last):"
    assert all(other.startswith("    ") for other in others[1:]) and "\x1b" not in text


def test_json_lines_hold_nothing_that_a_terminal_obeys() -> None:
    text = line("json", "GET %s", FORGED, reference="漢字")
    assert json.loads(text)["event"] == f"GET {FORGED}"
    assert not any(char in text for char in "\n\x1b\u202e\x9b")
    assert "漢字" in line("json", "GET", reference="漢字")
