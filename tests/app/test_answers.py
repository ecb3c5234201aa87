"""The first screen's answers turn where the verdicts turn."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from farcontext.app import answers
from farcontext.app.languages import CHINESE, ENGLISH
from farcontext.measure.stats import Interval
from farcontext.results.claims import Effect
from farcontext.results.findings import Judged


def judged(name: str, decision: str, *ends: float) -> Judged:
    effect = Effect(name=name, where={"metric": "m"}, at_most=12)
    return Judged(effect, decision, Interval(*ends, 5))


def finding(claim: str, verdict: str, *told: Judged) -> SimpleNamespace:
    return SimpleNamespace(id=claim, verdict=verdict, judged=told)


NEVER = judged("changes" + answers.BETTER, "refuted", math.inf, math.inf, math.inf)
PAYS = judged("sentences" + answers.BETTER, "supported", 2.0, 1.5, 3.0)
OPEN = judged("hops" + answers.BETTER, "undecided", 2.0, 1.0, math.inf)
UNLEARNED = judged("people" + answers.BETTER, "refuted", math.inf, math.inf, math.inf)


def test_each_axis_is_told_by_its_own_decision() -> None:
    found = answers.axes(
        [
            finding("Q1", "mixed", NEVER, PAYS, OPEN),
            finding("Q1-counting", "undecided (check failed)", UNLEARNED),
            finding("L1", "refuted", judged("long − short", "refuted", -3.0, -5.0, -1.0)),
        ]
    )
    assert [x.unit for x in found] == ["changes", "sentences", "hops", "people"]
    assert [answers.enough(x) for x in found] == [True, False, False, False]
    assert [answers.pays(x) for x in found] == [False, True, False, False]
    assert [x.learned for x in found] == [True, True, True, False]
    assert answers.pays_from(found[1], ENGLISH) == (
        "answers told of a pronoun (from 2 [1.5, 3] sentences after the name on)"
    )
    assert answers.span(OPEN, ENGLISH) == "2 [1, never]"


@pytest.mark.parametrize(
    ("words", "said"), [([], "nothing"), (["a"], "a"), (["a", "b", "c"], "a, b and c")]
)
def test_lists_read_as_lists(words: list[str], said: str) -> None:
    assert ENGLISH.listed(words) == said


def test_schemes_are_named_by_evidence_and_dose() -> None:
    column = "recall at 8× and beyond"
    rows = [
        {"evidence": layout, "steps": steps, "best": best, column: 0.9}
        for steps, best in ((0, "yarn"), (200, "abf"))
        for layout in ("far", "near", "spread", "mean")
    ]
    told = answers.schemes(pd.DataFrame(rows), ENGLISH)
    assert told["first"].startswith("YaRN (0.90) for far evidence, YaRN")
    assert (
        told["last"].endswith("raised base (0.90) for spread evidence") and told["steps"] == "200"
    )


def test_chinese_has_a_word_for_all_that_english_has() -> None:
    for table in ("axes", "layouts", "verdicts", "gains"):
        assert set(getattr(CHINESE, table)) == set(getattr(ENGLISH, table)), table
    assert ENGLISH.verdict("undecided (check failed)") == "undecided (check failed)"
    assert CHINESE.verdict("undecided (check failed)") == "未决 (前提未成立)"
    assert answers.pays_from(answers.Axis("sentences", True, PAYS), CHINESE).startswith("由代词")
