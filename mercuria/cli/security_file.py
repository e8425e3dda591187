"""Security events of commands: JSON lines in `<data dir>/logs/security.log`, in a worker's log format."""

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
        # A single write keeps the lines of two commands apart.
        os.write(descriptor, msgspec.json.encode(line) + b"\n")
    finally:
        os.close(descriptor)
