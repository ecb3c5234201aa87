"""Figures of a probe's report: scores and losses.

They show score by length with intervals, score by depth and length, and loss by position and
length.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from farcontext.results.plotting import grid

FAR = {"true": ("its own text", "C0", "o"), "other": ("another document's text", "C3", "s")}


def _lengths(axis: Axes, lengths: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(
        list(lengths), [f"{length:,}" for length in lengths], rotation=30 if len(lengths) > 6 else 0
    )
    axis.minorticks_off()
    axis.set_xlabel("tokens in the context")


def score_by_length(lengths: pd.DataFrame, effective: Mapping[str, Any], chance: float) -> Figure:
    """Draw the share of needles found by length.

    The figure has 95 % intervals, the threshold, chance, and the effective length's interval.

    Args:
        lengths: a row a length: length, exact, exact_low, exact_high, choice.
        effective: length, low, high (None: unknown or beyond), threshold, checked.
        chance: share of choices that a guess gets right.
    """
    figure, (axis,) = grid(1, height=3.6)
    x, y = lengths["length"], lengths["exact"]
    if effective["checked"]:
        high = effective["high"] or x.iloc[-1]
        axis.axvspan(
            max(effective["low"], x.iloc[0]), min(high, x.iloc[-1]), color="C0", alpha=0.12, lw=0
        )
        axis.axvline(effective["length"], color="C0", lw=1.5, ls=(0, (4, 2)))
    axis.axhline(effective["threshold"], color="0.25", lw=1, ls="--")
    axis.axhline(chance, color="0.45", lw=1, ls=":")
    error = np.abs([y - lengths["exact_low"], lengths["exact_high"] - y])
    axis.errorbar(
        x, y, yerr=error, fmt="o-", color="C0", ms=6, capsize=3, label="word reproduced exactly"
    )
    axis.plot(
        x,
        lengths["choice"],
        "s--",
        color="C1",
        ms=4,
        lw=1,
        label="right one among the needles' words",
    )
    beside = {
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
        "va": "center",
        "fontsize": 8,
    }
    axis.annotate("threshold", (1, effective["threshold"]), (4, 0), color="0.25", **beside)
    axis.annotate("chance", (1, chance), (4, 0), color="0.35", **beside)
    _lengths(axis, x)
    axis.set(ylabel="share of needles", ylim=(0, 1.04))
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2, fontsize=8)
    return figure


def score_by_depth(needles: pd.DataFrame) -> Figure:
    """Draw the share of needles found by depth and by length.

    The depth 0 is the context's start.

    Args:
        needles: a row a question: length, question (from the start), exact.
    """
    count = needles["question"].max() + 1
    cells = needles.pivot_table(index="question", columns="length", values="exact")
    cells.index = [f"{(number + 0.5) / count:.0%}" for number in cells.index]
    cells.columns = [f"{length:,}" for length in cells.columns]
    figure, (axis,) = grid(1, height=1.2 + 0.24 * count)
    look = {
        "vmin": 0,
        "vmax": 1,
        "cmap": "viridis",
        "annot": True,
        "fmt": ".2f",
        "annot_kws": {"size": 8},
    }
    # A colour bar would be a picture within the SVG.
    sns.heatmap(cells, ax=axis, linewidths=0.5, cbar=False, **look)
    axis.set(xlabel="tokens in the context", ylabel="depth (0 %: first)")
    axis.tick_params(axis="y", rotation=0)
    return figure


def losses(position: pd.DataFrame, far: pd.DataFrame) -> Figure:
    """Draw loss by position, and loss after true and foreign text.

    The second loss is that of the same last tokens, by length.

    Args:
        position: document, position, loss.
        far: document, length, far, loss; may be empty.
    """
    figure, axes = grid(1 if far.empty else 2, height=3.2)
    width = position["position"].drop_duplicates().sort_values().diff().iloc[-1]
    middle = position.assign(middle=position["position"] + width / 2)
    for _, one in middle.groupby("document"):
        axes[0].plot(one["middle"], one["loss"], color="0.75", lw=0.8)
    mean = middle.groupby("middle")["loss"].mean()
    axes[0].plot(mean.index, mean, "o-", color="C0", ms=4)
    axes[0].set(
        title="by position",
        xlabel="position in the text, tokens",
        ylabel="loss, nats a token",
        xlim=(0, None),
    )
    if far.empty:
        return figure
    for name, (label, color, marker) in FAR.items():
        rows = far[far["far"] == name]
        for _, one in rows.groupby("document"):
            axes[1].plot(one["length"], one["loss"], color=color, lw=0.8, alpha=0.3)
        mean = rows.groupby("length")["loss"].mean()
        axes[1].plot(mean.index, mean, f"{marker}-", color=color, ms=5, label=label)
    _lengths(axes[1], sorted(far["length"].unique()))
    axes[1].set(title="same last tokens, by the text before them")
    axes[1].legend(
        frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2
    )  # Inside it would hide a line.
    return figure
