"""Notebook 08's assertions hold on its own smoke run.

They fail with the effect removed. The recipes are of equal cost, and the tests hold what an arm
reads and how its answers are scored.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext import files
from farcontext.app.profiles import params_of
from farcontext.studies import story_reader
from farcontext.studies.question_answering import figures, protocol, real, recipes, study
from farcontext.studies.question_answering.params import Params as QuestionAnswering
from farcontext.tasks import puzzle_text
from farcontext.train import curriculum
from farcontext.train.loop import build_model
from farcontext.train.runs import sweep

ORACLE, ASKED = "ok: the oracle, which", "ok: every arm was asked the same"
EQUAL, DOCUMENTS = "ok: the recipes'", "ok: every arm was asked in every document"
LEVELS = {
    "updates": 4,
    "mentions": 16,
    "namesakes": 4,
    "words": 2,
    "pronouns": 2,
    "counting": 4,
    "hops": 3,
}


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
    run_assertion(root, study.NAME, says, study=study, recipes=recipes, protocol=protocol, **known)


# -------------------------------------------------------------------------- the page's assertions


def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: QuestionAnswering
) -> None:
    for says in (ORACLE, ASKED, EQUAL, DOCUMENTS):
        assertion(root, says, table=smoke, params=params)


def test_an_oracle_that_errs_is_noticed(
    root: Path, smoke: pd.DataFrame, params: QuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puzzle_text, "answers", lambda text, chain: [""])
    with pytest.raises(AssertionError):
        assertion(root, ORACLE, table=smoke, params=params)


@pytest.mark.parametrize("arm", ["told", "bm25_64", study.RIVAL])
def test_an_arm_that_is_missing_is_noticed(
    root: Path, smoke: pd.DataFrame, params: QuestionAnswering, arm: str
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, ASKED, table=smoke[smoke["arm"] != arm], params=params)
    with pytest.raises(AssertionError):
        cut = smoke[(smoke["tier"] != "real") | (smoke["arm"] != "window")]
        assertion(root, DOCUMENTS, table=cut, params=params)


def test_a_level_that_an_arm_was_not_asked_is_noticed(
    root: Path, smoke: pd.DataFrame, params: QuestionAnswering
) -> None:
    cut = smoke[(smoke["axis"] != "hops") | (smoke["level"] != 2) | (smoke["arm"] != "whole")]
    with pytest.raises(AssertionError):
        assertion(root, ASKED, table=cut, params=params)


def test_recipes_that_do_not_cost_the_same_are_noticed(
    root: Path, smoke: pd.DataFrame, params: QuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = recipes.steps_of

    def longer(reader, recipe: str):
        more = {"more": (0, 3 * reader.long_steps)} if recipe == "long" else {}
        return honest(reader, recipe) | more

    monkeypatch.setattr(recipes, "steps_of", longer)
    with pytest.raises(AssertionError):
        assertion(root, EQUAL, table=smoke, params=params)


# ------------------------------------------------------------------------------------ the trainings


@pytest.mark.parametrize("profile", ["laptop", "gpu"])
def test_every_profile_s_recipes_cost_the_same_and_a_third_is_long(
    root: Path, profile: str, params: QuestionAnswering
) -> None:
    reader = params_of(root, profile).question_answering.story_reader
    costs = {recipe: recipes.flop_of(reader, recipe) for recipe in recipes.RECIPES}
    sums = [sum(phases.values()) for phases in costs.values()]
    assert max(sums) < 1.02 * min(sums)
    pretraining = costs["long"]["base"] + costs["long"]["more"]
    assert costs["long"]["more"] > pretraining / 3


def test_applications_share_their_readers_and_seeds(root: Path) -> None:
    params = params_of(root, "laptop")
    others = (params.summarization, params.content_creation)
    for other in others:
        assert other.story_reader == params.question_answering.story_reader


def test_recipes_share_what_they_share_and_end_on_puzzles(params: QuestionAnswering) -> None:
    short, long = (
        story_reader.phases_of(recipes.reader_of(params, recipe, 3)) for recipe in recipes.RECIPES
    )
    assert len(short) == len(long) == len(recipes.PHASES)
    assert short[0] == long[0] == story_reader.base_of(params.story_reader, 3)
    assert short[1] != long[1]
    assert short[2].batch == long[2].batch and short[2].start == short[1]
    assert short[1].batch.length == params.story_reader.short_length
    assert long[1].batch.length == params.story_reader.long_length
    with pytest.raises(ValueError, match="expected one of short, long"):
        recipes.reader_of(params, "longer", 3)


def test_rows_that_the_cache_lost_are_made_again(
    params: QuestionAnswering, smoke: pd.DataFrame
) -> None:
    run = recipes.reader_of(params, "long", 3)
    (task,) = run.batch.stages[0].tasks
    path = files.cache() / "rows" / f"{task.digest}.npy"
    kept = path.read_bytes()
    path.unlink()
    curriculum._kept_rows.cache_clear()
    assert recipes.reader_of(params, "long", 3) == run
    assert path.read_bytes() == kept


def test_trainings_are_cached_under_the_study_s_own_runs(
    params: QuestionAnswering, smoke: pd.DataFrame
) -> None:
    runs = [recipes.reader_of(params, recipe, params.seeds[0]) for recipe in recipes.RECIPES]
    assert [result.steps_trained for result in sweep(dict(enumerate(runs))).values()] == [0, 0]


# ------------------------------------------------------------------------ what is read and answered


def careful(
    model: object, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Take a model's place: read each decoded row as the oracle does, and say the next word."""
    said = zip(rows, places, strict=True)
    return [[next_word(row[: place + 1]) for place in some] for row, some in said]


def next_word(row: Sequence[int]) -> int:
    """Return the first token of what the oracle would say after a row."""
    words = story_reader.vocabulary()
    text, _, begun = words.decode(row).rpartition("\n")
    question = f"\n{begun}"
    ends = question.find("?") + 1 + len(" In the") * question.startswith("\nWhere")
    step = protocol.Step(question[:ends], "")
    answer = words.encode(f" {puzzle_text.answer(text, (step,))}")
    told = len(words.encode(question[ends:])) if question[ends:] else 0
    return answer[told] if told < len(answer) else 0


@pytest.mark.parametrize("axis", LEVELS)
def test_a_careful_reader_is_right_wherever_the_evidence_is_read(
    axis: str, params: QuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "next_tokens", careful)
    arms = ["whole", "told", "evidence", *protocol.CONTROLS]
    same = {"length": 512, "count": 12, "seed": 900}
    found = protocol.answers(None, axis=axis, level=LEVELS[axis], arms=arms, **same)
    exact = {row["arm"]: row["exact"] for row in found if row["steps"] == "written"}
    assert exact["whole"] == exact["told"] == exact["evidence"] == 1
    assert exact["removed"] <= 0.2 and exact["closed_book"] == 0
    tokens = {row["arm"]: row["tokens"] for row in found}
    assert tokens["evidence"] < tokens["told"] < tokens["removed"] < tokens["whole"] < 512


@pytest.mark.parametrize(
    ("axis", "level", "finds", "misses"),
    [
        ("updates", 4, {"bm25", "twice", "stepwise"}, set()),
        ("mentions", 32, set(), {"bm25", "neighbours", "twice", "stepwise"}),
        ("words", 2, {"stepwise"}, {"bm25"}),
        ("pronouns", 1, {"neighbours"}, {"bm25", "twice", "stepwise"}),
        ("pronouns", 12, set(), {"bm25", "neighbours", "twice", "stepwise"}),
        ("hops", 3, {"stepwise"}, {"bm25"}),
    ],
)
def test_each_form_of_bm25_finds_what_it_can(
    axis: str,
    level: int,
    finds: set[str],
    misses: set[str],
    params: QuestionAnswering,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A careful reader takes the model's place, so what is missed was not retrieved."""
    monkeypatch.setattr(protocol, "next_tokens", careful)
    arms = [f"{form}_128" for form in protocol.FORMS]
    same = {"length": 512, "count": 16, "seed": 900}
    found = protocol.answers(None, axis=axis, level=level, arms=arms, **same)
    exact = {row["arm"].split("_")[0]: row["exact"] for row in found}
    assert all(exact[form] >= 0.9 for form in finds), exact
    assert all(exact[form] <= 0.75 for form in misses), exact


def test_an_arm_or_a_form_that_is_not_known_is_named(params: QuestionAnswering) -> None:
    (laid,) = protocol.tested("words", 2, length=512, count=1, seed=900)
    with pytest.raises(ValueError, match="form = thrice: expected one of bm25, neighbours"):
        laid.reading("thrice_64")


@pytest.mark.parametrize("axis", LEVELS)
def test_retrieval_fills_no_more_than_its_window(axis: str, params: QuestionAnswering) -> None:
    for laid in protocol.tested(axis, LEVELS[axis], length=512, count=6, seed=900):
        first = laid.puzzle.asked
        for form in protocol.FORMS:
            for window in (64, 128):
                ids = laid.reading(f"{form}_{window}")(first)
                share = len(laid.puzzle.chain) if form == "stepwise" else 1
                assert 1 <= len(ids) <= window // share
        whole, told, evidence = (
            len(laid.reading(arm)(first)) for arm in ("whole", "told", "evidence")
        )
        assert whole == 512 - protocol.TAIL and evidence < told < whole


def test_tested_puzzles_are_others_for_each_seed(params: QuestionAnswering) -> None:
    same = {"axis": "updates", "level": 3, "length": 512, "count": 5}
    first, again, other = (
        [laid.puzzle for laid in protocol.tested(**same, seed=seed)] for seed in (1, 1, 2)
    )
    assert first == again
    assert not set(first) & set(other)
    with pytest.raises(ValueError, match="number = 100000: expected one below"):
        story_reader.item(1, 100_000)


def test_far_stories_stand_at_the_beginning(params: QuestionAnswering) -> None:
    same = {"length": 1024, "count": 6, "seed": 900, "within": 0.6}
    for laid in protocol.tested("updates", 6, **same):
        before = sum(n not in laid.telling for n in range(laid.telling[-1]))
        assert before <= 0.6 * (len(laid.made) - len(laid.telling))


def test_a_step_is_asked_with_the_reader_s_own_answer(
    params: QuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, asked = story_reader.vocabulary(), []

    def says(model: object, rows: Sequence, places: Sequence) -> list[list[int]]:
        asked.extend(words.decode(row) for row in rows)
        return [[words.encode(" Fox")[0] for _ in some] for some in places]

    monkeypatch.setattr(protocol, "next_tokens", says)
    chain = (
        protocol.Step("\nWhat is Anna Archer called?", "Swan"),
        protocol.Step("\nWhere is {subject}? In the", "mill"),
    )
    assert protocol.chain_answers(None, [lambda question: [2]], [chain]) == [["Fox", "Fox"]]
    assert asked[-1].endswith("\nWhat is Anna Archer called? Fox\nWhere is Fox? In the")


def test_what_follows_padding_or_stands_beside_a_row_changes_no_answer(
    params: QuestionAnswering,
) -> None:
    torch.manual_seed(0)
    model = build_model(story_reader.model_of(params.story_reader)).eval()
    rng = np.random.default_rng(0)
    rows = [rng.integers(4, 200, size=size).tolist() for size in (3, 40, 11, 40, 7)]
    places = [[0, len(row) - 1] for row in rows]
    alone = [
        protocol.next_tokens(model, [row], [some])[0]
        for row, some in zip(rows, places, strict=True)
    ]
    assert protocol.next_tokens(model, rows, places) == alone
    with torch.inference_mode():
        all_of_one = model(torch.tensor([rows[1]]))[0]
    assert all_of_one[[0, -1]].argmax(-1).tolist() == alone[1]


@pytest.mark.parametrize("arm", ["whole", "told", "stepwise_128"])
@pytest.mark.parametrize("axis", ["updates", "hops", "counting"])
def test_reading_true_answers_first_changes_no_answer(
    axis: str, arm: str, params: QuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle in the model's place misses what was not retrieved, in either way alike."""
    laid = protocol.tested(axis, LEVELS[axis], length=512, count=8, seed=900)
    reads, chains = [one.reading(arm) for one in laid], [one.puzzle.chain for one in laid]
    monkeypatch.setattr(protocol, "next_tokens", careful)
    own = [*protocol.step_by_step(None, reads, chains)]
    assert protocol.chain_answers(None, reads, chains) == own
    if arm != "stepwise_128":
        assert own == [[step.answer for step in chain] for chain in chains]


def test_reading_a_context_once_changes_no_logit(params: QuestionAnswering) -> None:
    torch.manual_seed(0)
    model = build_model(story_reader.model_of(params.story_reader)).eval()
    asked, context = [((5, 6), (7,)), ((5, 6, 8), (9, 10))], np.arange(4, 20)
    both = story_reader.likeliest(model, context, asked)
    for (question, answer), found in zip(asked, both, strict=True):
        with torch.inference_mode():
            alone = model(torch.tensor([[*context, *question, *answer]]))[0]
        assert torch.allclose(found, alone[-len(answer) - 1 : -1], atol=1e-5)


# ---------------------------------------------------------------------------------- what is derived


def test_differences_are_paired_and_have_intervals() -> None:
    values = {"whole": (0.9, 0.8, 1.0), study.RIVAL: (0.8, 0.7, 0.9), "told": (0.9, 0.9, 0.9)}
    same = {"metric": "exact", "steps": "written", "recipe": "long", "axis": "hops", "level": 2}
    table = pd.DataFrame(
        [
            same | {"arm": arm, "seed": seed, "value": value}
            for arm, many in values.items()
            for seed, value in enumerate(many)
        ]
    )
    (row,) = study.differences(table).to_dict("records")
    assert row["difference"] == pytest.approx(10) and row["low"] == pytest.approx(10)
    assert (row["whole"], row[study.RIVAL], row["told"]) == pytest.approx((0.9, 0.8, 0.9))
    table.loc[0, "value"] = 1.0
    (moved,) = study.differences(table).to_dict("records")
    assert moved["low"] < 10 < moved["high"]


def found_rows(axis: str, differences: Sequence[float], told: float = 0.9) -> pd.DataFrame:
    """Return what `differences` gives for an axis, with intervals of ±3 points."""
    same = {"axis": axis, "told": told, "whole": 0.9, study.RIVAL: 0.8}
    return pd.DataFrame(
        [
            same | {"level": level, "difference": x, "low": x - 3, "high": x + 3}
            for level, x in enumerate(differences)
        ]
    )


@pytest.mark.parametrize(
    ("differences", "told", "says"),
    [
        ([0, 9, 9], 0.9, "read everything from 1 on"),
        ([0, 9, 4], 0.9, "retrieval is enough"),
        ([0, 2, 9], 0.9, "read everything from 2 on"),
        ([0, -1, -9], 0.9, "retrieval is enough, and better"),
        ([0, 9, 9], 0.5, "this reader cannot do it"),
    ],
)
def test_advice_follows_the_differences(differences: list[float], told: float, says: str) -> None:
    assert study.advice(found_rows("hops", differences, told)).loc["hops", "advice"] == says


def test_strips_show_what_is_read(params: QuestionAnswering) -> None:
    (laid,) = protocol.tested("words", 2, length=512, count=1, seed=900)
    strips = study.strips_of(laid, {"whole": "all", "evidence": "needed", "bm25_64": "found"})
    assert sum(tokens for _, tokens, _ in strips["all"]) == sum(map(len, laid.made))
    assert {kind for _, _, kind in strips["needed"]} == {"evidence"}
    assert len(strips["needed"]) == len(laid.puzzle.evidence)
    assert set(strips["found"]) < set(strips["all"])


def test_figures_draw_every_axis_and_recipe(smoke: pd.DataFrame, params: QuestionAnswering) -> None:
    exact = smoke[(smoke["metric"] == "exact") & (smoke["steps"] == "written")]
    exact = exact.assign(run="published")
    axes = exact[exact["axis"] != study.FAR]
    figure = figures.axes(axes, {axis: study.chance(axis) for axis in figures.AXES})
    titles = [panel.get_title() for panel in figure.axes if panel.axison]
    assert titles == list(figures.AXES) == [*params.levels, study.LENGTH]
    figure = figures.differences(study.differences(smoke), study.ENOUGH)
    levels = sum(map(len, params.levels.values())) + len(params.lengths)
    assert len(figure.axes[0].get_yticks()) == levels
    figure = figures.recipes(exact[exact["axis"] == study.FAR])
    assert len(figure.axes[0].get_lines()) >= len(recipes.RECIPES)


def test_the_rival_is_the_form_that_was_chosen(
    smoke: pd.DataFrame, params: QuestionAnswering
) -> None:
    for axis, form in params.rivals.items():
        rows = smoke[(smoke["axis"] == axis) & (smoke["steps"] == "written")]
        keys = ["level", "seed", "metric"]
        rival, named = (
            rows[rows["arm"] == arm].set_index(keys)["value"] for arm in (study.RIVAL, form)
        )
        assert len(rival) and rival.equals(named)


@pytest.mark.parametrize("profile", ["laptop", "gpu"])
def test_every_axis_has_a_rival_that_is_an_arm(
    root: Path, profile: str, params: QuestionAnswering
) -> None:
    section = params_of(root, profile).question_answering
    assert set(section.rivals) == {*section.levels, study.LENGTH}
    assert set(section.rivals.values()) <= set(study.arms_of(section))
    assert set(section.levels) == set(section.trained_levels)


def test_a_stretch_has_its_questions_and_its_controls(params: QuestionAnswering) -> None:
    words = story_reader.vocabulary()
    made = real.stretch("plays", 0, 300, 4, words.encode, (2,))
    assert 2 <= len(made.queries) <= 4
    for arm in real.ARMS:
        read = real._read(arm, made, 100, words.decode)
        assert sum(len(sample.queries) for sample in read) == len(made.queries)
        most = 100 if arm in ("window", "retrieved") else 300
        assert all(len(sample.context) <= most for sample in read)
    with pytest.raises(ValueError, match="expected 100 with two values"):
        real.stretch("plays", 99, 300, 4, words.encode, (2,))
