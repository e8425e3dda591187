"""What commands do to a wallet: given, when, then."""

import msgspec
import pytest
from msgspec.structs import replace

from mercuria.domain.commands import Decidable, WalletSide
from mercuria.domain.events import (
    Event,
    Failure,
    LimitsChanged,
    StatusChanged,
    WalletCreated,
)
from mercuria.domain.rejections import DETAILS, Code
from mercuria.domain.wallet import MAX_EARLIER_LIMITS, Wallet, as_of, decide, evolve

from .story import (
    ID,
    MAX,
    NOW,
    OPERATOR,
    OTHER,
    OWNER,
    PAST_MS,
    STRANGER,
    WALLET,
    Given,
    a_wallet,
    changed,
    close,
    credit,
    deposit,
    encoded,
    freeze,
    given,
    mine,
    open_wallet,
    refund,
    set_limits,
    transfer,
    unfreeze,
    withdraw,
)

SENDER = WalletSide(OTHER, STRANGER, 900, 7)


def created(**fields: object) -> WalletCreated:
    usual: dict[str, object] = {
        "offset": NOW.offset,
        "command_id": ID,
        "wallet_id": WALLET,
        "owner_id": OWNER,
        "currency": "EUR",
        "overdraft_limit": 0,
        "balance": 0,
        "status": "open",
        "version": 1,
        "metadata": {},
    }
    return WalletCreated(**usual | fields)  # type: ignore[arg-type]  # the fields above, and those of the caller


def turned(status: str, *, balance: int = 0, version: int, reason: str | None = None) -> StatusChanged:
    return StatusChanged(
        offset=NOW.offset,
        command_id=ID,
        wallet_id=WALLET,
        owner_id=OWNER,
        status=status,  # type: ignore[arg-type]  # a literal at every call
        balance=balance,
        version=version,
        reason=reason,
    )


def limited(limit: int, *, balance: int = 0, version: int, **fields: object) -> LimitsChanged:
    usual: dict[str, object] = {
        "offset": NOW.offset,
        "command_id": ID,
        "wallet_id": WALLET,
        "owner_id": OWNER,
        "overdraft_limit": limit,
        "balance": balance,
        "status": "open",
        "version": version,
        "reason": None,
    }
    return LimitsChanged(**usual | fields)  # type: ignore[arg-type]  # the fields above, and those of the caller


DAY = "2021-03-04T00:00:00.000Z"

NOTES = {"reference": "rent, May", "metadata": {"b": "1", "a": "2"}}

ACCEPTED: list[tuple[str, Given, Decidable, Event]] = [
    ("a wallet is opened empty", given(), open_wallet(), created()),
    (
        "a wallet is opened with what its opener wants to find again",
        given(),
        open_wallet(metadata={"name": "Savings"}, actor_id=OWNER),
        created(metadata={"name": "Savings"}),
    ),
    (
        "an operator opens a wallet with an overdraft for somebody else",
        given(),
        open_wallet(overdraft_limit=MAX, actor_id=OPERATOR, actor_role="operator"),
        created(overdraft_limit=MAX),
    ),
    (
        "a deposit raises the balance",
        given(open_wallet()),
        deposit(100),
        changed(deposit(100), "completed", balance=100, version=2, to_wallet=mine(100, 2)),
    ),
    (
        "money moves in the wallet's own currency where the command names none",
        given(open_wallet(), deposit(100, currency=None)),
        withdraw(30, currency=None),
        changed(withdraw(30), "completed", balance=70, version=3, from_wallet=mine(70, 3)),
    ),
    (
        "a deposit carries its notes",
        given(open_wallet(), deposit(1)),
        deposit(2, **NOTES),
        changed(deposit(2, **NOTES), "completed", balance=3, version=3, to_wallet=mine(3, 3)),
    ),
    (
        "a deposit fills a wallet to the last unit of 64 bits",
        given(open_wallet(), deposit(1)),
        deposit(MAX - 1),
        changed(deposit(MAX - 1), "completed", balance=MAX, version=3, to_wallet=mine(MAX, 3)),
    ),
    (
        "a deposit pays off an overdraft",
        given(open_wallet(overdraft_limit=50), withdraw(50)),
        deposit(20),
        changed(deposit(20), "completed", balance=-30, version=3, to_wallet=mine(-30, 3)),
    ),
    (
        "a withdrawal lowers the balance",
        given(open_wallet(), deposit(100)),
        withdraw(30, **NOTES),
        changed(withdraw(30, **NOTES), "completed", balance=70, version=3, from_wallet=mine(70, 3)),
    ),
    (
        "a withdrawal takes all there is",
        given(open_wallet(), deposit(100)),
        withdraw(100),
        changed(withdraw(100), "completed", balance=0, version=3, from_wallet=mine(0, 3)),
    ),
    (
        "a withdrawal goes to the end of the overdraft",
        given(open_wallet(overdraft_limit=MAX)),
        withdraw(MAX),
        changed(withdraw(MAX), "completed", balance=-MAX, version=2, from_wallet=mine(-MAX, 2)),
    ),
    (
        "a transfer takes the money out and is pending",
        given(open_wallet(), deposit(100)),
        transfer(40, **NOTES),
        changed(
            transfer(40, **NOTES),
            "pending",
            balance=60,
            version=3,
            from_wallet=mine(60, 3),
            to_wallet=WalletSide(OTHER),
        ),
    ),
    (
        "a credit brings the money in and completes the transfer, with both wallets",
        given(open_wallet(), deposit(5)),
        credit(40, **NOTES),
        changed(
            credit(40, **NOTES),
            "completed",
            balance=45,
            version=3,
            from_wallet=SENDER,
            to_wallet=mine(45, 3),
        ),
    ),
    (
        "a refund brings the money back and says why the transfer failed",
        given(open_wallet(), deposit(100), transfer(40)),
        refund(40, **NOTES, code="currency_mismatch"),
        changed(
            refund(40, **NOTES),
            "failed",
            balance=100,
            version=4,
            from_wallet=mine(100, 4),
            to_wallet=WalletSide(OTHER),
            failure=Failure("currency_mismatch", "The wallet is in another currency."),
        ),
    ),
    (
        "a refund reaches a frozen wallet, which stays frozen",
        given(open_wallet(), deposit(100), transfer(40), freeze()),
        refund(40),
        changed(
            refund(40),
            "failed",
            balance=100,
            version=5,
            from_wallet=mine(100, 5),
            to_wallet=WalletSide(OTHER),
            status="frozen",
            failure=Failure("wallet_frozen", DETAILS[Code.WALLET_FROZEN]),
        ),
    ),
    (
        "a refund opens a closed wallet again",
        given(open_wallet(), deposit(40), transfer(40), close()),
        refund(40),
        changed(
            refund(40),
            "failed",
            balance=40,
            version=5,
            from_wallet=mine(40, 5),
            to_wallet=WalletSide(OTHER),
            status="open",
            failure=Failure("wallet_frozen", DETAILS[Code.WALLET_FROZEN]),
        ),
    ),
    (
        "freezing says why",
        given(open_wallet(), deposit(7)),
        freeze(reason="a court order"),
        turned("frozen", balance=7, version=3, reason="a court order"),
    ),
    ("unfreezing opens", given(open_wallet(), freeze()), unfreeze(), turned("open", version=3)),
    ("closing an empty wallet", given(open_wallet()), close(), turned("closed", version=2)),
    (
        "closing while money is on its way to somebody else",
        given(open_wallet(), deposit(9), transfer(9)),
        close(actor_id=OWNER),
        turned("closed", version=4),
    ),
    (
        "an operator raises the overdraft limit and says why",
        given(open_wallet(), deposit(7)),
        set_limits(500, actor_id=OPERATOR, actor_role="operator", reason="a good customer"),
        limited(500, balance=7, version=3, reason="a good customer"),
    ),
    (
        "a limit may be as large as an amount",
        given(open_wallet(overdraft_limit=1)),
        set_limits(MAX),
        limited(MAX, version=2),
    ),
    (
        "a limit that is as it was is a change all the same",
        given(open_wallet(overdraft_limit=5)),
        set_limits(5),
        limited(5, version=2),
    ),
    (
        "a limit above the debt is allowed, and leaves the balance",
        given(open_wallet(overdraft_limit=100), withdraw(80)),
        set_limits(0),
        limited(0, balance=-80, version=3),
    ),
    (
        "a frozen wallet gets its limit and stays frozen",
        given(open_wallet(), freeze()),
        set_limits(5),
        limited(5, version=3, status="frozen"),
    ),
    (
        "a withdrawal goes to the end of the new limit",
        given(open_wallet(), set_limits(50)),
        withdraw(50),
        changed(withdraw(50), "completed", balance=-50, version=3, from_wallet=mine(-50, 3)),
    ),
    (
        "money comes in below the limit",
        given(open_wallet(overdraft_limit=100), withdraw(80), set_limits(10)),
        deposit(5),
        changed(deposit(5), "completed", balance=-75, version=4, to_wallet=mine(-75, 4)),
    ),
    (
        "a credit comes in below the limit",
        given(open_wallet(overdraft_limit=100), withdraw(80), set_limits(10)),
        credit(5),
        changed(credit(5), "completed", balance=-75, version=4, from_wallet=SENDER, to_wallet=mine(-75, 4)),
    ),
    (
        "a deposit counts in reports at another time",
        given(open_wallet()),
        deposit(1, effective_at=DAY),
        changed(deposit(1, effective_at=DAY), "completed", balance=1, version=2, to_wallet=mine(1, 2)),
    ),
    (
        "a credit carries the time at which the transfer counts",
        given(open_wallet()),
        credit(1, effective_at=DAY),
        changed(
            credit(1, effective_at=DAY),
            "completed",
            balance=1,
            version=2,
            from_wallet=SENDER,
            to_wallet=mine(1, 2),
        ),
    ),
]


@pytest.mark.parametrize(
    ("past", "command", "event"), [pytest.param(*row[1:], id=row[0]) for row in ACCEPTED]
)
def test_accepted(past: Given, command: Decidable, event: Event) -> None:
    past.when(command).then(event)


REFUSED: list[tuple[str, Given, Decidable, Code]] = [
    ("a deposit into nothing", given(), deposit(), Code.WALLET_NOT_FOUND),
    ("a wallet opened twice", given(open_wallet()), open_wallet(), Code.WALLET_ALREADY_EXISTS),
    ("a closed wallet opened again", given(open_wallet(), close()), open_wallet(), Code.WALLET_ALREADY_EXISTS),
    ("one unit more than there is", given(open_wallet(), deposit(100)), withdraw(101), Code.INSUFFICIENT_FUNDS),
    (
        "one unit more than the overdraft",
        given(open_wallet(overdraft_limit=10)),
        withdraw(11),
        Code.INSUFFICIENT_FUNDS,
    ),
    (
        "one unit more than 64 bits hold",
        given(open_wallet(), deposit(1)),
        deposit(MAX),
        Code.BALANCE_WOULD_OVERFLOW,
    ),
    (
        "a deposit into the room that a refund may still need",
        given(open_wallet(), deposit(MAX), transfer(MAX)),
        deposit(1),
        Code.BALANCE_WOULD_OVERFLOW,
    ),
    (
        "a credit into the room that a refund may still need",
        given(open_wallet(), deposit(MAX), transfer(1)),
        credit(1),
        Code.BALANCE_WOULD_OVERFLOW,
    ),
    (
        "more sent on credit than could come back",
        given(open_wallet(overdraft_limit=MAX), transfer(MAX), deposit(MAX)),
        transfer(1),
        Code.BALANCE_WOULD_OVERFLOW,
    ),
    ("a credit for a frozen wallet", given(open_wallet(), freeze()), credit(), Code.WALLET_FROZEN),
    ("a credit for a closed wallet", given(open_wallet(), close()), credit(), Code.WALLET_CLOSED),
    ("a credit for no wallet", given(), credit(), Code.WALLET_NOT_FOUND),
    ("a credit in another currency", given(open_wallet(currency="CZK")), credit(), Code.CURRENCY_MISMATCH),
    ("closing with a debt", given(open_wallet(overdraft_limit=9), withdraw(9)), close(), Code.WALLET_NOT_EMPTY),
    ("closing twice", given(open_wallet(), close()), close(), Code.WALLET_CLOSED),
    ("freezing twice", given(open_wallet(), freeze()), freeze(), Code.WALLET_FROZEN),
    ("thawing what is not frozen", given(open_wallet()), unfreeze(), Code.WALLET_NOT_FROZEN),
    ("a limit for no wallet", given(), set_limits(), Code.WALLET_NOT_FOUND),
    ("a limit for a closed wallet", given(open_wallet(), close()), set_limits(), Code.WALLET_CLOSED),
    ("a limit below zero", given(open_wallet()), set_limits(-1), Code.OVERDRAFT_LIMIT_OUT_OF_RANGE),
    (
        "an owner who sets the own limit",
        given(open_wallet()),
        set_limits(actor_id=OWNER),
        Code.OPERATOR_REQUIRED,
    ),
    (
        "one unit more than the new limit",
        given(open_wallet(overdraft_limit=100), set_limits(10)),
        withdraw(11),
        Code.INSUFFICIENT_FUNDS,
    ),
    (
        "a withdrawal below the limit",
        given(open_wallet(overdraft_limit=100), withdraw(80), set_limits(10), deposit(5)),
        withdraw(1),
        Code.INSUFFICIENT_FUNDS,
    ),
    (
        "a transfer below the limit",
        given(open_wallet(overdraft_limit=100), withdraw(80), set_limits(79)),
        transfer(1),
        Code.INSUFFICIENT_FUNDS,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("past", "command", "code"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_refused(past: Given, command: Decidable, code: Code) -> None:
    past.when(command).then_refused(code)


# What other processes read. A change here is a change of the API.

BYTES: list[tuple[str, Given, Decidable, bytes]] = [
    (
        "wallet created",
        given(),
        open_wallet(metadata={"name": "Účet"}),
        b'{"offset":100,"command_id":"0190b7a4-0000-7000-8000-0000000000ff",'
        b'"wallet_id":"0190b7a4-0000-7000-8000-000000000001","owner_id":"0190b7a4-0000-7000-8000-00000000000a",'
        b'"currency":"EUR","overdraft_limit":0,"balance":0,"status":"open","version":1,'
        b'"metadata":{"name":"\xc3\x9a\xc4\x8det"}}',
    ),
    (
        "balance updated",
        given(open_wallet(), deposit(100)),
        transfer(40, reference="rent"),
        b'{"offset":100,"transaction_id":"0190b7a4-0000-7000-8000-0000000000ff",'
        b'"initiated":{"partition":3,"offset":100,"time_ms":1700000060000},"kind":"transfer",'
        b'"transaction_status":"pending","wallet_id":"0190b7a4-0000-7000-8000-000000000001",'
        b'"owner_id":"0190b7a4-0000-7000-8000-00000000000a","amount":40,"currency":"EUR","balance":60,'
        b'"status":"open","version":3,"from_wallet":{"wallet_id":"0190b7a4-0000-7000-8000-000000000001",'
        b'"owner_id":"0190b7a4-0000-7000-8000-00000000000a","balance":60,"version":3},'
        b'"to_wallet":{"wallet_id":"0190b7a4-0000-7000-8000-000000000002","owner_id":null,"balance":null,'
        b'"version":null},"reference":"rent","metadata":{},"failure":null}',
    ),
    (
        "status changed",
        given(open_wallet()),
        freeze(reason="theft"),
        b'{"offset":100,"command_id":"0190b7a4-0000-7000-8000-0000000000ff",'
        b'"wallet_id":"0190b7a4-0000-7000-8000-000000000001","owner_id":"0190b7a4-0000-7000-8000-00000000000a",'
        b'"status":"frozen","balance":0,"version":2,"reason":"theft"}',
    ),
    (
        "limits changed",
        given(open_wallet()),
        set_limits(500, reason="rent"),
        b'{"offset":100,"command_id":"0190b7a4-0000-7000-8000-0000000000ff",'
        b'"wallet_id":"0190b7a4-0000-7000-8000-000000000001","owner_id":"0190b7a4-0000-7000-8000-00000000000a",'
        b'"overdraft_limit":500,"balance":0,"status":"open","version":2,"reason":"rent"}',
    ),
    (
        "balance updated, with an effective date behind all that was there before",
        given(open_wallet()),
        deposit(1, effective_at=DAY),
        b'{"offset":100,"transaction_id":"0190b7a4-0000-7000-8000-0000000000ff",'
        b'"initiated":{"partition":3,"offset":100,"time_ms":1700000060000},"kind":"deposit",'
        b'"transaction_status":"completed","wallet_id":"0190b7a4-0000-7000-8000-000000000001",'
        b'"owner_id":"0190b7a4-0000-7000-8000-00000000000a","amount":1,"currency":"EUR","balance":1,'
        b'"status":"open","version":2,"from_wallet":null,"to_wallet":{'
        b'"wallet_id":"0190b7a4-0000-7000-8000-000000000001",'
        b'"owner_id":"0190b7a4-0000-7000-8000-00000000000a","balance":1,"version":2},"reference":null,'
        b'"metadata":{},"failure":null,"effective_at":"2021-03-04T00:00:00.000Z"}',
    ),
    (
        "command rejected",
        given(),
        close(),
        b'{"offset":100,"code":"wallet_not_found","detail":"There is no such wallet.",'
        b'"command_id":"0190b7a4-0000-7000-8000-0000000000ff","command_type":"close_wallet",'
        b'"wallet_id":"0190b7a4-0000-7000-8000-000000000001","command":{"type":"close_wallet",'
        b'"id":"0190b7a4-0000-7000-8000-0000000000ff","wallet_id":"0190b7a4-0000-7000-8000-000000000001"}}',
    ),
    (
        "command rejected, with all that it says",
        given(),
        close(actor_id=OWNER, actor_role="operator", reason="moved"),
        b'{"offset":100,"code":"wallet_not_found","detail":"There is no such wallet.",'
        b'"command_id":"0190b7a4-0000-7000-8000-0000000000ff","command_type":"close_wallet",'
        b'"wallet_id":"0190b7a4-0000-7000-8000-000000000001","command":{"type":"close_wallet",'
        b'"id":"0190b7a4-0000-7000-8000-0000000000ff","wallet_id":"0190b7a4-0000-7000-8000-000000000001",'
        b'"actor_id":"0190b7a4-0000-7000-8000-00000000000a","actor_role":"operator","reason":"moved"}}',
    ),
]


@pytest.mark.parametrize(("past", "command", "text"), [pytest.param(*row[1:], id=row[0]) for row in BYTES])
def test_an_event_is_these_bytes(past: Given, command: Decidable, text: bytes) -> None:
    assert encoded(past.when(command).event) == text


# evolve


def after(wallet: Wallet | None, command: Decidable) -> Wallet:
    result = evolve(wallet, decide(command, wallet, NOW), NOW.time_ms)
    assert result is not None
    return result


def test_an_opened_wallet_begins_with_its_event() -> None:
    assert after(None, open_wallet(overdraft_limit=5, metadata={"a": "b"})) == Wallet(
        id=WALLET,
        owner_id=OWNER,
        currency="EUR",
        balance=0,
        sent=0,
        overdraft_limit=5,
        status="open",
        version=1,
        metadata={"a": "b"},
        created_at_ms=NOW.time_ms,
        updated_at_ms=NOW.time_ms,
    )


EVOLUTIONS: list[tuple[str, Decidable, dict[str, object], dict[str, object]]] = [
    ("a deposit moves the balance only", deposit(1), {}, {"balance": 1001}),
    ("a withdrawal moves the balance only", withdraw(1), {}, {"balance": 999}),
    ("a transfer adds to what was sent", transfer(1), {"sent": 2}, {"balance": 999, "sent": 3}),
    ("a credit leaves what was sent", credit(1), {"sent": 2}, {"balance": 1001}),
    ("a refund takes from what was sent", refund(2), {"sent": 2}, {"balance": 1002, "sent": 0}),
    (
        "a refund opens what is closed",
        refund(2),
        {"balance": 0, "sent": 5, "status": "closed"},
        {"balance": 2, "sent": 3, "status": "open"},
    ),
    ("freezing changes the status only", freeze(), {"sent": 2}, {"status": "frozen"}),
    ("unfreezing too", unfreeze(), {"status": "frozen", "sent": 2}, {"status": "open"}),
    ("closing too", close(), {"balance": 0, "sent": 2}, {"status": "closed"}),
    (
        "a new limit is remembered with the one before",
        set_limits(9),
        {"sent": 2},
        {"overdraft_limit": 9, "earlier_limits": ((5, 3),)},
    ),
    (
        "a deposit keeps the limits that were before",
        deposit(1),
        {"earlier_limits": ((2, 7),)},
        {"balance": 1001},
    ),
]


@pytest.mark.parametrize(
    ("command", "fields", "changes"), [pytest.param(*row[1:], id=row[0]) for row in EVOLUTIONS]
)
def test_evolve(command: Decidable, fields: dict[str, object], changes: dict[str, object]) -> None:
    wallet = a_wallet(overdraft_limit=3, metadata={"kept": "yes"}, **fields)
    passed = {"version": wallet.version + 1, "updated_at_ms": NOW.time_ms}
    assert after(wallet, command) == replace(wallet, **changes, **passed)
    assert wallet.created_at_ms == PAST_MS


@pytest.mark.parametrize("missed", [-1, 1])
def test_an_event_out_of_its_turn_is_a_bug_and_stops_the_worker(missed: int) -> None:
    wallet = a_wallet()
    event = decide(deposit(), wallet, NOW)
    with pytest.raises(AssertionError):
        evolve(replace(wallet, version=wallet.version + missed), event, NOW.time_ms)


def test_an_event_that_happens_twice_is_a_bug_and_stops_the_worker() -> None:
    event = decide(deposit(), a_wallet(), NOW)
    wallet = evolve(a_wallet(), event, NOW.time_ms)
    with pytest.raises(AssertionError):
        evolve(wallet, event, NOW.time_ms)


def test_a_rejection_leaves_even_the_time_of_the_last_change() -> None:
    wallet = a_wallet()
    assert after(wallet, withdraw(1001)) is wallet
    assert evolve(None, decide(deposit(), None, NOW), NOW.time_ms) is None


# as_of


@pytest.mark.parametrize(
    ("then", "limit"),
    [("opened", 1), ("filled before", 1), ("limited once", 2), ("filled after", 2), ("limited twice", 3)],
)
def test_a_wallet_as_of_an_event_has_the_limit_of_then(then: str, limit: int) -> None:
    commands = {
        "opened": open_wallet(overdraft_limit=1),
        "filled before": deposit(5),
        "limited once": set_limits(2),
        "filled after": deposit(5),
        "limited twice": set_limits(3),
        "filled last": deposit(5),
    }
    wallet, seen = None, {}
    for name, command in commands.items():
        event = decide(command, wallet, NOW)
        wallet = evolve(wallet, event, NOW.time_ms)
        seen[name] = event, wallet
    event, as_it_was = seen[then]
    assert wallet is not None and as_it_was is not None
    assert replace(as_of(wallet, event, NOW.time_ms), earlier_limits=()) == replace(
        as_it_was, earlier_limits=()
    )
    assert as_it_was.overdraft_limit == limit


def test_a_wallet_remembers_so_many_limits_and_no_more() -> None:
    wallet = a_wallet()
    for limit in range(2 * MAX_EARLIER_LIMITS):
        wallet = after(wallet, set_limits(limit))
    assert [limit for _, limit in wallet.earlier_limits] == list(
        range(MAX_EARLIER_LIMITS - 1, 2 * MAX_EARLIER_LIMITS - 1)
    )


def test_a_row_from_before_there_were_limits_to_change_is_read() -> None:
    old = msgspec.msgpack.encode(a_wallet())[1:-1]
    packed = msgspec.msgpack.encode(a_wallet())
    assert packed[0] == 0x9C, "an array of 12"
    assert msgspec.msgpack.decode(b"\x9b" + old, type=Wallet) == a_wallet()
