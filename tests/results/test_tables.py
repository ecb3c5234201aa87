"""Tables: exact round trips, a sidecar that fits its table or refuses, and honest comparison."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from observe import refuses

from farcontext import files
from farcontext.results import tables
from farcontext.studies.params import read_params

FRAME = pd.DataFrame(
    {
        "arm": ["rope", "none", "rope", "none"],
        "seed": [10, 10, 11, 11],
        "length": [64, 64, np.nan, 128],
        "metric": ["loss", "loss", "gain", "gain"],
        "value": [1.25, -0.1, 1e-300, 12345678.9],
    }
)


@pytest.fixture
def params(root: Path):
    return read_params(root / "params.yaml").model_anatomy


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "dvc.yaml").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FARCONTEXT_PROFILE", raising=False)
    return tmp_path


def test_a_table_reads_back_as_it_was_written(project: Path, params) -> None:
    path = tables.write_table(FRAME, "demo", params)
    assert path == project / "build" / "smoke" / "studies" / "demo" / "tables" / "demo.csv"
    pd.testing.assert_frame_equal(tables.read_table(path), FRAME)
    sidecar = files.read_json(path.with_suffix(".json"))
    assert sidecar["rows"] == 4 and sidecar["config"] == params.model_dump(mode="json")
    assert sidecar["config_sha256"] == files.sha256_json(sidecar["config"])
    assert set(sidecar["versions"]) == set(tables.RECORDED_VERSIONS)


def test_the_same_rows_are_the_same_bytes_and_say_nothing_of_time_or_place(
    project: Path, params
) -> None:
    path = tables.write_table(FRAME, "demo", params)
    first = [p.read_bytes() for p in (path, path.with_suffix(".json"))]
    tables.write_table(FRAME.copy(), "demo", params)
    assert first == [p.read_bytes() for p in (path, path.with_suffix(".json"))]
    assert str(project).encode() not in b"".join(first)


def test_ten_digits_are_kept_and_costs_go_to_a_file_of_their_own(project: Path, params) -> None:
    frame = FRAME.assign(value=1 / 3)
    path = tables.write_table(frame, "demo", params, cost=pd.DataFrame({"seconds": [1.23456789]}))
    assert path.read_text(encoding="utf-8").count("0.3333333333\n") == 4
    assert (path.parent / "demo.cost.csv").read_text(encoding="utf-8") == "seconds\n1.235\n"


@pytest.mark.parametrize("cell", ["=1+1", "+x", "-x", "@sum", "\tx", "\rx"])
def test_a_cell_that_a_spreadsheet_would_run_is_refused(cell: str, project: Path, params) -> None:
    with refuses(f"arm = {cell!r}: expected text"):
        tables.write_table(FRAME.assign(arm=["rope", cell, "rope", "none"]), "demo", params)
    assert not (project / "build").exists()
    # a negative number is no formula
    tables.write_table(FRAME.assign(value=[-1.0, 2, 3, 4]), "demo", params)


def damaged(path: Path, how: str) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    changed = {
        "row missing": "".join(lines[:-1]),
        "row twice": text + lines[-1],
        "number changed": text.replace("1.25", "1.35"),
        "empty": "",
    }
    path.write_text(changed[how], encoding="utf-8")


@pytest.mark.parametrize("how", ["row missing", "row twice", "number changed", "empty"])
def test_a_damaged_table_is_refused_with_its_path(how: str, project: Path, params) -> None:
    path = tables.write_table(FRAME, "demo", params)
    damaged(path, how)
    with refuses(str(path)):
        tables.read_table(path)


def test_a_table_cut_at_any_byte_is_refused(project: Path, params) -> None:
    path = tables.write_table(FRAME, "demo", params)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with refuses(str(path)):
            tables.read_table(path)


def test_a_sidecar_of_another_table_is_refused(project: Path, params) -> None:
    path = tables.write_table(FRAME, "demo", params)
    other = tables.write_table(FRAME.assign(value=0.5), "other", params)
    shutil.copy(other.with_suffix(".json"), path.with_suffix(".json"))
    with refuses("as its sidecar says"):
        tables.read_table(path)
    path.with_suffix(".json").unlink()
    with refuses("demo.json: expected a file here"):
        tables.read_table(path)


def test_published_rows_stand_beside_this_runs(project: Path, params) -> None:
    alone = tables.beside_published(FRAME, "demo")
    assert set(alone["run"]) == {"this run"}
    path = tables.write_table(FRAME, "demo", params)
    for name in ("demo.csv", "demo.json"):
        files.write_atomic(
            tables.published_folder() / "demo" / "tables" / name, (path.parent / name).read_bytes()
        )
    both = tables.beside_published(FRAME, "demo")
    assert list(both["run"].value_counts().sort_index()) == [4, 4]


def test_a_laptop_run_stands_alone_as_what_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARCONTEXT_PROFILE", "laptop")
    assert set(tables.beside_published(FRAME, "demo")["run"]) == {"published"}


def test_what_was_recorded_once_comes_with_its_card(project: Path) -> None:
    files.write_atomic(project / "results" / "card-x" / "speed.csv", FRAME.to_csv(index=False))
    files.write_json(project / "results" / "card-x" / "speed.json", {"card": "X"})
    frame, card = tables.recorded("card-x", "speed")
    assert len(frame) == len(FRAME) and card == {"card": "X"}


def test_tidy_rows_have_the_columns_asked_for_sorted_by_all_but_the_value() -> None:
    rows = [
        {"metric": "b", "value": 1.0},
        {"metric": "a", "value": 9.0, "seed": 3},
        {"metric": "a", "value": 2.0, "seed": 1},
    ]
    frame = tables.tidy(rows, ["metric", "seed", "value"])
    assert list(frame["value"]) == [2.0, 9.0, 1.0]
    assert frame.loc[2, "seed"] != frame.loc[2, "seed"]  # missing


def test_parameters_are_those_of_the_published_rows(
    project: Path, params, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tables.params_behind(params, "demo") is params
    other = params.model_copy(update={"seeds": (7, 8)})
    files.write_json(
        tables.path_in(tables.published_folder(), "demo").with_suffix(".json"),
        {"config": other.model_dump(mode="json")},
    )
    assert tables.params_behind(params, "demo") == other
    monkeypatch.setattr(files, "profile", lambda: "laptop")
    assert tables.params_behind(params, "demo") is params
