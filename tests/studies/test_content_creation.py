"""Notebook 11's assertions hold on its own smoke run.

They fail with the effect removed. The tests count contradictions and falls, and hold what an arm
reads.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cells import run_assertion, smoke_params

from farcontext.results import tables
from farcontext.studies import story_reader
from farcontext.studies.content_creation import study
from farcontext.studies.content_creation.params import Params as ContentCreation
from farcontext.tasks import events, storybook, world
from farcontext.tasks.events import Event
from farcontext.tasks.world import Story
from farcontext.train.runs import sweep

ORACLE, SAME, REAL = "ok: the oracle finds", "ok: every arm went on", "ok: what truly follows"
SIZES = {"people": 4, "things": 3, "changes": 0}
STORY = Story(
    ("Anna Baker", "Boris Carter"),
    ("lamp",),
    (
        Event("go", "Anna Baker", "mill"),
        Event("go", "Boris Carter", "tower"),
        Event("take", "Boris Carter", "lamp"),
    ),
    (),
)


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
    root: Path, smoke: pd.DataFrame, params: ContentCreation
) -> None:
    sizes = story_reader.sizes_of(params.story_reader)
    assertion(root, ORACLE, story=story_reader.story_of(sizes, 0))
    for says in (SAME, REAL):
        assertion(root, says, table=smoke, params=params)


def test_an_oracle_that_sees_no_contradiction_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "contradictions", lambda stated, true: [])
    with pytest.raises(AssertionError):
        assertion(root, ORACLE, story=story_reader.story_of(SIZES, 0))


@pytest.mark.parametrize("arm", ["32", "full", "oracle"])
def test_an_arm_that_is_missing_is_noticed(
    root: Path, smoke: pd.DataFrame, params: ContentCreation, arm: str
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


def test_contradictions_quarrels_and_persistence_by_hand() -> None:
    text = (
        " Anna Baker is in the mill. Anna Baker is in the tower. The lamp is with Boris Carter."
        " Clara Mason is in the mill. The key is with Anna Baker."
    )
    found = study.scores([STORY], [text])
    assert found["contradictions"] == pytest.approx(100 / 3)  # of three statements about the cast
    assert found["quarrels"] == pytest.approx(100 / 3)
    assert found["persistence"] == pytest.approx(3 / 5)
    assert found["distinct"] == pytest.approx(21 / 29)  # bigrams of 30 words
    # "is in the mill." and the like, with what stands before
    assert found["repetition"] == pytest.approx(3 / 27)
    assert study.scores([STORY], [" Anna Baker is in the mill."])["contradictions"] == 0
    nothing = study.scores([STORY, STORY], ["", "Once upon a time."])
    assert nothing["persistence"] == 0 and not {"contradictions", "quarrels"} & set(nothing)


def test_statements_are_pooled_over_stories() -> None:
    texts = [" Anna Baker is in the mill." * 3, " Anna Baker is in the tower."]
    assert study.scores([STORY, STORY], texts)["contradictions"] == 25


def test_true_statements_contradict_nothing_and_are_about_the_cast() -> None:
    (row,) = study.truths(sizes=SIZES, count=10, statements=9)
    assert row["contradictions"] == row["quarrels"] == 0 and row["persistence"] == 1
    assert len(world.facts_in(row["text"])) == 9


def test_a_fall_is_a_share_of_the_window_s_contradictions() -> None:
    values = {
        ("64", 1): 80.0,
        ("full", 1): 20.0,
        ("oracle", 1): 0.0,
        ("64", 2): 0.0,
        ("full", 2): 0.0,
        ("oracle", 2): 0.0,
    }
    rows = [{"arm": arm, "seed": seed, "value": value} for (arm, seed), value in values.items()]
    falls = {(row["arm"], row["seed"]): row["value"] for row in study.falls(rows)}
    assert falls == {("64", 1): 75}


def test_the_brief_names_the_cast_and_is_the_same_for_every_arm() -> None:
    for number in range(5):
        story, brief = story_reader.story_of(SIZES, number), study.brief_of(SIZES, number)
        assert brief == study.brief_of(SIZES, number)
        assert all(
            name in brief for name in (*story.people, *(f"the {thing}" for thing in story.things))
        )
        assert not any(place in brief for place in events.PLACES)
        assert brief.startswith(storybook.CAST) and brief.endswith(storybook.STATEMENTS)


def test_a_writer_that_reads_perfectly_contradicts_less_the_more_it_reads(
    params: ContentCreation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle takes the model's place.

    It makes up what the decoded prompt does not tell.
    """
    words = story_reader.vocabulary()

    def written(model, prompts, new, *, sampling, seed):
        texts, rng = [], np.random.default_rng(seed)
        for prompt in prompts:
            text = words.decode(prompt)
            known = {
                fact.subject: fact for fact in world.state(world.read(text)) if fact.kind == "place"
            }
            people = [
                name
                for name in text.partition(storybook.CAST)[2].partition(".")[0].split(", ")
                if "the " not in name
            ]
            guess = [
                events.Fact("place", name.strip(), events.PLACES[rng.integers(16)])
                for name in people
            ]
            texts.append("".join(known.get(fact.subject, fact).sentence for fact in guess) + " and")
        return texts

    monkeypatch.setattr(study, "written", written)
    same = {
        "sizes": SIZES,
        "length": 400,
        "layout": "spread",
        "count": 20,
        "new": 9,
        "temperature": 1.0,
        "top_p": 0.9,
    }
    found = [study.continuations(None, window=window, **same)[0] for window in (50, 200, None)]
    wrong = [row["contradictions"] for row in found]
    assert wrong[0] > wrong[1] > wrong[2] == 0
    assert all(row["persistence"] == 1 and row["text"].endswith(".") for row in found)


def test_texts_are_those_of_every_arm_and_no_spreadsheet_runs_them(
    smoke: pd.DataFrame, params: ContentCreation
) -> None:
    found = study.texts(params)
    assert [*found.loc[found["tier"] == "controlled", "arm"]] == study.arms(params)
    real = {"before", "human", *map(str, params.real_windows), "full"}
    assert {*found.loc[found["tier"] == "real", "arm"]} == real
    assert found["text"].str.startswith("… ").all()
    assert {*study.texts(params.model_copy(update={"checkpoint": None}))["tier"]} == {"controlled"}
    runs = [
        story_reader.writer_of(
            params.story_reader, params.story_writer, "statements", params.seeds[0]
        )
    ]
    assert [result.steps_trained for result in sweep(dict(enumerate(runs))).values()] == [0]
