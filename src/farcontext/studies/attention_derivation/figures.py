"""Figures of notebook 01: logit scaling, reach, and who attends to whom."""

import math

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from farcontext.results.plotting import grid


def logit_scaling(table: pd.DataFrame, keys: int) -> Figure:
    """Draw what dividing scores by √H does, against head width.

    The panels are the variance of q·k, the entropy of its softmax and the norm of that softmax's
    Jacobian, each with and without √H.

    Args:
        table: metrics scaled_… and unscaled_… with head_width, value and run ("published" or "this
            run").
        keys: S of the softmax, whose largest entropy is ln S.
    """
    figure, axes = grid(3)
    panels = {
        "variance": "variance of a score",
        "entropy": "entropy of softmax, nats",
        "jacobian": "norm of softmax's Jacobian",
    }
    widths = sorted(table["head_width"].dropna().unique())
    for axis, (kind, label) in zip(axes, panels.items(), strict=True):
        for color, prefix in (("C0", "scaled"), ("C3", "unscaled")):
            at = table[table["metric"] == f"{prefix}_{kind}"]
            published, ours = (at[at["run"] == run] for run in ("published", "this run"))
            words = "divided by √H" if prefix == "scaled" else "as they are"
            if len(published):
                sns.lineplot(
                    published, x="head_width", y="value", color=color, errorbar=("pi", 100), ax=axis
                )
            axis.plot(ours["head_width"], ours["value"], "o", mfc="none", mec=color, label=words)
        axis.set_xscale("log", base=2)
        axis.set_xticks(widths, [str(int(width)) for width in widths])
        axis.set(xlabel="head width H", ylabel=label)
    axes[0].plot(widths, widths, ":", color="0.4", zorder=0)
    axes[0].set_yscale("log", base=2)
    axes[1].axhline(math.log(keys), ls=":", color="0.4")
    axes[1].set_ylim(bottom=0)
    axes[2].set_ylim(bottom=0)
    axes[1].legend(loc="center right", bbox_to_anchor=(1.05, 0.6), frameon=False, handletextpad=0.1)
    return figure


def reach_matrices(norms: dict[str, np.ndarray], predicted: dict[str, np.ndarray]) -> Figure:
    """Draw the norm of ∂output_t/∂input_s, one matrix for each mask.

    A cell is white where the norm is exactly 0; the frame shows what was predicted.

    Args:
        norms: title to matrix (T, T), outputs in rows; one colour scale for all.
        predicted: title to the boolean matrix of the pairs that should be reached.
    """
    logs = {title: np.log10(np.where(norm > 0, norm, np.nan)) for title, norm in norms.items()}
    low = min(np.nanmin(matrix) for matrix in logs.values())
    high = max(np.nanmax(matrix) for matrix in logs.values())
    low -= 0.15 * (high - low)  # The smallest number must not look like the white of an exact 0.
    figure, axes = grid(3, math.ceil(len(logs) / 3), height=2.3)
    for axis in axes[len(logs) :]:
        axis.set_axis_off()
    for axis, (title, matrix) in zip(axes, logs.items(), strict=False):
        look = {"cmap": "mako_r", "square": True, "cbar": False, "rasterized": True}
        sns.heatmap(matrix, ax=axis, vmin=low, vmax=high, **look)
        axis.add_collection(LineCollection(_outline(predicted[title]), color="C3", lw=1.6))
        ticks = np.arange(0, len(matrix), 8)
        axis.set_xticks(ticks + 0.5, ticks, rotation=0)
        axis.set_yticks(ticks + 0.5, ticks, rotation=0)
        axis.grid(visible=False)
        axis.set(title=title)
    figure.supxlabel("input token s", fontsize="medium")
    figure.supylabel("output token t", fontsize="medium")
    bar = figure.colorbar(axes[0].collections[0], ax=axes, shrink=0.6)
    bar.set_label("log10 ‖∂output_t/∂input_s‖")
    return figure


def _outline(inside: np.ndarray) -> list[list[tuple[int, int]]]:
    """Return the edges between cells inside and outside.

    They are segments of (column, row) corners.
    """
    padded = np.pad(inside, 1)
    # Each is (row of the edge, column of the cell + 1).
    across = np.argwhere(padded[1:] != padded[:-1])
    along = np.argwhere(padded[:, 1:] != padded[:, :-1])
    edges = [[(column - 1, row), (column, row)] for row, column in across.tolist()]
    return edges + [[(column, row - 1), (column, row)] for row, column in along.tolist()]


def token_attention(weights: dict[str, np.ndarray], labels: list[str]) -> Figure:
    """Draw attention weights between the tokens of one sentence.

    There is one matrix for each title, with queries in rows. Labels are ASCII.
    """
    figure, axes = grid(len(weights), height=3.9)
    names = [f"{label} {index}" for index, label in enumerate(labels)]
    for axis, (title, matrix) in zip(axes, weights.items(), strict=True):
        sns.heatmap(
            matrix,
            ax=axis,
            vmin=0,
            vmax=1,
            cmap="mako_r",
            square=True,
            cbar=False,
            rasterized=True,
            linewidths=0.3,
            linecolor="0.9",
        )
        ticks = np.arange(len(names)) + 0.5
        axis.set_xticks(ticks, names, rotation=90, fontsize=7)
        axis.set_yticks(ticks, names if axis is axes[0] else [], rotation=0, fontsize=7)
        axis.set(title=title, xlabel="key", ylabel="query" if axis is axes[0] else "")
    bar = figure.colorbar(axes[0].collections[0], ax=axes, shrink=0.6)
    bar.set_label("attention weight")
    return figure
