"""The oracle of puzzles: it reads the text alone, as a careful human would."""

import re
from collections.abc import Sequence

from farcontext.tasks import events, world
from farcontext.tasks.events import ALIASES, NUMBERS, PRONOUNS
from farcontext.tasks.puzzles import Step

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
    "count": re.compile(r"\nHow many are in the (\w+)\?"),
}


def answer(text: str, chain: Sequence[Step]) -> str:
    """Return the answer to a chain of questions that a text gives; empty where it gives none."""
    known, found = known_from(text), ""
    for step in chain:
        question = step.question.replace("{subject}", found)
        asked = [(kind, form.fullmatch(question)) for kind, form in ASKED.items()]
        found = next((_of(known[kind], said[1]) for kind, said in asked if said), "")
    return found


def _of(known: dict[str, str], subject: str) -> str:
    """Return what is known of somebody by the whole name, or else by the first name."""
    return known.get(subject) or known.get(subject.split(maxsplit=1)[0], "")


def known_from(text: str) -> dict[str, dict[str, str]]:
    """Return what a text tells, by what is asked: subject → answer at its end."""
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
    there = [*known["place"].values()]
    known["count"] = {place: NUMBERS[there.count(place) - 1] for place in there}
    return known
