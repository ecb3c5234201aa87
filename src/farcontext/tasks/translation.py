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

What is told first is drawn evenly, so whoever reads nothing of it is right in one case of two: the
contrast of a sentence is its other translation, alike but for the word that was chosen.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from farcontext.tasks.world import Split, full_names

Kind = Literal["gender", "formality", "term"]
Frame = tuple[str, str]  # A sentence of both languages, with gaps in braces.

KINDS: tuple[Kind, ...] = ("gender", "formality", "term")
SUBJECTS = 4  # One that is asked for, and three that compete.
PIECE = re.compile(r" ?\w+|[^\w\s]")  # A token is a word with the space before it, or a mark.

THINGS = {  # The key is English; the ending of the second language's noun is its gender.
    **{
        "lamp": "lampa",
        "vase": "vasa",
        "cup": "tazza",
        "key": "clava",
        "rope": "corda",
        "ring": "anella",
    },
    **{
        "book": "libro",
        "hat": "cappo",
        "clock": "orologo",
        "drum": "tamburo",
        "coin": "moneto",
        "map": "mappo",
    },
}
TERMS = {  # An English word has two meanings, each (topic in both languages, noun).
    "bank": ((("money", "mona"), "banka"), (("the river", "la riva"), "bordo")),
    "spring": ((("the year", "lo anno"), "primo"), (("water", "aqua"), "fonta")),
    "letter": ((("the post", "la posta"), "littera"), (("the alphabet", "lo alfabeto"), "segno")),
    "light": ((("the night", "la nocta"), "luma"), (("weight", "pesa"), "levo")),
}
STANDS = (("a friend", "amica"), ("a stranger", "stranja"))  # Formality: how somebody stands,
ENDINGS = ("s tu", "z vos")  # and how the verb ends when it is said to that person.
PLACES = {
    **{"garden": "jardina", "tower": "torra", "school": "scola", "market": "mercata"},
    **{"forest": "bosco", "bridge": "ponto", "harbour": "porto", "castle": "castelo"},
}
OPENINGS = {"": "", "now": "ora", "later": "tarda", "today": "odia", "then": "pois"}

TELLINGS: dict[Kind, tuple[Frame, ...]] = {
    "gender": (
        ("{a} has the {thing}.", "{a} ha {noun}."),
        ("{a} holds the {thing}.", "{a} tena {noun}."),
        ("{a} keeps the {thing}.", "{a} guarda {noun}."),
    ),
    "formality": (
        ("{a} is {stand}.", "{a} esta {estas}."),
        ("{a} seems {stand}.", "{a} pareca {estas}."),
        ("{a} becomes {stand}.", "{a} deveni {estas}."),
    ),
    "term": (
        ("it is about {topic}.", "ista trata de {tema}."),
        ("the talk is about {topic}.", "la parla trata de {tema}."),
        ("all speak of {topic}.", "totos parla de {tema}."),
    ),
}
# A topic that somebody has in mind is not what the text is about.
IN_MIND: tuple[Frame, ...] = (
    ("{a} dreams of {topic}.", "{a} sonia de {tema}."),
    ("{a} thinks of {topic}.", "{a} pensa de {tema}."),
    ("{a} reads about {topic}.", "{a} lega de {tema}."),
)
LASTS: dict[Kind, tuple[Frame, ...]] = {
    "gender": (
        ("{a} likes it.", "{a} ama {word}."),
        ("{a} shows it.", "{a} mostra {word}."),
        ("{a} sells it.", "{a} venda {word}."),
        ("{a} paints it.", "{a} pinta {word}."),
    ),
    "formality": (
        ("{a}, do you come?", "{a}, vena{word}?"),
        ("{a}, do you stay?", "{a}, stara{word}?"),
        ("{a}, do you play?", "{a}, juga{word}?"),
        ("{a}, do you eat?", "{a}, mangia{word}?"),
    ),
    "term": (
        ("{a} sees the {term}.", "{a} vida {word}."),
        ("{a} draws the {term}.", "{a} desina {word}."),
        ("{a} misses the {term}.", "{a} manca {word}."),
        ("{a} praises the {term}.", "{a} loda {word}."),
    ),
}
FILLERS: tuple[Frame, ...] = (  # They tell nothing.
    ("{a} walks to the {place}.", "{a} camina a {loco}."),
    ("{a} works in the {place}.", "{a} labora in {loco}."),
    ("{a} meets {b}.", "{a} incontra {b}."),
    ("{a} waits for {b}.", "{a} atenda {b}."),
    ("{a} and {b} sing in the {place}.", "{a} e {b} canta in {loco}."),
    ("{a} follows {b} to the {place}.", "{a} seca {b} a {loco}."),
    ("{a} is tired.", "{a} esta lassa."),
    ("{a} laughs.", "{a} rida."),
    ("the {place} is cold.", "{loco} esta freda."),
    ("the rain falls on the {place}.", "la pluva cada sur {loco}."),
    ("nobody is in the {place}.", "nemo esta in {loco}."),
    ("the wind is strong.", "lo vento esta forta."),
    ("the sun rises over the {place}.", "lo solo leva sur {loco}."),
)


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


def tokens_in(text: str) -> int:
    """Return how many words and marks a text has."""
    return len(PIECE.findall(text))


def article(noun: str) -> str:
    """Return a noun's article, which is its pronoun too.

    The article is la before -a and lo before -o.
    """
    return "la" if noun.endswith("a") else "lo"


def _with_article(noun: str) -> str:
    return f"{article(noun)} {noun}"


def _one(rng: np.random.Generator, choices: Sequence) -> tuple:
    return choices[rng.integers(len(choices))]


def _say(frame: Frame, opening: Frame = ("", ""), **gaps: str) -> tuple[str, str]:
    """Return a frame in both languages, its gaps filled, a space before it."""
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
        gaps = {"a": people[subject], "thing": thing, "noun": _with_article(THINGS[thing])}
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
    """Two words: the text tells of either, and so does what somebody has in mind."""
    frame = _one(rng, LASTS["term"])
    words = [list(TERMS)[number] for number in rng.permutation(len(TERMS))[:2]]

    def tell(subject: int, way: int) -> tuple[str, str]:
        (topic, tema), _ = TERMS[words[subject % 2]][way]
        frames = TELLINGS["term"] if subject in ASKED["term"] else IN_MIND
        gaps = {"a": people[subject], "topic": topic, "tema": tema}
        return _say(_one(rng, frames), _opening(rng), **gaps)

    def ask(subject: int, way: int) -> tuple[str, str]:
        word = words[subject]
        gaps = {"term": word, "word": _with_article(TERMS[word][way][1])}
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
    gaps = {"a": a, "b": b, "place": place, "loco": _with_article(name)}
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

    >>> for sentence in document(np.random.default_rng(5), length=60, tellings=4, kind="gender"):
    ...     print(f"{'tells' if sentence.tells else '':<6}{sentence.source.strip()}")

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
    """Return which way each subject is told each time (SUBJECTS, times), 0 or 1.

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
    """Return all sentences, each kind in its order, and where those told stand."""
    places = np.sort(rng.permutation(len(told) + len(others))[: len(told)])
    both = iter(told), iter(others)
    here = set(places.tolist())
    return [next(both[number not in here]) for number in range(len(told) + len(others))], places


# ------------------------------------------------------------------------------------------- oracle


def _found(frames: Sequence[Frame], text: str, **gaps: str) -> list[str]:
    """Return what stands in the open gap of these frames in a text, in order."""
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
