"""The command line runs in a child process.

One child takes many tries, or one try is of the installed command.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DRIVER = """
import contextlib, io, json, sys
from pathlib import Path
from farcontext.app import cli
tries = []
for arguments, text in json.load(sys.stdin):
    if text is not None:
        Path("params.yaml").write_text(text, encoding="utf-8")
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["farcontext", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    tries.append([code, out.getvalue(), err.getvalue()])
print(json.dumps([tries, "torch" in sys.modules]))
"""


@dataclass(frozen=True)
class Said:
    """What one call of the command line left."""

    code: int
    out: str
    err: str


def try_all(folder: Path, tries: list[tuple[list[str], str | None]]) -> tuple[list[Said], bool]:
    """Call the command line once for each try, in one child.

    A try is (arguments, text of params.yaml). The second value says whether torch was imported.
    """
    child = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(tries),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    found, torch_imported = json.loads(child.stdout)
    return [Said(*item) for item in found], torch_imported


def call(folder: Path, *arguments: str, seconds: float = 60) -> Said:
    """Call the installed command in a process of its own; it has so many seconds."""
    command = [str(Path(sys.executable).with_name("farcontext")), *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=seconds
    )
    return Said(done.returncode, done.stdout, done.stderr)


def imports(folder: Path, *arguments: str) -> set[str]:
    """Return what the installed command imports, by the first part of each module's name."""
    command = [str(Path(sys.executable).with_name("farcontext")), *arguments]
    told = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60, env=told
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
