"""What was chosen stands in params.yaml as the recorded trials chose it."""

from pathlib import Path

import pandas as pd
import pytest
from observe import refuses

from farcontext import files
from farcontext.app import tuning
from farcontext.studies.params import STUDIES, read_params

RECORDED = sorted(
    path.stem for path in (Path(__file__).parents[2] / "results" / "tuning").glob("*.csv")
)


@pytest.mark.parametrize("study", RECORDED)
def test_params_hold_what_the_recorded_trials_chose(root: Path, study: str) -> None:
    section = getattr(read_params(root / "params.yaml"), study).model_dump(mode="json")
    table = pd.read_csv(root / "results" / "tuning" / f"{study}.csv")
    for key, value in tuning.module(study).choices(table).items():
        assert section[key] == value, key


@pytest.mark.parametrize("study", RECORDED)
def test_trials_have_seeds_of_their_own(root: Path, study: str) -> None:
    section = getattr(read_params(root / "params.yaml"), study)
    table = pd.read_csv(root / "results" / "tuning" / f"{study}.csv")
    assert set(table["seed"]) == set(section.tuning_seeds)
    assert not set(section.tuning_seeds) & set(section.seeds)
    config = files.read_json(root / "results" / "tuning" / f"{study}.json")["config"]
    # Neither the trials nor their scores depend on these, nor on what they chose.
    free = {"seeds", "flip_flop_seeds", *tuning.module(study).choices(table)}
    now = section.model_dump(mode="json")
    # A parameter that only measures another table changes no trial; the study's own test holds it.
    free |= {key for key in now if key.startswith(getattr(tuning.module(study), "UNREAD", ()))}
    differ = {key for key in now if now[key] != config.get(key)} - free
    assert not differ, "the trials were made with other parameters"


def test_no_run_chooses(root: Path) -> None:
    """Only `tuning` modules may use the tuner, and no study imports one."""
    for path in (root / "src" / "farcontext" / "studies").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name not in ("tuning.py", "trainings.py"):
            assert "best_rates" not in text and "import tuning" not in text, path


def test_a_study_that_leaves_nothing_to_choose_is_one_line(root: Path) -> None:
    assert "translation" in STUDIES
    with refuses("study = translation: expected one that tunes: recurrence"):
        tuning.module("translation")


def test_nothing_to_try_is_one_line(root: Path, tmp_path: Path) -> None:
    with refuses("params.yaml: depth_width: tuning_rates = []: expected at least one rate"):
        params = read_params(root / "params.yaml")
        section = params.depth_width.model_copy(update={"tuning_rates": ()})
        tuning.tune(tmp_path, "depth_width", params.model_copy(update={"depth_width": section}))
    assert not list(tmp_path.iterdir())
