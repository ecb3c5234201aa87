"""Figures of notebook 10: facts in reports, and real abstracts.

They show how many facts reach a report, by what was read, and what a real abstract is worth.
"""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import bars, curves, grid, leading, legend_below, powers

READ = {
    "whole": "whole story",
    "latest": "chunks, latest line wins",
    "joined": "chunks, things joined",
    "first": "first tokens",
    "last": "last tokens",
    "lead": "first sentences",
    "random": "random sentences",
    "bm25": "central sentences (BM25)",
    "wrong": "another story",
    "closed_book": "no story",
}
COLORS = {"whole": "C0", "latest": "C1", "joined": "C2"}
KINDS = {
    "all": "all facts",
    "one sentence": "told in one sentence",
    "two sentences": "joined from two",
}
SCORES = {
    "recall": "share of the facts that is stated",
    "precision": "share of what is stated that is true",
}
CONTEXTS = {"true": "its own manual", "other": "another manual", "none": "nothing"}


def by_changes(scores: pd.DataFrame) -> Figure:
    """Draw the F1 of facts by the number of changes.

    A panel for each kind of fact; a line has the range over seeds.

    Args:
        scores: rows of metric "f1" at one length and one size of chunks, with run, arm, kind,
            changes and value.
    """
    figure, axes = grid(len(KINDS), height=2.8)
    for axis, (kind, words) in zip(axes, KINDS.items(), strict=True):
        curves(axis, scores[scores["kind"] == kind], "changes", COLORS, by="arm", marker="o")
        axis.set(title=words, xlabel="changes in the story", ylabel="", ylim=(-0.02, 1.02))
        axis.set_xticks(sorted(set(scores["changes"])))
    axes[0].set_ylabel("F1 of facts")
    legend_below(figure, {READ[arm]: color for arm, color in COLORS.items()}, scores["run"])
    return figure


def by_size(sized: pd.DataFrame, longer: pd.DataFrame) -> Figure:
    """Draw the F1 of all facts by chunk size and length.

    Args:
        sized: rows of metric "f1" at one length, with run, arm, chunk and value; of who reads no
            chunks chunk is 0.
        longer: the same at one size of chunks, with length.
    """
    figure, (left, right) = grid(2, height=2.8)
    sizes = sorted(set(sized["chunk"]) - {0})
    whole = sized[sized["chunk"] == 0]
    flat = pd.concat([whole.assign(chunk=size) for size in sizes])
    curves(
        left, pd.concat([flat, sized[sized["chunk"] > 0]]), "chunk", COLORS, by="arm", marker="o"
    )
    curves(right, longer, "length", COLORS, by="arm", marker="o")
    powers(left, sizes)
    powers(right, longer["length"])
    left.set(xlabel="tokens in a chunk", ylabel="F1 of facts", ylim=(-0.02, 1.02))
    right.set(xlabel="tokens in the story", ylabel="", ylim=(-0.02, 1.02))
    legend_below(figure, {READ[arm]: color for arm, color in COLORS.items()}, sized["run"])
    return figure


def arms(scores: pd.DataFrame) -> Figure:
    """Draw recall and precision of the facts by what was read.

    Bars have the range over seeds.

    Args:
        scores: rows of metrics "recall" and "precision" of all facts at one length and number of
            changes, with run, arm, metric and value.
    """
    shown = leading(scores)
    figure, axes = grid(len(SCORES), height=3.2)
    for axis, (metric, title) in zip(axes, SCORES.items(), strict=True):
        at = shown[shown["metric"] == metric]
        bars(axis, at, READ)
        axis.set(title=metric, xlabel=title, xlim=(0, 1.02))
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
