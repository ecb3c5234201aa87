"""Notebook 02's assertions hold on its own smoke run.

They fail on tables from which the effect was removed.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cells import run_assertion, smoke_params

from farcontext.app.profiles import params_of
from farcontext.results import tables, verdicts
from farcontext.results.claims import read_claims
from farcontext.schema import read_yaml, validate
from farcontext.studies.recurrence import arms, study, tuning
from farcontext.studies.recurrence.params import Params as Recurrence

EQUAL, VANISHES = "ok: the arms of a task", "ok: the gradient vanishes"
LEARNS, KEEPS = "ok: the oracle recalls", "ok: LSTM and GRU keep"


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Recurrence:
    return smoke_params(root, study.NAME, Recurrence)


@pytest.fixture(scope="module")
def smoke(params: Recurrence, root: Path) -> Iterator[pd.DataFrame]:
    """The smoke run; trained once a session, and what notebook 02 itself asks for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield study.run(params)


def assertion(root: Path, says: str, table: pd.DataFrame, params: Recurrence) -> None:
    """Run the notebook's own cell that prints `says`."""
    sizes = table[table["metric"].isin(["parameters", "state_numbers"])]
    run_assertion(
        root, study.NAME, says, table=table, study=study, params=params, results=tables, sizes=sizes
    )


def changed(table: pd.DataFrame, value: float, **where: object) -> pd.DataFrame:
    """Return the table with another value in some rows.

    `where` selects the rows, of which there must be some.
    """
    hit = np.logical_and.reduce([table[column] == wanted for column, wanted in where.items()])
    assert hit.any(), where
    return table.assign(value=table["value"].where(~hit, value))


@pytest.mark.parametrize("says", [EQUAL, VANISHES, LEARNS, KEEPS])
def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: Recurrence, says: str
) -> None:
    assertion(root, says, smoke, params)


@pytest.mark.parametrize(
    ("says", "value", "where"),
    [
        (EQUAL, 40_000.0, {"metric": "parameters", "task": "recall", "arm": "lstm"}),
        (
            VANISHES,
            -0.001,
            {"metric": "log_slope", "task": "flip_flop", "arm": "rnn", "when": "trained"},
        ),
        (
            VANISHES,
            -0.3,
            {"metric": "log_slope", "task": "flip_flop", "arm": "attention", "when": "trained"},
        ),
        (
            VANISHES,
            -0.3,
            {"metric": "log_slope", "task": "flip_flop", "arm": "attention", "when": "start"},
        ),
        (LEARNS, 1 / 32, {"metric": "accuracy", "arm": "lstm"}),
        (LEARNS, 4.5, {"metric": "loss", "task": "recall", "arm": "attention"}),
        (LEARNS, 0.9, {"metric": "oracle_accuracy"}),
        (KEEPS, 0.5, {"metric": "error", "arm": "gru"}),
        (KEEPS, 0.0, {"metric": "error", "arm": "attention"}),
    ],
)
def test_an_effect_that_is_not_there_is_noticed(
    root: Path, smoke: pd.DataFrame, params: Recurrence, says: str, value: float, where: dict
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, says, changed(smoke, value, **where), params)


def test_the_verdicts_find_their_rows_and_a_failed_check_is_no_refutation(
    root: Path, smoke: pd.DataFrame
) -> None:
    claims = read_claims(root / "claims.yaml").claims
    far = smoke[smoke["metric"] == "accuracy"]["distance"].max()
    two = pd.concat([smoke, smoke.assign(seed=smoke["seed"] + 1)])
    # the smoke run tests no further than its short rows
    two["distance"] = two["distance"].replace(far, 256)
    learned = changed(changed(two, 0.97, metric="accuracy"), 0.0, metric="error", length=64)
    assert verdicts.judge("R2", claims["R2"], learned).verdict == "undecided (no headroom)"
    level = changed(learned, 0.75, metric="accuracy", distance=256)
    assert verdicts.judge("R2", claims["R2"], level).verdict == "refuted"
    better = changed(learned, 0.6, metric="accuracy", arm="lstm", distance=256)
    assert verdicts.judge("R2", claims["R2"], better).verdict == "supported"
    guessing = changed(better, 0.6, metric="accuracy", arm="lstm")
    assert verdicts.judge("R2", claims["R2"], guessing).verdict == "undecided (check failed)"
    level = changed(learned, 0.002, metric="log_slope", when="trained")
    assert verdicts.judge("R1", claims["R1"], level).verdict == "refuted"
    vanishing = changed(level, -0.2, metric="log_slope", arm="rnn", when="trained")
    assert verdicts.judge("R1", claims["R1"], vanishing).verdict == "supported"
    unlearned = changed(vanishing, 0.5, metric="error", arm="rnn")
    assert verdicts.judge("R1", claims["R1"], unlearned).verdict == "undecided (check failed)"


@pytest.mark.parametrize("profile", ["laptop", "gpu", "smoke"])
def test_every_profile_has_arms_of_equal_size_and_room_for_its_distances(
    root: Path, profile: str
) -> None:
    params = params_of(root, profile).recurrence
    for task, rates in (("recall", params.recall_rates), ("flip_flop", params.flip_flop_rates)):
        wanted = params.recall_parameters if task == "recall" else params.flip_flop_parameters
        for arm in rates:
            count = arms.parameter_count(arms.model_of(params, task, arm))
            assert abs(count / wanted - 1) < 0.03, (task, arm, count)
    assert all(0 <= study.depth_of(params, distance) <= 1 for distance in params.distances)
    assert max(study.gradient_distances(params)[0]) < params.gradient_length
    assert not set(params.tuning_seeds) & set(params.seeds)


def test_a_distance_is_what_it_says() -> None:
    """`distance` tokens stand between the pairs and the questions.

    There is room for nothing but the pairs.
    """
    values = read_yaml(Path(__file__).parents[2] / "params.yaml")["recurrence"]
    params = validate(Recurrence, values | {"span": 2 * values["pairs"]}, "test")
    length, pairs = params.recall_lengths[-1], params.pairs
    for distance in params.distances:
        rng = np.random.default_rng(0)
        depth = study.depth_of(params, distance)
        tokens, scored = study.recall.recall(
            rng, 3, length, pairs=pairs, span=params.span, depth=depth
        )
        told = np.flatnonzero(tokens[0] < study.recall.KEYS + study.recall.VALUES)
        gap = told[2 * pairs] - told[2 * pairs - 1] - 1
        assert gap == distance
        assert scored[0].sum() == pairs
    with pytest.raises(ValueError, match="distance = 400"):
        study.depth_of(params, 400)


def test_kept_numbers_of_attention_grow_with_the_row_and_a_state_does_not(
    params: Recurrence,
) -> None:
    attention, lstm = (arms.model_of(params, "recall", arm) for arm in ("attention", "lstm"))
    assert (
        arms.state_numbers(attention, 10)
        == 10 * 2 * params.attention_layers * params.attention_width
    )
    assert arms.state_numbers(lstm, 10) == arms.state_numbers(lstm, 1000) == 2 * lstm.mlp_width


def test_the_slope_leaves_out_what_fp64_cannot_hold() -> None:
    line = {d: -2.0 * d for d in range(8, 500, 8)}
    assert study.slope_of(line) == pytest.approx(-2)
    assert study.slope_of(line | {496: -math.inf, 488: -math.inf}) == pytest.approx(-2)
    assert math.isnan(study.slope_of({8: -1.0, 16: -math.inf}))


def test_the_crossover_is_where_attention_leads_by_twenty_points() -> None:
    rows = [
        {
            "run": "this run",
            "seed": seed,
            "arm": arm,
            "distance": d,
            "metric": "accuracy",
            "value": value,
        }
        for seed, lstm in ((0, (1.0, 0.9, 0.7)), (1, (1.0, 1.0, 0.9)))
        for arm, curve in (("attention", (1.0, 1.0, 1.0)), ("lstm", lstm))
        for d, value in zip((16, 64, 256), curve, strict=True)
    ]
    found = study.crossover(pd.DataFrame(rows))
    # halfway between 10 and 30 points, on log distance
    assert found["this run", 0] == pytest.approx(128)
    assert math.isinf(found["this run", 1])


def test_tuning_takes_the_rate_of_the_least_loss_and_keeps_its_seeds_apart(
    params: Recurrence, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    small = {
        "flip_flop_steps": 30,
        "flip_flop_rows": 8,
        "recall_rates": {},
        "flip_flop_rates": {"lstm": 0.5},
    }
    tried = params.model_copy(update=small | {"tuning_rates": (1e-6, 0.02), "tuning_seeds": (0, 1)})
    table = tuning.tune(tried)
    assert set(zip(table["seed"], table["lr"], strict=True)) == {
        (s, r) for s in (0, 1) for r in (1e-6, 0.02)
    }
    assert tuning.choices(table) == {"recall_rates": {}, "flip_flop_rates": {"lstm": 0.02}}
