"""From a table to numbers with intervals: means, slopes, crossings, cells.

Each kind gives one interval at a confidence of the caller's choice, so that one rule decides for
all of them, adjusted for the number of effects or not. What the intervals cover is simulated in
tests/results/test_effects.py.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from farcontext.files import UserError
from farcontext.measure.stats import CONFIDENCE, Interval, half_widths, t_interval
from farcontext.results.claims import Crossing, Effect

STEPS = 200  # A crossing is looked for at so many places between two levels.


NO_WORST = Interval(-math.inf, -math.inf, -math.inf, 0)
NO_BEST = Interval(math.inf, math.inf, math.inf, 0)


@dataclass(frozen=True)
class Headroom:
    """The worst and the best that an effect can be.

    They follow from the other arm, and are infinite if unknown. An arm at its bound has no spread,
    so their intervals have that of the other arm alone.
    """

    worst: Interval = NO_WORST
    best: Interval = NO_BEST

    @property
    def known(self) -> bool:
        """Whether there are bounds, and seeds for their intervals."""
        return math.isfinite(self.worst.low) and math.isfinite(self.best.high)


def rows_where(table: pd.DataFrame, where: Mapping[str, object], study: str) -> pd.DataFrame:
    """Return the rows of a table whose columns have these values.

    Raises:
        UserError: a column that the table lacks.
    """
    for column, value in where.items():
        if column not in table.columns:
            raise UserError(
                f"claims.yaml: {study}: {column}: expected a column of its table: "
                f"{', '.join(table.columns)}"
            )
        table = table[table[column] == value]
    return table


def cells(table: pd.DataFrame, effect: Effect, study: str) -> Iterator[Effect]:
    """Yield the effect of each cell, or the effect itself.

    Cells are those of the columns in `each`.
    """
    if not effect.each:
        yield effect
        return
    rows = rows_where(table, effect.where, study)
    rows_where(rows, dict.fromkeys(effect.each), study)  # It refuses a column that is not there.
    known = rows[list(effect.each)].dropna().drop_duplicates()
    if known.empty:  # What is not there decides nothing, and must not go unnoticed.
        yield effect.model_copy(update={"each": ()})
    for cell in known.sort_values(list(effect.each)).to_dict("records"):
        plain = {column: _plain(value) for column, value in cell.items()}
        words = ", ".join(f"{column} {value}" for column, value in plain.items())
        changes = {"name": f"{effect.name}: {words}", "where": effect.where | plain, "each": ()}
        yield effect.model_copy(update=changes)


def _plain(value: Any) -> str | int | float:
    """Return a cell's value without pandas' type; a whole number is one."""
    value = getattr(value, "item", lambda: value)()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def per_seed(
    table: pd.DataFrame, effect: Effect, study: str, by: tuple[str, ...] = ()
) -> pd.Series:
    """Return an effect's number for each seed.

    There is one for each value of the columns in `by`, too. Everything else is averaged first;
    numbers are paired where the effect subtracts an arm.
    """
    keys = [*by, "seed"]
    values = rows_where(table, effect.where, study).groupby(keys)["value"].mean()
    if effect.minus is not None:
        other = rows_where(table, {**effect.where, **effect.minus}, study)
        values = values.sub(other.groupby(keys)["value"].mean(), fill_value=None).dropna()
    return effect.times * values


def _curves(table: pd.DataFrame, effect: Effect, study: str, on: str) -> pd.DataFrame:
    """Return levels × seeds of an effect.

    Seeds that lack a level are left out.
    """
    rows_where(table, {on: 0}, study)  # It refuses a column that is not there.
    return per_seed(table, effect, study, (on,)).unstack("seed").dropna(axis=1).sort_index()


def slopes(curves: pd.DataFrame) -> pd.Series:
    """Return each seed's slope per doubling of the level.

    Args:
        curves: levels × seeds. Levels must be positive.

    Least squares; a single level gives NaN.
    """
    if len(curves) < 2 or not len(curves.columns):
        return pd.Series(math.nan, curves.columns)
    levels = np.log2(curves.index.to_numpy(dtype=np.float64))
    return pd.Series(np.polyfit(levels, curves.to_numpy(), 1)[0], curves.columns)


def crossing_interval(curves: pd.DataFrame, crossing: Crossing, confidence: float) -> Interval:
    """Return the level where a mean curve reaches a value.

    From there on it stays at the value or beyond.

    Args:
        curves: levels × seeds, joined by straight lines.

    The bounds are where the curve's two pointwise bounds do the same, so the interval is the set of
    levels at which the value cannot be excluded (Fieller's idea). Infinite: never in this range.
    A lower bound at the first level may lie below the range. Fewer than two seeds give NaN.
    """
    n = len(curves.columns)
    if n < 2 or len(curves) < 2:
        return Interval(math.nan, math.nan, math.nan, n)
    levels = curves.index.to_numpy(dtype=np.float64)
    x = np.unique(np.concatenate([np.linspace(a, b, STEPS) for a, b in itertools.pairwise(levels)]))
    sign = -1.0 if crossing.falls else 1.0
    over = sign * (np.column_stack([np.interp(x, levels, curves[s]) for s in curves]) - crossing.at)
    middle = over.mean(axis=1)
    half = half_widths(over, confidence)

    def first(heights: np.ndarray) -> float:
        """Return the first level from which on all heights are positive."""
        below = np.flatnonzero(heights < 0)
        start = below[-1] + 1 if below.size else 0
        return float(x[start]) if start < x.size else math.inf

    return Interval(first(middle), first(middle + half), first(middle - half), n)


def measured(table: pd.DataFrame, effect: Effect, study: str) -> pd.Series | pd.DataFrame:
    """Return what an effect's interval is made of.

    It is one number a seed, or for a crossing a curve a seed (levels × seeds).
    """
    if effect.crossing is not None:
        return _curves(table, effect, study, effect.crossing.on)
    if effect.slope is not None:
        return slopes(_curves(table, effect, study, effect.slope))
    return per_seed(table, effect, study)


def interval(
    values: pd.Series | pd.DataFrame, effect: Effect, confidence: float = CONFIDENCE
) -> Interval:
    """Return an effect's estimate with its interval over seeds.

    Args:
        values: as `measured` returns them.
        effect: what they measure.
        confidence: of the interval.
    """
    if effect.crossing is not None:
        return crossing_interval(values, effect.crossing, confidence)
    return t_interval(list(values), confidence)


def headroom(table: pd.DataFrame, effect: Effect, study: str) -> Headroom:
    """Return the worst and the best that an effect could be.

    They follow from the other arm. Unknown (infinite) without `bounds`, and for slopes and
    crossings, whose range the levels set.
    """
    if effect.bounds is None or effect.slope or effect.crossing:
        return Headroom()
    if effect.minus is None:
        ends = [Interval(x, x, x, 0) for x in (effect.times * bound for bound in effect.bounds)]
    else:
        other = rows_where(table, {**effect.where, **effect.minus}, study)
        given = other.groupby("seed")["value"].mean()
        given = given[given.index.isin(per_seed(table, effect, study).index)]
        ends = [t_interval(list(effect.times * (bound - given))) for bound in effect.bounds]
    return Headroom(*sorted(ends, key=lambda end: end.estimate))
