"""A worker that profiles itself between two signals: `harness bench http --profile` runs it.

python -P profiled.py FILE worker
"""

import cProfile
import os
import signal
import sys

from mercuria.cli import main

# Faust has uses of its own for the usual ones.
START, STOP = signal.SIGRTMIN, signal.SIGRTMIN + 1


def _profile_between_signals(file: str) -> None:
    profile = cProfile.Profile()

    def stop(*_: object) -> None:
        profile.disable()
        profile.dump_stats(f"{file}.new")
        # A process that waits for the file finds it complete.
        os.replace(f"{file}.new", file)

    signal.signal(START, lambda *_: profile.enable())
    signal.signal(STOP, stop)


if __name__ == "__main__":
    _profile_between_signals(sys.argv.pop(1))
    main()
