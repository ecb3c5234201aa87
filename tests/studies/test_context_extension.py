"""Notebook 07's assertions hold on its own smoke run.

They fail with the effect removed. The tests check what is derived from recall.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext.nn import positions
from farcontext.results import tables
from farcontext.studies import trainings
from farcontext.studies.context_extension import arms, study, tuning
from farcontext.studies.context_extension.params import Params as ContextExtension
from farcontext.tasks import recall
from farcontext.train.loop import build_model
from farcontext.train.runs import EvalConfig


@pytest.fixture(scope="module")
def params(root: Path) -> ContextExtension:
    return smoke_params(root, study.NAME, ContextExtension)


@pytest.fixture
def table(params: ContextExtension, root: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 07 itself asks for."""
    monkeypatch.chdir(root)
    return study.run(params)


def assertion(root: Path, says: str, **known: object) -> None:
    """Run the notebook's own cell that prints `says`."""
    run_assertion(root, study.NAME, says, study=study, tables=tables, **known)


ANGLES = {
    name: positions.inverse_frequencies(name, head_dim=16, scale=4.0, trained_length=512).tolist()
    for name in ("rope", "linear", "ntk")
}


def test_assertions_hold_on_the_smoke_run(
    root: Path, table: pd.DataFrame, params: ContextExtension
) -> None:
    assertion(root, "ok: PI divides", angles=ANGLES)
    for says in ("ok: every length", "ok: every arm was"):
        assertion(root, says, table=table, params=params)


def test_frequencies_that_are_not_the_schemes_are_noticed(root: Path) -> None:
    for name in ("linear", "ntk"):
        with pytest.raises(AssertionError):
            assertion(root, "ok: PI divides", angles=ANGLES | {name: ANGLES["rope"]})


def test_a_length_that_was_not_scored_is_noticed(
    root: Path, table: pd.DataFrame, params: ContextExtension
) -> None:
    with pytest.raises(AssertionError):
        cut = table[table["length"] != params.length * max(params.multiples)]
        assertion(root, "ok: every length", table=cut, params=params)


def test_a_scheme_that_changes_weights_at_scale_1_is_noticed(
    root: Path, table: pd.DataFrame, params: ContextExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = study.extended
    monkeypatch.setattr(study, "extended", lambda params, arm, scale: wrong(params, arm, 2.0))
    with pytest.raises(AssertionError):
        assertion(root, "ok: every length", table=table, params=params)


def test_an_arm_left_out_or_scored_on_fewer_seeds_is_noticed(
    root: Path, table: pd.DataFrame, params: ContextExtension
) -> None:
    missing = table[(table["arm"] != "yarn") | (table["dose"] == 0)]
    more = pd.concat([table, table[table["arm"] == "yarn"].assign(seed=99)])
    for wrong in (missing, more):
        with pytest.raises(AssertionError):
            assertion(root, "ok: every arm was", table=wrong, params=params)


def test_a_base_with_fewer_trials_is_noticed(
    root: Path, table: pd.DataFrame, params: ContextExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials, card = tables.recorded("tuning", study.NAME)
    fewer = trials[(trials["arm"] != "nope_smeared") | (trials["seed"] != trials["seed"].min())]
    monkeypatch.setattr(tables, "recorded", lambda *_: (fewer, card))
    with pytest.raises(AssertionError, match="more trials"):
        assertion(root, "ok: every arm was", table=table, params=params)


# ---------------------------------------------------------------------------------- what is derived


def observations(params: ContextExtension, curve: dict[str, list[float]]) -> pd.DataFrame:
    """What `observations` makes of recall by layout and length."""
    depths = {"far": min(params.depths), "near": max(params.depths), "spread": None}
    rows = [
        {
            "layout": "spread" if layout == "spread" else "packed",
            "depth": depth,
            "length": params.length * multiple,
        }
        | {"accuracy": value}
        for layout, depth in depths.items()
        for multiple, value in zip(params.multiples, curve[layout], strict=True)
    ]
    return pd.DataFrame(study.observations(params.goal, params.length, rows))


def means(rows: pd.DataFrame) -> pd.Series:
    return rows[rows["layout"] == study.MEAN].set_index("metric")["value"]


def test_reach_is_the_effective_length_of_the_mean_over_layouts(params: ContextExtension) -> None:
    flat = means(observations(params, {x: [1.0] * 5 for x in ("far", "near", "spread")}))
    assert flat["reach"] == 4 and flat["score"] == 1
    falls = {"far": [1, 1, 0, 0, 0], "near": [1, 1, 1, 1, 1], "spread": [1, 1, 0.5, 0, 0]}
    rows = observations(params, falls)
    value = means(rows)
    # The mean is 1 at 2× and 0.5 at 4×: it passes 0.856 at 2^(1 + 0.144/0.5) trained lengths.
    assert value["reach"] == pytest.approx(1 + 0.144 / 0.5)
    assert value["score"] == pytest.approx(1 / 3)
    by_layout = rows[rows["metric"] == "score"].set_index("layout")["value"]
    assert (by_layout["far"], by_layout["near"], by_layout["spread"]) == (0, 1, 0)
    kept = rows[rows["metric"] == "kept"].set_index(["layout", "length"])["value"]
    assert kept["far", 4 * params.length] == 0 and kept["near", 16 * params.length] == 1


def score_rows(values: dict[str, np.ndarray], **changes: object) -> pd.DataFrame:
    same = {"metric": "score", "dose": 20, "kind": "decoder", "rate": "first", "trained": 64}
    same |= {"layout": "far"} | changes
    return pd.DataFrame(
        [
            same | {"arm": arm, "seed": seed, "value": value}
            for arm, many in values.items()
            for seed, value in enumerate(many)
        ]
    )


def test_pairs_are_compared_on_the_same_seeds_and_adjusted_for_their_number() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=5)
    values = {"a": shared + 1, "b": shared, "c": shared + rng.normal(scale=0.5, size=5)}
    frame = pd.concat([score_rows(values), score_rows({"a": shared - 9}, layout="near")])
    pairs = study.pairwise(frame, 20, "far").set_index(["better", "worse"])
    assert (
        pairs.loc[("a", "b"), "difference"] == pytest.approx(1)
        and pairs.loc[("a", "b"), "p_holm"] < 1e-6
    )
    others = pairs.drop(("a", "b"))
    assert (others["p_holm"] > 0.01).all() and len(pairs) == 3


def test_the_scheme_to_choose_is_the_best_of_its_case_and_those_as_good() -> None:
    rng = np.random.default_rng(0)
    noise = lambda: 0.05 * rng.normal(size=8)  # noqa: E731
    yarn, off = 0.9 + noise(), noise()
    far = {"yarn": yarn, "ntk": yarn + off - off.mean() - 0.001, "rope": 0.2 + noise()}
    near = {"rope": 0.9 + noise(), "ntk": 0.5 + noise(), "yarn": 0.4 + noise()}
    never = {"alibi": 1.0 + noise()}  # It must be there from the first step.
    short = [score_rows(x, metric="base_recall", layout="mean") for x in (far, never)]
    # What bases of another trained length recall is no part of the answer.
    other = score_rows({"ntk": np.zeros(8)}, metric="base_recall", layout="mean", trained=256)
    frame = pd.concat([score_rows(far | never), score_rows(near, layout="near"), *short, other])
    shown = study.which_scheme(frame)
    assert shown.loc[("near", 20), "best"] == "rope" and not shown.loc[("near", 20), "as good"]
    best, second = shown.loc[("far", 20), ["best", "as good"]]
    assert {best, second} == {"yarn", "ntk"}
    assert shown["recall at 1×"].min() > 0.15


# -------------------------------------------------------------------------------------- the choice


def test_arms_run_at_both_rates_that_were_all_but_tied(params: ContextExtension) -> None:
    """A base with one rate stands under both names, on the same runs."""
    arms = ("yarn", "alibi_smeared")
    tied = {"rates": {"rope": (0.003, 0.006), "alibi_smeared": (0.004,)}, "second_seeds": (1,)}
    tied |= {"second_arms": arms, "second_doses": params.doses[-1:], "seeds": (1, 2)}
    both = params.model_copy(update=tied)
    jobs = study.evaluations(both)
    lr = {
        (case.arm, case.rate, case.dose): many[0].run.optimizer.lr
        for case, many in jobs.items()
        if case.seed == 1
    }
    assert (lr["yarn", "first", 0], lr["yarn", "second", 0]) == (0.003, 0.006)
    assert lr["alibi_smeared", "first", 0] == lr["alibi_smeared", "second", 0] == 0.004
    dose = max(params.doses)
    assert lr["yarn", "second", dose] == pytest.approx(2 * lr["yarn", "first", dose])
    second = {(case.arm, case.dose, case.seed) for case in jobs if case.rate == "second"}
    assert second == {("yarn", 0, 1), ("yarn", dose, 1), ("alibi_smeared", 0, 1)}


def test_some_arms_stand_at_a_longer_trained_length(params: ContextExtension) -> None:
    longer = {"longer_length": 64, "longer_arms": ("yarn",), "longer_seeds": (3,)}
    jobs = study.evaluations(params.model_copy(update=longer))
    (case,) = [case for case in jobs if case.trained == 64]
    assert (case.arm, case.dose, case.seed) == ("yarn", 0, 3)
    assert {n for job in jobs[case] for n in job.options["lengths"]} == {
        64 * multiple for multiple in params.multiples if multiple <= params.goal
    }
    assert jobs[case][0].run.batch.stages[-1].length == 64


def test_each_seed_has_test_rows_of_its_own(params: ContextExtension) -> None:
    jobs = study.evaluations(params.model_copy(update={"seeds": (1, 2)}))
    drawn = {case.seed: job.options["items"] for case, many in jobs.items() for job in many}
    assert drawn == {1: 1, 2: 2}


def test_remapped_and_dropped_positions_change_no_weights(params: ContextExtension) -> None:
    """They are the base's runs, evaluated otherwise."""
    jobs = study.evaluations(params)
    at = study.Case("decoder", params.length, "rope", 0, "first", params.seeds[0])
    base = jobs[at][0].run
    for arm in ("self_extend", "dual_chunk", "lm_infinite", "drope"):
        (job,) = jobs[at._replace(arm=arm)]
        assert job.run == base, arm
        remaps = job.options.get("remap") == arm
        assert remaps != (job.model is not None and job.model.positions == "none"), arm


def test_within_the_trained_length_remapping_recalls_what_the_base_does(
    table: pd.DataFrame, params: ContextExtension
) -> None:
    recall = table[(table["metric"] == "recall") & (table["length"] == params.length)]
    at = recall[recall["dose"] == 0].set_index(["layout", "depth"])
    own = at[at["arm"] == "rope"]["value"]
    for arm in ("self_extend", "dual_chunk", "lm_infinite"):
        assert (at[at["arm"] == arm]["value"] - own).abs().max() < 1e-6


def test_tuning_tries_every_rate_on_every_base_and_takes_the_least_loss(
    params: ContextExtension, root: Path, monkeypatch
) -> None:
    """Recall ties, so it decides nothing."""
    monkeypatch.chdir(root)
    many = params.model_copy(update={"lrs": (0.004, 0.002), "tuning_seeds": (20, 21)})
    losses = {0.004: 0.02, 0.002: 0.03}

    def swept(jobs):
        """What training and evaluation would have left: equal recall, losses by rate."""
        runs = {name: job.run if isinstance(job, EvalConfig) else job for name, job in jobs.items()}
        return {
            name: type("R", (), {"rows": [{"accuracy": 1.0, "loss": losses[run.optimizer.lr]}]})
            for name, run in runs.items()
        }

    monkeypatch.setattr(tuning, "sweep", swept)
    monkeypatch.setattr(trainings, "sweep", swept)
    scores = {"rope": 0.5, "yarn": 0.9}
    monkeypatch.setattr(
        tuning, "scored", lambda jobs: {case: [{"score": scores[case.arm]}] for case in jobs}
    )
    at = lambda *given: [  # noqa: E731
        {"metric": "score", "layout": "mean", "value": given[-1][0]["score"]},
        {"metric": "base_recall", "layout": "mean", "value": 1.0},
    ]
    monkeypatch.setattr(tuning, "observations", at)
    table = tuning.tune(many)
    assert (table["metric"] == "tuning_loss").sum() == 2 * 2 * 2
    chosen = tuning.choices(table)
    rates = {"alibi_smeared": [0.004], "rope": [0.004]}
    assert chosen == {"rates": rates, "chosen": "yarn"}
    losses[0.002] = 0.01
    assert tuning.choices(tuning.tune(many))["rates"]["rope"] == [0.002]


def test_parameters_of_other_tables_change_no_trial(params: ContextExtension, monkeypatch) -> None:
    """Their names begin as `tuning.UNREAD` says, and the trials' jobs do not depend on them."""
    seen: list[object] = []

    class Seen(Exception):
        """What was to be tried is known."""

    def stop(jobs: dict) -> None:
        seen.append(jobs)
        raise Seen

    def tried(of: ContextExtension) -> list[object]:
        seen.clear()
        with pytest.raises(Seen):
            tuning.tune(of)
        return [*seen]

    monkeypatch.setattr(tuning, "tried_rates", seen.append)
    monkeypatch.setattr(tuning, "sweep", stop)
    unread = {key for key in type(params).model_fields if key.startswith(tuning.UNREAD)}
    other = params.model_copy(update=dict.fromkeys(unread))
    assert len(unread) > 15 and tried(other) == tried(params)
    rates = {"rates": {base: rates[:1] for base, rates in params.rates.items()}}
    given = (("rope", "yarn"), params.tuning_seeds)
    alone = study.arms_at(params.model_copy(update=rates), "first", *given)
    assert study.arms_at(other.model_copy(update=rates), "first", *given) == alone


def test_two_rates_that_tie_are_both_kept() -> None:
    losses = pd.DataFrame(
        {
            "lr": [0.1] * 4 + [0.2] * 4 + [0.4] * 4,
            "seed": [0, 1, 2, 3] * 3,
            "value": [1.0, 1.1, 0.9, 1.0, 1.05, 1.0, 1.0, 0.98, 2.0, 2.1, 2.0, 1.9],
        }
    )
    assert trainings.best_rates(losses) == (0.1, 0.2)
    assert trainings.best_rates(losses[losses["lr"] != 0.2]) == (0.1,)
    assert trainings.best_rates(losses[losses["lr"] == 0.4]) == (0.4,)


def test_an_arm_that_fine_tuning_costs_too_much_is_not_chosen() -> None:
    rows = [("rope", "tuning_loss", 0.1), ("rope", "recall", 1.0)]
    rows += [("yarn", "score", 0.9), ("yarn", "base_recall", 0.9)]
    rows += [("abf", "score", 0.8), ("abf", "base_recall", 0.99)]
    table = pd.DataFrame(
        [{"arm": a, "lr": 0.1, "seed": 1, "metric": m, "value": v} for a, m, v in rows]
    )
    assert tuning.choices(table)["chosen"] == "abf"


@pytest.mark.parametrize("name", arms.ARMS)
def test_every_arm_has_its_bases_weights_and_runs(name: str, params: ContextExtension) -> None:
    """Also those that only the gpu profile trains."""
    arm = arms.ARMS[name]
    base = build_model(arms.base_model(params, arm.base))
    model = build_model(arms.extended(params, arm, 4.0))
    model.load_state_dict(base.state_dict())
    tokens, _ = recall.recall(np.random.default_rng(0), 1, 4 * params.length, pairs=2)
    assert model(torch.from_numpy(tokens)).isfinite().all()
    tuned = arms.tuned_run(params, arm, 0, 0.01, 20)
    assert tuned.steps == 20
    # Dropped positions are recalibrated at the trained length.
    wanted = params.length * (1 if arm.drops else params.tune_multiple)
    assert tuned.start.model == base.config and tuned.model.max_length == wanted
