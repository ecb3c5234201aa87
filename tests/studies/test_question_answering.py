"""Notebook 08's assertions hold on its own smoke run.

They fail with the effect removed. The recipes are of equal cost, and the tests hold what an arm
reads.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext import files
from farcontext.app.profiles import params_of
from farcontext.results import tables
from farcontext.studies import story_reader
from farcontext.studies.question_answering import real, study
from farcontext.studies.question_answering.params import Params as QuestionAnswering
from farcontext.tasks import world
from farcontext.train import curriculum
from farcontext.train.loop import build_model
from farcontext.train.runs import sweep

ORACLE, ASKED = "ok: the oracle, which", "ok: every arm was asked the same"
EQUAL, DOCUMENTS = "ok: the recipes'", "ok: every arm was asked in every document"


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Iterator[QuestionAnswering]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield smoke_params(root, study.NAME, QuestionAnswering)


@pytest.fixture(scope="module")
def smoke(params: QuestionAnswering) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 08 itself asks for."""
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


def told(params: QuestionAnswering):
    return story_reader.stories(
        story_reader.sizes_of(params.story_reader), length=min(params.lengths), count=1, depth=None
    )[0]


def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: QuestionAnswering
) -> None:
    words = story_reader.vocabulary()
    assertion(root, ORACLE, told=told(params), words=words, params=params)
    for says in (ASKED, EQUAL, DOCUMENTS):
        assertion(root, says, table=smoke, params=params)


def test_an_oracle_that_errs_is_noticed(
    root: Path, params: QuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "oracle", lambda sample, decode: [() for _ in sample.queries])
    with pytest.raises(AssertionError):
        assertion(root, ORACLE, told=told(params), words=story_reader.vocabulary(), params=params)


@pytest.mark.parametrize("arm", ["window", "wrong"])
def test_an_arm_that_is_missing_is_noticed(
    root: Path, smoke: pd.DataFrame, params: QuestionAnswering, arm: str
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, ASKED, table=smoke[smoke["arm"] != arm], params=params)
    with pytest.raises(AssertionError):
        assertion(
            root,
            DOCUMENTS,
            table=smoke[(smoke["tier"] != "real") | (smoke["arm"] != "window")],
            params=params,
        )


def test_recipes_that_do_not_cost_the_same_are_noticed(
    root: Path, params: QuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = story_reader.steps_of

    def longer(reader, recipe: str):
        return honest(reader, recipe) | (
            {"more": (0, 3 * reader.long_steps)} if recipe == "long" else {}
        )

    monkeypatch.setattr(story_reader, "steps_of", longer)
    with pytest.raises(AssertionError):
        assertion(root, EQUAL, params=params)


@pytest.mark.parametrize("profile", ["laptop", "gpu"])
def test_every_profile_s_recipes_cost_the_same(
    root: Path, profile: str, params: QuestionAnswering
) -> None:
    reader = params_of(root, profile).question_answering.story_reader
    costs = [story_reader.flop_of(reader, recipe) for recipe in story_reader.RECIPES]
    assert max(costs) < 1.02 * min(costs)


def test_recipes_share_what_they_share_and_end_on_questions(params: QuestionAnswering) -> None:
    short, long = (
        story_reader.phases_of(story_reader.run_of(params.story_reader, recipe, 3))
        for recipe in ("short", "long")
    )
    assert [len(short), len(long)] == [3, 3]
    assert short[0] == long[0] and short[1] != long[1]
    assert short[2].batch == long[2].batch and short[2].start == short[1]
    assert (
        short[1].batch.length == params.story_reader.short_length
        and long[1].batch.length == params.story_reader.long_length
    )
    (none,) = story_reader.phases_of(story_reader.run_of(params.story_reader, "none", 3))
    assert none.start is None and none.batch.stages[0].tasks == short[2].batch.stages[0].tasks
    with pytest.raises(ValueError, match="expected one of none, short, long"):
        story_reader.run_of(params.story_reader, "longer", 3)


def test_rows_that_the_cache_lost_are_made_again(
    params: QuestionAnswering, smoke: pd.DataFrame
) -> None:
    run = story_reader.run_of(params.story_reader, "none", 3)
    (task,) = run.batch.stages[0].tasks
    path = files.cache() / "rows" / f"{task.digest}.npy"
    kept = path.read_bytes()
    path.unlink()
    curriculum._kept_rows.cache_clear()
    assert story_reader.run_of(params.story_reader, "none", 3) == run
    assert path.read_bytes() == kept


def test_a_perfect_reader_is_scored_perfect_and_a_blind_one_at_chance(
    params: QuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's place is taken by functions that read the decoded context, or none."""
    words = story_reader.vocabulary()

    def logits(model, contexts, asked, *, blind: bool = False):
        found = []
        for number, (context, (question, answer)) in enumerate(zip(contexts, asked, strict=True)):
            known = {
                fact.question: fact.value for fact in world.state(world.read(words.decode(context)))
            }
            value = None if blind else known.get(words.decode(question))
            said = words.encode(f" {value}") if value else ()
            scores = torch.rand(
                len(answer), words.size, generator=torch.Generator().manual_seed(number)
            )
            for place, token in enumerate(said[: len(answer)]):
                scores[place, token] = 2
            found.append(scores)
        return found

    sizes = {"people": 4, "things": 3, "changes": 0}
    same = {"sizes": sizes, "length": 400, "depth": 0.0, "count": 12, "window": 100}
    monkeypatch.setattr(study, "likeliest", logits)
    for arm, least, most in (
        ("full", 1, 1),
        ("shuffled", 1, 1),
        ("window", 0, 0.1),
        ("removed", 0, 0.1),
        ("wrong", 0, 0.2),
    ):
        for row in study.answers(None, arm=arm, **same):
            assert least <= row["exact"] <= row["f1"] <= 1
            assert row["exact"] <= most, (arm, row)
    (one, two) = study.answers(None, arm="retrieved", **same)
    assert one["exact"] >= 0.9 > two["exact"]


def test_what_follows_padding_or_stands_beside_a_row_changes_no_logit(
    params: QuestionAnswering,
) -> None:
    torch.manual_seed(0)
    model = build_model(story_reader.model_of(params.story_reader)).eval()
    asked = [((5, 6), (7,)), ((5, 6, 8), (9, 10))]
    contexts = [np.arange(4, 20), np.arange(30, 40)]
    both = story_reader.likeliest(model, contexts, asked)
    alone = [
        story_reader.likeliest(model, [c], [a])[0] for c, a in zip(contexts, asked, strict=True)
    ]
    assert [found.shape[0] for found in both] == [1, 2]
    for one, other in zip(both, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    row = torch.tensor([[*contexts[1], *asked[1][0], *asked[1][1]]])
    assert torch.allclose(both[1], model(row)[0, -3:-1], atol=1e-5)


def test_an_arm_that_is_not_known_is_named(params: QuestionAnswering) -> None:
    with pytest.raises(ValueError, match="arm = half: expected one of full, window"):
        study.context_of("half", told(params), None, other=None, decode=None, window=1, seed=0)


def test_a_stretch_has_its_questions_and_its_controls(params: QuestionAnswering) -> None:
    words = story_reader.vocabulary()
    made = real.stretch("plays", 0, 300, 4, words.encode, (2,))
    assert 2 <= len(made.queries) <= 4
    for arm in real.ARMS:
        read = real._read(arm, made, 100, words.decode)
        assert sum(len(sample.queries) for sample in read) == len(made.queries)
        assert all(len(sample.context) <= (100 if arm in study.SHORT else 300) for sample in read)
    with pytest.raises(ValueError, match="expected 100 with two values"):
        real.stretch("plays", 99, 300, 4, words.encode, (2,))


def test_trainings_are_cached_under_the_study_s_own_runs(
    params: QuestionAnswering, smoke: pd.DataFrame
) -> None:
    runs = [
        story_reader.run_of(params.story_reader, recipe, params.seeds[0])
        for recipe in story_reader.RECIPES
    ]
    assert [result.steps_trained for result in sweep(dict(enumerate(runs))).values()] == [0, 0, 0]
