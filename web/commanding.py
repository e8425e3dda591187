"""Sending commands: from a request to one command on Kafka, and on to its wallet's decision.

The wallet alone decides whether the caller is authorized, whether the funds suffice, and whether the command
is a duplicate. The outcome is certain once Kafka has acknowledged the command. Before that, it is unknown
whether the command will be carried out; after that, it will be.
"""

import asyncio
import math
import re
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mercuria.domain.commands import ClientCommand, Movement, Position
from mercuria.domain.parsing import MAX_COMMAND_BYTES
from mercuria.domain.rejections import Code
from mercuria.domain.transaction import Transaction, asked_transaction
from mercuria.http.problems import Problem
from mercuria.redis.replies import Reply, Waiting
from mercuria.web.context import Context
from mercuria.web.endpoint import Call
from mercuria.web.read_routing import settled_transaction

WAIT_S = 5.0
MAX_WAIT_S = 30.0
LOOK_AFTER_S = 1.5
"""After this time without a reply, the transaction is looked up in the log's copy.

Replies take milliseconds, so a missing one may be lost.
"""
LOOK_EVERY_S = 0.5
LOOK_SOON_S = 0.01
MAX_LOOKS = 4
"""How many requests may look up their transaction at a time."""
ACKNOWLEDGED_WITHIN_S = 5.0

_RESPOND_ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", re.IGNORECASE)
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])", re.IGNORECASE)

_encode = msgspec.json.Encoder().encode


class Pending(Struct, frozen=True):
    """A command that Kafka has acknowledged and that has no final answer yet.

    At most its transaction is known.
    """

    transaction: Transaction | None = None


class Patience(NamedTuple):
    """How long a caller wants to wait, and the header that confirms it."""

    wait_s: float
    applied: str | None


def patience_of(call: Call) -> Patience:
    """Return what the request's Prefer header asks for (RFC 7240)."""
    prefer = ",".join(call.request.headers.getall("Prefer", ()))
    if not prefer:
        return Patience(WAIT_S, None)
    if _RESPOND_ASYNC.search(prefer):
        return Patience(0, "respond-async")
    wait = _WAIT.search(prefer)
    if wait is None:
        return Patience(WAIT_S, None)
    wait_s = min(int(wait[1]), MAX_WAIT_S)
    return Patience(wait_s, f"wait={math.floor(wait_s)}")


async def carry_out(call: Call, command: ClientCommand) -> Reply | Pending | Problem:
    """Send a command and wait for its wallet's decision, for as long as the caller wants to wait."""
    context, app = call.context, call.context.app
    if app.locks.is_redis_lost:
        return Problem(
            "wallets_unavailable", "Redis cannot be reached, so nothing is decided at the moment: ask again."
        )
    if context.command_producer.is_full:
        return Problem("overloaded")
    value = _encode(command)
    if len(value) > MAX_COMMAND_BYTES:
        return Problem("body_too_large")
    if call.ids.is_repeatable and not await context.keys.is_free(command.id):
        return Problem(Code.COMMAND_ID_REUSED, "This Idempotency-Key was used for another request.")
    waiting = app.replies.expect(command.id)
    try:
        acknowledged = context.command_producer.send(command, value, waiting, call.request)
        wait_s = patience_of(call).wait_s
        reply = await _reply_within(context, wait_s, waiting, command)
        if reply is not None:
            return reply
        is_safe = await _is_acknowledged(acknowledged, waiting, wait_s)
        return Pending() if is_safe else Problem("not_decided")
    finally:
        app.replies.give_up(waiting)


async def _is_acknowledged(acknowledged: asyncio.Future[int], waiting: Waiting, waited_s: float) -> bool:
    """Return whether Kafka has acknowledged the command, or its wallet has already answered."""
    left_s = max(0.0, ACKNOWLEDGED_WITHIN_S - waited_s)
    either: list[asyncio.Future[Any]] = [acknowledged, waiting.reply]
    await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
    return waiting.reply.done() or (acknowledged.done() and acknowledged.exception() is None)


async def _reply_within(
    context: Context, wait_s: float, waiting: Waiting, command: ClientCommand
) -> Reply | Pending | None:
    """Wait for the final result of a command.

    That is the wallet's reply, or the recorded transaction if the reply is lost or not final.
    """
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + wait_s
    reply = await _next_reply(waiting, min(wait_s, LOOK_AFTER_S))
    if reply is None and wait_s < LOOK_AFTER_S:
        return None
    pause_s = LOOK_SOON_S
    while reply is None or reply.is_beginning:
        settled = await _look(context, command, waiting, ends_s - loop.time())
        if settled is not None:
            return Pending(settled) if reply is None else replace(reply, transaction=settled)
        left_s = ends_s - loop.time()
        if left_s <= 0:
            break
        if reply is None:
            reply = await _next_reply(waiting, min(LOOK_EVERY_S, left_s))
        else:
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LOOK_EVERY_S)
    return reply


async def _next_reply(waiting: Waiting, wait_s: float) -> Reply | None:
    if wait_s <= 0:
        return waiting.reply.result() if waiting.reply.done() else None
    try:
        async with asyncio.timeout(wait_s):
            return await asyncio.shield(waiting.reply)
    except TimeoutError:
        return None


async def _look(
    context: Context, command: ClientCommand, waiting: Waiting, left_s: float
) -> Transaction | None:
    """Return the transaction of a command if it is settled.

    Return None if too many requests look up theirs, or if the reply arrives first.
    """
    if len(context.lookups) >= MAX_LOOKS or not isinstance(command, Movement):
        return None
    look = asyncio.create_task(_settled(context, command))
    context.lookups.add(look)
    look.add_done_callback(context.lookups.discard)
    either: list[asyncio.Future[Any]] = [look] if waiting.reply.done() else [look, waiting.reply]
    # A lookup may take longer than the caller wants to wait: a query to a stopped PostgreSQL times out only after a
    # while.
    await asyncio.wait(either, timeout=max(left_s, 0.0), return_when=asyncio.FIRST_COMPLETED)
    return look.result() if look.done() else None


async def _settled(context: Context, command: Movement) -> Transaction | None:
    found = await settled_transaction(context, command.id)
    # The id may be that of another request's transaction: only the wallet can report that.
    asked = pending_movement(command)
    return found if found is not None and _content(found) == _content(asked) else None


def _content(transaction: Transaction) -> tuple[object, ...]:
    """Return the client's part of a transaction."""
    return (
        transaction.kind,
        transaction.from_wallet_id,
        transaction.to_wallet_id,
        transaction.amount,
        transaction.reference,
        transaction.metadata,
        transaction.effective_at,
    )


def pending_movement(command: Movement) -> Transaction:
    """Return the transaction that a command asks for, while its position in the log is unknown."""
    return asked_transaction(command, Position(-1, -1, 0))
