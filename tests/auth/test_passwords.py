"""Passwords: which are taken, that every character counts, and that nobody has to wait forever."""

import asyncio

import bcrypt
import pytest

from mercuria.auth.passwords import LOOKED_AT_CHARACTERS, THREADS, WAITING, Passwords, parse_line
from mercuria.http.problems import Problem
from tests.auth.conftest import PASSWORD

WORDS = ["zoe@example.com", "zoe", "example.com"]

WEAK = {
    "": "password_too_short",
    "xK3$f9q": "password_too_short",
    # Seven characters, although more bytes.
    "žluťouč": "password_too_short",
    # Eight characters, of which two are one in their normal form.
    "xK3$f9e\u0301": "password_too_short",
    "x" * 129: "password_too_long",
    "correct horse battery staple " * 5: "password_too_long",
    "password": "password_too_common",
    "P@ssw0rd!": "password_too_common",
    "12345678": "password_too_common",
    "qwertyuiop": "password_too_common",
    "aaaaaaaaaaaaaaaaaaaaaaaa": "password_too_common",
    "mercuria1": "password_too_common",
    "zoezoezoe": "password_too_common",
    "zoe@example.com": "password_too_common",
    "        ": "password_too_common",
    PASSWORD + "\0": "password_not_text",
    PASSWORD + "\r": "password_not_text",
    "\x1b[2K" + PASSWORD: "password_not_text",
    PASSWORD + "\x85": "password_not_text",
    PASSWORD + "\ud800": "password_not_text",
}

STRONG = [
    PASSWORD,
    "xK3$f9qL",
    "příliš žluťoučký kůň",
    "密码很长也很难猜到对吗",
    "🐎🔋📎✅🦊🌧️🎻🧊",
    "kq" + "x7#Lm2!v" * 15,
]


@pytest.mark.parametrize(("password", "code"), WEAK.items(), ids=range(len(WEAK)))
async def test_what_is_refused(passwords: Passwords, password: str, code: str) -> None:
    problem = await passwords.weakness(password, WORDS)
    assert problem is not None
    assert (problem.code, [(error.field, error.code) for error in problem.errors]) == (
        code,
        [("password", code)],
    )


@pytest.mark.parametrize("password", STRONG)
async def test_what_is_taken(passwords: Passwords, password: str) -> None:
    assert await passwords.weakness(password, WORDS) is None


async def test_a_longer_minimum_can_be_asked_for() -> None:
    strict = Passwords(cost=4, min_characters=15)
    problem = await strict.weakness("xK3$f9qL?mW2(z", WORDS)
    assert problem is not None
    assert problem.detail == "It must have at least 15 characters."
    strict.close()


async def test_a_long_password_does_not_keep_a_thread_busy(passwords: Passwords) -> None:
    # What makes the search for words the longest; its time grows fast with its length, and is bounded with it.
    hard = ("4@8({[<369|1!7+%2$5z0" * 10)[:128]
    assert len(hard) > LOOKED_AT_CHARACTERS
    assert await passwords.weakness(hard, WORDS) is None


async def test_two_searches_do_not_mix_what_they_know_of_people(passwords: Passwords) -> None:
    async def judge(name: str) -> Problem | None:
        return await passwords.weakness(name * 2, [name])

    names = [f"zorblatt{number}q" for number in range(16)]
    found = await asyncio.gather(*(judge(name) for name in names))
    assert all(problem is not None for problem in found)


# Hashes.


async def test_a_password_matches_its_own_hash(passwords: Passwords) -> None:
    for password in ("", "short", PASSWORD, "x" * 10_000, "zero\0inside", "\ud800 alone"):
        kept = await passwords.hash(password)
        assert isinstance(kept, str)
        assert kept.startswith("$2b$04$")
        assert await passwords.matches(password, kept) is True
        assert await passwords.matches(password + "x", kept) is False


async def test_every_character_counts_whatever_bcrypt_would_read(passwords: Passwords) -> None:
    for first, second in (("x" * 72 + "a", "x" * 72 + "b"), ("zero\0a", "zero\0b"), ("č" * 40, "č" * 41)):
        kept = await passwords.hash(first)
        assert await passwords.matches(second, str(kept)) is False


async def test_ways_of_writing_the_same_characters_are_the_same_password(passwords: Passwords) -> None:
    # Composed and decomposed; and a ligature, as NFKC has it.
    kept = str(await passwords.hash("caf\u00e9 ﬁne"))
    assert await passwords.matches("cafe\u0301 fine", kept) is True


async def test_nothing_matches_where_there_is_no_account_and_it_is_the_same_work(
    passwords: Passwords,
) -> None:
    kept = str(await passwords.hash(PASSWORD))
    before = passwords.computed
    assert await passwords.matches(PASSWORD, kept) is True
    known = passwords.computed - before
    assert await passwords.matches(PASSWORD, None) is False
    assert passwords.computed - before == 2 * known
    # What it compares with is a hash of the same cost, which bcrypt takes for one.
    assert passwords._no_hash.startswith(kept[:7])
    assert len(passwords._no_hash) == len(kept)
    assert bcrypt.checkpw(b"x", passwords._no_hash.encode()) is False


async def test_a_hash_of_another_cost_is_outdated(passwords: Passwords) -> None:
    dearer = Passwords(cost=5)
    kept = str(await passwords.hash(PASSWORD))
    assert (passwords.is_outdated(kept), dearer.is_outdated(kept)) == (False, True)
    assert await dearer.matches(PASSWORD, kept) is True
    dearer.close()


# Threads.


async def test_who_comes_when_too_many_wait_is_told_to_come_again() -> None:
    slow = Passwords(cost=8)
    outcomes = await asyncio.gather(*(slow.hash(PASSWORD) for _ in range(THREADS + WAITING + 5)))
    refused = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    assert refused == [Problem("overloaded")] * 5
    assert isinstance(await slow.hash(PASSWORD), str), "there is room again"
    slow.close()


async def test_a_request_that_is_given_up_keeps_its_place_until_its_work_is_done() -> None:
    slow = Passwords(cost=10)
    tasks = [asyncio.create_task(slow.hash(PASSWORD)) for _ in range(THREADS + WAITING)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # What had begun goes on; what had only waited is gone.
    outcomes = await asyncio.gather(*(slow.hash(PASSWORD) for _ in range(THREADS + WAITING)))
    assert sum(isinstance(outcome, Problem) for outcome in outcomes) <= THREADS
    slow.close()


async def test_the_event_loop_turns_while_hashes_are_computed() -> None:
    slow = Passwords(cost=11)
    hashing = asyncio.create_task(slow.hash(PASSWORD))
    turns = 0
    while not hashing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 100
    slow.close()


@pytest.mark.parametrize(
    ("line", "password"),
    [
        (b"seven otters\n", "seven otters"),
        (b"seven otters", "seven otters"),
        (b"seven otters\r\n", "seven otters"),
        (b"\xef\xbb\xbfseven otters\r\n", "seven otters"),
        (b" seven otters \n", " seven otters "),
        ("p\u00e4ssw\u00f6rter\n".encode(), "p\u00e4ssw\u00f6rter"),
        ("p\u00e4ssw\u00f6rter\n".encode("latin-1"), None),
        ("p\u00e4ssw\u00f6rter\n".encode("utf-16"), None),
        (b"\xed\xa0\x80 half\n", None),
        (b"", ""),
    ],
)
def test_a_line_of_input_is_a_password_where_it_is_utf_8(line: bytes, password: str | None) -> None:
    assert parse_line(line) == password


async def test_a_password_with_a_control_character_that_was_taken_before_still_fits(
    passwords: Passwords,
) -> None:
    kept = await passwords.hash(PASSWORD + "\0")
    assert isinstance(kept, str)
    assert await passwords.matches(PASSWORD + "\0", kept) is True
    assert await passwords.matches(PASSWORD, kept) is False
