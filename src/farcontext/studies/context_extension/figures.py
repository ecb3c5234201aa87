"""Figures of notebook 07: which scheme reaches how far.

They are by layout and dose.
"""

import textwrap
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import curves, grid, leading, legend_below, powers

# What readers call the arms, in the order of legends.
NAMES = {
    "rope": "plain RoPE",
    "linear": "PI",
    "ntk": "NTK-aware",
    "dynamic_ntk_hf": "dynamic NTK",
    "yarn": "YaRN",
    "abf": "raised base",
    "self_extend": "SelfExtend",
    "dual_chunk": "dual chunk attention",
    "lm_infinite": "LM-Infinite",
    "drope": "DroPE",
    "alibi_smeared": "ALiBi, trained so",
    "nope_smeared": "no positions, trained so",
}
# Curves would hide one another if all were drawn; tables have the rest.
REACHING = ("rope", "linear", "ntk", "yarn", "self_extend", "drope", "alibi_smeared")
DOSED = ("rope", "linear", "ntk", "yarn", "abf", "drope")
APART = {"rope": "plain RoPE", "yarn": "YaRN", "needles": "SmolLM2-135M"}
# The parts of a longer row's loss (`apart`).
PARTS = {
    "positions": "positions apart",
    "keys": "more keys to look at",
    "distraction": "varied text in them",
    "at hand": "as long, evidence at hand",
    "retrieval": "evidence moved away",
}
TEXTS = {"plays": "plays", "new_manuals": "newer API manuals", "sanguo": "Chinese novel"}
LAYOUTS = {"far": "evidence far", "near": "evidence near", "spread": "evidence spread"}


def _colors(arms: tuple[str, ...]) -> dict[str, Any]:
    """Return each arm's colour, the same in all figures."""
    colors = [*sns.color_palette("colorblind", 10), "0.55", "0.2"]
    return {arm: color for arm, color in zip(NAMES, colors, strict=True) if arm in arms}


def _chosen_rate(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[(table["kind"] == "decoder") & (table["rate"] == "first")]
    return rows[rows["trained"] == rows.groupby("run")["trained"].transform("min")]


def mean_recall(table: pd.DataFrame, depths: tuple[float, ...]) -> pd.DataFrame:
    """Return mean recall of every case.

    A case is an arm, dose, run, seed and multiple of the trained length. Recall is the mean of far,
    near and spread evidence.
    """
    recall = _chosen_rate(table[table["metric"] == "recall"])
    ends = recall["depth"].isna() | recall["depth"].isin((min(depths), max(depths)))
    keys = ["run", "arm", "dose", "seed", "length", "trained"]
    mean = recall[ends].groupby(keys, as_index=False)["value"].mean()
    return mean.assign(multiple=mean["length"] / mean["trained"])


def extension_curves(recall: pd.DataFrame, chance: float) -> Figure:
    """Draw recall against the multiple of the trained length.

    It is drawn as it is and after most steps. Each scheme is a line with the range over seeds.

    Args:
        recall: what `mean_recall` returns.
        chance: recall of a guess.
    """
    most = int(leading(recall)["dose"].max())
    figure, axes = grid(2, height=2.7)
    colors = _colors(REACHING)
    for axis, dose in zip(axes, (0, most), strict=True):
        at = recall[(recall["dose"] == dose) & recall["arm"].isin(REACHING)]
        curves(axis, at, "multiple", colors, by="arm")
        axis.axhline(chance, ls=":", color="0.4")
        powers(axis, recall["multiple"], "×")
        words = "as it is" if dose == 0 else f"after {dose} steps of fine-tuning"
        axis.set(title=words, xlabel="length, in trained lengths", ylabel="", ylim=(0, 1.04))
    axes[0].set_ylabel("recall (dotted: a guess)")
    legend_below(figure, {NAMES[arm]: color for arm, color in colors.items()}, recall["run"])
    return figure


def dose_response(table: pd.DataFrame) -> Figure:
    """Draw recall far out against the steps of fine-tuning.

    Far is 8 trained lengths and beyond. A panel for each place of the evidence; a scheme is a line
    with the range over seeds.

    Args:
        table: the study's table, with run.
    """
    scores = _chosen_rate(table[table["metric"] == "score"])
    doses = sorted(set(leading(scores)["dose"]))
    places = {dose: place for place, dose in enumerate(doses)}
    scores = scores[scores["dose"].isin(doses)].assign(place=lambda x: x["dose"].map(places))
    figure, axes = grid(len(LAYOUTS), height=2.7)
    colors = _colors(DOSED)
    for axis, (layout, words) in zip(axes, LAYOUTS.items(), strict=True):
        curves(axis, scores[scores["layout"] == layout], "place", colors, by="arm", marker="o")
        axis.set_xticks(range(len(doses)), [f"{dose:g}" for dose in doses])
        axis.set(title=words, xlabel="steps of fine-tuning", ylabel="", ylim=(-0.02, 1.04))
    axes[0].set_ylabel("recall at 8× and 16×")
    legend_below(figure, {NAMES[arm]: color for arm, color in colors.items()}, scores["run"])
    return figure


def winners(scheme: pd.DataFrame) -> Figure:
    """Draw the best scheme by place of evidence and by steps.

    Steps are those that can be spent.

    Args:
        scheme: what `study.which_scheme` returns.
    """
    column = "recall at 8× and beyond"
    value = scheme[column].unstack().reindex(LAYOUTS)
    best = scheme["best"].unstack().reindex(LAYOUTS)
    words = best.map(lambda arm: textwrap.fill(NAMES.get(arm, arm), 16)) + "\n"
    figure, (axis,) = grid(1, height=2.6)
    look = {"vmin": 0, "vmax": 1, "cmap": "crest", "cbar": False}
    sns.heatmap(
        value, ax=axis, annot=words + value.map("{:.2f}".format), fmt="", linewidths=2, **look
    )
    axis.set(
        xlabel="steps of fine-tuning that can be spent", ylabel="", title=f"{column}: the best"
    )
    axis.set_yticklabels([LAYOUTS[layout] for layout in value.index], rotation=0)
    axis.tick_params(length=0)
    return figure


def loss_parts(table: pd.DataFrame) -> Figure:
    """Draw the parts of what a longer context costs, by its length.

    A panel for plain RoPE, YaRN and the checkpoint; a part is a line with the range over seeds.

    Args:
        table: the study's table, with run.
    """
    rows = leading(table[table["metric"] == "loss_part"])
    rows = rows[(rows["kind"] == "real") | (rows["dose"] == 0)]
    panels = {name: words for name, words in APART.items() if name in set(rows["arm"])}
    figure, axes = grid(len(panels), height=2.6)
    colors = dict(zip(PARTS, sns.color_palette("colorblind"), strict=False))
    for axis, (arm, words) in zip(axes, panels.items(), strict=True):
        at = rows[rows["arm"] == arm]
        curves(axis, at, "length", colors, by="layout", marker="o")
        axis.axhline(0, ls=":", color="0.4")
        powers(axis, at["length"])
        axis.set(title=words, xlabel="tokens in the row", ylabel="")
    axes[0].set_ylabel("nats an answer")
    legend_below(figure, {PARTS[part]: color for part, color in colors.items()})
    return figure


def far_context(far: pd.DataFrame) -> Figure:
    """Draw what the right text before the last tokens is worth.

    A panel for each kind of text: the loss of the same last tokens behind a document's own text and
    behind another's, by tokens in the row, with 95 % intervals over documents.

    Args:
        far: rows of metric "far_loss" with arm (own, other), layout (the kind), length, seed (the
            document), value and run.
    """
    far = leading(far.dropna(subset=["layout"]))
    kinds = {kind: words for kind, words in TEXTS.items() if kind in set(far["layout"])}
    colors = {"other": "C1", "own": "C0"}
    figure, axes = grid(len(kinds), height=2.6)
    for axis, (kind, words) in zip(axes, kinds.items(), strict=True):
        rows = far[far["layout"] == kind]
        same = {"x": "length", "y": "value", "hue": "arm", "palette": colors, "marker": "o"}
        sns.lineplot(rows, errorbar=("ci", 95), seed=0, legend=False, ax=axis, **same)
        powers(axis, far["length"])
        axis.set(title=words, xlabel="tokens in the row", ylabel="")
    axes[0].set_ylabel("loss of the last tokens, nats")
    words = {"other": "another document's text before", "own": "its own text before"}
    legend_below(figure, {words[arm]: color for arm, color in colors.items()})
    return figure
