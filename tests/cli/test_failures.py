"""Exit codes mean what they say: what cannot be done or found out is 2 and a sentence, whatever it is."""

import io
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import click
import pytest

from mercuria.cli import failures
from mercuria.config import SettingError
from mercuria.embedded.errors import StackError
from mercuria.projections.ledger.snapshot import BooksUnavailable
from tests.cli.conftest import MERCURIA, TIMEOUT_S
from tests.embedded.conftest import clean_environ

NOWHERE = {
    "MERCURIA_KAFKA": "127.0.0.1:1",
    "MERCURIA_DATABASE": "postgresql://127.0.0.1:1/mercuria",
    "MERCURIA_REDIS": "redis://127.0.0.1:1/0",
}
ID = str(uuid4())
PLACE = "; with MERCURIA_LOG_LEVEL=debug, the place is shown"


def mercuria(
    words: str, cwd: Path, environ: Mapping[str, str | bytes] | None = None, redirect: str = ""
) -> tuple[int, str, str]:
    """Run `mercuria WORDS`, by a shell where something is redirected; return its exit code and what it printed."""
    done = subprocess.run(
        ["bash", "-c", f'"$0" "$@" {words} {redirect}', *MERCURIA],
        env={**clean_environ(), **NOWHERE, **(environ or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def sentence(outcome: tuple[int, str, str]) -> str:
    """Return the one sentence of a command that could not do what it should."""
    code, _, err = outcome
    assert code == 2, outcome
    (line,) = err.splitlines()
    assert line.startswith("mercuria: ") and line.endswith("."), err
    return line.removeprefix("mercuria: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ledger verify", "Kafka cannot be reached"),
        ("reconcile", "Kafka cannot be reached"),
        ("ledger export", "PostgreSQL cannot be read"),
        (
            "ledger export --output no/such/dir/a.csv",
            "--output no/such/dir/a.csv cannot be written: No such file",
        ),
        ("ledger export --output ''", "--output needs the name of a file"),
        (f"wallet show {ID}", "there are no tables in "),
        ("wallet list --json", "there are no tables in "),
        (f"wallet set-limit {ID} 5", "there are no tables in "),
        ("user list --json", "PostgreSQL "),
        ("user create zoe", "'zoe' is no e-mail address: "),
        ("keys list --json", "the keys in "),
        ("migrate", "PostgreSQL cannot be reached: "),
        ("rebuild --yes", "PostgreSQL cannot be reached: "),
        ("skip --list", "no Kafka answers at 127.0.0.1:1. "),
        ("load /dev/null --currency XXX", "--currency XXX: there is no such currency"),
        ("reconcile --json", "Kafka cannot be reached"),
        ("ledger verify --json", "Kafka cannot be reached"),
    ],
)
def test_servers_or_files_that_are_away_are_a_sentence(tmp_path: Path, words: str, said: str) -> None:
    outcome = mercuria(words, tmp_path)
    assert sentence(outcome).startswith(said) and outcome[1] == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "redirect", "why"),
    [
        ("--help", "> /dev/full", "No space left on device"),
        ("ledger --help", ">&-", "Bad file descriptor"),
        ("status", "> /dev/full", "No space left on device"),
    ],
)
def test_output_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, words: str, redirect: str, why: str
) -> None:
    outcome = mercuria(words, tmp_path, redirect=redirect)
    assert sentence(outcome) == f"standard output cannot be written: {why}."


def test_a_pipe_that_nothing_reads_is_a_sentence(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*MERCURIA, "status"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=clean_environ(),
        cwd=tmp_path,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (
        2,
        b"mercuria: standard output cannot be written: Broken pipe.\n",
    )


def test_where_no_error_can_be_shown_the_exit_code_is_the_same(tmp_path: Path) -> None:
    assert mercuria("ledger export", tmp_path, redirect="> /dev/full 2> /dev/full") == (2, "", "")


def test_what_is_opened_does_not_take_the_place_of_a_closed_output(tmp_path: Path) -> None:
    assert mercuria("ledger export --output a.csv", tmp_path, redirect="<&- >&- 2>&-")[0] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["ledger verify", "worker"])
def test_a_setting_that_cannot_be_used_is_a_sentence(tmp_path: Path, command: str) -> None:
    environ = {"MERCURIA_DATABASE": "postgresql://a:secret@b/c\r"}
    found = sentence(mercuria(command, tmp_path, environ=environ))
    assert found.startswith("MERCURIA_DATABASE='…' cannot be used: it must be text")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("ledger verify --data-dir", "Option '--data-dir' requires an argument."),
        ("ledger verify --data-dir=", "Invalid value for '--data-dir': It needs the name of a directory."),
        ("worker --data-dir", "Option '--data-dir' requires an argument."),
    ],
)
def test_a_data_directory_without_a_name_is_wrong_usage(tmp_path: Path, words: str, why: str) -> None:
    code, out, err = mercuria(words, tmp_path)
    assert (code, out, err.splitlines()[-1]) == (2, "", f"Error: {why}")
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_that_is_no_line_of_text_is_refused(tmp_path: Path) -> None:
    for name in ("$'a\\nb'", "$'\\xff'"):
        found = sentence(mercuria(f"status --data-dir {name}", tmp_path))
        assert found.startswith("MERCURIA_DATA_DIR='…' cannot be used: it must be text")


def test_a_broken_stack_env_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "data" / "stack.env"
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe")
    found = sentence(mercuria("ledger verify", tmp_path))
    assert found.startswith(f"{file} cannot be read: it is not text in UTF-8; it must be ")


def test_nothing_that_an_argument_holds_reaches_the_terminal(tmp_path: Path) -> None:
    found = sentence(mercuria("ledger export --output $'\\x1b[2J\\n\\xe2\\x80\\xae\\xff/a'", tmp_path))
    assert found == r"--output \x1b[2J\n\u202e\udcff/a cannot be written: No such file or directory."


@pytest.mark.parametrize(
    "environ",
    [
        {"TERM": "dumb"},
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_a_poor_terminal_shows_what_it_can(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "Zoë").mkdir()
    code, out, err = mercuria("status --data-dir Zoë", tmp_path, environ=environ)
    assert (code, err) == (3, "")
    assert out.startswith("Mercuria is stopped in ") and out.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (SystemExit(0), 0, ""),
        (SystemExit(1), 1, ""),
        (SystemExit("mercuria: no.\nTwo\x1b"), 1, "mercuria: no.\\nTwo\\x1b\n"),
        (click.ClickException("it is slow"), 2, "mercuria: it is slow.\n"),
        (click.UsageError("no \x1b[2J\n"), 2, "Error: no \\x1b[2J\\n\n"),
        (click.Abort(), 1, "Aborted!\n"),
        (failures.AnswerIsNo("there is no wallet"), 1, "mercuria: there is no wallet.\n"),
        (KeyboardInterrupt(), 130, ""),
        (SettingError("X", "y", "z"), 2, "mercuria: X='y' cannot be used: it must be z.\n"),
        (StackError("Port 1 is taken."), 2, "mercuria: Port 1 is taken.\n"),
        (BooksUnavailable("the database lacks tables"), 2, "mercuria: the database lacks tables.\n"),
        (FileNotFoundError(2, "No such file", "a\x1b"), 2, "mercuria: a\\x1b: No such file.\n"),
        (TimeoutError(), 2, "mercuria: there is no answer in time.\n"),
        (ExceptionGroup("two", [TimeoutError(), OSError()]), 2, "mercuria: there is no answer in time.\n"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), 2, "mercuria: a text that is not UTF-8 cannot be used.\n"),
        (MemoryError(), 2, "mercuria: there is not enough memory.\n"),
        (ZeroDivisionError("x\ny"), 2, f"mercuria: unexpected ZeroDivisionError: x\\ny{PLACE}.\n"),
    ],
)  # fmt: skip
def test_each_error_has_its_exit_code_and_its_sentence(
    error: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        if error is not None:
            raise error

    assert failures.run(command) == code
    assert capsys.readouterr() == ("", said)


def test_a_question_that_cannot_be_asked_has_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert failures.run(lambda: click.confirm("Empty all tables?", abort=True)) == 2
    assert capsys.readouterr().err == (
        "mercuria: the question has no answer, as standard input is no terminal and has ended; --yes answers it.\n"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    assert failures.run(lambda: click.confirm("Empty all tables?", abort=True)) == 1
    assert capsys.readouterr().err == "Aborted!\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_ctrl_c_does(number: int) -> None:
    closed = []

    def command() -> None:
        try:
            signal.raise_signal(number)
        finally:
            closed.append(True)

    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert failures.run(command) == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert closed == [True]
