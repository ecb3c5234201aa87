"""Notebook 11's assertions hold on its own smoke run.

They fail with the effect removed. The tests count contradictions at equal coverage, and hold what
an arm reads.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext.results import tables
from farcontext.studies import story_reader, story_writer
from farcontext.studies.content_creation import protocol, study
from farcontext.studies.content_creation.params import Params as ContentCreation
from farcontext.studies.content_creation.protocol import Answer
from farcontext.tasks import reports, world
from farcontext.tasks.events import PLACES, THINGS
from farcontext.train.runs import sweep

BY_HAND, SAME, REAL = "ok: these lines", "ok: every arm was asked", "ok: what truly follows"
SIZES = {"people": 4, "things": 3, "changes": 6}
STORY = {"sizes": SIZES, "seed": 5, "length": 400}


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Iterator[ContentCreation]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield smoke_params(root, study.NAME, ContentCreation)


@pytest.fixture(scope="module")
def smoke(params: ContentCreation) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 11 itself asks for."""
    return study.run(params)


def assertion(root: Path, says: str, **known: object) -> None:
    """Run the notebook's own cell that prints `says`."""
    modules = {"study": study, "protocol": protocol, "tables": tables, "np": np}
    run_assertion(root, study.NAME, says, **modules, **known)


def told(count: int = 1) -> list[story_writer.Told]:
    return story_writer.tested(SIZES, seed=5, length=400, depth=None, count=count)


# ---------------------------------------------------------------------------- the page's assertions


def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: ContentCreation
) -> None:
    assertion(root, BY_HAND)
    for says in (SAME, REAL):
        assertion(root, says, table=smoke, params=params)


def test_a_wrong_order_of_statements_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = protocol.scores
    turned = lambda given, shares: scores([x._replace(abstains=-x.abstains) for x in given], shares)  # noqa: E731
    monkeypatch.setattr(protocol, "scores", turned)
    with pytest.raises(AssertionError):
        assertion(root, BY_HAND)


@pytest.mark.parametrize("arm", ["bm25", "whole", "oracle"])
def test_an_arm_that_is_missing_is_noticed(
    root: Path, smoke: pd.DataFrame, params: ContentCreation, arm: str
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, SAME, table=smoke[smoke["arm"] != arm], params=params)
    less = smoke[(smoke["tier"] != "real") | (smoke["arm"] != "other")]
    with pytest.raises(AssertionError):
        assertion(root, REAL, table=less, params=params)


def test_a_seed_that_is_missing_and_an_oracle_that_errs_are_noticed(
    root: Path, smoke: pd.DataFrame, params: ContentCreation
) -> None:
    less = smoke[(smoke["seed"] != params.seeds[0]) | (smoke["arm"] != "bm25")]
    wrong = smoke.assign(value=smoke["value"].where(smoke["metric"] != "oracle", 0.9))
    for table in (less, wrong):
        with pytest.raises(AssertionError):
            assertion(root, SAME, table=table, params=params)


# ------------------------------------------------------------------------------------- what is read


def test_arms_read_what_they_say(params: ContentCreation) -> None:
    (one,), words = told(), story_reader.vocabulary()
    cast, sample = protocol.cast_of(one, 0), one.sample
    read = lambda arm, tokens: protocol.read_by(arm, sample, cast, tokens)  # noqa: E731
    assert read("whole", 0).tolist() == sample.context.tolist()
    assert read("last", 100)[1:].tolist() == sample.context[-99:].tolist()
    assert not world.read(words.decode(read("closed_book", 0).tolist()))
    with pytest.raises(ValueError, match="arm = all: expected whole, last, bm25"):
        read("all", 0)
    found = [world.read(words.decode(read("bm25", n).tolist())) for n in (48, 96, 192)]
    assert [len(read("bm25", n)) <= n for n in (48, 96, 192)] == [True] * 3
    assert 0 < len(found[0]) < len(found[1]) < len(found[2]) == len(one.story.events)
    assert found[2] == list(one.story.events)  # The sentences keep the story's order.


def test_a_look_up_for_each_statement_finds_what_is_about_it(params: ContentCreation) -> None:
    for number, one in enumerate(told(4)):
        cast, words = protocol.cast_of(one, number), story_reader.vocabulary()
        contexts = protocol.contexts_of("bm25 each", one, cast, 100)
        true = reports.values_of(one.story.events)
        for subject, context in contexts.items():
            read = reports.values_of(world.read(words.decode(context.tolist())))
            assert read.get(subject) == true.get(subject)
        once = protocol.contexts_of("bm25", one, cast, 100)
        assert len({context.tobytes() for context in once.values()}) == 1


# ----------------------------------------------------------------------------------- what is scored


def test_contradictions_inventions_and_own_choice_by_hand() -> None:
    given = [
        *(Answer(True, 0.1, True), Answer(True, 0.2, False), Answer(True, 0.4, True)),
        *(Answer(True, 0.9, False), Answer(False, 0.3, False), Answer(False, 0.95, False)),
    ]
    rows = protocol.scores(given, [0.25, 0.5, 1.0])
    at = {(row.get("coverage"), row["metric"]): row["value"] for row in rows}
    wrong = {c: at[c, "contradictions"] for c in (0.25, 0.5, 1.0, None)}
    assert wrong == pytest.approx({0.25: 0, 0.5: 50, 1.0: 50, None: 100 / 3})
    invented = {c: at[c, "invented"] for c in (0.25, 0.5, 1.0, None)}
    assert invented == {0.25: 0, 0.5: 0, 1.0: 50, None: 50}
    assert at[None, "stated"] == 0.75
    silent = protocol.scores([Answer(True, 0.8, True), Answer(False, 0.9, False)], [1.0])
    assert ("contradictions", None) not in {(r["metric"], r.get("coverage")) for r in silent}


def test_a_chance_is_drawn_and_an_oracle_is_right(params: ContentCreation) -> None:
    (row,) = protocol.chance(**STORY, count=80)
    expected = 100 * (4 * (1 - 1 / len(PLACES)) + 3 * (1 - 1 / 5)) / 7
    assert abs(row["value"] - expected) < 5
    assert protocol.perfect(**STORY, count=20) == [{"metric": "oracle", "value": 1.0}]


class Oracle:
    """It reads the decoded prompt, and guesses what that does not tell."""

    def __init__(self) -> None:
        self.words, self.draws = story_reader.vocabulary(), np.random.default_rng(0)

    def likeliest(self, model, context, asked) -> list[torch.Tensor]:
        encode, found = self.words.encode, []
        known = reports.values_of(world.read(self.words.decode(context.tolist())))
        for question, answer in asked:
            text = self.words.decode(question).rpartition("As it stands:")[2]
            subject = text.removesuffix(" is with").removesuffix(" is").strip().removeprefix("The ")
            guess = PLACES[self.draws.integers(len(PLACES))]
            said, logits = known.get(subject), torch.zeros(len(answer), self.words.size)
            logits[-1, encode(f" {said or guess}")[0]] = 9.0
            vague = encode(reports.Slot.about(subject).abstains)[0]
            logits[0, vague] = -9.0 if said else 30.0
            found.append(logits)
        return found


def test_a_writer_that_reads_perfectly_errs_by_what_it_has_not_read(
    params: ContentCreation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "likeliest", Oracle().likeliest)
    same = STORY | {"layout": "spread", "count": 8, "coverages": [0.5, 1.0]}
    arms = [("whole", 0), ("bm25 each", 100), ("bm25", 192), ("bm25", 48), ("closed_book", 0)]
    found = {}
    for arm, tokens in arms:
        rows = protocol.statements(None, arm=arm, tokens=tokens, **same)
        at = {(row.get("coverage"), row["metric"]): row["value"] for row in rows}
        found[arm, tokens] = at
    for key in arms[:3]:
        assert found[key][1.0, "contradictions"] == found[key][None, "contradictions"] == 0
        assert found[key][None, "stated"] == 1 and found[key][None, "invented"] == 0
    few, none = found["bm25", 48], found["closed_book", 0]
    # What it has not read it says only where it must: so both numbers are needed.
    assert few[1.0, "contradictions"] > 20 and few[None, "stated"] < 0.9
    assert none[1.0, "contradictions"] > 80 and none[None, "stated"] == 0


def test_the_cast_is_the_same_for_every_arm_and_tells_nothing(params: ContentCreation) -> None:
    for number, one in enumerate(told(5)):
        cast = protocol.cast_of(one, number)
        assert cast == protocol.cast_of(one, number)
        assert {*one.story.people, *one.story.things} < set(cast) and len(cast) == 9
        brief = reports.brief(cast)
        assert not any(place in brief for place in PLACES)
        assert all(f"the {name}" in brief if name in THINGS else name in brief for name in cast)


# ------------------------------------------------------------------------------ the study's outputs


def test_texts_are_those_of_the_arms_and_of_a_play(
    smoke: pd.DataFrame, params: ContentCreation
) -> None:
    found = study.said(params)
    ours = found.loc[found["tier"] == "controlled", "arm"]
    few = min(params.tokens)
    assert [*ours] == ["whole", f"last, {few} tokens", f"bm25, {few} tokens"]
    real = {"before", "human", *map(str, params.real_windows), "full"}
    assert {*found.loc[found["tier"] == "real", "arm"]} == real
    assert found["text"].str.startswith("… ").all()
    assert {*study.said(params.model_copy(update={"checkpoint": None}))["tier"]} == {"controlled"}
    writer = story_writer.writer_of(
        params.story_reader, params.story_writer, "statements", params.seeds[0]
    )
    assert [result.steps_trained for result in sweep({0: writer}).values()] == [0]


def test_the_published_comparison_pairs_seeds_changes_and_tokens() -> None:
    rows = [
        {"arm": arm, "seed": seed, "layout": "spread", "changes": changes, "tokens": tokens}
        | {"coverage": 0.9, "metric": "contradictions", "value": seed + extra}
        for arm, tokens, extra in (("whole", 0, 0), ("bm25", 32, 40), ("bm25", 64, 0))
        for seed in (1, 2, 3)
        for changes in (0, 3)
    ]
    found = study.bm25_against_whole(pd.DataFrame(rows), 0.9)
    assert found["difference"].to_dict() == {(32, 0): 40, (32, 3): 40, (64, 0): 0, (64, 3): 0}
    assert set(found.loc[32, "more"]) == {"BM25"} and set(found.loc[64, "more"]) == {
        "not told apart"
    }


def test_an_excess_is_over_the_whole_story_of_the_same_seed_and_changes() -> None:
    at = {"metric": "contradictions", "layout": "spread", "coverage": 0.9, "tokens": 0}
    rows = [
        at | {"arm": "whole", "seed": 1, "changes": 0, "value": 2.0},
        at | {"arm": "whole", "seed": 1, "changes": 3, "value": 20.0},
        at | {"arm": "whole", "seed": 1, "changes": 3, "value": 90.0, "layout": "near"},
        at | {"arm": "bm25", "seed": 1, "changes": 3, "value": 25.0, "tokens": 64},
        at | {"arm": "last", "seed": 1, "changes": 3, "value": 60.0, "tokens": 64},
        {"metric": "contradictions", "layout": "spread", "arm": "bm25", "seed": 1, "value": 9.0},
    ]
    (found,) = study.excesses(rows)
    assert found == rows[3] | {"metric": "excess", "value": 5.0}
