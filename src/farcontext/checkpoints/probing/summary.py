"""The summary of a probe: its numbers, and sentences on them.

No torch is needed here.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from farcontext.checkpoints.probing.suite import summarised
from farcontext.checkpoints.rope.finding import GRADES, MARKS
from farcontext.measure.effective_length import SHARE, EffectiveLength, effective_length
from farcontext.measure.stats import score_interval, t_interval

if TYPE_CHECKING:  # The probe imports torch.
    from farcontext.checkpoints.probe import Measured

Summary = dict[str, Any]
STANDARD_ERRORS = 3.0  # A score counts only so far above chance.


def summarise(found: "Measured") -> Summary:
    """Return all that the report says, as plain values for JSON.

    None means unknown or unbounded. `effective_length` takes the share of needles reproduced
    exactly, each context once: relative to the shortest length's score (RULER's 85.6 %), and at
    RULER's absolute 85.6 %. Its floor is chance and three standard errors at the shortest length.
    """
    lengths, scores = [], []
    for length, rows in found.needles.groupby("length"):
        contexts = rows.groupby("context")[["exact", "choice"]].mean()
        exact, choice = (score_interval(contexts[name]) for name in ("exact", "choice"))
        half = (exact.high - exact.low) / 2
        lengths.append(
            {
                "length": int(length),
                "contexts": exact.n,
                "exact": exact.estimate,
                "exact_low": exact.low,
                "exact_high": exact.high,
                "half_width": half,
                "reached": bool(half <= found.options["precision"]),
                "choice": choice.estimate,
                "choice_low": choice.low,
                "choice_high": choice.high,
            }
        )
        scores.append(contexts["exact"].to_numpy())
    floor = found.options["chance"] + STANDARD_ERRORS * lengths[0]["half_width"] / 1.96
    tested = [row["length"] for row in lengths]
    control = found.control.groupby("context")[["exact", "choice"]].mean()
    guessed = score_interval(control["choice"])
    return {
        "checkpoint": found.name,
        "options": found.options,
        "effective_length": _effective(effective_length(tested, scores, floor=floor)),
        "effective_length_absolute": _effective(
            effective_length(tested, scores, absolute=SHARE, floor=floor)
        ),
        "floor": floor,
        "lengths": lengths,
        "control": {
            "length": tested[0],
            "contexts": guessed.n,
            "exact": float(control["exact"].mean()),
            "choice": guessed.estimate,
            "choice_low": guessed.low,
            "choice_high": guessed.high,
            "at_chance": bool(guessed.low <= found.options["chance"] <= guessed.high),
        },
        "rope": [asdict(finding) | {"grade": finding.grade} for finding in found.findings],
        "far_context": _far(found.far),
        "loss_by_position": _position(found.position),
        "tasks": summarised(found.tasks) if len(found.tasks) else [],
        "notes": list(found.notes),
    }


def _effective(found: EffectiveLength) -> Summary:
    return {name: finite(value) for name, value in asdict(found).items()}


def finite(value: object) -> object:
    """Return a number, None where it is none or infinite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _far(far: pd.DataFrame) -> list[Summary]:
    """Return a row a length: mean loss after own and foreign text.

    Their difference is there with its interval.
    """
    rows = []
    for length, part in far.groupby("length") if len(far) else ():
        by = part.pivot_table(index="document", columns="far", values="loss")
        gap = t_interval(by["other"] - by["true"])
        difference = {
            "difference": gap.estimate,
            "low": finite(gap.low),
            "high": finite(gap.high),
            "windows": gap.n,
        }
        losses = {name: float(by[name].mean()) for name in ("true", "other")}
        rows.append({"length": int(length)} | losses | difference)
    return rows


def _position(position: pd.DataFrame) -> list[Summary]:
    means = position.groupby("position")["loss"].mean() if len(position) else {}
    return [{"position": int(start), "loss": float(loss)} for start, loss in means.items()]


def headline(summary: Summary) -> str:
    """Return the one sentence that the report begins with.

    It says no more than the numbers support: a model reads reliably as far as it finds RULER's
    share of what is hidden, not as far as it finds that share of the little that it finds at best.
    """
    found, absolute = summary["effective_length"], summary["effective_length_absolute"]
    first = summary["lengths"][0]
    if not found["checked"]:
        return f"No effective length: {found['reason']}"
    if absolute["checked"]:
        return f"Reads reliably up to {_span(summary, absolute)}"
    return (
        f"Finds {first['exact']:.0%} of the needles at {first['length']:,} tokens: reliable at no "
        f"length; it keeps {SHARE:.1%} of that up to {_span(summary, found)}"
    )


def _span(summary: Summary, found: Summary) -> str:
    """Return a length with its interval in words."""
    last = summary["lengths"][-1]["length"]
    low = f"{found['low']:,.0f}" if found["low"] else f"below {summary['lengths'][0]['length']:,}"
    high = f"{found['high']:,.0f}" if found["high"] is not None else f"beyond {last:,}"
    about = (
        f"at least {last:,} tokens, the longest tested"
        if found["at_least"]
        else f"about {found['length']:,.0f} tokens"
    )
    return f"{about} (95 %: {low}–{high})"


def lines(summary: Summary) -> list[str]:
    """Return the printed report: headline, a line a length, control, RoPE, losses."""
    yes = {True: "", False: "  (wider than asked for: --max-contexts)"}
    said = [
        f"{summary['checkpoint']}: {headline(summary)}",
        meaning(summary),
        "length  exact  (95 %)         choice  contexts",
    ]
    said += [
        f"{row['length']:6d}  {row['exact']:.3f}  "
        f"({row['exact_low']:.3f}–{row['exact_high']:.3f})  "
        f"{row['choice']:.3f}  {row['contexts']:8d}{yes[row['reached']]}"
        for row in summary["lengths"]
    ]
    said += [control_sentence(summary), *rope_lines(summary["rope"])]
    said += [
        f"loss after another document's text, {row['length']} tokens: {row['difference']:+.2f} nats"
        for row in summary["far_context"]
    ]
    said += task_lines(summary["tasks"])
    return said + [f"not measured: {note}" for note in summary["notes"]]


def rope_lines(findings: Sequence[Summary]) -> list[str]:
    """Return the lines of the RoPE check.

    The first counts the grades; faults and notes follow.
    """
    counts = Counter(finding["grade"] for finding in findings)
    notes = "1 note" if counts["note"] == 1 else f"{counts['note']} notes"
    shown = sorted(findings, key=lambda finding: GRADES.index(finding["grade"]))
    return [
        f"RoPE: {counts['fault']} of {len(findings)} checks failed, {notes}",
        *(
            f"  {MARKS[f['grade']]} {f['name']}: found {f['found']}, expected {f['expected']}; "
            f"{f['says']}"
            for f in shown
            if f["grade"] != "ok"
        ),
    ]


def task_lines(tasks: Sequence[Summary]) -> list[str]:
    """Return the suite's lines: exact and choice, by task and length."""
    if not tasks:
        return []
    return ["task               length  exact  choice (95 %)         chance"] + [
        f"{row['task']:<17}  {row['length']:6d}  {row['exact']:.3f}  {row['choice']:.3f} "
        f"({row['choice_low']:.3f}–{row['choice_high']:.3f})  {row['chance']:.3f}"
        for row in tasks
    ]


def meaning(summary: Summary) -> str:
    """Return what "reliably" means here, and what the other threshold gives."""
    first, found = summary["lengths"][0], summary["effective_length"]
    says = (
        f"Reliably: it finds at least {SHARE:.1%} of the needles, RULER's threshold (what "
        "Llama-2-7B finds at 4,096 tokens)."
    )
    if not found["checked"] or not summary["effective_length_absolute"]["checked"]:
        return says
    return (
        f"{says} Relative to its own {first['exact']:.0%} at {first['length']:,} tokens, the "
        f"threshold is {found['threshold']:.0%}, kept up to {_span(summary, found)}."
    )


def control_sentence(summary: Summary) -> str:
    """Return what the control without needles says."""
    row, chance = summary["control"], summary["options"]["chance"]
    verdict = (
        "at chance, as it should be"
        if row["at_chance"]
        else "NOT at chance: the scores above are suspect"
    )
    return (
        f"Control without needles, {row['length']:,} tokens: {row['choice']:.2f} by choice "
        f"({row['choice_low']:.2f}–{row['choice_high']:.2f}; chance {chance:.2f}), "
        f"{row['exact']:.2f} exactly: {verdict}."
    )
