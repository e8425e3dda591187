"""Log lines: the fields of each line of a worker's log, and its format.

All records pass through Python's `logging`, including those of Faust and of libraries. `extra` holds the
fields:

    log.debug("A command is decided.", extra={"command_id": id_, "partition": partition})

structlog renders them: as one JSON object a line, or as text for people.
"""

import json
import logging
import re
import sys
from types import TracebackType
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict

from mercuria.config import Settings
from mercuria.domain.printable import printable
from mercuria.observability.redaction import Redaction
from mercuria.timestamps import rfc3339

FIRST = ("time", "level", "logger", "event", "worker")
"""The fields of every line, in order."""

_SERVICE = re.compile(r"\[\^-*(\w+)\]: ").match

_OF_RECORDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "data"}
"""The attributes of a record without `extra`; mode adds "data" to some."""

_OF_LINES = frozenset(("event", "exception", "stack"))
_CONTINUED = "\n    "

_OBEYED = re.compile(
    r"[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff]"
).search
"""Characters that control a terminal or are invisible, and that JSON does not escape."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


def logging_config(settings: Settings) -> dict[str, Any]:
    """Return the logging configuration of a worker, for `logging.config.dictConfig`."""
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": lambda: Lines(settings)}},
        "handlers": {
            "default": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "lines",
            }
        },
        "root": {"level": level, "handlers": ["default"]},
        # aiokafka logs each request, including the bytes of its records.
        "loggers": {"aiokafka": {"level": max(level, "WARNING", key=logging.getLevelName)}},
    }


class Lines(logging.Formatter):
    """Formats records as lines.

    structlog's own `ProcessorFormatter` does the same, but copies each record first and then formats it
    twice: three times the work, for each HTTP request.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._worker = settings.worker
        self._render = _as_json if settings.writes_json_logs else _ForPeople()
        self._redaction = Redaction(settings.database, settings.database_owner, settings.redis)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without secrets."""
        line = self._line(record)
        text = self._render(line)
        if not self._redaction.may_concern(text):
            return text
        return self._render({name: self._redaction.field(name, value) for name, value in line.items()})

    def _line(self, record: logging.LogRecord) -> EventDict:
        event = record.getMessage()
        line: EventDict = {
            "time": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            "worker": self._worker,
        }
        if event.startswith("[^"):
            # mode marks the messages of its services like this, with a hyphen for each level of nesting.
            service = _SERVICE(event)
            if service is not None:
                line["event"], line["service"] = event[service.end() :], service[1]
        for name, value in record.__dict__.items():
            if name not in _OF_RECORDS:
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return line


def set_up() -> None:
    """Log uncaught exceptions and warnings as well, and do not collect data that no line shows.

    The standard library describes the latter as "Optimization".
    """
    sys.excepthook = _log_uncaught
    logging.captureWarnings(True)
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def log_always(event: str) -> None:
    """Log a message regardless of the log level."""
    logger = logging.getLogger(__name__)
    logger.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, event, (), None))


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Log an uncaught exception, as Python would print it."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger(__name__).critical("Unhandled exception.", exc_info=(kind, error, traceback))


def _as_json(line: EventDict) -> str:
    try:
        text = _encode(line).decode()
    except (ValueError, TypeError):
        # The line has a text that is not valid UTF-8, as a client may send it: it is escaped.
        return json.dumps(line, default=str)
    # JSON escapes C0 only. Other characters also control a terminal, and people read these lines as well.
    return text if _OBEYED(text) is None else json.dumps(json.loads(text))


class _ForPeople:
    """Renders a line for people to read, without the worker's name, which the name of the log file has."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), timestamp_key="time", sort_keys=False, pad_event_to=0
        )

    def __call__(self, line: EventDict) -> str:
        shown = {name: _shown(name, value) for name, value in line.items() if name != "worker"}
        return str(self._render(None, "", shown))


def _shown(name: str, value: Any) -> Any:
    """Return the text of a field that can neither begin a new line nor control the terminal."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else str(value)
    # Libraries log tables, and tracebacks have several lines. Continued lines are indented; a field has one line.
    if name in _OF_LINES:
        return _CONTINUED.join(map(printable, text.rstrip("\n").split("\n")))
    return printable(text)
