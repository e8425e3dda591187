"""Every topic: its name, what its records are, and how it is kept.

All topics of the flow have the same number of partitions, and a record stays in its wallet's partition all the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

WALLET_COMMANDS = "mercuria.wallet.commands"
"""Key: the wallet's id as text. Value: a command (`domain.commands`) as JSON. Who writes it asks a wallet."""

WALLET_EVENTS = "mercuria.wallet.events"
"""Key: the wallet's id as text. Value: an event (`domain.events`) in its CloudEvents envelope."""

TRANSACTION_EVENTS = "mercuria.transaction.events"
"""Key: the id of the wallet whose event ended the transaction. Value: `transaction.completed` or `transaction.failed`
(`domain.transaction`) in its CloudEvents envelope."""

LEDGER_EVENTS = "mercuria.ledger.events"
"""Key: as on the transaction topic. Value: `ledger.entry_created` (`domain.ledger.Entry`) in its CloudEvents envelope.
A partition holds the ledger's chain of that number, and proves what PostgreSQL says of it."""

WALLET_DEAD_LETTERS = "mercuria.wallet.dead-letters"
"""Key and value: as they came, or how they begin (`agents.dead_letters`). Headers say why the record is no command, and
where it came from."""

SKIPS = "mercuria.skips"
"""Records that an operator has had passed over (`kafka.skips`), each in the partition of the same number."""

CONSUMER_GROUP = "mercuria"
"""The group of all workers, which Faust calls the app's id."""

BALANCES_CHANGELOG = "mercuria.balances.changelog"
RECEIPTS_CHANGELOG = "mercuria.receipts.changelog"
COUNTERS_CHANGELOG = "mercuria.counters.changelog"

STAGES: Mapping[str, str] = {
    "transactions": WALLET_EVENTS,
    "ledger": TRANSACTION_EVENTS,
    "analytics": LEDGER_EVENTS,
}
"""By stage that writes to PostgreSQL, the topic that it reads; in the order in which a command comes through them."""

MAX_COMMAND_RECORD_BYTES = 2 * 1024 * 1024
"""What Kafka lets in. Larger than any command, so that a client that errs gets an answer rather than an error."""

MAX_RECORD_BYTES = 4 * 1024 * 1024
"""For everything else: a dead letter is a little larger than what it was made of."""

_FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
_COMPACTED = {
    "cleanup.policy": "compact",
    # While a zombie writer may still write, no row that it overwrites must vanish (`kafka.batch_table`).
    "min.compaction.lag.ms": str(60 * 60 * 1000),
    "segment.bytes": str(64 * 1024 * 1024),
    "max.message.bytes": str(MAX_RECORD_BYTES),
}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is made."""

    name: str
    config: dict[str, str] = field(default_factory=dict)


TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(
        WALLET_COMMANDS,
        # The time of a command is the broker's: a client's clock decides nothing.
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
    """Return how large a record batch for a topic may be, a little below what Kafka takes."""
    takes = MAX_COMMAND_RECORD_BYTES if topic == WALLET_COMMANDS else MAX_RECORD_BYTES
    return takes - 64 * 1024
