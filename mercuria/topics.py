"""Every topic: its name, its records, and its retention.

All topics of the flow have the same number of partitions. A record stays in its wallet's partition
throughout.
"""

from dataclasses import dataclass, field

WALLET_COMMANDS = "mercuria.wallet.commands"
"""Key: the wallet's id as text. Value: a command (`domain.commands`) as JSON, a request to the wallet."""

WALLET_EVENTS = "mercuria.wallet.events"
"""Key: the wallet's id as text. Value: an event (`domain.events`) in its CloudEvents envelope."""

TRANSACTION_EVENTS = "mercuria.transaction.events"
"""Key: the id of the wallet whose event ended the transaction. Value: `transaction.completed` or `transaction.failed`
(`domain.transaction`) in its CloudEvents envelope."""

LEDGER_EVENTS = "mercuria.ledger.events"
"""Key: as on the transaction topic. Value: `ledger.entry_created` (`domain.ledger.Entry`) in its CloudEvents envelope.
A partition holds the hash chain of the ledger with the same number. It proves the entries in PostgreSQL."""

WALLET_DEAD_LETTERS = "mercuria.wallet.dead-letters"
"""Key and value: those of the original record, or their beginnings (`agents.dead_letters`). The headers give
the reason why the record is not a command, and its origin."""

SKIPS = "mercuria.skips"
"""The records that an operator has skipped (`kafka.skips`), each in the partition of the same number."""

CONSUMER_GROUP = "mercuria"
"""The consumer group of all workers, which Faust calls the app's id."""

BALANCES_CHANGELOG = "mercuria.balances.changelog"
RECEIPTS_CHANGELOG = "mercuria.receipts.changelog"
COUNTERS_CHANGELOG = "mercuria.counters.changelog"

PROCESSED = (WALLET_COMMANDS, WALLET_EVENTS, TRANSACTION_EVENTS, LEDGER_EVENTS)
"""The topics that workers process, whose records may be skipped, in the order in which a command passes them."""

MAX_COMMAND_RECORD_BYTES = 2 * 1024 * 1024
"""Kafka's size limit. It exceeds any valid command, so that a faulty client gets an answer, not an error."""

MAX_RECORD_BYTES = 4 * 1024 * 1024
"""The size limit of the other topics: a dead letter is a little larger than its original record."""

_FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
_COMPACTED = {
    "cleanup.policy": "compact",
    # While a zombie writer may still write, compaction must not remove a row that it overwrites (`kafka.batch_table`).
    "min.compaction.lag.ms": str(60 * 60 * 1000),
    "segment.bytes": str(64 * 1024 * 1024),
    "max.message.bytes": str(MAX_RECORD_BYTES),
}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The configuration with which a topic is created."""

    name: str
    config: dict[str, str] = field(default_factory=dict)


TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(
        WALLET_COMMANDS,
        # The broker sets the time of a command: a client's clock has no effect.
        _FOREVER
        | {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_COMMAND_RECORD_BYTES)},
    ),
    TopicSpec(WALLET_EVENTS, _FOREVER | {"max.message.bytes": str(MAX_RECORD_BYTES)}),
    TopicSpec(TRANSACTION_EVENTS, _FOREVER | {"max.message.bytes": str(MAX_RECORD_BYTES)}),
    TopicSpec(LEDGER_EVENTS, _FOREVER | {"max.message.bytes": str(MAX_RECORD_BYTES)}),
    TopicSpec(WALLET_DEAD_LETTERS, _FOREVER | {"max.message.bytes": str(MAX_RECORD_BYTES)}),
    TopicSpec(SKIPS, _FOREVER),
    TopicSpec(BALANCES_CHANGELOG, _COMPACTED),
    TopicSpec(RECEIPTS_CHANGELOG, _COMPACTED),
    TopicSpec(COUNTERS_CHANGELOG, _COMPACTED),
)


def max_batch_bytes(topic: str) -> int:
    """Return the maximum size of a record batch for a topic, which is a little below Kafka's limit."""
    takes = MAX_COMMAND_RECORD_BYTES if topic == WALLET_COMMANDS else MAX_RECORD_BYTES
    return takes - 64 * 1024
