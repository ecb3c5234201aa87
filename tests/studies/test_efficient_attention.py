"""Notebook 04's assertions hold on its own smoke run.

They fail on tables from which the effect was removed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from cells import run_assertion, smoke_params

from farcontext import files
from farcontext.measure import cost
from farcontext.results import tables, verdicts
from farcontext.results.claims import read_claims
from farcontext.studies.efficient_attention import plan, study
from farcontext.studies.efficient_attention.params import Params as EfficientAttention

SOUND, SLOPES, LONGEST = "ok: 64 MiB", "ok: memory grows", "ok: the longest row"
INTENSITY, CACHE, FORETOLD = "ok: written out", "ok: the KV cache", "ok: the median error"


class Smoke(NamedTuple):
    """What the smoke run left."""

    table: pd.DataFrame
    costs: pd.DataFrame


@pytest.fixture(scope="module")
def params(root: Path) -> EfficientAttention:
    return smoke_params(root, study.NAME, EfficientAttention)


@pytest.fixture(scope="module")
def smoke(params: EfficientAttention, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smoke]:
    """The smoke run, measured once, in a folder of its own."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Smoke(study.run(params), study.costs())


def assertion(root: Path, says: str, smoke: Smoke, params: EfficientAttention) -> None:
    """Run the notebook's own cell that prints `says`, on what the cells before it made."""
    table, costs = smoke
    parts = {
        "exact": table[table["part"] == "arithmetic"],
        "models": table[table["part"].isin(["cache", "break_even"])],
        "layers": costs[costs["part"] == "layer"],
    }
    run_assertion(
        root, study.NAME, says, table=table, costs=costs, study=study, params=params, **parts
    )


def changed(
    frame: pd.DataFrame, change: float, column: str = "value", **where: object
) -> pd.DataFrame:
    """Return the frame with another number in some rows.

    `where` selects the rows, of which there must be some.
    """
    hit = np.logical_and.reduce([frame[name] == wanted for name, wanted in where.items()])
    assert hit.any(), where
    return frame.assign(**{column: frame[column].astype(float).where(~hit, change)})


@pytest.mark.parametrize("says", [SOUND, SLOPES, LONGEST, INTENSITY, CACHE, FORETOLD])
def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: Smoke, params: EfficientAttention, says: str
) -> None:
    assertion(root, says, smoke, params)


@pytest.mark.parametrize(
    ("says", "value", "where"),
    [
        (SOUND, 1.1, {"metric": "known_allocation"}),
        (SOUND, 0.9, {"metric": "known_allocation"}),
        (SOUND, 1e-3, {"metric": "max_difference", "backend": "sdpa"}),
        (SLOPES, 1.0, {"metric": "memory_slope", "backend": "reference"}),
        (SLOPES, 1.9, {"metric": "memory_slope", "backend": "online"}),
        (SLOPES, 1.9, {"metric": "memory_slope", "backend": "sdpa"}),
        (INTENSITY, 100.0, {"metric": "intensity", "arm": "written out"}),
        (INTENSITY, 4.0, {"metric": "intensity", "arm": "fused"}),
        (CACHE, 17_179_869_185, {"metric": "kv_cache_bytes", "arm": "Llama-3.1-8B"}),
        (FORETOLD, 0.3, {"metric": "memory_error", "part": "training", "half": "held out"}),
        (FORETOLD, 0.3, {"metric": "memory_error", "part": "inference", "half": "held out"}),
    ],
)
def test_an_effect_removed_is_noticed(
    root: Path, smoke: Smoke, params: EfficientAttention, says: str, value: float, where: dict
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, says, smoke._replace(table=changed(smoke.table, value, **where)), params)


@pytest.mark.parametrize(
    ("column", "value", "where"),
    [("bytes", 2.0**31, {"part": "layer"}), ("length", 512, {"part": "layer"})],
)
def test_a_layer_too_large_or_too_short_is_noticed(
    root: Path, smoke: Smoke, params: EfficientAttention, column: str, value: float, where: dict
) -> None:
    with pytest.raises(AssertionError):
        assertion(
            root,
            LONGEST,
            smoke._replace(costs=changed(smoke.costs, value, column, **where)),
            params,
        )


def test_a_half_left_out_is_noticed(root: Path, smoke: Smoke, params: EfficientAttention) -> None:
    table = smoke.table[smoke.table["half"] != "fitted"]
    with pytest.raises(AssertionError):
        assertion(root, FORETOLD, smoke._replace(table=table), params)


def test_both_halves_hold_every_level_of_every_factor(params: EfficientAttention) -> None:
    grid = pd.DataFrame([label for label, _ in plan._grid(params)])
    for factor in ("arm", "length", "width", "layers", "part"):
        counts = grid.groupby([factor, "half"]).size().unstack()
        assert (counts["fitted"] - counts["held out"]).abs().max() <= 2, factor
    assert not grid.duplicated(["arm", "length", "width", "layers", "part"]).any()


def test_held_out_cells_do_not_enter_the_fit(params: EfficientAttention, smoke: Smoke) -> None:
    measured = smoke.costs.drop(columns=[c for c in smoke.costs if c.startswith("predicted")])
    _, fitted = study._with_predictions(params, measured.copy())
    wrong = changed(measured, 1e12, "bytes", part="training", half="held out")
    assert study._with_predictions(params, wrong)[1] == fitted
    wrong = changed(measured, 1e12, "bytes", part="training", half="fitted")
    assert study._with_predictions(params, wrong)[1] != fitted


def test_a_power_of_the_length_is_its_slope() -> None:
    T = np.array([512, 1024, 4096])
    assert study.slope(T, 3.0 * T**2) == pytest.approx(2)
    assert study.slope(T, 7.0 * T) == pytest.approx(1)


def test_claims_read_rows_that_are_there(root: Path, smoke: Smoke) -> None:
    claims = read_claims(root / "claims.yaml").claims
    two = pd.concat([smoke.table, smoke.table.assign(seed=smoke.table["seed"] + 1)])
    assert verdicts.judge("E1", claims["E1"], two).verdict == "supported"
    flat = changed(two, 1.0, metric="memory_slope", backend="reference")
    assert verdicts.judge("E1", claims["E1"], flat).verdict == "refuted"
    exact = smoke.table.assign(
        value=smoke.table["value"].where(smoke.table["metric"] != "memory_error", 0.1)
    )
    assert verdicts.judge("E2", claims["E2"], exact).verdict == "supported"
    off = exact.assign(value=exact["value"].where(exact["metric"] != "memory_error", 0.16))
    assert verdicts.judge("E2", claims["E2"], off).verdict == "refuted"


def test_seconds_and_bytes_stay_out_of_the_table(smoke: Smoke) -> None:
    assert set(smoke.table["part"]) == {
        "attention", "check", "arithmetic", "cache", "break_even", "training", "inference"
    }  # fmt: skip
    assert not {"bytes", "seconds"} & set(
        smoke.table[smoke.table["part"] != "arithmetic"]["metric"]
    )
    assert smoke.costs["seconds"].sum() > 0


def test_the_cost_model_of_a_run_answers_for_any_model(
    smoke: Smoke, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frame = cost.as_frame({("memory", "training"): {"weights": 1.0}})
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    tables.write_text(frame, study.NAME, cost.TABLE)
    assert study.coefficients() == cost.from_frame(frame)
    published = cost.as_frame({("memory", "training"): {"weights": 2.0}})
    text = published.to_csv(index=False)
    files.write_atomic(tables.path_in(tables.published_folder(), study.NAME, cost.TABLE), text)
    assert study.coefficients() == cost.from_frame(published) == cost.published()


def test_gpu_tables_are_named_or_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert study.gpu_lines(study.gpu_tables())[0].startswith("no GPU table is recorded yet")
    folder = tmp_path / "results" / "gpu-made-up"
    files.write_json(folder / "card.json", {"card": "Made Up 1", "date": "2026-01-02"})
    rows = (
        "backend,pattern,dtype,direction,length,tflop_per_s\n"
        "sdpa,causal,bfloat16,forward,4096,120\n"
    )
    files.write_atomic(
        folder / "attention.csv",
        rows + "sdpa,causal,bfloat16,forward,1024,90\nflex,full,bfloat16,forward,1024,\n",
    )
    (line,) = study.gpu_lines(study.gpu_tables())
    assert line == "Made Up 1, 2026-01-02, as recorded: sdpa 120 TFLOP/s (causal, 4096 tokens)"
