"""Decisions: from a call to the command that a wallet decides, and from its decision to the answer.

A view names the command and its fields. `commanding` sends the command and waits for the decision.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from mercuria.domain.commands import ClientCommand, Movement
from mercuria.domain.rejections import Code
from mercuria.domain.transaction import Transaction
from mercuria.domain.wallet import Wallet
from mercuria.http.problems import Problem
from mercuria.redis.client import UNAVAILABLE
from mercuria.redis.replies import Reply
from mercuria.web.commanding import Pending, carry_out, patience_of, pending_movement
from mercuria.web.endpoint import Answer, Call
from mercuria.web.representations import wallet_body
from mercuria.web.timestamps import read_effective_at


async def answer_movement(
    call: Call,
    kind: Callable[..., Movement],
    wallet_id: UUID,
    body_of: Callable[[Transaction, Wallet | None], object],
    *,
    is_wallet_in_body: bool = False,
    **fields: Any,
) -> Answer | Problem:
    """Have `wallet_id` decide the movement of money that the call's body describes.

    Args:
        body_of: renders the transaction, and the wallet after it; None while that is unknown.
        is_wallet_in_body: whether the body names the wallet. If it does not exist then, the request is wrong,
            not its address.
        fields: the command's fields beside those that all movements have.
    """
    effective_at = read_effective_at(call.body.effective_at)
    if isinstance(effective_at, Problem):
        return effective_at
    command = kind(
        **_fields_of(call, wallet_id),
        amount=call.body.amount,
        reference=call.body.reference,
        metadata=call.body.metadata,
        effective_at=effective_at,
        **fields,
    )
    outcome = await carry_out(call, command)
    if isinstance(outcome, Problem):
        return outcome
    if isinstance(outcome, Pending) or outcome.is_beginning:
        transaction = outcome.transaction or pending_movement(command)
        return await _accepted(call, transaction, body_of(transaction, None))
    is_unprocessable = is_wallet_in_body and outcome.code == Code.WALLET_NOT_FOUND
    problem = _refusal(outcome, status=422 if is_unprocessable else None)
    if problem is not None:
        return problem
    assert outcome.transaction is not None, "an accepted movement has a transaction"
    headers = _location_of(outcome.transaction) | _replayed(outcome) | _applied(call)
    return Answer(body_of(outcome.transaction, outcome.wallet), 201, headers)


async def answer_change(
    call: Call,
    kind: Callable[..., ClientCommand],
    wallet_id: UUID,
    *,
    is_opening: bool = False,
    **fields: Any,
) -> Answer | Problem:
    """Have `wallet_id` decide a command that changes it, or opens it, and answer with the wallet."""
    outcome = await carry_out(call, kind(**_fields_of(call, wallet_id), **fields))
    location = {"Location": f"/api/v1/wallets/{wallet_id}"}
    if isinstance(outcome, Problem):
        return outcome
    if isinstance(outcome, Pending):
        return Answer(None, 202, location | _applied(call))
    problem = _refusal(outcome)
    if problem is not None:
        return problem
    assert outcome.wallet is not None, "an accepted command leaves a wallet"
    headers = (location if is_opening else {}) | _replayed(outcome) | _applied(call)
    return Answer(wallet_body(outcome.wallet), 201 if is_opening else 200, headers)


def _fields_of(call: Call, wallet_id: UUID) -> dict[str, Any]:
    """Return the fields that all commands have: the id, the deciding wallet, and the caller."""
    return {
        "id": call.ids.command_at(wallet_id),
        "wallet_id": wallet_id,
        "actor_id": call.caller.id,
        "actor_role": call.caller.role,
    }


async def _accepted(call: Call, transaction: Transaction, content: object) -> Answer:
    """Answer that a transaction is pending; from now on, it can be retrieved."""
    with suppress(*UNAVAILABLE):  # Otherwise, a client that asks waits until PostgreSQL has it.
        await call.context.cache.remember_pending(transaction)
    return Answer(content, 202, _location_of(transaction) | _applied(call))


def _refusal(reply: Reply, *, status: int | None = None) -> Problem | None:
    """Return the problem that a reply stands for, if any: a refusal, or a failed transfer."""
    headers = _replayed(reply)
    if reply.code is not None:
        return Problem(reply.code, reply.detail, headers=headers, status=status)
    failure = reply.transaction.failure if reply.transaction else None
    if failure is None:
        return None
    return Problem(failure.code, f"The receiver refused it: {failure.detail}", headers=headers, status=422)


def _replayed(reply: Reply) -> dict[str, str]:
    """Return the header that marks a repeated answer."""
    return {"Idempotent-Replayed": "true"} if reply.is_replayed else {}


def _applied(call: Call) -> dict[str, str]:
    """Return the header that confirms the honoured preference."""
    preference = patience_of(call).applied
    return {"Preference-Applied": preference} if preference else {}


def _location_of(transaction: Transaction) -> dict[str, str]:
    """Return the header with the address of a transaction."""
    return {"Location": f"/api/v1/transactions/{transaction.id}"}
