"""puzzles.py: each level is as hard as it says, and nothing but the evidence tells."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from toys import BYTES, FILLER

from farcontext.tasks import events, puzzle_text, puzzles, world
from farcontext.tasks.puzzles import AXES, Puzzle
from farcontext.tasks.storybook import Vocabulary, sentences_of

WORDS = Vocabulary(BYTES.encode, BYTES.decode, 256)
PROSE = [ids for ids in sentences_of(FILLER[:40_000], WORDS.encode) if len(ids) <= 60]
LEVELS = {
    "updates": (0, 3, 12),
    "mentions": (0, 4, 16),
    "namesakes": (0, 1, 6),
    "words": (0, 1, 2),
    "pronouns": (0, 1, 4),
    "counting": (1, 4, 12),
    "hops": (1, 2, 3),
}
CELLS = [(axis, level) for axis, some in LEVELS.items() for level in some]
MANY = 1500  # puzzles of a leak check


def puzzle(axis: str, level: int, seed: int, split: str = "test") -> Puzzle:
    return AXES[axis](np.random.default_rng(seed), level, split)


def text(
    made: Puzzle, *, without: tuple[int, ...] = (), only: tuple[int, ...] | None = None
) -> str:
    kept = range(len(made.tellings)) if only is None else only
    return "".join(made.tellings[n].sentence for n in kept if n not in without)


@pytest.mark.parametrize(("axis", "level"), CELLS)
def test_the_oracle_answers_from_the_text_and_from_the_evidence_alone(
    axis: str, level: int
) -> None:
    for seed in range(30):
        made = puzzle(axis, level, seed)
        assert puzzle_text.answers(text(made), made.chain) == [x.answer for x in made.chain]
        assert made.right(puzzle_text.answers(text(made), made.chain))
        assert made.right(puzzle_text.answers(text(made, only=made.evidence), made.chain))
        for fact in made.facts:
            if not fact.question.startswith("\nWhere is the "):
                assert puzzle_text.answer(text(made), (fact,)) == fact.answer


@pytest.mark.parametrize(("axis", "level"), CELLS)
def test_each_sentence_of_the_evidence_is_needed(axis: str, level: int) -> None:
    for seed in range(30):
        made = puzzle(axis, level, seed)
        needed = made.evidence
        if axis == "pronouns" and level == 0:
            needed = needed[
                1:
            ]  # Where the telling has the name, the mention before it says no more.
        for number in needed:
            left = text(made, without=(number,))
            assert not made.right(puzzle_text.answers(left, made.chain))


@pytest.mark.parametrize(("axis", "level"), CELLS)
def test_splits_share_no_sentence_that_names_somebody(axis: str, level: int) -> None:
    """A pronoun, a first name and an alias are words, which both splits share."""
    seen = [
        {
            told.sentence
            for seed in range(60)
            for told in puzzle(axis, level, seed, split).tellings
            if re.search(world.NAME, told.sentence)
        }
        for split in ("train", "test")
    ]
    assert not seen[0] & seen[1]
    assert seen[0] or axis == "words"


def count_of(axis: str, level: int) -> Callable[[Puzzle], int]:
    """Return the function that counts a level in a puzzle's text, by its own means."""
    if axis == "updates":
        return lambda made: len(made.tellings) - puzzles.PEOPLE - puzzles.GOODS
    if axis == "counting":
        return lambda made: text(made).count(f" the {made.counted}.")
    if axis == "hops":
        return lambda made: len(made.chain)

    def named(made: Puzzle) -> int:
        asked = re.search(world.NAME, made.chain[0].question).group()
        told = [x.sentence for x in made.tellings]
        match axis:
            case "mentions":
                return sum(asked in said for said in told) - 1
            case "namesakes":
                names = {name for said in told for name in re.findall(world.NAME, said)} - {asked}
                return sum(bool({*name.split()} & {*asked.split()}) for name in names)
            case "words":
                telling = told[made.evidence[-1]] if level < 2 else made.chain[-1].question
                return 2 - sum(word in telling for word in asked.split())
            case "pronouns":
                first, second = made.evidence
                gap = made.tellings[second].gap
                return 0 if asked in told[second] else gap + second - first

    return named


@pytest.mark.parametrize(("axis", "level"), CELLS)
def test_a_level_is_what_it_says(axis: str, level: int) -> None:
    for seed in range(30):
        made = puzzle(axis, level, seed)
        assert count_of(axis, level)(made) == level


def test_what_is_asked_for_in_one_step_has_the_same_answer() -> None:
    for seed in range(20):
        assert puzzle("hops", 1, seed).direct is None
        for level in (2, 3):
            made = puzzle("hops", level, seed)
            assert made.direct.answer == made.chain[-1].answer
            assert made.direct in made.facts


# ------------------------------------------------------------------------------------- leak checks


def guessed(axis: str, level: int, pick: Callable[[list[str]], str]) -> float:
    """Return how often a guess among the places of the other sentences is right."""
    hits = []
    for seed in range(MANY):
        made = puzzle(axis, level, seed)
        left = text(made, without=made.evidence)
        named = re.findall(rf"the ({'|'.join(events.PLACES)})\.", left)
        hits.append(pick(named or [*events.PLACES]) == made.chain[-1].answer)
    return float(np.mean(hits))


@pytest.mark.parametrize("pick", [lambda named: named[0], lambda named: named[-1]])
@pytest.mark.parametrize(
    ("axis", "level"),
    [("mentions", 4), ("namesakes", 4), ("words", 2), ("pronouns", 2), ("hops", 3)],
)
def test_without_the_evidence_a_guess_is_right_at_chance(axis: str, level: int, pick) -> None:
    chance = 1 / len(events.PLACES)
    assert abs(guessed(axis, level, pick) - chance) <= 3 * np.sqrt(chance * (1 - chance) / MANY)


def test_a_leak_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twin: half of all journeys end at the mill."""
    monkeypatch.setattr(puzzles, "PLACES", (*("mill",) * 8, *events.PLACES[:8]))
    chance = 1 / len(events.PLACES)
    found = guessed("mentions", 4, lambda named: named[0])
    assert found > chance + 3 * np.sqrt(chance * (1 - chance) / MANY)


def test_where_the_people_to_be_counted_are_says_nothing() -> None:
    """The number of other sentences is the same at every level."""
    for level in (1, 4, 12):
        made = puzzle("counting", level, 0)
        assert len(made.tellings) - len(made.evidence) == puzzles.PEOPLE


def test_what_is_counted_is_counted_among_the_answers() -> None:
    made = puzzle("counting", 4, 0)
    true = [step.answer for step in made.chain]
    assert {*re.findall(world.NAME, made.asked)} == {
        re.search(world.NAME, step.question).group() for step in made.chain
    }
    elsewhere = next(number for number, place in enumerate(true) if place != made.counted)
    assert made.right([*true[:elsewhere], "sea", *true[elsewhere + 1 :]])
    assert not made.right([*true[:elsewhere], made.counted, *true[elsewhere + 1 :]])
    assert puzzle("words", 2, 0).asked == puzzle("words", 2, 0).chain[0].question


# --------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(("axis", "level"), CELLS)
def test_a_context_has_its_length_and_its_tellings_where_it_says(axis: str, level: int) -> None:
    for seed in range(5):
        rng, made = np.random.default_rng(seed), puzzle(axis, level, seed)
        blocks, telling = puzzle_text.blocks(rng, made, WORDS.encode, PROSE, 1800, within=0.7)
        assert sum(map(len, blocks)) == 1800
        assert [WORDS.decode(blocks[n]) for n in telling] == [x.sentence for x in made.tellings]
        assert telling == sorted(telling)
        prose = len(blocks) - len(telling)
        assert sum(n not in telling for n in range(telling[-1])) <= 0.7 * prose
        for number, told in enumerate(made.tellings):
            if told.gap is not None:
                assert telling[number] - telling[number - 1] == told.gap + 1


def test_what_does_not_fit_is_named() -> None:
    made = puzzle("counting", 12, 0)
    with pytest.raises(ValueError, match="size = 60: expected at least"):
        puzzle_text.blocks(np.random.default_rng(0), made, WORDS.encode, PROSE, 60)
    far = puzzle("pronouns", 9, 0)
    with pytest.raises(ValueError, match="prose sentences: expected at least 16"):
        puzzle_text.blocks(np.random.default_rng(0), far, WORDS.encode, PROSE, 200)


def test_rows_score_true_answers_alone() -> None:
    levels = {axis: list(some[:2]) for axis, some in LEVELS.items()}
    tokens, scored = puzzle_text.rows(
        np.random.default_rng(0),
        70,
        length=900,
        vocabulary=WORDS,
        prose=PROSE,
        dealt=list(levels),
        levels=levels,
        bos=(7,),
    )
    assert tokens.shape == scored.shape == (70, 900)
    people = {" ".join(name) for name in world.full_names("train")}
    for row, marks in zip(tokens, scored, strict=True):
        told, *asked = re.split(
            r"(?=\n(?:Where is|Who has|What is|How many)\b)", WORDS.decode(row[1:])
        )
        assert {*re.findall(world.NAME, told)} <= people
        asked = [x for x in asked if "?" in x]
        assert len(asked) == 900 // puzzle_text.A_QUESTION
        answers = []
        for one in asked:
            question, answer = re.fullmatch(r"(\n.*\?(?: In the)?) (.+)", one).groups()
            answers.append(answer)
            if not question.startswith("\nWhere is the "):
                assert puzzle_text.answer(told, (puzzles.Step(question, ""),)) == answer
        assert WORDS.decode(row[marks]).strip() == " ".join(answers)
