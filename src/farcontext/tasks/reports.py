"""Reports of stories, and statements that may abstain.

A report says where everybody is, who has each thing, and where that person is. Of a chunk it says
what the chunk tells, so what only two chunks together tell is missing there.

    story ──> chunks ──> a report each ──> merged: the last line about a subject wins
                                                └──> joined: a thing is where its holder is

A statement is about somebody or something that a brief names. Where the text that was read does not
tell, it says so: "Anna Baker is somewhere.", "The lamp is with somebody."

R rows, T tokens in a row, as (tokens, scored), (R, T) each.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from farcontext.tasks.events import THINGS, Event, Fact
from farcontext.tasks.sample import Ids
from farcontext.tasks.storybook import CAST, END, STATEMENTS, SUMMARY, Vocabulary, laid
from farcontext.tasks.world import NAME, Split, Story, full_names, simulate, state

Task = Literal["whole", "chunk", "statements"]
TASKS: tuple[Task, ...] = get_args(Task)
Part = tuple[str, bool]  # A text, and whether it is scored.
Line = tuple[Fact, ...]  # What one sentence of a report states about its subject.

ONE_SENTENCE, TWO_SENTENCES = ("place", "holder"), ("thing_place",)  # What tells such a fact.
SAID = re.compile(
    rf"(?P<who>{NAME}) is in the (?P<place>\w+)\."
    rf"|The (?P<thing>\w+) is with (?P<holder>{NAME})(?:, in the (?P<there>\w+))?\."
)
WHOLE_SHARE = 0.25  # Of the rows with statements so many tell a whole story, others a part of it.


# ------------------------------------------------------------------------------------------ reports


def report(events: Sequence[Event]) -> list[Line]:
    """Return the lines of a report on some events.

    People come first, then things, each by name. A thing's place is left out where these events do
    not tell it.
    """
    known = sorted(state(events), key=lambda fact: fact.subject)
    there = {fact.subject: fact for fact in known if fact.kind == "thing_place"}
    people = [(fact,) for fact in known if fact.kind == "place"]
    things = [(fact,) for fact in known if fact.kind == "holder"]
    return people + [
        (*line, there[line[0].subject]) if line[0].subject in there else line for line in things
    ]


def worded(line: Line) -> str:
    """Return a line's sentence, with the space before it."""
    first, *more = line
    return first.sentence if not more else f"{first.sentence[:-1]}, in the {more[0].value}."


def lines_in(text: str) -> list[Line]:
    """Return the lines that a text states as `worded` does, in order."""
    found = []
    for said in SAID.finditer(text):
        if said["who"]:
            found.append((Fact("place", said["who"], said["place"]),))
            continue
        line = (Fact("holder", said["thing"], said["holder"]),)
        there = (Fact("thing_place", said["thing"], said["there"]),) if said["there"] else ()
        found.append(line + there)
    return found


def merged(parts: Iterable[Sequence[Line]]) -> list[Line]:
    """Return reports of parts as one; a subject's last line wins."""
    last = {line[0].subject: line for part in parts for line in part}
    return sorted(last.values(), key=lambda line: (line[0].kind != "place", line[0].subject))


def joined(lines: Iterable[Line]) -> list[Line]:
    """Return lines with each thing where its holder is."""
    known = list(lines)
    where = {line[0].subject: line[0].value for line in known if line[0].kind == "place"}
    return [
        (line[0], Fact("thing_place", line[0].subject, where[line[0].value]))
        if line[0].kind == "holder" and line[0].value in where
        else line
        for line in known
    ]


def facts_of(lines: Iterable[Line], kinds: Sequence[str]) -> set[Fact]:
    """Return the facts of some kinds that lines state."""
    return {fact for line in lines for fact in line if fact.kind in kinds}


# --------------------------------------------------------------------------------------- statements


class Slot(NamedTuple):
    """A statement to be made.

    It has a beginning, and goes on to abstain or to state a value.
    """

    begin: str
    abstains: str
    states: str

    @classmethod
    def about(cls, subject: str) -> "Slot":
        """Return the statement about a person or a thing."""
        if subject in THINGS:
            return cls(f" The {subject} is with", " somebody.", "")
        return cls(f" {subject} is", " somewhere.", " in the")

    def after(self, value: str | None) -> str:
        """Return how the statement goes on, with a value or without."""
        return self.abstains if value is None else f"{self.states} {value}."


def cast_of(story: Story, rng: np.random.Generator, split: Split) -> list[str]:
    """Return whom and what to write about, in random order.

    They are the story's people and things, and a person and a thing of which it tells nothing.
    """
    firsts = {name.split()[0] for name in story.people}
    people = [f"{first} {family}" for first, family in full_names(split) if first not in firsts]
    things = [thing for thing in THINGS if thing not in story.things]
    strangers = [some[rng.integers(len(some))] for some in (people, things)]
    cast = [*story.people, *story.things, *strangers]
    return [cast[number] for number in rng.permutation(len(cast))]


def brief(cast: Sequence[str]) -> str:
    """Return the line that names whom to write about.

    What the statements begin with stands behind it.
    """
    named = [f"the {subject}" if subject in THINGS else subject for subject in cast]
    return f"{CAST} {', '.join(named)}.{STATEMENTS}"


def values_of(events: Sequence[Event]) -> dict[str, str]:
    """Return each subject's value: a place, or who has it."""
    return {fact.subject: fact.value for fact in state(events) if fact.kind in ONE_SENTENCE}


# --------------------------------------------------------------------------------------------- rows


def rows(
    rng: np.random.Generator,
    count: int,
    *,
    length: int,
    vocabulary: Vocabulary,
    filler: Sequence[Ids],
    task: Task,
    bos: Sequence[int],
    people: int,
    things: int,
    changes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows from which a writer learns one task.

    whole: a story and its report. chunk: some of its sentences in a row, and a report of these.
    statements: a story or some of its sentences in a row, a brief, and a statement about everybody
    and everything named.

    Args:
        length: T.
        filler: a prose's sentences (`storybook.sentences_of`).
        people, things: in every story.
        changes: the most there are.

    Raises:
        ValueError: a story with what follows it does not fit.
    """
    tokens, scored = np.empty((count, length), np.int64), np.zeros((count, length), bool)
    sizes = {"people": people, "things": things, "split": "train"}
    for number in range(count):
        story = simulate(rng, changes=int(rng.integers(changes + 1)), **sizes)
        pieces, following = _example(rng, story, task)
        told = [vocabulary.encode(piece) for piece in pieces]
        parts = [(vocabulary.encode(text), mark) for text, mark in following]
        tail = [token for ids, _ in parts for token in ids]
        context = laid(rng, told, filler, length - len(tail) - len(bos))
        tokens[number] = [*bos, *context, *tail]
        scored[number, length - len(tail) :] = [mark for ids, mark in parts for _ in ids]
    return tokens, scored


def _example(
    rng: np.random.Generator, story: Story, task: Task
) -> tuple[Sequence[str], list[Part]]:
    """Return what a row tells, and what follows it."""
    size = len(story.events)
    match task:
        case "whole":
            return story.sentences, _reported(story.events)
        case "chunk":
            part = _run(rng, size, size // 2 + 1)
            return story.sentences[part], _reported(story.events[part])
        case "statements":
            whole = rng.random() < WHOLE_SHARE
            part = slice(0, size) if whole else _run(rng, size, size)
            return story.sentences[part], _stated(rng, story, values_of(story.events[part]))


def _reported(events: Sequence[Event]) -> list[Part]:
    return [(SUMMARY, False), *((worded(line), True) for line in report(events)), (END, True)]


def _stated(rng: np.random.Generator, story: Story, known: Mapping[str, str]) -> list[Part]:
    cast = cast_of(story, rng, "train")
    said: list[Part] = [(brief(cast), False)]
    for subject in cast:
        slot = Slot.about(subject)
        said += [(slot.begin, False), (slot.after(known.get(subject)), True)]
    return said


def _run(rng: np.random.Generator, size: int, most: int) -> slice:
    """Return some neighbours of `size` sentences: none, or up to `most`."""
    count = int(rng.integers(most + 1))
    start = int(rng.integers(size - count + 1))
    return slice(start, start + count)
