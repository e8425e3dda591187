"""Where the last verification has ended: what cannot be that is a sentence, and never a finding."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mercuria.cli.ledger.heads import Head, HeadsError, read_heads, write_heads

HASH = 32 * "ab"


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "data" / "heads.json"
    assert read_heads(file, "cluster") == {}
    heads = {0: Head(7, HASH, 9), 3: Head()}
    write_heads(file, "cluster", heads)
    assert read_heads(file, "cluster") == heads


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    file.write_text(f'{{"0": {{"sequence": 7, "hash": "{HASH}", "offset": 9}}}}')
    assert read_heads(file, "cluster") == {0: Head(7, HASH, 9)}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda file: write_heads(file, "another", {0: Head(7, HASH, 9)}),
            "it belongs to another installation",
        ),
        (lambda file: file.mkdir(), "it is not a file"),
        (lambda file: file.symlink_to("/dev/zero"), "it is not a file"),
        (lambda file: file.symlink_to(file), "Too many levels of symbolic links"),
        *(
            (
                lambda file, content=content: file.write_bytes(content),
                "it does not hold what a verification writes",
            )
            for content in (
                b"",
                b"{",
                b"\xff\xfe\x00",
                b"[]",
                b"null",
                b'{"0": 7}',
                b'{"x": {}}',
                b'{"0": {"sequence": -1}}',
                b'{"0": {"sequence": 1e400}}',
                b'{"0": {"sequence": 9223372036854775808}}',
                b'{"0": {"hash": "zz"}}',
                b'{"0": {"hash": "abab"}}',
                b'{"0": {"unknown": 1}}',
                b'{"cluster": "cluster"}',
                100_000 * b"[",
            )
        ),
    ],
)
def test_a_file_that_is_something_else_is_a_sentence(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    file = tmp_path / "heads.json"
    make(file)
    with pytest.raises(HeadsError) as raised:
        read_heads(file, "cluster")
    assert str(raised.value) == f"{file} cannot be used: {why}; move it away, or verify without --resume"
