"""Intervals cover what they promise, and nothing unknown becomes a verdict."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from farcontext.measure.stats import (
    Interval,
    decide,
    half_width,
    holm,
    log_slope,
    paired_p,
    score_interval,
    seeds_to_decide,
    t_interval,
    wilson,
)

DRAWS = 2_000
GOLDENS = json.loads(
    (Path(__file__).parent.parent / "goldens" / "statistics.json").read_text(encoding="utf-8")
)


def coverage(interval, draw, truth: float) -> float:
    rng = np.random.default_rng(20261124)
    found = [interval(draw(rng)) for _ in range(DRAWS)]
    return float(np.mean([i.low <= truth <= i.high for i in found]))


def test_the_t_interval_of_five_seeds_covers_the_mean_95_times_in_100() -> None:
    share = coverage(t_interval, lambda rng: rng.normal(3.0, 2.0, 5), 3.0)
    assert 0.93 <= share <= 0.97, share


def test_a_normal_interval_would_be_caught() -> None:
    """The twin: 1.96 in place of Student's quantile covers too little at five seeds."""

    def naive(x: np.ndarray) -> Interval:
        half = 1.96 * x.std(ddof=1) / math.sqrt(x.size)
        return Interval(x.mean(), x.mean() - half, x.mean() + half, x.size)

    assert coverage(naive, lambda rng: rng.normal(3.0, 2.0, 5), 3.0) < 0.93


def test_the_t_interval_is_scipys() -> None:
    x = [1.0, 2.5, 2.0, 4.0]
    low, high = scipy.stats.ttest_1samp(x, 0).confidence_interval(0.95)
    found = t_interval(x)
    assert (found.estimate, found.low, found.high) == pytest.approx((2.375, low, high), rel=1e-12)
    assert t_interval(x, 0.5).high < found.high


@pytest.mark.parametrize(
    "values",
    [[], [1.0], [1.0, math.nan], [math.inf, 1.0], [math.nan] * 5],
    ids=["0", "1", "nan", "inf", "nans"],
)
def test_fewer_than_two_numbers_or_one_that_is_not_finite_decide_nothing(
    values: list[float],
) -> None:
    found = t_interval(values)
    assert (
        math.isnan(found.low)
        and math.isnan(found.high)
        and not found.known
        and found.n == len(values)
    )
    for threshold in (-1e9, 0.0, 1.0, 1e9):
        assert (
            decide(found, threshold, "at_least")
            == decide(found, threshold, "at_most")
            == "undecided"
        )
    assert seeds_to_decide(found, lambda _: True) is None


def test_equal_values_are_a_point() -> None:
    found = t_interval([2.0, 2.0, 2.0])
    assert (found.low, found.estimate, found.high) == (2.0, 2.0, 2.0)
    assert decide(found, 2.0, "at_least") == decide(found, 2.0, "at_most") == "supported"
    assert decide(found, 2.1, "at_least") == "refuted"


@pytest.mark.parametrize(
    ("low", "high", "side", "verdict"),
    [
        (1.0, 2.0, "at_least", "supported"),
        (0.5, 0.9, "at_least", "refuted"),
        (0.5, 1.0, "at_least", "undecided"),
        (0.9, 1.1, "at_least", "undecided"),
        (0.5, 1.0, "at_most", "supported"),
        (1.1, 2.0, "at_most", "refuted"),
        (1.0, 2.0, "at_most", "undecided"),
    ],
)
def test_an_interval_decides_only_when_it_lies_wholly_on_one_side(low, high, side, verdict) -> None:
    assert decide(Interval((low + high) / 2, low, high, 5), 1.0, side) == verdict


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(-1e6, 1e6))
def test_the_two_sides_mirror_each_other(values: list[float], threshold: float) -> None:
    mirrored = t_interval([-v for v in values])
    assert decide(t_interval(values), threshold, "at_least") == decide(
        mirrored, -threshold, "at_most"
    )


def test_the_seeds_to_decide_are_the_first_number_that_would() -> None:
    found = t_interval([0.0, 1.0, 2.0, 1.5, 0.5])
    n = seeds_to_decide(found, lambda interval: decide(interval, 0.6, "at_least") != "undecided")
    spread = np.std([0.0, 1.0, 2.0, 1.5, 0.5], ddof=1)
    half = lambda k: scipy.stats.t.ppf(0.975, k - 1) * spread / math.sqrt(k)  # noqa: E731
    assert half(n) < 0.4 <= half(n - 1)
    assert (
        seeds_to_decide(
            found, lambda interval: decide(interval, found.estimate, "at_least") != "undecided"
        )
        is None
    )


def test_between_two_bounds_no_number_of_seeds_decides() -> None:
    """W1's rule: refuted only below a bound that lies under the threshold."""
    found = t_interval([0.2, 0.5, 0.3, 0.4, 0.35])
    between = lambda i: i.low >= 0.5 or i.high <= 0.1  # noqa: E731
    above = lambda i: i.low >= 0.3 or i.high <= 0.1  # noqa: E731
    assert seeds_to_decide(found, between) is None
    n = seeds_to_decide(found, above)
    spread = np.std([0.2, 0.5, 0.3, 0.4, 0.35], ddof=1)
    assert 0.35 - scipy.stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n) >= 0.3


def test_the_slope_of_a_logarithm_is_found() -> None:
    x = np.arange(1, 20)
    assert log_slope(x, 3 * np.exp(-0.25 * x)) == pytest.approx(-0.25, abs=1e-12)


# ------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize("case", GOLDENS["wilson"], ids=lambda c: f"{c['k']} of {c['n']}")
def test_wilsons_interval_is_statsmodels(case: dict) -> None:
    found = wilson(case["k"], case["n"])
    assert (found.low, found.high) == pytest.approx(case["wilson_95"], abs=1e-9)
    assert found.estimate == case["k"] / case["n"] and found.n == case["n"]


def test_wilsons_interval_is_not_the_normal_one() -> None:
    """The twin: p ± 1.96 s.e. misses the goldens, and 0 of 20 would be certain."""
    for case in GOLDENS["wilson"]:
        p, n = case["k"] / case["n"], case["n"]
        assert p + 1.959964 * math.sqrt(p * (1 - p) / n) != pytest.approx(
            case["wilson_95"][1], abs=1e-3
        )


def test_a_share_of_none_is_unknown_and_an_impossible_one_refused() -> None:
    assert not wilson(0, 0).known and not score_interval([]).known and math.isnan(half_width([]))
    for successes, n in ((-1, 3), (4, 3), (math.nan, 3)):
        with pytest.raises(ValueError, match=r"successes = .* expected 0 to n"):
            wilson(successes, n)
    for scores in ([0.5, 1.1], [-0.1], [math.nan, 1.0]):
        with pytest.raises(ValueError, match=r"scores = .* expected numbers from 0 to 1"):
            score_interval(scores)


def test_scores_of_0_and_1_give_wilsons_interval() -> None:
    found, plain = score_interval([1.0] * 30 + [0.0] * 10), wilson(30, 40)
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (0.75, plain.low, plain.high), rel=1e-12
    )


def test_contexts_all_correct_are_not_certain() -> None:
    assert half_width([1.0] * 40) == pytest.approx((1 - wilson(40, 40).low) / 2)
    assert half_width([1.0] * 40) > half_width([1.0] * 160) > 0
    assert half_width([0.0] * 40) == pytest.approx(half_width([1.0] * 40))
    naive = t_interval([1.0] * 40)  # the twin
    assert naive.high == naive.low


def alike(
    rng: np.random.Generator, p: float, n: int = 60, answers: int = 8, concentration: float = 6.0
) -> np.ndarray:
    """Return scores of contexts of 8 answers with design effect 2."""
    return rng.binomial(answers, rng.beta(p * concentration, (1 - p) * concentration, n)) / answers


@pytest.mark.parametrize("p", [0.7, 0.856, 0.97])
def test_the_interval_of_a_mean_score_covers_it(p: float) -> None:
    assert coverage(score_interval, lambda rng: alike(rng, p), p) >= 0.93


def test_the_interval_of_a_mean_score_is_little_wider_than_students() -> None:
    scores = [alike(np.random.default_rng(i), 0.856) for i in range(50)]
    student = np.mean([(i.high - i.low) / 2 for i in map(t_interval, scores)])
    assert np.mean([half_width(s) for s in scores]) == pytest.approx(student, rel=0.08)


def test_answers_of_a_context_taken_as_independent_would_be_caught() -> None:
    """The twin: eight answers a context, alike among themselves, are not eight observations."""
    naive = lambda x: wilson(8 * x.sum(), 8 * x.size)  # noqa: E731
    assert coverage(naive, lambda rng: alike(rng, 0.856), 0.856) < 0.9


# ----------------------------------------------------------------------------------------- p values


@pytest.mark.parametrize("case", GOLDENS["holm"], ids=lambda c: str(c["p"]))
def test_holms_p_values_are_statsmodels(case: dict) -> None:
    found = holm(case["p"])
    assert found == pytest.approx(case["holm_adjusted"], rel=1e-12)
    bonferroni = np.minimum(1, len(case["p"]) * np.array(case["p"]))  # the twin
    assert bonferroni != pytest.approx(case["holm_adjusted"], rel=1e-3)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(p: list[float]) -> None:
    found = holm(p)
    assert (found >= p).all() and (found <= np.minimum(1, len(p) * np.array(p) * (1 + 1e-12))).all()
    assert (np.diff(found[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_refuses_what_is_no_p_value() -> None:
    assert holm([]).size == 0
    for p in ([0.1, math.nan], [-0.1], [1.5]):
        with pytest.raises(ValueError, match="p_values = "):
            holm(p)


def test_the_paired_p_is_scipys_and_agrees_with_the_interval() -> None:
    x = [1.2, -0.3, 0.8, 2.1, 0.5]
    p = paired_p(x)
    assert p == pytest.approx(scipy.stats.ttest_1samp(x, 0).pvalue, rel=1e-12)
    assert t_interval(x, 1 - p).low == pytest.approx(0, abs=1e-9)
    normal = 2 * scipy.stats.norm.sf(np.mean(x) / (np.std(x, ddof=1) / math.sqrt(5)))  # the twin
    assert p > 1.5 * normal


def test_the_paired_p_of_the_unknown_is_unknown() -> None:
    assert all(math.isnan(paired_p(x)) for x in ([], [1.0], [1.0, math.nan], [math.inf, 1.0]))
    assert paired_p([0.0, 0.0]) == 1.0 and paired_p([2.0, 2.0]) == 0.0


# --------------------------------------------------------------------------------------- regression
