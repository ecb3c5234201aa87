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

from farcontext.app.profiles import params_of
from farcontext.results import verdicts
from farcontext.results.claims import read_claims
from farcontext.studies.depth_width import (
    protocol,
    reading,
    stability,
    study,
    trainings,
    tuning,
)
from farcontext.studies.depth_width.params import Params as DepthWidth
from farcontext.train.loop import build_model


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> DepthWidth:
    return smoke_params(root, study.NAME, DepthWidth)


@pytest.fixture
def table(params: DepthWidth, root: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 06 itself asks for."""
    monkeypatch.chdir(root)
    return study.run(params)


def assertion(root: Path, says: str, table: pd.DataFrame, params: DepthWidth) -> None:
    """Run the notebook's own cell that prints `says`."""
    by = ["layers", "width", "window"]
    known = {"table": table, "study": study, "params": params, "by": by, "trainings": trainings}
    run_assertion(root, study.NAME, says, **known)


SAYS = (
    "ok: every shape recalls",
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
    [
        (SAYS[0], "trained_recall", 1 / 32),
        (SAYS[1], "effective_length", 64.0),
        (SAYS[2], "influence", 1e-9),
    ]
    + [(SAYS[3], "diverged", value) for value in (0.0, 1.0)]
    + [(SAYS[3], "learned", 0.0)],
    ids=[
        "nothing learned",
        "one length for all",
        "influence everywhere",
        "no run diverges",
        "every run diverges",
        "AdamW learns nothing",
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
    config = protocol.decoder(3, 32, 64, 97, window=5, global_every=0).model_copy(
        update={"smear": smear}
    )
    rows = protocol.influence(build_model(config).eval(), length=64, rows=4, items=0)
    reached = max(row["distance"] for row in rows if row["influence"] > 0)
    # a fresh smearing parameter is 0 and sigmoid(0) = ½, so that a key's neighbour counts
    assert reached == 3 * (5 if smear else 4)


def grid(exponents: dict[str, float], noise: float = 0.0) -> pd.DataFrame:
    """Seven shapes whose effective length follows a power law, and what the checks read."""
    rng, rows = np.random.default_rng(1), []
    for seed in range(8):
        for shape in SHAPES:
            cell = {"arm": "grid", "seed": seed} | shape._asdict()
            log = sum(power * math.log2(cell[name]) for name, power in exponents.items())
            value = 2 ** (log + noise * rng.standard_normal())
            rows.append(cell | {"metric": "effective_length", "value": value})
            rows.append(cell | {"metric": "trained_recall", "value": 0.99})
    return pd.DataFrame(rows)


SHAPES = [trainings.Shape(2, 64, 128)]
SHAPES += [trainings.Shape(layers, 64, 128) for layers in (1, 4)]
SHAPES += [trainings.Shape(2, width, 128) for width in (32, 128)]
SHAPES += [trainings.Shape(2, 64, window) for window in (64, 256)]


def judged(root: Path, claim: str, table: pd.DataFrame) -> str:
    return verdicts.judge(claim, read_claims(root / "claims.yaml").claims[claim], table).verdict


def with_slopes(found: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([found, pd.DataFrame(study.slopes(found))])


def test_shapes_differ_from_the_middle_one_in_one_thing(root: Path) -> None:
    params = params_of(root, "laptop").depth_width
    assert trainings.shapes(params) == SHAPES
    for shape in SHAPES:
        (long,) = trainings.grid_run(params, shape, lr=0.01, seed=0).batch.stages[1:]
        assert long.rows * long.length == params.step_tokens


def test_three_slopes_are_found() -> None:
    found = study.slopes(grid({"layers": -0.5, "width": 0.2, "window": 1.0}))
    mean = pd.DataFrame(found).groupby("metric")["value"].mean()
    assert mean.to_dict() == pytest.approx(
        {"depth_slope": -0.5, "width_slope": 0.2, "window_slope": 1.0}
    )


@pytest.mark.parametrize(
    ("exponents", "wanted"),
    [
        ({"layers": 1, "width": 1}, "supported"),
        ({"window": 1}, "refuted"),
        ({"layers": 1, "window": 1}, "refuted"),
        ({"layers": 0.5, "width": 0.5}, "undecided"),
    ],
    ids=["the formula", "the trained length", "depth alone", "on the threshold"],
)
def test_w1_follows_what_is_planted(root: Path, exponents: dict[str, float], wanted: str) -> None:
    assert judged(root, "W1", with_slopes(grid(exponents, noise=0.1))) == wanted


def test_a_shape_that_has_not_learned_decides_nothing(root: Path) -> None:
    table = with_slopes(grid({"layers": 1, "width": 1}, noise=0.1))
    last = (table["window"] == 256) & (table["metric"] == "trained_recall")
    floor = table.assign(value=table["value"].where(~last, 0.9))
    assert judged(root, "W1", floor) == "undecided (check failed)"


def test_a_length_is_read_within_those_tested() -> None:
    shape = trainings.Shape(2, 64, 64)
    assert study.reached(shape, {32: 1.0, 64: 1.0, 128: 0.9}) == 128
    assert study.reached(shape, {32: 0.2, 64: 1.0, 128: 1.0}) == 32
    assert study.reached(shape, {32: 1.0, 64: 1.0, 256: 0.712}) == pytest.approx(128)


def test_slopes_stand_beside_the_formula() -> None:
    read = reading.against_formula(with_slopes(grid({"window": 1}, noise=0.05)))
    assert read["can be 0"].to_dict() == {"depth": True, "width": True, "trained length": False}
    assert not read["can be the formula"].any()
    assert read.loc["trained length", "doubling it gives"] == pytest.approx(2, abs=0.2)


# -------------------------------------------------------------------------------- G1: stability


def regimes(**trend: float) -> pd.DataFrame:
    """Rows of G1: each regime's trend by seed, and room for it."""
    rows = []
    for seed in range(5):
        for arm in REGIMES:
            value = trend.get(arm, 0.05) + 0.001 * (seed - 2)
            rows.append({"arm": arm, "seed": seed, "metric": "trend", "value": value})
            rows.append({"arm": arm, "seed": seed, "metric": "room", "value": 0.3 + 0.001 * seed})
    return pd.DataFrame(rows)


REGIMES = tuple(
    f"{regime}, {budget}" for regime in ("SGD", "AdamW") for budget in trainings.BUDGETS
)


def test_g1_asks_for_one_sign_in_both_regimes_and_at_both_budgets(root: Path) -> None:
    steadier = dict.fromkeys(REGIMES, -0.05)
    assert judged(root, "G1", regimes()) == "refuted"
    assert judged(root, "G1", regimes(**steadier)) == "supported"
    for arm in REGIMES:  # One sign of four that turns is enough.
        turned = regimes(**(steadier | {arm: 0.05}))
        assert judged(root, "G1", turned) == "undecided (choices disagree)"
    flat = regimes(**(steadier | {REGIMES[0]: 0.0}))
    assert judged(root, "G1", flat) == "undecided (choices disagree)"


def test_a_regime_without_room_decides_nothing(root: Path) -> None:
    table = regimes()
    full = table["metric"] == "room"
    assert judged(root, "G1", table.assign(value=table["value"].where(~full, 0.0))) == (
        "undecided (check failed)"
    )


def test_trends_and_room_are_what_they_say() -> None:
    rows = []
    for seed in (0, 1):
        for length, share, spread in ((64, 0.2, 0.1), (128, 0.4, 0.2), (256, 0.6, 0.3)):
            at = {"seed": seed, "length": length}
            rows.append(at | {"arm": "SGD, x", "metric": "diverged", "value": share})
            rows.append(at | {"arm": "AdamW, x", "metric": "spread", "value": -spread})
            rows.append(at | {"arm": "AdamW, x", "metric": "learned", "value": spread})
    found = pd.DataFrame(stability.trends(pd.DataFrame(rows)))
    mean = found.groupby(["arm", "metric"])["value"].mean().to_dict()
    assert mean == pytest.approx(
        {
            ("SGD, x", "trend"): 0.2,
            ("AdamW, x", "trend"): -0.1,
            ("SGD, x", "room"): 0.4,
            ("AdamW, x", "room"): 0.1,
        }
    )
    read = reading.trends(found)["longer rows are"].to_dict()
    assert read == {"SGD, x": "less steady", "AdamW, x": "steadier"}


def test_spread_forgets_the_slow_course_of_a_training() -> None:
    assert stability.spread([2.0**-n for n in range(20)]) == pytest.approx(0, abs=1e-12)
    assert stability.spread([1.0, 2.0] * 10) == pytest.approx(math.log(2), rel=0.01)


def test_a_spike_is_a_jump_by_a_tenth() -> None:
    assert protocol.spikes([4.0, 4.3, 4.8, 3.0, 3.2]) == 0.25
    assert protocol.spikes([4.0]) == 0


def test_budgets_meet_at_the_longest_rows(root: Path) -> None:
    params = params_of(root, "laptop").depth_width
    rows = {
        budget: [trainings.rows_of(params, budget, length) for length in params.stable_lengths]
        for budget in trainings.BUDGETS
    }
    assert rows == {"equal tokens": [16, 8, 4, 2], "equal sequences": [2, 2, 2, 2]}


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
    assert protocol.diverged(losses, norms) is wanted


def test_plain_sgd_learns_at_a_small_rate_and_diverges_at_a_large_one(
    tokenizer_folder: Path,
) -> None:
    same = {"domain": "manuals", "length": 32, "rows": 8, "steps": 8, "seed": 0}
    (calm,), (wild,) = protocol.plain_sgd(lr=1.0, **same), protocol.plain_sgd(lr=300.0, **same)
    assert (calm["diverged"], wild["diverged"]) == (0.0, 1.0)


def test_the_horizon_holds_nine_tenths() -> None:
    assert study.horizon([0.1] * 10) == pytest.approx(9.0)
    assert study.horizon([1.0, 0.0, 0.0]) == pytest.approx(0.9)


def test_tested_lengths_double_from_half_the_trained_one_to_the_furthest(
    params: DepthWidth,
) -> None:
    assert study.lengths_of(params, 64) == [64 // 2 * 2**power for power in range(5)]


def test_tuning_takes_one_rate_for_all_shapes_and_one_a_length(
    params: DepthWidth, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    small = {"layers": (1,), "widths": (32,), "windows": (32,), "stable_lengths": (32,)}
    small |= {"tuning_rates": (1e-6, 0.008), "adamw_tuning_rates": (1e-6, 0.02)}
    table = tuning.tune(params.model_copy(update=small | {"tuning_seeds": (2,)}))
    assert table.groupby("arm")["lr"].nunique().eq(2).all()
    adamw = {"equal tokens": [0.02], "equal sequences": [0.02]}
    assert tuning.choices(table) == {"rate": 0.008, "adamw_rates": adamw}
