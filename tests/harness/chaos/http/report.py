"""The report of a chaos run over HTTP: its figures, and how they are printed."""

from collections.abc import Mapping

from msgspec import Struct

from tests.harness.audit.auditor import Audit
from tests.harness.chaos.http.recorder import PHASES, AnswerCounts, Phase
from tests.harness.console import plain_console


class Outcome(Struct):
    """The figures of a run. Times are seconds."""

    seed: int
    orders: int
    """How many requests were to change something."""
    asked: dict[str, dict[str, AnswerCounts]]
    """The answers, by phase and by what was requested."""
    outage_s: float
    recovered_after_s: float
    """How long after the outage the last request was refused or lost."""
    caught_up_after_s: float
    """How long after the outage, or later, PostgreSQL had everything."""
    oldest_shown_s: dict[str, float]
    """By phase, the age of the oldest balance that was read."""
    unready: list[str]
    """Why workers were not ready during the outage."""
    audit: Audit
    violations: list[str]
    violation_count: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.violation_count == 0

    def of(self, phase: Phase, kind: str) -> AnswerCounts:
        """Return the answers to requests of a kind in a phase."""
        return self.asked.get(phase, {}).get(kind, AnswerCounts())


def print_answers(outcome: Outcome) -> None:
    """Print which answers came in which phase."""
    console = plain_console()
    for phase in PHASES:
        console.print(f"{phase} the outage")
        for kind, counts in sorted(outcome.asked[phase].items()):
            line = f"{format_counts(counts.answers)}; the slowest in {counts.slowest_s:.2f} s"
            console.print(f"  {kind}: {line}")


def figures_of(outcome: Outcome) -> dict[str, object]:
    """Return the figures below the answers, by their labels."""
    oldest_s = max(outcome.oldest_shown_s.values(), default=0.0)
    return {
        **audit_figures(outcome.audit),
        "orders": outcome.orders,
        "everything answered again after": f"{outcome.recovered_after_s:.1f} s",
        "the oldest balance that was shown": f"{oldest_s:.1f} s",
        "not ready because": "; ".join(outcome.unready) or "-",
        "violations": outcome.violation_count,
    }


def audit_figures(audit: Audit) -> dict[str, object]:
    """Return the figures of the log's audit, by their labels."""
    return {
        "commands": audit.commands,
        "events": audit.events,
        "duplicate events": audit.duplicate_events,
    }


def format_counts(counts: Mapping[str, int]) -> str:
    """Return answers in one line, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} × {name}" for name, count in ordered)  # noqa: RUF001  a multiplication sign
