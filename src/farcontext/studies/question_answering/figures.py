"""Figures of notebook 08: who answers, from where, after which training."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import bars, curves, grid, leading, legend_below, powers

READ = {
    "full": "whole context",
    "window": "last tokens",
    "retrieved": "BM25, then read",
    "shuffled": "sentences shuffled",
    "closed_book": "no context",
    "removed": "evidence removed",
    "wrong": "another story",
}
HOPS = {1: "1 hop: where is Anna? who has the lamp?", 2: "2 hops: where is the lamp?"}
DEPTHS = {0.0: "story far away", 1.0: "story near"}


def arms(exact: pd.DataFrame, chance: dict[int, float]) -> Figure:
    """Draw the share of exact answers by what was read.

    Each number of hops is a panel; bars have the range over seeds.

    Args:
        exact: rows of metric "exact" at the trained length, with run, arm, hops, depth, seed and
            value.
        chance: of a choice, by hops.
    """
    shown = leading(exact).assign(evidence=lambda rows: rows["depth"].map(DEPTHS))
    figure, axes = grid(len(HOPS), height=3.4)
    for axis, (hops, title) in zip(axes, HOPS.items(), strict=True):
        at = shown[shown["hops"] == hops]
        depths = {"hue": "evidence", "hue_order": list(DEPTHS.values())}
        bars(axis, at, READ, **depths, legend=axis is axes[-1])
        axis.axvline(chance[hops], ls=":", color="0.4")
        axis.set(title=title, xlabel="share answered exactly", xlim=(0, 1.02))
        axis.title.set_size("small")
    axes[-1].legend(title="", frameon=True, fontsize="small", loc="lower right")
    return figure


def depth_map(exact: pd.DataFrame) -> Figure:
    """Draw the share of exact answers by depth and length.

    The depth is that of the story. Each number of hops is a panel; cells are means over seeds.

    Args:
        exact: rows of metric "exact" of the whole context after the long recipe.
    """
    figure, axes = grid(len(HOPS), height=2.8)
    for axis, (hops, title) in zip(axes, HOPS.items(), strict=True):
        at = leading(exact)
        cells = at[at["hops"] == hops].pivot_table(index="depth", columns="length", values="value")
        cells.columns = [f"{int(length):,}" for length in cells.columns]
        look = {
            "vmin": 0,
            "vmax": 1,
            "cmap": "viridis",
            "annot": True,
            "fmt": ".2f",
            "annot_kws": {"size": 8},
        }
        sns.heatmap(cells, ax=axis, cbar=axis is axes[-1], **look)
        axis.set(title=title, xlabel="tokens", ylabel="depth (0: first)" if axis is axes[0] else "")
        axis.title.set_size("small")
    return figure


def recipes(exact: pd.DataFrame, trained: int) -> Figure:
    """Draw the share of exact answers by length and recipe.

    The story is far away. Lines have the range over seeds; points of this run are hollow.

    Args:
        exact: rows of metric "exact" of the whole context, with run, recipe, hops, length, seed and
            value.
        trained: the longest length seen in training.
    """
    figure, axes = grid(len(HOPS), height=3.2)
    names = ("none", "short", "long")
    colors = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    for axis, (hops, title) in zip(axes, HOPS.items(), strict=True):
        at = exact[exact["hops"] == hops]
        curves(axis, at, "length", colors, by="recipe")
        axis.axvline(trained, ls=":", color="0.4")
        powers(axis, at["length"])
        axis.set(title=title, xlabel="tokens", ylabel="share answered exactly", ylim=(0, 1.04))
        axis.title.set_size("small")
    words = {f"{'no' if name == 'none' else name} pre-training": colors[name] for name in names}
    legend_below(figure, words, exact["run"])
    return figure


def real(choice: pd.DataFrame, chance: pd.DataFrame) -> Figure:
    """Draw a checkpoint's share of right choices in real documents.

    Bars by what was read show the mean; each document is a point.

    Args:
        choice: rows of metric "choice" of tier real, with run, recipe (the domain), arm, seed and
            value.
        chance: rows of metric "chance".
    """
    shown, guessed = leading(choice), leading(chance)
    domains = sorted(set(shown["recipe"]))
    figure, axes = grid(len(domains), height=2.8)
    for axis, domain in zip(axes, domains, strict=True):
        at = shown[shown["recipe"] == domain]
        bars(axis, at, READ, errorbar=None, alpha=0.5)
        points = {"order": [arm for arm in READ if arm in set(at["arm"])], "color": "0.2"}
        sns.stripplot(at, y="arm", x="value", size=4, jitter=False, ax=axis, **points)
        axis.axvline(guessed[guessed["recipe"] == domain]["value"].mean(), ls=":", color="0.4")
        axis.set(title=domain, xlabel="share of right choices", ylabel="", xlim=(0, 1.04))
    return figure
