"""Figures of notebook 10: facts in summaries, and real abstracts.

They show which facts reach a summary, by what was read, and what a real abstract is worth.
"""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import bars, curves, grid, leading, legend_below

READ = {
    "full": "whole context",
    "hierarchical": "in chunks, merged",
    "first": "first tokens",
    "last": "last tokens",
    "lead": "first sentences",
    "random": "random sentences",
    "bm25": "central sentences (BM25)",
    "wrong": "another story",
    "closed_book": "no story",
}
COLORS = {"full": "C0", "hierarchical": "C2", "first": "C1", "last": "C3"}
SCORES = {
    "recall": "share of the facts that is stated",
    "precision": "share of what is stated that is true",
}
CONTEXTS = {"true": "its own manual", "other": "another manual", "none": "nothing"}


def arms(scores: pd.DataFrame) -> Figure:
    """Draw recall and precision of the facts by what was read.

    Bars have the range over seeds.

    Args:
        scores: rows of metrics "recall" and "precision" at the trained length, with run, arm,
            metric and value.
    """
    shown = leading(scores)
    figure, axes = grid(len(SCORES), height=3.2)
    for axis, (metric, title) in zip(axes, SCORES.items(), strict=True):
        at = shown[shown["metric"] == metric]
        bars(axis, at, READ)
        axis.set(title=metric, xlabel=title, xlim=(0, 1.02))
    return figure


def by_depth(recall: pd.DataFrame) -> Figure:
    """Draw the share of the facts stated, by place in the story.

    The place is where the sentence stands that tells the fact; lines have the range over seeds.

    Args:
        recall: rows of metric "recall_at" of stories that are spread, with run, arm, depth and
            value.
    """
    figure, (axis,) = grid(1, height=3.0)
    curves(axis, recall, "depth", COLORS, by="arm")
    axis.set(
        xlabel="where the fact is told (0: first, 1: last)",
        ylabel="share stated",
        xlim=(0, 1),
        ylim=(-0.02, 1.04),
    )
    legend_below(figure, {READ[arm]: color for arm, color in COLORS.items()}, recall["run"])
    return figure


def real(rouge: pd.DataFrame, loss: pd.DataFrame) -> Figure:
    """Draw ROUGE-L of copied sentences, and a checkpoint's loss.

    Args:
        rouge: rows of metrics "rougeL" and, against a wrong abstract, "rougeL_wrong", tier real.
        loss: rows of "loss", on the right one. Both have run, arm, metric, seed (document), value.
    """
    figure, axes = grid(2, height=3.0)
    shown = leading(rouge).assign(
        against=lambda rows: rows["metric"].map(
            {"rougeL": "its own abstract", "rougeL_wrong": "another manual's"}
        )
    )
    texts = ["its own abstract", "another manual's"]
    bars(axes[0], shown, READ, hue="against", hue_order=texts)
    axes[0].set(title="copied sentences", xlabel="ROUGE-L (F1)", xlim=(0, None))
    handles, words = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    figure.legend(
        handles,
        [f"against {text}" for text in words],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    lines = leading(loss).assign(read=lambda rows: rows["arm"].map(CONTEXTS))
    sns.stripplot(
        lines,
        y="read",
        x="value",
        order=list(CONTEXTS.values()),
        color="0.5",
        size=4,
        jitter=False,
        ax=axes[1],
    )
    sns.pointplot(
        lines,
        y="read",
        x="value",
        order=list(CONTEXTS.values()),
        errorbar=None,
        ls="",
        marker="D",
        ax=axes[1],
    )
    axes[1].set(title="true abstract, by what is read", xlabel="loss, nats a token", ylabel="")
    for axis in axes:
        axis.title.set_size("small")
    return figure
