"""Notebook 10's assertions hold on its own smoke run.

They fail with the effect removed. The tests hold what an arm reads, and what is merged and scored.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cells import run_assertion, smoke_params

from farcontext.results import tables
from farcontext.studies import story_reader
from farcontext.studies.summarization import study
from farcontext.studies.summarization.params import Params as Summarization
from farcontext.tasks import storybook, world
from farcontext.tasks.events import Fact
from farcontext.tasks.sample import even_depths
from farcontext.train.loop import load_model
from farcontext.train.runs import result_of

ORACLE, SAME, REAL = "ok: the oracle, which", "ok: every arm summarized", "ok: every manual's"
SIZES = {"people": 4, "things": 3, "changes": 0}


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Iterator[Summarization]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield smoke_params(root, study.NAME, Summarization)


@pytest.fixture(scope="module")
def smoke(params: Summarization) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 10 itself asks for."""
    return study.run(params)


def assertion(root: Path, says: str, **known: object) -> None:
    """Run the notebook's own cell that prints `says`."""
    run_assertion(
        root,
        study.NAME,
        says,
        study=study,
        results=tables,
        readers=story_reader,
        world=world,
        **known,
    )


def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: Summarization
) -> None:
    assertion(root, ORACLE, params=params, sizes=story_reader.sizes_of(params.story_reader))
    for says in (SAME, REAL):
        assertion(root, says, table=smoke, params=params)


def test_an_oracle_that_errs_is_noticed(
    root: Path, params: Summarization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "read", lambda text: [])
    with pytest.raises(AssertionError):
        assertion(root, ORACLE, params=params, sizes=story_reader.sizes_of(params.story_reader))


@pytest.mark.parametrize("arm", ["first", "bm25", "wrong"])
def test_an_arm_that_is_missing_is_noticed(
    root: Path, smoke: pd.DataFrame, params: Summarization, arm: str
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, SAME, table=smoke[smoke["arm"] != arm], params=params)
    with pytest.raises(AssertionError):
        assertion(
            root,
            REAL,
            table=smoke[(smoke["tier"] != "real") | (smoke["arm"] != "other")],
            params=params,
        )


def told(count: int = 2) -> list:
    return story_reader.stories(SIZES, length=400, count=count, depth=None)


def test_arms_read_what_they_say(params: Summarization) -> None:
    one, other = told()
    read = {
        arm: study.read_by(arm, one, other, 100) for arm in ("full", *study.SHORT, *study.CONTROLS)
    }
    assert all(len(contexts) == 1 for arm, contexts in read.items() if arm != "hierarchical")
    (full,), (first,), (last,), (wrong,) = (read[arm] for arm in ("full", "first", "last", "wrong"))
    assert full.tolist() == one.context.tolist() and wrong.tolist() == other.context.tolist()
    assert first.tolist() == full[:100].tolist() and last[1:].tolist() == full[-99:].tolist()
    chunks = read["hierarchical"]
    assert all(len(chunk) <= 100 and chunk[0] == full[0] for chunk in chunks)
    assert [token for chunk in chunks for token in chunk[1:]] == full[1:].tolist()
    words = story_reader.vocabulary()
    assert not world.read(words.decode(read["closed_book"][0].tolist()))
    with pytest.raises(ValueError, match="arm = half: expected one of full, first"):
        study.read_by("half", one, other, 100)


def test_what_parts_state_is_merged_and_the_last_word_counts() -> None:
    parts = [
        " Anna Baker is in the mill. The lamp is with Anna Baker.",
        " Anna Baker is in the tower. Nonsense.",
    ]
    assert study.merged(parts) == [
        Fact("place", "Anna Baker", "tower"),
        Fact("holder", "lamp", "Anna Baker"),
    ]
    assert study.merged(["", "And so on."]) == []


def test_facts_and_their_depths_are_those_of_the_story(params: Summarization) -> None:
    words = story_reader.vocabulary()
    for number, sample in enumerate(told(6)):
        found = study.facts_of(SIZES, number)
        assert len(found) == SIZES["people"] + SIZES["things"]
        assert sorted(found.values()) == pytest.approx(even_depths(len(found)))
        text = words.decode(sample.context.tolist())
        assert set(found) <= set(world.state(world.read(text)))
        for fact, depth in found.items():  # a person's place, or a thing's holder: told about there
            told_at = text.index(
                fact.subject if fact.kind == "place" else f"he {fact.subject} "
            ) / len(text)
            assert fact.kind == "place" or abs(told_at - depth) < 0.2


def test_a_perfect_summary_scores_1_everywhere_and_half_of_it_half() -> None:
    facts = [[*study.facts_of(SIZES, number)] for number in range(4)]
    whole = {
        row["metric"]: row["value"]
        for row in study.scores(SIZES, facts, [_said(some) for some in facts])
    }
    assert whole["recall"] == whole["precision"] == whole["rougeL"] == 1
    halves = [some[:3] for some in facts]
    rows = study.scores(SIZES, halves, [_said(some) for some in halves])
    half = {row["metric"]: row["value"] for row in rows}
    assert (
        half["recall"] == pytest.approx(3 / 7)
        and half["precision"] == 1
        and half["words"] < whole["words"]
    )
    by_depth = [row for row in rows if row["metric"] == "recall_at"]
    assert len(by_depth) == 7 and np.mean([row["value"] for row in by_depth]) == pytest.approx(
        3 / 7
    )
    lies = [[fact._replace(value="nowhere") for fact in some] for some in facts]
    none = {
        row["metric"]: row["value"]
        for row in study.scores(SIZES, lies, [_said(some) for some in lies])
    }
    assert none["recall"] == none["precision"] == 0


def _said(facts: list[Fact]) -> str:
    return "".join(fact.sentence for fact in facts)


def test_copied_sentences_state_what_they_tell_and_nothing_false(params: Summarization) -> None:
    for arm in study.EXTRACTS:
        rows = study.copied(sizes=SIZES, length=400, layout="spread", count=6, arm=arm)
        found = {row["metric"]: row["value"] for row in rows if row["metric"] != "recall_at"}
        assert 0 < found["recall"] < 1 and found["precision"] == 1
    near = study.copied(sizes=SIZES, length=900, layout="near", count=6, arm="lead")
    assert {row["value"] for row in near if row["metric"] in ("recall", "recall_at")} == {0}


def test_a_writer_that_reads_perfectly_shows_what_a_window_costs(
    params: Summarization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's place is taken by the oracle, which reads the decoded prompt."""
    words = story_reader.vocabulary()

    def written(model, prompts, new, *, stop):
        read = [world.state(world.read(words.decode(prompt))) for prompt in prompts]
        return [_said([fact for fact in facts if fact.kind != "thing_place"]) for facts in read]

    monkeypatch.setattr(study, "written", written)
    same = {"sizes": SIZES, "length": 400, "layout": "spread", "count": 8, "window": 100}
    recall = {
        arm: next(
            row["value"]
            for row in study.summaries(None, arm=arm, **same)
            if row["metric"] == "recall"
        )
        for arm in ("full", *study.SHORT, *study.CONTROLS)
    }
    assert recall["full"] == 1 and recall["closed_book"] == 0 and recall["wrong"] < 0.1
    assert recall["first"] < 0.5 > recall["last"] and 0.5 < recall["hierarchical"] < 1


def test_writers_go_on_from_the_readers_base_and_are_cached(
    params: Summarization, smoke: pd.DataFrame
) -> None:
    reader, writer = params.story_reader, params.story_writer
    summaries = story_reader.phases_of(story_reader.writer_of(reader, writer, "summary", 3))
    statements = story_reader.phases_of(story_reader.writer_of(reader, writer, "statements", 3))
    assert statements[:-1] == summaries and len(summaries) == 2
    assert summaries[0] == story_reader.phases_of(story_reader.run_of(reader, "long", 3))[0]
    assert [stage.length for stage in summaries[1].batch.stages] == [
        reader.short_length,
        reader.long_length,
    ]
    run = story_reader.writer_of(reader, writer, "summary", params.seeds[0])
    assert result_of(run).steps_trained == 0


def test_prompts_of_different_lengths_are_written_as_each_alone(
    params: Summarization, smoke: pd.DataFrame
) -> None:
    model = load_model(
        story_reader.writer_of(params.story_reader, params.story_writer, "summary", params.seeds[0])
    )
    words = story_reader.vocabulary()
    cue = words.encode(storybook.SUMMARY)
    prompts = [
        [*sample.context[:size].tolist(), *cue]
        for sample, size in zip(told(3), (60, 90, 60), strict=True)
    ]
    together = story_reader.written(model, prompts, 8)
    assert together == [story_reader.written(model, [prompt], 8)[0] for prompt in prompts]
    assert story_reader.written(model, prompts[:1], 8, stop=words.encode(together[0])[0]) == [""]
