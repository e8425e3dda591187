"""What a command's exit code means, and what is said where it fails: the one place that maps errors to both.

- 0: it is done
- 1: the answer is no: what was asked is wrong, refused or not there, as the command's own page says
- 2: it could not be done or found out, so nothing is said about what was asked; also a wrong option or setting
- 3: of `mercuria status`: the stack is stopped
- 130, 143, 129: Ctrl-C, SIGTERM and SIGHUP ended it

A command raises `AnswerIsNo` for 1, or ends with 1 or 3 by itself where it has printed its answer. Any other error is
2, with a sentence and without a traceback. The sentence is on standard error, with `--json` as well: that changes what
standard output holds, which is one JSON value, or nothing where there is no answer.
"""

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
"""By the first name of a module that has exceptions: who is meant."""


class AnswerIsNo(Exception):
    """What was asked is refused or not there; the message is a sentence that says why."""


def run(command: Callable[[], object]) -> int:
    """Run a command to its end, say what is wrong, and return the exit code."""
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
    # A command that has found something wrong has the more important thing to say.
    return code or (EXIT_UNKNOWN if unwritten else 0)


def say(sentence: str) -> None:
    """Say on standard error what is wrong; a sentence may come without its full stop."""
    ended = sentence if sentence.endswith((".", "?", "!")) or "\n  " in sentence else f"{sentence}."
    print(f"mercuria: {printable_lines(ended)}", file=sys.stderr)


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
        # A question that Ctrl-C has ended hides it.
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
    """Return what is wrong, as one says it; Mercuria's own errors say it themselves."""
    if isinstance(error, ExceptionGroup):
        # What of several things at once went wrong first.
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
