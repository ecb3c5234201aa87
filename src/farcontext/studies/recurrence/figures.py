"""Figures of notebook 02: gradients, recall, and errors on flip-flop.

Gradients are drawn by distance, recall by distance and by training.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from farcontext.results.plotting import curves, grid, legend_below, powers

COLORS = {"rnn": "C3", "lstm": "C0", "gru": "C2", "attention": "C1"}
NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "attention": "attention"}


def _legend(figure: Figure, rows: pd.DataFrame) -> None:
    """Draw one legend for all axes: the arms as they are drawn."""
    shown = {NAMES[arm]: color for arm, color in COLORS.items() if (rows["arm"] == arm).any()}
    legend_below(figure, shown, rows["run"])


def gradient_by_distance(table: pd.DataFrame) -> Figure:
    """Draw the norm of the loss's gradient by distance in tokens.

    The panels are flip-flop before training, flip-flop after it, and recall after it.

    Args:
        table: rows of metric log10_gradient with task, arm, when, distance, value and run.
    """
    rows = table[table["metric"] == "log10_gradient"]
    panels = (
        ("flip_flop", "start", "flip-flop, before training"),
        ("flip_flop", "trained", "flip-flop, trained"),
        ("recall", "trained", "recall, trained"),
    )
    figure, axes = grid(3, height=3.2)
    low = np.floor(rows["value"].min() / 10) * 10
    for axis, (task, when, title) in zip(axes, panels, strict=True):
        at = rows[(rows["task"] == task) & (rows["when"] == when)]
        curves(axis, at, "distance", COLORS, by="arm")
        axis.axhline(-45, color="0.4", ls=":", lw=1)
        axis.set(title=title, xlabel="distance d, tokens", ylabel="", ylim=(min(low, -50), 5))
    axes[0].annotate(
        "smallest number in fp32",
        (0, -45),
        (2, 3),
        textcoords="offset points",
        fontsize=8,
        color="0.3",
    )
    axes[0].set_ylabel("log10 ‖∂loss/∂x‖")
    for axis in axes[1:]:
        axis.set_yticklabels([])
    _legend(figure, rows)
    return figure


def recall_by_distance(table: pd.DataFrame, pairs: int, values: int) -> Figure:
    """Draw the share of right answers by distance, and loss by tokens.

    The loss is that of training. Dotted lines show the share that a guess gets.

    Args:
        table: rows of task recall, metrics accuracy and loss.
        pairs, values: a guess is right once in `pairs` (the row's values) or `values` (all values).
    """
    recall = table[table["task"] == "recall"]
    figure, axes = grid(2, height=3.2)
    accuracy = recall[recall["metric"] == "accuracy"]
    curves(axes[0], accuracy, "distance", COLORS, by="arm")
    for share, says in ((1 / pairs, "a value of the row"), (1 / values, "any value")):
        axes[0].axhline(share, color="0.4", ls=":", lw=1)
        axes[0].annotate(
            f"guessing {says}",
            (1, share),
            (-2, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="0.3",
        )
    powers(axes[0], accuracy["distance"])
    axes[0].set(
        xlabel="tokens between pairs and question",
        ylabel="share of questions right",
        ylim=(-0.03, 1.05),
    )
    loss = recall[recall["metric"] == "loss"].assign(tokens=lambda frame: frame["tokens"] / 1000)
    curves(axes[1], loss, "tokens", COLORS, by="arm")
    axes[1].set(xlabel="thousands of training tokens", ylabel="training loss, nats", ylim=(0, None))
    _legend(figure, recall)
    return figure


def flip_flop_errors(table: pd.DataFrame, trained_length: int) -> Figure:
    """Draw the share of wrong bits among those read, by length.

    The length is the row's. There is one axis for each share of ignored instructions.

    Args:
        table: rows of metric error with arm, ignores, length, value and run.
        trained_length: T of training rows, marked.
    """
    rows = table[table["metric"] == "error"]
    shares = sorted(rows["ignores"].unique())
    figure, axes = grid(len(shares), height=3.0)
    for axis, ignores in zip(axes, shares, strict=True):
        curves(axis, rows[rows["ignores"] == ignores], "length", COLORS, by="arm")
        axis.axhline(0.5, color="0.4", ls=":", lw=1)
        axis.axvline(trained_length, color="0.4", ls="--", lw=1)
        axis.annotate(
            "trained length",
            (trained_length, 0.44),
            (4, 0),
            textcoords="offset points",
            fontsize=8,
            color="0.3",
        )
        axis.annotate(
            "chance",
            (1, 0.5),
            (-2, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="0.3",
        )
        powers(axis, rows["length"])
        axis.set(
            title=f"{ignores:.0%} of instructions ignored",
            xlabel="tokens in the row",
            ylim=(-0.02, 0.55),
        )
        axis.set_ylabel("share of bits wrong" if axis is axes[0] else "")
    _legend(figure, rows)
    return figure
