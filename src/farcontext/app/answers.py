"""The five answers of README's first screen, told from the verdicts.

Each sentence follows from decisions and numbers, so it turns where they turn.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from farcontext.app.languages import Language
from farcontext.results.findings import Finding, Judged, show_number
from farcontext.studies.context_extension.figures import NAMES

BETTER = " from which the whole context is 5 points better"


class Axis(NamedTuple):
    """One axis of difficulty: what its levels count, and what came out."""

    unit: str
    learned: bool
    judged: Judged


def axes(judged: Sequence[Finding]) -> list[Axis]:
    """Return the axes of all claims about questions, Q1 first."""
    return [
        Axis(one.effect.name.removesuffix(BETTER), "check failed" not in finding.verdict, one)
        for finding in judged
        if finding.id.startswith("Q1")
        for one in finding.judged
        if one.effect.name.endswith(BETTER)
    ]


def enough(axis: Axis) -> bool:
    """Return whether retrieval was never behind on an axis that was learned."""
    return axis.learned and axis.judged.decision == "refuted"


def pays(axis: Axis) -> bool:
    """Return whether reading everything is better from some level on."""
    return axis.learned and axis.judged.decision == "supported"


def pays_from(axis: Axis, said: Language) -> str:
    """Return an axis with the level from which length pays."""
    number, unit = span(axis.judged, said), said.units.get(axis.unit, axis.unit)
    return said.level.format(axis=said.axes[axis.unit], number=number, unit=unit)


def span(one: Judged, said: Language) -> str:
    """Return an effect's number with its interval."""
    numbers = (one.interval.estimate, one.interval.low, one.interval.high)
    middle, low, high = (said.never if x == float("inf") else show_number(x) for x in numbers)
    return f"{middle} [{low}, {high}]"


def effects_of(judged: Sequence[Finding], claim: str) -> list[Judged]:
    """Return a claim's effects; none where there is no such claim."""
    return [one for finding in judged if finding.id == claim for one in finding.judged]


def schemes(table: pd.DataFrame, said: Language) -> Mapping[str, str]:
    """Return the best scheme by evidence and steps as a phrase.

    Args:
        table: evidence, steps, best and recall at 8× and beyond.
        said: the page's language.
    """
    steps = sorted(set(table["steps"]))
    told = {}
    for words, at in (("first", steps[0]), ("last", steps[-1])):
        rows = table[table["steps"] == at].set_index("evidence")
        best = {
            layout: f"{NAMES.get(row['best'], row['best'])} ({row['recall at 8× and beyond']:.2f})"
            for layout, row in rows.iterrows()
        }
        told[words] = said.comma.join(x.format(scheme=best[k]) for k, x in said.layouts.items())
    return told | {"steps": f"{steps[-1]}"}
