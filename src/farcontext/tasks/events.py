"""The story world's events and facts, and the words that tell them.

An event is told by a sentence; a fact is what is so, and the value is the answer to its question.
"""

from typing import Literal, NamedTuple

Kind = Literal["place", "holder", "thing_place"]

PLACES = (
    *("kitchen", "garden", "library", "cellar", "tower", "market", "harbour", "church"),
    *("mill", "forest", "bridge", "stable", "school", "bakery", "castle", "forge"),
)
THINGS = (
    *("lamp", "book", "key", "sword", "ring", "coin", "letter", "map"),
    *("cup", "rope", "drum", "clock", "mirror", "violin", "apple", "hat"),
)
ALIASES = (
    *("Swan", "Falcon", "Otter", "Badger", "Raven", "Heron", "Fox", "Wolf"),
    *("Bear", "Hare", "Lynx", "Owl", "Crane", "Stag", "Finch", "Hawk"),
)
PRONOUNS = ("She", "He")
NUMBERS = (
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OPENINGS = ("", "Then ", "On {day} ", "Later ")
VERBS = {
    "go": ("goes to", "walks to", "runs to", "rides to"),
    "take": ("is taken by", "is found by", "is bought by", "is borrowed by"),
    "give": ("gives", "hands", "passes", "lends"),
    # These two are no events: who does it is nowhere else, and has nothing else.
    "mention": ("sings an old song", "laughs at the moon", "looks at the sky", "counts the stars"),
    "call": ("is called", "is known as", "is nicknamed", "is remembered as"),
}
TELLINGS = {  # What is asked for stands behind what it is asked by.
    "go": "{who} {verb} the {what}.",
    "take": "the {what} {verb} {who}.",
    "give": "{who} {verb} the {what} to {to}.",
    "mention": "{who} {verb}.",
    "call": "{who} {verb} {what}.",
}
QUESTIONS: dict[Kind, str] = {
    "place": "\nWhere is {subject}? In the",
    "holder": "\nWho has the {subject}?",
    "thing_place": "\nWhere is the {subject}? In the",
}
ALIAS_QUESTION = "\nWhat is {subject} called?"
COUNT_QUESTION = "\nHow many are in the {place}?"
FACTS: dict[Kind, str] = {
    "place": " {subject} is in the {value}.",
    "holder": " The {subject} is with {value}.",
    "thing_place": " The {subject} is in the {value}.",
}


class Event(NamedTuple):
    """An event: somebody goes to a place, or takes or gives something."""

    kind: Literal["go", "take", "give"]
    who: str
    what: str  # It is the place, or the thing.
    to: str = ""  # With give, it is the receiver.

    @property
    def subject(self) -> str:
        """The person or thing that is elsewhere from now on."""
        return self.who if self.kind == "go" else self.what

    @property
    def value(self) -> str:
        """Where: the person's place, or who has the thing."""
        return self.what if self.kind == "go" else self.to or self.who


class Fact(NamedTuple):
    """A fact: a person's place, a thing's holder or a thing's place."""

    kind: Kind
    subject: str
    value: str

    @property
    def sentence(self) -> str:
        """The fact in words, with the space before it."""
        return FACTS[self.kind].format(subject=self.subject, value=self.value)

    @property
    def question(self) -> str:
        """The question that the value answers."""
        return QUESTIONS[self.kind].format(subject=self.subject)
