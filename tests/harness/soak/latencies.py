"""How long commands waited for their events: all of them, and those that were answered while nothing was broken."""

from array import array

from tests.harness.chaos.kafka.pending import PendingCommands


class Latencies:
    """Collects latencies of commands, in seconds."""

    def __init__(self, pending: PendingCommands) -> None:
        self.all_s = array("d")
        self.calm_s = array("d")
        self._pending = pending

    def collect(self, *, is_calm: bool) -> None:
        """Collect the latencies since the last call, during which nothing was broken if `is_calm`."""
        latencies_s = self._pending.take_latencies_s()
        self.all_s.extend(latencies_s)
        if is_calm:
            self.calm_s.extend(latencies_s)
