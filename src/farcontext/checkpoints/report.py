"""A probe's report: a summary as table, JSON and HTML.

No torch is needed here. The page has no JavaScript and no other file; its template escapes
all text.
"""

import io
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
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
from farcontext.checkpoints.rope.finding import GRADES
from farcontext.results import plotting

if TYPE_CHECKING:  # The probe imports torch.
    from farcontext.checkpoints.probe import Measured


@lru_cache
def _templates() -> Environment:
    """Return the page's template.

    All that is not marked as markup is escaped.
    """
    return Environment(
        loader=PackageLoader("farcontext.checkpoints"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


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


def write_masked(summary: Summary, rows: pd.DataFrame, folder: Path) -> Summary:
    """Write the tables of a masked model's probe.

    They are table.csv and probe.json; the function returns the summary.
    """
    text = rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    files.write_atomic(folder / "table.csv", text)
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
        "tasks": found.tasks,
    }
    keys = ["part", "task", "length", "context", "document"]
    keys += ["question", "depth", "position", "far"]
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


def svg(figure: Figure, says: str) -> Markup:
    """Return a figure as inline SVG with a description for blind readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    drawn = buffer.getvalue()  # The page must not have metadata or references outside.
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    label = Markup('<svg role="img" aria-label="{}"').format(says)
    return Markup(drawn.replace("<svg", label, 1))


def page(found: "Measured", summary: Summary) -> str:
    """Return the report as one HTML document."""
    matplotlib.use("Agg")
    plotting.style()
    lengths = pd.DataFrame(summary["lengths"])
    curve = figures.score_by_length(
        lengths, summary["effective_length"], summary["options"]["chance"]
    )
    drawn = {
        "curve": svg(
            curve,
            "Share of needles found by tokens in the context, with 95 % intervals; the table "
            "below has the numbers.",
        ),
        "depths": svg(
            figures.score_by_depth(found.needles),
            "Share of needles found by depth and length, as a heat map.",
        ),
        "losses": svg(
            figures.losses(found.position, found.far),
            "Loss by position, and after true and foreign text by length.",
        )
        if len(found.position)
        else None,
    }
    said = {
        "headline": headline(summary),
        "meaning": meaning(summary),
        "control": control_sentence(summary),
        "rope": sorted(summary["rope"], key=lambda finding: GRADES.index(finding["grade"])),
    }
    return _templates().get_template("report.html.j2").render(s=summary, **said, **drawn)
