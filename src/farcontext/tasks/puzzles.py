"""Puzzles of the story world: one thing at a time is hard.

    axis       level                                                   the answer needs
    updates    changes in the story                                    what came last
    mentions   sentences that name who is asked for and tell nothing   the one that tells
    namesakes  people who share half of the name                       both halves of a name
    words      words of the name that the telling leaves out (0 to 2)  "Anna", or what she is called
    pronouns   sentences from the name to what is told ("She goes …")  the sentences between
    counting   people to be counted, among others                      all of them
    hops       sentences that must be put together                     one after the other

A puzzle asks in steps: the answer of a step stands in the question of the next one, so a reader
that answers each step from one sentence can answer all (`chain`). To count, it says where each
person is, and a program counts its answers. As in `world`, places and people
are drawn independently and uniformly, and no person or wording of a test is in training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from farcontext.tasks import events, world
from farcontext.tasks.events import ALIASES, PLACES, THINGS
from farcontext.tasks.world import FIRSTS, WOMEN, Split

PEOPLE, GOODS = 4, 3  # So many people and things are in a puzzle, if its level says no more.
ALIAS = events.ALIAS_QUESTION
COUNT = "\nHow many of {people} are in the {place}?"
PLACE, HOLDER = events.QUESTIONS["place"], events.QUESTIONS["holder"]


class Step(NamedTuple):
    """A question and its answer; {subject} is the last step's answer."""

    question: str
    answer: str


class Telling(NamedTuple):
    """A sentence, with the space before it, and where it stands."""

    sentence: str
    gap: int | None = None  # So many prose sentences after the last telling; None is anywhere.


@dataclass(frozen=True)
class Puzzle:
    """Tellings in order, what they answer, and what is asked."""

    tellings: tuple[Telling, ...]
    facts: tuple[Step, ...]  # Every question of one step that the tellings answer.
    chain: tuple[Step, ...]
    evidence: tuple[int, ...]  # The tellings that the chain needs.
    direct: Step | None = None  # The same, asked in one step where it takes more.
    whole: str = ""  # The whole question, if it is more than the first step's.
    counted: str = ""  # The word to be counted among the answers, if that is what is asked.

    @property
    def asked(self) -> str:
        """What is looked up where all steps share one look-up."""
        return self.whole or self.chain[0].question

    def right(self, answers: Sequence[str]) -> bool:
        """Return whether the answers to all steps end in what is true."""
        true = [step.answer for step in self.chain]
        if self.counted:
            return [*answers].count(self.counted) == true.count(self.counted)
        return answers[-1] == true[-1]


Group = list[tuple[Telling, bool]]  # Tellings that stand together; True is evidence.


# --------------------------------------------------------------------------------- people and words


def _people(rng: np.random.Generator, split: Split, count: int) -> list[str]:
    """Return people of a split with different first names."""
    known: dict[str, list[str]] = {}
    for first, family in world.full_names(split):
        known.setdefault(first, []).append(family)
    chosen = [FIRSTS[number] for number in rng.permutation(len(FIRSTS))[:count]]
    return [f"{first} {known[first][rng.integers(len(known[first]))]}" for first in chosen]


def _drawn(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    return [words[number] for number in rng.permutation(len(words))[:count]]


def _place(rng: np.random.Generator) -> str:
    return PLACES[rng.integers(len(PLACES))]


def _said(rng: np.random.Generator, split: Split, kind: str, **parts: str) -> str:
    """Return a sentence in a wording of the split."""
    choices = world.wordings(split, kind)
    opening, verb = choices[rng.integers(len(choices))]
    said = events.TELLINGS[kind].format(verb=verb, **parts)
    opening = opening.format(day=events.DAYS[rng.integers(len(events.DAYS))])
    if opening and parts.get("who") in events.PRONOUNS:
        said = said[0].lower() + said[1:]
    return f" {opening}{said if opening else said[0].upper() + said[1:]}"


def _group(*sentences: str, gap: int | None = None, evidence: bool = False) -> Group:
    """Return sentences that stand together, all evidence or none."""
    gaps = (None, *(gap for _ in sentences[1:]))
    return [(Telling(*pair), evidence) for pair in zip(sentences, gaps, strict=True)]


def _mixed(
    rng: np.random.Generator, groups: list[Group], facts: list[Step], *chain: Step
) -> Puzzle:
    """Return the puzzle whose groups stand in random order."""
    order = [one for number in rng.permutation(len(groups)) for one in groups[number]]
    needed = tuple(number for number, (_, needs) in enumerate(order) if needs)
    return Puzzle(tuple(told for told, _ in order), tuple(facts), chain, needed)


def _going(rng: np.random.Generator, split: Split, names: Sequence[str]) -> tuple[list, list[Step]]:
    """Return a group and a fact for each person who goes somewhere.

    The first one is evidence.
    """
    groups, facts = [], []
    for number, who in enumerate(names):
        place = _place(rng)
        groups.append(_group(_said(rng, split, "go", who=who, what=place), evidence=not number))
        facts.append(Step(PLACE.format(subject=who), place))
    return groups, facts


# ---------------------------------------------------------------------------------------- the axes


def updates(rng: np.random.Generator, level: int, split: Split) -> Puzzle:
    """Return a story of the world with so many changes."""
    story = world.simulate(rng, people=PEOPLE, things=GOODS, changes=level, split=split)
    known = {x: at for x, at in world.state(story.events).items() if x.kind != "thing_place"}
    facts = tuple(Step(fact.question, fact.value) for fact in known)
    asked = int(rng.integers(len(facts)))
    told = tuple(Telling(sentence) for sentence in story.sentences)
    return Puzzle(told, facts, (facts[asked],), [*known.values()][asked])


def mentions(rng: np.random.Generator, level: int, split: Split) -> Puzzle:
    """Return people, and sentences that only name the one asked for."""
    names = _people(rng, split, PEOPLE)
    groups, facts = _going(rng, split, names)
    groups += [_group(_said(rng, split, "mention", who=names[0])) for _ in range(level)]
    return _mixed(rng, groups, facts, facts[0])


def namesakes(rng: np.random.Generator, level: int, split: Split) -> Puzzle:
    """Return people of whom so many share half of a name.

    They share it with the one asked for, by turns.
    """
    asked, *more = _people(rng, split, len(FIRSTS))
    first, family = asked.split()
    names = [asked, *(who for who in more if who.split()[1] != family)][:PEOPLE]
    known = [who for who in world.full_names(split) if " ".join(who) != asked]
    alike = [
        [" ".join(who) for who in known if who[side] == word]
        for side, word in enumerate((first, family))
    ]
    alike = [_drawn(rng, some, len(some)) for some in alike]
    names += [alike[number % 2][number // 2] for number in range(level)]
    groups, facts = _going(rng, split, names)
    return _mixed(rng, groups, facts, facts[0])


def words(rng: np.random.Generator, level: int, split: Split) -> Puzzle:
    """Return people told of by name, first name or alias."""
    names = _people(rng, split, PEOPLE)
    if level < 2:
        said = [name if level == 0 else name.split()[0] for name in names]
        groups, _ = _going(rng, split, said)
        places = [group[0][0].sentence.rsplit(" ", 1)[1].rstrip(".") for group in groups]
        facts = [Step(PLACE.format(subject=name), x) for name, x in zip(names, places, strict=True)]
        return _mixed(rng, groups, facts, facts[0])
    aliases = _drawn(rng, ALIASES, PEOPLE)
    groups, facts = _going(rng, split, aliases)
    called = [Step(ALIAS.format(subject=x), y) for x, y in zip(names, aliases, strict=True)]
    for number, (who, alias) in enumerate(zip(names, aliases, strict=True)):
        said = _said(rng, split, "call", who=who, what=alias)
        groups.append(_group(said, evidence=not number))
    return _mixed(rng, groups, facts + called, called[0], Step(PLACE, facts[0].answer))


def pronouns(rng: np.random.Generator, level: int, split: Split) -> Puzzle:
    """Return people of whom two are told of by "She" and "He".

    The pronoun stands so many sentences after the name; at level 0 it is the name itself. So the
    one asked for is the only one with her pronoun, and nobody else is named in between.
    """
    everybody = _people(rng, split, len(FIRSTS))
    pair = [
        next(x for x in everybody if (x.split()[0] in WOMEN) == woman) for woman in (True, False)
    ]
    if rng.integers(2):
        pair.reverse()
    names = [*pair, *(name for name in everybody if name not in pair)][:PEOPLE]
    groups, facts = [], []
    for number, name in enumerate(names):
        place, hidden = _place(rng), level > 0 and name in pair
        who = events.PRONOUNS[name.split()[0] not in WOMEN] if hidden else name
        told = _said(rng, split, "go", who=who, what=place)
        named = _said(rng, split, "mention", who=name)
        gap = level - 1 if hidden else 0
        groups.append(_group(named, told, gap=gap, evidence=not number))
        facts.append(Step(PLACE.format(subject=name), place))
    return _mixed(rng, groups, facts[:2], facts[0])


def counting(rng: np.random.Generator, level: int, split: Split) -> Puzzle:
    """Return people who go to one place, and four who do not.

    The question names all of them in random order, and the steps ask where each one is.
    """
    names = _people(rng, split, level + PEOPLE)
    place, *elsewhere = _drawn(rng, PLACES, 3)
    whither = [place] * level + [elsewhere[rng.integers(2)] for _ in range(PEOPLE)]
    groups = [
        _group(_said(rng, split, "go", who=who, what=x), evidence=x == place)
        for who, x in zip(names, whither, strict=True)
    ]
    facts = [Step(PLACE.format(subject=who), x) for who, x in zip(names, whither, strict=True)]
    order = rng.permutation(len(names))
    whole = COUNT.format(people=", ".join(names[number] for number in order), place=place)
    made = _mixed(rng, groups, facts, *(facts[number] for number in order))
    return replace(made, whole=whole, counted=place)


def hops(rng: np.random.Generator, level: int, split: Split) -> Puzzle:
    """Return who has a thing, what they are called, and where.

    One hop asks where the person is; two leave out what the person is called.
    """
    names, things = _people(rng, split, PEOPLE), _drawn(rng, THINGS, PEOPLE)
    aliases = _drawn(rng, ALIASES, PEOPLE) if level == 3 else names
    groups, facts = _going(rng, split, aliases)
    steps = [Step(PLACE, facts[0].answer)]
    for number, (who, thing, alias) in enumerate(zip(names, things, aliases, strict=True)):
        mine = number == 0
        if level == 3:
            groups.append(_group(_said(rng, split, "call", who=who, what=alias), evidence=mine))
            facts.append(Step(ALIAS.format(subject=who), alias))
        taken = _said(rng, split, "take", what=thing, who=who)
        groups.append(_group(taken, evidence=mine and level > 1))
        facts.append(Step(HOLDER.format(subject=thing), who))
    if level == 1:
        return _mixed(rng, groups, facts, facts[0])
    if level == 3:
        steps.insert(0, Step(ALIAS, aliases[0]))
    first = Step(HOLDER.format(subject=things[0]), names[0])
    made = _mixed(rng, groups, facts, first, *steps)
    where = events.QUESTIONS["thing_place"]
    direct = [Step(where.format(subject=x), y.answer) for x, y in zip(things, facts, strict=False)]
    return replace(made, facts=(*made.facts, *direct), direct=direct[0])


AXES: dict[str, Callable[[np.random.Generator, int, Split], Puzzle]] = {
    "updates": updates,
    "mentions": mentions,
    "namesakes": namesakes,
    "words": words,
    "pronouns": pronouns,
    "counting": counting,
    "hops": hops,
}
