"""What a signal does to a command."""

import signal
import sys


def exit_on_signals() -> None:
    """Turn SIGTERM into SystemExit.

    So a kernel is shut down by the `finally` that started it, and no half folder stays behind.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
