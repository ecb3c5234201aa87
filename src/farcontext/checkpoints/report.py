"""A probe's report: one summary, then a table, JSON and HTML.

No torch is needed here; the page has no JavaScript and no other file; outside text is escaped.
"""

import html
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from farcontext import files
from farcontext.checkpoints import figures
from farcontext.measure.effective_length import SHARE, EffectiveLength, effective_length
from farcontext.measure.stats import score_interval, t_interval
from farcontext.results import plotting

if TYPE_CHECKING:  # The probe imports torch.
    from farcontext.checkpoints.probe import Measured

Summary = dict[str, Any]
FLAG = "FLAG"
STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f5f7; color: #1d2330; font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 880px; margin: 2rem auto; padding: 2rem 2.5rem; background: #fff; border-radius: 8px; overflow-x: auto; }
h1 { margin: 0; font-size: 1.1rem; font-weight: 600; color: #5a6475; overflow-wrap: anywhere; }
h2 { margin: 2.4rem 0 .6rem; font-size: 1.15rem; border-bottom: 1px solid #e3e6eb; padding-bottom: .3rem; }
.headline { margin: .3rem 0 1rem; font-size: 1.7rem; line-height: 1.25; font-weight: 650; }
svg { display: block; width: 100%; height: auto; max-width: 760px; margin: .5rem auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #e9ebef; vertical-align: top; }
th { color: #5a6475; font-weight: 600; } .flag { background: #fdecea; } .flag td:first-child { font-weight: 700; color: #a8201a; }
li { margin-bottom: .4rem; }
"""
STANDARD_ERRORS = 3.0  # A score counts only so far above chance.


# ----------------------------------------------------------------------------------------------------------- numbers


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
    """Return a row a length: mean loss after own and foreign text, and their difference with its interval."""
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
        f"{row['length']:6d}  {row['exact']:.3f}  ({row['exact_low']:.3f}–{row['exact_high']:.3f})  "
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
        f"({first['exact']:.0%} of the needles, so the threshold is {summary['effective_length']['threshold']:.0%})."
    )
    if not absolute["checked"]:
        return f"{says} RULER's absolute threshold of {SHARE:.1%} is not reached at any length that counts."
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
        f"({row['choice_low']:.2f}–{row['choice_high']:.2f}; chance {chance:.2f}), {row['exact']:.2f} exactly: {verdict}."
    )


# ------------------------------------------------------------------------------------------------------------- files


def write(found: "Measured", folder: Path) -> Summary:
    """Write report.html, table.csv and probe.json into a folder, and return the summary.

    Raises:
        UserError: the disk refused.
    """
    summary = summarise(found)
    files.write_atomic(
        folder / "table.csv",
        table(found).to_csv(index=False, float_format="%.6g", lineterminator="\n"),
    )
    files.write_atomic(folder / "report.html", page(found, summary))
    files.write_json(folder / "probe.json", summary)
    return summary


def as_json(summary: Summary) -> str:
    """Return the summary as one JSON object on one line."""
    return json.dumps(summary, ensure_ascii=False, allow_nan=False)


def table(found: "Measured") -> pd.DataFrame:
    """Return every observation as a row: the keys below, metric, value."""
    parts = {
        "needles": found.needles,
        "control": found.control,
        "far": found.far,
        "position": found.position,
    }
    keys = ["part", "length", "context", "document", "question", "depth", "position", "far"]
    long = []
    for part, frame in parts.items():
        named = frame.assign(part=part)
        known = [key for key in keys if key in named]
        long.append(
            named.melt(
                known, [name for name in ("exact", "choice", "loss") if name in named], "metric"
            )
        )
    whole = pd.concat(long, ignore_index=True).reindex(columns=[*keys, "metric", "value"])
    counts = ["length", "context", "document", "question", "position"]
    return whole.astype(dict.fromkeys(counts, "Int64"))


def svg(figure: Figure, says: str) -> str:
    """Return a figure as inline SVG with a description for blind readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    drawn = buffer.getvalue()  # The page must not have metadata or references outside.
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{html.escape(says)}"', 1)


def page(found: "Measured", summary: Summary) -> str:
    """Return the report as one HTML document."""
    matplotlib.use("Agg")
    plotting.style()
    options, name = summary["options"], html.escape(summary["checkpoint"])
    lengths = pd.DataFrame(summary["lengths"])
    curve = figures.score_by_length(lengths, summary["effective_length"], options["chance"])
    parts = [
        f"<h1>{name}</h1>",
        f'<p class="headline">{html.escape(headline(summary))}</p>',
        _paragraph(meaning(summary)),
        "<h2>How much it finds, by length</h2>",
        svg(
            curve,
            "Share of needles found by tokens in the context, with 95 % intervals; the table below has the numbers.",
        ),
        _paragraph(
            "Bars: 95 % interval over contexts. Dashed upright line and shaded band: effective length and its interval."
        ),
        _lengths_table(summary),
        _paragraph(control_sentence(summary)),
        "<h2>Where in the context it finds them</h2>",
        svg(
            figures.score_by_depth(found.needles),
            "Share of needles found by depth and length, as a heat map.",
        ),
        "<h2>RoPE: does the model rotate as its configuration says?</h2>",
        _rope_table(summary["rope"]),
    ]
    if len(found.position):
        parts += [
            "<h2>What the text before is worth, in nats</h2>",
            svg(
                figures.losses(found.position, found.far),
                "Loss by position, and after true and foreign text by length.",
            ),
            _far_table(summary["far_context"]),
            _paragraph(
                "Thin lines: single windows of text. Lower is better. Less by position: more context helps."
            ),
        ]
    parts += ["<h2>What was measured, and what not</h2>", _measured(summary)]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}: probe</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><main>\n{chr(10).join(part for part in parts if part)}\n</main></body></html>\n"
    )


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; every cell is escaped; a row that begins with FLAG stands out."""
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = []
    for row in rows:
        look = ' class="flag"' if row[0] == FLAG else ""
        body.append(
            f"<tr{look}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _lengths_table(summary: Summary) -> str:
    wanted = summary["options"]["precision"]
    head = (
        "tokens",
        "exact",
        "95 %",
        "right among choices",
        "95 %",
        "contexts",
        f"half-width (asked: {wanted:g})",
    )
    rows = [
        (
            f"{row['length']:,}",
            f"{row['exact']:.3f}",
            f"{row['exact_low']:.3f}–{row['exact_high']:.3f}",
            f"{row['choice']:.3f}",
            f"{row['choice_low']:.3f}–{row['choice_high']:.3f}",
            str(row["contexts"]),
            f"{row['half_width']:.3f}" + ("" if row["reached"] else ", not reached"),
        )
        for row in summary["lengths"]
    ]
    return _html_table(head, rows)


def _rope_table(findings: Sequence[Summary]) -> str:
    ordered = sorted(findings, key=lambda finding: finding["ok"])
    rows = [
        ("ok" if f["ok"] else FLAG, f["name"], f["found"], f["expected"], f["says"])
        for f in ordered
    ]
    return _html_table(("", "checked", "found", "expected", "in words"), rows)


def _far_table(rows: Sequence[Summary]) -> str:
    if not rows:
        return ""
    cells = [
        (
            f"{row['length']:,}",
            f"{row['true']:.3f}",
            f"{row['other']:.3f}",
            f"{row['difference']:+.3f}",
            "unknown" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}",
            str(row["windows"]),
        )
        for row in rows
    ]
    return _html_table(
        ("tokens", "after its own text", "after another's", "difference", "95 %", "windows"), cells
    )


def _measured(summary: Summary) -> str:
    """Return what was done and what it does not show, as a list."""
    options, first = summary["options"], summary["lengths"][0]["length"]
    done = [
        f"{options['keys']} sentences at even depths, “The secret word of NAME is WORD.”, in {options['source']}; each is asked "
        "for by its beginning. Exact: the word is the most probable continuation. One pass reads the context for all questions.",
        f"Contexts, not questions, are counted; sampling stopped at a half-width of {options['precision']:g} or "
        f"{options['max_contexts']} contexts. Intervals: Wilson's at the effective number of answers.",
        f"Floor: {summary['floor']:.3f} at {first:,} tokens, which is chance ({options['chance']:.2f}) and three standard errors.",
        f"{options['dtype']}, {options['threads']} threads, seed {options['seed']}; checkpoint {options['checkpoint']}, "
        f"text {options['text']}.",
        "Not measured: reasoning over several places, questions in other words than the text's, instructions and chat form, "
        f"text other than the above, and contexts beyond {summary['lengths'][-1]['length']:,} tokens.",
        *(f"Left out: {note}." for note in summary["notes"]),
    ]
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in done) + "</ul>"
