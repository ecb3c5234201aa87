"""How far tables made here agree with the published ones.

Rows that are exact by nature are held to a tolerance. Trained numbers differ from CPU to CPU, seed
by seed, and only what all seeds share says that something changed: so means are compared, and a
shift counts when the paired differences exclude zero after Holm's correction. A shift of half of a
claim's margin is noticed (a test shifts each claim's rows).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from farcontext.files import UserError
from farcontext.measure.stats import CONFIDENCE, Interval, holm, paired_p, t_interval
from farcontext.results import effects, tables
from farcontext.results.claims import Claim, Claims

TINY = 1e-4  # A shift below this share of the number is rounding, however regular.


@dataclass(frozen=True)
class Comparison:
    """One table held against its published twin."""

    name: str
    within: int  # Rows within tolerance, or means each within the other's interval.
    of: int
    moved: tuple[str, ...]  # What differs by more than its tolerance or its seeds explain.


@dataclass(frozen=True)
class _Pair:
    """A number's values by seed, here and as published."""

    name: str
    ours: pd.Series
    theirs: pd.Series

    @property
    def shifts(self) -> pd.Series:
        return (self.ours - self.theirs).dropna()

    @property
    def intervals(self) -> tuple[Interval, Interval]:
        return t_interval(list(self.ours)), t_interval(list(self.theirs))

    @property
    def agrees(self) -> bool:
        """Whether each mean lies within the other's interval."""
        one, other = self.intervals
        slack = TINY * max(1.0, abs(other.estimate))
        return all(
            a.low - slack <= b.estimate <= a.high + slack for a, b in ((one, other), (other, one))
        )

    @property
    def p(self) -> float:
        """How likely the seeds alone give such a shift.

        It is 0 for what is missing here.
        """
        if not len(self.ours):
            return 0.0
        if len(self.shifts) < 2:  # A share of nothing is not a number, on one machine or on both.
            return 1.0
        if abs(self.shifts.mean()) <= TINY * max(1.0, abs(self.theirs.mean())):
            return 1.0
        return paired_p(list(self.shifts))

    def __str__(self) -> str:
        one, other = (f"{values.mean():.6g}" for values in (self.ours, self.theirs))
        return f"{self.name}: {one}, published {other}"


def exact_rows(
    ours: pd.DataFrame, theirs: pd.DataFrame, study: str, tolerance: float
) -> Comparison:
    """Count the published rows that a new table meets.

    It meets a row where |difference| ≤ tolerance · max(1, |published|). A published row that the
    new table lacks counts as missed.
    """
    keys = _keys(theirs, study)
    merged = theirs.merge(ours, on=keys, how="left", suffixes=("", "_new"))
    off = (merged["value_new"] - merged["value"]).abs() / np.maximum(1.0, merged["value"].abs())
    good = off <= tolerance
    moved: tuple[str, ...] = ()
    if not good.all():
        row = merged.loc[off.fillna(np.inf).idxmax()]
        words = _words({key: row[key] for key in keys})
        moved = (f"{words}: {row['value_new']:.6g}, published {row['value']:.6g}",)
    return Comparison(study, int(good.sum()), len(merged), moved)


def means(ours: pd.DataFrame, theirs: pd.DataFrame, study: str) -> Comparison:
    """Compare all numbers that a table has for at least two seeds.

    A table whose columns changed has moved as a whole.
    """
    if changed := set(ours.columns) ^ set(theirs.columns):
        return Comparison(study, 0, len(theirs), (f"other columns: {', '.join(sorted(changed))}",))
    keys = [key for key in _keys(theirs, study) if key != "seed"]
    here, there = (_by_seed(table, keys) for table in (ours, theirs))
    pairs = [
        _Pair(name, here.get(name, values.iloc[:0]), values)
        for name, values in there.items()
        if len(values) > 1 and values.notna().all()
    ]
    return _compared(study, pairs)


def _by_seed(table: pd.DataFrame, keys: list[str]) -> dict[str, pd.Series]:
    """Return, by what its other columns say, each number's values over seeds."""
    return {
        _words(dict(zip(keys, values, strict=True))): rows.set_index("seed")["value"]
        for values, rows in table.groupby(keys, dropna=False)
    }


def estimates(
    claims: Claims, ours: Mapping[str, pd.DataFrame], theirs: Mapping[str, pd.DataFrame]
) -> Comparison:
    """Compare the effects of every claim that seeds decide.

    Those of a study whose table has other columns now are left out: `means` names it.

    Args:
        claims: all of claims.yaml.
        ours: study → the table made here.
        theirs: study → the published one.
    """
    pairs = [
        pair
        for name, claim in claims.claims.items()
        if claim.decided_by == "interval"
        and claim.study in set(theirs) - set(claims.exact)
        and set(ours[claim.study].columns) == set(theirs[claim.study].columns)
        for pair in _effects(name, claim, ours[claim.study], theirs[claim.study])
    ]
    return _compared("claims", pairs)


def _effects(name: str, claim: Claim, ours: pd.DataFrame, theirs: pd.DataFrame) -> Iterable[_Pair]:
    """Yield each effect's numbers, those of a curve level by level."""
    for effect in claim.effects:
        for cell in effects.cells(theirs, effect, claim.study):
            on = cell.slope or (cell.crossing and cell.crossing.on)
            by = (on,) if on else ()
            both = [effects.per_seed(table, cell, claim.study, by) for table in (ours, theirs)]
            levels = both[1].index.get_level_values(0).unique() if on else (None,)
            for level in levels:
                here, there = (x.xs(level) if on and level in x.index else x for x in both)
                yield _Pair(f"{name}: {cell.name}", here, there)


def _compared(name: str, pairs: list[_Pair]) -> Comparison:
    adjusted = holm([pair.p for pair in pairs])
    moved = [str(pair) for pair, p in zip(pairs, adjusted, strict=True) if p < 1 - CONFIDENCE]
    return Comparison(name, sum(pair.agrees for pair in pairs), len(pairs), tuple(moved))


def _keys(table: pd.DataFrame, study: str) -> list[str]:
    keys = [column for column in table.columns if column != "value"]
    if table.duplicated(keys).any():
        raise UserError(f"{study}: expected one row for each {', '.join(keys)}")
    return keys


def _words(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if pd.notna(value))


def read_all(claims: Claims, base: Path) -> dict[str, pd.DataFrame]:
    """Read the tables of all claims' studies from a folder.

    It may lack some.
    """
    studies = dict.fromkeys(claim.study for claim in claims.claims.values())
    return {
        study: tables.read_table(tables.path_in(base, study))
        for study in studies
        if tables.path_in(base, study).is_file()
    }
