"""Whether the answers to a request agree with each other and with the event log."""

from typing import Any

from mercuria.domain.events import BalanceUpdated
from tests.harness.chaos.http.client import Answer
from tests.harness.chaos.http.event_log import EventLog
from tests.harness.chaos.http.requests import Request


def request_violations(request: Request, log: EventLog) -> list[str]:
    """Return what is wrong with a request's answers, a sentence each."""
    effects, rejections, final = log.effects(request), log.rejections(request), request.final
    wrong = _disagreements(request)
    if len(effects) > 1:
        wrong.append(f"it has {len(effects)} effects.")
    if request.is_unsent and (effects or rejections):
        wrong.append("it was sent to a wallet, although each answer denies that.")
    if request.accepted is not None and not effects and not rejections:
        wrong.append("it was accepted, and has no decision.")
    if final is None:
        return wrong
    return wrong + (_done(request, final, log) if final.status == 201 else _refused(request, log))


def _disagreements(request: Request) -> list[str]:
    """Return how the answers to the same key differ."""
    finals = [each for each in request.answers if each.is_final]
    wrong = []
    if any((each.status, each.content) != (finals[0].status, finals[0].content) for each in finals):
        wrong.append(f"its answers differ: {[each.content for each in finals]}.")
    if sum(not each.is_replayed for each in finals) > 1:
        wrong.append("several answers claim to be the first one.")
    return wrong


def _done(request: Request, answer: Answer, log: EventLog) -> list[str]:
    """Return in what an answer with 201 differs from the log."""
    if not log.effects(request):
        return ["it is answered as done, and is not in the log."]
    if request.kind == "open":
        return _opening_differences(request, answer, log)
    return _movement_differences(request, answer, log)


def _refused(request: Request, log: EventLog) -> list[str]:
    """Return in what a refusal differs from the log."""
    wrong = []
    if not log.rejections(request):
        wrong.append("it is answered as refused, and the log has no rejection.")
    if _has_moved_money(log.movements(request)):
        wrong.append("it is answered as refused, and has moved money.")
    return wrong


def _opening_differences(request: Request, answer: Answer, log: EventLog) -> list[str]:
    created, currency = log.effects(request)[0], request.body["currency"]
    return _unequal(answer.body, id=str(created.wallet_id), balance=0, version=1, currency=currency)


def _movement_differences(request: Request, answer: Answer, log: EventLog) -> list[str]:
    movements = log.movements(request)
    is_single = len(movements) == 1
    last = movements[0] if is_single else next(each for each in movements if not _is_pending(each))
    wrong = _unequal(
        answer.body,
        id=str(last.transaction_id),
        status="completed",
        amount=request.body["amount"],
        currency=last.currency,
        reference=request.key,
        from_wallet_id=str(last.from_wallet.wallet_id) if last.from_wallet else None,
        to_wallet_id=str(last.to_wallet.wallet_id) if last.to_wallet else None,
    )
    if last.transaction_status != "completed" or last.amount != request.body["amount"]:
        wrong.append(f"the log has {last}.")
    if request.kind in ("deposit", "withdraw"):
        wallet = answer.body["wallet"]
        wrong += _unequal(wallet, id=str(last.wallet_id), balance=last.balance, version=last.version)
    return wrong


def _unequal(body: dict[str, Any], **expected: Any) -> list[str]:
    return [
        f"`{name}` is {body[name]!r}, and should be {value!r}."
        for name, value in expected.items()
        if body[name] != value
    ]


def _has_moved_money(movements: list[BalanceUpdated]) -> bool:
    """Return whether movements have changed what wallets hold: a debit that came back has not."""
    statuses = sorted(each.transaction_status for each in movements)
    return statuses not in ([], ["failed", "pending"])


def _is_pending(event: BalanceUpdated) -> bool:
    return event.transaction_status == "pending"
