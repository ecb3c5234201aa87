"""Figures of notebook 05: learning curves, nats a byte, far context."""

import pandas as pd
from matplotlib.figure import Figure

from farcontext.results.plotting import curves, grid, legend_below, powers

BASELINES = ("unigram", "bigram", "trigram", "5-gram")


def learning_curves(table: pd.DataFrame) -> Figure:
    """Draw validation loss by step, one axis for each model.

    The published mean and range over seeds are below, this run's hollow points on top.

    Args:
        table: rows of metric `validation_loss` with arm, step, seed, value and run ("published" or
            "this run").
    """
    arms = ("encoder", "decoder")
    figure, axes = grid(2)
    for axis, arm in zip(axes, arms, strict=True):
        losses = table[(table["metric"] == "validation_loss") & (table["arm"] == arm)]
        curves(axis, losses, "step", {"": "C0"})
        axis.set(
            title=arm,
            xlabel="training step",
            ylabel="nats a scored token" if arm == "encoder" else "",
        )
    legend_below(figure, {"mean and range over seeds": "C0"}, table["run"])
    return figure


def nats_per_byte(table: pd.DataFrame) -> Figure:
    """Draw masked loss in nats a byte, for encoder and n-grams.

    All have the same targets. There is one axis for each domain, and lower is better.
    """
    scored = table[(table["metric"] == "nats_per_byte") & (table["domain"] != "all")]
    order = [*BASELINES, "encoder"]
    domains = [d for d in ("plays", "manuals", "sanguo") if d in set(scored["domain"])]
    figure, axes = grid(len(domains), height=3.0)
    for axis, domain in zip(axes, domains, strict=True):
        for run, look in (
            ("published", {"color": "C0", "ms": 6}),
            ("this run", {"mfc": "none", "mec": "C1", "ms": 10}),
        ):
            at = scored[(scored["domain"] == domain) & (scored["run"] == run)]
            axis.plot(
                at["value"],
                [order.index(arm) for arm in at["arm"]],
                "o",
                label=run if len(at) else None,
                **look,
            )
        axis.set_yticks(range(len(order)), order if axis is axes[0] else [])
        axis.set(title=domain, xlabel="nats a byte", ylim=(len(order) - 0.5, -0.5))
        axis.set_xlim(left=0)
    axes[0].legend(frameon=True, loc="upper left")
    return figure


FAR_KINDS = ("truncated", "other_document", "same_document")


def context_cost(table: pd.DataFrame) -> Figure:
    """Draw what it costs to lose or falsify the far context.

    The cost is drawn by the true tokens that stay, one axis for each model; 0 is no cost.
    """
    costs = table[(table["metric"] == "context_cost") & (table["far"] != "full")]
    figure, axes = grid(2, height=3.4)
    colors = {far: f"C{number}" for number, far in enumerate(FAR_KINDS)}
    for axis, arm in zip(axes, ("decoder", "encoder"), strict=True):
        at = costs[costs["arm"] == arm]
        curves(axis, at, "context", colors, by="far", marker="o", size=9)
        axis.axhline(0, color="0.4", lw=1)
        powers(axis, at["context"].dropna())
        axis.set(title=arm, xlabel="true tokens kept next to the targets", ylabel="")
    axes[0].set_ylabel("added loss, nats a token")
    words = {far.replace("_", " "): color for far, color in colors.items()}
    legend_below(figure, words, costs["run"])
    return figure
