"""The audit of the benchmark: wallets and transactions after the load, against its answers."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any
from uuid import UUID

from tests.harness.bench.http.accounts import Accounts, Reader
from tests.harness.bench.http.load import Outcome
from tests.harness.bench.http.report import Audit
from tests.harness.bench.workload import FUNDS


def audit_transfers(accounts: Accounts, port: int, outcomes: Sequence[Outcome]) -> Audit:
    """Compare wallets and transactions with the answers of some rounds of transfers."""
    with closing(Reader(port, accounts.operator())) as reader:
        balances = {wallet_id: reader.balance(wallet_id) for wallet_id in accounts.owners}
        samples = [json.loads(sample) for outcome in outcomes for sample in outcome.samples]
        unsure = {index for outcome in outcomes for index in outcome.unsure}
        violations = [
            *_wrong_balances(balances, outcomes, unsure),
            *_wrong_total(sum(balances.values()), accounts.total),
            *_wrong_transactions(reader, samples),
        ]
    return Audit(
        transfers=sum(outcome.answered for outcome in outcomes),
        wallets=len(balances),
        sum_of_balances=sum(balances.values()),
        sum_of_deposits=accounts.total,
        unsure_wallets=len(unsure),
        transactions=len(samples),
        violations=violations,
    )


def _wrong_balances(
    balances: dict[UUID, int], outcomes: Sequence[Outcome], unsure: set[int]
) -> Iterator[str]:
    for index, (wallet_id, balance) in enumerate(balances.items()):
        expected = FUNDS + sum(outcome.moved[index] for outcome in outcomes)
        if index not in unsure and balance != expected:
            yield f"Wallet {wallet_id} has {balance} instead of {expected}."


def _wrong_total(total: int, expected: int) -> Iterator[str]:
    if total != expected:
        yield f"All wallets together have {total} instead of {expected}."


def _wrong_transactions(reader: Reader, answered: list[dict[str, Any]]) -> Iterator[str]:
    for transaction in answered:
        found = reader.get(f"/api/v1/transactions/{transaction['id']}")
        if found != transaction or found["status"] != "completed":
            yield f"A transaction was answered as {transaction} and is {found}."
