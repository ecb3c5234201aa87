"""Figures of notebook 11: contradictions, variety, and a real play.

They show contradictions by what was read, how varied the texts are, and a real play's continuation.
"""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import bars, curves, grid, leading, legend_below, powers

COUNTED = {
    "contradictions": ("contradictions of the story", "in 100 statements"),
    "persistence": ("about the story's people and things", "share of statements"),
}
VARIED = {"distinct": "distinct-2", "repetition": "repetition (seq-rep-4)"}
COUNTS = {"distinct_2": "distinct-2", "repetition_4": "repetition (seq-rep-4)"}


def tokens_read(arms: pd.Series, whole: int) -> pd.Series:
    """Return the number of tokens behind each arm's name.

    The oracle has NaN.
    """
    return pd.to_numeric(arms.replace({"full": str(whole)}), errors="coerce")


def by_window(scores: pd.DataFrame, whole: int) -> Figure:
    """Draw contradictions and persistence by the tokens read.

    The tokens are those of the story; lines have the range over seeds.

    Args:
        scores: rows of metrics "contradictions" and "persistence" of stories that are spread, with
            run, arm and value.
        whole: tokens of a whole story.
    """
    shown = scores.assign(tokens=tokens_read(scores["arm"], whole)).dropna(
        subset=["tokens", "value"]
    )
    figure, axes = grid(len(COUNTED), height=3.0)
    for axis, (metric, (title, unit)) in zip(axes, COUNTED.items(), strict=True):
        at = shown[shown["metric"] == metric]
        curves(axis, at, "tokens", {"": "C0"}, marker="o")
        powers(axis, at["tokens"])
        axis.set(
            title=title,
            xlabel="tokens read",
            ylabel=unit,
            ylim=(0, 104 if metric == "contradictions" else 1.04),
        )
        axis.title.set_size("small")
    legend_below(figure, {"mean and range over seeds": "C0"}, shown["run"])
    return figure


def variety(scores: pd.DataFrame) -> Figure:
    """Draw distinct-2 and repetition by arm.

    Bars have the range over seeds; the oracle's own statements are a line.

    Args:
        scores: rows of metrics "distinct" and "repetition" of stories that are spread, with run,
            arm, metric and value.
    """
    shown = leading(scores)
    order = [*sorted(set(shown["arm"]) - {"full", "oracle"}, key=int), "full"]
    figure, axes = grid(len(VARIED), height=2.6)
    for axis, (metric, title) in zip(axes, VARIED.items(), strict=True):
        at = shown[shown["metric"] == metric]
        bars(axis, at, {arm: arm for arm in order})
        axis.axvline(
            at.loc[at["arm"] == "oracle", "value"].mean(),
            ls=":",
            color="0.3",
            label="true statements at random",
        )
        axis.set(
            title=title,
            xlabel="share",
            ylabel="tokens read" if axis is axes[0] else "",
            xlim=(0, 1.02),
        )
    handles, words = axes[-1].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", frameon=False, fontsize="small")
    return figure


def real(loss: pd.DataFrame, counts: pd.DataFrame, whole: int) -> Figure:
    """Draw a checkpoint's loss on a play, and its own continuations.

    The loss is on what truly follows; the right panel shows how its own continuations repeat
    themselves beside the play.

    Args:
        loss: rows of metric "loss" of tier real, with run, arm, seed (play) and value.
        counts: rows of metrics "distinct_2" and "repetition_4".
        whole: tokens of the widest context.
    """
    figure, axes = grid(2, height=3.2)
    shown = leading(loss)
    own = shown.assign(tokens=tokens_read(shown["arm"], whole)).dropna(subset=["tokens"])
    sns.lineplot(
        own, x="tokens", y="value", units="seed", estimator=None, color="0.7", lw=1, ax=axes[0]
    )
    sns.lineplot(
        own,
        x="tokens",
        y="value",
        errorbar=None,
        marker="o",
        color="C0",
        ax=axes[0],
        label="its own text, mean",
    )
    other = shown.loc[shown["arm"] == "other", "value"].mean()
    axes[0].plot([whole], [other], "X", color="C3", label="far text of another play, mean")
    powers(axes[0], own["tokens"])
    axes[0].set(title="loss on what truly follows", xlabel="tokens read", ylabel="nats a token")
    found = leading(counts)
    order = [*sorted(set(found["arm"]) - {"full", "human"}, key=int), "full", "human"]
    found = found.assign(count=found["metric"].map(COUNTS))
    look = {
        "order": order,
        "hue_order": list(COUNTS.values()),
        "errorbar": ("pi", 100),
        "err_kws": {"linewidth": 1},
    }
    sns.barplot(found, x="arm", y="value", hue="count", **look, ax=axes[1])
    axes[1].set(
        title="what is drawn, and what follows",
        xlabel="tokens read",
        ylabel="share",
        ylim=(0, 1.04),
    )
    for axis in axes:
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.24), frameon=False, fontsize="small"
        )
    return figure
