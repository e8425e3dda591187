"""From bytes to a command, or to the reason why it is none, and what could be read all the same."""

import json
from collections.abc import Callable, Mapping
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from mercuria.domain.commands import (
    AnyCommand,
    ClientCommand,
    CloseWallet,
    Command,
    Credit,
    Deposit,
    Forwarded,
    FreezeWallet,
    Leg,
    Movement,
    OpenWallet,
    Origin,
    Position,
    Refund,
    SetLimits,
    Transfer,
    UnfreezeWallet,
    WalletSide,
    Withdraw,
)
from mercuria.domain.effective import text_of
from mercuria.domain.parsing import MAX_COMMAND_BYTES, MAX_DEPTH, MAX_LEG_BYTES, Unreadable, read_command
from mercuria.domain.rejections import Code

from .faults import acceptable
from .story import ID, MAX, OTHER, OWNER, WALLET, credit, deposit, encoded, open_wallet, refund, set_limits

DAY = "2021-03-04T00:00:00.000Z"

DEPOSIT: dict[str, Any] = {
    "type": "deposit",
    "id": str(ID),
    "wallet_id": str(WALLET),
    "amount": 100,
    "currency": "EUR",
}
TRANSFER = DEPOSIT | {"type": "transfer", "to_wallet_id": str(OTHER)}
OPEN = {key: DEPOSIT[key] for key in ("id", "wallet_id", "currency")} | {
    "type": "open_wallet",
    "owner_id": str(OWNER),
}
LIMITS: dict[str, Any] = {key: DEPOSIT[key] for key in ("id", "wallet_id")} | {
    "type": "set_limits",
    "overdraft_limit": 500,
}


def but(fields: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(fields | changes).encode()


def without(name: str, fields: Mapping[str, Any] = DEPOSIT) -> bytes:
    return json.dumps({key: value for key, value in fields.items() if key != name}).encode()


def with_amount(literal: str) -> bytes:
    """Return a deposit with an amount that is written like this."""
    return but(DEPOSIT).replace(b": 100,", f": {literal},".encode())


def forwarded(command: bytes) -> Forwarded:
    """Return the leg by which `command` goes to another partition."""
    return Forwarded(origin=Origin(5, 19), wallet_id=WALLET, command=msgspec.Raw(command))


def arrays(depth: int) -> str:
    return "[" * depth + "]" * depth


# What cannot be read at all: nothing is known but the code.

NO_OBJECT: list[tuple[str, bytes | None, Code]] = [
    ("a tombstone", None, Code.EMPTY_RECORD),
    ("no bytes", b"", Code.EMPTY_RECORD),
    ("white space", b"  \n", Code.MALFORMED_JSON),
    ("a word", b"deposit", Code.MALFORMED_JSON),
    ("bytes that are no text", b"\xff\xfe\x00", Code.MALFORMED_JSON),
    ("a byte order mark", b"\xef\xbb\xbf" + but(DEPOSIT), Code.MALFORMED_JSON),
    ("UTF-16", but(DEPOSIT).decode().encode("utf-16"), Code.MALFORMED_JSON),
    ("half a command", but(DEPOSIT)[:50], Code.MALFORMED_JSON),
    ("a command and a half", but(DEPOSIT) + b"{", Code.MALFORMED_JSON),
    ("two commands", but(DEPOSIT) + but(DEPOSIT), Code.MALFORMED_JSON),
    ("a comma at the end", but(DEPOSIT)[:-1] + b",}", Code.MALFORMED_JSON),
    ("single quotes", but(DEPOSIT).replace(b'"', b"'"), Code.MALFORMED_JSON),
    ("broken UTF-8 in a text", but(DEPOSIT).replace(b"EUR", b"\xff"), Code.MALFORMED_JSON),
    ("half a surrogate pair", but(DEPOSIT).replace(b"EUR", b"\\ud800"), Code.MALFORMED_JSON),
    ("a raw control character", but(DEPOSIT).replace(b"EUR", b"E\x00R"), Code.MALFORMED_JSON),
    ("NaN", with_amount("NaN"), Code.MALFORMED_JSON),
    ("infinity", with_amount("-Infinity"), Code.MALFORMED_JSON),
    ("a leading zero", with_amount("0100"), Code.MALFORMED_JSON),
    ("a number beyond what a computer keeps", with_amount("1e400"), Code.MALFORMED_JSON),
    ("an integer of 5000 digits", with_amount("1" + "0" * 5000), Code.MALFORMED_JSON),
    ("null", b"null", Code.MALFORMED_COMMAND),
    ("true", b"true", Code.MALFORMED_COMMAND),
    ("a number", b"1", Code.MALFORMED_COMMAND),
    ("a text", b'"deposit"', Code.MALFORMED_COMMAND),
    ("an empty array", b"[]", Code.MALFORMED_COMMAND),
    ("an array of commands", b"[" + but(DEPOSIT) + b"]", Code.MALFORMED_COMMAND),
    ("arrays without end", b"[" * 60_000, Code.MALFORMED_JSON),
    ("objects without end", b'{"a":' * 10_000, Code.MALFORMED_JSON),
    ("one level too deep", arrays(33).encode(), Code.MALFORMED_JSON),
    ("a command one level too deep", with_amount(arrays(32)), Code.MALFORMED_JSON),
    ("objects too deep", with_amount('{"a":' * 32 + "1" + "}" * 32), Code.MALFORMED_JSON),
    ("too deep after brackets in a text", with_amount('["]]]]", ' + arrays(31) + "]"), Code.MALFORMED_JSON),
    ("too deep after a quote in a text", with_amount('["\\"", ' + arrays(31) + "]"), Code.MALFORMED_JSON),
    ("too deep after 64 KiB", with_amount(arrays(32)).ljust(64 * 1024 + 1), Code.MALFORMED_JSON),
    ("a forwarded command too deep", encoded(forwarded(with_amount(arrays(32)))), Code.MALFORMED_JSON),
    ("a forwarded command too deep with its leg", encoded(forwarded(with_amount(arrays(31)))), Code.MALFORMED_JSON),
    ("half a command in 128 KiB", but(DEPOSIT)[:50].ljust(128 * 1024), Code.MALFORMED_JSON),
    ("null in 128 KiB", b"null".ljust(128 * 1024), Code.MALFORMED_COMMAND),
    ("a command of one byte more than 128 KiB", but(DEPOSIT).ljust(128 * 1024 + 1), Code.RECORD_TOO_LARGE),
    ("a leg of one byte more than 128 KiB", encoded(credit()).ljust(128 * 1024 + 1), Code.RECORD_TOO_LARGE),
    ("a megabyte of zeros", bytes(2**20), Code.RECORD_TOO_LARGE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "code"), [pytest.param(value, code, id=name) for name, value, code in NO_OBJECT]
)
def test_what_is_no_object(value: bytes | None, code: Code) -> None:
    fault = read_command(value)
    assert isinstance(fault, Unreadable)
    assert fault.code == code
    assert fault.detail.endswith(".")
    assert (fault.command_id, fault.command_type, fault.wallet_id) == (None, None, None)


def test_64_kib_are_read() -> None:
    assert (MAX_COMMAND_BYTES, MAX_LEG_BYTES) == (64 * 1024, 128 * 1024)
    assert read_command(but(DEPOSIT).ljust(64 * 1024)) == deposit()


@pytest.mark.parametrize("size_bytes", [64 * 1024 + 1, 128 * 1024])
@pytest.mark.parametrize("leg", [credit(), refund()], ids=["credit", "refund"])
def test_128_kib_of_a_leg_are_read(leg: Leg, size_bytes: int) -> None:
    assert read_command(encoded(leg).ljust(size_bytes)) == leg


def test_a_leg_does_not_make_the_command_in_it_any_larger() -> None:
    leg = read_command(encoded(forwarded(but(DEPOSIT, reference="r" * 64 * 1024))))
    assert isinstance(leg, Forwarded)
    fault = read_command(bytes(leg.command))
    assert isinstance(fault, Unreadable)
    assert (fault.code, fault.command_id, fault.wallet_id) == (Code.RECORD_TOO_LARGE, ID, WALLET)


# What is an object but no command: id, type and wallet are told where they can be read.

FAULTY: list[tuple[str, bytes, Code, str]] = [
    ("no type", without("type"), Code.MISSING_FIELD, "`type`"),
    ("no id", without("id"), Code.MISSING_FIELD, "`id`"),
    ("no wallet", without("wallet_id"), Code.MISSING_FIELD, "`wallet_id`"),
    ("no amount", without("amount"), Code.MISSING_FIELD, "`amount`"),
    ("no currency to open", without("currency", OPEN), Code.MISSING_FIELD, "`currency`"),
    ("another type", but(DEPOSIT, type="steal"), Code.UNKNOWN_COMMAND_TYPE, "open_wallet, deposit"),
    ("a type in capitals", but(DEPOSIT, type="DEPOSIT"), Code.UNKNOWN_COMMAND_TYPE, "must be one of"),
    ("an endless type", but(DEPOSIT, type="x" * 9999), Code.UNKNOWN_COMMAND_TYPE, "must be one of"),
    ("a number as type", but(DEPOSIT, type=1), Code.UNKNOWN_COMMAND_TYPE, "must be one of"),
    ("null as type", but(DEPOSIT, type=None), Code.UNKNOWN_COMMAND_TYPE, "must be one of"),
    ("an array as type", but(DEPOSIT, type=["deposit"]), Code.UNKNOWN_COMMAND_TYPE, "must be one of"),
    ("a field too many", but(DEPOSIT, ammount=1), Code.UNKNOWN_FIELD, "`ammount`"),
    ("a field of another command", but(DEPOSIT, to_wallet_id=str(OTHER)), Code.UNKNOWN_FIELD, "`to_wallet_id`"),
    ("a field of a leg", but(DEPOSIT, origin=[1, 2]), Code.UNKNOWN_FIELD, "`origin`"),
    ("a field named nothing", but(DEPOSIT, **{"": 1}), Code.UNKNOWN_FIELD, "``"),
    ("an amount of 2**63", but(DEPOSIT, amount=2**63), Code.AMOUNT_TOO_LARGE, "64 bits"),
    ("an amount of 2**64", but(DEPOSIT, amount=2**64), Code.AMOUNT_TOO_LARGE, "64 bits"),
    ("an amount of 400 digits", but(DEPOSIT, amount=10**400), Code.AMOUNT_TOO_LARGE, "64 bits"),
    ("an amount below 64 bits", but(DEPOSIT, amount=-(2**63) - 1), Code.AMOUNT_TOO_LARGE, "64 bits"),
    ("an amount with a point", with_amount("100.0"), Code.INVALID_FIELD, "float"),
    ("a fraction", with_amount("0.5"), Code.INVALID_FIELD, "float"),
    ("an exponent", with_amount("1e2"), Code.INVALID_FIELD, "float"),
    ("an amount as text", with_amount('"100"'), Code.INVALID_FIELD, "str"),
    ("true as amount", with_amount("true"), Code.INVALID_FIELD, "bool"),
    ("null as amount", with_amount("null"), Code.INVALID_FIELD, "null"),
    ("an array as amount", with_amount("[100]"), Code.INVALID_FIELD, "array"),
    ("an object as amount", with_amount("{}"), Code.INVALID_FIELD, "object"),
    ("a number as currency", but(DEPOSIT, currency=978), Code.INVALID_FIELD, "$.currency"),
    ("no letter as currency", but(DEPOSIT, currency=""), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("one letter as currency", but(DEPOSIT, currency="?"), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("two letters as currency", but(DEPOSIT, currency="EU"), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("four letters as currency", but(DEPOSIT, currency="EURO"), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("a currency and a line break", but(DEPOSIT, currency="EUR\n"), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("an endless currency", but(DEPOSIT, currency="E" * 9999), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("a currency of four to open", but(OPEN, currency="EURO"), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("a currency of four to send", but(TRANSFER, currency="EURO"), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("a currency of four to take", but(DEPOSIT, type="withdraw", currency="EURO"), Code.UNKNOWN_CURRENCY, "ISO 4217"),
    ("null as currency to open", but(OPEN, currency=None), Code.INVALID_FIELD, "$.currency"),
    ("a reference of 256", but(DEPOSIT, reference="r" * 256), Code.INVALID_FIELD, "$.reference"),
    ("a reason of 256", but({"type": "freeze_wallet", "id": str(ID), "wallet_id": str(WALLET)}, reason="r" * 256),
     Code.INVALID_FIELD, "$.reason"),
    ("51 metadata", but(DEPOSIT, metadata={str(n): "" for n in range(51)}), Code.INVALID_FIELD, "$.metadata"),
    ("metadata of 501", but(DEPOSIT, metadata={"a": "m" * 501}), Code.INVALID_FIELD, "$.metadata"),
    ("a name of 41", but(DEPOSIT, metadata={"m" * 41: ""}), Code.INVALID_FIELD, "$.metadata"),
    ("a name of none", but(DEPOSIT, metadata={"": ""}), Code.INVALID_FIELD, "$.metadata"),
    ("a number in metadata", but(DEPOSIT, metadata={"a": 1}), Code.INVALID_FIELD, "$.metadata"),
    ("null in metadata", but(DEPOSIT, metadata={"a": None}), Code.INVALID_FIELD, "$.metadata"),
    ("nested metadata", but(DEPOSIT, metadata={"a": {"b": "c"}}), Code.INVALID_FIELD, "$.metadata"),
    ("null as metadata", but(DEPOSIT, metadata=None), Code.INVALID_FIELD, "$.metadata"),
    ("an array as metadata", but(DEPOSIT, metadata=[]), Code.INVALID_FIELD, "$.metadata"),
    ("a role that there is not", but(DEPOSIT, actor_role="admin"), Code.INVALID_FIELD, "$.actor_role"),
    ("null as role", but(DEPOSIT, actor_role=None), Code.INVALID_FIELD, "$.actor_role"),
    ("an actor without a UUID", but(DEPOSIT, actor_id="me"), Code.INVALID_FIELD, "$.actor_id"),
    ("an overdraft of 2**63", but(OPEN, overdraft_limit=2**63), Code.OVERDRAFT_LIMIT_OUT_OF_RANGE, "64 bits"),
    ("an overdraft below 64 bits", but(OPEN, overdraft_limit=-(2**70)), Code.OVERDRAFT_LIMIT_OUT_OF_RANGE, "64 bits"),
    ("a limit of 2**63", but(LIMITS, overdraft_limit=2**63), Code.OVERDRAFT_LIMIT_OUT_OF_RANGE, "64 bits"),
    ("a limit as text", but(LIMITS, overdraft_limit="1"), Code.INVALID_FIELD, "$.overdraft_limit"),
    ("no limit", without("overdraft_limit", LIMITS), Code.MISSING_FIELD, "`overdraft_limit`"),
    ("a currency beside a limit", but(LIMITS, currency="EUR"), Code.UNKNOWN_FIELD, "`currency`"),
    ("an effective date to open", but(OPEN, effective_at="2021-03-04"), Code.UNKNOWN_FIELD, "`effective_at`"),
    ("a number as effective date", but(DEPOSIT, effective_at=1614816000000), Code.INVALID_FIELD, "$.effective_at"),
    ("an endless effective date", but(DEPOSIT, effective_at="2021-03-04" * 7), Code.INVALID_FIELD, "$.effective_at"),
    ("a day that there is not", but(DEPOSIT, effective_at="2021-02-30"), Code.INVALID_FIELD, "`effective_at` must be"),
    ("a day that there is not, to send", but(TRANSFER, effective_at="2021-02-30"), Code.INVALID_FIELD, "RFC 3339"),
    ("an overdraft as text", but(OPEN, overdraft_limit="1"), Code.INVALID_FIELD, "$.overdraft_limit"),
    ("64 KiB and a byte", but(DEPOSIT).ljust(64 * 1024 + 1), Code.RECORD_TOO_LARGE, "65537 bytes"),
    ("128 KiB", but(DEPOSIT).ljust(128 * 1024), Code.RECORD_TOO_LARGE, "131072 bytes; a command may have 65536"),
    ("64 KiB with another fault", but(DEPOSIT, type="steal").ljust(64 * 1024 + 1), Code.RECORD_TOO_LARGE, "65537"),
    ("as deep as may be", with_amount(arrays(31)), Code.INVALID_FIELD, "array"),
    ("many values, none of them deep", but(DEPOSIT, amount=[[]] * 100), Code.INVALID_FIELD, "array"),
    ("brackets in a text", but(DEPOSIT, reference="[" * 256), Code.INVALID_FIELD, "$.reference"),
    ("no receiver", but(DEPOSIT, type="transfer"), Code.MISSING_FIELD, "`to_wallet_id`"),
    ("a bad receiver", but(TRANSFER, to_wallet_id="x"), Code.INVALID_FIELD, "$.to_wallet_id"),
    ("a leg without origin", but(DEPOSIT, type="credit"), Code.MISSING_FIELD, "`origin`"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "code", "hint"), [pytest.param(*row[1:], id=row[0]) for row in FAULTY]
)  # fmt: skip
def test_what_is_no_command(value: bytes, code: Code, hint: str) -> None:
    fault = read_command(value)
    assert isinstance(fault, Unreadable)
    assert (fault.code, hint in fault.detail) == (code, True), fault.detail
    assert fault.detail.endswith(".")
    content = json.loads(value)
    assert fault.command_id == (UUID(content["id"]) if "id" in content else None)
    assert fault.wallet_id == (UUID(content["wallet_id"]) if "wallet_id" in content else None)
    kind = content.get("type")
    assert fault.command_type == (kind[:64] if isinstance(kind, str) else None)


# A name that stands twice has two meanings. Id, type and wallet are reported where they stand once.

METADATA = but(DEPOSIT, metadata={"a": "1", "b": "2"})
TWICE: list[tuple[str, bytes, str, str | None]] = [
    ("two amounts", with_amount('1, "amount": 2'), "amount", None),
    ("the same amount", with_amount('1, "amount": 1'), "amount", None),
    ("an amount and null", with_amount('null, "amount": 1'), "amount", None),
    ("an amount and no amount", with_amount('"much", "amount": 1'), "amount", None),
    ("two amounts, one with an escape", with_amount('1, "amo\\u0075nt": 2'), "amount", None),
    ("two amounts, and a colon in a text",
     but(DEPOSIT, reference=":").replace(b'"amount"', b'"amount":1,"amount"'), "amount", None),
    ("three amounts", with_amount('1, "amount": 2, "amount": 3'), "amount", None),
    ("two ids", but(DEPOSIT).replace(b'"id"', b'"id": "%b", "id"' % str(OTHER).encode()), "id", "id"),
    ("two ids, the first no UUID", but(DEPOSIT).replace(b'"id"', b'"id": 1, "id"'), "id", "id"),
    ("two wallets",
     but(DEPOSIT).replace(b'"wallet_id"', b'"wallet_id": null, "wallet_id"'), "wallet_id", "wallet_id"),
    ("two types", but(DEPOSIT).replace(b'"type"', b'"type": "withdraw", "type"'), "type", "type"),
    ("two types, the second far away", but(DEPOSIT)[:-1] + b',"type":"withdraw"}', "type", "type"),
    ("two names in metadata", METADATA.replace(b'"b"', b'"a"'), "a", None),
    ("two names in metadata, one with an escape", METADATA.replace(b'"b"', b'"\\u0061"'), "a", None),
    ("two metadata", METADATA[:-1] + b',"metadata":{}}', "metadata", None),
    ("two names that there are not", but(DEPOSIT, x=1)[:-1] + b',"x":2}', "x", None),
    ("two names in a field that there is not",
     but(DEPOSIT, x={"a": 1}).replace(b'{"a"', b'[{"a":0,"a"').replace(b"1}}", b"1}]}"), "a", None),
    ("two endless names", but(DEPOSIT, **{"x" * 9999: 1})[:-1] + b',"' + b"x" * 9999 + b'":2}', "x" * 64, None),
    ("two names with NUL", but(DEPOSIT)[:-1] + b',"\\u0000":1,"\\u0000":2}', "\ufffd", None),
    ("two ids and two amounts", with_amount('1, "amount": 2').replace(b'"id"', b'"id": 1, "id"'), "id", "id"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "name", "unknown"), [pytest.param(*row[1:], id=row[0]) for row in TWICE])
def test_a_name_that_stands_twice_is_refused(value: bytes, name: str, unknown: str | None) -> None:
    fault = read_command(value)
    assert isinstance(fault, Unreadable)
    assert (fault.code, fault.detail) == (Code.MALFORMED_COMMAND, f"`{name}` stands there twice.")
    assert fault.command_id == (None if unknown == "id" else ID)
    assert fault.wallet_id == (None if unknown == "wallet_id" else WALLET)
    assert fault.command_type == (None if unknown == "type" else "deposit")
    leg = read_command(encoded(forwarded(value)))
    assert isinstance(leg, Forwarded)
    assert read_command(bytes(leg.command)) == fault


def test_a_reason_repeats_no_more_of_a_record_than_an_event_should_hold() -> None:
    for value in (but(DEPOSIT, actor_role="x" * 60_000), but(DEPOSIT, **{"x" * 60_000: 1})):
        fault = read_command(value)
        assert isinstance(fault, Unreadable)
        assert len(fault.detail) <= 510 and fault.detail.endswith(".")


# By descending precedence: each of these has the faults of all that follow.

PILE: list[tuple[Code, Callable[[dict[str, Any]], object]]] = [
    (Code.UNKNOWN_COMMAND_TYPE, lambda it: it.update(type="steal")),
    (Code.MISSING_FIELD, lambda it: it.pop("id")),
    (Code.UNKNOWN_FIELD, lambda it: it.update(colour="red")),
    (Code.AMOUNT_TOO_LARGE, lambda it: it.update(amount=2**63)),
    (Code.UNKNOWN_CURRENCY, lambda it: it.update(currency="ABC")),
    (Code.INVALID_FIELD, lambda it: it.update(reference=1)),
]


@pytest.mark.parametrize("place", range(len(PILE)), ids=[code for code, _ in PILE])
def test_of_several_faults_the_first_counts(place: int) -> None:
    content = dict(DEPOSIT)
    for _, spoil in PILE[place:]:
        spoil(content)
    fault = read_command(json.dumps(content).encode())
    assert isinstance(fault, Unreadable)
    assert fault.code == PILE[place][0]


# PostgreSQL keeps no NUL, so no text that is read holds one, nor does any that is told.

STATUS_CHANGE = {"id": str(ID), "wallet_id": str(WALLET)}
WITH_REASON = dict.fromkeys(["freeze_wallet", "unfreeze_wallet", "close_wallet"], STATUS_CHANGE) | {
    "set_limits": LIMITS
}
WITH_REFERENCE = {"deposit": DEPOSIT, "withdraw": DEPOSIT | {"type": "withdraw"}, "transfer": TRANSFER}
WITH_METADATA = WITH_REFERENCE | {"open_wallet": OPEN}
NUL_TEXTS = ["\x00", "a\x00", "\x00b", "a\n\x00b"]

NUL_FIELDS: list[tuple[str, dict[str, Any], Callable[[str], dict[str, Any]], Code]] = [
    *((f"{kind}: reason", fields | {"type": kind}, lambda text: {"reason": text}, Code.INVALID_FIELD)
      for kind, fields in WITH_REASON.items()),
    *((f"{kind}: reference", fields, lambda text: {"reference": text}, Code.INVALID_FIELD)
      for kind, fields in WITH_REFERENCE.items()),
    *((f"{kind}: a name in metadata", fields, lambda text: {"metadata": {text: "b"}}, Code.INVALID_FIELD)
      for kind, fields in WITH_METADATA.items()),
    *((f"{kind}: a text in metadata", fields, lambda text: {"metadata": {"a": text}}, Code.INVALID_FIELD)
      for kind, fields in WITH_METADATA.items()),
    *((f"{kind}: currency", fields, lambda text: {"currency": text[:3].ljust(3, "R")}, Code.UNKNOWN_CURRENCY)
      for kind, fields in WITH_METADATA.items()),
    ("actor_role", DEPOSIT, lambda text: {"actor_role": "user" + text}, Code.INVALID_FIELD),
    ("type", DEPOSIT, lambda text: {"type": "deposit" + text}, Code.UNKNOWN_COMMAND_TYPE),
    ("a field's name", DEPOSIT, lambda text: {text: 1}, Code.UNKNOWN_FIELD),
]  # fmt: skip


@pytest.mark.parametrize("text", NUL_TEXTS, ids=ascii)
@pytest.mark.parametrize(
    ("fields", "spoil", "code"), [pytest.param(*row[1:], id=row[0]) for row in NUL_FIELDS]
)
def test_no_text_holds_nul(
    fields: dict[str, Any], spoil: Callable[[str], dict[str, Any]], code: Code, text: str
) -> None:
    fault = read_command(but(fields, **spoil(text)))
    assert isinstance(fault, Unreadable)
    assert (fault.code, fault.command_id, fault.wallet_id) == (code, ID, WALLET)
    assert "\x00" not in fault.detail
    assert "\x00" not in (fault.command_type or "")


NO_UUIDS = [
    "",
    "1",
    str(ID)[:-1],
    str(ID) + "0",
    "{" + str(ID) + "}",
    "urn:uuid:" + str(ID),
    str(ID).replace("f", "g"),
    " " + str(ID)[1:],
    "+" + str(ID)[1:],
    "0_" + str(ID)[2:],
    "\uff10" + str(ID)[1:],
    str(ID).replace("-", "_"),
    "-" * 36,
    "01-90b7a4-0000-7000-80000000000000ff",
    1,
    None,
    True,
    [str(ID)],
    {},
]


@pytest.mark.parametrize("field", ["id", "wallet_id"])
@pytest.mark.parametrize("value", NO_UUIDS, ids=repr)
def test_what_is_no_uuid_is_not_told_as_one(field: str, value: object) -> None:
    fault = read_command(but(DEPOSIT, **{field: value}))
    assert isinstance(fault, Unreadable)
    assert fault.code == Code.INVALID_FIELD
    told = {"id": fault.command_id, "wallet_id": fault.wallet_id}
    assert told == {"id": ID, "wallet_id": WALLET} | {field: None}


@pytest.mark.parametrize("text", [str(ID).upper(), ID.hex], ids=["in capitals", "without hyphens"])
def test_a_uuid_may_be_written_so(text: str) -> None:
    assert read_command(but(DEPOSIT, id=text)) == deposit()
    fault = read_command(but(DEPOSIT, id=text, colour="red"))
    assert isinstance(fault, Unreadable)
    assert fault.command_id == ID


# What is read.

READ: list[tuple[str, bytes, AnyCommand]] = [
    ("an ordinary deposit", but(DEPOSIT), deposit()),
    ("fields in another order", json.dumps(dict(reversed(DEPOSIT.items()))).encode(), deposit()),
    ("white space around", b"\n\t " + but(DEPOSIT) + b"\r\n", deposit()),
    ("an amount of 0, for the wallet to refuse", but(DEPOSIT, amount=0), deposit(0)),
    ("minus zero", with_amount("-0"), deposit(0)),
    ("a negative amount", but(DEPOSIT, amount=-1), deposit(-1)),
    ("the largest amount", but(DEPOSIT, amount=MAX), deposit(MAX)),
    ("the smallest amount", but(DEPOSIT, amount=-(2**63)), deposit(-(2**63))),
    ("no currency, for the wallet to know", without("currency"), deposit(currency=None)),
    ("null as currency, for the wallet to know", but(DEPOSIT, currency=None), deposit(currency=None)),
    ("a currency that there is not, for the wallet to refuse", but(DEPOSIT, currency="ABC"), deposit(currency="ABC")),
    ("a currency in small letters, for the wallet to refuse", but(OPEN, currency="eur"), open_wallet(currency="eur")),
    ("a reference of several lines", but(DEPOSIT, reference="a\nb\n"), deposit(reference="a\nb\n")),
    ("brackets in a text", but(DEPOSIT, reference="[" * 255), deposit(reference="[" * 255)),
    ("null where nothing is said", but(DEPOSIT, actor_id=None, reference=None), deposit()),
    ("the longest reference", but(DEPOSIT, reference="é" * 255), deposit(reference="é" * 255)),
    ("a limit", but(LIMITS, reason="rent"), set_limits(500, reason="rent")),
    ("a negative limit, for the wallet to refuse", but(LIMITS, overdraft_limit=-1), set_limits(-1)),
    ("an effective day", but(DEPOSIT, effective_at="2021-03-04"), deposit(effective_at=DAY)),
    ("an effective moment", but(DEPOSIT, effective_at="2021-03-04T01:00:00.0009+01:00"), deposit(effective_at=DAY)),
    ("null as effective date", but(DEPOSIT, effective_at=None), deposit()),
    ("colons in texts", but(DEPOSIT, reference="a:b::", metadata={":": ":"}),
     deposit(reference="a:b::", metadata={":": ":"})),
    ("white space before colons", but(DEPOSIT).replace(b":", b" \n\t:"), deposit()),
    ("a name with an escape", but(DEPOSIT).replace(b"amount", b"amo\\u0075nt"), deposit()),
    ("a negative overdraft", but(OPEN, overdraft_limit=-1), open_wallet(overdraft_limit=-1)),
    (
        "the most metadata",
        but(DEPOSIT, metadata={f"{n:040}": "m" * 500 for n in range(50)}),
        deposit(metadata={f"{n:040}": "m" * 500 for n in range(50)}),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("value", "command"), [pytest.param(*row[1:], id=row[0]) for row in READ])
def test_what_is_read(value: bytes, command: AnyCommand) -> None:
    assert read_command(value) == command


def test_the_most_metadata_of_plain_letters_takes_less_than_half_of_a_record() -> None:
    metadata = {f"{n:040}": "m" * 500 for n in range(50)}
    assert len(encoded(deposit(reference="r" * 255, metadata=metadata))) < MAX_COMMAND_BYTES / 2


def test_the_most_metadata_of_wide_letters_does_not_fit() -> None:
    """Its limits count characters, the record's counts bytes: 25,000 Chinese ones are 75,000 bytes."""
    fault = read_command(encoded(deposit(metadata={f"{n:040}": "账" * 500 for n in range(50)})))
    assert isinstance(fault, Unreadable)
    assert fault.code == Code.RECORD_TOO_LARGE
    assert (fault.command_id, fault.command_type, fault.wallet_id) == (ID, "deposit", WALLET)


@pytest.mark.parametrize("kind", acceptable())
def test_every_command_is_its_struct_field_by_field(kind: str) -> None:
    command, _ = acceptable()[kind]
    content = json.loads(encoded(command))
    assert content["type"] == kind
    assert read_command(json.dumps(content).encode()) == command


@pytest.mark.parametrize("kind", acceptable())
def test_a_command_is_written_without_what_goes_without_saying(kind: str) -> None:
    command, _ = acceptable()[kind]
    struct = type(command)
    said = {field.encode_name for field in msgspec.structs.fields(struct) if field.required}
    if isinstance(command, Movement):
        said.add("currency")  # which these name
    assert json.loads(encoded(command)).keys() == said | {"type"}
    assert struct.__struct_config__.omit_defaults == issubclass(struct, Command)


# Nothing that may come raises, and everything that is read goes through the tables and out again.

letters = st.characters(codec="utf-8", exclude_characters="\x00")
texts = st.text(letters, max_size=20)
currencies = st.text(letters, min_size=3, max_size=3)
small_metadata = st.dictionaries(st.text(letters, min_size=1, max_size=40), texts, max_size=3)
any_texts = st.text(max_size=20)
integers = st.integers(-(2**63), MAX)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "id": st.uuids(),
    "wallet_id": st.uuids(),
    "actor_id": st.none() | st.uuids(),
    "actor_role": st.sampled_from(["user", "operator"]),
}
MOVED: dict[str, st.SearchStrategy[Any]] = COMMON | {
    "amount": integers,
    "currency": currencies,
    "reference": st.none() | texts,
    "metadata": small_metadata,
    "effective_at": st.none() | st.datetimes().map(text_of),
}
STATUS: dict[str, st.SearchStrategy[Any]] = COMMON | {"reason": st.none() | texts}
sides = st.builds(
    WalletSide, st.uuids(), st.none() | st.uuids(), st.none() | integers, st.none() | integers
)  # fmt: skip
LEGS: dict[str, st.SearchStrategy[Any]] = {
    "origin": st.builds(Origin, st.integers(0, 1000), st.integers(0, MAX)),
    "wallet_id": st.uuids(),
    "id": st.uuids(),
    "initiated": st.builds(Position, st.integers(0, 1000), st.integers(0, MAX), st.integers(0, MAX)),
    "amount": integers,
    "currency": any_texts,
    "reference": st.none() | any_texts,
    "metadata": st.dictionaries(st.text(min_size=1, max_size=40), any_texts, max_size=3),
    "effective_at": st.just(msgspec.UNSET) | st.datetimes().map(text_of),
}
clients = st.one_of(
    st.builds(
        OpenWallet,
        **COMMON,
        owner_id=st.uuids(),
        currency=currencies,
        overdraft_limit=integers,
        metadata=small_metadata,
    ),
    st.builds(Deposit, **MOVED),
    st.builds(Withdraw, **MOVED),
    st.builds(Transfer, **MOVED, to_wallet_id=st.uuids()),
    st.builds(FreezeWallet, **STATUS),
    st.builds(UnfreezeWallet, **STATUS),
    st.builds(CloseWallet, **STATUS),
    st.builds(SetLimits, **STATUS, overdraft_limit=integers),
)
commands = st.one_of(
    clients,
    st.builds(Credit, **LEGS, sender=sides),
    st.builds(Refund, **LEGS, receiver=sides, code=any_texts),
    st.builds(
        Forwarded,
        origin=LEGS["origin"],
        wallet_id=st.uuids(),
        command=clients.map(encoded).map(msgspec.Raw),
    ),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=15,
)
FIELDS = sorted({name for struct in get_args(AnyCommand) for name in struct.__struct_fields__} | {"type"})
TAGS = sorted(str(struct.__struct_config__.tag) for struct in get_args(AnyCommand))


def check(value: bytes | None) -> AnyCommand | Unreadable:
    """Read `value`, twice, and check that whatever comes of it can be written."""
    result = read_command(value)
    assert encoded(result) == encoded(read_command(value))
    if isinstance(result, Unreadable):
        assert result.detail.endswith(".")
        assert len(result.detail) < 1000
        assert "\x00" not in result.detail
        assert "\x00" not in (result.command_type or "")
    else:
        assert isinstance(result, Command | Leg)
        assert read_command(encoded(result)) == result
    msgspec.msgpack.encode(result)
    return result


@for_all(st.binary(max_size=500))
def test_any_bytes(value: bytes) -> None:
    check(value)


@for_all(json_values)
def test_any_json(value: Any) -> None:
    check(json.dumps(value).encode())


@for_all(st.dictionaries(st.sampled_from(FIELDS), json_values), st.sampled_from(TAGS))
def test_any_object_that_is_nearly_a_command(content: dict[str, Any], tag: str) -> None:
    check(json.dumps({"type": tag} | content).encode())


@for_all(commands)
def test_every_command_is_read_as_it_was_written(command: AnyCommand) -> None:
    assert check(encoded(command)) == command


@for_all(clients)
def test_every_command_keeps_in_the_tables(command: ClientCommand) -> None:
    packed = msgspec.msgpack.encode(command)
    assert msgspec.msgpack.decode(packed, type=type(command)) == command


@for_all(commands, st.data())
def test_a_command_with_one_field_changed(command: AnyCommand, data: st.DataObject) -> None:
    content = json.loads(encoded(command))
    name = data.draw(st.sampled_from(sorted(content)) | st.text())
    if data.draw(st.booleans()):
        content[name] = data.draw(json_values)
    else:
        content.pop(name, None)
    check(json.dumps(content).encode())


@for_all(commands, st.data())
def test_a_command_with_bytes_changed(command: AnyCommand, data: st.DataObject) -> None:
    value = bytearray(encoded(command))
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, len(value)))
    value[start:end] = data.draw(st.binary(max_size=5))
    check(bytes(value))


@pytest.mark.parametrize("number", [2**63, 2**64, 10**30, -(2**63) - 1])
@pytest.mark.parametrize("place", ["partition", "offset", "balance", "version"])
def test_a_leg_has_no_number_that_the_tables_could_not_keep(place: str, number: int) -> None:
    content = json.loads(encoded(credit()))
    if place in ("partition", "offset"):
        content["origin"][["partition", "offset"].index(place)] = number
    else:
        content["sender"][place] = number
    fault = read_command(json.dumps(content).encode())
    assert isinstance(fault, Unreadable)
    assert fault.code == Code.INVALID_FIELD


def deeper(frames: int, value: bytes) -> AnyCommand | Unreadable:
    """Read `value` from further down the stack."""
    return deeper(frames - 1, value) if frames else read_command(value)


DEEP: dict[str, Callable[[str], bytes]] = {
    "a client's command": with_amount,
    "a field that there is not": lambda value: but(DEPOSIT, colour=0.125).replace(b"0.125", value.encode()),
    "a forwarded command": lambda value: encoded(forwarded(with_amount(value))),
    "an origin": lambda value: encoded(credit()).replace(b"[5,17]", f"[5,17,{value}]".encode()),
    "a sender": lambda value: encoded(credit()).replace(b'"version":7', f'"version":7,"x":{value}'.encode()),
}
"""Where a deep value may stand."""


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100, 700, 800, 900])
@pytest.mark.parametrize("place", DEEP)
def test_how_deep_the_caller_is_does_not_change_what_is_read(place: str, depth: int) -> None:
    nested = DEEP[place](arrays(depth))
    fault = read_command(nested)
    assert isinstance(fault, Unreadable)
    assert (fault.code, str(MAX_DEPTH) in fault.detail) == (Code.MALFORMED_JSON, True)
    assert (fault.command_id, fault.command_type, fault.wallet_id) == (None, None, None)
    assert deeper(300, nested) == fault
    assert deeper(800, nested) == fault


@pytest.mark.parametrize("place", DEEP)
def test_what_is_not_too_deep_is_read_by_any_caller(place: str) -> None:
    nested = DEEP[place](arrays(MAX_DEPTH - 2))
    result = read_command(nested)
    assert not isinstance(result, Unreadable) or result.code in (Code.INVALID_FIELD, Code.UNKNOWN_FIELD)
    assert encoded(deeper(800, nested)) == encoded(result)
