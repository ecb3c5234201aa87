"""Notebook 06's assertions hold on its own smoke run.

They fail on tables from which the effect was removed.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext.results import tables
from farcontext.studies.depth_width import divergence, study, trainings, tuning
from farcontext.studies.depth_width.params import Params as DepthWidth
from farcontext.train.loop import build_model


@pytest.fixture(scope="module")
def params(root: Path) -> DepthWidth:
    return smoke_params(root, study.NAME, DepthWidth)


@pytest.fixture
def table(params: DepthWidth, root: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 06 itself asks for."""
    monkeypatch.chdir(root)
    return study.run(params)


def assertion(root: Path, says: str, table: pd.DataFrame, params: DepthWidth) -> None:
    """Run the notebook's own cell that prints `says`."""
    run_assertion(root, study.NAME, says, table=table, study=study, params=params, results=tables)


SAYS = (
    "ok: every cell recalls",
    "ok: trained on longer",
    "ok: influence ends",
    "ok: the sweep spans",
)


def test_assertions_hold_on_the_smoke_run(
    root: Path, table: pd.DataFrame, params: DepthWidth
) -> None:
    for says in SAYS:
        assertion(root, says, table, params)


@pytest.mark.parametrize(
    ("says", "metric", "value"),
    [(SAYS[0], "recall", 1 / 32), (SAYS[1], "effective_length", 64.0), (SAYS[2], "influence", 1e-9)]
    + [(SAYS[3], "diverged", value) for value in (0.0, 1.0)],
    ids=[
        "nothing learned",
        "one length for all",
        "influence everywhere",
        "no run diverges",
        "every run diverges",
    ],
)
def test_a_missing_effect_is_noticed(
    root: Path, table: pd.DataFrame, params: DepthWidth, says: str, metric: str, value: float
) -> None:
    planted = table.assign(value=table["value"].where(table["metric"] != metric, value))
    with pytest.raises(AssertionError):
        assertion(root, says, planted, params)


def test_influence_that_stops_too_early_is_noticed(
    root: Path, table: pd.DataFrame, params: DepthWidth
) -> None:
    with pytest.raises(AssertionError):
        assertion(
            root,
            SAYS[2],
            table.assign(value=table["value"].where(table["distance"] != params.local_window, 0)),
            params,
        )


@pytest.mark.parametrize("smear", [False, True])
def test_influence_reaches_as_far_as_the_window_says_and_no_further(smear: bool) -> None:
    torch.manual_seed(0)
    config = trainings._model(3, 32, 64, window=5, global_every=0).model_copy(
        update={"smear": smear}
    )
    rows = study.influence(build_model(config).eval(), length=64, rows=4)
    reached = max(row["distance"] for row in rows if row["influence"] > 0)
    # a fresh smearing parameter is 0 and sigmoid(0) = ½, so that a key's neighbour counts
    assert reached == 3 * (5 if smear else 4)


def grid(exponents: dict[str, float], noise: float = 0.0) -> pd.DataFrame:
    """Cells whose effective length follows a power law."""
    rng, rows = np.random.default_rng(1), []
    for seed in range(8):
        for layers, width in ((1, 64), (2, 64), (4, 64), (2, 32), (2, 128)):
            for window in (64, 128):
                cell = {"layers": layers, "width": width, "window": window}
                log = sum(power * math.log2(cell[name]) for name, power in exponents.items())
                value = 2 ** (log + noise * rng.standard_normal())
                rows += [
                    cell
                    | {"seed": seed, "metric": "effective_length", "value": value, "length": np.nan}
                ]
                rows += [cell | {"seed": seed, "metric": "recall", "value": 0.97, "length": window}]
    return pd.DataFrame(rows)


def explained(frame: pd.DataFrame, arm: str, metric: str = "partial_r2") -> float:
    rows = pd.DataFrame(study._explained(frame))
    return rows[(rows["arm"] == arm) & (rows["metric"] == metric)]["value"].mean()


def test_what_decides_the_effective_length_is_found() -> None:
    article = grid({"layers": 1, "width": 1}, noise=0.1)
    trained = grid({"window": 1}, noise=0.1)
    assert explained(article, "depth and width") > 0.9
    assert explained(article, "trained length") < 0.5
    assert explained(trained, "trained length") > 0.9
    assert abs(explained(trained, "depth and width")) < 0.25


def test_a_share_has_no_sign_but_the_slopes_have() -> None:
    shorter = pd.DataFrame(study._explained(grid({"layers": -0.5, "width": 0.2, "window": 1})))
    slopes = shorter.groupby("metric")["value"].mean()
    assert slopes["depth_slope"] == pytest.approx(-0.5)
    assert slopes["width_slope"] == pytest.approx(0.2)
    assert slopes["window_slope"] == pytest.approx(1.0)
    assert explained(grid({"layers": -0.5, "window": 1}, noise=0.01), "depth and width") > 0.9


def test_noise_alone_has_a_raw_share_that_shuffled_labels_show() -> None:
    trained = grid({"window": 1}, noise=0.1)
    chance = explained(trained, "depth and width", "chance_partial_r2")
    assert chance == pytest.approx(2 / (10 - 1 - 1), abs=0.08)
    assert explained(trained, "depth and width", "raw_partial_r2") == pytest.approx(chance, abs=0.2)


def test_the_worst_cell_is_what_the_check_reads() -> None:
    frame = grid({"window": 1})
    frame.loc[frame.index[1], "value"] = 0.2
    rows = pd.DataFrame(study._explained(frame))
    worst = rows[rows["metric"] == "worst_trained_recall"].set_index("seed")["value"]
    assert worst[0] == 0.2 and (worst[1:] == 0.97).all()


@pytest.mark.parametrize(
    ("losses", "norms", "wanted"),
    [
        ([4.0, 3.0, 2.0], [1.0] * 3, False),
        ([4.0, 5.0, 6.0], [1.0] * 3, True),
        ([4.0, math.nan], [1.0, 1.0], True),
        ([4.0, 3.0], [1.0, math.inf], True),
        ([4.0] + [9.0] * 5 + [3.0] * 5, [1.0] * 11, False),  # a spike that passes
    ],
    ids=["falls", "rises", "loss not finite", "gradient not finite", "spike"],
)
def test_divergence_is_what_was_defined(
    losses: list[float], norms: list[float], wanted: bool
) -> None:
    assert divergence.diverged(losses, norms) is wanted


def test_plain_sgd_learns_at_a_small_rate_and_diverges_at_a_large_one() -> None:
    same = {"length": 32, "rows": 8, "steps": 8, "seed": 0}
    (calm,), (wild,) = divergence.plain_sgd(lr=1.0, **same), divergence.plain_sgd(lr=300.0, **same)
    assert (calm["diverged"], wild["diverged"]) == (0.0, 1.0)
    assert calm["dispersion"] < wild["dispersion"]


def test_the_horizon_holds_nine_tenths() -> None:
    assert study.horizon([0.1] * 10) == pytest.approx(9.0)
    assert study.horizon([1.0, 0.0, 0.0]) == pytest.approx(0.9)


def test_tested_lengths_double_from_half_the_trained_one_to_the_furthest(
    params: DepthWidth,
) -> None:
    assert study.lengths_of(params, 64) == [64 // 2 * 2**power for power in range(5)]


def test_tuning_takes_the_best_rate_of_each_cell(
    params: DepthWidth, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    tuned = params.model_copy(
        update={
            "tuning_rates": (1e-6, 0.008),
            "tuning_seeds": (2,),
            "rates": {"1x32": 0.5},
            "windows": (32,),
        }
    )
    table = tuning.tune(tuned)
    assert set(table["lr"]) == {1e-6, 0.008}
    assert tuning.choices(table) == {"rates": {"1x32": 0.008}}
