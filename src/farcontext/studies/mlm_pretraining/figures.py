"""Figures of notebook 05: what labels, tokens and far context buy."""

import html
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.results.plotting import curves, grid, leading, legend_below, powers

# What readers call the learners, and each one's colour in every figure.
LEARNERS = {
    "pretrained": "pretrained encoder",
    "scratch": "the same encoder, untrained",
    "tf_idf": "TF-IDF + logistic regression",
}
TASKS = {
    "family": "which service? (API manuals)",
    "play": "which play? (Shakespeare)",
    "name": "who is blanked? (Three Kingdoms)",
    "type": "which type is blanked? (API manuals)",
}
# (what n-grams have read, what they see) → the words for the best of them.
RIVALS = {
    ("same tokens", "left"): "n-gram, same tokens, damaged left side",
    ("same tokens", "both"): "n-gram, same tokens, both damaged sides",
    ("all tokens", "both"): "n-gram, all tokens, both damaged sides",
}
FAR = {
    "truncated": "cut off",
    "other_document": "another document's",
    "same_document": "from elsewhere in the same document",
}


def _colors(names: Any) -> dict[Any, Any]:
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def learning_by_labels(table: pd.DataFrame, chance: float) -> Figure:
    """Draw accuracy by the number of labels, one panel a task.

    Lines are means with the range over seeds; the dotted line is a guess.

    Args:
        table: the study's rows with the column run.
        chance: accuracy of a guess.
    """
    rows = leading(table[table["metric"] == "accuracy"])
    figure, axes = grid(2, rows=2, height=2.6)
    colors = _colors(LEARNERS)
    for axis, (task, words) in zip(axes, TASKS.items(), strict=True):
        curves(axis, rows[rows["task"] == task], "labels", colors, by="arm", marker="o")
        axis.axhline(chance, ls=":", color="0.4")
        powers(axis, rows["labels"])
        axis.set(title=words, xlabel="labelled passages", ylabel="", ylim=(0, 1))
    for axis in axes[::2]:
        axis.set_ylabel("accuracy (dotted: a guess)")
    legend_below(figure, {LEARNERS[name]: color for name, color in colors.items()}, rows["run"])
    return figure


def best_ngrams(table: pd.DataFrame) -> pd.DataFrame:
    """Return nats a byte of the encoder and the best n-grams.

    There is a best n-gram of each kind, by tokens read.

    The best one is chosen by its mean over seeds, and stands under the words of RIVALS.
    """
    scored = table[(table["metric"] == "nats_per_byte") & (table["domain"] == "all")]
    keys = ["run", "read", "sees", "tokens"]
    ngrams = scored[scored["arm"] != "encoder"]
    mean = ngrams.groupby([*keys, "arm"], as_index=False)["value"].mean()
    best = mean.loc[mean.groupby(keys)["value"].idxmin(), [*keys, "arm"]]
    rows = ngrams.merge(best, on=[*keys, "arm"])
    named = rows.assign(
        who=[RIVALS.get(pair) for pair in zip(rows["read"], rows["sees"], strict=True)]
    )
    own = scored[scored["arm"] == "encoder"].assign(who="encoder")
    return pd.concat([own, named.dropna(subset=["who"])], ignore_index=True)


def loss_by_tokens(table: pd.DataFrame) -> Figure:
    """Draw nats a byte by tokens read.

    There is a line for the encoder and for the best n-gram of each kind.

    Every point of the encoder is a training of its own, finished.
    """
    rows = best_ngrams(leading(table))
    figure, (axis,) = grid(1, height=3.6)
    colors = _colors(("encoder", *RIVALS.values()))
    curves(axis, rows.assign(tokens=rows["tokens"] / 1e6), "tokens", colors, by="who", marker="o")
    axis.set(xscale="log", xlabel="tokens of pretraining, millions", ylabel="nats a byte")
    ticks = sorted(set(rows["tokens"] / 1e6))
    axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axis.minorticks_off()
    legend_below(figure, colors, rows["run"])
    return figure


def context_cost(table: pd.DataFrame, least: float) -> Figure:
    """Draw what it costs to lose or falsify the far context.

    It is drawn by the true tokens that stay.

    Args:
        table: the study's rows with the column run.
        least: the gain below which a longer window counts as nothing, nats a token.
    """
    costs = leading(table[(table["metric"] == "context_cost") & (table["far"] != "full")])
    figure, (axis,) = grid(1, height=3.4)
    colors = _colors(FAR)
    curves(axis, costs, "context", colors, by="far", marker="o")
    axis.axhline(0, color="0.4", lw=1)
    axis.axhline(least, ls=":", color="0.4")
    powers(axis, costs["context"].dropna())
    axis.set(xlabel="true tokens before the targets", ylabel="added loss, nats a token")
    legend_below(figure, {FAR[far]: color for far, color in colors.items()}, costs["run"])
    return figure


def what_each_sees(words: Sequence[str], masked: Sequence[bool], at: int, order: int = 5) -> str:
    """Return what each guesser sees of a row, as HTML.

    Args:
        words: the row's tokens as text.
        masked: which of them are damaged.
        at: the one that is asked for; it is damaged too.
        order: of the n-grams, whose context ends at the first damaged token.
    """

    def intact(places: Iterable[int]) -> set[int]:
        return set(itertools.takewhile(lambda i: not masked[i], places))

    left = intact(range(at - 1, max(-1, at - order), -1))
    right = intact(range(at + 1, min(len(words), at + order)))
    seen = {
        "encoder": {i for i, hidden in enumerate(masked) if not hidden},
        f"{order}-gram, left": left,
        f"{order}-gram, both sides": left | right,
    }
    lines = []
    for name, kept in seen.items():
        row = "".join(_span(words, masked, i, at, i in kept) for i in range(len(words)))
        lines.append(f"<b>{name}</b><br>{row}")
    return "<div style='line-height:1.7'>" + "<br>".join(lines) + "</div>"


def _span(words: Sequence[str], masked: Sequence[bool], i: int, at: int, seen: bool) -> str:
    """Return one token as HTML.

    Read tokens are blue, unused ones grey, damaged ones boxes, and the one asked for is red.
    """
    if masked[i]:
        color = "#d55e00" if i == at else "#999999"
        return f"<span style='background:{color};color:{color}'>{'?' if i == at else '▯'}▯</span>"
    look = "background:#cfe8f7" if seen else "color:#aaaaaa"
    return f"<span style='{look}'>{html.escape(words[i])}</span>"
