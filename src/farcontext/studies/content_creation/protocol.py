"""What notebook 11 caches: statements after a seed's stories, scored.

A statement about each of a story's people and things, and about a stranger, is asked for by itself,
right after a brief that names them all. The writer's probability of abstaining orders the
statements, so any share of them can be made: that is what arms are compared at.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from farcontext.measure.retrieval import chosen, ranking
from farcontext.nn.transformer import Decoder
from farcontext.schema import Row
from farcontext.studies.story_reader import LAYOUTS, likeliest, vocabulary, written
from farcontext.studies.story_writer import Span, Told, excerpt, spans_of, tested
from farcontext.tasks import reports, world
from farcontext.tasks.events import PLACES, THINGS
from farcontext.tasks.reports import Slot
from farcontext.tasks.sample import Sample, closed_book

LONGEST = 6  # A statement goes on for so many tokens at most after how it begins.


class Asked(NamedTuple):
    """A statement that is asked for: a story's number, and about whom."""

    number: int
    subject: str


class Answer(NamedTuple):
    """A statement as a writer would make it.

    abstains: the probability that it abstains. right: whether what it states otherwise is so.
    """

    told: bool  # The story tells it; of a stranger it tells nothing.
    abstains: float
    right: bool


# ------------------------------------------------------------------------------------- what is read


def spans_read(arm: str, sample: Sample, subjects: Sequence[str], tokens: int) -> list[Span]:
    """Return what an arm reads before it writes about subjects.

    whole: all. last: the last tokens. bm25: the sentences that BM25 ranks highest for the subjects'
    names, in the story's order.

    Raises:
        ValueError: an arm that is not known.
    """
    first, size = sample.blocks[0], len(sample.context)
    match arm:
        case "whole":
            return [(first, size)]
        case "last":
            return [(size - tokens + first, size)]
        case "bm25" | "bm25 each":
            spans, decode = spans_of(sample), vocabulary().decode
            texts = [decode(sample.context[a:b].tolist()) for a, b in spans]
            ranked = ranking(texts, " ".join(subjects))
            kept = chosen(ranked, [b - a for a, b in spans], tokens - first, fill=False)
            return [spans[number] for number in kept]
    raise ValueError(f"arm = {arm}: expected whole, last, bm25, bm25 each or closed_book")


def read_by(arm: str, sample: Sample, subjects: Sequence[str], tokens: int) -> np.ndarray:
    """Return the context that an arm reads.

    Of "closed_book" it is other prose.
    """
    if arm == "closed_book":
        return closed_book(sample).context
    return excerpt(sample, spans_read(arm, sample, subjects, tokens))


def cast_of(one: Told, number: int) -> list[str]:
    """Return whom every arm writes about after a tested story."""
    return reports.cast_of(one.story, np.random.default_rng(number), "test")


def contexts_of(arm: str, one: Told, cast: Sequence[str], tokens: int) -> dict[str, np.ndarray]:
    """Return what is read before the statement about each of a cast.

    The arm "bm25 each" looks up each one by itself; all others read once.
    """
    if arm == "bm25 each":
        return {subject: read_by(arm, one.sample, [subject], tokens) for subject in cast}
    return dict.fromkeys(cast, read_by(arm, one.sample, cast, tokens))


# ---------------------------------------------------------------------------------------- protocols


def statements(
    model: Decoder,
    *,
    sizes: dict[str, int],
    seed: int,
    length: int,
    layout: str,
    count: int,
    arm: str,
    tokens: int,
    coverages: Sequence[float],
) -> list[Row]:
    """Return `scores` of what a writer states about the casts of stories."""
    told = tested(sizes, seed=seed, length=length, depth=LAYOUTS[layout], count=count)
    contexts, asked = [], []
    for number, one in enumerate(told):
        cast = cast_of(one, number)
        for subject, context in contexts_of(arm, one, cast, tokens).items():
            contexts.append(context)
            asked.append(Asked(number, subject))
    return scores(answers(model, told, contexts, asked), coverages)


@torch.inference_mode()
def answers(
    model: Decoder, told: Sequence[Told], contexts: Sequence[np.ndarray], asked: Sequence[Asked]
) -> list[Answer]:
    """Return a writer's statements, one after each context.

    The brief names the subject first, as if the text began with the statement. What is stated is
    the likeliest word that is no abstention: a place, or a first name, which only one of a story's
    people has. Neighbours with one context are scored together.
    """
    encode, found = vocabulary().encode, []
    for _, some in itertools.groupby(range(len(asked)), lambda number: id(contexts[number])):
        numbers, forms, rows = [*some], [], []
        for number, subject in (asked[place] for place in numbers):
            slot, cast = Slot.about(subject), cast_of(told[number], number)
            value = reports.values_of(told[number].story.events).get(subject)
            forms.append((encode(slot.states), encode(slot.abstains)[0], value))
            turned = [subject, *(one for one in cast if one != subject)]
            begun = (*encode(reports.brief(turned)), *encode(slot.begin))
            rows.append((begun, (*encode(slot.states), encode(f" {value or subject}")[0])))
        logits = likeliest(model, contexts[numbers[0]], rows)
        for (states, vague, value), (_, words), at in zip(forms, rows, logits, strict=True):
            abstains = float(at[0].softmax(-1)[vague])
            best = int(at[len(states)].index_fill(-1, torch.tensor([vague]), -torch.inf).argmax())
            found.append(Answer(value is not None, abstains, best == words[-1]))
    return found


def scores(given: Sequence[Answer], coverages: Sequence[float]) -> list[Row]:
    """Return what contradicts the stories, by how much is stated.

    coverage: the statements about whom the story tells are made in order of their probability of
    abstaining, up to this share of them. contradictions: of 100 of these, those that the story
    contradicts. invented: of 100 strangers, those of whom something is stated at the same
    threshold. Without a coverage: the same where the writer decides by itself, at a probability of
    one half, and stated, the share of the statements that it makes then.
    """
    told = sorted((one for one in given if one.told), key=lambda one: one.abstains)
    strange = np.array([one.abstains for one in given if not one.told])
    wrong = np.cumsum([not one.right for one in told])
    rows = []
    for coverage in coverages:
        made = max(1, round(coverage * len(told)))
        found = {
            "contradictions": 100 * wrong[made - 1] / made,
            "invented": 100 * (strange <= told[made - 1].abstains).mean(),
        }
        rows += [{"coverage": coverage, "metric": k, "value": float(x)} for k, x in found.items()]
    made = sum(one.abstains <= 0.5 for one in told)
    own = {"stated": made / len(told), "invented": 100 * (strange <= 0.5).mean()}
    own |= {"contradictions": 100 * wrong[made - 1] / made} if made else {}
    return rows + [{"metric": name, "value": float(value)} for name, value in own.items()]


def texts(
    model: Decoder,
    *,
    sizes: dict[str, int],
    seed: int,
    length: int,
    arms: Mapping[str, tuple[str, int]],
) -> list[Row]:
    """Return what a writer says after a seed's first story.

    Each statement is begun for it, and its own statements before stand there.

    Args:
        arms: the name of each arm, and what it reads (`read_by`).
    """
    (one,), words = tested(sizes, seed=seed, length=length, depth=None, count=1), vocabulary()
    cast, rows = cast_of(one, 0), []
    for name, (arm, tokens) in arms.items():
        text = reports.brief(cast)
        for subject, context in contexts_of(arm, one, cast, tokens).items():
            text += Slot.about(subject).begin
            prompt = [*context.tolist(), *words.encode(text)]
            text += written(model, [prompt], LONGEST, stop=words.encode(".")[0])[0] + "."
        rows.append({"arm": name, "text": text})
    return rows


def perfect(*, sizes: dict[str, int], seed: int, length: int, count: int) -> list[Row]:
    """Return the share of statements that the oracle makes right.

    It reads the decoded text.
    """
    words, right = vocabulary(), []
    for one in tested(sizes, seed=seed, length=length, depth=None, count=count):
        read = reports.values_of(world.read(words.decode(one.sample.context.tolist())))
        right += [read.get(k) == v for k, v in reports.values_of(one.story.events).items()]
    return [{"metric": "oracle", "value": float(np.mean(right))}]


def chance(*, sizes: dict[str, int], seed: int, length: int, count: int) -> list[Row]:
    """Return the contradictions in 100 statements drawn at random.

    A place is drawn from all places, a holder from the people that the brief names.
    """
    rng, wrong = np.random.default_rng(seed), []
    told = tested(sizes, seed=seed, length=length, depth=None, count=count)
    for number, one in enumerate(told):
        people = [who for who in cast_of(one, number) if who not in THINGS]
        for subject, value in reports.values_of(one.story.events).items():
            among = people if subject in one.story.things else PLACES
            wrong.append(among[rng.integers(len(among))] != value)
    return [{"coverage": 1.0, "metric": "contradictions", "value": 100 * float(np.mean(wrong))}]
