"""publish.py: what was made is held against what is published, study by study."""

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from observe import refuses
from rich.console import Console

from farcontext import files
from farcontext.app import publish
from farcontext.app.publish import print_comparison
from farcontext.results import tables, verdicts
from farcontext.studies.params import STUDIES, read_params

CLAIMS = """
exact: {model_anatomy: 0.1}
claims:
  X: &claim
    section: "1"
    words: x
    hypothesis: h
    study: model_anatomy
    decided_by: execution
    fixed: "2026-11-24"
    pilot: none
    literature: none
    range: here
    effects: [{name: gain, where: {metric: gain, arm: a}, at_least: 0.1}]
""".replace(" &claim", "")
TRAINED = (
    CLAIMS.partition("claims:\n")[2]
    .replace("X:", "Y:")
    .replace("model_anatomy", "recurrence")
    .replace("decided_by: execution", "decided_by: interval\n    rival: b")
)
EXACT = pd.DataFrame({"arm": ["a", "b"], "metric": "gain", "value": [1.0, 2.0]})
SEEDS = pd.DataFrame(
    {"arm": "a", "metric": "gain", "seed": range(5), "value": [0.5, 0.52, 0.48, 0.51, 0.49]}
)


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two studies that has published both."""
    (tmp_path / "dvc.yaml").write_text("", encoding="utf-8")
    (tmp_path / "claims.yaml").write_text(CLAIMS + TRAINED, encoding="utf-8")
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "profile", lambda: "laptop")
    make(tmp_path, EXACT, SEEDS)
    published = tmp_path / "results" / "laptop"
    for path in (tmp_path / "build" / "laptop").rglob("*.*"):
        name = path.relative_to(tmp_path / "build" / "laptop")
        if path.is_file():
            files.write_atomic(
                published / name.relative_to("studies")
                if "studies" in name.parts
                else published / name,
                path.read_bytes(),
            )
    return tmp_path


def make(project: Path, exact: pd.DataFrame, trained: pd.DataFrame) -> None:
    params = read_params(project / "params.yaml")
    tables.write_table(exact, "model_anatomy", params.model_anatomy)
    tables.write_table(trained, "recurrence", params.recurrence)
    publish.write_verdicts(project)


def said(project: Path) -> tuple[bool, str]:
    console = Console(file=StringIO(), width=400)
    return print_comparison(project, console), console.file.getvalue()


def test_the_same_tables_agree_and_unpublished_studies_are_named(project: Path) -> None:
    equal, text = said(project)
    assert equal
    assert "compare: translation: not published yet" in text
    assert "exact rows within tolerance 2 of 2; means over seeds within" in text
    assert "intervals 1 of 1, claims' estimates 1 of 1" in text
    assert "explain 0; verdicts equal 2 of 2" in text


def test_an_exact_row_that_is_off_and_a_verdict_that_turned_are_counted(project: Path) -> None:
    make(project, EXACT.assign(value=[0.0, 2.0]), SEEDS)
    equal, text = said(project)
    assert not equal
    assert "model_anatomy: moved: arm a, metric gain: 0, published 1" in text
    assert "within tolerance 1 of 2" in text and "verdicts equal 1 of 2" in text


def test_a_shift_that_turns_no_verdict_is_noticed(project: Path) -> None:
    make(project, EXACT, SEEDS.assign(value=SEEDS["value"] - 0.15))
    equal, text = said(project)
    assert not equal and "verdicts equal 2 of 2" in text
    assert "recurrence: moved: arm a, metric gain: 0.35, published 0.5" in text
    assert "claims: moved: Y: gain: 0.35, published 0.5" in text


def test_before_the_first_publication_there_is_nothing_to_compare(project: Path) -> None:
    (project / "results" / "laptop" / "verdicts.csv").unlink()
    assert said(project) == (True, "compare: nothing is published yet (farcontext publish)\n")


# --------------------------------------------------------------------------------------- freezing


def test_freezing_names_an_unknown_claim(project: Path) -> None:
    with refuses("claim = Z: expected one of X, Y"):
        publish.freeze(project, ["Z"], "first", same=False)


def test_a_table_whose_claim_was_not_frozen_is_not_published(project: Path) -> None:
    with refuses("Y: its everything changed since it was frozen"):
        publish._hold_frozen(project, project / "build" / "laptop" / "studies", ("recurrence",))
    publish.freeze(project, [], "first", same=False)
    publish._hold_frozen(project, project / "build" / "laptop" / "studies", ("recurrence",))
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace("heads: 2", "heads: 4", 1), encoding="utf-8")
    make(project, EXACT, SEEDS)
    with refuses("Y: its params changed since it was frozen"):
        publish._hold_frozen(project, project / "build" / "laptop" / "studies", ("recurrence",))


def test_what_is_said_to_be_the_same_must_have_the_published_rows(project: Path) -> None:
    publish.freeze(project, [], "first", same=False)
    make(project, EXACT, SEEDS.assign(value=SEEDS["value"] + 1e-6))
    with refuses("Y is not the same try"):
        publish.freeze(project, ["Y"], "a refactoring", same=True)
    make(project, EXACT, SEEDS)
    assert publish.freeze(project, ["Y"], "a refactoring", same=True) == [
        "Y: frozen already, as try 1"
    ]
    text = (project / "claims.yaml").read_text(encoding="utf-8")
    turned = text.replace("at_least: 0.1", "at_least: 0.9")
    (project / "claims.yaml").write_text(turned, encoding="utf-8")
    with refuses("Y: refuted, 0.5"):
        publish.freeze(project, ["Y"], "only a word", same=True)


def test_every_study_has_its_table_held(project: Path) -> None:
    """Nothing is left out: the real list is used where none is given."""
    with refuses("attention_derivation.json: expected a file here"):
        publish._hold_frozen(project, project / "build" / "laptop" / "studies", tuple(STUDIES))


def test_another_profile_is_recorded_with_its_card_once_it_was_frozen(
    project: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "profiles").mkdir()
    (project / "profiles" / "night.yaml").write_text("profile: night\n", encoding="utf-8")
    monkeypatch.setattr(files, "profile", lambda: "night")
    monkeypatch.setattr(publish, "STUDIES", ("model_anatomy", "recurrence"))
    params = read_params(project / "params.yaml")
    cost = pd.DataFrame({"seconds": [60.0, 30.0]})
    tables.write_table(EXACT, "model_anatomy", params.model_anatomy)
    tables.write_table(SEEDS, "recurrence", params.recurrence, cost)
    for name in ("verdicts.csv", "effects.csv"):
        there = project / "build" / "laptop" / name
        files.write_atomic(project / "build" / "night" / name, there.read_bytes())
    publish.freeze(project, [], "first", same=False)  # The laptop's lock is not the night's.
    with refuses("its everything changed since it was frozen"):
        publish.record(project, "night")
    assert not (project / "results" / "night").exists()
    publish.freeze(project, [], "first", same=False, profile="night")
    assert (project / "profiles" / "night.lock").is_file()
    publish.record(project, "night")
    assert files.read_json(project / "results" / "night" / "verdicts.json")["core_minutes"] == 1.5
    assert verdicts.recorded("night")["Y"] == ("supported", "0.5 [0.48, 0.52]")
    assert verdicts.recorded("nowhere") == {}
