"""Notebook 02's assertions hold on its own smoke run.

They fail on tables from which the effect was removed.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext.app.profiles import params_of
from farcontext.results import effects, verdicts
from farcontext.results.claims import read_claims
from farcontext.schema import read_yaml, validate
from farcontext.studies.recurrence import arms, protocol, reading, study, tuning
from farcontext.studies.recurrence.params import Params as Recurrence
from farcontext.tasks import recall

EQUAL, VANISHES = "ok: one LSTM has", "ok: the gradient vanishes"
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
    run_assertion(root, study.NAME, says, table=table, study=study, params=params, recall=recall)


def changed(table: pd.DataFrame, value: float, **where: object) -> pd.DataFrame:
    """Return the table with another value in some rows.

    `where` selects the rows, of which there must be some.
    """
    hit = np.logical_and.reduce([table[column] == wanted for column, wanted in where.items()])
    assert hit.any(), where
    return table.assign(value=table["value"].where(~hit, value))


@pytest.mark.parametrize("says", [VANISHES, LEARNS, KEEPS])
def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: Recurrence, says: str
) -> None:
    assertion(root, says, smoke, params)


@pytest.mark.parametrize(
    ("says", "value", "where"),
    [
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
        (LEARNS, 1 / 32, {"metric": "accuracy", "arm": "attention"}),
        (LEARNS, 4.5, {"metric": "loss", "task": "recall", "arm": "attention"}),
        (LEARNS, 0.9, {"metric": "oracle_accuracy"}),
        (LEARNS, 0.5, {"metric": "foreign_accuracy", "arm": "lstm"}),
        (KEEPS, 0.5, {"metric": "error", "arm": "gru"}),
        (KEEPS, 0.0, {"metric": "error", "arm": "attention"}),
    ],
)
def test_an_effect_that_is_not_there_is_noticed(
    root: Path, smoke: pd.DataFrame, params: Recurrence, says: str, value: float, where: dict
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, says, changed(smoke, value, **where), params)


def test_what_is_called_equal_is_equal(root: Path, params: Recurrence) -> None:
    """Without its own size, an arm is not what the page's table calls it."""
    names = ("attention", "LSTM, equal state", "LSTM, equal parameters", "LSTM, half that state")
    sizes = pd.DataFrame(
        [(20_000, 256, 1792), (90_000, 256, 256), (20_100, 116, 116), (8_000, 58, 58)],
        index=names,
        columns=["parameters", "kept of 4 pairs", "kept of a whole row"],
    )
    run_assertion(root, study.NAME, EQUAL, here=sizes)
    for column, place in (("parameters", 2), ("kept of 4 pairs", 1)):
        other = sizes.copy()
        other.loc[names[place], column] *= 2
        with pytest.raises(AssertionError):
            run_assertion(root, study.NAME, EQUAL, here=other)


def told(seeds: int = 5, **planted: float) -> pd.DataFrame:
    """Rows of all that R1 and R2 read, as they would be if the pilots were right.

    planted: the slope of the gradient by arm; `a_pair` and `a_distance`, what the LSTMs lose with
    each doubling; `nearby`, their recall of two pairs; `foreign`, recall of what was never told.
    """
    slopes = {"rnn": -0.2, "lstm": 0.001, "gru": 0.001, "attention": 0.002}
    slopes = {arm: planted.get(arm, slope) for arm, slope in slopes.items()}
    rows = []
    for seed in range(seeds):
        noise, at = 0.001 * (seed - 2), {"seed": seed}
        for arm, slope in slopes.items():
            row = at | {
                "arm": arm,
                "metric": "log_slope",
                "when": "trained",
                "value": slope + noise,
            }
            rows += [row | {"task": task} for task in ("flip_flop", "recall")]
            right = {"metric": "error", "length": 64, "ignores": 0.8, "value": 0.0}
            rows.append(at | {"task": "flip_flop", "arm": arm} | right)
        for arm in ("attention", "lstm", "lstm_state"):
            for pairs, distance in itertools.product((2, 4, 8, 16), (16, 64, 256)):
                value = planted.get("nearby", 0.95) + noise
                value -= planted.get("a_pair", 0.2) * (math.log2(pairs) - 1)
                value -= planted.get("a_distance", 0.0) * (math.log2(distance) - 4)
                value = 0.99 if arm == "attention" else value
                row = at | {"task": "recall", "arm": arm, "pairs": pairs, "distance": distance}
                rows.append(row | {"metric": "accuracy", "value": value})
            foreign = {"metric": "foreign_accuracy", "value": planted.get("foreign", 0.03)}
            rows.append(at | {"task": "recall", "arm": arm} | foreign)
        rows.append(at | {"task": "recall", "metric": "oracle_accuracy", "value": 1.0})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("planted", "r1", "r2"),
    [
        ({}, "mixed", "supported"),
        ({"lstm": -0.1, "gru": -0.1, "attention": -0.1}, "supported", "supported"),
        ({"rnn": 0.0}, "refuted", "supported"),
        ({"a_pair": 0.0}, "mixed", "refuted"),
        ({"a_distance": 0.1}, "mixed", "refuted"),
        ({"nearby": 0.7}, "mixed", "undecided (check failed)"),
        ({"foreign": 0.3}, "mixed", "undecided (check failed)"),
    ],
    ids=[
        "as piloted",
        "all vanish",
        "none vanishes",
        "no capacity",
        "forgetting",
        "never learned",
        "leak",
    ],
)
def test_the_verdicts_follow_what_is_planted(
    root: Path, planted: dict[str, float], r1: str, r2: str
) -> None:
    claims, table = read_claims(root / "claims.yaml").claims, told(**planted)
    assert verdicts.judge("R1", claims["R1"], table).verdict == r1
    assert verdicts.judge("R2", claims["R2"], table).verdict == r2


def test_each_architecture_has_a_verdict_of_its_own(root: Path) -> None:
    """An LSTM that did not learn to recall takes nobody's verdict but its own on recall."""
    claim = read_claims(root / "claims.yaml").claims["R1"]
    said = [
        {one.effect.name: one.decision for one in verdicts.judge("R1", claim, table).judged}
        for table in (told(), changed(told(), 0.7, metric="accuracy", arm="lstm", pairs=2))
    ]
    assert said[0]["RNN, flip-flop"] == "supported"
    assert said[0]["LSTM, flip-flop"] == said[0]["LSTM, recall"] == "refuted"
    assert said[1] == said[0] | {"LSTM, recall": "undecided"}


def test_the_verdicts_find_their_rows(root: Path, smoke: pd.DataFrame) -> None:
    """Every column value that R1 and R2 ask for is in the study's table, but for sizes."""
    claims = read_claims(root / "claims.yaml").claims
    for effect in (x for name in ("R1", "R2") for x in claims[name].effects + claims[name].checks):
        sized = {key: v for key, v in effect.where.items() if key not in ("distance", "length")}
        assert len(effects.rows_where(smoke, sized, study.NAME)), effect.name


@pytest.mark.parametrize("profile", ["laptop", "gpu", "smoke"])
def test_every_profile_has_arms_of_equal_size_and_room_for_its_distances(
    root: Path, profile: str
) -> None:
    params = params_of(root, profile).recurrence
    for task, names in (("recall", ("lstm", "attention")), ("flip_flop", params.flip_flop_rates)):
        wanted = params.recall_parameters if task == "recall" else params.flip_flop_parameters
        for arm in names:
            count = arms.parameter_count(arms.model_of(params, task, arm))
            assert abs(count / wanted - 1) < 0.03, (task, arm, count)
    for pairs, distance in itertools.product(params.pairs, params.distances):
        assert 0 <= study.depth_of(params, pairs, distance) <= 1
    assert max(study.gradient_distances(params)[0]) < params.gradient_length
    assert not set(params.tuning_seeds) & {*params.seeds, *params.flip_flop_seeds}


@pytest.mark.parametrize("profile", ["laptop", "gpu", "smoke"])
def test_states_are_what_their_names_say(root: Path, profile: str) -> None:
    params = params_of(root, profile).recurrence
    of = lambda arm: arms.model_of(params, "recall", arm)  # noqa: E731
    pairs = arms.state_numbers(of("attention"), 2 * params.state_pairs)
    assert arms.state_numbers(of("lstm_state"), 1) == pairs
    assert arms.state_numbers(of("lstm_half"), 1) == of("lstm").mlp_width // 2 * 2


def test_every_stage_has_rows_for_its_pairs(params: Recurrence) -> None:
    stages = arms.curriculum(params, "recall").stages
    assert [{t.pairs for t in stage.tasks} for stage in stages] == [{2}, {2, 4}, {2, 4}]
    assert [{t.name for t in s.tasks} for s in stages] == [{"dense_recall"}, {"recall"}, {"recall"}]


@pytest.mark.parametrize("profile", ["laptop", "gpu", "smoke"])
def test_every_number_of_pairs_gives_about_as_many_questions(root: Path, profile: str) -> None:
    params = params_of(root, profile).recurrence
    for stage in arms.curriculum(params, "recall").stages[1:]:
        assert stage.rows % len(stage.tasks) == 0, stage.length
        questions = pd.Series([t.pairs for t in stage.tasks]).value_counts()
        asked = questions * questions.index
        assert asked.max() < 1.5 * asked.min(), asked
    assert {t.pairs for t in stage.tasks} == set(params.pairs)


def test_a_distance_is_what_it_says() -> None:
    """`distance` tokens stand between the pairs and the questions.

    There is room for nothing but the pairs.
    """
    values = read_yaml(Path(__file__).parents[2] / "params.yaml")["recurrence"]
    params = validate(Recurrence, values | {"tokens_a_pair": 2}, "test")
    length = params.recall_lengths[-1]
    for pairs, distance in itertools.product(params.pairs, params.distances):
        task = arms.packed(params, pairs).model_copy(
            update={"depth": study.depth_of(params, pairs, distance)}
        )
        tokens, scored = recall.recall(np.random.default_rng(0), 3, length, **task.options)
        told_at = np.flatnonzero(tokens[0] < recall.KEYS + recall.VALUES)
        assert told_at[2 * pairs] - told_at[2 * pairs - 1] - 1 == distance
        assert scored[0].sum() == pairs
    with pytest.raises(ValueError, match="distance = 400"):
        study.depth_of(params, 2, 400)


def test_foreign_rows_tell_other_values_and_keep_the_rest() -> None:
    rng = np.random.default_rng(0)
    tokens, scored = recall.recall(rng, 400, 40, pairs=4, span=16)
    seen = protocol.forget(rng, tokens, scored)
    changed_at = seen != tokens
    assert not (changed_at & (scored | (tokens < recall.KEYS))).any()
    guessed = (recall.oracle(seen, scored) == tokens[scored]).mean()
    assert guessed == pytest.approx(recall.CHANCE, abs=0.02)


def test_a_model_that_reads_the_row_is_a_guess_on_foreign_rows() -> None:
    """The oracle as a model: right on its rows, at chance where others were told."""

    class Reads:
        config = SimpleNamespace(vocab_size=recall.VOCABULARY + 1)

        def __call__(self, tokens: torch.Tensor, select: torch.Tensor) -> torch.Tensor:
            scored = np.zeros(tokens.shape, bool)
            scored[:, 1:] = select.numpy()[:, :-1]
            answers = torch.from_numpy(recall.oracle(tokens.numpy(), scored))
            return torch.nn.functional.one_hot(answers, recall.VOCABULARY + 1).float()

    options = {"pairs": 4, "span": 16, "length": 40, "rows": 300, "items": 5}
    (row,) = protocol.foreign_recall(Reads(), **options)
    assert row["accuracy"] == pytest.approx(recall.CHANCE, abs=0.02)


def test_an_arm_holds_as_many_pairs_as_it_recalls_at_nine_tenths() -> None:
    rows = [
        {"task": "recall", "arm": arm, "seed": 0, "pairs": pairs, "value": value}
        for arm, curve in (("a", (1.0, 1.0, 0.8)), ("b", (0.5, 0.4, 0.3)), ("c", (1.0, 1.0, 1.0)))
        for pairs, value in zip((2, 4, 8), curve, strict=True)
    ]
    held = {row["arm"]: row["value"] for row in study.held(pd.DataFrame(rows))}
    assert held["a"] == pytest.approx(4 * 2**0.5)
    assert (held["b"], held["c"]) == (2, 8)


def test_leads_are_attention_minus_an_lstm_in_points() -> None:
    found = reading.leads(told().assign(run="published"), "pairs")
    assert found.loc["LSTM, equal parameters", 2].startswith("+4 ")
    assert found.loc["LSTM, equal parameters", 4].startswith("+24 ")


def test_the_answer_says_that_nothing_is_published_or_what_is(smoke: pd.DataFrame) -> None:
    assert reading.answer(smoke.iloc[:0]) == "*Not published yet.*"
    two = pd.concat([smoke, smoke.assign(seed=smoke["seed"] + 1)])
    assert "Pairs recalled at 90 % or better" in reading.answer(two)


def test_kept_numbers_of_attention_grow_with_the_row_and_a_state_does_not(
    params: Recurrence,
) -> None:
    attention, lstm = (arms.model_of(params, "recall", arm) for arm in ("attention", "lstm"))
    assert (
        arms.state_numbers(attention, 10)
        == 10 * 2 * params.recall_attention.layers * attention.head_width
    )
    assert arms.state_numbers(lstm, 10) == arms.state_numbers(lstm, 1000) == 2 * lstm.mlp_width


def test_the_slope_leaves_out_what_fp64_cannot_hold() -> None:
    line = {d: -2.0 * d for d in range(8, 500, 8)}
    assert study.slope_of(line) == pytest.approx(-2)
    assert study.slope_of(line | {496: -math.inf, 488: -math.inf}) == pytest.approx(-2)
    assert math.isnan(study.slope_of({8: -1.0, 16: -math.inf}))


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
    small |= {"flip_flop_tuning_rates": (1e-6, 0.02), "tuning_seeds": (0, 1)}
    tried = params.model_copy(update=small)
    table = tuning.tune(tried)
    assert set(zip(table["seed"], table["lr"], strict=True)) == {
        (s, r) for s in (0, 1) for r in (1e-6, 0.02)
    }
    assert tuning.choices(table) == {"recall_rates": {}, "flip_flop_rates": {"lstm": 0.02}}
