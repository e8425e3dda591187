"""Log lines: what each line of a worker's log says, and how it is written.

All records come through Python's `logging`, those of Faust and of libraries as well. Fields come with `extra`:

    log.debug("A command is decided.", extra={"command_id": id_, "partition": partition})

structlog writes them: one JSON object a line, or for people to read.
"""

import json
import logging
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict

from mercuria.adapters.redaction import Redaction
from mercuria.config import Settings

FIRST = ("time", "level", "logger", "event", "worker")
"""The fields that each line has, in their order."""

_SERVICE = re.compile(r"\[\^-*(\w+)\]: ").match

_OF_RECORDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "data"}
"""What a record has without any `extra`; mode adds "data" to some."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


def logging_config(settings: Settings) -> dict[str, Any]:
    """Return how a worker logs, as `logging.config.dictConfig` takes it."""
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
        # aiokafka has records for each request, and in them the records' bytes.
        "loggers": {"aiokafka": {"level": max(level, "WARNING", key=logging.getLevelName)}},
    }


class Lines(logging.Formatter):
    """Makes lines of records.

    structlog's own `ProcessorFormatter` does the same, copies each record first and then formats it twice: three times
    the work, for each HTTP request.
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
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            "worker": self._worker,
        }
        if event.startswith("[^"):
            # So mode marks what its services log, with a hyphen for each service that they are part of.
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
    """Log also what nobody caught; and look for nothing that no line says (the standard library's "Optimization")."""
    sys.excepthook = _log_uncaught
    logging.captureWarnings(True)
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def log_always(event: str) -> None:
    """Log what has to be known whatever the level is."""
    logger = logging.getLogger(__name__)
    logger.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, event, (), None))


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Log what nobody caught, as Python would write it."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger(__name__).critical("Nobody caught this.", exc_info=(kind, error, traceback))


def rfc3339(time_s: float) -> str:
    """Return a moment as RFC 3339 has it, in UTC, with milliseconds."""
    return f"{datetime.fromtimestamp(time_s, UTC).isoformat(timespec='milliseconds')[:-6]}Z"


def _as_json(line: EventDict) -> str:
    with suppress(ValueError, TypeError):
        text = _encode(line).decode()
        if text.isprintable():
            return text
    # A text that is no UTF-8, as a client may send it, or has what terminals or readers take for control characters
    # and JSON does not: it is shown escaped.
    return json.dumps(line, default=str)


class _ForPeople:
    """Makes a line for people to read. The worker's name is left out, which the file has that they read."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), timestamp_key="time", sort_keys=False, pad_event_to=0
        )

    def __call__(self, line: EventDict) -> str:
        shown = {name: _escaped(name, value) for name, value in line.items() if name != "worker"}
        return str(self._render(None, "", shown))


def _escaped(name: str, value: Any) -> Any:
    """Return a value with its control characters escaped: what a client has sent moves no cursor and begins no line.

    A sentence or a traceback of several lines keeps them, below its first one and to the right of it.
    """
    if not isinstance(value, str) or value.isprintable():
        return value
    if name in ("event", "exception", "stack"):
        return "\n    ".join(map(escape, value.split("\n")))
    return escape(value)


def escape(text: str) -> str:
    """Return a text with what cannot be printed escaped, as Python would write it."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
