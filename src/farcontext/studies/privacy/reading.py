"""What notebook 13 says of its tables."""

import numpy as np
import pandas as pd

from farcontext.measure.stats import Interval, t_interval
from farcontext.results import tables
from farcontext.results.effects import slopes
from farcontext.studies.privacy.figures import NAMES

MEASURES = {
    "found": "members found at 1 % false alarms",
    "target_auc": "AUC of LiRA",
    "exposure": "exposure of canaries, bits",
    "extracted": "canaries extracted",
}


def over_seeds(rows: pd.DataFrame) -> Interval:
    """Return the mean and 95 % interval over targets or models."""
    return t_interval(list(rows.groupby("seed")["value"].mean()))


def shown(x: Interval, digits: int = 2) -> str:
    """Return an interval in words."""
    if not x.known:
        return "not known"
    return f"{x.estimate:.{digits}f} [{x.low:.{digits}f}, {x.high:.{digits}f}]"


def by_length(table: pd.DataFrame) -> pd.DataFrame:
    """Return each measure by row length, without a defence, and its slope.

    The slope is per doubling of T. Intervals are over targets (LiRA) or models (canaries); prompts
    are the shortest.

    Args:
        table: rows of one run.
    """
    none = table[(table["arm"] == "none") & table["seed"].notna()]
    shortest = none["prompt"].isna() | (none["prompt"] == none["prompt"].min())
    rows = {}
    for metric, words in MEASURES.items():
        at = none[shortest & (none["metric"] == metric)]
        levels = at.groupby("length")
        row = {f"T = {length:g}": shown(over_seeds(rows)) for length, rows in levels}
        curve = at.pivot_table(index="length", columns="seed", values="value").dropna(axis=1)
        rows[words] = row | {"a doubling": shown(t_interval(list(slopes(curve))), 3)}
    return pd.DataFrame.from_dict(rows, orient="index")


def by_count(table: pd.DataFrame) -> pd.DataFrame:
    """Return exposure and the share extracted by how often a canary was shown.

    Means over models and row lengths, without a defence, behind the shortest prompt.

    Args:
        table: rows of one run.
    """
    rows = table[(table["arm"] == "none") & (table["attack"] == "canary")]
    rows = rows[rows["prompt"] == rows["prompt"].min()]
    rows = rows.assign(metric=rows["metric"].str.removeprefix("control_"))
    found = rows.pivot_table(index="count", columns="metric", values="value")
    return found.rename_axis("shown, times", axis="index").rename_axis("", axis="columns")


def defences(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each arm leaks and what it costs, by row length.

    Args:
        table: rows of one run.
    """
    most = table[table["metric"] == "exposure"]["count"].max()
    rows = table[table["length"].isin(set(table[table["arm"] == "private"]["length"]))]
    often = rows["count"].isna() | (rows["count"] == most)
    kept = rows[often & rows["arm"].isin(list(NAMES))]
    columns = {
        "found": "members found",
        "target_auc": "AUC",
        "exposure": "exposure, bits",
        "validation_loss": "loss, unseen",
        "epsilon_row": "ε a row",
        "epsilon_document": "ε a document",
    }
    kept = kept[kept["metric"].isin(list(columns))]
    kept = kept.assign(arm=kept["arm"].map(NAMES), length=kept["length"].astype(int))
    wide = kept.pivot_table(index=["length", "arm"], columns="metric", values="value", sort=False)
    order = [(length, name) for length in sorted(set(kept["length"])) for name in NAMES.values()]
    return wide.reindex(index=order, columns=list(columns)).rename(columns=columns)


def blind(table: pd.DataFrame) -> Interval:
    """Return the AUC of the attack that asks no model, over models."""
    return over_seeds(table[(table["attack"] == "blind") & (table["metric"] == "auc")])


def answer(published: pd.DataFrame) -> str:
    """Return the page's first sentence, from published rows; Markdown."""
    if not (published["metric"] == "found").any():
        return "*Not published yet.*"
    verdict = tables.verdict_line("V1").split(":")[0]
    at = by_length(published)
    first, last = at.columns[0], at.columns[-2]
    found, bits, out = (at.loc[MEASURES[name]] for name in ("found", "exposure", "extracted"))
    dp = published[published["arm"] == "private"].groupby(["metric", "length"])["value"].mean()
    short, long = (pick(dp["epsilon_document"].index) for pick in (min, max))
    promise = [f"{x:.1f}" if np.isfinite(x) else "unbounded" for x in dp["epsilon_document"]]
    return (
        f"**{verdict}.** With as many tokens learned, an attacker who allows one false alarm in a "
        f"hundred finds {found[first]} of the documents that were learned in rows of "
        f"{first.removeprefix('T = ')} tokens and {found[last]} in rows of "
        f"{last.removeprefix('T = ')}; with every doubling of the row the share moves by "
        f"{found['a doubling']}, exposure of canaries by {bits['a doubling']} bits, the share "
        f"extracted by {out['a doubling']}. Without a model the AUC is {shown(blind(published))}."
        f"\n\nDP-SGD protects *rows*: the same noise promises a document of "
        f"{published['length'].max():.0f} tokens ε = {promise[0]} in rows of {short:.0f} tokens "
        f"and {promise[-1]} in rows of {long:.0f}."
    )
