"""Signals, dead parents and too little memory: a training ends early.

The module is importable without torch. No result depends on it: a training that goes on afterwards
ends with the bits of one that was never interrupted.
"""

import ctypes
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from farcontext.files import UserError
from farcontext.train.config import RunConfig

# A kill, Ctrl-C, and a terminal that was closed.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_asked: list[int] = []  # It holds the number of the signal that came inside `finishing`.


def asked() -> int:
    """Return the signal that asks a training to stop, or 0."""
    return _asked[0] if _asked else 0


def stopped(number: int, folder: Path, step: int, steps: int) -> UserError:
    """Return the error of a training that a signal stopped.

    It was saved before. Its exit code is the one that a shell gives to a death by that signal.
    """
    error = UserError(
        f"{folder}: stopped by {signal.Signals(number).name}: step {step} of {steps} is saved; "
        "the same command goes on from there"
    )
    error.code = 128 + number
    return error


@contextmanager
def finishing() -> Iterator[None]:
    """Let a training save its step when a signal comes.

    A second signal ends it at once.

    It is for the main thread of a command, never for a library's function. SIGHUP never counts as
    the second one, because a shell and the kernel both send it when a terminal is closed, and it
    stays ignored where `nohup` has it ignored.
    """
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def ask(number: int, frame: FrameType | None) -> None:
        _asked.append(number)
        # The kernel answers the next one itself, also while a long operation of torch runs.
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN if other == signal.SIGHUP else signal.SIG_DFL)
        if number == signal.SIGHUP:
            _write_nowhere(terminals)

    before = {number: signal.getsignal(number) for number in STOPPING}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        _asked.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_nowhere(descriptors: list[int]) -> None:
    """Send what is written to a closed terminal to nowhere.

    Writing to it would fail.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def end_with_parent() -> None:
    """Ask the kernel to end this process with its parent.

    It sends SIGTERM when the parent dies, on Linux only; elsewhere this is a no-op. A launcher that
    is killed, `dvc repro` say, would otherwise leave its trainer running beside the next one.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # The parent died between the two calls.
        os.kill(os.getpid(), signal.SIGTERM)


# ------------------------------------------------------------------------------------------- memory

# What numpy and torch say of a size that no machine has, and of one that this machine has not.
_TOO_LARGE = re.compile(
    r"allocate|out of memory|overflow|Maximum allowed|array is too big", re.IGNORECASE
)
_AMOUNT = re.compile(r"allocate ([\d.]+) (bytes|[KMGTPE]iB)")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@contextmanager
def memory_errors(run: RunConfig) -> Iterator[None]:
    """Turn numpy's and torch's errors for lack of memory into one line.

    The line has the bytes asked for, batch and length, and what to lower.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        text = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError) and not _TOO_LARGE.search(text):
            raise
        amount = _AMOUNT.search(text)
        wanted = (
            f"{int(float(amount[1]) * 1024 ** _UNITS.index(amount[2]))} bytes"
            if amount
            else "more than any machine has"
            if text
            else "more than is left"
        )
        rows = getattr(run.batch, "rows", None) or max(stage.rows for stage in run.batch.stages)
        raise UserError(
            f"out of memory: asked for {wanted}: batch.rows = {rows}, batch.length = "
            f"{run.batch.length}, model.width = {run.model.width}, model.layers = "
            f"{run.model.layers}: expected less of them (or a higher optimizer.accumulation)"
        ) from None


@contextmanager
def limited_memory() -> Iterator[None]:
    """Make an allocation fail that this machine has no memory for.

    Without it Linux grants the memory and kills the process, or another one, when it is used.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if (free := free_bytes()) is None:
        yield
        return
    limits = [free + _data_bytes(), *(x for x in (soft, hard) if x != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def free_bytes() -> int | None:
    """Return the bytes that this machine can still give.

    A container's limit counts; None if it is unknown.
    """
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    kib = dict(re.findall(r"^(MemAvailable|SwapFree): +(\d+) kB", meminfo, re.MULTILINE))
    free = 1024 * sum(map(int, kib.values()))
    try:
        group = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")
    except OSError:
        return free
    return free if group == "max" else min(free, max(0, int(group) - int(used)))


def _data_bytes() -> int:
    """Return how many bytes of RLIMIT_DATA this process has taken already."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)[1])
