"""Puzzles as text: laid between a prose's sentences, and read back.

`rows` are for training, `blocks` for tests, and `answer` is the oracle, which reads the text alone.
R rows, T tokens in a row, as (tokens, scored), (R, T) each.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from farcontext.tasks import events, world
from farcontext.tasks.events import ALIASES, PRONOUNS
from farcontext.tasks.puzzles import AXES, Puzzle, Step
from farcontext.tasks.sample import Encode, Ids
from farcontext.tasks.storybook import Part, Vocabulary

A_QUESTION = 30  # A training row asks a question for so many tokens that it has.
PRONOUN = "|".join([*PRONOUNS, *(word.lower() for word in PRONOUNS)])
WHO = rf"{world.NAME}|{'|'.join(world.FIRSTS)}|{'|'.join(ALIASES)}|{PRONOUN}"
TOLD = re.compile(
    rf"\b(?P<goes>{WHO}) (?:{'|'.join(events.VERBS['go'])}) the (?P<place>\w+)\."
    rf"|[Tt]he (?P<thing>\w+) (?:{'|'.join(events.VERBS['take'])}) (?P<takes>{world.NAME})\."
    rf"|{world.NAME} (?:{'|'.join(events.VERBS['give'])}) the (?P<given>\w+) to "
    rf"(?P<gets>{world.NAME})\."
    rf"|(?P<called>{world.NAME}) (?:{'|'.join(events.VERBS['call'])}) "
    rf"(?P<alias>{'|'.join(ALIASES)})\."
    rf"|(?P<named>{world.NAME}) (?:{'|'.join(events.VERBS['mention'])})\."
)
ASKED = {
    "place": re.compile(r"\nWhere is (?!the )(.+)\? In the"),
    "holder": re.compile(r"\nWho has the (\w+)\?"),
    "alias": re.compile(r"\nWhat is (.+) called\?"),
}


# ---------------------------------------------------------------------------------------- laying it


def blocks(
    rng: np.random.Generator,
    puzzle: Puzzle,
    encode: Encode,
    prose: Sequence[Ids],
    size: int,
    within: float = 1.0,
) -> tuple[list[Ids], list[int]]:
    """Return a context's sentences in order, and which tell.

    Args:
        rng: draws the prose and the places.
        puzzle: what is told.
        encode: text → ids.
        prose: sentences as ids.
        size: tokens of the context; the last prose sentence is cut.
        within: the tellings stand in this first share of the prose.

    Raises:
        ValueError: the tellings do not fit.
    """
    pieces = [tuple(encode(told.sentence)) for told in puzzle.tellings]
    room = size - sum(map(len, pieces))
    if room < 0:
        raise ValueError(f"size = {size}: expected at least {size - room}")
    start, chosen, left = int(rng.integers(len(prose))), [], room
    while left > 0:
        chosen.append(prose[start % len(prose)][:left])
        left, start = left - len(chosen[-1]), start + 1
    slots = _slots(rng, puzzle, int(within * len(chosen)))
    made, telling = [], []
    for number in range(len(chosen) + 1):
        for place in np.flatnonzero(slots == number):
            telling.append(len(made))
            made.append(pieces[place])
        made += chosen[number : number + 1]
    return made, telling


def _slots(rng: np.random.Generator, puzzle: Puzzle, last: int) -> np.ndarray:
    """Return before which prose sentence each telling stands, in ascending order."""
    gaps = [told.gap for told in puzzle.tellings]
    free = last - sum(gap or 0 for gap in gaps)
    if free < 0:
        raise ValueError(f"{last} prose sentences: expected at least {last - free}")
    starts = iter(np.sort(rng.integers(free + 1, size=gaps.count(None))))
    slots, moved = [], 0
    for gap in gaps:
        moved += gap or 0
        slots.append(next(starts) + moved if gap is None else slots[-1] + gap)
    return np.array(slots)


def rows(
    rng: np.random.Generator,
    count: int,
    *,
    length: int,
    vocabulary: Vocabulary,
    prose: Sequence[Ids],
    dealt: Sequence[str],
    levels: Mapping[str, Sequence[int]],
    bos: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of training puzzles, with questions and scored answers.

    The rows are dealt to the axes in turn, and the level is drawn from those of the axis. A row has
    a question for every A_QUESTION tokens.

    Args:
        rng: draws all.
        count: R.
        length: T.
        vocabulary: the words of the world.
        prose: its sentences as ids.
        dealt: axes in the order in which rows are dealt; one may stand there twice.
        levels: axis → levels.
        bos: ids put first.
    """
    tokens, scored = np.empty((count, length), np.int64), np.zeros((count, length), bool)
    for number in range(count):
        axis = dealt[number % len(dealt)]
        level = levels[axis][rng.integers(len(levels[axis]))]
        puzzle = AXES[axis](rng, level, "train")
        parts = _asked(rng, puzzle, vocabulary.encode, length // A_QUESTION)
        tail = [token for ids, _ in parts for token in ids]
        made, _ = blocks(rng, puzzle, vocabulary.encode, prose, length - len(tail) - len(bos))
        tokens[number] = [*bos, *(token for block in made for token in block), *tail]
        scored[number, length - len(tail) :] = [mark for ids, mark in parts for _ in ids]
    return tokens, scored


def _asked(rng: np.random.Generator, puzzle: Puzzle, encode: Encode, count: int) -> list[Part]:
    """Return questions drawn with replacement, each kind as often, and scored answers."""
    kinds: dict[tuple[str, bool], list[Step]] = {}
    for fact in puzzle.facts:
        first, _, third, *_ = fact.question.split()
        kinds.setdefault((first, third == "the"), []).append(fact)
    parts = []
    for number in rng.integers(len(kinds), size=count):
        some = list(kinds.values())[number]
        question, answer = some[rng.integers(len(some))]
        parts += [(encode(question), False), (encode(f" {answer}"), True)]
    return parts


# --------------------------------------------------------------------------------------- reading it


def answer(text: str, chain: Sequence[Step]) -> str:
    """Return a text's answer to a chain of questions; empty if none."""
    return answers(text, chain)[-1]


def answers(text: str, chain: Sequence[Step]) -> list[str]:
    """Return a text's answer to each step of a chain.

    It is empty if there is none.
    """
    known, found = known_from(text), [""]
    for step in chain:
        question = step.question.replace("{subject}", found[-1])
        asked = [(kind, form.fullmatch(question)) for kind, form in ASKED.items()]
        found.append(next((_of(known[kind], said[1]) for kind, said in asked if said), ""))
    return found[1:]


def _of(known: dict[str, str], subject: str) -> str:
    """Return what is known of a whole or a first name."""
    return known.get(subject) or known.get(subject.split(maxsplit=1)[0], "")


def known_from(text: str) -> dict[str, dict[str, str]]:
    """Return what a text tells, as kind → subject → answer."""
    known: dict[str, dict[str, str]] = {kind: {} for kind in ASKED}
    last = ""
    for said in TOLD.finditer(text):
        if who := said["goes"]:
            known["place"][last if who in PRONOUN.split("|") else who] = said["place"]
        elif thing := said["thing"] or said["given"]:
            known["holder"][thing] = said["takes"] or said["gets"]
        elif who := said["called"]:
            known["alias"][who] = said["alias"]
        last = said["named"] or last
    return known
