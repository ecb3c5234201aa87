"""Figures of notebook 07: how far each scheme reaches."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.measure.stats import t_interval
from farcontext.results.plotting import curves, grid, leading, legend_below, powers

# The curves show these arms; tables have the rest.
MAIN = ("rope", "linear", "ntk", "dynamic_ntk_hf", "yarn", "abf", "alibi")
TITLES = {
    "zero_shot": "as it is, scale set to the length",
    "tuned": "after the same short fine-tuning",
}


def in_trained_lengths(rows: pd.DataFrame) -> pd.Series:
    """Return each row's length over its own run's trained one.

    The trained length is the run's shortest tested one.
    """
    return (rows["length"] / rows.groupby("run")["length"].transform("min")).round(2)


def mean_recall(table: pd.DataFrame, depths: tuple[float, ...]) -> pd.DataFrame:
    """Return recall by arm, tuned, run, seed and multiple of length.

    Recall is the mean of far, near and spread; multiples are of the trained length.
    """
    recall = table[(table["metric"] == "recall") & (table["kind"] == "decoder")]
    ends = recall["depth"].isna() | recall["depth"].isin((min(depths), max(depths)))
    keys = ["run", "arm", "tuned", "seed", "length"]
    return (
        recall[ends]
        .groupby(keys, as_index=False)["value"]
        .mean()
        .assign(multiple=in_trained_lengths)
    )


def extension_curves(recall: pd.DataFrame, chance: float) -> Figure:
    """Draw recall against the multiple of the trained length.

    Each scheme is a line with the range over seeds.

    Args:
        recall: what `mean_recall` returns.
        chance: recall of a guess.
    """
    tuned = [name for name in TITLES if name in set(recall["tuned"])]
    figure, axes = grid(len(tuned), height=3.6)
    colors = dict(zip(MAIN, sns.color_palette("colorblind", len(MAIN)), strict=True))
    for axis, name in zip(axes, tuned, strict=True):
        at = recall[(recall["tuned"] == name) & recall["arm"].isin(MAIN)]
        curves(axis, at, "multiple", colors, by="arm")
        axis.axhline(chance, ls=":", color="0.4")
        powers(axis, recall["multiple"], "×")
        axis.set(
            title=TITLES[name], xlabel="length, in trained lengths", ylabel="recall", ylim=(0, 1.04)
        )
    shown = {arm: colors[arm] for arm in MAIN if arm in set(recall["arm"])}
    legend_below(figure, shown, recall["run"])
    return figure


def ranking(scores: pd.DataFrame) -> Figure:
    """Draw each arm's recall at eight trained lengths and beyond.

    The figure shows the 95 % interval over seeds, and the best arm first.

    Args:
        scores: rows of metric "score" with run, arm, tuned, seed, value.
    """
    scores = scores[scores["arm"] != "chosen"]
    tuned = [name for name in TITLES if name in set(scores["tuned"])]
    figure, axes = grid(len(tuned), height=0.9 + 0.22 * scores["arm"].nunique())
    for axis, name in zip(axes, tuned, strict=True):
        at = scores[scores["tuned"] == name]
        order = list(leading(at).groupby("arm")["value"].mean().sort_values(ascending=False).index)
        for run, look in (
            ("published", {"color": "C0"}),
            ("this run", {"color": "C1", "mfc": "none"}),
        ):
            for place, arm in enumerate(order):
                values = at[(at["run"] == run) & (at["arm"] == arm)]["value"]
                if len(values):
                    interval = t_interval(list(values))
                    error = np.nan_to_num(
                        [[interval.estimate - interval.low], [interval.high - interval.estimate]]
                    )
                    axis.errorbar(
                        interval.estimate, place, xerr=error, fmt="o", ms=5, capsize=2, **look
                    )
        axis.set_yticks(range(len(order)), order)
        axis.set(
            title=TITLES[name],
            xlabel="recall at 8× and 16×",
            xlim=(-0.02, 1.04),
            ylim=(len(order) - 0.5, -0.5),
        )
    return figure


def depth_map(table: pd.DataFrame, arms: tuple[str, ...], tuned: str) -> Figure:
    """Draw recall by depth of the packed evidence and by length.

    Each scheme is a panel; cells are means over seeds.
    """
    packed = table[
        (table["metric"] == "recall") & (table["layout"] == "packed") & (table["tuned"] == tuned)
    ]
    packed = leading(packed[packed["kind"] == "decoder"])
    shown = [arm for arm in arms if arm in set(packed["arm"])]
    figure, axes = grid(len(shown), height=2.5)
    for axis, arm in zip(axes, shown, strict=True):
        at = packed[packed["arm"] == arm].assign(multiple=in_trained_lengths)
        cells = at.pivot_table(index="depth", columns="multiple", values="value")
        cells.columns = [f"{multiple:g}×" for multiple in cells.columns]
        look = {
            "vmin": 0,
            "vmax": 1,
            "cmap": "viridis",
            "annot": True,
            "fmt": ".2f",
            "annot_kws": {"size": 7},
        }
        sns.heatmap(cells, ax=axis, cbar=axis is axes[-1], **look)
        axis.set(title=arm, xlabel="length", ylabel="depth (0: first)" if axis is axes[0] else "")
    return figure


def layouts(table: pd.DataFrame, multiple: int) -> Figure:
    """Draw the share of recall kept zero-shot, by place of the evidence.

    The share is that at one multiple of the trained length.
    """
    kept = table[
        (table["metric"] == "kept") & (table["tuned"] == "zero_shot") & (table["kind"] == "decoder")
    ]
    kept = leading(kept[(in_trained_lengths(kept) == multiple) & kept["arm"].isin(MAIN)])
    figure, (axis,) = grid(1, height=3.0)
    order = [arm for arm in MAIN if arm in set(kept["arm"])]
    sns.barplot(
        kept,
        x="arm",
        y="value",
        hue="layout",
        order=order,
        hue_order=["far", "near", "spread"],
        errorbar=("pi", 100),
        ax=axis,
    )
    axis.axhline(1, ls=":", color="0.4")
    axis.set(xlabel="", ylabel=f"share of recall kept at {multiple}×", ylim=(0, 1.1))
    axis.tick_params(axis="x", labelsize="small")
    axis.legend(title="evidence", frameon=True, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def far_context(far: pd.DataFrame) -> Figure:
    """Draw what the right text before the last tokens is worth.

    The left panel shows the loss of the same last tokens behind a play's own text and behind
    another's, by tokens in the row; the right panel shows the difference.

    Args:
        far: rows of metric "far_loss" with arm (own, other), length, seed (the play), value and
            run.
    """
    far = leading(far)
    wide = far.pivot_table(index=["seed", "length"], columns="arm", values="value").reset_index()
    figure, (left, right) = grid(2, height=3.2)
    for arm, words in (("other", "another play's text before"), ("own", "its own text before")):
        sns.lineplot(
            far[far["arm"] == arm],
            x="length",
            y="value",
            marker="o",
            errorbar=("ci", 95),
            seed=0,
            ax=left,
            label=words,
        )
    left.set(xlabel="tokens in the row", ylabel="loss of the last tokens, nats")
    wide["difference"] = wide["other"] - wide["own"]
    sns.lineplot(
        wide,
        x="length",
        y="difference",
        marker="o",
        color="C2",
        errorbar=("ci", 95),
        seed=0,
        ax=right,
    )
    sns.stripplot(
        wide,
        x="length",
        y="difference",
        native_scale=True,
        color="0.5",
        size=3,
        jitter=False,
        ax=right,
    )
    right.set(xlabel="tokens in the row", ylabel="what the right text is worth, nats")
    right.set_ylim(bottom=min(0, wide["difference"].min()))
    for axis in (left, right):
        powers(axis, wide["length"])
    left.legend(frameon=False, fontsize="small")
    return figure
