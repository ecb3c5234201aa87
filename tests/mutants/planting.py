"""Plant each fault of faults.yaml in a copy of src, and see what notices it: `make mutants`.

A fault is run against the tests that reach its module, nearest first, then against the notebooks
that do. The tests of a file count only if they pass without any fault. What takes four times as
long as without the fault hangs, and counts as noticed. results/mutants.csv is written after every
fault, so a call goes on where the last one stopped; a fault is run again when its file changed.
"""

import argparse
import ast
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

from pydantic import Field

from farcontext import files
from farcontext.app import notebooks
from farcontext.schema import Frozen, read_yaml, validate

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "results" / "mutants.csv"
COLUMNS = ("id", "file", "line", "means", "outcome", "by", "seconds", "survives")
MADE = ("corpus", "sources", "tokenizer", "smollm2")  # What the data stages made is shared.
BUDGET = 120  # Tests and notebooks may take so many seconds each, as measured without a fault.
SLACK, START = 4, 90  # A run may take so many times as long, and so many seconds more.
PLAIN = ["--import-mode=importlib", "-q", "-x", "-p", "no:cacheprovider", "-rfE", "--tb=no"]


class Fault(Frozen):
    """One change of one place in src."""

    file: str
    old: Annotated[str, Field(min_length=1)]
    new: str
    means: Annotated[str, Field(min_length=1)]
    survives: str = ""  # Why it may stay, where nothing noticed it.

    @property
    def path(self) -> Path:
        """The file that the fault is planted in."""
        return ROOT / "src" / "farcontext" / self.file

    @property
    def module(self) -> str:
        """The file as a module's dotted name."""
        return "farcontext." + self.file.removesuffix(".py").replace("/", ".")

    def planted(self) -> str:
        """Return the file's text with the fault."""
        return self.path.read_text(encoding="utf-8").replace(self.old, self.new)

    @property
    def id(self) -> str:
        """A name that changes with the fault and with its file."""
        return hashlib.sha256(f"{self.file}\n{self.planted()}".encode()).hexdigest()[:12]

    @property
    def line(self) -> int:
        """The line where the fault begins."""
        return self.path.read_text(encoding="utf-8").partition(self.old)[0].count("\n") + 1


class Faults(Frozen):
    """All of faults.yaml."""

    faults: Annotated[tuple[Fault, ...], Field(strict=False)]


def read_faults() -> tuple[Fault, ...]:
    """Read and validate faults.yaml."""
    path = Path(__file__).with_name("faults.yaml")
    return validate(Faults, read_yaml(path), str(path)).faults


# ----------------------------------------------------------------------------- what reaches a fault


def _imported(source: str) -> set[str]:
    """Return the dotted names that a source imports, of modules or of what is in them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return found


@lru_cache
def graph() -> dict[str, set[str]]:
    """Return each module, test and notebook with the modules that it imports."""
    sources = {
        f"farcontext.{'.'.join(path.relative_to(ROOT / 'src/farcontext').with_suffix('').parts)}": (
            path.read_text(encoding="utf-8")
        )
        for path in (ROOT / "src" / "farcontext").rglob("*.py")
    }
    for path in (ROOT / "tests").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix() if path.name.startswith("test_") else path.stem
        sources[name] = path.read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        sources[path.relative_to(ROOT).as_posix()] = notebooks.code_cells(path)
    return {name: _imported(text) & set(sources) for name, text in sources.items()}


def distances(module: str) -> dict[str, int]:
    """Return how many imports lie between a module and each file that reaches it."""
    found, edge = {module: 0}, {module}
    while edge:
        edge = {name for name, to in graph().items() if to & edge and name not in found}
        found |= dict.fromkeys(edge, max(found.values()) + 1)
    return found


def reaching(fault: Fault, kind: str) -> list[str]:
    """Return the tests or notebooks that reach a fault, nearest first.

    The test file of the module's own name comes before all others.
    """
    ending = ".ipynb" if kind == "notebooks" else ".py"
    own = f"test_{Path(fault.file).stem}.py"
    found = {name: far for name, far in distances(fault.module).items() if name.endswith(ending)}
    return sorted(found, key=lambda name: (Path(name).name != own, found[name], name))


# ------------------------------------------------------------------------------------------ running


def checkout() -> Path:
    """Copy what git tracks, without any fault."""
    there = ROOT / "build" / "mutants" / "checkout"
    shutil.rmtree(there, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, there / name)
    (there / "build").mkdir()
    for name in MADE:
        (there / "build" / name).symlink_to((ROOT / "build" / name).resolve())
    return there


def run(there: Path, names: list[str], limit: float, *more: str) -> tuple[int | None, str]:
    """Run some test files or notebooks there; None stands for a run that took too long."""
    nbval = ["--nbval", "--nbval-current-env"] if names[0].endswith(".ipynb") else []
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", *PLAIN, *nbval, *more, *names]
    cache = there.with_name("cache")
    shutil.rmtree(cache, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": str(there / "src"), "FARCONTEXT_CACHE": str(cache)}
    environment |= {"FARCONTEXT_JOBS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    same = {"cwd": there, "env": environment, "start_new_session": True, "text": True}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **same
    ) as child:
        try:
            said, _ = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            return None, child.communicate()[0]
        return child.returncode, said


def baseline(there: Path, names: Iterable[str]) -> dict[str, float]:
    """Return the seconds of each file without any fault; files that fail are left out.

    They are measured once, and kept below build/mutants.
    """
    kept = there.with_name("seconds.json")
    known = files.read_json(kept) if kept.is_file() else {}
    for name in dict.fromkeys(names):
        if name not in known:
            report = there.with_name("report.xml")
            code, _ = run(there, [name], 1200, f"--junitxml={report}")
            passed = code == 0
            suite = ElementTree.parse(report).getroot().find("testsuite") if passed else None
            known[name] = float(suite.get("time")) if passed else -1.0
            said = f"{known[name]:.0f} s without a fault" if passed else "fails without a fault"
            print(f"  {name}: {said}", flush=True)
            files.write_json(kept, known)
    return {name: known[name] for name in names if known[name] >= 0}


def within(there: Path, names: list[str], budget: float) -> dict[str, float]:
    """Return the nearest files that fit a budget of seconds, at least one."""
    chosen: dict[str, float] = {}
    for name in names:
        if chosen and sum(chosen.values()) >= budget:
            break
        found = baseline(there, [name])
        if found and (not chosen or sum(chosen.values()) + found[name] <= budget):
            chosen |= found
    return chosen


def noticed(there: Path, fault: Fault, budget: float) -> tuple[str, str]:
    """Return what came of a fault, and what noticed it."""
    target = there / "src" / "farcontext" / fault.file
    for kind in ("tests", "notebooks"):
        chosen = within(there, reaching(fault, kind), budget)
        if not chosen:
            continue
        target.write_text(fault.planted(), encoding="utf-8")
        try:
            limit = START + SLACK * sum(chosen.values())
            code, said = run(there, list(chosen), limit)
        finally:
            shutil.copy2(fault.path, target)
        if code is None:
            return "killed", f"it hangs: {limit:.0f} s"
        if code != 0:
            first = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
            return "killed", first[1] if first else f"pytest ends with {code}"
    return "survived", ""


def write(rows: dict[str, dict[str, object]]) -> None:
    """Write the table, in the order of faults.yaml."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[fault.id] for fault in read_faults() if fault.id in rows)
    files.write_atomic(TABLE, text.getvalue())


def main() -> None:
    """Run the faults that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--most", type=int, default=10_000, help="run so many of them")
    parser.add_argument("--of", default="", help="only faults of files that hold this text")
    parser.add_argument("--seconds", type=float, default=BUDGET, help="of tests for each")
    given = parser.parse_args()
    rows: dict[str, dict[str, object]] = {}
    if TABLE.is_file():
        with TABLE.open(encoding="utf-8", newline="") as stream:
            rows = {row["id"]: row for row in csv.DictReader(stream)}
    known = {fault.id: fault for fault in read_faults()}
    rows = {x: row | {"survives": known[x].survives} for x, row in rows.items() if x in known}
    # In the order of their ids, so that a part of them is a fair sample of all.
    todo = [known[x] for x in sorted(known) if x not in rows and given.of in known[x].file]
    there = checkout()
    for number, fault in enumerate(todo[: given.most], 1):
        start = time.monotonic()
        outcome, by = noticed(there, fault, given.seconds)
        told = (fault.id, fault.file, fault.line, fault.means, outcome, by)
        rows[fault.id] = dict(
            zip(COLUMNS, (*told, round(time.monotonic() - start), fault.survives), strict=True)
        )
        write(rows)
        print(f"{number} of {len(todo)}: {outcome:8} {fault.file}: {fault.means}  {by}", flush=True)
    write(rows)
    killed = sum(row["outcome"] == "killed" for row in rows.values())
    print(json.dumps({"faults": len(known), "run": len(rows), "killed": killed}))


if __name__ == "__main__":
    main()
