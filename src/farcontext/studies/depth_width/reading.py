"""What notebook 06 says of its tables."""

import pandas as pd

from farcontext.measure.stats import Interval, t_interval
from farcontext.results import tables

# What context window = layers × hidden units says of each slope.
FORMULA = {"depth": 1.0, "width": 1.0, "trained length": 0.0}
METRICS = {"depth": "depth_slope", "width": "width_slope", "trained length": "window_slope"}


def of_metric(rows: pd.DataFrame, metric: str) -> Interval:
    """Return a metric's mean and 95 % interval over seeds."""
    return t_interval(list(rows[rows["metric"] == metric].groupby("seed")["value"].mean()))


def against_formula(table: pd.DataFrame) -> pd.DataFrame:
    """Return each slope with its interval, beside what the formula says.

    `doubling it gives` is the factor on the effective length when depth, width or trained length
    doubles. A slope `can be` a value that its interval holds.

    Args:
        table: rows of one run.
    """
    rows = {}
    for name, formula in FORMULA.items():
        slope = of_metric(table, METRICS[name])
        rows[name] = {"slope": slope.estimate, "low": slope.low, "high": slope.high}
        rows[name] |= {"formula": formula, "doubling it gives": 2**slope.estimate}
        for words, value in (("can be 0", 0.0), ("can be the formula", formula)):
            rows[name][words] = slope.low <= value <= slope.high
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("log of")


def trends(table: pd.DataFrame) -> pd.DataFrame:
    """Return the trend of instability with length, by regime and budget.

    It is the change per doubling of T, with its interval over seeds; below 0 is steadier.

    Args:
        table: rows of one run.
    """
    rows = {}
    for arm, at in table[table["metric"] == "trend"].groupby("arm"):
        trend = of_metric(at, "trend")
        rows[arm] = {"a doubling": trend.estimate, "low": trend.low, "high": trend.high}
        steadier = trend.high < 0
        rows[arm]["longer rows are"] = (
            "steadier" if steadier else "less steady" if trend.low > 0 else "not told apart"
        )
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("regime and budget")


def answer(published: pd.DataFrame) -> str:
    """Return the page's first sentence, from published rows; Markdown."""
    if not (published["metric"] == "trend").any():
        return "*Not published yet.*"
    slopes = against_formula(published)
    said = [
        f"doubling its {name} multiplies it by {row['doubling it gives']:.2f} "
        f"[{2 ** row['low']:.2f}, {2 ** row['high']:.2f}]"
        for name, row in slopes.iterrows()
    ]
    told = trends(published)["longer rows are"]
    words = "; ".join(f"{arm}: {kind}" for arm, kind in told.items())
    verdicts = [tables.verdict_line(claim).split(":")[0] for claim in ("W1", "G1")]
    advice = "Train on longer rows before you add layers or units."
    advice = advice if "refuted" in verdicts[0] else ""
    return (
        f"**{verdicts[0]}, {verdicts[1]}.** The length that a model can use: {'; '.join(said)}. "
        f"The formula asks for 2, 2 and 1. {advice}\n\nTraining on longer rows, by optimiser and "
        f"budget: {words}."
    )


def with_intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean and 95 % interval over seeds.

    There is a row for each run, metric and number of layers; all depths in one row come first.
    """
    found = []
    for by in (["run", "metric"], ["run", "metric", "layers"]):
        for keys, at in rows.groupby(by):
            interval = t_interval(list(at.groupby("seed")["value"].mean()))
            layers = "all" if len(keys) == 2 else str(int(keys[2]))
            found.append((*keys[:2], layers, interval.estimate, interval.low, interval.high))
    columns = ["run", "metric", "layers", "mean", "low", "high"]
    return pd.DataFrame(found, columns=columns).set_index(columns[:3]).sort_index().round(2)
