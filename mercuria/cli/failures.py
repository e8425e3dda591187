"""Exit codes and error messages of commands: the one place that maps errors to both.

- 0: the command succeeded
- 1: the answer is no: the request is wrong, refused or not found, as the command's own page says
- 2: the command could not be carried out or its answer not determined, or an option or setting is wrong
- 3: of `mercuria status`: the stack is stopped
- 130, 143, 129: Ctrl-C, SIGTERM and SIGHUP ended the command

A command raises `AnswerIsNo` for 1, or exits with 1 or 3 itself after it has printed its answer. Any other
error is 2, with a sentence and without a traceback. The sentence goes to standard error, with `--json` as
well: that option affects only standard output, which holds one JSON value, or nothing if there is no answer.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable

import click

from mercuria.cli.printable import printable, printable_lines
from mercuria.cli.signals import Signals, ending_signals
from mercuria.cli.standard_streams import OutputError, finish
from mercuria.config import SettingError

EXIT_NO, EXIT_UNKNOWN = 1, 2

_SERVERS = {"aiokafka": "Kafka", "psycopg2": "PostgreSQL", "redis": "Redis"}
"""By the top-level module of an exception: the server that it concerns."""


class AnswerIsNo(Exception):
    """The request is refused or its object does not exist; the message is a sentence that says why."""


def run(command: Callable[[], object]) -> int:
    """Run a command to its end, print the error if there is one, and return the exit code."""
    unwritten: OutputError | None = None
    with ending_signals() as signals:
        try:
            code = _run(command, signals)
        except OutputError as error:
            code, unwritten = EXIT_UNKNOWN, error
        try:
            finish()
        except OutputError as error:
            unwritten = error
    if unwritten is not None:
        say(str(unwritten))
    # The answer of a command that has found something wrong is more important.
    return code or (EXIT_UNKNOWN if unwritten else 0)


def say(sentence: str) -> None:
    """Print an error to standard error; the sentence may come without its full stop."""
    ended = sentence if sentence.endswith((".", "?", "!")) or "\n  " in sentence else f"{sentence}."
    print(f"mercuria: {printable_lines(ended)}", file=sys.stderr)


def silence_clients() -> None:
    """Keep the logs of clients silent: the command itself reports that a server is unavailable."""
    for name in ("aiokafka", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _run(command: Callable[[], object], signals: Signals) -> int:
    try:
        outcome = command()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(printable_lines(str(end.code)), file=sys.stderr)
        return EXIT_NO
    except click.UsageError as error:
        if not isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.message = printable(error.message)
        error.show()
        return EXIT_UNKNOWN
    except KeyboardInterrupt:
        return signals.exit_code
    except click.Abort as error:
        # A prompt that Ctrl-C has ended hides it.
        if signals.came or isinstance(error.__context__, KeyboardInterrupt):
            return signals.exit_code
        if isinstance(error.__context__, EOFError) and not sys.stdin.isatty():
            say(
                "the question has no answer, as standard input is no terminal and has ended; --yes answers it"
            )
            return EXIT_UNKNOWN
        print("Aborted!", file=sys.stderr)
        return EXIT_NO
    except OutputError:
        raise
    except AnswerIsNo as error:
        say(str(error))
        return EXIT_NO
    except Exception as error:
        if os.environ.get("MERCURIA_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exception(error)
        say(sentence_of(error))
        return EXIT_UNKNOWN
    return outcome if isinstance(outcome, int) else 0


def sentence_of(error: Exception) -> str:
    """Return the message of an error as a sentence; Mercuria's own errors have one already."""
    if isinstance(error, ExceptionGroup):
        # Of several errors, the first one counts.
        return sentence_of(error.exceptions[0])
    text = str(error)
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OutputError | SettingError) or (module == "mercuria" and text):
        return text
    if module in _SERVERS:
        if type(error).__name__ == "KafkaConnectionError":
            return "Kafka cannot be reached: start Mercuria with `mercuria up`, or point MERCURIA_KAFKA at it"
        reason = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        return f"{_SERVERS[module]} does not do what it is asked: {reason}"
    if isinstance(error, TimeoutError):
        return "there is no answer in time"
    if isinstance(error, OSError) and error.strerror:
        files = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*files, error.strerror])
    if isinstance(error, UnicodeError):
        return "a text that is not UTF-8 cannot be used"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return f"unexpected {type(error).__name__}: {text}; with MERCURIA_LOG_LEVEL=debug, the place is shown"
