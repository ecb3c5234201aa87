"""Effects: slopes, crossings, cells and headroom, and what their intervals cover."""

import math

import numpy as np
import pandas as pd
import pytest
from observe import refuses

from farcontext.measure.stats import Interval, holm, paired_p, t_interval
from farcontext.results.claims import Crossing, Effect
from farcontext.results.effects import (
    cells,
    crossing_interval,
    headroom,
    interval,
    measured,
    slopes,
)

LEVELS = (1, 2, 4, 8, 16)
DRAWS = 1500  # Simulated tables; 93 % of them is 1,395, and 95 % has a standard error of 8.


def table(curves: pd.DataFrame, arm: str = "a") -> pd.DataFrame:
    """Return levels × seeds as a long table."""
    rows = curves.rename_axis(index="level", columns="seed").stack().rename("value").reset_index()
    return rows.assign(metric="m", arm=arm)


def line(slope: float, seeds: int = 5, start: float = 0.0, noise: float = 0.0, draw: int = 0):
    rng = np.random.default_rng(draw)
    x = np.log2(LEVELS)[:, None]
    each = slope + noise * rng.normal(size=seeds)
    return pd.DataFrame(start + x * each + noise * rng.normal(size=(5, seeds)), index=LEVELS)


def effect(**changes: object) -> Effect:
    return Effect(**({"name": "e", "where": {"metric": "m", "arm": "a"}, "at_least": 0} | changes))


def of_table(rows: pd.DataFrame, given: Effect) -> Interval:
    return interval(measured(rows, given, "demo"), given)


def test_a_slope_is_per_doubling_of_the_level() -> None:
    assert slopes(line(0.25)).to_numpy() == pytest.approx(0.25)
    answer = of_table(table(line(0.25)), effect(slope="level"))
    assert (answer.estimate, answer.n) == (pytest.approx(0.25), 5)
    # A rival's slope is subtracted level by level, seed by seed.
    both = pd.concat([table(line(0.25)), table(line(0.1), "b")])
    less = of_table(both, effect(slope="level", minus={"arm": "b"}))
    assert less.estimate == pytest.approx(0.15)
    assert math.isnan(slopes(line(0.25).iloc[:1])[0])


def test_a_seed_that_lacks_a_level_has_no_slope() -> None:
    rows = table(line(0.25))
    holed = rows.drop(rows[(rows["seed"] == 2) & (rows["level"] == 4)].index)
    assert of_table(holed, effect(slope="level")).n == 4


def test_a_crossing_is_where_the_curve_stays_beyond() -> None:
    curves = line(0.25, noise=1e-6)
    at = crossing_interval(curves, Crossing(on="level", at=0.5), 0.95)
    # Straight lines join the levels: 0.25 at 2, 0.5 at 4.
    assert at.estimate == pytest.approx(4, abs=0.05)
    assert at.low <= 4 <= at.high
    assert crossing_interval(curves, Crossing(on="level", at=-1), 0.95).estimate == 1
    assert crossing_interval(curves, Crossing(on="level", at=9), 0.95).estimate == math.inf
    falls = crossing_interval(-curves, Crossing(on="level", at=-0.5, falls=True), 0.95)
    assert falls.estimate == pytest.approx(4, abs=0.05)


def test_a_curve_that_dips_again_has_crossed_only_after_the_dip() -> None:
    dips = pd.DataFrame([[0.0] * 5, [1.0] * 5, [0.0] * 5, [1.0] * 5, [1.0] * 5], index=LEVELS)
    dips += 1e-6 * np.random.default_rng(0).normal(size=(5, 5))
    assert crossing_interval(dips, Crossing(on="level", at=0.5), 0.95).estimate > 4


def test_one_seed_or_one_level_has_no_crossing() -> None:
    for curves in (line(0.25).iloc[:, :1], line(0.25).iloc[:1]):
        answer = crossing_interval(curves, Crossing(on="level", at=0.5), 0.95)
        assert math.isnan(answer.low) and not answer.known


def test_cells_are_effects_of_their_own_and_what_is_not_there_is_not_left_out() -> None:
    each = effect(each=("level",))
    assert [cell.name for cell in cells(table(line(0.25)), each, "demo")] == [
        f"e: level {level}" for level in LEVELS
    ]
    (alone,) = cells(table(line(0.25)).iloc[:0], each, "demo")
    assert math.isnan(of_table(table(line(0.25)).iloc[:0], alone).low)
    with refuses("claims.yaml: demo: colour: expected a column"):
        list(cells(table(line(0.25)), effect(each=("colour",)), "demo"))


def test_headroom_follows_from_the_other_arm() -> None:
    both = pd.concat([table(line(0.0, start=0.5)), table(line(0.0, start=0.98), "b")])
    room = headroom(both, effect(minus={"arm": "b"}, bounds=(0, 1), times=100), "demo")
    assert (room.worst.estimate, room.best.estimate) == (pytest.approx(-98), pytest.approx(2))
    room = headroom(both, effect(minus={"arm": "b"}, bounds=(0, 1), times=-1), "demo")
    assert (room.worst.estimate, room.best.estimate) == (pytest.approx(-0.02), pytest.approx(0.98))
    assert not headroom(both, effect(), "demo").known


# --------------------------------------------------------------------------------- what they cover


def covered(true: float, draw) -> float:
    """Return the share of simulated tables whose interval holds the truth."""
    hits = 0
    for number in range(DRAWS):
        answer = draw(number)
        hits += answer.low <= true <= answer.high
    return hits / DRAWS


@pytest.mark.parametrize("seeds", [5, 8])
def test_a_slopes_interval_covers(seeds: int) -> None:
    share = covered(
        0.2, lambda number: t_interval(list(slopes(line(0.2, seeds, noise=0.1, draw=number))))
    )
    assert share >= 0.93


@pytest.mark.parametrize("seeds", [5, 8])
def test_a_crossings_interval_covers(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean curve 0.25 · log2(level), joined by straight lines, crosses 0.6 at 5.6."""
    monkeypatch.setattr("farcontext.results.effects.STEPS", 15)
    rule = Crossing(on="level", at=0.6)
    true = 4 + 4 * (0.6 - 0.5) / 0.25
    share = covered(
        true,
        lambda number: crossing_interval(line(0.25, seeds, noise=0.08, draw=number), rule, 0.95),
    )
    assert share >= 0.93


def seed_and_items(number: int, *, anew: bool, seeds: int = 5, items: int = 20) -> list[float]:
    """Return paired differences of two readers whose true difference is 0.1.

    Items differ in difficulty, and in how much one reader is better: those of a seed are its own,
    or all seeds share one set.
    """
    rng = np.random.default_rng(number)
    shape = (seeds if anew else 1, items)
    harder = 0.1 + 0.3 * rng.normal(size=shape)
    return list((harder + 0.1 * rng.normal(size=(seeds, items))).mean(axis=1))


def test_items_drawn_anew_for_each_seed_are_covered_and_shared_ones_are_not() -> None:
    share = {
        anew: covered(0.1, lambda n, anew=anew: t_interval(seed_and_items(n, anew=anew)))
        for anew in (True, False)
    }
    assert share[True] >= 0.93
    assert share[False] < 0.8


def test_holms_cells_err_together_less_often_than_five_percent() -> None:
    """Ten cells without any effect: at least one decides in at most 5 % of tables, and 2 s.e."""
    rng = np.random.default_rng(5)
    wrong = np.array([[paired_p(row) for row in rng.normal(size=(10, 8))] for _ in range(DRAWS)])
    adjusted = np.array([holm(row).min() for row in wrong])
    bare = wrong.min(axis=1)
    assert (adjusted < 0.05).mean() < 0.05 + 2 * math.sqrt(0.05 * 0.95 / DRAWS)
    assert (bare < 0.05).mean() > 0.3


def test_two_sided_bounds_err_less_often_than_five_percent() -> None:
    """A slope on the very edge of its bounds is called equivalent in at most 2.5 % of tables."""
    within = 0
    for number in range(DRAWS):
        answer = t_interval(list(slopes(line(0.1, 8, noise=0.02, draw=number))))
        within += answer.low >= -0.1 and answer.high <= 0.1
    assert within / DRAWS < 0.025 + 2 * math.sqrt(0.025 * 0.975 / DRAWS)
