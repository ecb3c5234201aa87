"""What notebook 09 shows: where reading on pays, where retrieval does."""

import html
from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from farcontext.measure.stats import t_interval
from farcontext.results.plotting import bars, curves, grid, leading, legend_below
from farcontext.tasks.translation import Sentence

KINDS = {
    "gender": "gender: la, lo",
    "formality": "formality: tu, vos",
    "term": "term: banka, bordo",
}
# What readers call the arms, in the order of legends.
NAMES = {
    "last": "the last sentences",
    "bm25": "what BM25 finds",
    "bm25_neighbours": "what BM25 finds, with neighbours",
}
SHADES = {"last": "C0", "bm25": "C1", "bm25_neighbours": "C2"}
METRICS = {"exact": "translated exactly, %", "bleu": "BLEU", "chrf": "chrF"}


def page(document: Sequence[Sentence], read: Sequence[int]) -> str:
    """Return a document as HTML, as an arm reads it.

    What tells is bold, and what the arm does not read is grey.

    The sentence that decides is underlined, and the one to translate stands last, boxed.
    """
    setter, said = document[-1].setter, []
    for number, sentence in enumerate(document[:-1]):
        look = "" if number in read else "color:#999;"
        look += "font-weight:bold;" if sentence.tells else ""
        look += "text-decoration:underline;" if number == setter else ""
        said.append(f'<span style="{look}">{html.escape(sentence.source)}</span>')
    last = html.escape(document[-1].source.strip())
    return f'<p>{"".join(said)} <span style="border:1px solid;padding:2px">{last}</span></p>'


def row(read: Sequence[Sentence]) -> str:
    """Return how sentences stand in a row of training."""
    *before, last = read
    text = "".join(sentence.source for sentence in before)
    return f"{text.strip()} [MARK]{last.source} [BOS]{last.target} [EOS]"


# --------------------------------------------------------------------------------------- the answer


def quarter(table: pd.DataFrame) -> float:
    """Return the least share of the tellings whose tokens BM25 has."""
    return float(table[table["arm"] == "bm25"]["share"].min())


def differences(table: pd.DataFrame, rival: str, share: float) -> pd.DataFrame:
    """Return all − a rival, in points, with intervals over seeds.

    Rows are kinds and numbers of tellings. The last column is how often the rival lacks the
    sentence that decides, in points.

    Args:
        table: the study's table.
        rival: an arm of NAMES.
        share: of the tellings, whose tokens the rival has.
    """
    return pd.DataFrame(
        {
            (kind, int(number)): _difference(at, rival, share)
            for (kind, number), at in table.groupby(["kind", "tellings"])
        }
    ).T.rename_axis(["kind", "tellings"])


def _difference(table: pd.DataFrame, rival: str, share: float) -> dict[str, float]:
    whole, other = (
        table[(table["arm"] == arm) & (table["share"] == at)].groupby(["metric", "seed"])["value"]
        for arm, at in (("last", 1.0), (rival, share))
    )
    gap = 100 * (whole.mean() - other.mean())
    interval = t_interval(list(gap["contrast"]))
    ends = {"points": interval.estimate, "low": interval.low, "high": interval.high}
    return ends | {"not found": float(gap["found"].mean())}


def _points(at: dict[str, float]) -> str:
    ends = (_signed(at[name]) for name in ("points", "low", "high"))
    return "{} points [{}, {}]".format(*ends)


def _signed(points: float) -> str:
    """Return whole points with their sign, a true minus."""
    text = f"{points:+.0f}"
    return "+0" if text == "-0" else text.replace("-", "−")


def answer(table: pd.DataFrame, share: float) -> str:
    """Return the page's first sentences, with the numbers of a table.

    Args:
        table: the study's table.
        share: of the tellings, whose tokens BM25 has.
    """
    whole = _difference(table[table["kind"].notna()], "bm25", share)
    kinds = {kind: _difference(at, "bm25", share) for kind, at in table.groupby("kind")}
    sure = {True: [], False: [], None: []}
    for kind, at in kinds.items():
        sure[True if at["low"] > 0 else False if at["high"] < 0 else None].append(kind)
    said = {
        True: "Reading all is better for {}.",
        False: "Retrieval is better for {}.",
        None: "Neither is better, as far as these seeds tell, for {}.",
    }
    told = " ".join(said[key].format(" and ".join(sure[key])) for key in said if sure[key])
    each = " · ".join(f"{kind} {_points(at)}" for kind, at in kinds.items())
    slopes = table[table["metric"] == "slope"].groupby("tellings")["value"].mean()
    rise = ", ".join(f"{_signed(100 * slope)} at {n:.0f}" for n, slope in slopes.items())
    lengths = table[table["metric"] == "contrast"]["length"].dropna()
    return (
        f"**{told}** All sentences against what BM25 finds in the tokens that hold "
        f"{100 * share:.0f} % of those that tell: {_points(whole)} of right choices over all kinds "
        f"({each}; 95 % intervals over {table['seed'].nunique()} seeds). From none of those that "
        f"tell to all of them, right choices change by so many points: {rise} sentences. "
        f"(Documents of {lengths.min():.0f} to {lengths.max():.0f} tokens.)"
    )


# ------------------------------------------------------------------------------------------ figures


def share_held(table: pd.DataFrame, chance: float) -> Figure:
    """Draw right choices by the share of the tellings that is held.

    A panel for each number of tellings; each way to read is a line with the range over seeds.

    Args:
        table: the study's table, with run.
        chance: of two translations.
    """
    rows = table[(table["metric"] == "contrast") & table["arm"].isin(list(NAMES))]
    rows = rows.groupby(["run", "arm", "share", "tellings", "seed"], as_index=False)["value"].mean()
    rows["percent"] = 100 * rows["share"]
    numbers = sorted(leading(rows)["tellings"].unique())
    figure, axes = grid(len(numbers), height=2.7)
    for axis, number in zip(axes, numbers, strict=True):
        curves(axis, rows[rows["tellings"] == number], "percent", SHADES, by="arm", marker="o")
        axis.axhline(chance, ls=":", color="0.4")
        axis.set(title=f"{number:.0f} sentences tell", ylabel="", ylim=(0.3, 1.04), xlabel="")
        axis.set_xticks([0, 25, 50, 75, 100])
    axes[len(axes) // 2].set_xlabel("tellings that the last sentences of as many tokens hold, %")
    axes[0].set_ylabel("right choices")
    legend_below(figure, {NAMES[arm]: SHADES[arm] for arm in NAMES}, rows["run"])
    return figure


def reading_on(table: pd.DataFrame, rival: str) -> Figure:
    """Draw all − what a rival reads, by number of tellings.

    A panel for each kind; lines are the rival's tokens, bars 95 % intervals over seeds.

    Args:
        table: the study's table.
        rival: an arm of NAMES.
    """
    shares = sorted(table[table["arm"] == rival]["share"].unique())
    colors = sns.color_palette("crest", len(shares))
    figure, axes = grid(len(KINDS), height=2.7)
    for axis, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for place, (share, color) in enumerate(zip(shares, colors, strict=True)):
            at = differences(table, rival, share).loc[kind]
            x = at.index + 0.3 * (place - 1)
            axis.plot(x, at["points"], "o-", color=color, ms=4)
            axis.vlines(x, at["low"], at["high"], color=color)
        axis.axhline(0, ls=":", color="0.4")
        axis.set(title=title, xticks=at.index)
    low, high = zip(*(axis.get_ylim() for axis in axes), strict=True)
    for axis in axes:
        axis.set_ylim(min(low), max(high))
    axes[0].set_ylabel("all − BM25, points")
    axes[1].set_xlabel("sentences that tell")
    words = {
        f"BM25 has the tokens of {100 * s:.0f} %": c for s, c in zip(shares, colors, strict=True)
    }
    legend_below(figure, words)
    return figure


def distances(table: pd.DataFrame, chance: float) -> Figure:
    """Draw right choices of who reads all, by length and by distance.

    Args:
        table: the study's table, with run.
        chance: of two translations.
    """
    whole = table[(table["arm"] == "last") & (table["share"] == 1)]
    colors = dict(zip(KINDS, sns.color_palette("colorblind", len(KINDS)), strict=True))
    figure, axes = grid(2, height=2.7)
    panels = (("contrast", "tokens in the document"), ("contrast_at", "tokens back, at most"))
    for axis, (metric, words) in zip(axes, panels, strict=True):
        rows = whole[whole["metric"] == metric]
        rows = rows.groupby(["run", "kind", "length", "seed"], as_index=False)["value"].mean()
        curves(axis, rows, "length", colors, by="kind", marker="o")
        axis.axhline(chance, ls=":", color="0.4")
        axis.set(xlabel=words, ylabel="", ylim=(0.3, 1.04))
        axis.set_xticks(sorted(leading(rows)["length"].unique()))
    axes[0].set_ylabel("right choices")
    legend_below(figure, {KINDS[kind]: color for kind, color in colors.items()}, table["run"])
    return figure


def read_by(arm: str, share: float) -> str:
    """Return what an arm reads in words."""
    tokens = f"tokens of {100 * share:.0f} %"
    match arm:
        case "contrast":
            return "every choice wrong"
        case "random":
            return "all of another document"
        case "telling":
            return "what decides, alone"
        case "last":
            return {0: "nothing that tells", 1: "all"}.get(share, f"the last, {tokens}")
    return f"{'BM25' if arm == 'bm25' else 'BM25, neighbours'}, {tokens}"


def scores(table: pd.DataFrame) -> Figure:
    """Draw exact translations, BLEU and chrF by what was read.

    Each score is a panel, 0 to 100; bars have the range over seeds.

    Args:
        table: rows of metrics "exact", "bleu" and "chrf", with run, arm, share, seed and value;
            exact as a share.
    """
    shown = leading(table[table["metric"].isin(METRICS)])
    shown = shown[~shown["share"].isin((0.5, 0.75)) & (shown["arm"] != "bm25_neighbours")]
    keys = ["metric", "arm", "share", "seed"]
    shown = shown.groupby(keys, dropna=False)["value"].mean().reset_index()
    shown["read"] = [read_by(*pair) for pair in zip(shown["arm"], shown["share"], strict=True)]
    shown["value"] = shown["value"].where(shown["metric"] != "exact", 100 * shown["value"])
    order = ["contrast", "random", "last", "bm25", "telling"]
    shown = shown.sort_values("share", kind="stable", na_position="first")
    shown = shown.sort_values("arm", key=lambda arms: arms.map(order.index), kind="stable")
    names = dict.fromkeys(shown["read"])
    figure, axes = grid(len(METRICS), height=2.6)
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=True):
        at = shown[shown["metric"] == metric]
        bars(axis, at, {name: name for name in names}, by="read", alpha=0.7)
        axis.set(title=title, xlabel="", xlim=(0, 104), xticks=(0, 25, 50, 75, 100))
        axis.title.set_size("small")
    return figure
