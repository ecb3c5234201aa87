"""Measure what a model memorised: exposure, and membership in its training.

The module consists of pure functions of arrays, and needs no torch. A score is higher where
membership is likelier; losses are in nats.
"""

import math
from collections.abc import Sequence

import numpy as np

LEAST_SPREAD = 1e-3  # Nats; two equal losses of a few reference models are no certainty.


def exposure(loss: float, others: Sequence[float]) -> float:
    """Return a secret's exposure in bits (Carlini et al. 2019).

    It is log2 of the number of candidates minus log2 of the secret's rank, 1 the likeliest; of
    equal losses the secret is the last.

    Args:
        loss: the secret's.
        others: those of all other candidates.

    Raises:
        ValueError: a loss that is not finite, or no other candidate.
    """
    other = np.asarray(others, dtype=np.float64)
    if not other.size or not np.isfinite([loss, *other]).all():
        raise ValueError(f"{other.size} other losses, {loss}: expected finite numbers, at least 1")
    rank = 1 + int((other <= loss).sum())
    return math.log2(1 + other.size) - math.log2(rank)


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Return how often a member scores above a non-member.

    Ties count half.

    Raises:
        ValueError: no member, or no other.
    """
    inside, outside = _scores(members), _scores(others)
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, "left")
    equal = np.searchsorted(ordered, inside, "right") - below
    return float((below + equal / 2).mean() / outside.size)


def tpr_at_fpr(members: Sequence[float], others: Sequence[float], fpr: float) -> float:
    """Return the largest true positive rate at a false positive rate.

    Whoever scores at least a threshold counts as a member. Thresholds are scores, without
    interpolation.

    Args:
        members: scores.
        others: scores of non-members.
        fpr: at most this share of non-members counts as members.
    """
    inside, outside = _scores(members), np.sort(_scores(others))[::-1]
    allowed = math.floor(fpr * outside.size + 1e-9)
    if allowed >= outside.size:
        return 1.0
    # A threshold must lie above the first score of a non-member that may not pass.
    return float((inside > outside[allowed]).mean())


def lira(losses: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Return LiRA's scores, each model attacked by all the others.

    A score is the log-likelihood ratio of a target's loss under two normal laws: that of the models
    which have seen it, and that of those which have not (Carlini et al. 2022, with one variance a
    side for all targets, as they do with few models).

    Args:
        losses: (models, targets).
        member: (models, targets), whether a model has seen a target.

    Raises:
        ValueError: a target that fewer than two other models have seen, or have not.
    """
    inside, outside = member.astype(np.float64), 1.0 - member
    laws = []
    for side in (inside, outside):
        # Sums over all other models: each model's own loss is taken out of its side.
        count = side.sum(0) - side
        total = (side * losses).sum(0) - side * losses
        if (count < 2).any():
            raise ValueError(
                "member: expected each target in two other models or more, and outside two"
            )
        mean = total / count
        spread = ((side * (losses - (side * losses).sum(0) / side.sum(0)) ** 2).sum(0)) / (
            side.sum(0) - 1
        )
        laws.append((mean, max(math.sqrt(spread.mean()), LEAST_SPREAD)))
    (mean_in, sd_in), (mean_out, sd_out) = laws
    return (
        -((losses - mean_in) ** 2) / (2 * sd_in**2)
        + ((losses - mean_out) ** 2) / (2 * sd_out**2)
        + math.log(sd_out / sd_in)
    )


def _scores(values: Sequence[float]) -> np.ndarray:
    scores = np.asarray(values, dtype=np.float64).ravel()
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"{scores.size} scores: expected finite numbers, at least 1")
    return scores
