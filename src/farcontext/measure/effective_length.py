"""The effective context length of one checkpoint.

It says how long contexts may grow before the checkpoint's scores fall. This module needs no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farcontext.measure.stats import CONFIDENCE, Interval, score_interval

SHARE = 0.856  # Llama-2-7B scores 85.6 per cent at 4,096 tokens in RULER (Hsieh et al. 2024).
FLOOR = 0.95
STEPS = 16


@dataclass(frozen=True)
class EffectiveLength:
    """A length in tokens with its interval.

    The numbers are NaN throughout unless `checked`; `reason` says which check failed.

    `at_least`: the curve never falls below the threshold, and `length` is the last one tested.
    `high` is infinite whenever the interval reaches beyond it; `low` is 0 when it reaches below the
    first.
    """

    length: float
    low: float
    high: float
    at_least: bool
    checked: bool
    threshold: float
    reason: str = ""


def crossing(lengths: Sequence[float], curve: Sequence[float], threshold: float) -> float:
    """Return the length at which a curve first falls below a threshold.

    The length is interpolated linearly on the log of length.

    Args:
        lengths: (n,) tested lengths in tokens, ascending.
        curve: (n,) scores.

    Infinity where no tested length is below (read: at least the last); 0 where the first is.
    A later rise counts for nothing.

    Raises:
        ValueError: lengths not positive and ascending, a score that is not finite, or another
            number of scores.
    """
    x, y = np.asarray(lengths, dtype=np.float64), np.asarray(curve, dtype=np.float64)
    if x.size == 0 or x[0] <= 0 or (np.diff(x) <= 0).any():
        raise ValueError(f"lengths = {list(lengths)}: expected positive numbers, ascending")
    if y.shape != x.shape or not np.isfinite(y).all():
        raise ValueError(f"curve = {list(curve)}: expected {x.size} finite numbers, one a length")
    below = np.flatnonzero(y < threshold)
    if below.size == 0:
        return math.inf
    first = below[0]
    if first == 0:
        return 0.0
    (y0, y1), (x0, x1) = y[first - 1 : first + 1], np.log(x[first - 1 : first + 1])
    return float(np.exp(x0 + (x1 - x0) * (y0 - threshold) / (y0 - y1)))


def margin(
    lengths: Sequence[float], scores: Sequence[Interval], share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lengths, and bounds of the margin over the threshold there.

    There are STEPS lengths to each tested one; the margin is score(length) − share · score(first).

    Each is a weighted sum of independent means, whose bounds combine those of the means: the method
    of variance estimates recovery (Zou & Donner 2008), pointwise, not simultaneous.
    """
    mean, low, high = (
        np.array([getattr(s, name) for s in scores]) for name in ("estimate", "low", "high")
    )
    at = np.linspace(0, len(mean) - 1, STEPS * (len(mean) - 1) + 1)
    weights = np.column_stack(
        [np.interp(at, np.arange(len(mean)), one) for one in np.eye(len(mean))]
    )
    fine = np.exp(weights @ np.log(lengths))
    weights[:, 0] -= share
    plus, minus = np.square(np.maximum(weights, 0)), np.square(np.minimum(weights, 0))
    below, above = np.square(mean - low), np.square(high - mean)
    found = weights @ mean
    return (
        fine,
        found - np.sqrt(plus @ below + minus @ above),
        found + np.sqrt(plus @ above + minus @ below),
    )


def effective_length(
    lengths: Sequence[float],
    scores: Sequence[Sequence[float]],
    *,
    share: float = SHARE,
    absolute: float | None = None,
    floor: float = FLOOR,
    confidence: float = CONFIDENCE,
) -> EffectiveLength:
    """Return the largest length up to which scores meet the threshold.

    Every tested length up to there scores at least the threshold. The length comes with its
    interval.

    Args:
        lengths: (n,) tested lengths in tokens, ascending.
        scores: n arrays, each of scores in [0, 1], one a context; contexts are independent, their
            number may differ.
        share: threshold as a share of the mean score at the shortest length.
        absolute: threshold in its place, a score.
        floor: least mean score at the shortest length; a model at chance keeps its score at any
            length.

    `length` is where the curve of means first falls below the threshold (`crossing`), or the last
    tested length if it never does (`at_least`). The interval inverts a test: `low` is where the
    lower bound of the curve first falls below, `high` where the upper bound does, infinite if it
    never does. So `low` is the conservative reading: up to there, scores are at the threshold even
    at the lower end of their intervals. The threshold's own uncertainty is included. No resampling:
    percentiles of a bootstrap cover too little where a curve stays near the threshold
    (benchmarks/effective_length_coverage.py), and contexts all correct would have no spread.

    Raises:
        ValueError: as `crossing` and `score_interval`, or a length without scores.
    """
    means = [score_interval(s, confidence) for s in scores]
    if not means or not all(s.n for s in means):
        raise ValueError(
            f"scores = {[s.n for s in means]} contexts: expected at least one a length"
        )
    first, last = means[0].estimate, float(lengths[-1])
    threshold = share * first if absolute is None else absolute
    length = crossing(lengths, [s.estimate for s in means], threshold)
    for name, least in (("floor", floor), ("threshold", threshold)):
        if first < least:
            reason = (
                f"score {first:.3f} at the shortest length, {lengths[0]:g}, "
                f"is below the {name}, {least:.3f}"
            )
            return EffectiveLength(math.nan, math.nan, math.nan, False, False, threshold, reason)
    fine, lower, upper = margin(lengths, means, share if absolute is None else 0.0)
    low, high = (crossing(fine, bound, absolute or 0.0) for bound in (lower, upper))
    return EffectiveLength(
        min(length, last), min(low, last), high, math.isinf(length), True, threshold
    )
