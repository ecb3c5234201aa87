"""The generated pages: README's blocks, EXPERIMENTS.md and the data card.

They are made from the claims, the tables and the corpus card, by the templates beside this module.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from farcontext.app import answers, notebooks
from farcontext.app.cards import Card
from farcontext.app.languages import ENGLISH, Language
from farcontext.data.corpus import SPLITS
from farcontext.results import findings, tables
from farcontext.results.findings import Finding

# README plans the cost of these models: shapes of the usual kind, one row a step in bf16.
PLANNED = {
    "150 M": {"layers": 18, "width": 768, "heads": 12, "vocab_size": 32_768},
    "1 B": {"layers": 20, "width": 2048, "heads": 32, "kv_heads": 8, "vocab_size": 32_768},
}
PLANNED_LENGTHS = (8192, 32_768, 131_072)
PLANNED_RATE = 400e12  # So many FLOP/s are reached: 40 % of an H100's dense bf16 is assumed.
# Claim → verdict and estimate, as they were recorded elsewhere.
Recorded = Mapping[str, tuple[str, str]]
PLANNED_TOKENS = 20  # A parameter gets so many tokens (Hoffmann et al. 2022).


def _plain(value: object) -> str:
    """Return a value as text for a cell of a Markdown table.

    A bar or a new line would end the cell.
    """
    return " ".join(str(value).replace("|", "\\|").split("\n"))


@lru_cache
def _templates() -> Environment:
    loader = PackageLoader("farcontext.app")
    return Environment(
        loader=loader,
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _page(name: str, **values: Any) -> str:
    said = {
        "estimate": findings.estimate,
        "observations": findings.observations,
        "threshold": findings.threshold,
    }
    return _templates().get_template(f"{name}.md.j2").render(**said, **values)


def _verdict(f: Finding, second: Recorded) -> str:
    """Return a verdict with its note.

    What a second machine said is added where that is something else.
    """
    note = f" ({f.note})" if f.note else ""
    other, _ = second.get(f.id, (f.verdict, ""))
    return f"**{f.verdict}**{note}" + (
        f"; *not the same on a second machine: {other}*" if other != f.verdict else ""
    )


def _night(f: Finding, night: Recorded) -> str:
    """Return the verdict at the night's budget, or a dash."""
    if f.id not in night:
        return "–"
    verdict, shown = night[f.id]
    return f"{'the same' if verdict == f.verdict else f'**{verdict}**'}, {shown}"


def _in_short(f: Finding, said: Language) -> str:
    """Return a verdict in a few words; EXPERIMENTS tells the rest."""
    told = f"**{said.verdict(f.verdict)}**"
    if f.verdict != "mixed":
        return told
    held = sum(one.decision == "supported" for one in f.judged)
    return f"{told} ({said.mixed.format(held=held, cells=len(f.judged))})"


def _hypothesis(f: Finding, said: Language) -> str:
    """Return a hypothesis, in one line where there is one."""
    return getattr(f.claim.short, said.name) if f.claim.short else f.claim.hypothesis


def verdict_block(
    judged: list[Finding],
    tries: Mapping[str, int],
    notebook_of: Mapping[str, Path],
    second: Recorded,
    night: Recorded,
    said: Language = ENGLISH,
) -> str:
    """Return README's table of verdicts, by notebook.

    Below it stands how many of them a second machine gave too.

    Args:
        judged: every claim's finding.
        tries: claim → its number of tries.
        notebook_of: study → its notebook, in reading order.
        second: what a second machine gave, from the same commit and seeds.
        night: what several times the budget gave.
        said: the page's language.
    """
    both = [f for f in judged if f.id in second]
    same = sum(f.verdict == second[f.id][0] for f in both)
    groups = [
        {
            "notebook": path.name,
            "question": notebooks.question_of(path, said.name),
            "findings": [f for f in judged if f.claim.study == study],
        }
        for study, path in notebook_of.items()
    ]
    told = {
        "groups": groups,
        "tries": tries,
        "columns": said.columns,
        "night_column": said.night,
        "second": said.second.format(same=same, both=len(both)) if both else "",
        "hypothesis": lambda f: _hypothesis(f, said),
        "verdict": lambda f: _in_short(f, said),
        "night": lambda f: _night(f, night),
    }
    return _page("verdicts", nights=len(night), **told)


def _cost(study: str) -> str:
    minutes = tables.core_minutes(study)
    return "seconds" if minutes is None else f"{minutes:.1f} core-minutes"


def experiments_page(
    judged: list[Finding],
    tries: Mapping[str, int],
    exact: Mapping[str, float],
    notebook_of: Mapping[str, str],
    second: Recorded,
    night: Recorded,
) -> str:
    """Return EXPERIMENTS.md.

    It says what was claimed, how it was tested, what came out, and what it cost.
    """
    told = {
        "findings": judged,
        "tries": tries,
        "notebook_of": notebook_of,
        "exact": exact,
        "cost": _cost,
        "number": findings.show_number,
    }
    said = {"verdict": lambda f: _verdict(f, second), "night": lambda f: _night(f, night)}
    return _page("experiments", nights=len(night), **said, **told)


def data_card(card: Mapping[str, Any]) -> str:
    """Return what stands between the markers of data/README.md, from a corpus card."""
    return _page("corpus", card=card, names=SPLITS)


def answers_block(judged: list[Finding], said: Language = ENGLISH) -> str:
    """Return the five answers of README's first screen."""
    table = pd.read_csv(tables.path_in(tables.published_folder(), "context_extension", "schemes"))
    asked = answers.axes(judged)
    speed = {row["length"]: row["speed"] for row in planned() if row["name"] == "1 B"}
    shortest, longest = min(speed), max(speed)
    told = {
        "never": said.listed([said.axes[x.unit] for x in asked if answers.enough(x)]),
        "pays": said.listed([answers.pays_from(x, said) for x in asked if answers.pays(x)]),
        "unlearned": [said.axes[x.unit] for x in asked if not x.learned],
        "schemes": answers.schemes(table, said),
        "slower": {"at": longest, "than": shortest, "times": speed[shortest] / speed[longest]},
        "of": partial(answers.effects_of, judged),
        "span": partial(answers.span, said=said),
        "power": lambda one: findings.show_number(one.interval.estimate),
        "listed": said.listed,
        "gains": said.gains,
    }
    return _page(f"answers.{said.name}", **told)


def cards_block(known: Sequence[Card]) -> str:
    """Return verdict cards as Markdown, each below a heading to link to."""
    return _page("cards", cards=known)


def cost_block() -> str:
    """Return README's table of planned trainings."""
    return _page("costs", rows=planned())


def planned() -> list[dict[str, Any]]:
    """Return what trainings of the planned models would take.

    The published cost model computes it; nothing of it is measured.
    """
    from farcontext.measure import cost, formulas  # noqa: PLC0415 (brings in torch, which the rest of this module does without)

    rows = []
    for name, shape in PLANNED.items():
        config = cost.shape(name, **shape)
        size = formulas.size_of(config).parameters
        estimate = cost.estimate(
            config, PLANNED_LENGTHS, cost.published(), dtype="bfloat16", rate=PLANNED_RATE
        )
        for row in estimate.to_dict("records"):
            speed = row["length"] / row["training_seconds"]
            hours = PLANNED_TOKENS * size / speed / 3600
            rows.append(
                {"name": name, "length": int(row["length"]), "speed": speed, "hours": hours}
            )
            rows[-1]["gigabytes"] = row["training_bytes"] / 1e9
    return rows
