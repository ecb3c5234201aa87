"""What notebook 02 says of its tables."""

import math
from collections.abc import Sequence

import pandas as pd

from farcontext.measure.stats import Interval, t_interval
from farcontext.results import tables
from farcontext.studies.recurrence.figures import NAMES, RECALLING


def over_seeds(rows: pd.DataFrame) -> Interval:
    """Return the mean and 95 % interval over seeds."""
    return t_interval(list(rows.groupby("seed")["value"].mean()))


def leads(table: pd.DataFrame, on: str) -> pd.DataFrame:
    """Return attention's lead over each LSTM, by pairs or distance.

    A cell is in points, the mean over seeds and the other factor, with its 95 % interval.

    Args:
        table: rows of one run.
        on: pairs or distance.
    """
    accuracy = table[table["metric"] == "accuracy"]
    wide = accuracy.pivot_table(index=[on, "seed"], columns="arm", values="value")
    rows: dict[str, dict[int, str]] = {}
    for arm, (name, _) in RECALLING.items():
        if arm not in wide or arm == "attention":
            continue
        points = 100 * (wide["attention"] - wide[arm])
        for level, values in points.groupby(on):
            x = t_interval(list(values))
            words = f"{x.estimate:+.0f} [{x.low:+.0f}, {x.high:+.0f}]"
            rows.setdefault(name, {})[int(level)] = words
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns=on)


def lost_a_token(table: pd.DataFrame) -> pd.DataFrame:
    """Return how fast the gradient fades with distance, after training.

    It is the share of its norm lost a token, in per cent; below 0 it grows.

    Args:
        table: rows of one run.
    """
    slopes = table[(table["metric"] == "log_slope") & (table["when"] == "trained")]
    rows = []
    for (task, arm), at in slopes.groupby(["task", "arm"]):
        x = over_seeds(at)
        lost = [100 * (1 - math.exp(slope)) for slope in (x.estimate, x.high, x.low)]
        rows.append((task.replace("_", "-"), NAMES[arm], *lost, math.exp(100 * x.estimate)))
    columns = ["task", "architecture", "% lost a token", "low", "high", "left after 100 tokens"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])


def answer(published: pd.DataFrame) -> str:
    """Return the page's first sentence, from published rows; Markdown."""
    if not (published["metric"] == "held").any():
        return "*Not published yet.*"
    pairs, distance = leads(published, "pairs"), leads(published, "distance")
    equal = RECALLING["lstm"][0]
    few, many = pairs.loc[equal].iloc[0], pairs.loc[equal].iloc[-1]
    near, far = distance.loc[equal].iloc[0], distance.loc[equal].iloc[-1]
    held = published[published["metric"] == "held"].groupby("arm")["value"].mean()
    kept = published[published["metric"] == "state_numbers"]
    kept = kept[kept["task"] == "recall"].groupby("arm")["value"].first()
    holds = ", ".join(
        f"one that keeps {kept[arm]:.0f} numbers {_within(held[arm], pairs.columns)}"
        for arm in ("lstm_half", "lstm", "lstm_state")
    )
    lost = lost_a_token(published)["% lost a token"]
    falls = ", ".join(f"{name} {lost['flip-flop', name]:.1f}" for name in NAMES.values())
    verdicts = [tables.verdict_line(claim).split(":")[0] for claim in ("R1", "R2")]
    rule = "**Count what must be kept at once, not how long ago it was said.** "
    rule = rule if "supported" in verdicts[1] else ""
    return (
        f"**{verdicts[0]}, {verdicts[1]}.** After training the gradient loses, in per cent a "
        f"token: {falls}. In recall attention leads an LSTM of equal parameters by {few} points "
        f"with {pairs.columns[0]} pairs and by {many} with {pairs.columns[-1]}; by {near} at "
        f"{distance.columns[0]} tokens and by {far} at {distance.columns[-1]}.\n\n"
        f"{rule}Pairs recalled at 90 % or better, by an LSTM: {holds}; by attention "
        f"{_within(held['attention'], pairs.columns)} ({pairs.columns[0]} to {pairs.columns[-1]} "
        f"were tested)."
    )


def _within(value: float, tested: Sequence[int]) -> str:
    """Return a number of pairs in words.

    At the ends of those tested it may be fewer, or more.
    """
    if value <= tested[0]:
        return f"{tested[0]} or fewer"
    return f"{value:.1f}" if value < tested[-1] else f"{tested[-1]} or more"
