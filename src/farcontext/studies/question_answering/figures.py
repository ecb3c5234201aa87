"""Figures of notebook 08: who answers what, from how much text."""

from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import bars, curves, grid, leading, legend_below

AXES = {  # What a level counts.
    "updates": "changes in the story",
    "mentions": "sentences that only name her",
    "namesakes": "people with half her name",
    "words": "words of the name left out",
    "pronouns": "sentences from name to \u201cShe \u2026\u201d",
    "counting": "people to be counted",
    "hops": "sentences to put together",
    "length": "tokens of context",
}
LINES = {
    "whole": "whole context",
    "rival": "BM25 in its best form",
    "bm25_64": "BM25 with 64 tokens",
    "told": "the tellings alone (what the reader can do)",
}
READ = {
    "full": "whole context",
    "window": "last tokens",
    "retrieved": "BM25, then read",
    "closed_book": "no context",
}
RECIPES = {
    "short": "pre-training on short rows alone",
    "long": "a third of the budget on long rows",
}
STRIPS = {"prose": "0.88", "told": "#9ecae1", "evidence": "#d95f02"}


def strips(reads: Mapping[str, Sequence[tuple[int, int, str]]], size: int) -> Figure:
    """Draw what each arm reads of one context, as strips.

    Args:
        reads: arm's words → (first token, tokens, kind) of each sentence that it reads, of kind
            prose, told or evidence.
        size: tokens of the whole context.
    """
    figure, (axis,) = grid(1, height=0.42 * len(reads) + 0.7)
    for row, blocks in enumerate(reads.values()):
        axis.barh(row, size, color="white", edgecolor="0.8", linewidth=0.5, height=0.7)
        for start, tokens, kind in blocks:
            look = {"color": STRIPS[kind], "edgecolor": "white", "linewidth": 0.5, "height": 0.7}
            axis.barh(row, tokens, left=start, **look)
    axis.set_yticks(range(len(reads)), list(reads))
    axis.invert_yaxis()
    axis.set(xlabel="token of the context", xlim=(0, size))
    axis.grid(visible=False)
    words = {"prose": "prose", "told": "tells something else", "evidence": "evidence"}
    legend_below(figure, {words[kind]: color for kind, color in STRIPS.items()})
    return figure


def axes(exact: pd.DataFrame, chances: Mapping[str, float]) -> Figure:
    """Draw the share of right answers by axis and level.

    A panel for each axis; lines have the range over seeds, and the levels stand at even distances.

    Args:
        exact: rows of metric "exact" with steps "written", with run, axis, arm, level, seed, value.
        chances: axis → share of a random choice.
    """
    shown = leading(exact)
    names = [axis for axis in AXES if axis in set(shown["axis"])]
    arms = [arm for arm in LINES if arm in set(shown["arm"])]
    colors = dict(zip(LINES, [*sns.color_palette("colorblind", 3), "0.6"], strict=True))
    figure, panels = grid(4, rows=-(-len(names) // 4), height=2.2)
    for panel, name in zip(panels, names, strict=False):
        rows = shown[shown["axis"] == name]
        levels = sorted(set(rows["level"]))
        rows = rows.assign(place=rows["level"].map(levels.index))
        curves(panel, rows, "place", {arm: colors[arm] for arm in reversed(arms)}, by="arm", size=4)
        panel.axhline(chances[name], ls=":", color="0.4")
        ticks = [f"{level:,.0f}" for level in levels]
        panel.set_xticks(range(len(levels)), ticks, fontsize="small")
        panel.set(title=name, ylim=(-0.02, 1.04), ylabel="")
        panel.set_xlabel(AXES[name], fontsize="x-small")
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel in panels[::4]:
        panel.set_ylabel("share right", fontsize="small")
    legend_below(figure, {LINES[arm]: colors[arm] for arm in arms}, shown["run"])
    return figure


def differences(found: pd.DataFrame, enough: float) -> Figure:
    """Draw how much better the whole context is, by axis and level.

    Args:
        found: what `study.differences` returns.
        enough: points that count as better.
    """
    order = [axis for axis in AXES if axis in set(found["axis"])]
    rows = found.assign(rank=found["axis"].map(order.index)).sort_values(["rank", "level"])
    words = [f"{a}: {x:,}" for a, x in zip(rows["axis"], rows["level"], strict=True)]
    figure, (axis,) = grid(1, height=0.19 * len(rows) + 0.8)
    colors = sns.color_palette("colorblind", len(order))
    for place, one in enumerate(rows.to_dict("records")):
        color = colors[one["rank"]]
        axis.plot([one["low"], one["high"]], [place, place], color=color, lw=2)
        axis.plot(one["difference"], place, "o", color=color, ms=4)
    axis.set_yticks(range(len(words)), words, fontsize="x-small")
    axis.invert_yaxis()
    axis.axvline(0, color="0.4", lw=1)
    axis.axvline(enough, color="0.4", lw=1, ls=":")
    axis.set(xlabel="whole context \u2212 BM25 in its best form, points (dotted: the threshold)")
    return figure


def recipes(exact: pd.DataFrame) -> Figure:
    """Draw the share of right answers by recipe, evidence far away.

    Args:
        exact: rows of metric "exact" of axis "far", with run, recipe, level, seed and value.
    """
    shown = leading(exact)
    levels = sorted(set(shown["level"]))
    rows = shown.assign(place=shown["level"].map(levels.index))
    figure, (axis,) = grid(1, height=2.6)
    colors = dict(zip(RECIPES, sns.color_palette("colorblind", len(RECIPES)), strict=True))
    curves(axis, rows, "place", colors, by="recipe", marker="o")
    axis.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    axis.set(xlabel=AXES["updates"], ylabel="share right", ylim=(0, 1.04))
    legend_below(figure, {RECIPES[name]: color for name, color in colors.items()}, shown["run"])
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
    figure, panels = grid(len(domains), height=2.8)
    for axis, domain in zip(panels, domains, strict=True):
        at = shown[shown["recipe"] == domain]
        bars(axis, at, READ, errorbar=None, alpha=0.5)
        points = {"order": [arm for arm in READ if arm in set(at["arm"])], "color": "0.2"}
        sns.stripplot(at, y="arm", x="value", size=4, jitter=False, ax=axis, **points)
        axis.axvline(guessed[guessed["recipe"] == domain]["value"].mean(), ls=":", color="0.4")
        axis.set(title=domain, xlabel="share of right choices", ylabel="", xlim=(0, 1.04))
    return figure
