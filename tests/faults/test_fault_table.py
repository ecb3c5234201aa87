"""faults.csv says what is survived.

Each of its rows has a test, and each fault test has its row.
"""

import ast
import csv
import re
from pathlib import Path

FOLDER = Path(__file__).parent
NAME = re.compile(r"test_fault_(\d+)_\w+")


def rows() -> list[dict[str, str]]:
    with (FOLDER / "faults.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def ids_in_names() -> set[int]:
    """Return the ids in the names of all fault tests."""
    sources = [path.read_text(encoding="utf-8") for path in FOLDER.glob("test_fault_*.py")]
    names = [
        node.name
        for text in sources
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    ]
    return {int(match.group(1)) for name in names if (match := NAME.fullmatch(name))}


def test_every_row_has_a_test_and_every_fault_test_a_row() -> None:
    listed = [int(row["id"]) for row in rows()]
    assert listed == sorted(set(listed))
    assert set(listed) == ids_in_names()


def test_every_row_says_what_is_done_and_what_must_be_seen_and_where(root: Path) -> None:
    for row in rows():
        assert None not in row and all(row.values()), row
        module = root / "src" / "farcontext" / f"{row['module']}.py"
        assert module.is_file() or row["module"] == "tests", row
