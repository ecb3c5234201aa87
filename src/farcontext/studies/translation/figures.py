"""Figures of notebook 09: who chooses the right translation.

They show from how far back it is chosen, and what BLEU and chrF see of it.
"""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from farcontext.results.plotting import bars, grid, leading, legend_below

KINDS = {
    "gender": "gender: la, lo",
    "formality": "formality: tu, vos",
    "term": "term: banka, bordo",
}
METRICS = {"exact": "translated exactly, %", "bleu": "BLEU", "chrf": "chrF"}
# Each line stands this part of a distance unit further right, so that equal ones are both seen.
SHIFT = 0.06


def read_by(arm: str, context: float) -> str:
    """Return an arm in words."""
    match arm:
        case "contrast":
            return "every choice wrong"
        case "random":
            return f"{context:.0f} of another document"
    return f"{context:.0f} before it" if context else "the sentence alone"


def choices(contrast: pd.DataFrame, chance: float) -> Figure:
    """Draw contrastive accuracy by distance.

    Each number of sentences read is a line with the range over seeds; points of this run are
    hollow.

    Args:
        contrast: rows of metric "contrast" of a document's own sentences, with run, kind, distance,
            context, seed and value.
        chance: of two translations.
    """
    contexts = sorted(contrast["context"].unique())
    colors = dict(zip(contexts, sns.color_palette("viridis_r", len(contexts)), strict=True))
    legend = sorted(leading(contrast)["context"].unique())
    figure, axes = grid(len(KINDS), height=3.0)
    for axis, (kind, title) in zip(axes, KINDS.items(), strict=True):
        at = contrast[contrast["kind"] == kind]
        published, ours = (at[at["run"] == run] for run in ("published", "this run"))
        for number, (context, part) in enumerate(published.groupby("context")):
            _range(axis, part, SHIFT * number, colors[context])
        for context, points in ours.groupby("context"):
            axis.plot(
                points["distance"], points["value"], "o", mfc="none", mec=colors[context], ms=5
            )
        axis.axhline(chance, ls=":", color="0.4")
        axis.set_xticks(sorted(at["distance"].unique()))
        axis.set(
            title=title, ylim=(0, 1.04), ylabel="share of right choices" if axis is axes[0] else ""
        )
        axis.title.set_size("small")
    axes[1].set_xlabel("sentences back to the one that tells")
    words = {f"{n:.0f} read" if n else "sentence alone": colors[n] for n in legend}
    legend_below(figure, words, contrast["run"])
    return figure


def _range(axis: Axes, rows: pd.DataFrame, shift: float, color: tuple[float, float, float]) -> None:
    """Draw the mean over seeds, and their range at each distance.

    The mean is a line, a range is a bar.
    """
    by = rows.groupby("distance")["value"].agg(["mean", "min", "max"])
    axis.plot(by.index + shift, by["mean"], color=color, marker="o", ms=3)
    axis.vlines(by.index + shift, by["min"], by["max"], color=color, lw=1.2)


def scores(table: pd.DataFrame) -> Figure:
    """Draw exact translations, BLEU and chrF by what was read.

    Each score is a panel, 0 to 100; bars have the range over seeds.

    Args:
        table: rows of metrics "exact", "bleu" and "chrf", with run, arm, context, seed and value;
            exact as a share.
    """
    shown = leading(table[table["metric"].isin(METRICS)])
    shown = (
        shown.groupby(["metric", "arm", "context", "seed"], dropna=False)["value"]
        .mean()
        .reset_index()
    )
    names = [read_by(*pair) for pair in zip(shown["arm"], shown["context"], strict=True)]
    shown = shown.assign(
        read=names, value=shown["value"].where(shown["metric"] != "exact", 100 * shown["value"])
    )
    by_size = shown.sort_values("context", key=lambda contexts: contexts.fillna(-1), kind="stable")
    order = list(dict.fromkeys(by_size["read"]))
    figure, axes = grid(len(METRICS), height=2.6)
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=True):
        at = shown[shown["metric"] == metric]
        bars(axis, at, {name: name for name in order}, by="read", alpha=0.7)
        axis.set(title=title, xlabel="", xlim=(0, 104), xticks=(0, 25, 50, 75, 100))
        axis.title.set_size("small")
    return figure
