"""The oracle: whether balances that clients were answered can be true, now and against the event log.

oracle = Oracle(violations)
oracle.observe_wallet(…)        # while it runs: each balance that was answered, as it comes
oracle.check(requests, log)     # at the end: everything against the log

The checks of a request's own answers are in `answer_checks`.
"""

from bisect import bisect_right
from collections import defaultdict
from typing import Any, NamedTuple
from uuid import UUID

from tests.harness.audit.violations import Violations
from tests.harness.chaos.http.answer_checks import request_violations
from tests.harness.chaos.http.event_log import EventLog, State
from tests.harness.chaos.http.requests import Request


class Observation(NamedTuple):
    """A balance that was answered, and what it was an answer to."""

    wallet_id: UUID
    version: int
    state: State
    source: str


class Oracle:
    """Collects balances that were answered, and adds what is wrong with them to `violations`."""

    def __init__(self, violations: Violations) -> None:
        self._violations = violations
        self._observations: set[Observation] = set()
        self._strong_reads: defaultdict[UUID, list[tuple[float, int]]] = defaultdict(list)
        # For each wallet, when a client first saw which version; both grow.
        self._seen_s: defaultdict[UUID, list[float]] = defaultdict(list)
        self._versions: defaultdict[UUID, list[int]] = defaultdict(list)

    def observe_wallet(self, wallet: dict[str, Any], source: str, at_s: float) -> None:
        """Take a wallet that was answered."""
        id_, version = UUID(wallet["id"]), wallet["version"]
        state = State(wallet["balance"], wallet["status"])
        self._observations.add(Observation(id_, version, state, source))
        versions = self._versions[id_]
        if not versions or version > versions[-1]:
            versions.append(version)
            self._seen_s[id_].append(at_s)

    def observe_read(self, wallet: dict[str, Any], began_s: float, at_s: float, *, is_strong: bool) -> float:
        """Take a wallet that was read, and return how old it was when the read began, in seconds.

        A strong read is never older than what any client was answered before it began.
        """
        id_, version = UUID(wallet["id"]), wallet["version"]
        newer = bisect_right(self._versions[id_], version)
        age_s = began_s - self._seen_s[id_][newer] if newer < len(self._versions[id_]) else 0.0
        if age_s > 0 and is_strong:
            self._violations.add(
                f"Wallet {id_} was read as of version {version}, strongly, {age_s:.3f} s after version"
                f" {self._versions[id_][newer]} had been answered."
            )
        if is_strong:
            self._strong_reads[id_].append((began_s, version))
        self.observe_wallet(wallet, "a strong read" if is_strong else "a read", at_s)
        return max(0.0, age_s)

    def check(self, requests: list[Request], log: EventLog) -> None:
        """Compare all answers with the log."""
        for seen in self._observations:
            if log.states[seen.wallet_id].get(seen.version) != seen.state:
                self._violations.add(
                    f"Wallet {seen.wallet_id} was answered as {tuple(seen.state)} at version {seen.version} by"
                    f" {seen.source}, and was {log.states[seen.wallet_id].get(seen.version)}."
                )
        for request in requests:
            for sentence in request_violations(request, log):
                names = ", ".join(answer.name for answer in request.answers)
                self._violations.add(f"Request {request.number} ({request.kind}; {names}): {sentence}")
            self._check_strong_reads(request, log)

    def _check_strong_reads(self, request: Request, log: EventLog) -> None:
        """Check that a strong read after the answer to a request holds the request's effect."""
        known = request.final or request.accepted
        if known is None:
            return
        for effect in log.effects(request):
            for began_s, version in self._strong_reads[effect.wallet_id]:
                if began_s > known.ended_s and version < effect.version:
                    self._violations.add(
                        f"Wallet {effect.wallet_id} was read as of version {version}, strongly, after request"
                        f" {request.number} was answered with {known.name}, which made it {effect.version}."
                    )
