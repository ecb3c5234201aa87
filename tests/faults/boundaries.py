"""A boundary sweep kills one save ahead of each of its calls.

The save is repeated once per system call that changes the disk, and killed right before that call.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from functools import cache
from pathlib import Path

import children

CALLS = ("mkdir", "openat", "write", "fsync", "chmod", "rename", "unlink", "unlinkat", "rmdir")


@cache
def strace_permitted() -> bool:
    """Return whether strace is here and ptrace is allowed."""
    if not shutil.which("strace"):
        return False
    return (
        subprocess.run(
            ["strace", "-o", "/dev/null", "true"], capture_output=True, check=False
        ).returncode
        == 0
    )


def _tracer(child: children.Child, *options: str) -> subprocess.Popen:
    """Attach strace to a child that stopped itself, then let the child go on."""
    status = Path(f"/proc/{child.pid}/status")
    _until(lambda: re.search(r"State:\s+T", status.read_text(encoding="utf-8")))
    calls = f"trace={','.join(CALLS)}"
    tracer = subprocess.Popen(
        ["strace", "-q", "-p", str(child.pid), "-e", calls, *options], stderr=subprocess.DEVNULL
    )
    _until(lambda: not re.search(r"TracerPid:\s+0\b", status.read_text(encoding="utf-8")))
    os.kill(child.pid, signal.SIGCONT)
    return tracer


def _until(condition) -> None:
    give_up = time.monotonic() + children.SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def with_strace(
    project: Path, work: Path, arguments: tuple, call: tuple[str, int] | None
) -> list[str]:
    """Run a save under strace; return the calls that were made.

    The save is killed at the n-th `call` if one is given.
    """
    child = children.start(children.save_sets, project, work, *arguments, children.stop_here)
    trace = work / "trace"
    inject = ("-e", f"inject={call[0]}:signal=KILL:when={call[1]}") if call else ()
    tracer = _tracer(child, "-o", str(trace), *inject)
    code = child.wait()
    tracer.wait(children.SECONDS)
    assert code == (-signal.SIGKILL if call else 0), child.said()
    lines = trace.read_text(encoding="utf-8").splitlines()
    return [
        match.group(1)
        for line in lines
        if (match := re.match(r"(\w+)\(", line)) and "O_RDONLY|O_CLOEXEC)" not in line
    ]


def with_wrapper(project: Path, work: Path, arguments: tuple, number: int | None) -> list[str]:
    """The same where ptrace is forbidden: the child counts its own calls and kills itself."""
    log = work / "trace"
    child = children.start(
        children.save_sets, project, work, *arguments, children.KillAtCall(number, log)
    )
    code = child.wait()
    assert code == (-signal.SIGKILL if number else 0), child.said()
    return log.read_text(encoding="utf-8").split()


def numbered(calls: list[str]) -> list[tuple[str, int]]:
    """Return each call as (name, how many of that name so far)."""
    seen: Counter = Counter()
    result = []
    for name in calls:
        seen[name] += 1
        result.append((name, seen[name]))
    return result
