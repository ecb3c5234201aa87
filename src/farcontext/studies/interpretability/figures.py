"""Figures of notebook 12: highlights side by side, curves by length, heads."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import curves, grid, leading, legend_below, powers

COLORS = {
    "attention": "C0",
    "rollout": "C9",
    "gradient × input": "C4",
    "integrated gradients": "C1",
    "write-aware": "C2",
    "surrogate, 8 passes": "C5",
    "surrogate, 16 passes": "C6",
    "surrogate, 32 passes": "C3",
    "bm25": "0.6",
    "random": "0.8",
}
PANELS = {
    "faithfulness": "faithfulness (random 0, gold 1)",
    "auc": "AUC against the evidence",
    "first": "evidence ranked first, share",
}
SETS = {
    "none": ("all heads", "C0"),
    "random": ("without random heads", "0.7"),
    "literal": ("without heads found by where they read", "C1"),
    "write-aware": ("without heads found by what they write", "C2"),
    "retrieval": ("without retrieval heads", "C3"),
}
HEADS = ("known head", "best other head", "other heads", "random weights", "chance")
NEEDED = 62  # Characters of a line of text beside the highlights.


def highlights(scores: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Draw one context with each method's highlighting in a column.

    A row is a sentence. Every column is scaled to its own largest score; what counts against the
    answer is left blank. Evidence is in bold, with its place marked in the first column.

    Args:
        scores: rows with sentence, question, gold and a column for each method.
        arms: those that are drawn, from the left.
    """
    lines = [textwrap.shorten(text, NEEDED, placeholder=" …") for text in scores["sentence"]]
    positive = scores[list(arms)].clip(lower=0)
    shown = pd.concat([scores["gold"].astype(float), positive / positive.max()], axis=1)
    figure, (axis,) = grid(1, height=1.3 + 0.28 * len(lines))
    sns.heatmap(
        shown.to_numpy(), ax=axis, cmap="YlOrBr", vmin=0, vmax=1, cbar=False, linewidths=1.5
    )
    axis.set_yticks(np.arange(len(lines)) + 0.5, lines, rotation=0, fontsize=7)
    axis.set_xticks(
        np.arange(len(arms) + 1) + 0.5, ["gold", *arms], rotation=40, ha="left", fontsize=8
    )
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for label, gold in zip(axis.get_yticklabels(), scores["gold"], strict=True):
        label.set_fontweight("bold" if gold else "normal")
    axis.set_xlabel(f"{scores['question'].iloc[0]} …", fontsize=9)
    return figure


def by_length(scores: pd.DataFrame) -> Figure:
    """Draw faithfulness, auc and the first sentence by length.

    There is a line for each method.

    Args:
        scores: rows with run, arm, length, metric and value.
    """
    figure, axes = grid(3, height=3.4)
    for axis, (metric, words) in zip(axes, PANELS.items(), strict=True):
        at = scores[scores["metric"] == metric]
        curves(axis, at, "length", COLORS, by="arm", marker="o", size=3)
        powers(axis, [x for x in set(at["length"]) if math.log2(x).is_integer()])
        axis.tick_params(axis="x", rotation=60)
        axis.set(title=words, xlabel="tokens of the context", ylabel="")
        axis.title.set_fontsize("small")
    axes[1].axhline(0.5, color="0.6", ls=":", lw=1)
    axes[1].annotate("chance", (axes[1].get_xlim()[0], 0.51), fontsize=7, color="0.4")
    legend_below(figure, COLORS, scores["run"])
    return figure


def knocked(rows: pd.DataFrame) -> Figure:
    """Draw right answers with heads knocked out, by model and scheme.

    Args:
        rows: rows of metric "knocked" with run, model, scheme, length, arm and value.
    """
    shown = leading(rows)
    models = list(dict.fromkeys(shown["model"]))
    figure, axes = grid(len(models), height=3.2)
    for axis, model in zip(axes, models, strict=True):
        at = shown[shown["model"] == model]
        at = at.assign(
            at=at["scheme"] + "\n" + at["length"].astype(int).astype(str) + " tokens",
            heads=at["arm"].map(lambda arm: SETS[arm][0]),
        )
        sets = dict(words for arm, words in SETS.items() if arm in set(at["arm"]))
        look = {"errorbar": ("pi", 100), "err_kws": {"linewidth": 1}, "palette": sets}
        look["hue_order"] = list(sets)
        sns.barplot(at, x="at", y="value", hue="heads", ax=axis, **look)
        axis.set(title=model, xlabel="", ylabel="share of right answers", ylim=(0, 1.04))
        axis.tick_params(axis="x", labelsize=7)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False, fontsize=7)
    return figure


def pointing(rows: pd.DataFrame) -> Figure:
    """Draw how often heads point at an atom's source.

    They are the atom mapper's. Left: every head, by layer. Right: kinds of heads, with the range
    over left fragments.

    Args:
        rows: rows of metric "pointing" with run, arm, head, seed and value.
    """
    shown = leading(rows)
    each = shown[shown["arm"] == "each head"]
    places = each["head"].str.split(".", expand=True).astype(int)
    table = np.full(places.max().to_numpy() + 1, np.nan)
    table[places[0], places[1]] = each["value"]
    figure, axes = grid(2, height=3.4)
    sns.heatmap(table, ax=axes[0], cmap="YlOrBr", vmin=0, vmax=1, cbar_kws={"shrink": 0.6})
    axes[0].set(title="atoms whose source a head points at", xlabel="head", ylabel="layer")
    kinds = shown[shown["seed"].notna()]
    look = {"errorbar": ("pi", 100), "err_kws": {"linewidth": 1}, "color": "C0", "order": HEADS}
    sns.barplot(kinds, y="arm", x="value", ax=axes[1], **look)
    axes[1].set(title="kinds of heads", xlabel="share of atoms", ylabel="", xlim=(0, 1.02))
    return figure
