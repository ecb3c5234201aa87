"""Tables become verdicts: checks come before effects, pairs by seed.

No verdict ever comes from what is not there.
"""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from observe import refuses

from farcontext.app import pages
from farcontext.results import claims as verdicts
from farcontext.results.claims import Claim, Claims, Effect, judge, per_seed
from farcontext.schema import read_yaml, validate
from farcontext.studies.params import STUDIES, read_params

SEEDS = (10, 11, 12, 13, 14)
CLAIM = {
    "section": "1",
    "words": "x",
    "hypothesis": "h",
    "study": "demo",
    "decided_by": "interval",
    "fixed": "2026-11-24",
    "pilot": "none",
    "literature": "none",
    "range": "here",
    "effects": [{"name": "gain", "where": {"metric": "gain"}, "at_least": 0.1}],
}


def claim(**changes: object) -> Claim:
    return validate(Claim, copy.deepcopy(CLAIM) | changes, "claims.yaml")


def table(metric: str, values, arm: str = "a") -> pd.DataFrame:
    return pd.DataFrame(
        {"metric": metric, "arm": arm, "seed": SEEDS[: len(values)], "value": values}
    )


def verdict(values, **changes: object) -> str:
    return judge("X", claim(**changes), table("gain", values)).verdict


CHECK = [{"name": "better than a guess", "where": {"metric": "check"}, "at_least": 0.5}]


def test_an_interval_beyond_the_threshold_supports_before_it_refutes_across_it_is_undecided() -> (
    None
):
    assert verdict([0.2, 0.21, 0.19, 0.2, 0.22]) == "supported"
    assert verdict([0.02, 0.01, 0.03, 0.02, 0.02]) == "refuted"
    assert verdict([0.0, 0.2, 0.1, 0.15, 0.05]) == "undecided"


def test_between_the_two_thresholds_nothing_is_decided() -> None:
    effects = [CLAIM["effects"][0] | {"at_least": 0.5, "refuted_below": 0.1}]
    assert verdict([0.7, 0.71, 0.69, 0.7, 0.72], effects=effects) == "supported"
    assert verdict([0.3, 0.31, 0.29, 0.3, 0.32], effects=effects) == "undecided"
    assert (
        verdict([0.3, 0.31, 0.29, 0.3, 0.32], effects=[effects[0] | {"refuted_below": None}])
        == "refuted"
    )
    assert verdict([0.02, 0.03, 0.02, 0.01, 0.02], effects=effects) == "refuted"
    assert verdict([0.1, 0.1, 0.1, 0.1, 0.1], effects=effects) == "refuted"


@pytest.mark.parametrize(
    "values", [[], [0.5], [0.5, np.nan, 0.5], [np.nan] * 5, [np.inf] * 5], ids=str
)
def test_what_is_missing_or_not_finite_decides_nothing(values: list[float]) -> None:
    assert verdict(values) == "undecided"
    for decided_by in ("identity", "execution"):
        if not values or np.isnan(values).any():
            assert verdict(values, decided_by=decided_by) == "undecided"


@pytest.mark.parametrize("gain", [0.2, 0.0])
@pytest.mark.parametrize(
    "checked", [[0.9, 0.9, 0.4, 0.9, 0.9], [np.nan] * 5, []], ids=["one below", "nan", "none"]
)
def test_a_failed_check_leaves_the_claim_undecided_never_refuted(
    gain: float, checked: list[float]
) -> None:
    both = pd.concat(
        [table("gain", [gain, gain + 0.01, gain, gain, gain]), table("check", checked)]
    )
    found = judge("X", claim(checks=CHECK), both)
    assert found.verdict == "undecided (check failed)"
    assert "better than a guess" in found.note


def test_a_check_that_holds_for_every_seed_lets_the_effects_speak() -> None:
    both = pd.concat(
        [table("gain", [0.0, 0.01, 0.0, 0.0, 0.0]), table("check", [0.9, 0.8, 0.7, 0.6, 0.5])]
    )
    assert judge("X", claim(checks=CHECK), both).verdict == "refuted"


def test_all_effects_must_hold_and_the_least_favourable_is_reported() -> None:
    effects = [*CLAIM["effects"], {"name": "cost", "where": {"metric": "cost"}, "at_most": 1.0}]
    good = table("gain", [0.2, 0.21, 0.2, 0.2, 0.2])
    for costs, wanted in (
        ([0.5, 0.6, 0.5, 0.5, 0.5], "supported"),
        ([2.0, 2.1, 2.0, 2.0, 2.0], "refuted"),
    ):
        found = judge("X", claim(effects=effects), pd.concat([good, table("cost", costs)]))
        assert found.verdict == wanted
        assert found.effect.name == "cost"


def test_an_arm_is_subtracted_seed_by_seed() -> None:
    paired = Effect(name="d", where={"metric": "m", "arm": "a"}, minus={"arm": "b"}, at_least=0.05)
    noise = np.array([5.0, -3.0, 8.0, 0.0, 2.0])
    both = pd.concat([table("m", noise + 0.1, "a"), table("m", noise, "b")[::-1]])
    assert per_seed(both, paired, "demo").to_numpy() == pytest.approx(0.1)
    lonely = pd.concat([table("m", noise + 0.1, "a"), table("m", noise, "b").assign(seed=99)])
    assert per_seed(lonely, paired, "demo").empty


def test_everything_but_the_seed_is_averaged_first() -> None:
    rows = pd.concat([table("m", [1.0, 3.0]), table("m", [2.0, 5.0])])
    effect = Effect(name="d", where={"metric": "m"}, times=-1.0, at_least=0)
    assert list(per_seed(rows, effect, "demo")) == [-1.5, -4.0]


def test_an_identity_holds_in_every_row_or_is_refuted() -> None:
    effects = [{"name": "difference", "where": {"metric": "gain"}, "at_most": 1e-9}]
    assert verdict([0.0, 1e-12, 1e-10], decided_by="identity", effects=effects) == "supported"
    assert verdict([0.0, 1e-12, 1e-6], decided_by="identity", effects=effects) == "refuted"
    found = judge("X", claim(decided_by="identity", effects=effects), table("gain", [0.0, 1e-6]))
    assert found.interval.estimate == found.interval.high == 1e-6


def test_an_effect_needs_one_threshold_and_a_column_that_exists() -> None:
    for sides in ({}, {"at_least": 1.0, "at_most": 2.0}):
        with refuses("expected one of at_least, at_most"):
            _ = Effect(name="d", where={"metric": "m"}, **sides).threshold
    with refuses("claims.yaml: demo: colour: expected a column"):
        per_seed(table("m", [1.0]), Effect(name="d", where={"colour": "red"}, at_least=0), "demo")


def test_an_undecided_interval_says_how_many_seeds_would_decide() -> None:
    found = judge("X", claim(), table("gain", [0.0, 0.3, 0.1, 0.25, 0.05]))
    assert found.verdict == "undecided" and "seeds would decide" in found.note
    between = [CLAIM["effects"][0] | {"at_least": 0.5, "refuted_below": 0.05}]
    found = judge(
        "X", claim(effects=between, over="plays"), table("gain", [0.0, 0.3, 0.1, 0.25, 0.05])
    )
    assert found.verdict == "undecided" and found.note.endswith(
        "no number of plays alone would decide"
    )


def test_of_effects_with_one_verdict_the_one_nearest_to_its_threshold_is_reported() -> None:
    """In half widths: a metric in thousands does not look safer than a share."""
    effects = [*CLAIM["effects"], {"name": "cost", "where": {"metric": "cost"}, "at_most": 1000.0}]
    for costs, wanted in (
        ([1.0, 2.0, 3.0, 2.0, 2.0], "gain"),
        ([999.0, 998.0, 999.0, 997.0, 998.0], "cost"),
    ):
        both = pd.concat([table("gain", [0.2, 0.21, 0.19, 0.2, 0.22]), table("cost", costs)])
        assert [
            judge("X", claim(effects=order), both).effect.name for order in (effects, effects[::-1])
        ] == [wanted] * 2


def test_a_claim_about_the_best_is_held_against_every_rival_of_its_study(root: Path) -> None:
    best = verdicts.read_claims(root / "claims.yaml").claims["P2-dynamic-best"]
    tuned = set(read_params(root / "params.yaml").context_extension.tuned_arms)
    rivals = {effect.minus["arm"] for effect in best.effects}
    # ALiBi's base never had RoPE: it extends nothing
    assert rivals == tuned - {
        "dynamic_ntk_hf",
        "alibi",
    }


def test_the_claims_of_this_project_are_whole(root: Path) -> None:
    claims = verdicts.read_claims(root / "claims.yaml")
    assert set(claims.tolerances) == set(STUDIES)
    for name, found in claims.claims.items():
        assert found.study in STUDIES, name
        for effect in (*found.effects, *found.checks):
            assert effect.threshold is not None, name
    article = (
        (root / "seed" / "article.txt").read_text(encoding="utf-8")
        if (root / "seed").is_dir()
        else None
    )
    assert article is None or all(found.words in article for found in claims.claims.values())


def test_a_misspelt_key_of_a_claim_is_named_with_a_suggestion(root: Path) -> None:
    tree = read_yaml(root / "claims.yaml")
    first = next(iter(tree["claims"].values()))
    first["effects"][0]["at_lest"] = 1
    with refuses("effects.0.at_lest = 1") as caught:
        validate(Claims, tree, "claims.yaml")
    assert "did you mean at_least?" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.12345, "0.123"),
        (-0.5, "−0.5"),
        (3.0, "3"),
        (-2.0, "−2"),
        (float("nan"), "–"),
        (1e-12, "1e-12"),
        (float("inf"), "–"),
    ],
)
def test_numbers_are_shown_with_three_digits_and_a_true_minus(number: float, shown: str) -> None:
    assert verdicts.show_number(number) == shown.replace("1e-12", "1e−12")


def test_the_pages_hold_every_finding() -> None:
    findings = [
        judge("X", claim(hypothesis="|h| grows"), table("gain", [0.2, 0.21, 0.19, 0.2, 0.22]))
    ]
    row = r"| X | x (§1) | \|h\| grows | 0.204 [0.19, 0.218] | 5 seeds | ≥ 0.1 | **supported** |"
    assert row in pages.verdict_block(findings, {})
    same = pages.verdict_block(findings, {"X": "supported"})
    assert row in same and "the same verdict for 1 of 1 claims" in same
    moved = pages.verdict_block(findings, {"X": "refuted"})
    assert (
        "**supported**; *not the same on a second machine: refuted* |" in moved
        and "for 0 of 1 claims" in moved
    )
    row = verdicts.as_table(findings).iloc[0]
    assert (row["claim"], row["verdict"], row["observations"]) == ("X", "supported", 5)
    assert verdicts.as_metrics(findings)["X"]["verdict"] == "supported"
    missing = judge("X", claim(), table("gain", []))
    assert verdicts.as_metrics([missing])["X"]["estimate"] is None


def test_pages_notebooks_and_paper_show_one_number() -> None:
    """49.25 and 49.25000001 are both 49.2.

    A number is rounded to the table's digits before it is shown.
    """
    for value in (49.25, 49.25000001, 49.24999999):
        findings = [judge("X", claim(), table("gain", [value] * 5))]
        row = verdicts.as_table(findings).iloc[0]
        assert row["shown"] == "49.2 [49.2, 49.2]" and "49.2 [" in pages.verdict_block(findings, {})
        # what results.verdict_line does
        assert f"{float(f'{value:.{verdicts.DIGITS}g}'):.3g}" == "49.2"
