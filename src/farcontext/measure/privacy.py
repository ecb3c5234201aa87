"""What differential privacy promises of a training by DP-SGD.

Neighbours differ by one row, or by some rows, that are there or not. A training draws each row of a
step on its own, clips its gradient and adds noise (Abadi et al. 2016). The numbers are those of
Opacus' Rényi accountant.
"""

import math
import warnings

import numpy as np
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis import rdp

# Orders of the Rényi divergence; the one that gives the least ε counts.
ORDERS = (*RDPAccountant.DEFAULT_ALPHAS, 128, 256, 512)
SMALLEST = 700.0  # −ln δ of the smallest δ that fp64 holds.
HALVINGS = 50


def epsilon(*, noise: float, rate: float, steps: int, delta: float, group: int = 1) -> float:
    """Return ε of one row at a δ, or of some rows together.

    Rows together are a document that is cut into them. Group privacy (Vadhan 2017, lemma 2.2): what
    is (ε, δ)-private of a row is (kε, sδ)-private of k rows, s = 1 + e^ε + … + e^((k−1)ε). So δ of
    a row is taken so small that sδ is the one asked for. It is an upper bound, and infinite where
    no δ of a row is small enough.

    Args:
        noise: standard deviation over the norm that gradients are clipped to.
        rate: the probability that a step draws a row.
        steps: of the training.
        delta: the probability that the promise may fail with.
        group: k.
    """
    spent = rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=ORDERS)
    wanted = -math.log(delta)

    def of_row(digits: float) -> float:
        """Return ε of a row at δ = e^−digits."""
        with warnings.catch_warnings():  # The best order may be the first or the last.
            warnings.simplefilter("ignore", UserWarning)
            found, _ = rdp.get_privacy_spent(orders=ORDERS, rdp=spent, delta=math.exp(-digits))
        return float(found)

    def of_group(digits: float) -> float:
        """Return −ln sδ at δ = e^−digits of a row."""
        return digits - float(np.logaddexp.reduce(of_row(digits) * np.arange(group)))

    low = high = wanted
    while of_group(high) < wanted:
        low, high = high, 2 * high
        if high > SMALLEST:
            return math.inf
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if of_group(middle) >= wanted else (middle, high)
    return group * of_row(high)
