"""How records of the log become lines."""

import json
import logging
import sys
from uuid import UUID

from mercuria.adapters.log_lines import Lines
from mercuria.config import Settings


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


FORGED = "2026-01-01T00:00:00.000Z [info     ] A login succeeded."


def test_what_a_client_has_sent_forges_no_line_and_moves_no_cursor() -> None:
    agent = f"x\n{FORGED}\r\x1b[2K\u2028\x85\u202e"
    for form in ("json", "console"):
        text = line(form, "Request failed: %s", f"/a\n{FORGED}\x1b]0;owned\x07", user_agent=agent)
        assert not [each for each in text.splitlines()[1:] if each.startswith("2026")]
        assert not any(each in text for each in "\r\x1b\x07\x85\u2028")
    assert "\n" not in line("console", "Failed.", user_agent=agent)
    try:
        raise ValueError(f"no\n{FORGED}")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "Failed.", (), sys.exc_info())
    settings = Settings.from_env({"MERCURIA_LOG_FORMAT": "console", "MERCURIA_DATA_DIR": "nowhere"})
    lines = Lines(settings).format(record).splitlines()
    assert not [each for each in lines[1:] if each and not each.startswith(("    ", "Traceback"))], lines
