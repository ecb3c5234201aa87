"""Claims with their verdicts, as tables and as people read them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from farcontext.measure.stats import Interval
from farcontext.results.claims import Claim, Effect
from farcontext.results.effects import Headroom

DIGITS = 6  # Numbers in verdicts.csv have so many significant digits.
Decision = Literal["supported", "refuted", "undecided"]


@dataclass(frozen=True)
class Judged:
    """One effect with what it says.

    `p` is the least share of error at which it says anything, adjusted for the number of effects
    (Holm) once `adjusted` has seen all of a claim's. `failed` names the checks that it needs and
    that do not hold.
    """

    effect: Effect
    decision: Decision
    interval: Interval
    p: float = math.nan
    headroom: Headroom = field(default_factory=Headroom)
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A claim with its verdict and its least favourable effect."""

    id: str
    claim: Claim
    verdict: str
    effect: Effect
    interval: Interval
    note: str
    judged: tuple[Judged, ...] = ()


def show_number(x: float) -> str:
    """Return a number with three significant digits as text.

    The minus sign is a true one, and "–" stands for what is unknown.

    It is rounded to the table's six digits first, so that pages, notebooks and paper show one
    number.
    """
    if not math.isfinite(x):
        return "–"
    x = float(f"{x:.{DIGITS}g}")
    if x == int(x) and abs(x) < 1e6:
        return str(int(x)).replace("-", "−")
    return f"{x:.3g}".replace("-", "−")


def estimate(f: Finding) -> str:
    """Return the reported number with its interval, as people read it."""
    shown = [
        "never" if f.effect.crossing and x == math.inf else show_number(x)
        for x in (f.interval.estimate, f.interval.low, f.interval.high)
    ]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if f.claim.decided_by == "interval" else shown[0]


def threshold(effect: Effect) -> str:
    """Return an effect's threshold with its side, as people read it."""
    if effect.between is not None:
        return "{} … {}".format(*map(show_number, effect.between))
    least = (
        "" if effect.refuted_below is None else f" (≤ {show_number(effect.refuted_below)} refutes)"
    )
    return f"{'≥' if effect.side == 'at_least' else '≤'} {show_number(effect.threshold)}{least}"


def observations(f: Finding) -> str:
    """Return what the reported number rests on, counted in its table."""
    over = f.claim.over if f.claim.decided_by == "interval" else "rows"
    return f"{f.interval.n} {over}"


def as_table(findings: list[Finding], tries: Mapping[str, int]) -> pd.DataFrame:
    """Return the verdicts as one row a claim.

    Args:
        tries: claim → how often its table was made, or its claim changed.
    """
    return pd.DataFrame(
        {
            "claim": f.id,
            "section": f.claim.section,
            "words": f.claim.words,
            "hypothesis": f.claim.hypothesis,
            "study": f.claim.study,
            "effect": f.effect.name,
            "threshold": f.effect.threshold,
            "side": f.effect.side,
            "estimate": f.interval.estimate,
            "low": f.interval.low,
            "high": f.interval.high,
            "observations": f.interval.n,
            "n": observations(f),
            "shown": estimate(f),
            "threshold_shown": threshold(f.effect),
            "verdict": f.verdict,
            "note": f.note,
            "rival": f.claim.rival,
            "tries": tries[f.id],
            "runs_before": " · ".join(f.claim.runs_before),
            "literature": f.claim.literature,
            "range": f.claim.range,
        }
        for f in findings
    )


def as_effects(findings: list[Finding]) -> pd.DataFrame:
    """Return every effect of every claim as a row.

    It has its headroom and adjusted p.
    """
    return pd.DataFrame(
        {
            "claim": f.id,
            "effect": one.effect.name,
            "estimate": one.interval.estimate,
            "low": one.interval.low,
            "high": one.interval.high,
            "n": one.interval.n,
            "threshold": threshold(one.effect),
            "worst": one.headroom.worst.estimate,
            "best": one.headroom.best.estimate,
            "p_holm": one.p,
            "decision": one.decision,
        }
        for f in findings
        for one in f.judged
    ).replace([np.inf, -np.inf], np.nan)


def as_metrics(findings: list[Finding]) -> dict[str, dict[str, object]]:
    """Return claim → estimate, low, high, verdict: what `dvc metrics show` prints."""
    number = lambda x: float(f"{x:.{DIGITS}g}") if math.isfinite(x) else None  # noqa: E731
    return {
        f.id: {
            "estimate": number(f.interval.estimate),
            "low": number(f.interval.low),
            "high": number(f.interval.high),
            "verdict": f.verdict,
        }
        for f in findings
    }
