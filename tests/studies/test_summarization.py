"""Notebook 10's assertions hold on its own smoke run.

They fail with the effect removed. The tests hold what an arm reads, and what is merged and scored.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cells import run_assertion, smoke_params

from farcontext.measure import metrics
from farcontext.results import tables
from farcontext.studies import story_reader, story_writer
from farcontext.studies.summarization import protocol, study
from farcontext.studies.summarization.params import Params as Summarization
from farcontext.tasks import reports, world
from farcontext.train.runs import result_of

F1, PERFECT = "ok: these lines are the library's F1", "ok: joined, perfect reports"
SAME, REAL = "ok: every arm reported", "ok: every manual's"
SIZES = {"people": 4, "things": 3, "changes": 6}
STORY = {"sizes": SIZES, "seed": 5, "length": 400}


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Iterator[Summarization]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield smoke_params(root, study.NAME, Summarization)


@pytest.fixture(scope="module")
def smoke(params: Summarization) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 10 itself asks for."""
    return study.run(params)


def spread(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[(table["layout"] == "spread") & (table["metric"] == "f1")]
    return rows[rows["kind"] == "all"]


def assertion(root: Path, says: str, **known: object) -> None:
    """Run the notebook's own cell that prints `says`."""
    modules = {"study": study, "protocol": protocol, "reports": reports, "metrics": metrics}
    modules |= {"tables": tables, "writers": story_writer, "worded": reports.worded}
    run_assertion(root, study.NAME, says, **modules, **known)


def told(count: int = 2, depth: float | None = None) -> list[story_writer.Told]:
    return story_writer.tested(SIZES, seed=5, length=400, depth=depth, count=count)


# ---------------------------------------------------------------------------- the page's assertions


def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: Summarization
) -> None:
    (one,) = told(1)
    lines = reports.report(one.story.events)
    assertion(root, F1, lines=lines)
    assertion(root, PERFECT, told=one, lines=lines)
    assertion(root, SAME, table=smoke, spread=spread(smoke), params=params)
    assertion(root, REAL, table=smoke, params=params)


def test_a_wrong_f1_and_a_merger_that_loses_are_noticed(
    root: Path, params: Summarization, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = told(1)
    lines = reports.report(one.story.events)
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "fact_f1", metrics.fact_recall)
        with pytest.raises(AssertionError):
            assertion(root, F1, lines=lines)
    monkeypatch.setattr(reports, "merged", lambda parts: parts[0])
    with pytest.raises(AssertionError):
        assertion(root, PERFECT, told=one, lines=lines)


@pytest.mark.parametrize("arm", ["joined", "bm25", "wrong"])
def test_an_arm_that_is_missing_is_noticed(
    root: Path, smoke: pd.DataFrame, params: Summarization, arm: str
) -> None:
    less = smoke[smoke["arm"] != arm]
    with pytest.raises(AssertionError):
        assertion(root, SAME, table=less, spread=spread(less), params=params)
    with pytest.raises(AssertionError):
        less = smoke[(smoke["tier"] != "real") | (smoke["arm"] != "other")]
        assertion(root, REAL, table=less, params=params)


def test_an_oracle_that_errs_and_unequal_training_are_noticed(
    root: Path, smoke: pd.DataFrame, params: Summarization, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = smoke.assign(value=smoke["value"].where(smoke["arm"] != "oracle", 0.9))
    with pytest.raises(AssertionError):
        assertion(root, SAME, table=wrong, spread=spread(smoke), params=params)
    monkeypatch.setattr(study, "WRITERS", ("whole", "statements"))
    with pytest.raises(AssertionError):
        assertion(root, SAME, table=smoke, spread=spread(smoke), params=params)


# ------------------------------------------------------------------------------------- what is read


def test_chunks_cut_no_telling_sentence_and_hold_all(params: Summarization) -> None:
    for one in told(6):
        for size in (64, 128, 256):
            chunks = protocol.chunks_of(one.sample, size)
            first = one.sample.blocks[0]
            assert chunks[0][0] == first and chunks[-1][1] == len(one.sample.context)
            assert all(a[1] == b[0] for a, b in pairwise(chunks))
            assert all(end - start <= size - first for start, end in chunks)
            evidence = {span for query in one.sample.queries for span in query.evidence}
            for start, end in evidence:
                assert sum(a <= start and end <= b for a, b in chunks) == 1
        whole = protocol.chunks_of(one.sample, 400)
        assert whole == [(one.sample.blocks[0], len(one.sample.context))]


def test_an_excerpt_is_filled_up_with_other_prose(params: Summarization) -> None:
    one, words = told(1)[0], story_reader.vocabulary()
    span = protocol.chunks_of(one.sample, 128)[1]
    read = story_writer.excerpt(one.sample, [span], 200)
    assert len(read) == 200 and read[0] == one.sample.context[0]
    assert read[-(span[1] - span[0]) :].tolist() == one.sample.context[slice(*span)].tolist()
    before = words.decode(read[: 200 - (span[1] - span[0])].tolist())
    assert not world.read(before)
    with pytest.raises(ValueError, match="size = 20: expected at least"):
        story_writer.excerpt(one.sample, [span], 20)


def test_arms_read_what_they_say(params: Summarization) -> None:
    one, other = (x.sample for x in told())
    read = {arm: protocol.read_by(arm, one, other, 100) for arm in ("whole", *protocol.CONTROLS)}
    assert read["whole"].tolist() == one.context.tolist()
    assert read["wrong"].tolist() == other.context.tolist()
    assert read["first"].tolist() == one.context[:100].tolist()
    assert read["last"][1:].tolist() == one.context[-99:].tolist()
    assert not world.read(story_reader.vocabulary().decode(read["closed_book"].tolist()))
    with pytest.raises(ValueError, match="arm = half: expected whole, first"):
        protocol.read_by("half", one, other, 100)


def test_every_seed_has_stories_of_its_own(params: Summarization) -> None:
    same = {"length": 400, "depth": None, "count": 3}
    found = [
        [one.story for one in story_writer.tested(SIZES, seed=seed, **same)] for seed in (1, 2)
    ]
    assert not {one.sentences for one in found[0]} & {one.sentences for one in found[1]}


# ----------------------------------------------------------------------------------- what is scored


def by_kind(rows: list, metric: str = "f1") -> dict[str, float]:
    return {row["kind"]: row["value"] for row in rows if row["metric"] == metric and "kind" in row}


def test_a_perfect_report_scores_1_half_of_it_less_and_lies_0(params: Summarization) -> None:
    stories = told(4)
    true = [reports.report(one.story.events) for one in stories]
    assert set(by_kind(protocol.scores(stories, true)).values()) == {1.0}
    people = [[line for line in lines if line[0].kind == "place"] for lines in true]
    assert by_kind(protocol.scores(stories, people)) == pytest.approx(
        {"all": 2 * 4 / 14, "one sentence": 2 * 4 / 11, "two sentences": 0}
    )
    assert by_kind(protocol.scores(stories, people), "precision")["all"] == 1
    lies = [
        [tuple(fact._replace(value="sea") for fact in line) for line in lines] for lines in true
    ]
    assert set(by_kind(protocol.scores(stories, lies)).values()) == {0.0}
    assert "two sentences" not in by_kind(protocol.scores(stories, people), "precision")


def test_copied_sentences_are_scored_by_what_they_tell(params: Summarization) -> None:
    for arm in study.EXTRACTS:
        rows = protocol.copied(**STORY, count=6, arm=arm)
        assert 0 <= by_kind(rows)["all"] < 1
    assert by_kind(protocol.perfect(**STORY, count=6))["all"] == 1


def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the oracle, which reads the decoded prompt, into the model's place."""
    words = story_reader.vocabulary()

    def written(model, prompts, new, *, stop):
        read = [world.read(words.decode(prompt)) for prompt in prompts]
        return ["".join(map(reports.worded, reports.report(events))) for events in read]

    monkeypatch.setattr(protocol, "written", written)


def test_a_writer_that_reads_perfectly_needs_the_join_and_the_evidence(
    params: Summarization, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle(monkeypatch)
    rows = protocol.chunk_reports(None, **STORY, count=8, chunk=100)
    merged = {arm: by_kind([x for x in rows if x["arm"] == arm]) for arm in protocol.MERGERS}
    assert set(merged["joined"].values()) == {1.0}
    assert merged["latest"]["one sentence"] == 1 and merged["latest"]["two sentences"] < 0.8
    (own,) = [row["value"] for row in rows if row["metric"] == "chunk_f1"]
    (read,) = [row["value"] for row in rows if row["metric"] == "tokens"]
    assert own == 1 and 400 <= read < 700
    same = STORY | {"layout": "spread", "count": 8, "chunk": 100}
    found = {
        arm: by_kind(protocol.whole_reports(None, arm=arm, **same))["all"]
        for arm in ("whole", *protocol.CONTROLS)
    }
    assert found["whole"] == 1 and found["closed_book"] == 0 and found["wrong"] < 0.1
    assert found["first"] < 0.5 and found["last"] < 0.7


# ----------------------------------------------------------------------------------------- training


def test_writers_start_from_the_shared_base_and_cost_the_same(
    params: Summarization, smoke: pd.DataFrame
) -> None:
    reader, writer = params.story_reader, params.story_writer
    tasks = ("whole", "chunk", "statements")
    runs = {task: story_writer.writer_of(reader, writer, task, 10) for task in tasks}
    assert {run.start for run in runs.values()} == {story_reader.base_of(reader, 10)}
    assert runs["whole"].steps == runs["chunk"].steps == sum(writer.report_steps)
    rows = {task: {s.rows * s.length for s in run.batch.stages} for task, run in runs.items()}
    assert all(
        abs(n - reader.step_tokens) < s for some in rows.values() for n in some for s in [200]
    )
    digests = {run.batch.stages[0].tasks[0].digest for run in runs.values()}
    other = story_writer.writer_of(reader, writer, "whole", 11)
    assert len(digests | {other.batch.stages[0].tasks[0].digest}) == 4  # Others for each seed.
    assert result_of(runs["chunk"]).steps_trained == 0


def test_the_published_comparison_pairs_seeds_and_changes() -> None:
    rows = [
        {"arm": arm, "seed": seed, "length": 512, "layout": "spread", "changes": changes}
        | {"chunk": 0 if arm == "whole" else 128, "kind": "all", "metric": "f1"}
        | {"value": 0.8 + 0.01 * seed - (0.1 if arm == "joined" and changes else 0)}
        for arm in ("whole", "joined")
        for seed in (1, 2, 3)
        for changes in (0, 3)
    ]
    rows += [dict(rows[0], arm="first", changes=3), dict(rows[-1], chunk=64, value=0.0)]
    rows += [dict(rows[-3], length=1024, value=0.0)]
    found = study.whole_against_chunks(pd.DataFrame(rows), "joined")
    assert found["difference"].to_dict() == pytest.approx({0: 0, 3: -10})
    assert found["more"].to_dict() == {0: "not told apart", 3: "whole story"}
    assert np.isfinite(found[["low", "high"]].to_numpy()).all()
