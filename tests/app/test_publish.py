"""publishing.py: what was made is held against what is published, study by study."""

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from farcontext import files
from farcontext.app.publish import print_comparison
from farcontext.results import tables
from farcontext.studies.params import read_params

FRAME = pd.DataFrame({"arm": ["a", "b"], "metric": "loss", "value": [1.0, 2.0]})


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that has published one of its two studies."""
    params = read_params(root / "params.yaml").model_anatomy
    (tmp_path / "dvc.yaml").write_text("", encoding="utf-8")
    (tmp_path / "claims.yaml").write_text(
        "tolerances: {old: 0.1, new: 0.1}\nclaims: {}\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "profile", lambda: "laptop")
    for study in ("old", "new"):
        tables.write_table(FRAME, study, params)
    made, published = tmp_path / "build" / "laptop", tmp_path / "results" / "laptop"
    verdicts = "claim,verdict\nX,supported\n"
    for folder in (made, published):
        files.write_atomic(folder / "verdicts.csv", verdicts.encode())
    for name in ("old.csv", "old.json"):
        source = tables.made() / "old" / "tables" / name
        files.write_atomic(published / "old" / "tables" / name, source.read_bytes())
    return tmp_path


def said(project: Path) -> tuple[bool, str]:
    console = Console(file=StringIO(), width=200)
    return print_comparison(project, console), console.file.getvalue()


def test_a_study_that_is_not_published_yet_is_named_and_does_not_count(project: Path) -> None:
    equal, text = said(project)
    assert equal
    assert "compare: new: not published yet" in text
    assert "rows within tolerance 2 of 2, verdicts equal 1 of 1" in text


def test_a_row_that_is_off_and_a_verdict_that_turned_are_counted(project: Path, root: Path) -> None:
    tables.write_table(
        FRAME.assign(value=[1.0, 3.0]), "old", read_params(root / "params.yaml").model_anatomy
    )
    files.write_atomic(files.build("verdicts.csv"), b"claim,verdict\nX,refuted\n")
    equal, text = said(project)
    assert not equal
    assert "arm b, metric loss: 3, published 2" in text
    assert "rows within tolerance 1 of 2, verdicts equal 0 of 1" in text


def test_before_the_first_publication_there_is_nothing_to_compare(project: Path) -> None:
    (project / "results" / "laptop" / "verdicts.csv").unlink()
    assert said(project) == (True, "compare: nothing is published yet (farcontext publish)\n")
