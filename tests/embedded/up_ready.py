"""`mercuria up` to the letter, except that its workers are `ready_worker.py`: `up_ready.py DATA_DIR [WORKERS]`."""

import sys
from pathlib import Path

from mercuria.cli.up import keep_up

keep_up(
    Path(sys.argv[1]),
    workers=int(sys.argv[2]) if len(sys.argv) > 2 else 1,
    prepare=None,
    worker_command=(sys.executable, str(Path(__file__).with_name("ready_worker.py"))),
)
