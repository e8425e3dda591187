"""Reading commands: from the bytes of a record to a command, or to the reason why it is not one."""

from collections.abc import Callable
from typing import Any, cast, get_args
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mercuria.domain.commands import AnyCommand, Leg, Movement
from mercuria.domain.effective import DETAIL, EffectiveError, effective_at
from mercuria.domain.money import MAX_AMOUNT, is_currency
from mercuria.domain.rejections import DETAILS, Code
from mercuria.domain.strict_json import (
    MAX_DEPTH,
    MAX_QUOTED_CHARACTERS,
    RepeatedNameError,
    check_names,
    is_too_deep,
    repeated_names,
)

MAX_COMMAND_BYTES = 64 * 1024
"""The maximum size of a client's command.

Metadata within its limits fits, unless it is full and in a script whose letters take three bytes each.
"""

MAX_LEG_BYTES = 2 * MAX_COMMAND_BYTES
"""The maximum size of a leg: it holds a client's command, or as much data, with Mercuria's additions."""

MAX_DETAIL_CHARACTERS = 500
"""The maximum length of a refusal's detail: it may quote the record, which may be large."""

_decode: Callable[[bytes], AnyCommand] = msgspec.json.Decoder(AnyCommand).decode
_decode_names: Callable[[bytes], dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_STRUCTS: dict[str, type[Struct]] = {
    str(struct.__struct_config__.tag): struct for struct in get_args(AnyCommand)
}
_MOVEMENTS = get_args(Movement)
_CLIENT_TYPES = [kind for kind, struct in _STRUCTS.items() if not issubclass(struct, Leg)]

_TOO_DEEP = f"{DETAILS[Code.MALFORMED_JSON][:-1]} that a command could be: nested deeper than {MAX_DEPTH}."


class Unreadable(Struct, frozen=True, gc=False):
    """The reason why a record is not a command, with the fields that could be read."""

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
            # A client's command has no room for deep values. Legs do, in the commands that they forward and in fields
            # that are not read. A leg is sealed as Mercuria wrote it, and the command in it is read again before it is
            # decided.
            is_good = (
                not is_too_deep(value)
                if isinstance(command, Leg)
                else len(value) <= MAX_COMMAND_BYTES and _names_each_once(command, value)
            )
            if is_good:
                return _in_one_form(cast(Movement, command)) if type(command) in _MOVEMENTS else command
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, EffectiveError):
        pass
    return _diagnose(value)


def _in_one_form(command: Movement) -> Movement:
    """Return a command with its effective date, if any, in canonical form (`domain.effective`).

    Raises:
        EffectiveError: the text is not an effective date.
    """
    said = command.effective_at
    return command if said is None else replace(command, effective_at=effective_at(said))


def read_leniently(value: bytes | None) -> AnyCommand | None:
    """Return the command in a record that is refused for a repeated name; the last value of a name counts.

    Before such records were refused, they were decided in this way; logs keep them permanently.
    """
    try:
        return _decode(value) if value is not None and len(value) <= MAX_COMMAND_BYTES else None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _names_each_once(command: Any, value: bytes) -> bool:
    """Return whether a client's command and its metadata repeat no name.

    A colon follows each name. If there are no more colons than different names, no name is repeated. A text
    that contains a colon breaks that rule; the exact check then follows, which costs ten times as much.
    """
    different = len(_decode_names(value)) + len(getattr(command, "metadata", ()))
    if value.count(b":") == different:
        return True
    try:
        check_names(value)
    except RepeatedNameError:
        return False
    return True


def _diagnose(value: bytes | None) -> Unreadable:
    """Find out what is wrong. Only invalid records come here, so it may be slow."""
    if not value:
        return Unreadable(Code.EMPTY_RECORD, DETAILS[Code.EMPTY_RECORD])
    too_large = f"The record has {len(value)} bytes; a command may have {MAX_COMMAND_BYTES}."
    if len(value) > MAX_LEG_BYTES:
        return Unreadable(Code.RECORD_TOO_LARGE, too_large)
    if is_too_deep(value):
        return Unreadable(Code.MALFORMED_JSON, _TOO_DEEP)
    try:
        content = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Unreadable(Code.MALFORMED_JSON, _detail(f"{DETAILS[Code.MALFORMED_JSON][:-1]}: {error}"))
    if not isinstance(content, dict):
        return Unreadable(Code.MALFORMED_COMMAND, DETAILS[Code.MALFORMED_COMMAND])
    code, detail = (
        _fault(content, value) if len(value) <= MAX_COMMAND_BYTES else (Code.RECORD_TOO_LARGE, too_large)
    )
    for name in repeated_names(value):
        # Which of the two values is meant cannot be known.
        content.pop(name, None)
    kind = content.get("type")
    return Unreadable(
        code,
        detail,
        command_id=_uuid(content.get("id")),
        command_type=_without_nul(kind[:MAX_QUOTED_CHARACTERS]) if isinstance(kind, str) else None,
        wallet_id=_uuid(content.get("wallet_id")),
    )


def _fault(content: dict[str, Any], value: bytes) -> tuple[Code, str]:
    try:
        check_names(value)
    except RepeatedNameError as error:
        return Code.MALFORMED_COMMAND, _detail(str(error))
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
            return Code.UNKNOWN_FIELD, _detail(
                f"`{content['type']}` has no field `{name[:MAX_QUOTED_CHARACTERS]}`."
            )
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
        return Code.INVALID_FIELD, _detail(str(error))
    except EffectiveError:
        return Code.INVALID_FIELD, DETAIL
    # The two parsers should agree; if they ever do not, the decoder has refused the record.
    return Code.INVALID_FIELD, DETAILS[Code.INVALID_FIELD]


def _detail(text: str) -> str:
    """Return a detail that quotes the record, in a form that any event can hold."""
    short = text if len(text) <= MAX_DETAIL_CHARACTERS else text[:MAX_DETAIL_CHARACTERS] + "…"
    return _without_nul(short.rstrip(".")) + "."


def _without_nul(text: str) -> str:
    """Replace characters that a text of an event must not hold; `text` quotes the record."""
    return text.replace("\x00", "\ufffd")


def _uuid(value: Any) -> UUID | None:
    # `UUID(value)` would read " 1" as "01": the answer would belong to a command that no client has sent.
    try:
        return msgspec.convert(value, UUID)
    except msgspec.ValidationError:
        return None
