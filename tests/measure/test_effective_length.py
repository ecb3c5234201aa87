"""An effective length is where the curve crosses.

Its interval holds the true one, and a model at chance has none.
"""

import math
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcontext.measure.effective_length import STEPS, crossing, effective_length, margin
from farcontext.measure.stats import score_interval, wilson

COVERAGE = Path(__file__).parent.parent.parent / "benchmarks" / "effective_length_coverage.py"
LENGTHS = (64, 128, 256, 512)


def share_right(p: float, n: int = 60) -> list[float]:
    """Return n scores of 0 or 1 with mean p."""
    return [1.0] * round(p * n) + [0.0] * (n - round(p * n))


# ----------------------------------------------------------------------------------------- crossing


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([1.0, 0.9, 0.7, 0.1], 128 * math.sqrt(2)),
        ([1.0, 0.9, 0.8, 0.1], 256),
        ([1.0, 0.9, 0.8, 0.0], 256),
        ([1.0, 0.6, 0.9, 1.0], 64 * math.sqrt(2)),
        ([0.7, 0.9, 0.9, 0.9], 0),
        ([0.9, 0.9, 0.9, 0.8], math.inf),
    ],
    ids=["between", "at a length", "steeply", "a later rise", "none", "never"],
)
def test_a_curve_crosses_where_it_first_falls_below(curve: list[float], expected: float) -> None:
    assert crossing(LENGTHS, curve, 0.8) == pytest.approx(expected, rel=1e-12)


def test_interpolation_is_on_the_logarithm_of_length() -> None:
    """Interpolated on the length itself, halfway between 128 and 256 would be 192."""
    assert crossing((128, 256), (0.9, 0.7), 0.8) == pytest.approx(math.sqrt(128 * 256), rel=1e-12)


@pytest.mark.parametrize(
    ("lengths", "curve", "named"),
    [
        ((), (), "lengths"),
        ((64, 64), (1, 1), "lengths"),
        ((128, 64), (1, 1), "lengths"),
        ((0, 64), (1, 1), "lengths"),
        ((64, 128), (1,), "curve"),
        ((64, 128), (1, math.nan), "curve"),
    ],
)
def test_lengths_ascend_and_each_has_a_score(lengths, curve, named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} = .*: expected"):
        crossing(lengths, curve, 0.5)


# --------------------------------------------------------------------------------- effective length


def test_the_effective_length_is_the_crossing_at_85_6_per_cent_of_the_first_score() -> None:
    scores = [share_right(p) for p in (1.0, 0.95, 0.8, 0.3)]
    found = effective_length(LENGTHS, scores)
    assert found.checked and not found.at_least and found.reason == "" and found.threshold == 0.856
    assert found.length == pytest.approx(crossing(LENGTHS, [1.0, 0.95, 0.8, 0.3], 0.856))
    assert 64 < found.low < found.length < found.high < 512


def test_the_threshold_is_relative_unless_it_is_absolute() -> None:
    scores = [share_right(p, 100) for p in (0.96, 0.9, 0.84, 0.5)]
    relative, absolute = (
        effective_length(LENGTHS, scores),
        effective_length(LENGTHS, scores, absolute=0.856),
    )
    assert relative.threshold == pytest.approx(0.856 * 0.96) and absolute.threshold == 0.856
    assert 128 < absolute.length < 256 < relative.length < 512
    assert effective_length(LENGTHS, scores, share=0.5).at_least


def test_the_margins_bounds_at_tested_lengths_are_those_of_a_difference_of_shares() -> None:
    """For share = 1 the two methods are one.

    The values are of Newcombe (1998), method 10, on his 56 of 70 against 48 of 80.
    """
    first, second = wilson(56, 70), wilson(48, 80)
    fine, lower, upper = margin((64, 128), [first, second], 1.0)
    assert (fine[0], fine[-1], len(fine)) == (pytest.approx(64), pytest.approx(128), STEPS + 1)
    assert (-upper[-1], -lower[-1]) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert (lower[0], upper[0]) == pytest.approx((0, 0), abs=1e-12)  # a score less itself is known


def test_between_tested_lengths_two_scores_average_their_errors() -> None:
    """The twin: the bounds of the two lengths, joined by a line, would be wider."""
    fine, lower, upper = margin(LENGTHS, [wilson(k, 60) for k in (59, 55, 40, 20)], 0.856)
    at = np.arange(1, 3) * STEPS
    middle = (at[0] + at[1]) // 2
    assert fine[middle] == pytest.approx(math.sqrt(128 * 256))
    assert upper[middle] - lower[middle] < 0.85 * np.mean(upper[at] - lower[at])


def test_the_low_end_is_where_the_scores_own_interval_falls_below_an_absolute_threshold() -> None:
    """At a tested length the two readings are one.

    They are the interval's low end, and scores whose low ends are above.
    """
    scores = [share_right(p, 100) for p in (1.0, 0.95, 0.9, 0.5)]
    third = score_interval(scores[2]).low
    assert effective_length(LENGTHS, scores, absolute=third - 1e-6).low >= 256
    assert effective_length(LENGTHS, scores, absolute=third + 1e-6).low < 256


def test_a_curve_that_never_falls_gives_a_lower_bound_only() -> None:
    found = effective_length(LENGTHS, [share_right(1.0)] * 4)
    assert (found.length, found.low, found.high, found.at_least) == (512, 512, math.inf, True)
    weak = effective_length(LENGTHS, [share_right(p, 20) for p in (1.0, 1.0, 1.0, 0.9)])
    assert weak.at_least and weak.low < 512 and weak.high == math.inf
    assert effective_length((64,), [share_right(1.0)]).at_least


def test_a_model_at_chance_has_no_effective_length() -> None:
    """The twin: without the floor, a model at chance would hold out to the last length."""
    scores = [share_right(0.5)] * 4
    found = effective_length(LENGTHS, scores)
    assert not found.checked and not found.at_least
    assert all(math.isnan(x) for x in (found.length, found.low, found.high))
    assert found.reason == "score 0.500 at the shortest length, 64, is below the floor, 0.950"
    assert effective_length(LENGTHS, scores, floor=0.0).at_least
    below = effective_length(LENGTHS, scores, floor=0.4, absolute=0.856)
    assert not below.checked and "below the threshold, 0.856" in below.reason


def test_scores_are_needed_at_each_length() -> None:
    for scores in ([], [share_right(1.0), []]):
        with pytest.raises(ValueError, match="expected at least one a length"):
            effective_length(LENGTHS[: len(scores)], scores)
    with pytest.raises(ValueError, match=r"curve = .* expected 4"):
        effective_length(LENGTHS, [share_right(1.0)] * 3)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=4),
    st.booleans(),
)
def test_the_interval_holds_the_estimate(scores: list[list[float]], absolute: bool) -> None:
    found = effective_length(
        LENGTHS[: len(scores)], scores, floor=0.0, absolute=0.5 if absolute else None
    )
    if found.checked:
        assert found.low * (1 - 1e-9) <= found.length <= found.high * (1 + 1e-9)
        assert found.at_least <= (found.high == math.inf)


# ----------------------------------------------------------------------------------------- coverage


@pytest.fixture(scope="module")
def simulation() -> dict:
    return runpy.run_path(str(COVERAGE))


def coverage(simulation: dict, confidence: float) -> float:
    """Return how often the interval holds the true effective length of 200 known curves."""
    families = [f for f in simulation["FAMILIES"] if f != "near"]
    kinds = [(family, tier) for family in families for tier in simulation["TIERS"]]
    found = pd.concat(simulation["simulated"](*kind, 20, confidence) for kind in kinds)
    assert len(found) == 200
    return float(found["covers"].mean())


def test_the_interval_holds_the_true_effective_length(simulation: dict) -> None:
    assert coverage(simulation, 0.95) >= 0.9


def test_an_interval_half_as_wide_would_be_caught(simulation: dict) -> None:
    """The twin: at 67.3 % each bound stands half as far from its mean."""
    assert coverage(simulation, 0.673) < 0.89


def test_a_curve_near_the_threshold_is_where_the_bootstrap_fails(simulation: dict) -> None:
    found = (
        simulation["simulated"]("near", "probe", 100, bootstrap=True)
        .groupby("method")["covers"]
        .mean()
    )
    assert found["interval"] >= 0.89 and found["interval"] - found["bootstrap"] > 0.05


def test_the_simulations_answers_have_the_design_effect_they_name(simulation: dict) -> None:
    rng = np.random.default_rng(2)
    scores = simulation["contexts"](0.8, 20_000, 8, 2.0, rng)
    assert scores.mean() == pytest.approx(0.8, abs=0.01)
    assert scores.var() / (0.8 * 0.2 / 8) == pytest.approx(2.0, rel=0.05)
