"""Reading commands: from the bytes of a record to a command, or to the reason why it is none."""

from collections.abc import Callable
from typing import Any, get_args
from uuid import UUID

import msgspec
from msgspec import Struct

from mercuria.domain.commands import AnyCommand
from mercuria.domain.money import MAX_AMOUNT
from mercuria.domain.rejections import DETAILS, Code

MAX_COMMAND_BYTES = 64 * 1024
"""A larger value is refused unread. The largest allowed metadata takes less than half of it."""

_decode: Callable[[bytes], AnyCommand] = msgspec.json.Decoder(AnyCommand).decode

_STRUCTS: dict[str, type[Struct]] = {
    str(struct.__struct_config__.tag): struct for struct in get_args(AnyCommand)
}


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
        if value is not None and len(value) <= MAX_COMMAND_BYTES:
            return _decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    return _diagnose(value)


def _diagnose(value: bytes | None) -> Unreadable:
    """Find out what is wrong. Only bad records come here, so it may take its time."""
    if not value:
        return Unreadable(Code.EMPTY_RECORD, DETAILS[Code.EMPTY_RECORD])
    if len(value) > MAX_COMMAND_BYTES:
        detail = f"The record has {len(value)} bytes; a command may have {MAX_COMMAND_BYTES}."
        return Unreadable(Code.RECORD_TOO_LARGE, detail)
    try:
        content = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Unreadable(Code.MALFORMED_JSON, f"{DETAILS[Code.MALFORMED_JSON][:-1]}: {error}.")
    if not isinstance(content, dict):
        return Unreadable(Code.MALFORMED_COMMAND, DETAILS[Code.MALFORMED_COMMAND])
    code, detail = _fault(content)
    kind = content.get("type")
    return Unreadable(
        code,
        detail,
        command_id=_uuid(content.get("id")),
        command_type=kind[:64] if isinstance(kind, str) else None,
        wallet_id=_uuid(content.get("wallet_id")),
    )


def _fault(content: dict[str, Any]) -> tuple[Code, str]:
    if "type" not in content:
        return Code.MISSING_FIELD, "The field `type` is missing."
    struct = _STRUCTS.get(content["type"]) if isinstance(content["type"], str) else None
    if struct is None:
        return Code.UNKNOWN_COMMAND_TYPE, f"`type` must be one of {', '.join(_STRUCTS)}."
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
    try:
        msgspec.convert(content, struct)
    except msgspec.ValidationError as error:
        return Code.INVALID_FIELD, f"{error}."
    # What the decoder refused and the converter did not, such as a number of thousands of digits.
    return Code.INVALID_FIELD, DETAILS[Code.INVALID_FIELD]


def _uuid(value: Any) -> UUID | None:
    # Not `UUID(value)`, which takes " 1" for "01": an answer would go to a command that nobody has sent.
    try:
        return msgspec.convert(value, UUID)
    except msgspec.ValidationError:
        return None
