"""The story world tells what is so.

Splits share no person or wording, and nothing but the evidence tells.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from toys import BYTES, CASES, FILLER, word_toy

from farcontext.tasks import events, world
from farcontext.tasks.events import Event, Fact
from farcontext.tasks.sample import Sample, closed_book, evidence_removed
from farcontext.tasks.world import Story

CASE = CASES["story"]
STORIES = 1500  # of a leak check


def story(seed: int, **options) -> Story:
    return world.simulate(np.random.default_rng(seed), **{"people": 4, "things": 3} | options)


def stories(**options) -> list[Story]:
    return [story(seed, **options) for seed in range(60)]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("changes", [0, 5])
def test_what_is_told_is_read_back(split: str, changes: int) -> None:
    for made in stories(split=split, changes=changes):
        assert world.read(f"Once. {''.join(made.sentences)} The end.") == list(made.events)
        assert len(made.events) == len(made.people) + len(made.things) + changes


def test_the_state_is_that_of_a_literal_replay() -> None:
    """Twin of `state`: whereabouts and possessions moved one event at a time."""
    for made in stories(changes=6):
        places, holders = {}, {}
        for event in made.events:
            if event.kind == "go":
                assert places.get(event.who) != event.what  # somewhere else than now
                places[event.who] = event.what
            elif event.kind == "take":
                assert event.what not in holders
                holders[event.what] = event.who
            else:
                assert holders[event.what] == event.who != event.to
                holders[event.what] = event.to
        facts = world.state(made.events)
        assert {f.subject: f.value for f in facts if f.kind == "place"} == places
        assert {f.subject: f.value for f in facts if f.kind == "holder"} == holders
        assert {f.subject: f.value for f in facts if f.kind == "thing_place"} == {
            thing: places[who] for thing, who in holders.items()
        }


def test_the_evidence_is_enough_and_each_part_is_needed() -> None:
    for made in stories(changes=3):
        for fact, evidence in world.state(made.events).items():
            told = [made.events[i] for i in evidence]
            assert fact in world.state(told)
            assert len(evidence) == (2 if fact.kind == "thing_place" else 1)
            for left_out in range(len(told)):
                assert fact not in world.state(told[:left_out] + told[left_out + 1 :])


def test_facts_are_said_and_read_back_and_contradicted() -> None:
    for made in stories(changes=2):
        true = list(world.state(made.events))
        text = "".join(fact.sentence for fact in true)
        assert world.facts_in(f"So: {text} Good.") == true
        assert world.contradictions(true, true) == []
        wrong = [fact._replace(value="moon") for fact in true]
        assert world.contradictions(wrong, true) == wrong
        assert world.contradictions([Fact("holder", "moon", "Nobody Known")], true) == []


def test_splits_share_every_word_but_no_person_and_no_wording() -> None:
    train, test = (set(world.full_names(split)) for split in ("train", "test"))
    assert not train & test and len(test) * world.HELD_OUT == len(train | test)
    assert (
        {first for first, _ in train} == {first for first, _ in test} == {*world.WOMEN, *world.MEN}
    )
    assert {family for _, family in train} == {family for _, family in test} == {*world.FAMILIES}
    for kind in events.VERBS:
        train, test = (set(world.wordings(split, kind)) for split in ("train", "test"))
        assert not train & test and {v for _, v in train} == {v for _, v in test} == {
            *events.VERBS[kind]
        }
    seen = [
        {sentence for made in stories(split=split) for sentence in made.sentences}
        for split in ("train", "test")
    ]
    assert not seen[0] & seen[1]


def test_days_go_forward_and_no_two_share_a_first_name() -> None:
    for made in stories(people=10, changes=10):
        days = [events.DAYS.index(s.split()[1]) for s in made.sentences if s.startswith(" On ")]
        assert days == sorted(days)
        assert len({name.split()[0] for name in made.people}) == 10


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_a_story_stands_together_where_it_is_asked_to(depth: float) -> None:
    made = CASE.sample(word_toy(), 1024, depth=depth)
    spans = sorted({span for query in made.queries for span in query.evidence})
    assert all(end == start for (_, end), (start, _) in pairwise(spans))
    room = len(made.context) - (spans[-1][1] - spans[0][0])
    assert spans[0][0] == pytest.approx(depth * room, abs=0.03 * room)


def test_the_story_is_the_same_at_every_length_and_depth() -> None:
    toy = word_toy()
    asked = {
        tuple(
            (toy.decode(q.question), toy.decode(q.answer))
            for q in CASE.sample(toy, length, depth=depth).queries
        )
        for length in (256, 1024)
        for depth in (None, 0.0, 1.0)
    }
    assert len(asked) == 1


@pytest.mark.parametrize("hidden", [closed_book, evidence_removed])
def test_without_its_evidence_the_oracle_knows_nothing(hidden: Callable[[Sample], Sample]) -> None:
    toy = word_toy()
    for seed in range(20):
        assert not any(CASE.oracle(hidden(CASE.sample(toy, 512, seed=seed)), toy))


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(
        ValueError, match="people = 0, things = 1: expected 1 to 16 people, at most 16 things"
    ):
        story(0, people=0, things=1)
    with pytest.raises(ValueError, match="people = 1, changes = 1: expected at least 2 people"):
        story(0, people=1, things=1, changes=1)


# -------------------------------------------------------------------------------------- leak checks

# what is asked, its story, and what is told but for the evidence
Guess = Callable[[Fact, Story, list[Event]], str]


def asked(made: Story, kind: str) -> tuple[Fact, list[Event]]:
    """Return a story's first fact of a kind, and the events that are no evidence for it."""
    fact, evidence = next(
        (fact, at) for fact, at in world.state(made.events).items() if fact.kind == kind
    )
    return fact, [event for number, event in enumerate(made.events) if number not in evidence]


def habit(kind: str) -> Guess:
    """Return the guess of what was most often right in training stories.

    It is right for this subject if that was seen, else at all.
    """
    learned: dict[str, Counter] = {}
    for seed in range(STORIES):
        fact, _ = asked(story((1, seed), split="train"), kind)
        for subject in (fact.subject, ""):
            learned.setdefault(subject, Counter())[fact.value] += 1
    return lambda fact, made, _: learned.get(fact.subject, learned[""]).most_common(1)[0][0]


def among(pick: Callable[[Sequence[str]], str]) -> Guess:
    """Return a guess among the values that the other events name.

    It is among all values if they name none.
    """

    def guess(fact: Fact, made: Story, rest: list[Event]) -> str:
        named = (
            [e.what for e in rest if e.kind == "go"]
            if fact.kind != "holder"
            else [e.who for e in rest]
        )
        return pick(named or [*world.PLACES])

    return guess


GUESSES: dict[str, Callable[[str], Guess]] = {
    "question only": habit,
    "last named": lambda kind: among(lambda named: named[-1]),
    "first named": lambda kind: among(lambda named: named[0]),
    "most often named": lambda kind: among(lambda named: Counter(named).most_common(1)[0][0]),
    "least often named": lambda kind: among(lambda named: Counter(named).most_common()[-1][0]),
}


def score(guess: Guess, kind: str) -> tuple[float, float]:
    """Return the share of right guesses in test stories, and chance."""
    made = [story((2, seed)) for seed in range(STORIES)]
    right = [
        guess(fact, one, rest) == fact.value for one in made for fact, rest in [asked(one, kind)]
    ]
    named_people = kind == "holder"
    return float(np.mean(right)), 1 / len(made[0].people) if named_people else 1 / len(world.PLACES)


@pytest.mark.parametrize("kind", ["place", "holder", "thing_place"])
@pytest.mark.parametrize("name", GUESSES)
def test_without_the_evidence_a_guess_is_right_at_chance(name: str, kind: str) -> None:
    found, chance = score(GUESSES[name](kind), kind)
    if (name, kind) == ("question only", "holder"):
        chance = 0.0  # nobody of a training story is in a test story
    assert abs(found - chance) <= 3 * np.sqrt(chance * (1 - chance) / STORIES), (
        f"{found:.3f}, chance {chance:.3f}"
    )


@pytest.mark.parametrize(
    ("name", "places"), [("question only", ("mill",) * 8), ("last named", ("mill",) * 8)]
)
def test_a_leak_would_be_seen(
    name: str, places: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twin: half of all journeys end at the mill."""
    monkeypatch.setattr(world, "PLACES", (*places, *world.PLACES[:8]))
    found, chance = score(GUESSES[name]("place"), "place")
    assert found > chance + 3 * np.sqrt(chance * (1 - chance) / STORIES)


def test_a_story_is_the_one_its_sample_tells() -> None:
    for seed in range(20):
        sizes = {"people": 4, "things": 2, "changes": 2}
        made = world.sample(length=900, seed=seed, encode=BYTES.encode, filler=FILLER, **sizes)
        assert (
            tuple(world.read(BYTES.decode(made.context.tolist())))
            == world.story_of(seed, **sizes).events
        )
