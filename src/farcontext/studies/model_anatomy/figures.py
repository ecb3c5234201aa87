"""Figures of notebook 03: single defects, and parity with other libraries."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from farcontext.results.plotting import grid

FEEDS = {"accuracy": "fed the true answer", "free_running_accuracy": "fed its own output"}


def defect_curves(table: pd.DataFrame) -> Figure:
    """Draw accuracy by training step, one axis for each arm.

    The model is fed the truth or its own output; dotted lines show the best without order.
    Published rows are mean and range over seeds; this run's are hollow circles, one for each seed.

    Args:
        table: rows of part `defect` and `ceiling`, with arm, seed, step, metric, value, run.
    """
    curves = table[(table["part"] == "defect") & table["metric"].isin(list(FEEDS))]
    ceiling = table[table["part"] == "ceiling"].groupby("metric")["value"].first()
    first = ["repaired", "no positions", "no causal mask", "no shift", "batch order", "all four"]
    figure, axes = grid(3, rows=2, height=2.5)
    for axis, arm in zip(axes, first, strict=True):
        for color, (metric, label) in enumerate(FEEDS.items()):
            _fed(
                axis,
                curves[(curves["arm"] == arm) & (curves["metric"] == metric)],
                f"C{color}",
                label,
            )
            axis.axhline(ceiling[metric], color=f"C{color}", ls=":", lw=1)
        axis.set(
            title=arm, xlabel="training step", ylabel="share of tokens right", ylim=(-0.05, 1.05)
        )
        axis.label_outer()
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False
    )
    return figure


def _fed(axis: Axes, rows: pd.DataFrame, color: str, label: str) -> None:
    published, ours = (rows[rows["run"] == run] for run in ("published", "this run"))
    if len(published):
        sns.lineplot(
            published, x="step", y="value", errorbar=("pi", 100), ax=axis, color=color, legend=False
        )
    else:  # This run's own mean is the line to read.
        axis.plot(ours.groupby("step")["value"].mean(), color=color)
    axis.plot(ours["step"], ours["value"], "o", mfc="none", mec=color, ms=5, label=label)


def parity_losses(table: pd.DataFrame) -> Figure:
    """Draw one seed's loss by optimiser step, one axis for each pair.

    Our model is a line, its counterpart hollow circles.
    """
    losses = table[table["metric"].isin(["our_loss", "their_loss"])]
    losses = losses[losses["seed"] == losses["seed"].min()]
    figure, axes = grid(3, height=2.6)
    for axis, (arm, rows) in zip(axes, losses.groupby("arm", sort=False), strict=True):
        wide = rows.pivot(index="step", columns="metric", values="value")
        axis.plot(wide.index, wide["our_loss"], label="ours")
        axis.plot(wide.index, wide["their_loss"], "o", mfc="none", mec="C1", ms=6, label="theirs")
        axis.set(
            title=arm.replace(" vs ", "\nvs "),
            xlabel="AdamW step",
            ylim=(0, 1.08 * wide.to_numpy().max()),
        )
    axes[0].set_ylabel("loss, nats a token")
    axes[0].legend(frameon=False)
    return figure
