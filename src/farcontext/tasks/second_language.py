"""The story world's second language, beside English.

It is as regular as Esperanto is: a noun in -a has the article and pronoun `la`, one in -o `lo`; a
verb ends in -s with `tu` and in -z with `vos`; an English word of two meanings has two words.
"""

import re
from typing import Literal

Kind = Literal["gender", "formality", "term"]
Frame = tuple[str, str]  # A sentence of both languages, with gaps in braces.

KINDS: tuple[Kind, ...] = ("gender", "formality", "term")
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


def tokens_in(text: str) -> int:
    """Return how many words and marks a text has."""
    return len(PIECE.findall(text))


def article(noun: str) -> str:
    """Return a noun's article, which is its pronoun too.

    The article is la before -a and lo before -o.
    """
    return "la" if noun.endswith("a") else "lo"


def with_article(noun: str) -> str:
    """Return a noun behind its article."""
    return f"{article(noun)} {noun}"
