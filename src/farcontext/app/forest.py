"""All effects against their thresholds, and the rule, as figures.

Effects have many metrics. So a distance from the threshold is counted in thresholds, or where a
threshold is 0 in half widths of the effect's own interval; the axis says which.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from farcontext.app.cards import Card, effect_of
from farcontext.results import plotting
from farcontext.results.claims import Effect

COLUMNS = ["study", "claim", "verdict", "effect", "decision", "deciding", "unit"]
ENDS = ["low", "estimate", "high"]
THRESHOLDS, WIDTHS = "thresholds", "half widths of its interval"
NO_SIZE = 1e-3  # A threshold below this share of the interval is a sign and has no size.
EDGE = 100.0  # What lies further away, or is never reached, is drawn here.
# Colour and mark of each decision: told apart without colour, too.
LOOK = {
    "supported": {"color": "C0", "marker": "o"},
    "refuted": {"color": "C3", "marker": "X"},
    "undecided": {"color": "0.55", "marker": "o", "mfc": "white"},
}
LONGEST = 64  # A question in the figure has so many characters.
DPI = 80  # The figure is tall, and its notebook small.
ROW = 0.18  # A row of the figure is so many inches high.


def towards(value: float, effect: Effect) -> float:
    """Return how far a value lies beyond an effect's threshold.

    The unit is the effect's own, and positive is the claimed side. Of two bounds the nearer counts.
    """
    if effect.between is not None:
        low, high = effect.between
        return min(value - low, high - value)
    return value - effect.threshold if effect.side == "at_least" else effect.threshold - value


def _unit(row: Mapping[str, float], effect: Effect) -> tuple[str, float]:
    """Return the unit of an effect's distance, and its size."""
    half = (row["high"] - row["low"]) / 2
    size = abs(effect.threshold)
    if size > NO_SIZE * half or not half > 0:
        return THRESHOLDS, size
    return WIDTHS, half


def _distance(row: Mapping[str, float], effect: Effect) -> tuple[str, float, float, float]:
    """Return the unit, and low, estimate and high in it.

    A level that is never reached lies at infinity; other unknown numbers stay NaN.
    """
    never = math.inf if effect.crossing is not None else math.nan
    ends = [never if math.isnan(row[x]) else row[x] for x in ENDS]
    unit, size = _unit(row, effect)
    one, estimate, other = (towards(x, effect) / size if size else 0.0 for x in ends)
    low, high = min(one, other), max(one, other)
    if effect.between is not None and ends[0] <= sum(effect.between) / 2 <= ends[2]:
        high = effect.threshold / size  # The middle is the furthest from both bounds.
    return unit, low, estimate, high


def distances(known: Iterable[Card]) -> pd.DataFrame:
    """Return every published effect with its distance from the threshold.

    Low and high are the least and the greatest distance within the interval, so an effect is
    supported where low is at least 0 and refuted where high is below it. An effect whose numbers
    are unknown, or whose claim has changed since, is left out.
    """
    rows = []
    for card in known:
        for row in card.effects:
            effect = effect_of(row, card.claim)
            if effect is None:
                continue
            deciding = row["effect"] == card.row["effect"]
            told = (card.claim.study, card.id, card.verdict, row["effect"], row["decision"])
            rows.append([*told, deciding, *_distance(row, effect)])
    return pd.DataFrame(rows, columns=[*COLUMNS, *ENDS]).dropna(subset=ENDS)


def _rows(frame: pd.DataFrame, questions: Mapping[str, str]) -> tuple[dict[str, int], ...]:
    """Return each question's row and each claim's, counted from the top."""
    heads: dict[str, int] = {}
    claims: dict[str, int] = {}
    for study, question in questions.items():
        if known := list(dict.fromkeys(frame[frame["study"] == study]["claim"])):
            heads[question] = len(heads) + len(claims)
            claims |= {name: len(heads) + len(claims) + k for k, name in enumerate(known)}
    return heads, claims


def _draw(axis: Axes, frame: pd.DataFrame, questions: Mapping[str, str], unit: str) -> None:
    heads, claims = _rows(frame, questions)
    clip = lambda x: max(-EDGE, min(EDGE, x))  # noqa: E731
    for row in frame.sort_values("deciding").itertuples():
        look, y = LOOK[row.decision], claims[row.claim]
        large = {"ms": 6} if row.deciding else {"ms": 4, "alpha": 0.35}
        if row.deciding:
            axis.plot([clip(row.low), clip(row.high)], [y, y], color=look["color"], lw=1.5)
            said = {"va": "center", "fontsize": "x-small", "transform": axis.get_yaxis_transform()}
            axis.text(1.01, y, row.verdict, **said)
        axis.plot([clip(row.estimate)], [y], ls="", **large, **look)
    for question, y in heads.items():
        words = textwrap.shorten(question, LONGEST, placeholder=" …")
        look = {"fontweight": "bold", "bbox": {"fc": "white", "ec": "none", "pad": 0.5}}
        axis.text(-1.4 * EDGE, y, words, va="center", fontsize="small", **look)
    _dress(axis, claims, len(heads) + len(claims))
    axis.set_xlabel(f"← against · distance from the threshold in {unit} · for →")


def _dress(axis: Axes, claims: Mapping[str, int], rows: int) -> None:
    """Scale both axes; further than EDGE is drawn at it."""
    axis.axvline(0, color="0.2", lw=1)
    axis.set_xscale("symlog", linthresh=1)
    ends = {-EDGE: "never,\nor beyond", EDGE: "beyond"}
    ticks = [-EDGE, -10, -1, 0, 1, 10, EDGE]
    axis.set_xticks(ticks, [ends.get(x, f"{x:g}".replace("-", "−")) for x in ticks])
    axis.set_xlim(-1.5 * EDGE, 1.5 * EDGE)
    axis.set_yticks(list(claims.values()), list(claims), fontsize="small")
    axis.set_ylim(rows - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def forest(frame: pd.DataFrame, questions: Mapping[str, str]) -> Figure:
    """Draw all effects, a row a claim, by question.

    Args:
        frame: what `distances` returns.
        questions: study → what its rows are headed by, in reading order.

    The least favourable effect of a claim, which is the one reported, is large and has its
    interval; the others are small. To the right stands the claim's verdict.
    """
    parts = {unit: frame[frame["unit"] == unit] for unit in (THRESHOLDS, WIDTHS)}
    parts = {unit: part for unit, part in parts.items() if len(part)}
    heights = [sum(map(len, _rows(part, questions))) for part in parts.values()]
    size = (plotting.WIDTH, ROW * (sum(heights) + 8))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)
    for axis, (unit, part) in zip(axes.flat, parts.items(), strict=True):
        _draw(axis, part, questions, unit)
    axes.flat[0].set_title("Every effect against its threshold", loc="left")
    for decision, look in LOOK.items():
        axes.flat[0].plot([], [], ls="", label=decision, **look)
    figure.legend(loc="outside lower center", ncols=len(LOOK), frameon=False, fontsize="small")
    return figure


def rule(intervals: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw how an interval decides against a threshold.

    Args:
        intervals: decision → an interval around a threshold at 0.
    """
    figure, (axis,) = plotting.grid(1, height=1.3)
    for y, (decision, (low, high)) in enumerate(intervals.items()):
        look = LOOK[decision]
        axis.plot([low, high], [y, y], color=look["color"], lw=2)
        axis.plot([(low + high) / 2], [y], ls="", ms=7, **look)
        axis.text(-3.1, y, decision, va="center", fontsize="small")
    axis.axvline(0, color="0.2", lw=1)
    axis.set_xticks([0], ["threshold, fixed before the seeds ran"])
    axis.set_yticks([])
    axis.set_xlim(-3.2, 3.2)
    axis.set_ylim(len(intervals) - 0.4, -0.6)
    axis.set_title("The whole 95 % interval decides; to the right is what was claimed")
    plt.close(figure)  # An open figure would be shown twice in a notebook.
    return figure
