"""Log lines: what each line of a worker's log says, and how it is written.

All records come through Python's `logging`, those of Faust and of libraries as well. Fields come with `extra`:

    log.debug("A command is decided.", extra={"command_id": id_, "partition": partition})

structlog writes them: one JSON object a line, or for people to read.
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
"""The fields that each line has, in their order."""

_SERVICE = re.compile(r"\[\^-*(\w+)\]: ").match

_OF_RECORDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "data"}
"""What a record has without any `extra`; mode adds "data" to some."""

_OF_LINES = frozenset(("event", "exception", "stack"))
_CONTINUED = "\n    "

_OBEYED = re.compile(
    r"[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff]"
).search
"""What a terminal obeys, or an eye misses, and JSON does not escape."""

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
            "time": rfc3339(int(record.created * 1000)),
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


def _as_json(line: EventDict) -> str:
    try:
        text = _encode(line).decode()
    except (ValueError, TypeError):
        # A text that is no UTF-8, as a client may send it: it is shown escaped.
        return json.dumps(line, default=str)
    # JSON escapes C0 only; a terminal obeys more than that, and people look at these lines as well.
    return text if _OBEYED(text) is None else json.dumps(json.loads(text))


class _ForPeople:
    """Makes a line for people to read. The worker's name is left out, which the file has that they read."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), timestamp_key="time", sort_keys=False, pad_event_to=0
        )

    def __call__(self, line: EventDict) -> str:
        shown = {name: _shown(name, value) for name, value in line.items() if name != "worker"}
        return str(self._render(None, "", shown))


def _shown(name: str, value: Any) -> Any:
    """Return a field so that it can neither begin a line of its own nor reach the terminal as a command."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else str(value)
    # Libraries log tables, and tracebacks have lines; a line that goes on is indented, and a field's value has one.
    if name in _OF_LINES:
        return _CONTINUED.join(map(printable, text.rstrip("\n").split("\n")))
    return printable(text)
