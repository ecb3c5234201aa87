"""One figure style, and DataFrame → Figure. No torch; nothing is computed here that a table does not hold."""

import io
import math
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
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


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG of at most 256 colours: a third of the bytes, so that notebooks stay small in git."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    PIL.Image.open(full).convert("RGB").quantize(256).save(small, "png", optimize=True)
    return small.getvalue()


def save(figure: Figure, study: str, name: str) -> Path:
    """Save a figure for the paper as build/<profile>/figures/<study>/<name>.svg, the same bytes every time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)  # else a notebook shows it twice: as the cell's value, and as an open figure
    return files.write_atomic(files.build("figures", study, f"{name}.svg"), buffer.getvalue())


def grid(columns: int, rows: int = 1, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """Return a figure of the standard width and its axes in reading order; height in inches a row."""
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), squeeze=False)
    if (shell := get_ipython()) is not None:  # here, for the first figure makes the backend set a printer of its own
        shell.display_formatter.formatters["image/png"].for_type(Figure, png)
    return figure, list(axes.flat)


# ----------------------------------------------------------------------------------------------- 05 mlm_pretraining

BASELINES = ("unigram", "bigram", "trigram", "5-gram")


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
    if len(ours):
        axis.plot(ours[x], ours["value"], "o", mfc="none", mec="C1", ms=5, label="this run")
    axis.legend(frameon=False)


def nats_per_byte(table: pd.DataFrame) -> Figure:
    """Masked loss in nats a byte, encoder against n-grams on the same targets, an axis a domain; lower is better."""
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
    """What it costs to lose or falsify the far context, by the true tokens that stay; an axis a model, 0 = no cost."""
    costs = table[(table["metric"] == "context_cost") & (table["far"] != "full")]
    figure, axes = grid(2, height=3.4)
    for axis, arm in zip(axes, ("decoder", "encoder"), strict=True):
        at = costs[costs["arm"] == arm]
        for color, far in enumerate(FAR_KINDS):
            label = far.replace("_", " ")
            published, ours = (at[(at["far"] == far) & (at["run"] == run)] for run in ("published", "this run"))
            if len(published):
                sns.lineplot(
                    published,
                    x="context",
                    y="value",
                    ax=axis,
                    errorbar=("pi", 100),
                    marker="o",
                    color=f"C{color}",
                    label=label,
                )
                label = None
            axis.plot(ours["context"], ours["value"], "o", mfc="none", mec=f"C{color}", ms=9, label=label)
        axis.axhline(0, color="0.4", lw=1)
        axis.set_xscale("log", base=2)
        ticks = sorted(at["context"].dropna().unique())
        axis.set_xticks(ticks, [str(int(tick)) for tick in ticks])
        axis.set(title=arm, xlabel="true tokens kept next to the targets", ylabel="")
        axis.legend(title="far tokens", frameon=True)
    axes[0].set_ylabel("added loss, nats a token")
    return figure


# ----------------------------------------------------------------------------------------- 01 attention_derivation


def logit_scaling(table: pd.DataFrame, keys: int) -> Figure:
    """Variance of q·k, entropy of its softmax and norm of that softmax's Jacobian, by head width, with and without √H.

    Args:
        table: metrics scaled_… and unscaled_… with head_width, value and run ("published" or "this run").
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
                sns.lineplot(published, x="head_width", y="value", color=color, errorbar=("pi", 100), ax=axis)
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
    """Norm of ∂output_t/∂input_s, a matrix a mask, white where exactly 0; the frame is what was predicted.

    Args:
        norms: title to matrix (T, T), outputs in rows; one colour scale for all.
        predicted: title to the boolean matrix of the pairs that should be reached.
    """
    logs = {title: np.log10(np.where(norm > 0, norm, np.nan)) for title, norm in norms.items()}
    low = min(np.nanmin(matrix) for matrix in logs.values())
    high = max(np.nanmax(matrix) for matrix in logs.values())
    low -= 0.15 * (high - low)  # the smallest number must not look like the white of an exact 0
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
    """Return the edges between cells inside and outside, as segments of (column, row) corners."""
    padded = np.pad(inside, 1)
    across = np.argwhere(padded[1:] != padded[:-1])  # (row of the edge, column of the cell + 1)
    along = np.argwhere(padded[:, 1:] != padded[:, :-1])
    edges = [[(column - 1, row), (column, row)] for row, column in across.tolist()]
    return edges + [[(column, row - 1), (column, row)] for row, column in along.tolist()]


def token_attention(weights: dict[str, np.ndarray], labels: list[str]) -> Figure:
    """Attention weights between the tokens of one sentence, a matrix a title, queries in rows; ASCII labels."""
    figure, axes = grid(len(weights), height=3.9)
    names = [f"{label} {index}" for index, label in enumerate(labels)]
    for axis, (title, matrix) in zip(axes, weights.items(), strict=True):
        sns.heatmap(matrix, ax=axis, vmin=0, vmax=1, cmap="mako_r", square=True, cbar=False, rasterized=True,
                    linewidths=0.3, linecolor="0.9")  # fmt: skip
        ticks = np.arange(len(names)) + 0.5
        axis.set_xticks(ticks, names, rotation=90, fontsize=7)
        axis.set_yticks(ticks, names if axis is axes[0] else [], rotation=0, fontsize=7)
        axis.set(title=title, xlabel="key", ylabel="query" if axis is axes[0] else "")
    bar = figure.colorbar(axes[0].collections[0], ax=axes, shrink=0.6)
    bar.set_label("attention weight")
    return figure


# ----------------------------------------------------------------------------------------------- 03 model_anatomy

FEEDS = {"accuracy": "fed the true answer", "free_running_accuracy": "fed its own output"}


def defect_curves(table: pd.DataFrame) -> Figure:
    """Accuracy by training step, an axis an arm, fed the truth or itself; dotted: the best without order.

    Published rows are mean and range over seeds, this run's are hollow circles, a seed each.

    Args:
        table: rows of part `defect` and `ceiling`, with arm, seed, step, metric, value, run.
    """
    curves = table[(table["part"] == "defect") & table["metric"].isin(list(FEEDS))]
    ceiling = table[table["part"] == "ceiling"].groupby("metric")["value"].first()
    first = ["repaired", "no positions", "no causal mask", "no shift", "batch order", "all four"]
    figure, axes = grid(3, rows=2, height=2.5)
    for axis, arm in zip(axes, first, strict=True):
        for color, (metric, label) in enumerate(FEEDS.items()):
            _fed(axis, curves[(curves["arm"] == arm) & (curves["metric"] == metric)], f"C{color}", label)
            axis.axhline(ceiling[metric], color=f"C{color}", ls=":", lw=1)
        axis.set(title=arm, xlabel="training step", ylabel="share of tokens right", ylim=(-0.05, 1.05))
        axis.label_outer()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def _fed(axis: Axes, rows: pd.DataFrame, color: str, label: str) -> None:
    published, ours = (rows[rows["run"] == run] for run in ("published", "this run"))
    if len(published):
        sns.lineplot(published, x="step", y="value", errorbar=("pi", 100), ax=axis, color=color, legend=False)
    else:  # this run's own mean is the line to read
        axis.plot(ours.groupby("step")["value"].mean(), color=color)
    axis.plot(ours["step"], ours["value"], "o", mfc="none", mec=color, ms=5, label=label)


def parity_losses(table: pd.DataFrame) -> Figure:
    """Loss by optimiser step of one seed, an axis a pair: our model a line, its counterpart hollow circles."""
    losses = table[table["metric"].isin(["our_loss", "their_loss"])]
    losses = losses[losses["seed"] == losses["seed"].min()]
    figure, axes = grid(3, height=2.6)
    for axis, (arm, rows) in zip(axes, losses.groupby("arm", sort=False), strict=True):
        wide = rows.pivot(index="step", columns="metric", values="value")
        axis.plot(wide.index, wide["our_loss"], label="ours")
        axis.plot(wide.index, wide["their_loss"], "o", mfc="none", mec="C1", ms=6, label="theirs")
        axis.set(title=arm.replace(" vs ", "\nvs "), xlabel="AdamW step", ylim=(0, 1.08 * wide.to_numpy().max()))
    axes[0].set_ylabel("loss, nats a token")
    axes[0].legend(frameon=False)
    return figure
