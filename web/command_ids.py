"""Command ids: derived from a request's Idempotency-Key, so that a repeated request repeats its command."""

import re
from typing import NamedTuple
from uuid import UUID, uuid4

from aiohttp.web import Request

from mercuria.domain.rejections import Code
from mercuria.http.problems import FieldError, Problem
from mercuria.redis.idempotency import MAX_KEY_CHARACTERS, command_id_of, key_prefix, wallet_id_of

_KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY_CHARACTERS}}}")


class CommandIds(NamedTuple):
    """The ids of a request's command, and of the wallet that it opens if it opens one."""

    prefix: bytes | None

    @property
    def is_repeatable(self) -> bool:
        """Whether the request has an Idempotency-Key, so that the same ids come again when it is repeated."""
        return self.prefix is not None

    def command_at(self, wallet_id: UUID) -> UUID:
        """Return the id of the command that `wallet_id` decides."""
        return command_id_of(self.prefix, wallet_id) if self.prefix else uuid4()

    def new_wallet(self) -> UUID:
        """Return the id of a wallet to open."""
        return wallet_id_of(self.prefix) if self.prefix else uuid4()


def ids_of(request: Request, caller_id: UUID) -> CommandIds | Problem:
    """Return the ids that the request's Idempotency-Key stands for, or new ones."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return CommandIds(None)
    if not _KEY.fullmatch(key):
        detail = f"It must have 1 to {MAX_KEY_CHARACTERS} printable ASCII characters."
        return Problem("invalid_header", errors=[FieldError("Idempotency-Key", Code.INVALID_FIELD, detail)])
    return CommandIds(key_prefix(caller_id, key))
