"""Reading commands: from the bytes of a record to a command, or to the reason why it is none."""

import re
from collections.abc import Callable
from typing import Any, cast, get_args
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mercuria.domain.commands import AnyCommand, Deposit, Leg, Movement, Transfer, Withdraw
from mercuria.domain.effective import DETAIL, EffectiveError, effective_at
from mercuria.domain.money import MAX_AMOUNT, is_currency
from mercuria.domain.rejections import DETAILS, Code

MAX_COMMAND_BYTES = 64 * 1024
"""How large a client's command may be. Metadata within its limits fits, unless it is full and in a script of which
each letter takes three bytes."""

MAX_LEG_BYTES = 2 * MAX_COMMAND_BYTES
"""How large a leg may be: it holds a client's command, or as much, with what Mercuria adds."""

MAX_DEPTH = 32
"""How deep values may be nested. Python's own limit depends on the caller, and decisions must not."""

_decode: Callable[[bytes], AnyCommand] = msgspec.json.Decoder(AnyCommand).decode

_STRUCTS: dict[str, type[Struct]] = {
    str(struct.__struct_config__.tag): struct for struct in get_args(AnyCommand)
}
_MOVEMENTS = (Deposit, Withdraw, Transfer)
_CLIENT_TYPES = [kind for kind, struct in _STRUCTS.items() if not issubclass(struct, Leg)]

_TOO_DEEP = f"{DETAILS[Code.MALFORMED_JSON][:-1]} that a command could be: nested deeper than {MAX_DEPTH}."
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class Unreadable(Struct, frozen=True, gc=False):
    """Why a record is no command, with what could be read of it all the same."""

    code: Code
    detail: str
    command_id: UUID | None = None
    command_type: str | None = None
    wallet_id: UUID | None = None


def read_command(value: bytes | None) -> AnyCommand | Unreadable:
    """Return the command that `value` holds."""
    try:
        if value is not None and len(value) <= MAX_LEG_BYTES:
            command = _decode(value)
            # No client's command has room for deep values; legs have, in what they forward and in what nobody reads.
            fits = not _is_too_deep(value) if isinstance(command, Leg) else len(value) <= MAX_COMMAND_BYTES
            if fits:
                return _in_one_form(cast(Movement, command)) if type(command) in _MOVEMENTS else command
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, EffectiveError):
        pass
    return _diagnose(value)


def _in_one_form(command: Movement) -> Movement:
    """Return a command whose effective date, if it has one, is as `domain.effective` writes it.

    Raises:
        EffectiveError: it is none.
    """
    said = command.effective_at
    return command if said is None else replace(command, effective_at=effective_at(said))


def _diagnose(value: bytes | None) -> Unreadable:
    """Find out what is wrong. Only bad records come here, so it may take its time."""
    if not value:
        return Unreadable(Code.EMPTY_RECORD, DETAILS[Code.EMPTY_RECORD])
    too_large = f"The record has {len(value)} bytes; a command may have {MAX_COMMAND_BYTES}."
    if len(value) > MAX_LEG_BYTES:
        return Unreadable(Code.RECORD_TOO_LARGE, too_large)
    if _is_too_deep(value):
        return Unreadable(Code.MALFORMED_JSON, _TOO_DEEP)
    try:
        content = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Unreadable(Code.MALFORMED_JSON, f"{DETAILS[Code.MALFORMED_JSON][:-1]}: {error}.")
    if not isinstance(content, dict):
        return Unreadable(Code.MALFORMED_COMMAND, DETAILS[Code.MALFORMED_COMMAND])
    code, detail = _fault(content) if len(value) <= MAX_COMMAND_BYTES else (Code.RECORD_TOO_LARGE, too_large)
    kind = content.get("type")
    return Unreadable(
        code,
        _without_nul(detail),
        command_id=_uuid(content.get("id")),
        command_type=_without_nul(kind[:64]) if isinstance(kind, str) else None,
        wallet_id=_uuid(content.get("wallet_id")),
    )


def _fault(content: dict[str, Any]) -> tuple[Code, str]:
    if "type" not in content:
        return Code.MISSING_FIELD, "The field `type` is missing."
    struct = _STRUCTS.get(content["type"]) if isinstance(content["type"], str) else None
    if struct is None:
        return Code.UNKNOWN_COMMAND_TYPE, f"`type` must be one of {', '.join(_CLIENT_TYPES)}."
    for field in msgspec.structs.fields(struct):
        if field.required and field.encode_name not in content:
            return Code.MISSING_FIELD, f"The field `{field.encode_name}` is missing."
    known = {field.encode_name for field in msgspec.structs.fields(struct)} | {"type"}
    for name in content:
        if name not in known:
            return Code.UNKNOWN_FIELD, f"`{content['type']}` has no field `{name[:64]}`."
    for name, code in (
        ("amount", Code.AMOUNT_TOO_LARGE),
        ("overdraft_limit", Code.OVERDRAFT_LIMIT_OUT_OF_RANGE),
    ):
        if type(content.get(name)) is int and abs(content[name]) > MAX_AMOUNT:
            return code, DETAILS[code]
    if isinstance(content.get("currency"), str) and not is_currency(content["currency"]):
        return Code.UNKNOWN_CURRENCY, DETAILS[Code.UNKNOWN_CURRENCY]
    try:
        command = msgspec.convert(content, struct)
        effective_at(getattr(command, "effective_at", None) or "0001-01-01")
    except msgspec.ValidationError as error:
        return Code.INVALID_FIELD, f"{error}."
    except EffectiveError:
        return Code.INVALID_FIELD, DETAIL
    # What the decoder refused and the converter did not: a field that stands there twice.
    return Code.INVALID_FIELD, DETAILS[Code.INVALID_FIELD]


def _without_nul(text: str) -> str:
    """Replace what no text of an event may hold; `text` repeats what the record says."""
    return text.replace("\x00", "\ufffd")


def _uuid(value: Any) -> UUID | None:
    # Not `UUID(value)`, which takes " 1" for "01": an answer would go to a command that nobody has sent.
    try:
        return msgspec.convert(value, UUID)
    except msgspec.ValidationError:
        return None


def _is_too_deep(value: bytes) -> bool:
    """Tell whether a text, taken as JSON, is nested deeper than `MAX_DEPTH`."""
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRINGS.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False
