"""Figures of notebook 06: slopes against the formula, recall, windows, and stability."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import curves, grid, leading, legend_below, powers

AXES = {"layers": "layers", "width": "width", "window": "trained length"}
REGIMES = {
    "SGD, equal tokens": "C0",
    "SGD, equal sequences": "C1",
    "AdamW, equal tokens": "C0",
    "AdamW, equal sequences": "C1",
}


def reach_of_windows(layers: int, window: int) -> Figure:
    """Draw which tokens an output can see through stacked windows.

    Every layer lets a token see `window` tokens, itself among them; lines are the ways that end at
    the last token.
    """
    width = layers * (window - 1) + 3
    figure, (axis,) = grid(1, height=0.45 * layers + 0.9)
    seen = {width - 1}
    for layer in range(layers, 0, -1):
        below = {place - back for place in seen for back in range(window)}
        for place in seen:
            for back in range(window):
                axis.plot([place, place - back], [layer, layer - 1], color="C0", lw=0.7)
        axis.scatter(range(width), [layer] * width, color="0.8", zorder=2, s=30)
        axis.scatter(list(seen), [layer] * len(seen), color="C0", zorder=3, s=30)
        seen = below
    axis.scatter(range(width), [0] * width, color="0.8", zorder=2, s=30)
    axis.scatter(list(seen), [0] * len(seen), color="C2", zorder=3, s=30)
    axis.set_yticks(range(layers + 1), ["tokens", *(f"layer {n + 1}" for n in range(layers))])
    axis.set_xticks(range(width), [f"{place - width + 1}" for place in range(width)])
    axis.set(xlabel="place, counted back from the output", title=f"{len(seen)} tokens are reached")
    axis.grid(visible=False)
    return figure


def slopes_and_formula(slopes: pd.DataFrame) -> Figure:
    """Draw three measured slopes with their intervals, and the formula's.

    Args:
        slopes: what `study.against_formula` returns.
    """
    figure, (axis,) = grid(1, height=2.3)
    places = np.arange(len(slopes))[::-1]
    ends = (slopes["slope"] - slopes["low"], slopes["high"] - slopes["slope"])
    axis.errorbar(slopes["slope"], places, xerr=np.nan_to_num(ends), fmt="o", capsize=4, color="C0")
    axis.plot(slopes["formula"], places, "D", mfc="none", mec="C3", ms=9)
    for at, line in ((0, "-"), (0.5, ":"), (1, "-")):
        axis.axvline(at, color="0.7", lw=1, ls=line)
    axis.set_yticks(places, [f"log {name}" for name in slopes.index])
    axis.set(ylim=(-0.6, len(slopes) - 0.4), xlabel="slope of log effective length")
    words = {"measured, 95 % over seeds": "C0", "the formula (hollow)": "C3"}
    legend_below(figure, words)
    return figure


def recall_curves(table: pd.DataFrame, chance: float) -> Figure:
    """Draw recall against length in trained lengths.

    There is one axis for what is changed: depth, width or trained length.

    Args:
        table: rows of metric "recall" with layers, width, window, length, seed, value, run.
        chance: recall of a guess.
    """
    rows = table[table["metric"] == "recall"].dropna(subset=list(AXES))
    rows = rows.assign(multiple=rows["length"] / rows["window"])
    figure, axes = grid(len(AXES), height=3.0)
    for axis, (changed, words) in zip(axes, AXES.items(), strict=True):
        at = varied(rows, changed)
        values = sorted(at[changed].unique())
        colors = dict(zip(values, sns.color_palette("viridis", len(values)), strict=True))
        curves(axis, at, "multiple", colors, by=changed, marker="o")
        for value, color in colors.items():
            axis.plot([], [], color=color, label=f"{value:g}")
        axis.axhline(chance, ls=":", color="0.4")
        powers(axis, at["multiple"])
        axis.legend(title=words, frameon=True, fontsize="x-small", title_fontsize="x-small")
        axis.set(xlabel="length, in trained lengths", ylabel="", ylim=(0, 1.04))
    axes[0].set_ylabel("recall (dotted: a guess)")
    return figure


def varied(rows: pd.DataFrame, changed: str) -> pd.DataFrame:
    """Return the rows of shapes that differ in one thing alone.

    By run, the other two have the middle shape's values, which most shapes share.
    """
    others = [name for name in AXES if name != changed]
    parts = []
    for _, at in rows.groupby("run"):
        shapes = at[list(AXES)].drop_duplicates()
        middle = {name: shapes[name].mode()[0] for name in others}
        parts.append(at[np.logical_and.reduce([at[name] == middle[name] for name in others])])
    return pd.concat(parts)


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


def stability(table: pd.DataFrame) -> Figure:
    """Draw how unsteady training is by T, in both regimes.

    Left the share of SGD runs that diverged, over all rates; in the middle the spread of AdamW's
    log gradient norm; right its share of spikes.
    """
    rows = leading(table[table["arm"].isin(REGIMES)])
    figure, axes = grid(3, height=3.0)
    panels = (
        ("SGD", "diverged", "SGD: share of runs diverged"),
        ("AdamW", "spread", "AdamW: spread of ln norm"),
        ("AdamW", "spikes", "AdamW: share of spikes"),
    )
    for axis, (regime, metric, title) in zip(axes, panels, strict=True):
        at = rows[rows["arm"].str.startswith(regime) & (rows["metric"] == metric)]
        keys = ["run", "arm", "length", "seed"]
        mean = at.groupby(keys, as_index=False)["value"].mean()
        colors = {arm: color for arm, color in REGIMES.items() if arm.startswith(regime)}
        curves(axis, mean.assign(run="published"), "length", colors, by="arm", marker="o")
        powers(axis, mean["length"])
        axis.set(xlabel="length T, tokens", ylabel="", title=title)
        axis.set_ylim(0, None)
    legend_below(figure, {"equal tokens a step": "C0", "equal sequences a step": "C1"})
    return figure
