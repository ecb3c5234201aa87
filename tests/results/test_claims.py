"""Tables become verdicts: what is in the way comes before effects, pairs by seed.

No verdict ever comes from what is not there. Each rule has a twin that breaks it.
"""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from observe import refuses

from farcontext.app import pages
from farcontext.results import findings
from farcontext.results.claims import Claim, Claims, Effect, read_claims
from farcontext.results.effects import per_seed
from farcontext.results.verdicts import judge
from farcontext.schema import read_yaml, validate
from farcontext.studies.params import STUDIES

SEEDS = (10, 11, 12, 13, 14)
CLAIM = {
    "section": "1",
    "words": "x",
    "hypothesis": "h",
    "study": "demo",
    "decided_by": "interval",
    "fixed": "2026-11-24",
    "pilot": "none",
    "rival": "what one would use instead",
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
    "checked",
    [[0.9, 0.9, 0.1, 0.6, 0.5], [0.4, 0.4, 0.4, 0.4, 0.4], [np.nan] * 5, []],
    ids=["too wide", "below", "nan", "none"],
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


def guarded(checked: dict[str, float], decides: str = "each", guards: str = "arm"):
    """Judge a gain of two arms, each with a check of its own."""
    gain = [{"name": f"gain of {arm}", "where": {"metric": "gain", "arm": arm}} for arm in "ab"]
    effects = [effect | {"at_least": 0.1} for effect in gain]
    noise = np.array([0.0, 0.01, 0.0, -0.01, 0.0])
    parts = [table("gain", 0.5 + noise, arm) for arm in "ab"]
    parts += [table("check", value + noise, arm) for arm, value in checked.items()]
    checks = [CHECK[0] | {"each": ["arm"], "guards": [guards]}]
    return judge("X", claim(effects=effects, checks=checks, decides=decides), pd.concat(parts))


def test_a_check_that_guards_one_arm_leaves_the_others_their_verdicts() -> None:
    assert guarded({"a": 0.9, "b": 0.9}).verdict == "supported"
    found = guarded({"a": 0.9, "b": 0.1})
    assert {one.effect.name: one.decision for one in found.judged} == {
        "gain of a": "supported",
        "gain of b": "undecided",
    }
    assert found.verdict == "mixed" and "failed: better than a guess: arm b" in found.note


@pytest.mark.parametrize(
    ("checked", "decides"),
    [({"a": 0.9, "b": 0.1}, "all"), ({"a": 0.1, "b": 0.1}, "each"), ({}, "each")],
    ids=["all must hold", "both fail", "no check"],
)
def test_no_arm_is_judged_whose_check_is_missing_or_fails(checked: dict, decides: str) -> None:
    assert guarded(checked, decides).verdict == "undecided (check failed)"


def test_a_guard_is_a_column_that_its_check_selects() -> None:
    with refuses("guards colour: expected columns it selects"):
        guarded({"a": 0.9}, guards="colour")


def test_a_check_is_an_interval_not_the_worst_seed() -> None:
    """One seed of many below the floor says little: more seeds must not make a check fail."""
    low = [0.9] * 19 + [0.49]
    seeds = range(len(low))
    both = pd.concat(
        [
            pd.DataFrame({"metric": "gain", "seed": seeds, "value": 0.0}),
            pd.DataFrame({"metric": "check", "seed": seeds, "value": low}),
        ]
    )
    assert judge("X", claim(checks=CHECK), both).verdict == "refuted"
    worse = both.assign(value=both["value"].where(both["metric"] == "gain", both["value"] - 0.4))
    assert judge("X", claim(checks=CHECK), worse).verdict == "undecided (check failed)"


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


@pytest.mark.parametrize(
    "sides", [{}, {"at_least": 1.0, "at_most": 2.0}, {"between": (0, 1), "at_most": 2.0}], ids=str
)
def test_an_effect_needs_one_threshold(sides: dict) -> None:
    with refuses("expected one of at_least, at_most, between"):
        validate(Effect, {"name": "d", "where": {"metric": "m"}} | sides, "claims.yaml")


def test_an_effect_needs_a_column_that_exists() -> None:
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


def test_the_claims_of_this_project_are_whole(root: Path) -> None:
    claims = read_claims(root / "claims.yaml")
    assert set(claims.exact) <= set(STUDIES)
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
    assert findings.show_number(number) == shown.replace("1e-12", "1e−12")


def block(
    root: Path,
    judged: list[findings.Finding],
    tries: int,
    second: dict | None = None,
    night: dict | None = None,
) -> str:
    """Return README's table as if the claims were those of notebook 01."""
    notebook = root / "notebooks" / "01_attention_derivation.ipynb"
    return pages.verdict_block(judged, {"X": tries}, {"demo": notebook}, second or {}, night or {})


def test_the_pages_hold_every_finding(root: Path) -> None:
    judged = [
        judge("X", claim(hypothesis="|h| grows"), table("gain", [0.2, 0.21, 0.19, 0.2, 0.22]))
    ]
    row = r"| X | \|h\| grows | 0.204 [0.19, 0.218] | ≥ 0.1 | 3 | **supported** |"
    made = block(root, judged, 3)
    assert row in made and "**What does attention compute" in made
    said = judge("X", claim(short={"en": "it grows", "zh": "增长"}), table("gain", [0.2, 0.21]))
    assert "| X | it grows | " in block(root, [said], 3)
    same = block(root, judged, 3, {"X": ("supported", "0.2")})
    assert row in same and "the same verdict for 1 of 1 claims" in same
    assert "for 0 of 1 claims" in block(root, judged, 3, {"X": ("refuted", "0")})
    night = block(root, judged, 3, night={"X": ("supported", "0.3")})
    assert f"{row} the same, 0.3 |" in night and "a night's budget" in night
    night = block(root, judged, 3, night={"X": ("refuted", "0.05")})
    assert f"{row} **refuted**, 0.05 |" in night
    night = block(root, judged, 3, night={"Y": ("refuted", "0.05")})
    assert f"{row} – |" in night
    row = findings.as_table(judged, {"X": 3}).iloc[0]
    assert (row["claim"], row["verdict"], row["observations"]) == ("X", "supported", 5)
    assert row["tries"] == 3
    assert findings.as_metrics(judged)["X"]["verdict"] == "supported"
    missing = judge("X", claim(), table("gain", []))
    assert findings.as_metrics([missing])["X"]["estimate"] is None


def test_pages_notebooks_and_paper_show_one_number(root: Path) -> None:
    """49.25 and 49.25000001 are both 49.2.

    A number is rounded to the table's digits before it is shown.
    """
    for value in (49.25, 49.25000001, 49.24999999):
        judged = [judge("X", claim(), table("gain", [value] * 5))]
        row = findings.as_table(judged, {"X": 1}).iloc[0]
        assert row["shown"] == "49.2 [49.2, 49.2]"
        assert "49.2 [" in block(root, judged, 1)
        # what results.verdict_line does
        assert f"{float(f'{value:.{findings.DIGITS}g}'):.3g}" == "49.2"


# ------------------------------------------------------------------------------------ the rules

PAIRED = {
    "name": "a − b",
    "where": {"metric": "m", "arm": "a"},
    "minus": {"arm": "b"},
    "times": 100,
    "bounds": [0, 1],
    "at_least": 2,
}


def arms(a: list[float], b: list[float]) -> pd.DataFrame:
    return pd.concat([table("m", a, "a"), table("m", b, "b")])


def test_a_threshold_that_the_rival_leaves_no_room_for_decides_nothing() -> None:
    """A rival at 98.1 % leaves 1.9 points: a gain of 2 could not be found, so none is refuted."""
    near, far = [0.982, 0.981, 0.983, 0.98, 0.981], [0.981] * 5
    found = judge("X", claim(effects=[PAIRED]), arms(near, far))
    assert found.verdict == "undecided (no headroom)" and "could not win" in found.note
    # The twin: with room the same difference refutes.
    lower = arms([x - 0.3 for x in near], [x - 0.3 for x in far])
    assert judge("X", claim(effects=[PAIRED]), lower).verdict == "refuted"
    # An arm that is far worse and varies much had room all the same: at its best it varies no more.
    poor = arms([0.05, 0.4, 0.1, 0.3, 0.15], [x - 0.05 for x in far])
    assert judge("X", claim(effects=[PAIRED]), poor).verdict == "refuted"
    # A rival that varies so much that even a perfect arm would not be shown to win leaves none.
    wild = arms([0.1, 0.15, 0.1, 0.1, 0.12], [0.99, 0.6, 0.98, 0.99, 0.97])
    assert "could not win" in judge("X", claim(effects=[PAIRED]), wild).note
    # Without bounds nothing is known of the room, and the bare interval decides.
    blind = PAIRED | {"bounds": None}
    assert judge("X", claim(effects=[blind]), arms(near, far)).verdict == "refuted"


def test_a_threshold_that_cannot_be_missed_decides_nothing() -> None:
    sure = PAIRED | {"at_least": -110}
    found = judge("X", claim(effects=[sure]), arms([0.5, 0.51, 0.52, 0.5, 0.5], [0.98] * 5))
    assert found.verdict == "undecided (no headroom)" and "could not lose" in found.note


def test_without_a_rival_seeds_decide_nothing_and_proofs_do() -> None:
    good = table("gain", [0.2, 0.21, 0.2, 0.2, 0.2])
    assert judge("X", claim(rival=None), good).verdict == "undecided (no rival)"
    assert judge("X", claim(rival="an LSTM"), good).verdict == "supported"
    assert judge("X", claim(rival=None, decided_by="execution"), good).verdict == "supported"


def test_of_twenty_effects_one_that_is_off_by_chance_does_not_refute() -> None:
    """Holm: the least p of twenty must be twenty times smaller."""
    rng = np.random.default_rng(3)
    names = [f"e{number}" for number in range(20)]
    effects = [{"name": x, "where": {"metric": x}, "at_least": -0.05} for x in names]
    rows = {x: rng.normal(0.2, 0.02, 5) for x in names}
    rows["e7"] = np.array([-0.2, -0.15, -0.1, -0.25, -0.06])  # p about 0.03 against −0.05.
    frame = pd.concat([table(x, values) for x, values in rows.items()])
    assert judge("X", claim(effects=effects), frame).verdict == "undecided"
    assert judge("X", claim(effects=effects[7:8]), frame).verdict == "refuted"
    far = pd.concat([frame[frame["metric"] != "e7"], table("e7", [-9.0, -9.1, -9.0, -8.9, -9.0])])
    assert judge("X", claim(effects=effects), far).verdict == "refuted"


def grid_of(cells: dict[tuple[str, int], float], noise: float = 0.01) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"metric": "m", "layout": layout, "dose": dose, "seed": seed}
            | {"value": mean + noise * rng.normal()}
            for (layout, dose), mean in cells.items()
            for seed in range(8)
        ]
    )


EACH = {"name": "gain", "where": {"metric": "m"}, "each": ["layout", "dose"], "at_least": 0}


@pytest.mark.parametrize(
    ("means", "verdict"),
    [((0.3, -0.3), "supported"), ((0.3, 0.2), "refuted"), ((0.3, 0.03), "undecided")],
)
def test_a_winner_that_depends_on_the_cell_needs_two_opposite_signs(
    means: tuple[float, float], verdict: str
) -> None:
    frame = grid_of({("near", 0): means[0], ("far", 20): means[1]}, 0.05)
    judged = judge("X", claim(effects=[EACH], decides="opposite"), frame)
    assert judged.verdict == verdict
    assert judged.note.startswith("from gain: layout far, dose 20 ")
    assert {one.effect.name for one in judged.judged} == {
        "gain: layout far, dose 20",
        "gain: layout near, dose 0",
    }


def test_a_cell_without_headroom_decides_nothing_and_leaves_the_others_theirs() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"metric": "m", "arm": arm, "layout": layout, "seed": seed, "value": mean + noise}
        for seed in range(8)
        for layout, means in {"near": (0.99, 0.5), "far": (0.999, 0.999)}.items()
        for arm, mean in zip("ab", means, strict=True)
        for noise in [0.001 * rng.normal()]
    ]
    each = PAIRED | {"times": 1, "at_least": 0.05, "each": ["layout"]}
    judged = judge("X", claim(effects=[each], decides="each"), pd.DataFrame(rows))
    assert judged.verdict == "mixed"
    assert {one.effect.name: one.decision for one in judged.judged} == {
        "a − b: layout far": "undecided",
        "a − b: layout near": "supported",
    }
    full = [row for row in rows if row["layout"] == "far"]
    judged = judge("X", claim(effects=[each], decides="each"), pd.DataFrame(full))
    assert judged.verdict == "undecided (no headroom)"


def test_a_claim_of_cells_names_those_that_it_holds_for() -> None:
    frame = grid_of({("near", 0): 0.3, ("far", 0): -0.3})
    judged = judge("X", claim(effects=[EACH], decides="each"), frame)
    assert judged.verdict == "mixed"
    assert judged.note == "supported: gain: layout near, dose 0; refuted: gain: layout far, dose 0"
    many = grid_of({("near", dose): 0.3 - 0.6 * (dose > 4) for dose in range(8)})
    judged = judge("X", claim(effects=[EACH], decides="each"), many)
    assert judged.note == "of 8 cells supported in 5, refuted in 3"
    same = grid_of({("near", 0): 0.3, ("far", 0): 0.2})
    assert judge("X", claim(effects=[EACH], decides="each"), same).verdict == "supported"


def test_equivalence_is_an_interval_within_two_bounds() -> None:
    within = [{"name": "slope", "where": {"metric": "gain"}, "between": [-0.1, 0.1]}]
    assert verdict([0.01, 0.02, 0.0, -0.01, 0.01], effects=within) == "supported"
    assert verdict([0.3, 0.31, 0.3, 0.29, 0.3], effects=within) == "refuted"
    # Zero lies within, but so does much else: no difference found is not equivalence.
    assert verdict([0.3, -0.3, 0.2, -0.25, 0.01], effects=within) == "undecided"


def learning(last: float) -> pd.DataFrame:
    curve = {160: 3.0, 320: 2.5, 640: last}
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {"metric": "loss", "arm": "a", "seed": seed, "step": step}
            | {"value": loss + 0.01 * rng.normal()}
            for step, loss in curve.items()
            for seed in SEEDS
        ]
    )


def test_a_rival_that_is_ahead_while_the_curve_still_falls_refutes_nothing() -> None:
    behind = table("gain", [-0.4, -0.41, -0.4, -0.39, -0.4])
    budget = {"where": {"metric": "loss", "arm": "a"}, "on": "step"}
    judged = judge("X", claim(budget=budget), pd.concat([behind, learning(2.0)]))
    assert judged.verdict == "undecided (budget)"
    # Half a nat a doubling, and half a nat is missing: twice the steps.
    times = float(judged.note.split("last slope ")[1].split(" ")[0])
    assert times == pytest.approx(2.0, rel=0.05)
    flat = judge("X", claim(budget=budget), pd.concat([behind, learning(2.5)]))
    assert flat.verdict == "refuted"
    ahead = table("gain", [0.4, 0.41, 0.4, 0.39, 0.4])
    assert judge("X", claim(budget=budget), pd.concat([ahead, learning(2.0)])).verdict == (
        "supported"
    )


@pytest.mark.parametrize(
    ("second", "verdict"), [(0.3, "supported"), (0.0, "undecided (choices disagree)")]
)
def test_a_verdict_must_hold_under_both_of_two_choices_that_tied(
    second: float, verdict: str
) -> None:
    noise = np.array([0.01, -0.01, 0.0, 0.02, -0.02])
    both = pd.concat(
        [
            table("gain", 0.3 + noise).assign(rate="first"),
            table("gain", second + noise).assign(rate="second"),
        ]
    )
    tied = claim(under={"rate": ["first", "second"]})
    judged = judge("X", tied, both)
    assert judged.verdict == verdict
    assert judge("X", claim(under={"rate": ["first"]}), both).verdict == "supported"
    if "choices" in verdict:
        assert "rate second: refuted, 0 [" in judged.note
