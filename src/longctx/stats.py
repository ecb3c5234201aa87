"""Intervals, and what an interval says about a threshold. Pure functions of arrays; no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
MOST_SEEDS = 10_000
Side = Literal["at_least", "at_most"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; `n` independent observations (seeds, or documents). NaN bounds: unknown."""

    estimate: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether all three numbers are finite."""
        return all(math.isfinite(x) for x in (self.estimate, self.low, self.high))


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return Student's t interval of a mean.

    Args:
        values: one paired effect a seed, documents averaged first.

    Fewer than two values, or any that is not finite, give NaN bounds, never a verdict. Equal values give a point.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2 or not np.isfinite(x).all():
        return Interval(float(x.mean()) if x.size else math.nan, math.nan, math.nan, int(x.size))
    half = scipy.stats.t.ppf(0.5 + confidence / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size)
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half), int(x.size))


def bootstrap_interval(values: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Return the BCa bootstrap interval of a mean over documents, for one fixed checkpoint (Efron 1987)."""
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2 or not np.isfinite(x).all() or np.ptp(x) == 0:
        return t_interval(x, confidence)
    result = scipy.stats.bootstrap((x,), np.mean, confidence_level=confidence, n_resamples=9_999, rng=seed)
    low, high = result.confidence_interval
    return Interval(float(x.mean()), float(low), float(high), int(x.size))


def decide(interval: Interval, threshold: float, side: Side) -> Literal["supported", "refuted", "undecided"]:
    """Say where an interval lies: wholly on the claimed side of the threshold, wholly on the other, or across it."""
    if not interval.known:
        return "undecided"
    inside, outside = (interval.low >= threshold, interval.high < threshold)
    if side == "at_most":
        inside, outside = (interval.high <= threshold, interval.low > threshold)
    return "supported" if inside else "refuted" if outside else "undecided"


def seeds_to_decide(interval: Interval, threshold: float, confidence: float = CONFIDENCE) -> int | None:
    """Return the number of seeds at which an interval of this spread, centred as now, would exclude the threshold.

    None when the spread is unknown, the estimate lies on the threshold, or it would take MOST_SEEDS or more.
    """
    distance = abs(interval.estimate - threshold)
    if not interval.known or interval.n < 2 or distance == 0:
        return None
    half = (interval.high - interval.low) / 2
    s = half * math.sqrt(interval.n) / scipy.stats.t.ppf(0.5 + confidence / 2, interval.n - 1)
    n = np.arange(2, MOST_SEEDS)
    enough = scipy.stats.t.ppf(0.5 + confidence / 2, n - 1) * s / np.sqrt(n) < distance
    return int(n[enough.argmax()]) if enough.any() else None


def log_slope(distance: Sequence[float], size: Sequence[float]) -> float:
    """Return the least-squares slope of ln(size) against distance (per unit of distance)."""
    return float(np.polyfit(np.asarray(distance, float), np.log(np.asarray(size, float)), 1)[0])
