"""Batch metrics: counts the results of a batch's commands."""

from collections import Counter
from functools import cache

from mercuria.agents.batch import DEAD_LETTER, REFUSED, Batch
from mercuria.observability import metrics

_CODES_OF = {REFUSED: metrics.refusals, DEAD_LETTER: metrics.dead_letters}


def count(batch: Batch) -> None:
    """Count the results of a batch whose outputs are in Kafka."""
    metrics.batch_commands.observe(len(batch.taken))
    for (kind, outcome, code), number in Counter(batch.taken).items():
        metrics.commands.labels(_label(kind), outcome).inc(number)
        if code is not None:
            _CODES_OF[outcome].labels(code.value).inc(number)


def _label(kind: type | str | None) -> str:
    if isinstance(kind, type):
        return _tag(kind)
    return kind if kind in metrics.COMMAND_TYPES else metrics.UNKNOWN


@cache
def _tag(command: type) -> str:
    return str(command.__struct_config__.tag)  # type: ignore[attr-defined]  # all commands are structs
