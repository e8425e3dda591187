"""The face of the command line: its help, its groups, what it completes, and Faust's commands that do not fit."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import rocksdict
from click.testing import CliRunner
from faust.cli.faust import cli

from mercuria.cli import commands, root, standalone
from tests.cli import command_line
from tests.cli.conftest import MERCURIA, TIMEOUT_S
from tests.embedded.conftest import clean_environ
from tests.terminals import read_until

WHOLE = click.Group("mercuria", commands=command_line.all_commands())
"""The command line as it is, with nothing that is written down."""


def of(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words that lead to each command below a group."""
    for name, command in group.commands.items():
        yield *path, name
        if isinstance(command, click.Group):
            yield from of(command, *path, name)


def run(*words: str, environ: dict[str, str] | None = None, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run `mercuria WORDS`; return its exit code and what it printed."""
    done = subprocess.run(
        [*MERCURIA, *words],
        env=clean_environ() | (environ or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# Help.


def test_every_command_stands_in_one_group() -> None:
    named = [name for names in commands.GROUPS.values() for name in names]
    assert len(named) == len(set(named))
    assert set(cli.commands) | set(commands.MODULES) == set(named), "mercuria/cli/commands.py: GROUPS"
    assert set(commands.MODULES) | set(commands.OF_FAUST) | set(standalone.INSTEAD) == set(named)


@pytest.mark.parametrize("words", list(of(WHOLE)), ids=" ".join)
def test_the_help_of_every_command_fits_into_80_columns(words: tuple[str, ...]) -> None:
    help_ = CliRunner().invoke(WHOLE, [*words, "--help"], prog_name="mercuria", terminal_width=80)
    assert help_.exit_code == 0, help_.output
    assert help_.output.startswith(f"Usage: mercuria {' '.join(words)} ")
    assert [line for line in help_.output.splitlines() if len(line) > 80] == []
    command: click.Command = WHOLE
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command.help
    assert all(each.help for each in command.params if isinstance(each, click.Option)) or words[0] in (
        *commands.GROUPS[commands.FAUST],
        "worker",
    )


def test_mercuria_lists_its_commands_by_what_people_do() -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    titles = [title for title in commands.GROUPS if f"{title}:" in lines]
    assert titles == ["Run", "Look", "Check", "Administer", commands.FAUST]
    listed = {title: section(out, title) for title in titles}
    for title, rows in listed.items():
        assert [row.split()[0] for row in rows] == [
            name
            for name in commands.GROUPS[title]
            if name in commands.names() and name not in standalone.INSTEAD
        ]
        # A summary is one whole sentence.
        assert [row for row in rows if not row.endswith(".") or row.endswith("...")] == []


def section(text: str, title: str) -> list[str]:
    """Return the lines of a section of a help page."""
    found = re.search(rf"^{re.escape(title)}:\n((?:  .*\n)+)", text, re.MULTILINE)
    assert found is not None, text
    return found[1].splitlines()


WITHOUT_JSON = ("up", "join", "worker", "down", "completion", "ledger export")
"""They give neither figures nor lists, or write them in formats of their own."""


def test_commands_that_give_figures_or_lists_take_json() -> None:
    kept = root.json.loads(command_line.FILE.read_text("utf-8"))["commands"]
    found = {}
    for words in of(WHOLE):
        entry = kept.get(words[0])
        for word in words[1:]:
            entry = entry["commands"][word]
        if entry is not None and "commands" not in entry:
            found[" ".join(words)] = any("--json" in option["names"] for option in entry["options"])
    # Faust's take `mercuria --json agents`.
    left_out = (*WITHOUT_JSON, *commands.GROUPS[commands.FAUST])
    assert [name for name, takes in found.items() if not takes and name not in left_out] == []
    assert not any(found.get(name) for name in WITHOUT_JSON)


def test_the_subcommands_of_a_group_have_whole_summaries() -> None:
    for name in ("keys", "ledger", "user", "wallet"):
        help_ = CliRunner().invoke(WHOLE, [name, "--help"], terminal_width=80).output
        assert [
            row for row in section(help_, "Commands") if not row.endswith(".") or row.endswith("...")
        ] == []


def test_without_arguments_the_help_is_shown_with_the_exit_code_of_wrong_usage() -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err == run("--help")[1]


@pytest.mark.parametrize("words", [("--version",), ("--quiet", "--version"), ("--version", "worker")])
def test_the_version_is_that_of_mercuria(words: tuple[str, ...]) -> None:
    code, out, _ = run(*words)
    assert (code, re.fullmatch(r"mercuria \d\S*\n", out) is not None) == (0, True), out


def test_a_command_that_is_not_there_may_be_a_slip() -> None:
    code, _, err = run("walet", "list")
    assert code == 2 and err.endswith("Error: No such command 'walet'. Did you mean wallet?\n"), err
    code, _, err = run("xyzzy")
    assert code == 2 and err.endswith("Error: No such command 'xyzzy'.\n"), err


def test_the_command_line_is_written_down_as_it_is() -> None:
    kept = command_line.FILE.read_text("utf-8")
    assert kept == command_line.as_text(command_line.written()), "run `make commands`"


# The data directory.


@pytest.mark.parametrize(
    "words",
    [
        "--data-dir here keys list",
        "keys --data-dir here list",
        "keys list --data-dir here",
        "keys list --data-dir=here --json",
        "--data-dir elsewhere keys list --data-dir here",
    ],
)
def test_the_data_directory_may_stand_at_any_position(words: str, tmp_path: Path) -> None:
    code, _, err = run(*words.split(), environ={"MERCURIA_DATA_DIR": "elsewhere"}, cwd=tmp_path)
    assert (code, err) == (
        2,
        f"mercuria: the keys in {tmp_path / 'here' / 'token-keys.json'} cannot be read: No such file or directory.\n",
    )


@pytest.mark.parametrize("words", ["--data-dir here agents", "agents --data-dir here"])
def test_faust_commands_take_the_settings_of_the_data_directory(words: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "stack.env").write_text("MERCURIA_PARTITIONS=none\n")
    code, _, err = run(*words.split(), cwd=tmp_path)
    assert (code, err) == (
        2,
        "mercuria: MERCURIA_PARTITIONS='none' cannot be used: it must be a whole number from 1 to 1024.\n",
    )


def test_every_command_and_group_but_completion_takes_a_data_directory() -> None:
    for words in of(WHOLE):
        command: click.Command = WHOLE
        for word in words:
            assert isinstance(command, click.Group)
            command = command.commands[word]
        takes = any(parameter.name == "data_dir" for parameter in command.params)
        assert takes is (words != ("completion",)), words


# Completion.


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the shell finds `mercuria`, and Python finds no Faust and no app."""
    program = tmp_path / "bin" / "mercuria"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "before = set(sys.modules)\n"
        "from mercuria.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    open({str(tmp_path / 'imported')!r}, 'w').write('\\n'.join(set(sys.modules) - before))\n"
    )
    program.chmod(0o755)
    environ = clean_environ()
    return environ | {
        "PATH": f"{program.parent}:{environ['PATH']}",
        "HOME": str(tmp_path),
        "INPUTRC": "/dev/null",
    }


@pytest.mark.parametrize(
    ("typed", "has", "has_not"),
    [
        ("mercuria wal", ["wallet"], ["worker"]),
        ("mercuria ", ["up", "worker", "completion"], ["send", "--help"]),
        ("mercuria wallet ", ["show", "list", "set-limit"], ["wallet"]),
        ("mercuria --data-dir x user set-", ["set-role", "set-password"], ["create"]),
        ("mercuria user set-role zoe@example.com ", ["operator", "user"], []),
        ("mercuria ledger verify --", ["--resume", "--json", "--data-dir", "--help"], []),
        ("mercuria ledger export --format ", ["csv", "beancount"], []),
        ("mercuria completion ", ["bash", "zsh", "fish"], []),
        ("mercuria load --over", ["--overdraft-limit"], []),
    ],
)
def test_bash_completes(on_path: dict[str, str], typed: str, has: list[str], has_not: list[str]) -> None:
    words = typed.split(" ")
    script = (
        'eval "$(mercuria completion bash)"\n'
        f"COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}') COMP_CWORD={len(words) - 1}\n"
        "$(complete -p mercuria | sed 's/.*-F \\([^ ]*\\).*/\\1/') mercuria\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", script],
        env=on_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = done.stdout.split()
    assert set(has) <= set(found) and not set(has_not) & set(found), found


def test_the_tab_key_completes_in_bash(on_path: dict[str, str]) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], on_path)
    try:
        os.write(terminal, b'PS1=; eval "$(mercuria completion bash)"; echo rea""dy\n')
        read_until(terminal, b"ready")
        os.write(terminal, b"mercuria wallet set-l\t")
        read_until(terminal, b"set-limit")
        # A name of a file, where one is taken.
        (Path(on_path["HOME"]) / "statement-of-zoe.csv").touch()
        os.write(terminal, f"\x15cd {on_path['HOME']}; echo the''re\n".encode())
        read_until(terminal, b"there")
        os.write(terminal, b"mercuria load statem\t")
        read_until(terminal, b"statement-of-zoe.csv")
    finally:
        os.write(terminal, b"\x15exit\n")
        os.close(terminal)
        os.waitpid(pid, 0)


def test_completing_imports_neither_faust_nor_commands_and_opens_nothing(
    on_path: dict[str, str], tmp_path: Path
) -> None:
    environ = on_path | {
        "_MERCURIA_COMPLETE": "bash_complete",
        "COMP_WORDS": "mercuria wallet ",
        "COMP_CWORD": "2",
        "MERCURIA_DATA_DIR": str(tmp_path / "absent"),
        "MERCURIA_KAFKA": "this is read by nothing",
    }
    done = subprocess.run(["mercuria"], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["plain,list", "plain,set-limit", "plain,show"]
    imported = set((tmp_path / "imported").read_text().split())
    tops = {name.partition(".")[0] for name in imported}
    assert not tops & {
        "faust",
        "mode",
        "aiokafka",
        "aiohttp",
        "rocksdict",
        "psycopg2",
        "redis",
        "rich",
        "asyncio",
    }
    assert not {"mercuria.app", "mercuria.agents", "mercuria.cli.wallet"} & imported
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("module", sorted(set(commands.MODULES.values())))
def test_mercurias_commands_load_neither_faust_nor_the_worker(module: str) -> None:
    program = f"import sys, mercuria.cli.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # `skip` shares the worker's producer and the service that reads skips, which are built on Faust.
    faust = set() if module == "skip" else {"faust", "mode"}
    assert not {"mercuria.app", "mercuria.worker", *faust} & set(done.stdout.split())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_their_scripts(on_path: dict[str, str], shell: str, tmp_path: Path) -> None:
    script = subprocess.run(
        ["mercuria", "completion", shell], env=on_path, capture_output=True, text=True, check=True
    ).stdout
    assert f"_MERCURIA_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)
    words, word = ("mercuria wal", "wal") if shell == "fish" else ("mercuria wal", "1")
    environ = on_path | {
        "_MERCURIA_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": word,
    }
    found = subprocess.run(["mercuria"], env=environ, capture_output=True, text=True, check=True).stdout
    summary = "Show and list wallets, and change their overdraft limits."
    wanted = f"plain,wallet\t{summary}\n" if shell == "fish" else f"plain\nwallet\n{summary}\n"
    assert found == wanted


def test_a_shell_that_is_not_known_is_wrong_usage() -> None:
    assert run("completion", "tcsh")[0] == 2
    assert run("completion")[0] == 2


# Faust's commands.


@pytest.mark.parametrize(("name", "sentence"), standalone.INSTEAD.items())
def test_what_does_not_fit_says_what_to_use(name: str, sentence: str) -> None:
    for words in ((), ("--value-type", "x", "@wallets", "{}")):
        assert run(name, *words) == (2, "", f"mercuria: {sentence}.\n")


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Return the directory of a worker's tables, with one that is empty and closed."""
    tables = tmp_path / "data" / "worker-1" / "v1" / "tables"
    tables.mkdir(parents=True)
    rocksdict.Rdict(str(tables / "balances-0.db")).close()
    return tables


def test_the_tables_of_a_stopped_worker_are_deleted(tables: Path, tmp_path: Path) -> None:
    code, out, err = run("reset", cwd=tmp_path)
    assert (code, err) == (0, "") and out.startswith(f"Deleted {tables}. Worker-1 makes"), out
    assert not tables.exists()
    code, out, err = run("reset", cwd=tmp_path)
    assert (code, out, err) == (0, f"There are no tables in {tables}.\n", "")


def test_the_tables_of_a_worker_that_has_them_open_stay(tables: Path, tmp_path: Path) -> None:
    database = rocksdict.Rdict(str(tables / "balances-0.db"))
    try:
        code, out, err = run("reset", cwd=tmp_path)
    finally:
        database.close()
    assert (code, out) == (2, "")
    assert err.startswith(
        f"mercuria: Worker-1 of {tmp_path / 'data'} runs, and its tables stay as they are: "
    ), err
    assert (tables / "balances-0.db" / "LOCK").exists()


def test_the_tables_of_a_worker_that_has_opened_none_yet_stay(tables: Path, tmp_path: Path) -> None:
    environ = clean_environ() | {"MERCURIA_PART": f"worker-1@{tmp_path / 'data'}"}
    with subprocess.Popen(["sleep", "600"], env=environ, start_new_session=True) as worker:
        try:
            code, _, err = run("reset", cwd=tmp_path)
        finally:
            worker.kill()
    assert code == 2 and f"runs (process {worker.pid})" in err, err
    assert tables.exists()
