"""Every planted fault applies to today's code, and every one that stays has a reason."""

import ast
import csv
from pathlib import Path

import planting
import pytest
from planting import Fault

FAULTS = planting.read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: f"{one.file}: {one.means[:40]}")
def test_a_fault_occurs_once_and_changes_the_code(fault: Fault) -> None:
    text = fault.path.read_text(encoding="utf-8")
    assert text.count(fault.old) == 1
    assert ast.dump(ast.parse(fault.planted())) != ast.dump(ast.parse(text))


def test_there_are_many_different_ones_in_every_room_that_computes() -> None:
    assert len(FAULTS) >= 200 and len({one.id for one in FAULTS}) == len(FAULTS)
    rooms = {one.file.partition("/")[0] for one in FAULTS}
    assert {"nn", "tasks", "data", "train", "measure", "results", "checkpoints"} <= rooms


def test_a_fault_changes_its_name_with_its_file(tmp_path: Path) -> None:
    one = FAULTS[0]
    other = one.model_copy(update={"new": one.new + " "})
    assert one.id != other.id
    assert one.path.read_text(encoding="utf-8").splitlines()[one.line - 1].count(one.old) == 1


def test_the_nearest_tests_come_first() -> None:
    fault = next(one for one in FAULTS if one.file == "nn/masks.py")
    tests = planting.reaching(fault, "tests")
    assert tests[0] == "tests/nn/test_masks.py" and "tests/nn/test_attention.py" in tests
    pages = planting.reaching(fault, "notebooks")
    assert pages and all(name.startswith("notebooks/") for name in pages)
    far = planting.distances(fault.module)
    assert far[fault.module] == 0 and far["tests/nn/test_masks.py"] == 1


def test_every_fault_is_reached_by_a_test() -> None:
    lost = {one.file for one in FAULTS if not planting.reaching(one, "tests")}
    assert not lost


def test_every_survivor_has_a_reason() -> None:
    text = planting.TABLE.read_text(encoding="utf-8") if planting.TABLE.is_file() else ""
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["outcome"] for row in rows} <= {"killed", "survived"}
    silent = [row["means"] for row in rows if row["outcome"] == "survived" and not row["survives"]]
    assert not silent
