"""Figures of notebook 13: rows and canaries, what is memorised by row length, defences."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from farcontext.results.plotting import curves, grid, legend_below, powers

NAMES = {
    "public": "before",
    "none": "no defence",
    "deduplicated": "de-duplicated",
    "private": "DP-SGD",
}
COLORS = {"public": "0.5", "none": "C3", "deduplicated": "C1", "private": "C0"}
HALVES = {0: "first half", 1: "second half"}


def rows_of_document(lengths: list[int], document: int, secrets: list[int]) -> Figure:
    """Draw one document cut into rows of each length, with its canaries.

    Args:
        lengths: T.
        document: D, its tokens.
        secrets: where canaries begin.
    """
    figure, (axis,) = grid(1, height=0.42 * len(lengths) + 0.9)
    for place, length in enumerate(sorted(lengths, reverse=True)):
        for start in range(0, document, length):
            look = {"fc": "C0", "alpha": 0.25, "ec": "white", "lw": 2}
            axis.add_patch(Rectangle((start, place - 0.35), length, 0.7, **look))
        for start in secrets:
            axis.add_patch(Rectangle((start, place - 0.35), 14, 0.7, fc="C3"))
    axis.set_yticks(range(len(lengths)), [f"T = {n}" for n in sorted(lengths, reverse=True)])
    axis.set(xlim=(-4, document + 4), ylim=(-0.6, len(lengths) - 0.4), xlabel="token of a document")
    axis.set_title("one document, cut into rows; red: a canary")
    axis.grid(visible=False)
    return figure


def memorised(table: pd.DataFrame, fpr: float, chance: float) -> Figure:
    """Draw membership, exposure and extraction by row length, without a defence.

    Args:
        table: rows of one run.
        fpr: the false positive rate of the left panel.
        chance: bits of exposure of a secret that was never shown.
    """
    rows = table[(table["arm"] == "none") & table["seed"].notna()].assign(run="published")
    figure, axes = grid(3, height=3.0)
    found = rows[rows["metric"] == "found"]
    means = found.groupby("length")["value"].mean()
    sns.lineplot(found, x="length", y="value", ax=axes[0], color="C0", marker="o")
    axes[0].axhline(fpr, ls=":", color="0.4")
    axes[0].set(xlabel="row length T, tokens", ylabel="", ylim=(0, 1.04))
    axes[0].set_title(f"members found\nat {fpr:.0%} false alarms")
    shown = rows[rows["metric"] == "exposure"].astype({"count": int})
    counts = sorted(shown["count"].unique())
    colors = dict(zip(counts, sns.color_palette("viridis", len(counts)), strict=True))
    panels = {"exposure": "exposure, bits", "extracted": "share extracted"}
    for axis, (name, title) in zip(axes[1:], panels.items(), strict=True):
        at = rows[(rows["metric"] == name) & (rows["prompt"] == rows["prompt"].min())]
        at = at.astype({"count": int})
        keys = ["run", "count", "length"]
        each = at.groupby(keys, as_index=False)["value"].mean()
        curves(axis, each, "length", colors, by="count", marker="o")
        axis.set(xlabel="row length T, tokens", ylabel="", title=title)
    axes[1].axhline(chance, ls=":", color="0.4")
    axes[2].set_ylim(-0.04, 1.04)
    for axis in axes:
        powers(axis, means.index)
    legend_below(figure, {f"{n} times": color for n, color in colors.items()}, title="canaries")
    return figure


def by_place(table: pd.DataFrame) -> Figure:
    """Draw exposure by place in the document, and extraction by prompt.

    Left, canaries that stand in its first or second half; right, those shown most often.

    Args:
        table: rows of one run.
    """
    rows = table[table["arm"] == "none"].assign(run="published")
    figure, axes = grid(2, height=2.8)
    exposure = rows[rows["metric"] == "exposure"].astype({"late": int})
    each = exposure.groupby(["run", "late", "length"], as_index=False)["value"].mean()
    curves(axes[0], each, "length", {0: "C0", 1: "C1"}, by="late", marker="o")
    for late, words in HALVES.items():
        axes[0].plot([], [], color=f"C{late}", label=words)
    axes[0].legend(frameon=True, fontsize="small")
    axes[0].set(xlabel="row length T, tokens", ylabel="exposure, bits", title="by place")
    powers(axes[0], each["length"])
    asked = rows[rows["metric"] == "extracted"]
    asked = asked[asked["count"] == asked["count"].max()].astype({"length": int})
    each = asked.groupby(["run", "length", "prompt"], as_index=False)["value"].mean()
    lengths = sorted(each["length"].unique())
    colors = dict(zip(lengths, sns.color_palette("viridis", len(lengths)), strict=True))
    curves(axes[1], each, "prompt", colors, by="length", marker="o")
    for length, color in colors.items():
        axes[1].plot([], [], color=color, marker="o", label=f"T = {length}")
    axes[1].legend(frameon=True, fontsize="small")
    axes[1].set(xlabel="prompt, tokens", ylabel="share extracted", ylim=(-0.04, 1.04))
    axes[1].set_title("by prompt, canaries shown most often")
    powers(axes[1], each["prompt"])
    return figure


def defences(table: pd.DataFrame) -> Figure:
    """Draw what each defence keeps secret, and what it costs.

    Args:
        table: rows of one run.
    """
    figure, axes = grid(4, height=3.0)
    most = table[table["metric"] == "exposure"]["count"].max()
    panels = (
        ("found", None, "members found"),
        ("exposure", most, f"exposure, bits\n({most:g} times)"),
        ("validation_loss", None, "loss, unseen\ndocuments"),
    )
    lengths = set(table[table["arm"] == "private"]["length"])
    table = table[table["length"].isin(lengths)]
    for axis, (metric, count, title) in zip(axes, panels, strict=False):
        rows = table[(table["metric"] == metric) & table["arm"].isin(list(NAMES))]
        rows = rows if count is None else rows[rows["count"] == count]
        each = rows.groupby(["arm", "length"], as_index=False)["value"].mean()
        curves(axis, each.assign(run="published"), "length", COLORS, by="arm", marker="o")
        axis.set(xlabel="T, tokens", ylabel="", title=title)
        powers(axis, lengths)
    axes[0].set_ylim(-0.04, 1.04)
    for unit, line in (("row", "o--"), ("document", "s-")):
        at = table[table["metric"] == f"epsilon_{unit}"].sort_values("length")
        finite = at[np.isfinite(at["value"])]
        axes[3].plot(finite["length"], finite["value"], line, color="C0", label=f"a {unit}")
    axes[3].set(xlabel="T, tokens", yscale="log", title="ε of DP-SGD")
    axes[3].legend(frameon=True, fontsize="small")
    powers(axes[3], lengths)
    legend_below(figure, {words: COLORS[arm] for arm, words in NAMES.items()})
    return figure
