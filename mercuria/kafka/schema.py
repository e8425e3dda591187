"""The schema of topics that are delivered in batches."""

from typing import Any

import faust
from faust.serializers.schemas import DecodeFunction
from faust.types import AppT, EventT, Message


class BatchSchema(faust.Schema[Any, Any]):
    """A topic with this schema is delivered in batches.

    The value of each Faust event is a list of undecoded `ConsumerRecord`s of one partition, in the order of
    their offsets. The offset of the event is that of the last record, so acknowledging it acknowledges all
    records.

    Args:
        cut: whether a long fetch is delivered in several batches. It must be False if the agent may pause
            while others must not: pieces that do not fit into a queue block the delivery of all topics.
    """

    def __init__(self, *, cut: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.cut = cut

    def compile(self, app: AppT, **_options: Any) -> DecodeFunction:
        """Return the message decoder for Faust, which only wraps messages."""

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:
            return app.create_event(None, message.value, None, message)

        return decode
