"""A second language, and documents that need more than one sentence.

The language is for the story world, and it is regular as Esperanto is. Some sentences of a document
cannot be translated alone.

English says `it`, `you` and `bank`; the second language must choose, and an earlier sentence
tells which:

    gender      The lamp is here.  …  Anna Baker takes it.
                la lampa esta qui.  …  Anna Baker prena la.
    formality   Anna Baker and Boris Carter are friends.  …
                Anna Baker asks Boris Carter: do you come?
                Anna Baker demanda a Boris Carter: venas tu?
    term        It is about money.  …  Anna Baker sees the bank.
                Anna Baker vida la banka.

What an earlier sentence tells is drawn evenly and independently, so whoever does not read it is
right in one case of two: the contrast of a sentence is its other translation, alike but for the
word that was chosen.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from farcontext.tasks.world import Split, full_names

Kind = Literal["gender", "formality", "term"]

KINDS: tuple[Kind, ...] = ("gender", "formality", "term")
THINGS = {  # The key is English; the ending of the second language's noun is its gender.
    **{
        "lamp": "lampa",
        "letter": "littera",
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
VERBS = {"takes": "prena", "finds": "trova", "buys": "compra", "wants": "vola"}
ASKED = {"come": "vena", "stay": "resta", "play": "juga", "eat": "mangia"}
# An English key gives (the other language's word, the verb's end).
FORMAL = {"friends": ("amicos", "s tu"), "strangers": ("stranjos", "z vos")}


class Sentence(NamedTuple):
    """One sentence in both languages.

    A dependent sentence has a contrast, and the index of the sentence that decides it.
    """

    source: str
    target: str
    contrast: str = ""
    setter: int | None = None
    kind: Kind | None = None


def article(noun: str) -> str:
    """Return a noun's article, which is its pronoun too.

    The article is la before -a and lo before -o.
    """
    return "la" if noun.endswith("a") else "lo"


# -------------------------------------------------------------------------------- the three choices


def _gender(rng: np.random.Generator, names: Sequence[str]) -> tuple[Sentence, Sentence]:
    # The gender is drawn first, so that both are as likely whatever nouns there are.
    ending = "ao"[rng.integers(2)]
    alike = [thing for thing, noun in THINGS.items() if noun.endswith(ending)]
    thing = alike[rng.integers(len(alike))]
    noun, (english, verb) = THINGS[thing], list(VERBS.items())[rng.integers(len(VERBS))]
    one, other = ("la", "lo") if ending == "a" else ("lo", "la")
    setter = Sentence(f" The {thing} is here.", f" {article(noun)} {noun} esta qui.")
    told = (f" {names[0]} {english} it.", *(f" {names[0]} {verb} {word}." for word in (one, other)))
    return setter, Sentence(*told)


def _formality(rng: np.random.Generator, names: Sequence[str]) -> tuple[Sentence, Sentence]:
    first, second = names[:2]
    kinds = list(FORMAL)
    one, other = (kinds[i] for i in rng.permutation(2))
    english, verb = list(ASKED.items())[rng.integers(len(ASKED))]
    setter = Sentence(
        f" {first} and {second} are {one}.", f" {first} e {second} sona {FORMAL[one][0]}."
    )
    said = (f" {first} demanda a {second}: {verb}{FORMAL[kind][1]}?" for kind in (one, other))
    return setter, Sentence(f" {first} asks {second}: do you {english}?", *said)


def _term(rng: np.random.Generator, names: Sequence[str]) -> tuple[Sentence, Sentence]:
    word = list(TERMS)[rng.integers(len(TERMS))]
    (topic, one), (_, other) = (TERMS[word][i] for i in rng.permutation(2))
    setter = Sentence(f" It is about {topic[0]}.", f" Trata de {topic[1]}.")
    told = (f" {names[0]} {'vida'} {article(noun)} {noun}." for noun in (one, other))
    return setter, Sentence(f" {names[0]} sees the {word}.", *told)


CHOICES = {"gender": _gender, "formality": _formality, "term": _term}


def document(
    rng: np.random.Generator,
    *,
    length: int,
    distance: int | None = None,
    kind: Kind | None = None,
    split: Split = "test",
) -> list[Sentence]:
    """Return a document whose last sentence needs an earlier one.

    It has `length` sentences, and those between the two need none.

    >>> for sentence in document(np.random.default_rng(1), length=4, distance=2, kind="gender"):
    ...     print(f"{sentence.source.strip():<38}{sentence.target.strip()}")
    Grace Carter waits.                   Grace Carter atenda.
    The map is here.                      lo mappo esta qui.
    Jacob Gardener waits.                 Jacob Gardener atenda.
    Jacob Gardener takes it.              Jacob Gardener prena lo.

    Args:
        distance: sentences from the one that tells to the last one, 1 … length − 1; None: any.
        kind: what must be chosen; None: any.

    Raises:
        ValueError: the distance does not fit.
    """
    if length < 2 or not 1 <= (distance or 1) < length:
        raise ValueError(
            f"length = {length}, distance = {distance}: expected 1 ≤ distance < length"
        )
    distance = distance or int(rng.integers(1, length))
    kind = kind or KINDS[rng.integers(len(KINDS))]
    people = [" ".join(name) for name in full_names(split)]
    names = [people[number] for number in rng.permutation(len(people))[:3]]
    setter, last = CHOICES[kind](rng, names)
    place = length - 1 - distance
    told = [_waiting(names[rng.integers(len(names))]) for _ in range(length - 1)]
    told[place] = setter
    return [*told, last._replace(setter=place, kind=kind)]


def _waiting(name: str) -> Sentence:
    return Sentence(f" {name} waits.", f" {name} atenda.")


# ------------------------------------------------------------------------------------------- oracle


def oracle(sources: Sequence[str], choices: Sequence[str]) -> str | None:
    """Return which translation of the last sentence is right.

    The oracle reads the sources alone, and returns None where nothing tells.
    """
    *before, last = sources
    known = " ".join(before)
    if last.endswith(" it."):
        told = re.findall(r"The (\w+) is here\.", known)
        wanted = told and f" {article(THINGS[told[-1]])}."
    elif "do you" in last:
        first, second = re.match(r" (.+) asks (.+): do you", last).groups()
        told = re.findall(rf"{first} and {second} are (\w+)\.", known)
        wanted = told and f"{FORMAL[told[-1]][1]}?"
    else:
        meanings = TERMS[re.search(r"(\w+)\.$", last)[1]]
        told = [noun for topic, noun in meanings if f"It is about {topic[0]}." in known]
        wanted = told and f" {told[-1]}."
    return next((choice for choice in choices if wanted and choice.endswith(wanted)), None)
