"""Throwaway stacks: servers and workers of their own, in a new directory and on free ports.

What is done to a stack lives in `bench`, `chaos` and `soak`. The tests start stacks here as well.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mercuria.auth.tokens import Tokens
from mercuria.cli.preparing import prepare
from mercuria.config import Settings
from mercuria.embedded.errors import StackError
from mercuria.embedded.ports import free_port
from mercuria.embedded.stack import Stack

PARTITIONS = 8
INHERITED_VARIABLES = ("MERCURIA_CACHE_DIR", "MERCURIA_LOG_LEVEL", "MERCURIA_KAFKA_SESSION_MS")
"""Of an installation's settings, a throwaway stack takes these alone: it never touches an existing installation."""
TOKEN_MINUTES = 24 * 60
"""The life of access tokens: longer than any run."""
UNLIMITED_LOGINS = MappingProxyType(
    {
        "MERCURIA_BCRYPT_COST": "4",
        "MERCURIA_LOGIN_LIMIT_ADDRESS": "1000000/minute",
        "MERCURIA_LOGIN_LIMIT_ACCOUNT": "1000000/minute",
    }
)
"""Settings under which any number of clients may log in from one address."""


def fresh_stack(
    directory: Path,
    workers: int,
    on_progress: Callable[[str], None],
    settings: Mapping[str, str] = MappingProxyType({}),
    *,
    partitions: int = PARTITIONS,
    **more: Any,
) -> Stack:
    """Return a stack to start in an empty directory, with settings for its workers."""
    return Stack(
        directory,
        workers=workers,
        http_port=free_port(),  # The default port may be taken by an installation.
        partitions=partitions,
        prepare=prepare,
        throwaway=True,
        on_progress=on_progress,
        environ=environ_without_settings() | dict(settings),
        **more,
    )


def environ_without_settings() -> dict[str, str]:
    """Return this process's environment without the settings of an installation."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MERCURIA_") or name in INHERITED_VARIABLES
    }


def leg_key(stack: Stack) -> bytes:
    """Return the leg key of a stack."""
    key_file = Path(stack.env.get("MERCURIA_LEG_KEY_FILE") or stack.directory.path / "leg.key")
    return bytes.fromhex(key_file.read_text("ascii").strip())


def token_issuer(stack: Stack) -> Tokens:
    """Return what issues access tokens for a stack, without a login."""
    return Tokens(Settings.from_env(stack.env | {"MERCURIA_ACCESS_TOKEN_MINUTES": str(TOKEN_MINUTES)}))


@contextmanager
def data_directory(named: str | None = None) -> Iterator[Path]:
    """Yield an empty directory: the named one, which is kept, or a temporary one.

    Raises:
        StackError: the named directory is not empty.
    """
    if named is None:
        with tempfile.TemporaryDirectory(prefix="mercuria-harness-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    directory = Path(named)
    if directory.exists() and any(directory.iterdir()):
        raise StackError(f"{directory} is not empty; name a directory that does not exist with --data-dir.")
    yield directory
