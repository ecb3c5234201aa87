"""Figures of notebook 11: contradictions at equal coverage, and a real play.

They show contradictions by what was read and by how much is stated, and a real play's continuation.
"""

import math

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import curves, grid, leading, legend_below, powers

READ = {
    "whole": "whole story",
    "bm25": "sentences found by BM25",
    "bm25 each": "BM25 anew for each statement",
    "last": "last tokens of the story",
}
COLORS = {"whole": "C0", "bm25": "C1", "bm25 each": "C2", "last": "0.6"}
COUNTS = {"distinct_2": "distinct-2", "repetition_4": "repetition (seq-rep-4)"}


def tokens_read(arms: pd.Series, whole: int) -> pd.Series:
    """Return the tokens behind each arm's name in the real tier."""
    return pd.to_numeric(arms.replace({"full": str(whole)}), errors="coerce")


def middle(scores: pd.DataFrame) -> float:
    """Return the middle one of the numbers of changes."""
    levels = sorted(set(scores["changes"].dropna()))
    return levels[len(levels) // 2]


def by_tokens(scores: pd.DataFrame) -> Figure:
    """Draw contradictions by the tokens that are read.

    A panel for each number of changes; a line has the range over seeds, and the whole story is a
    level line.

    Args:
        scores: rows of metric "contradictions" at one coverage, with run, arm, changes, tokens
            (0: the whole story) and value.
    """
    levels, sizes = sorted(set(scores["changes"])), sorted(set(scores["tokens"]) - {0})
    figure, axes = grid(len(levels), height=2.8)
    for axis, changes in zip(axes, levels, strict=True):
        at = scores[scores["changes"] == changes]
        whole = at[at["tokens"] == 0]
        flat = pd.concat([whole.assign(tokens=size) for size in sizes])
        curves(
            axis, pd.concat([flat, at[at["tokens"] > 0]]), "tokens", COLORS, by="arm", marker="o"
        )
        powers(axis, [size for size in sizes if math.log2(size).is_integer()])
        axis.set(title=f"{changes:g} changes", xlabel="tokens read", ylabel="", ylim=(-2, 102))
    axes[0].set_ylabel("contradictions in 100")
    legend_below(figure, {READ[arm]: color for arm, color in COLORS.items()}, scores["run"])
    return figure


def by_coverage(scores: pd.DataFrame) -> Figure:
    """Draw contradictions and inventions by the share of statements that is made.

    Args:
        scores: rows of metrics "contradictions" and "invented" with a coverage, with run, arm,
            metric, coverage and value.
    """
    panels = {
        "contradictions": "contradictions in 100",
        "invented": "strangers, of 100",
    }
    figure, axes = grid(len(panels), height=2.8)
    for axis, (metric, words) in zip(axes, panels.items(), strict=True):
        curves(axis, scores[scores["metric"] == metric], "coverage", COLORS, by="arm", marker="o")
        axis.set(xlabel="share of the statements that is made", ylabel=words, ylim=(-2, 102))
    legend_below(figure, {READ[arm]: color for arm, color in COLORS.items()}, scores["run"])
    return figure


def real(loss: pd.DataFrame, counts: pd.DataFrame, whole: int) -> Figure:
    """Draw a checkpoint's loss on a play, and its own continuations.

    The loss is on what truly follows; the right panel shows how its own continuations repeat
    themselves beside the play.

    Args:
        loss: rows of metric "loss" of tier real, with run, arm, seed (play) and value.
        counts: rows of metrics "distinct_2" and "repetition_4".
        whole: tokens of the widest context.
    """
    figure, axes = grid(2, height=3.2)
    shown = leading(loss)
    own = shown.assign(tokens=tokens_read(shown["arm"], whole)).dropna(subset=["tokens"])
    sns.lineplot(
        own, x="tokens", y="value", units="seed", estimator=None, color="0.7", lw=1, ax=axes[0]
    )
    sns.lineplot(
        own,
        x="tokens",
        y="value",
        errorbar=None,
        marker="o",
        color="C0",
        ax=axes[0],
        label="its own text, mean",
    )
    other = shown.loc[shown["arm"] == "other", "value"].mean()
    axes[0].plot([whole], [other], "X", color="C3", label="far text of another play, mean")
    powers(axes[0], own["tokens"])
    axes[0].set(title="loss on what truly follows", xlabel="tokens read", ylabel="nats a token")
    found = leading(counts)
    order = [*sorted(set(found["arm"]) - {"full", "human"}, key=int), "full", "human"]
    found = found.assign(count=found["metric"].map(COUNTS))
    look = {
        "order": order,
        "hue_order": list(COUNTS.values()),
        "errorbar": ("pi", 100),
        "err_kws": {"linewidth": 1},
    }
    sns.barplot(found, x="arm", y="value", hue="count", **look, ax=axes[1])
    axes[1].set(
        title="what is drawn, and what follows",
        xlabel="tokens read",
        ylabel="share",
        ylim=(0, 1.04),
    )
    for axis in axes:
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.24), frameon=False, fontsize="small"
        )
    return figure
