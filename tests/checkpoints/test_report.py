"""The report shows numbers as the table has them.

It is one page that needs nothing beside it, and foreign text stands there only as text.
"""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from farcontext.checkpoints import report
from farcontext.checkpoints.probe import Measured
from farcontext.checkpoints.probing import summary as probe_summary
from farcontext.checkpoints.rope.finding import Finding

HOSTILE = '<script>alert("1")</script>'
TAGS = re.compile(
    r"<\s*(script|iframe|link|object|embed|img|base|form)\b|\son\w+=|javascript:|@import|url\(\s*['\"]?(?!#)",
    re.I,
)


def needle_rows(shares: dict[int, float], contexts: int = 40, keys: int = 5) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    rows = [
        {
            "length": length,
            "context": context,
            "question": question,
            "depth": (question + 0.5) / keys,
            "exact": int(draw.random() < share),
            "choice": int(draw.random() < 0.2 + 0.8 * share),
            "loss": 1.0,
        }
        for length, share in shares.items()
        for context in range(contexts)
        for question in range(keys)
    ]
    return pd.DataFrame(rows)


def measured(shares: dict[int, float], guess: float = 0.0) -> Measured:
    far = [
        {"document": document, "length": length, "far": name, "loss": loss + 0.1 * document}
        for document in range(4)
        for length in (256, 512)
        for name, loss in (("true", 3.0), ("other", 3.5 + 0.01 * document))
    ]
    position = [
        {"document": d, "position": p, "loss": 4.0 - p / 512}
        for d in range(4)
        for p in range(0, 512, 32)
    ]
    options = {
        "keys": 5,
        "chance": 0.2,
        "precision": 0.05,
        "max_contexts": 100,
        "dtype": "float32",
        "threads": 1,
    }
    options |= {
        "seed": 0,
        "checkpoint": "ab",
        "text": "cd",
        "source": "prose & <b>more</b>",
        "lengths": list(shares),
        "device": "cpu",
        "window": 1024,
    }
    findings = (
        Finding("frequencies", True, "1", "1", "the same"),
        Finding("window", True, "256", "512", "the window is cut", note=True),
        Finding(HOSTILE, False, "2 < 3", "1", "not the same"),
    )
    frames = (
        needle_rows(shares),
        needle_rows({256: guess}, 12),
        pd.DataFrame(far),
        pd.DataFrame(position),
    )
    return Measured("model", options, *frames, findings, ("something & else",))


@pytest.fixture(scope="module")
def found() -> Measured:
    return measured({256: 0.95, 512: 0.95, 1024: 0.3})


def test_the_numbers_are_the_tables(found: Measured) -> None:
    summary = probe_summary.summarise(found)
    table = report.table(found)
    for row in summary["lengths"]:
        mine = table[
            (table["part"] == "needles")
            & (table["metric"] == "exact")
            & (table["length"] == row["length"])
        ]
        assert row["exact"] == pytest.approx(mine["value"].astype(float).mean())
        assert row["exact_low"] < row["exact"] < row["exact_high"] and row["contexts"] == 40
    assert 512 < summary["effective_length"]["length"] < 1024
    assert summary["far_context"][0]["difference"] == pytest.approx(0.515)
    assert summary["control"]["at_chance"]
    suspect = probe_summary.summarise(measured({256: 0.95}, guess=0.9))
    assert not suspect["control"][
        "at_chance"
    ] and "NOT at chance" in probe_summary.control_sentence(suspect)


def test_the_printed_report_has_the_three_grades(found: Measured) -> None:
    summary = probe_summary.summarise(found)
    assert [finding["grade"] for finding in summary["rope"]] == ["ok", "note", "fault"]
    said = probe_summary.lines(summary)
    first = said.index("RoPE: 1 of 3 checks failed, 1 note")
    assert said[first + 1].startswith(f"  FAULT {HOSTILE}: found 2 < 3, expected 1; not the same")
    assert said[first + 2] == "  note  window: found 256, expected 512; the window is cut"
    assert not any("frequencies" in line for line in said)  # What is well takes no line.


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (
            {256: 0.95, 512: 0.95, 1024: 0.3},
            r"^Reads reliably up to about \d{3} tokens \(95 %: \d{3}–\d{3}\)$",
        ),
        (
            {256: 0.95, 512: 0.95},
            r"^Reads reliably up to at least 512 tokens, the longest tested "
            r"\(95 %: 512–beyond 512\)$",
        ),
        (
            {256: 0.7, 512: 0.7, 1024: 0.2},
            r"^Finds \d\d% of the needles at 256 tokens: reliable at no length; it keeps 85\.6% of "
            r"that up to about \d{3} tokens \(95 %: \d{3}–\d{3}\)$",
        ),
        (
            {256: 0.22, 512: 0.2},
            r"^No effective length: score 0\.\d+ at the shortest length, 256, is below the floor",
        ),
    ],
    ids=["falls", "never falls", "finds 63 %", "at chance"],
)
def test_the_headline_says_what_the_curve_does(shares: dict[int, float], words: str) -> None:
    found = measured(shares)
    summary = probe_summary.summarise(found)
    assert re.match(words, probe_summary.headline(summary))
    said = probe_summary.lines(summary)
    assert probe_summary.headline(summary) in said[0] and all("\n" not in line for line in said)
    json.loads(report.as_json(summary))
    assert escape(probe_summary.headline(summary)) in report.page(found, summary)


def test_a_page_runs_nothing_fetches_nothing_and_escapes_everything(
    found: Measured, tmp_path: Path
) -> None:
    hostile = replace(found, name=HOSTILE)
    summary = report.write(hostile, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not TAGS.search(page) and HOSTILE not in page
    assert page.count(escape(HOSTILE)) >= 3  # title, heading, finding
    assert not re.search(r"(href|src)=\"(?!#)", page)
    links = set(re.findall(r"https?://[^\"\s<]+", page)) - {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not links  # names of XML, never fetched
    assert page.count("<svg") == 3 and page.count('role="img"') == 3
    for text in ("FAULT", "2 &lt; 3", "prose &amp; &lt;b&gt;more", "something &amp; else"):
        assert text in page
    # What failed stands first, then what a reader should know.
    assert page.index(">FAULT<") < page.index(">note<") < page.index(">the same<")
    assert json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8")) == json.loads(
        report.as_json(summary)
    )
    read = pd.read_csv(io.StringIO((tmp_path / "out" / "table.csv").read_text(encoding="utf-8")))
    assert list(read.columns) == [
        "part",
        "task",
        "length",
        "context",
        "document",
        "question",
        "depth",
        "position",
        "far",
        "metric",
        "value",
    ]
    # twin: an unescaped name is caught
    assert TAGS.search(page.replace(escape(HOSTILE), HOSTILE))


def test_a_page_without_losses_or_reached_widths_says_so(found: Measured) -> None:
    bare = replace(
        found,
        far=pd.DataFrame(),
        position=pd.DataFrame(),
        options={**found.options, "precision": 0.01},
    )
    summary = probe_summary.summarise(bare)
    page = report.page(bare, summary)
    assert page.count("<svg") == 2 and "not reached" in page
    assert not all(row["reached"] for row in summary["lengths"])
    assert "not reached" not in report.page(
        found, probe_summary.summarise(replace(found, options=found.options | {"precision": 0.2}))
    )
    report.page(
        replace(found, far=pd.DataFrame()),
        probe_summary.summarise(replace(found, far=pd.DataFrame())),
    )
