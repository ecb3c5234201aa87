"""Figures of notebook 02: a row of recall, gradients, recall, and flip-flop.

Gradients are drawn by distance, recall by pairs, distance and state, errors by length.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from farcontext.results.plotting import curves, grid, leading, legend_below, powers
from farcontext.tasks.recall import CHANCE, KEYS, VALUES

COLORS = {"rnn": "C3", "lstm": "C0", "gru": "C2", "attention": "C1"}
NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "attention": "attention"}
# The arms of recall: LSTMs of one colour, the darker the larger their state.
RECALLING = {
    "attention": ("attention", "C1"),
    "lstm_state": ("LSTM, equal state", "#08306b"),
    "lstm": ("LSTM, equal parameters", "#4292c6"),
    "lstm_half": ("LSTM, half that state", "#9ecae1"),
}


def row_of_recall(tokens: np.ndarray, scored: np.ndarray, a_line: int = 24) -> Figure:
    """Draw one row as a reader gets it, evidence and questions marked.

    Args:
        tokens: (T,), ids of `tasks.recall`.
        scored: (T,), the answers.
        a_line: so many tokens stand in a line.
    """
    lines = -(-len(tokens) // a_line)
    figure, (axis,) = grid(1, height=0.3 * lines + 0.5)
    asked = int(np.flatnonzero(scored)[0]) - 1  # The first question.
    for place, token in enumerate(tokens):
        told = token < KEYS + VALUES
        color = "0.93" if not told else "C1" if scored[place] else "C0" if place >= asked else "C2"
        at = (place % a_line, -(place // a_line))
        axis.add_patch(Rectangle(at, 0.9, 0.8, color=color, alpha=0.7, lw=0))
        word = f"k{token}" if token < KEYS else f"v{token - KEYS}" if told else "·"
        axis.text(at[0] + 0.45, at[1] + 0.4, word, ha="center", va="center", fontsize=7)
    axis.set(xlim=(0, a_line), ylim=(1 - lines, 1.1))
    axis.set_axis_off()
    words = {"pair, told once": "C2", "question": "C0", "answer to give": "C1", "filler": "0.85"}
    legend_below(figure, words)
    return figure


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


def recall_by_pairs(table: pd.DataFrame) -> Figure:
    """Draw recall by pairs and by distance, and the loss of training.

    Lines are means over the other factor and seeds; bands are the range over seeds.

    Args:
        table: rows of task recall, metrics accuracy and loss.
    """
    recall = table[(table["task"] == "recall") & table["arm"].isin(RECALLING)]
    accuracy = recall[recall["metric"] == "accuracy"]
    figure, axes = grid(3, height=3.0)
    colors = {arm: color for arm, (_, color) in RECALLING.items()}
    for axis, on in zip(axes, ("pairs", "distance"), strict=False):
        mean = accuracy.groupby(["run", "arm", "seed", on], as_index=False)["value"].mean()
        curves(axis, mean, on, colors, by="arm", marker="o")
        axis.axhline(CHANCE, color="0.4", ls=":", lw=1)
        powers(axis, mean[on])
        axis.set(xlabel=f"{on} in the row", ylabel="", ylim=(-0.03, 1.05))
    axes[0].set(title="by number of pairs", ylabel="share right (dotted: a guess)")
    axes[1].set(title="by distance", xlabel="tokens in between")
    loss = recall[recall["metric"] == "loss"].assign(tokens=lambda frame: frame["tokens"] / 1e6)
    curves(axes[2], loss, "tokens", colors, by="arm")
    axes[2].set(title="while learning", xlabel="million training tokens", ylabel="loss, nats")
    legend_below(figure, dict(RECALLING.values()), recall["run"])
    return figure


def held_by_state(table: pd.DataFrame) -> Figure:
    """Draw the pairs that an arm holds against the numbers it keeps.

    Args:
        table: metrics held (by arm and seed), state_numbers and evidence_numbers (by arm) of one
            or two runs; the leading one is drawn.
    """
    recall = leading(table[table["task"] == "recall"])
    held = recall[recall["metric"] == "held"]
    kept = recall[recall["metric"] == "state_numbers"].groupby("arm")["value"].first()
    figure, (axis,) = grid(1, height=3.0)
    for arm, (_, color) in RECALLING.items():
        values = held[held["arm"] == arm]["value"]
        axis.plot(np.full(len(values), kept.get(arm, np.nan)), values, "o", color=color, ms=7)
    axis.set_yscale("log", base=2)
    powers(axis, kept)
    tested = sorted(recall[recall["metric"] == "accuracy"]["pairs"].dropna().unique())
    axis.set_yticks(tested, [f"{int(pairs)}" for pairs in tested])
    axis.margins(x=0.25, y=0.15)
    axis.set(xlabel="numbers kept in mind after the row", ylabel="pairs recalled at 90 %")
    legend_below(figure, dict(RECALLING.values()))
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
