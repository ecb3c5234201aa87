"""What every fault test asserts besides its own row: one line, nothing changed, the same bits."""

import hashlib
import re
from pathlib import Path

import pytest

from farcontext.files import UserError

TEMPORARY = ".partial-"


def one_line(text: str, *wanted: str) -> str:
    """2-LINE: exactly one line, `farcontext: …`, no traceback, that holds each wanted text."""
    lines = text.splitlines()
    assert len(lines) == 1, f"expected exactly one line, got {len(lines)}:\n{text}"
    assert re.match(r"farcontext: \S", lines[0]), text
    assert "Traceback" not in text
    for part in wanted:
        assert part in lines[0], f"expected {part!r} in: {lines[0]}"
    return lines[0]


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Return path → (time of the last change, sha256) of every file below a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run_bits(cache: Path) -> dict[str, str]:
    """SAME-BITS: return sha256 of a cache's only run, by file.

    The files hold weights, optimiser, random state, rows and step.
    """
    (folder,) = (cache / "runs").iterdir()
    newest = sorted(folder.glob("step-*"))[-1]
    kept = [*sorted(newest.iterdir()), folder / "result.json"]
    return {
        f"{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in kept
        if path.is_file()
    } | {"step": newest.name}


def leftovers(folder: Path) -> list[Path]:
    """Return the unfinished files and folders below a folder."""
    return sorted(folder.rglob(f"{TEMPORARY}*"))


def refuses(message: str) -> pytest.RaisesExc:
    """Expect a UserError whose text holds `message`."""
    return pytest.raises(UserError, match=re.escape(message))
