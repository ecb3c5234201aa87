"""One figure style, and DataFrame → Figure. No torch; nothing is computed here that a table does not hold."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longctx import files

DPI = 90
WIDTH = 7.2  # inches, a notebook's text column


def style() -> None:
    """Set the one style; call it in a notebook's first code cell."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.hashsalt": "longctx",  # else every SVG has ids of its own
            "svg.fonttype": "path",
        }
    )
    matplotlib.rcParams["axes.titlesize"] = "medium"


def save(figure: Figure, study: str, name: str) -> Path:
    """Save a figure for the paper as build/<profile>/figures/<study>/<name>.svg, the same bytes every time."""
    folder = files.build("figures", study)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


def grid(columns: int, rows: int = 1, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """Return a figure of the standard width and its axes in reading order; height in inches a row."""
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), squeeze=False)
    return figure, list(axes.flat)


# ----------------------------------------------------------------------------------------------- 05 mlm_pretraining

BASELINES = ("unigram", "bigram", "trigram", "4-gram", "5-gram")


def learning_curves(table: pd.DataFrame) -> Figure:
    """Validation loss by step, an axis a model: published mean and range over seeds, this run's points hollow on top.

    Args:
        table: rows of metric `validation_loss` with arm, step, seed, value and run ("published" or "this run").
    """
    arms = ("encoder", "decoder")
    figure, axes = grid(2)
    for axis, arm in zip(axes, arms, strict=True):
        curves = table[(table["metric"] == "validation_loss") & (table["arm"] == arm)]
        _band_and_points(axis, curves, x="step")
        axis.set(title=arm, xlabel="training step", ylabel="nats a scored token" if arm == "encoder" else "")
    return figure


def _band_and_points(axis: Axes, frame: pd.DataFrame, x: str) -> None:
    """Published rows as a line with the range over seeds; this run's rows as hollow circles."""
    published, ours = (frame[frame["run"] == run] for run in ("published", "this run"))
    if len(published):
        sns.lineplot(published, x=x, y="value", errorbar=("pi", 100), ax=axis, label="published, range over seeds")
    axis.plot(ours[x], ours["value"], "o", mfc="none", mec="C1", ms=5, label="this run")
    axis.legend(frameon=False)


def nats_per_byte(table: pd.DataFrame) -> Figure:
    """Masked loss in nats a byte, encoder against n-grams on the same targets, an axis a domain; lower is better."""
    scored = table[(table["metric"] == "nats_per_byte") & (table["domain"] != "all")]
    order = [*BASELINES, "encoder"]
    domains = [d for d in ("plays", "manuals", "sanguo") if d in set(scored["domain"])]
    figure, axes = grid(len(domains), height=3.2)
    for axis, domain in zip(axes, domains, strict=True):
        at = scored[scored["domain"] == domain]
        sns.stripplot(at[at["run"] == "published"], x="value", y="arm", order=order, ax=axis, jitter=False, size=6)
        ours = at[at["run"] == "this run"]
        axis.plot(ours["value"], [order.index(arm) for arm in ours["arm"]], "o", mfc="none", mec="C1", ms=9)
        axis.set(title=domain, xlabel="nats a byte", ylabel="")
        axis.set_xlim(left=0)
        if axis is not axes[0]:
            axis.set_yticklabels([])
    return figure


def context_cost(table: pd.DataFrame) -> Figure:
    """What it costs to lose or falsify the far context, by the true tokens that stay; an axis a model, 0 = no cost."""
    costs = table[(table["metric"] == "context_cost") & (table["far"] != "full")]
    figure, axes = grid(2, height=3.4)
    for axis, arm in zip(axes, ("decoder", "encoder"), strict=True):
        at = costs[costs["arm"] == arm]
        published = at[at["run"] == "published"]
        kinds = ("truncated", "other_document", "same_document")
        if len(published):
            sns.lineplot(published, x="context", y="value", hue="far", hue_order=kinds, marker="o", ax=axis, errorbar=("ci", 95))
        for color, far in enumerate(kinds):
            ours = at[(at["run"] == "this run") & (at["far"] == far)]
            label = None if len(published) else far
            axis.plot(ours["context"], ours["value"], "o", mfc="none", mec=f"C{color}", ms=8, label=label)
        axis.axhline(0, color="0.4", lw=1)
        axis.set_xscale("log", base=2)
        ticks = sorted(at["context"].dropna().unique())
        axis.set_xticks(ticks, [str(int(tick)) for tick in ticks])
        axis.set(title=arm, xlabel="true tokens kept next to the targets", ylabel="added loss, nats a token")
        axis.legend(title="far tokens", frameon=False)
    return figure
