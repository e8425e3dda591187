"""The security events of commands: lines of JSON in `<data dir>/logs/security.log`, as a worker's log has them."""

import os
import time
from pathlib import Path

import msgspec

from mercuria.auth.security_log import SENTENCES, Event, logger
from mercuria.timestamps import rfc3339

FILE = "security.log"


def append(data_dir: Path, event: Event, **fields: str) -> None:
    """Append a security event.

    Raises:
        OSError: the file cannot be written.
    """
    logs = data_dir / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = {
        "time": rfc3339(round(time.time() * 1000)),
        "level": "warning",
        "logger": logger.name,
        "event": SENTENCES[event],
        "security_event": str(event),
        **fields,
    }
    descriptor = os.open(logs / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        # One write: lines of two commands do not mix.
        os.write(descriptor, msgspec.json.encode(line) + b"\n")
    finally:
        os.close(descriptor)
