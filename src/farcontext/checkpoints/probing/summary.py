"""The summary of a probe: its numbers, and the sentences that say them.

No torch is needed here.
"""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

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
        "rope": [asdict(finding) for finding in found.findings],
        "far_context": _far(found.far),
        "loss_by_position": _position(found.position),
        "notes": list(found.notes),
    }


def _effective(found: EffectiveLength) -> Summary:
    return {name: _finite(value) for name, value in asdict(found).items()}


def _finite(value: object) -> object:
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
            "low": _finite(gap.low),
            "high": _finite(gap.high),
            "windows": gap.n,
        }
        losses = {name: float(by[name].mean()) for name in ("true", "other")}
        rows.append({"length": int(length)} | losses | difference)
    return rows


def _position(position: pd.DataFrame) -> list[Summary]:
    means = position.groupby("position")["loss"].mean() if len(position) else {}
    return [{"position": int(start), "loss": float(loss)} for start, loss in means.items()]


def headline(summary: Summary) -> str:
    """Return the one sentence that the report begins with."""
    found, last = summary["effective_length"], summary["lengths"][-1]["length"]
    if not found["checked"]:
        return f"No effective length: {found['reason']}"
    low = f"{found['low']:,.0f}" if found["low"] else f"below {summary['lengths'][0]['length']:,}"
    high = f"{found['high']:,.0f}" if found["high"] is not None else f"beyond {last:,}"
    about = (
        f"at least {last:,} tokens, the longest tested"
        if found["at_least"]
        else f"about {found['length']:,.0f} tokens"
    )
    return f"Reads reliably up to {about} (95 %: {low}–{high})"


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
    faults = [finding for finding in summary["rope"] if not finding["ok"]]
    said.append(control_sentence(summary))
    said.append(
        f"RoPE: {len(faults)} of {len(summary['rope'])} checks failed"
        + "".join(f"; {f['name']}" for f in faults)
    )
    said += [
        f"loss after another document's text, {row['length']} tokens: {row['difference']:+.2f} nats"
        for row in summary["far_context"]
    ]
    return said + [f"not measured: {note}" for note in summary["notes"]]


def meaning(summary: Summary) -> str:
    """Return what "reliably" means here, and what RULER's absolute threshold gives."""
    first, absolute = summary["lengths"][0], summary["effective_length_absolute"]
    says = (
        f"Reliably: it finds at least {SHARE:.1%} of what it finds at {first['length']:,} tokens "
        f"({first['exact']:.0%} of the needles, so the threshold is "
        f"{summary['effective_length']['threshold']:.0%})."
    )
    if not absolute["checked"]:
        return (
            f"{says} RULER's absolute threshold of {SHARE:.1%} is not reached at any length that "
            "counts."
        )
    until = (
        "at least the longest tested"
        if absolute["at_least"]
        else f"about {absolute['length']:,.0f} tokens"
    )
    return f"{says} By RULER's absolute threshold of {SHARE:.1%}: {until}."


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
