"""Paired comparisons of two arms, for notebooks 10 and 11."""

from collections.abc import Sequence

import pandas as pd

from farcontext.measure.stats import t_interval

TIED = "not told apart"


def compared(
    one: pd.DataFrame, other: pd.DataFrame, by: Sequence[str], names: tuple[str, str]
) -> pd.DataFrame:
    """Return how two arms differ, a row for each value of `by`.

    The difference is one − other, on the same seeds, with its 95 % interval. more: which arm has
    the larger value, if the interval leaves out zero.

    Args:
        one, other: rows of one metric, with seed and value.
        by: columns; the rows of `other` may lack some of them, and then serve all of their values.
        names: what the two arms are called.
    """
    shared = [column for column in by if other[column].nunique() > 1]
    pairs = one.merge(other[[*shared, "seed", "value"]], on=[*shared, "seed"])
    pairs["gap"] = pairs["value_x"] - pairs["value_y"]
    rows = []
    for place, at in pairs.groupby(list(by)):
        gap = t_interval(list(at["gap"]))
        more = names[0] if gap.low > 0 else names[1] if gap.high < 0 else TIED
        rows.append(
            dict(zip(by, place, strict=True))
            | {names[0]: at["value_x"].mean(), names[1]: at["value_y"].mean()}
            | {"difference": gap.estimate, "low": gap.low, "high": gap.high, "more": more}
        )
    return pd.DataFrame(rows).set_index(list(by))


def told(table: pd.DataFrame, words: str, unit: str) -> str:
    """Return in words where which arm has more, and by how much.

    Args:
        table: what `compared` returns, by one column.
        words: what it means that an arm has more, with {} for the arm's name.
        unit: of the differences.
    """
    parts, column = [], table.index.names[0]
    for more, at in table.groupby("more", sort=False):
        levels = ", ".join(f"{level:g}" for level in at.index)
        low, high = (f"{end:+.0f}" for end in (at["difference"].min(), at["difference"].max()))
        span = low if low == high else f"{low} to {high}"
        said = more if more == TIED else words.format(more)
        parts.append(f"{said} with {levels} {column} ({span} {unit})")
    return "; ".join(parts)
