"""Isolation: finding the one record that cannot be written, by writing the queued records one by one."""

from mercuria.kafka.crash import RecordError
from mercuria.kafka.transport import Fetched


class RecordIsolation:
    """How many records are still written one by one, and which is the current one."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._remaining = 0
        self._current: tuple[int, int] | None = None

    @property
    def is_active(self) -> bool:
        """Whether each transaction writes one record."""
        return self._remaining > 0

    def begin(self, records: int, error: Exception) -> None:
        """Write the next `records` records one by one, because of an error.

        Raises:
            RecordError: the error is that of the current record.
            Exception: `error`, which does not come from a record: there is none.
        """
        if self.is_active and self._current is not None:
            raise RecordError(self._topic, *self._current) from error
        self._remaining, self._current = records, None
        if not records:
            raise error

    def next_one(self, partition: int, fetch: Fetched, offset: int) -> Fetched:
        """Return the first record of a fetch from `offset` on, or its last one; it is the current one now."""
        record = next((each for each in fetch if each.offset >= offset), fetch[-1])
        self._current = partition, record.offset
        return Fetched([record], fetch.start)

    def written(self) -> None:
        """Note that a transaction has succeeded."""
        self._remaining = max(self._remaining - 1, 0)
