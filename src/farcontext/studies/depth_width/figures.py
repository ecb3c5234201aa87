"""Figures of notebook 06: effective length, sliding windows, and divergence.

They show effective length over the grid, the reach of sliding windows, and divergence by length.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from farcontext.results.plotting import curves, grid, legend_below, powers


def recall_curves(table: pd.DataFrame, chance: float) -> Figure:
    """Draw recall against length in trained lengths.

    There is one axis for each trained length, and one line for each cell.

    Args:
        table: rows of metric "recall" with layers, width, window, length, seed, value, run.
        chance: recall of a guess.
    """
    rows = table[table["metric"] == "recall"].assign(multiple=lambda f: f["length"] / f["window"])
    windows = sorted(rows["window"].unique())
    figure, axes = grid(len(windows), height=3.2)
    cells = rows["layers"].astype(int).astype(str) + " × " + rows["width"].astype(int).astype(str)
    rows = rows.assign(cell=cells).sort_values(["layers", "width"], kind="stable")
    colors = {cell: f"C{number}" for number, cell in enumerate(rows["cell"].unique())}
    for axis, window in zip(axes, windows, strict=True):
        curves(axis, rows[rows["window"] == window], "multiple", colors, by="cell", marker="o")
        axis.axhline(chance, ls=":", color="0.4")
        powers(axis, rows["multiple"])
        axis.set(
            title=f"trained at {int(window)} tokens",
            xlabel="length, in trained lengths",
            ylabel="recall",
        )
        axis.set_ylim(0, 1.04)
    legend_below(figure, colors, rows["run"], title="layers × width")
    return figure


def effective_against_formula(table: pd.DataFrame) -> Figure:
    """Draw the effective length of every cell against two predictors.

    They are what layers × hidden units predicts (left) and the trained length (right).

    Args:
        table: rows of metric "effective_length" with layers, width, window, value, run.
    """
    rows = table[table["metric"] == "effective_length"]
    rows = rows.assign(formula=rows["layers"] * rows["width"])
    windows = sorted(rows["window"].unique())
    figure, axes = grid(2, height=3.4)
    for axis, x in zip(axes, ("formula", "window"), strict=True):
        for run, filled in (("published", True), ("this run", False)):
            for color, window in enumerate(windows):
                at = rows[(rows["run"] == run) & (rows["window"] == window)]
                look = {"color": f"C{color}"} if filled else {"mfc": "none", "mec": f"C{color}"}
                label = f"{int(window)}" if len(at) else None
                axis.plot(
                    at[x], at["value"], "o", alpha=0.8, label=label if filled else None, **look
                )
        axis.margins(x=0.1)
        ends = np.array([rows[x].min(), rows[x].max()])
        axis.plot(ends, ends, ":", color="0.4")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        ticks = sorted(rows[x].unique())
        axis.set_xticks(ticks, [f"{int(tick)}" for tick in ticks])
        powers = 2.0 ** np.arange(
            np.floor(np.log2(rows["value"].min())), np.ceil(np.log2(rows["value"].max())) + 1
        )
        axis.set_yticks(powers, [f"{int(power)}" for power in powers])
    axes[0].set(
        xlabel="layers × hidden units", ylabel="effective length, tokens", title="dotted: equal"
    )
    axes[1].set(xlabel="trained length, tokens", title="dotted: equal")
    for color, window in enumerate(windows):
        axes[1].plot([], [], "o", color=f"C{color}", label=f"trained at {int(window)}")
    handles, labels = axes[1].get_legend_handles_labels()
    named = [
        (h, name) for h, name in zip(handles, labels, strict=True) if name.startswith("trained")
    ]
    axes[0].legend(*zip(*named, strict=True), frameon=True, fontsize="small")
    return figure


def sliding_influence(table: pd.DataFrame) -> Figure:
    """Draw influence by distance, and the effective horizon by depth.

    The share of influence is on the left, the horizon with √L·w and the bound on the right.

    Args:
        table: rows of metrics "influence" and "horizon", arm "sliding", with layers, window,
            distance, value, run.
    """
    rows = table[table["arm"] == "sliding"]
    spread = rows[(rows["metric"] == "influence") & (rows["value"] > 0)]
    figure, axes = grid(2, height=3.2)
    best = spread[
        spread["run"] == ("published" if (spread["run"] == "published").any() else "this run")
    ]
    mean = best.groupby(["layers", "window", "distance"])["value"].mean()
    for color, ((layers, window), share) in enumerate(mean.groupby(["layers", "window"])):
        axes[0].plot(
            share.index.get_level_values("distance"),
            share,
            color=f"C{color}",
            label=f"{int(layers)}",
        )
        axes[0].axvline(layers * window, ls=":", color=f"C{color}")
    axes[0].set(
        xlabel="distance, tokens (dotted: the bound)", ylabel="share of influence", yscale="log"
    )
    axes[0].legend(title="layers", frameon=True)
    horizon = rows[rows["metric"] == "horizon"].assign(value=lambda f: f["value"] / f["window"])
    curves(axes[1], horizon, "layers", {"measured": "C0"}, marker="o")
    axes[1].plot([], [], "o-", color="C0", label="measured")
    depth = np.linspace(horizon["layers"].min(), horizon["layers"].max(), 50)
    for words, curve, line in (
        ("L", depth, ":"),
        ("√L", np.sqrt(depth), "--"),
        ("1", np.ones(50), "-."),
    ):
        axes[1].plot(depth, curve, line, color="0.4", label=words)
    axes[1].set(xlabel="layers L", ylabel="horizon, in windows w")
    axes[1].margins(x=0.1)
    axes[1].set_ylim(0, 1.08 * depth.max())
    axes[1].set_xticks(sorted(horizon["layers"].unique()))
    axes[1].legend(frameon=True, fontsize="small")
    return figure


def divergence(table: pd.DataFrame) -> Figure:
    """Draw diverged runs, dispersion of gradient norms, and spikes by T.

    The axis titles tell what each axis shows.
    """
    arms = {"equal tokens": "C0", "equal sequences": "C1"}
    names = {
        "diverged": "share of runs diverged",
        "dispersion": "s.d. of ln gradient norm",
        "spikes": "share of spikes",
    }
    figure, axes = grid(3, height=3.0)
    calm = table.pivot_table(
        index=["run", "arm", "length", "lr", "seed"], columns="metric", values="value"
    )
    for axis, (metric, label) in zip(axes, names.items(), strict=True):
        at = calm if metric == "diverged" else calm[calm["diverged"] == 0]
        means = (
            at.groupby(["run", "arm", "length", "seed"])[metric]
            .mean()
            .rename("value")
            .reset_index()
        )
        curves(axis, means, "length", arms, by="arm", marker="o", size=7)
        top = 1.0 if metric == "diverged" else max(means["value"].max(), 0.01)
        powers(axis, means["length"])
        axis.set(xlabel="length T, tokens", ylabel="", title=label)
        axis.margins(x=0.1)
        axis.set_ylim(-0.04 * top, 1.08 * top)
    legend_below(figure, arms, table["run"])
    return figure
