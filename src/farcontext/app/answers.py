"""The five answers of README's first screen, told from the verdicts.

Each sentence follows from decisions and numbers, so it turns where they turn.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from farcontext.results.findings import Finding, Judged, show_number
from farcontext.studies.context_extension.figures import NAMES

# What an axis of question answering varies, by the first words of its effect's name.
AXES = {
    "changes": "facts that change",
    "mentions": "texts that often name who is asked for and tell nothing",
    "namesakes": "people of like names",
    "tokens": "longer texts",
    "words left out": "answers told in other words than the question's",
    "hops": "answers joined from several sentences",
    "sentences": "answers told of a pronoun",
    "people": "counting people",
}
UNITS = {"sentences": "sentences after the name"}
BETTER = " from which the whole context is 5 points better"


class Axis(NamedTuple):
    """One axis of difficulty: in words, its unit, and what came out."""

    words: str
    unit: str
    learned: bool
    judged: Judged


def axes(judged: Sequence[Finding]) -> list[Axis]:
    """Return the axes of all claims about questions, Q1 first."""
    return [
        Axis(AXES[unit], unit, "check failed" not in finding.verdict, one)
        for finding in judged
        if finding.id.startswith("Q1")
        for one in finding.judged
        if (unit := one.effect.name.removesuffix(BETTER)) in AXES
    ]


def enough(axis: Axis) -> bool:
    """Return whether retrieval was never behind on an axis that was learned."""
    return axis.learned and axis.judged.decision == "refuted"


def pays(axis: Axis) -> bool:
    """Return whether reading everything is better from some level on."""
    return axis.learned and axis.judged.decision == "supported"


def pays_from(axis: Axis) -> str:
    """Return an axis with the level from which length pays."""
    return f"{axis.words} (from {span(axis.judged)} {UNITS.get(axis.unit, axis.unit)} on)"


def span(one: Judged, unit: str = "") -> str:
    """Return an effect's number with its interval."""
    numbers = (one.interval.estimate, one.interval.low, one.interval.high)
    middle, low, high = ("never" if x == float("inf") else show_number(x) for x in numbers)
    return f"{middle}{unit} [{low}, {high}]"


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    *most, last = words or ["nothing"]
    return f"{', '.join(most)} and {last}" if most else last


def effects_of(judged: Sequence[Finding], claim: str) -> list[Judged]:
    """Return a claim's effects; none where there is no such claim."""
    return [one for finding in judged if finding.id == claim for one in finding.judged]


def schemes(table: pd.DataFrame) -> Mapping[str, str]:
    """Return the best scheme by evidence and steps as a phrase.

    Args:
        table: evidence, steps, best and recall at 8× and beyond.
    """
    steps = sorted(set(table["steps"]))
    said = {}
    for words, at in (("first", steps[0]), ("last", steps[-1])):
        rows = table[table["steps"] == at].set_index("evidence")
        best = {
            layout: f"{NAMES.get(row['best'], row['best'])} ({row['recall at 8× and beyond']:.2f})"
            for layout, row in rows.iterrows()
        }
        said[words] = ", ".join(f"{best[x]} for {x} evidence" for x in ("far", "near", "spread"))
    return said | {"steps": f"{steps[-1]}"}
