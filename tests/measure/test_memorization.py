"""Exposure, ROC and LiRA: golden values, chance, and attacks that must work."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from farcontext.measure.memorization import auc, exposure, lira, tpr_at_fpr

GOLDENS = json.loads(
    (Path(__file__).parent.parent / "goldens" / "statistics.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("case", GOLDENS["membership"])
def test_areas_and_rates_are_the_golden_ones(case: dict) -> None:
    members, others = case["member_scores"], case["nonmember_scores"]
    assert auc(members, others) == case["auc"]
    for fpr, tpr in case["tpr_at_fpr"].items():
        assert tpr_at_fpr(members, others, float(fpr)) == tpr


def test_exposure_counts_candidates_and_rank() -> None:
    """Ranks 1 and 31 of a million, and 1,024 of 2²⁰ (Carlini et al. 2019)."""
    for size, rank, bits in ((10**6, 1, 19.9315686), (10**6, 31, 14.9773723), (2**20, 1024, 10)):
        losses = np.arange(size, dtype=np.float64)
        found = exposure(losses[rank - 1] + 0.5, np.delete(losses, rank - 1))
        assert found == pytest.approx(bits, abs=1e-7)
    assert exposure(1.0, [1.0, 1.0, 1.0]) == 0


def test_a_random_secret_has_about_one_over_ln_2_bits() -> None:
    rng = np.random.default_rng(0)
    found = [exposure(rng.random(), rng.random(255)) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(1 / math.log(2), abs=0.1)


def drawn(gap: float, models: int = 32, targets: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    member = np.argsort(rng.random((models, targets)), 0) % 2 == 0
    hard = rng.normal(3, 1, targets)  # Targets differ much more than membership does.
    return hard + rng.normal(0, 0.1, member.shape) - gap * member, member


def test_lira_finds_members_where_a_plain_threshold_does_not() -> None:
    losses, member = drawn(gap=0.3)
    scores = lira(losses, member)
    assert auc(scores[member], scores[~member]) > 0.95
    assert auc(-losses[member], -losses[~member]) < 0.65


def test_lira_is_blind_where_membership_changes_nothing() -> None:
    losses, member = drawn(gap=0.0)
    scores = lira(losses, member)
    assert auc(scores[member], scores[~member]) == pytest.approx(0.5, abs=0.03)
    assert tpr_at_fpr(scores[member], scores[~member], 0.01) < 0.04


def test_a_model_never_judges_itself() -> None:
    losses, member = drawn(gap=0.3)
    changed = losses.copy()
    changed[0, 0] += 100
    mean = lira(losses, member)[0, 0], lira(changed, member)[0, 0]
    assert mean[0] != mean[1]
    with pytest.raises(ValueError, match="two other models"):
        lira(losses[:2], member[:2])


@pytest.mark.parametrize("bad", [[], [math.nan]])
def test_scores_that_are_none_or_unknown_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="expected finite numbers"):
        auc(bad, [1.0])
    with pytest.raises(ValueError, match="expected finite numbers"):
        exposure(0.0, bad)
