"""Intervals, and what an interval says about a threshold.

The module consists of pure functions of arrays, and needs no torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
MOST_SEEDS = 10_000
PRIOR = 0.25
Side = Literal["at_least", "at_most"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    It rests on `n` independent observations (seeds, or documents). NaN bounds are unknown.
    """

    estimate: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether no number is NaN; a crossing may lie at infinity."""
        return not any(math.isnan(x) for x in (self.estimate, self.low, self.high))


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return Student's t interval of a mean.

    Args:
        values: one paired effect a seed, documents averaged first.

    Fewer than two values, or any that is not finite, give NaN bounds, never a verdict. Equal values
    give a point.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2 or not np.isfinite(x).all():
        return Interval(float(x.mean()) if x.size else math.nan, math.nan, math.nan, int(x.size))
    half = half_widths(x[None], confidence)[0]
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half), int(x.size))


def half_widths(values: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return half the width of Student's t interval of each row's mean.

    Args:
        values: (…, n), n at least 2.
    """
    n = values.shape[-1]
    quantile = scipy.stats.t.ppf(0.5 + confidence / 2, n - 1)
    return quantile * values.std(axis=-1, ddof=1) / math.sqrt(n)


def wilson(successes: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval of a share (1927).

    It never has width zero, and never leaves [0, 1].

    `n` need not be whole: an effective number of answers will do. None at all give NaN bounds. Its
    `n` is rounded.

    Raises:
        ValueError: successes below 0 or above n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes}: expected 0 to n = {n}")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    z2 = scipy.stats.norm.ppf(0.5 + confidence / 2) ** 2
    p = successes / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * p * (1 - p) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    return Interval(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), round(n))


def score_interval(scores: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of a mean of scores in [0, 1].

    There is one score for each context. The interval is Wilson's at the effective number of
    answers.

    A context's score is itself a mean of answers, alike among themselves. A context then counts for
    p(1 − p) / variance answers: 1 where its answers agree entirely (or it is one answer), m where m
    are independent. Both moments include PRIOR contexts scored 0 and PRIOR scored 1, so that
    contexts all correct count for one answer each and do not give a width of zero. What it covers:
    benchmarks/effective_length_coverage.py. `n` is the number of contexts.

    Raises:
        ValueError: a score outside [0, 1], or not finite.
    """
    x = np.asarray(scores, dtype=np.float64)
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"scores = {x.min()} to {x.max()}: expected numbers from 0 to 1")
    if x.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    p = (x.sum() + PRIOR) / (x.size + 2 * PRIOR)
    variance = (np.square(x).sum() + PRIOR) / (x.size + 2 * PRIOR) - p**2
    n = x.size * p * (1 - p) / variance
    found = wilson(x.mean() * n, n, confidence)
    return Interval(float(x.mean()), found.low, found.high, int(x.size))


def half_width(scores: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Return half the width of `score_interval`.

    A caller samples further contexts until it is small enough. It is NaN without any context.
    """
    found = score_interval(scores, confidence)
    return (found.high - found.low) / 2


def decide(
    interval: Interval, threshold: float, side: Side
) -> Literal["supported", "refuted", "undecided"]:
    """Say on which side of the threshold an interval lies.

    It lies wholly on the claimed side, wholly on the other, or across the threshold.
    """
    if not interval.known:
        return "undecided"
    inside, outside = (interval.low >= threshold, interval.high < threshold)
    if side == "at_most":
        inside, outside = (interval.high <= threshold, interval.low > threshold)
    return "supported" if inside else "refuted" if outside else "undecided"


def seeds_to_decide(
    interval: Interval, decides: Callable[[Interval], bool], confidence: float = CONFIDENCE
) -> int | None:
    """Return the number of seeds at which an interval would decide.

    The interval has this spread, and is centred as now.

    Args:
        decides: the very rule that gives the verdict, two-sided bounds included; True when it
            decides.

    None when the spread is unknown, or fewer than MOST_SEEDS would not do: the estimate lies on a
    threshold or between two bounds.
    """
    if not interval.known or interval.n < 2:
        return None
    half = (interval.high - interval.low) / 2
    s = half * math.sqrt(interval.n) / scipy.stats.t.ppf(0.5 + confidence / 2, interval.n - 1)
    n = np.arange(2, MOST_SEEDS)
    halves = scipy.stats.t.ppf(0.5 + confidence / 2, n - 1) * s / np.sqrt(n)
    x = interval.estimate
    found = (
        int(k) for k, h in zip(n, halves, strict=True) if decides(Interval(x, x - h, x + h, int(k)))
    )
    return next(found, None)


def log_slope(distance: Sequence[float], size: Sequence[float]) -> float:
    """Return the least-squares slope of ln(size) against distance (per unit of distance)."""
    return float(np.polyfit(np.asarray(distance, float), np.log(np.asarray(size, float)), 1)[0])


def paired_p(effects: Sequence[float]) -> float:
    """Return Student's two-sided p that paired effects have mean zero.

    There is one effect for each seed, and the test is the t test.

    Fewer than two effects, or any that is not finite, give NaN; effects all zero give 1.
    """
    x = np.asarray(effects, dtype=np.float64)
    if x.size < 2 or not np.isfinite(x).all():
        return math.nan
    error = x.std(ddof=1) / math.sqrt(x.size)
    if error == 0:
        return float(x[0] == 0)
    return float(2 * scipy.stats.t.sf(abs(x.mean()) / error, x.size - 1))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p values adjusted for their number, in the order given.

    The method is Holm's step-down method (1979).

    Raises:
        ValueError: a p value outside [0, 1], or NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values = {p_values}: expected numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((p.size - np.arange(p.size)) * p[order]))
    return adjusted
