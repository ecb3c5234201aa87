"""A probe's report: a summary as table, JSON and HTML.

No torch is needed here; the page has no JavaScript and no other file; outside text is escaped.
"""

import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from farcontext import files
from farcontext.checkpoints.probing import figures
from farcontext.checkpoints.probing.summary import (
    Summary,
    control_sentence,
    headline,
    meaning,
    summarise,
)
from farcontext.results import plotting

if TYPE_CHECKING:  # The probe imports torch.
    from farcontext.checkpoints.probe import Measured

FLAG = "FLAG"
STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f5f7; color: #1d2330; font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 880px; margin: 2rem auto; padding: 2rem 2.5rem; background: #fff; \
border-radius: 8px; overflow-x: auto; }
h1 { margin: 0; font-size: 1.1rem; font-weight: 600; color: #5a6475; overflow-wrap: anywhere; }
h2 { margin: 2.4rem 0 .6rem; font-size: 1.15rem; border-bottom: 1px solid #e3e6eb; \
padding-bottom: .3rem; }
.headline { margin: .3rem 0 1rem; font-size: 1.7rem; line-height: 1.25; font-weight: 650; }
svg { display: block; width: 100%; height: auto; max-width: 760px; margin: .5rem auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; margin: .8rem 0; \
font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #e9ebef; \
vertical-align: top; }
th { color: #5a6475; font-weight: 600; } .flag { background: #fdecea; } \
.flag td:first-child { font-weight: 700; color: #a8201a; }
li { margin-bottom: .4rem; }
"""


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
            "Share of needles found by tokens in the context, with 95 % intervals; the table "
            "below has the numbers.",
        ),
        _paragraph(
            "Bars: 95 % interval over contexts. Dashed upright line and shaded band: effective "
            "length and its interval."
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
                "Thin lines: single windows of text. Lower is better. Less by position: more "
                "context helps."
            ),
        ]
    parts += ["<h2>What was measured, and what not</h2>", _measured(summary)]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}: probe</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n"
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
        f"{options['keys']} sentences at even depths, “The secret word of NAME is WORD.”, in "
        f"{options['source']}; each is asked "
        "for by its beginning. Exact: the word is the most probable continuation. One pass reads "
        "the context for all questions.",
        "Contexts, not questions, are counted; sampling stopped at a half-width of "
        f"{options['precision']:g} or "
        f"{options['max_contexts']} contexts. Intervals: Wilson's at the effective number of "
        "answers.",
        f"Floor: {summary['floor']:.3f} at {first:,} tokens, which is chance "
        f"({options['chance']:.2f}) and three standard errors.",
        f"{options['dtype']}, {options['threads']} threads, seed {options['seed']}; checkpoint "
        f"{options['checkpoint']}, "
        f"text {options['text']}.",
        "Not measured: reasoning over several places, questions in other words than the text's, "
        "instructions and chat form, "
        f"text other than the above, and contexts beyond {summary['lengths'][-1]['length']:,} "
        "tokens.",
        *(f"Left out: {note}." for note in summary["notes"]),
    ]
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in done) + "</ul>"
