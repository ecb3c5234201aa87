"""storybook.py makes every row a whole story in prose.

Something follows the story, and what is scored is true.
"""

import re

import numpy as np
import pytest
from toys import BYTES, FILLER

from farcontext.tasks import events, storybook, world
from farcontext.tasks.events import Fact
from farcontext.tasks.storybook import STATEMENTS, Vocabulary, rows, sentences_of
from farcontext.tasks.world import facts_in, read, state

WORDS = Vocabulary(BYTES.encode, BYTES.decode, 256)
SENTENCES = sentences_of(FILLER[:20_000], WORDS.encode)
SIZES = {"people": 4, "things": 2, "changes": 2}


def made(tail: str, count: int = 60, **options) -> tuple[list[str], list[str]]:
    """Return the text of rows, and of their scored tokens alone."""
    same = {"length": 900, "vocabulary": WORDS, "filler": SENTENCES, "bos": (7,)} | SIZES
    tokens, scored = rows(np.random.default_rng(0), count, tails=(tail,), **same | options)
    assert tokens.shape == scored.shape == (count, options.get("length", 900))
    assert (tokens[:, 0] == 7).all()
    return [WORDS.decode(row[1:]) for row in tokens], [
        WORDS.decode(row[marks]) for row, marks in zip(tokens, scored, strict=True)
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_word_of_the_world_is_one_id_and_prose_is_the_tokenizers(split: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        story = world.simulate(rng, people=8, things=5, changes=4, split=split)
        facts = state(story.events)
        for text in (
            *story.sentences,
            *(text for fact in facts for text in (fact.sentence, fact.question)),
        ):
            ids = WORDS.encode(text)
            assert min(ids) >= 256
            assert len(ids) == len(re.findall(r"\w+|[^\w\s]", text))
            assert WORDS.decode(ids) == text
    text = FILLER[:3000] + "\n\n  Ωmega, Anna Baker's"
    assert WORDS.decode(WORDS.encode(text)) == text
    assert min(WORDS.encode(text)) < 256


def test_ids_are_counted_without_a_gap() -> None:
    assert sorted(WORDS.ids.values()) == [*range(256, WORDS.size)]


def asked(text: str) -> list[Fact]:
    """Return what a row's questions and answers state."""
    found = []
    for kind, form in events.QUESTIONS.items():
        pattern = re.escape(form).replace(r"\{subject\}", r"([\w ]+?)") + r" (\w+(?: [A-Z]\w+)?)"
        found += [Fact(kind, *m.groups()) for m in re.finditer(pattern, text)]
    return found


def test_answers_alone_are_scored_and_each_is_what_the_story_says() -> None:
    for text, scored in zip(*made("questions"), strict=True):
        context, _, _ = text.partition("\nWh")
        true = [fact for fact in state(read(context)) if fact.kind != "thing_place"]
        facts = asked(text[len(context) :])
        assert len(true) == text.count("\nWh")
        assert facts and set(facts) <= set(true)
        assert sorted(scored.split()) == sorted(" ".join(fact.value for fact in facts).split())


@pytest.mark.parametrize("tail", ["questions", "cloze"])
def test_where_a_thing_is_is_not_among_what_is_drawn(tail: str) -> None:
    for text in made(tail)[0]:
        assert "Where is the" not in text
        assert not any(fact.kind == "thing_place" for fact in facts_in(text))


def test_of_a_cloze_the_values_alone_are_scored() -> None:
    for text, scored in zip(*made("cloze"), strict=True):
        _, _, after = text.partition(STATEMENTS)
        assert scored == "".join(f" {fact.value}" for fact in facts_in(after))


def test_evidence_stands_anywhere_and_the_tails_take_turns() -> None:
    texts, _ = made("cloze", count=300)
    places = np.array(
        [m.start() / len(text) for text in texts for m in world.TOLD["go"].finditer(text)]
    )
    assert (np.histogram(places, bins=5, range=(0, 0.75))[0] > 0.05 * len(places)).all()
    tokens, _ = rows(
        np.random.default_rng(1),
        6,
        length=900,
        vocabulary=WORDS,
        filler=SENTENCES,
        tails=("questions", "cloze"),
        bos=(),
        **SIZES,
    )
    cues = [[cue for cue in ("\nWh", STATEMENTS) if cue in WORDS.decode(row)] for row in tokens]
    assert cues == [["\nWh"], [STATEMENTS]] * 3


def test_rows_are_of_their_split_and_of_their_seed() -> None:
    known = {f"{first} {family}" for first, family in world.full_names("train")}
    texts, _ = made("cloze")
    assert {event.who for text in texts for event in read(text)} <= known
    assert made("cloze") == made("cloze")


def test_a_row_that_is_too_short_says_what_would_do() -> None:
    with pytest.raises(ValueError, match="expected at least"):
        made("cloze", length=60)


def test_the_facts_stand_in_the_order_in_which_they_came_to_be() -> None:
    story = world.Story(
        ("Anna Baker", "Boris Carter"),
        ("lamp",),
        (
            events.Event("go", "Boris Carter", "mill"),
            events.Event("take", "Boris Carter", "lamp"),
            events.Event("go", "Anna Baker", "tower"),
            events.Event("go", "Boris Carter", "garden"),
        ),
        (),
    )
    assert [(fact.kind, fact.value) for fact in storybook.in_order(story)] == [
        ("holder", "Boris Carter"),
        ("place", "tower"),
        ("place", "garden"),
        ("thing_place", "garden"),
    ]
