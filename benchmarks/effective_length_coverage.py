"""How often does an effective length's interval contain the true one?

The curves are known; a percentile bootstrap stands beside the interval.

A curve: the chance of a right answer at 5 to 8 lengths. A context: the share right of 4, 8 or 16
answers that share a chance of their own (beta-binomial; design effect 1.3 to 2.6); 40 to 90
contexts a length. Tier `controlled`: 0.95 to 1 at the shortest length; `probe`: 0.6 to 0.95. `near`
is no fair sample of curves: it stays within 5 % of the threshold.
A second table gives the coverage of the interval of one length's mean.
"""

import math

import numpy as np
import pandas as pd
import table
from matplotlib.axes import Axes

from farcontext.measure.effective_length import SHARE, crossing, effective_length
from farcontext.measure.stats import score_interval

TIERS = {"controlled": (0.95, 1.0), "probe": (0.6, 0.95)}
FAMILIES = ("logistic", "flat then falling", "linear", "never below", "below at the second", "near")


def true_curve(
    family: str, first: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return tested lengths and the chance of a right answer at each."""
    n = int(rng.integers(5, 9))
    x = np.arange(n)
    match family:
        case "logistic":
            curve = 1 / (1 + np.exp(rng.uniform(0.7, 4) * (x - rng.uniform(1, n + 1))))
        case "flat then falling":
            curve = 1 - rng.uniform(0.1, 0.5) * np.maximum(0, x - rng.integers(1, n - 1))
        case "linear":
            curve = 1 - rng.uniform(0.02, 0.12) * x
        case "never below":
            curve = 1 - rng.uniform(0, 0.12) * x / (n - 1)
        case "below at the second":
            curve = np.append(1, rng.uniform(0.2, 0.84) * np.linspace(1, 0.7, n - 1))
        case "near":
            curve = np.concatenate(([1], np.full(n - 2, rng.uniform(0.86, 0.9)), [0.5]))
    return 64.0 * 2**x, np.clip(first * curve / curve[0], 0.02, 1)


def contexts(p: float, n: int, answers: int, effect: float, rng: np.random.Generator) -> np.ndarray:
    """Return the scores of n contexts of several answers each.

    Their mean has `effect` times the binomial variance.
    """
    if effect == 1:
        return rng.binomial(answers, p, n) / answers
    concentration = (answers - 1) / (effect - 1) - 1
    chance = rng.beta(max(p * concentration, 1e-12), max((1 - p) * concentration, 1e-12), n)
    return rng.binomial(answers, chance) / answers


def percentile_bootstrap(
    lengths: np.ndarray, scores: list[np.ndarray], rng: np.random.Generator, resamples: int = 500
) -> tuple[float, float]:
    """Return the central 95 % of the crossings of resampled curves.

    Contexts are drawn anew at each length.
    """
    means = np.stack([s[rng.integers(0, s.size, (resamples, s.size))].mean(1) for s in scores], 1)
    found = [crossing(lengths, mean, SHARE * mean[0]) for mean in means]
    low, high = np.quantile(found, (0.025, 0.975), method="nearest")
    return min(float(low), lengths[-1]), float(high)


def simulated(
    family: str,
    tier: str,
    curves: int,
    confidence: float = 0.95,
    bootstrap: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row a curve and method.

    A row tells whether the interval contains the truth, and its width in octaves.
    """
    rng = np.random.default_rng([seed, FAMILIES.index(family), list(TIERS).index(tier)])
    rows = []
    for _ in range(curves):
        lengths, p = true_curve(family, rng.uniform(*TIERS[tier]), rng)
        answers, effect = int(rng.choice([4, 8, 16])), rng.uniform(1.3, 2.6)
        scores = [contexts(q, int(rng.integers(40, 91)), answers, effect, rng) for q in p]
        truth = min(crossing(lengths, p, SHARE * p[0]), lengths[-1])
        found = effective_length(lengths, scores, floor=0.0, confidence=confidence)
        bounds = {"interval": (found.low, found.high)}
        if bootstrap:
            bounds["bootstrap"] = percentile_bootstrap(lengths, scores, rng)
        for method, (low, high) in bounds.items():
            rows.append(
                {
                    "family": family,
                    "tier": tier,
                    "method": method,
                    "covers": low * (1 - 1e-9) <= truth <= high * (1 + 1e-9),
                    "too high": low * (1 - 1e-9) > truth,
                    "too low": high * (1 + 1e-9) < truth,
                    "octaves": math.log2(min(high, lengths[-1]) / low),
                    "off by": abs(math.log2(found.length / truth)),
                }
            )
    return pd.DataFrame(rows)


def of_one_mean(draws: int) -> pd.DataFrame:
    """Return the coverage and mean width of `score_interval`.

    Rows are by number of contexts and kind of answers.
    """
    rng = np.random.default_rng(1)
    rows = []
    for answers, effect in ((1, 1.0), (4, 1.3), (16, 1.3), (16, 2.6)):
        for n in (10, 40, 90):
            row = {"answers": answers, "design effect": effect, "contexts": n}
            for p in (0.7, 0.856, 0.95, 0.99):
                found = [score_interval(contexts(p, n, answers, effect, rng)) for _ in range(draws)]
                row[f"p={p}"] = np.mean([i.low <= p <= i.high for i in found])
                row[f"width {p}"] = np.mean([i.high - i.low for i in found])
            rows.append(row)
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw the coverage by method and tier, beside the promised one."""
    frame.pivot_table(index="tier", columns="method", values="covers", sort=False).plot.bar(
        ax=axis, rot=0
    )
    axis.axhline(0.95, color="black", lw=0.8)
    axis.set(ylabel="intervals with the true length", ylim=(0.5, 1))
    axis.legend(frameon=False, loc="lower right")


def main() -> None:
    """Print coverage and width, then the interval of one mean.

    Coverage and width are by family, tier and method.
    """
    parser = table.parser_of(__file__, __doc__)
    parser.add_argument("--curves", type=int, default=200, help="by family and tier")
    arguments = parser.parse_args()
    found = pd.concat(
        simulated(f, t, arguments.curves, bootstrap=True) for f in FAMILIES for t in TIERS
    )
    columns = ["covers", "too high", "too low", "octaves"]
    print(
        found.groupby(["tier", "family", "method"], sort=False)[columns].mean().round(3).to_string()
    )
    fair = found[found["family"] != "near"]
    means = fair.groupby(["method", "tier"], sort=False)[columns].mean().reset_index()
    print(f"\nall but `near`, {len(fair) // 2} curves:\n{means.round(3).to_string(index=False)}")
    print(f"point estimate off by (octaves, mean): {fair['off by'].mean():.3f}")
    print(f"\none mean:\n{of_one_mean(arguments.curves).round(3).to_string(index=False)}")
    table.save(means, arguments.out, draw)


if __name__ == "__main__":
    main()
