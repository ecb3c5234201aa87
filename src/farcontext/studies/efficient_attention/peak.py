"""The peak of this process's resident memory while it works.

The peak is what the kernel counted (VmHWM) less what was resident before the work. The C library
keeps freed memory for later in pieces of up to 32 MiB; here it is told to give back larger ones at
once, so that what is counted was in use. Without /proc (macOS) the peak is getrusage's, which
cannot be reset: an earlier, higher one hides the work.
"""

import contextlib
import ctypes
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

M_MMAP_THRESHOLD = -3  # <malloc.h> defines this number.


def _status(field: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return int(text.partition(f"{field}:")[2].split()[0]) * 1024


def peak() -> int:
    """Return the most resident bytes ever, or since the last `forget_peak`."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> int:
    """Give back freed memory; set the peak to resident bytes, return it."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return peak()  # The system cannot reset the peak, so this is the peak so far.
    return _status("VmRSS")


def give_back(size: int) -> None:
    """Tell glibc to return freed pieces of this size at once.

    They go back to the system, and glibc then stops raising that size itself.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, size)


def watched(work: Callable[[], object], before: int | None = None) -> dict[str, float]:
    """Do some work; return its peak in bytes and its seconds.

    The peak is counted above `before`, which by default is what is resident now.
    """
    now = forget_peak()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return {"bytes": peak() - (now if before is None else before), "seconds": seconds}
