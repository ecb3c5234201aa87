"""Effective context length of one checkpoint: how long its contexts may grow before its scores fall. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longctx.stats import CONFIDENCE, score_interval

SHARE = 0.856  # RULER (Hsieh et al. 2024): Llama-2-7B's score at 4,096 tokens, in per cent 85.6
FLOOR = 0.95


@dataclass(frozen=True)
class EffectiveLength:
    """A length in tokens with its interval. NaN throughout unless `checked`; `reason` says which check failed."""

    length: float
    low: float
    high: float
    at_least: bool
    checked: bool
    threshold: float
    reason: str = ""


def crossing(lengths: Sequence[float], curve: Sequence[float], threshold: float) -> float:
    """Return the length at which a curve first falls below a threshold, interpolated linearly on the log of length.

    Args:
        lengths: (n,) tested lengths in tokens, ascending.
        curve: (n,) scores.

    Infinity where no tested length is below (read: at least the last); 0 where the first is. A later rise counts
    for nothing.

    Raises:
        ValueError: lengths not positive and ascending, a score that is not finite, or another number of scores.
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


def effective_length(
    lengths: Sequence[float],
    scores: Sequence[Sequence[float]],
    *,
    share: float = SHARE,
    absolute: float | None = None,
    floor: float = FLOOR,
    confidence: float = CONFIDENCE,
) -> EffectiveLength:
    p = [score_interval(s, confidence) for s in scores]
    mean, low, high = (np.array([getattr(i, name) for i in p]) for name in ("estimate", "low", "high"))
    part = share if absolute is None else 0.0
    threshold = part * mean[0] if absolute is None else absolute
    lower = mean - np.hypot(mean - low, part * (high[0] - mean[0]))
    upper = mean + np.hypot(high - mean, part * (mean[0] - low[0]))
    if absolute is None:
        lower[0], upper[0] = threshold + (1 - part) * low[0], threshold + (1 - part) * high[0]
    length = crossing(lengths, mean, threshold)
    return EffectiveLength(
        min(length, float(lengths[-1])),
        min(crossing(lengths, lower, threshold), float(lengths[-1])),
        crossing(lengths, upper, threshold),
        math.isinf(length),
        True,
        float(threshold),
    )
