"""How a topic asks for batches."""

from typing import Any

import faust
from faust.serializers.schemas import DecodeFunction
from faust.types import AppT, EventT, Message


class BatchSchema(faust.Schema[Any, Any]):
    """A topic with this schema is delivered in batches.

    The value of each Faust event is then a list of aiokafka's `ConsumerRecord`s of one partition, in the order of
    their offsets and undecoded. The event's offset is the last record's, so acknowledging it acknowledges them all.

    Args:
        cut: whether a long fetch is delivered in several batches. Where an agent may stand still while others must
            not, it is not to be cut: pieces for which there is no room hold up the delivery of all topics.
    """

    def __init__(self, *, cut: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.cut = cut

    def compile(self, app: AppT, **_options: Any) -> DecodeFunction:
        """Return Faust's decoder of messages, which here only wraps them."""

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:
            return app.create_event(None, message.value, None, message)

        return decode
