"""ε of DP-SGD: Opacus' own number, limits that are known, and groups of rows."""

import itertools
import math

import pytest
from opacus.accountants import RDPAccountant

from farcontext.measure.privacy import epsilon

SAME = {"noise": 2.0, "rate": 1 / 15, "steps": 32}


def test_a_row_has_what_the_accountant_says() -> None:
    accountant = RDPAccountant()
    accountant.history = [(2.0, 1 / 15, 32)]
    found = epsilon(**SAME, delta=1e-5)
    assert found == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)


def test_one_release_of_everybody_is_the_gaussian_mechanism() -> None:
    """Its Rényi divergence is α/2σ² (Mironov 2017), so ε is known but for the order's grid."""
    sigma, delta = 5.0, 1e-5
    best = min(
        a / (2 * sigma**2) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
        for a in range(2, 64)
    )
    assert epsilon(noise=sigma, rate=1.0, steps=1, delta=delta) == pytest.approx(best, rel=0.01)


def test_more_rows_have_a_larger_epsilon_than_as_many_times_one() -> None:
    found = [epsilon(**SAME, delta=1e-3, group=k) for k in (1, 2, 4, 8)]
    assert all(later > 2 * before for before, later in itertools.pairwise(found)), found


def test_noise_helps_and_steps_cost() -> None:
    base = epsilon(**SAME, delta=1e-3)
    assert epsilon(**SAME | {"noise": 4.0}, delta=1e-3) < base
    assert epsilon(**SAME | {"steps": 64}, delta=1e-3) > base
    assert epsilon(noise=0.3, rate=0.5, steps=50, delta=1e-6, group=8) == math.inf
