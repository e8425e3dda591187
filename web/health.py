"""Whether a worker lives, and whether it is ready to work, with the reasons why it is not."""

from typing import Any, cast

from faust.tables.manager import TableManager
from faust.web import Request, Response, View

from mercuria.adapters.http import Web
from mercuria.app import app


@app.page("/health/live", name="live")
async def live(self: View, _request: Request) -> Response:
    """Answer 200 as long as the event loop turns."""
    return self.json({"status": "live"})


@app.page("/health/ready", name="ready")
async def ready(self: View, _request: Request) -> Response:
    """Answer 200 when the worker decides commands, else 503 with the reasons."""
    reasons = unready_reasons()
    return self.json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)


def unready_reasons() -> list[str]:
    """Return why this worker does not decide commands at the moment; nothing when it does."""
    reasons: list[Any] = []
    if cast(Web, app.web).server.leaving:
        reasons.append("the worker is stopping")
    if not cast(TableManager, app.tables).recovery.completed.is_set():
        reasons.append("the tables are being read from the log")
    if app.rebalancing:
        reasons.append("partitions are being distributed among the workers")
    if app.in_recovery:
        reasons.append("the tables are catching up with the log")
    return reasons
