"""A second language, and documents that need more than one sentence.

The language is for the story world, and it is regular as Esperanto is. The last sentence of a
document cannot be translated alone: English says `it`, `you` and `bank`; the second language must
choose, and an earlier sentence tells which:

    gender      Anna Baker has the lamp.  …  Anna Baker likes it.
                Anna Baker ha la lampa.   …  Anna Baker ama la.
    formality   Anna Baker is a friend.   …  Anna Baker, do you come?
                Anna Baker esta amica.    …  Anna Baker, venas tu?
    term        It is about money.  …  Anna Baker sees the bank.
                Anna Baker vida la banka.

Each document tells of four subjects, as often of each, and the last sentence asks for one of them.
What is told of the other three *competes*: it would decide otherwise as often as not. What is told
of a subject last counts, and is the other way than what was told of it before, which is
*overruled*. In between, other sentences name the same people and tell nothing.

What counts is as often the one as the other, so whoever reads nothing of it is right in one case of
two: the contrast of a sentence is its other translation, alike but for the word that was chosen.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from farcontext.tasks.second_language import (
    ENDINGS,
    FILLERS,
    IN_MIND,
    KINDS,
    LASTS,
    OPENINGS,
    PLACES,
    STANDS,
    TELLINGS,
    TERMS,
    THINGS,
    Frame,
    Kind,
    article,
    tokens_in,
    with_article,
)
from farcontext.tasks.world import Split, full_names

SUBJECTS = 4  # One that is asked for, and three that compete.


class Sentence(NamedTuple):
    """One sentence in both languages.

    The last one has a contrast, and the index of the sentence that decides it.
    """

    source: str
    target: str
    tells: bool = False  # Of the subject asked for, or of one that competes.
    contrast: str = ""
    setter: int | None = None
    kind: Kind | None = None


def _one(rng: np.random.Generator, choices: Sequence) -> tuple:
    return choices[rng.integers(len(choices))]


def _say(frame: Frame, opening: Frame = ("", ""), **gaps: str) -> tuple[str, str]:
    """Return a filled frame in both languages, a space before it."""
    said = []
    for text, first in zip(frame, opening, strict=True):
        whole = f"{first} {text.format(**gaps)}".strip()
        said.append(f" {whole[0].upper()}{whole[1:]}")
    return said[0], said[1]


# ------------------------------------------------------------------------------------- three kinds

# Each kind says what is told of a subject, which way (0 or 1), and what asks for it then.
Say = Callable[[int, int], tuple[str, str]]


def _gender(rng: np.random.Generator, people: Sequence[str]) -> tuple[Say, Say]:
    frame = _one(rng, LASTS["gender"])

    def tell(subject: int, way: int) -> tuple[str, str]:
        alike = [thing for thing, noun in THINGS.items() if noun.endswith("ao"[way])]
        thing = _one(rng, alike)
        gaps = {"a": people[subject], "thing": thing, "noun": with_article(THINGS[thing])}
        return _say(_one(rng, TELLINGS["gender"]), _opening(rng), **gaps)

    return tell, lambda subject, way: _say(frame, a=people[subject], word=("la", "lo")[way])


def _formality(rng: np.random.Generator, people: Sequence[str]) -> tuple[Say, Say]:
    frame = _one(rng, LASTS["formality"])

    def tell(subject: int, way: int) -> tuple[str, str]:
        stand, estas = STANDS[way]
        gaps = {"a": people[subject], "stand": stand, "estas": estas}
        return _say(_one(rng, TELLINGS["formality"]), _opening(rng), **gaps)

    return tell, lambda subject, way: _say(frame, a=people[subject], word=ENDINGS[way])


def _term(rng: np.random.Generator, people: Sequence[str]) -> tuple[Say, Say]:
    """Tell of two words: by the text, and in somebody's mind."""
    frame = _one(rng, LASTS["term"])
    words = [list(TERMS)[number] for number in rng.permutation(len(TERMS))[:2]]

    def tell(subject: int, way: int) -> tuple[str, str]:
        (topic, tema), _ = TERMS[words[subject % 2]][way]
        frames = TELLINGS["term"] if subject in ASKED["term"] else IN_MIND
        gaps = {"a": people[subject], "topic": topic, "tema": tema}
        return _say(_one(rng, frames), _opening(rng), **gaps)

    def ask(subject: int, way: int) -> tuple[str, str]:
        word = words[subject]
        gaps = {"term": word, "word": with_article(TERMS[word][way][1])}
        return _say(frame, a=people[subject], **gaps)

    return tell, ask


CHOICES = {"gender": _gender, "formality": _formality, "term": _term}
# These subjects can be asked for; what somebody has in mind decides nothing.
ASKED: dict[Kind, tuple[int, ...]] = {
    "gender": (0, 1, 2, 3),
    "formality": (0, 1, 2, 3),
    "term": (0, 1),
}


def _opening(rng: np.random.Generator) -> Frame:
    return _one(rng, list(OPENINGS.items()))


def _filler(rng: np.random.Generator, people: Sequence[str]) -> Sentence:
    a, b = (people[number] for number in rng.permutation(len(people))[:2])
    place, name = _one(rng, list(PLACES.items()))
    gaps = {"a": a, "b": b, "place": place, "loco": with_article(name)}
    return Sentence(*_say(_one(rng, FILLERS), _opening(rng), **gaps))


# --------------------------------------------------------------------------------------- documents


def document(
    rng: np.random.Generator,
    *,
    length: int,
    tellings: int,
    kind: Kind | None = None,
    asked: int = 1,
    split: Split = "test",
) -> list[Sentence]:
    """Return a document whose last sentence needs an earlier one.

    >>> for sentence in document(np.random.default_rng(6), length=54, tellings=4, kind="gender"):
    ...     print(f"{'tells' if sentence.tells else '':<6}{sentence.source.strip()}")
    tells Arthur Miller holds the map.
          Later Arthur Miller follows Grace Porter to the market.
          Then nobody is in the garden.
    tells Then Clara Carter keeps the key.
    tells Then Bella Mason keeps the coin.
    tells Today Grace Porter has the vase.
          Bella Mason shows it.

    Args:
        rng: draws it.
        length: tokens at most, the last sentence included.
        tellings: so many sentences tell, as many of each subject.
        kind: what must be chosen; None: any.
        asked: so many last sentences, each of another subject, as far as there are any.
        split: whose people.

    Raises:
        ValueError: the tellings do not fit, or are not as many of each subject.
    """
    if tellings < SUBJECTS or tellings % SUBJECTS:
        raise ValueError(f"tellings = {tellings}: expected a multiple of {SUBJECTS}")
    kind = kind or _one(rng, KINDS)
    people = _people(rng, split)
    tell, ask = CHOICES[kind](rng, people)
    times = tellings // SUBJECTS
    ways = _ways(rng, times)
    turns = rng.permutation(np.repeat(np.arange(SUBJECTS), times))
    told = []
    for place, subject in enumerate(turns):
        way = ways[subject, (turns[:place] == subject).sum()]
        told.append(Sentence(*tell(subject, way), tells=True))
    last = []
    for subject in ASKED[kind][:asked]:
        source, target = ask(subject, ways[subject, -1])
        _, other = ask(subject, 1 - ways[subject, -1])
        decides = int(np.flatnonzero(turns == subject)[-1])
        last.append(Sentence(source, target, False, other, decides, kind))
    room = length - sum(tokens_in(one.source) for one in (*told, *last))
    if room < 0:
        raise ValueError(f"length = {length}: expected at least {length - room}")
    before, places = _mixed(rng, told, _fillers(rng, people, room))
    lasts = [last[number] for number in rng.permutation(len(last))]
    return [*before, *(one._replace(setter=int(places[one.setter])) for one in lasts)]


def _ways(rng: np.random.Generator, times: int) -> np.ndarray:
    """Return which way each subject is told each time.

    The shape is (SUBJECTS, times), and a way is 0 or 1.

    They are drawn evenly, but the last is the other way than the one before: so neither the first
    nor the more frequent way is right more often than not.
    """
    ways = rng.integers(2, size=(SUBJECTS, times))
    if times > 1:
        ways[:, -1] = 1 - ways[:, -2]
    return ways


def _people(rng: np.random.Generator, split: Split) -> list[str]:
    """Return people of a split, no two of whom share a name."""
    known = full_names(split)
    chosen: list[tuple[str, str]] = []
    for number in rng.permutation(len(known)):
        if not any(set(known[number]) & set(one) for one in chosen):
            chosen.append(known[number])
        if len(chosen) == SUBJECTS:
            break
    return [" ".join(name) for name in chosen]


def _fillers(rng: np.random.Generator, people: Sequence[str], room: int) -> list[Sentence]:
    """Return sentences until the next would not fit."""
    said = []
    while (room := room - tokens_in((one := _filler(rng, people)).source)) >= 0:
        said.append(one)
    return said


def _mixed(
    rng: np.random.Generator, told: Sequence[Sentence], others: Sequence[Sentence]
) -> tuple[list[Sentence], np.ndarray]:
    """Return all sentences mixed, and where those told stand."""
    places = np.sort(rng.permutation(len(told) + len(others))[: len(told)])
    both = iter(told), iter(others)
    here = set(places.tolist())
    return [next(both[number not in here]) for number in range(len(told) + len(others))], places


# ------------------------------------------------------------------------------------------- oracle


def _found(frames: Sequence[Frame], text: str, **gaps: str) -> list[str]:
    """Return what fills the open gap of frames in a text.

    It stands in the order of the text.
    """
    told = []
    for english, _ in frames:
        pattern = re.sub(r"\\{\w+\\}", r"([\\w ]+?)", re.escape(_fill(english, gaps)))
        told += [(m.start(), m[1]) for m in re.finditer(pattern, text, re.IGNORECASE)]
    return [word for _, word in sorted(told)]


def _fill(text: str, gaps: dict[str, str]) -> str:
    for name, value in gaps.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def oracle(sources: Sequence[str], choices: Sequence[str]) -> str | None:
    """Return which translation of the last sentence is right.

    The oracle reads the sources alone, and returns None where nothing tells.
    """
    *before, last = sources
    known = "".join(before)
    name, rest = re.match(r" (\w+ \w+)(.*)", last).groups()
    if rest.endswith(" it."):
        told = _found(TELLINGS["gender"], known, a=name)
        wanted = told and f" {article(THINGS[told[-1]])}."
    elif rest.startswith(", do you"):
        stands = [english for english, _ in STANDS]
        told = [stand for stand in _found(TELLINGS["formality"], known, a=name) if stand in stands]
        wanted = told and f"{ENDINGS[stands.index(told[-1])]}?"
    else:
        meanings = {topic[0]: noun for topic, noun in TERMS[re.search(r"(\w+)\.$", rest)[1]]}
        told = [topic for topic in _found(TELLINGS["term"], known) if topic in meanings]
        wanted = told and f" {meanings[told[-1]]}."
    return next((choice for choice in choices if wanted and choice.endswith(wanted)), None)
