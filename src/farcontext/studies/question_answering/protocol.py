"""What notebook 08 caches: rows of puzzles, and readers' answers."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from farcontext.measure.retrieval import packed, ranker
from farcontext.nn.transformer import Decoder
from farcontext.schema import BOS, Row
from farcontext.studies.story_reader import item, prose, vocabulary
from farcontext.tasks import puzzle_text
from farcontext.tasks.puzzles import AXES, Puzzle, Step
from farcontext.tasks.sample import Ids
from farcontext.tasks.storybook import sentences_of
from farcontext.train.curriculum import keep_rows

FORMS = ("bm25", "neighbours", "twice", "stepwise")  # Ways to retrieve with BM25.
CONTROLS = ("removed", "closed_book")
ROWS_SEED, PUZZLES = 1, 10  # They draw training rows, and tested puzzles.
SHORT_PROSE = (
    24  # Prose sentences have so many tokens at most, so that "far" can be counted in them.
)
TAIL = 40  # Questions and answers have so many tokens at most; the context has the rest.
BATCH = 32_768  # So many tokens are read at once.


@functools.cache
def short_sentences(split: str) -> list[Ids]:
    """Return the prose's short sentences as ids."""
    return [x for x in sentences_of(prose(split), vocabulary().encode) if len(x) <= SHORT_PROSE]


def make_puzzles(
    *, length: int, rows: int, dealt: list[str], levels: dict[str, list[int]]
) -> list[Row]:
    """Keep rows of puzzles for training and return their digest."""
    made = puzzle_text.rows(
        np.random.default_rng((ROWS_SEED, length)),
        rows,
        length=length,
        vocabulary=vocabulary(),
        prose=short_sentences("train"),
        dealt=dealt,
        levels=levels,
        bos=(BOS,),
    )
    return [{"digest": keep_rows(*made)}]


# ------------------------------------------------------------------------------------- what is read


class Ranked(NamedTuple):
    """Sentences, and question → their numbers in the order of BM25's scores."""

    order: Callable[[str], list[int]]
    texts: Sequence[str]


def retrieved(
    form: str,
    ranked: Ranked,
    sizes: Sequence[int],
    question: str,
    room: int,
) -> list[int]:
    """Return the numbers of the sentences that BM25 finds.

    Args:
        form: bm25 takes the sentences with the highest scores; neighbours fills what is left with
            those beside them, further and further away; twice fills half of the room, and looks up
            again with the question and all that it found. (stepwise is bm25, for each step.)
        ranked: the sentences.
        sizes: tokens of each.
        question: what is looked up.
        room: tokens to fill.
    """
    best = ranked.order(question)
    match form:
        case "bm25" | "stepwise":
            return packed(best, sizes, room)
        case "neighbours":
            rings = range(room)  # No sentence is empty, so the window holds no wider one.
            near = (n for ring in rings for at in best for n in (at + ring, at - ring))
            return packed(dict.fromkeys(n for n in near if 0 <= n < len(sizes)), sizes, room)
        case "twice":
            found = packed(best, sizes, room // 2)
            again = ranked.order(" ".join([question, *(ranked.texts[number] for number in found)]))
            return packed(dict.fromkeys([*found, *again, *best]), sizes, room)
    raise ValueError(f"form = {form}: expected one of {', '.join(FORMS)}")


@dataclass(frozen=True)
class Laid:
    """A puzzle in prose: sentences as ids, and which tell."""

    puzzle: Puzzle
    made: Sequence[Ids]
    telling: Sequence[int]

    @functools.cached_property
    def texts(self) -> list[str]:
        """The sentences as text."""
        return [vocabulary().decode(block) for block in self.made]

    @functools.cached_property
    def ranked(self) -> Ranked:
        """Question → sentences in the order of their scores, and their texts."""
        return Ranked(ranker(self.texts), self.texts)

    def tokens(self, numbers: Iterable[int]) -> list[int]:
        """Return the ids of some sentences, after a row's first token."""
        return [BOS, *(token for number in numbers for token in self.made[number])]

    def sentences(self, arm: str, question: str) -> Sequence[int]:
        """Return the numbers of the sentences that an arm reads.

        Arms: whole; each form of BM25 at each window (`bm25_64`); told (all tellings, no prose),
        which shows what the reader can do where length is no matter; evidence (what is needed,
        alone); removed (all but that); closed_book (prose alone).

        Raises:
            ValueError: an arm that is not known.
        """
        everything, told = range(len(self.made)), set(self.telling)
        needed = {self.telling[number] for number in self.puzzle.evidence}
        match arm.rpartition("_"):
            case ("", "", "whole"):
                return everything
            case ("", "", "told"):
                return self.telling
            case ("", "", "evidence"):
                return sorted(needed)
            case ("", "", "removed"):
                return [n for n in everything if n not in needed]
            case ("closed", _, _):
                return [n for n in everything if n not in told]
            case (form, _, window):
                share = len(self.puzzle.chain) if form == "stepwise" else 1
                room = int(window) // share - 1
                sizes = [len(block) for block in self.made]
                return retrieved(form, self.ranked, sizes, question, room)

    def reading(self, arm: str) -> Callable[[str], list[int]]:
        """Return what an arm reads, given a step's question, as ids.

        Retrieval looks up the question (`Puzzle.asked`) once for all steps; stepwise looks up each
        step's, in its share of the window.
        """
        if arm.startswith("stepwise"):
            return lambda question: self.tokens(self.sentences(arm, question))
        once = self.tokens(self.sentences(arm, self.puzzle.asked))
        return lambda question: once


# ------------------------------------------------------------------------------------ what is said


@torch.inference_mode()
def next_tokens(
    model: Decoder, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Return the likeliest token after each of a row's places, which ascend.

    Rows of like length are read together, filled up on the right, where a causal model does not
    look.
    """
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
    said: list[list[int]] = [[] for _ in rows]
    while order:
        count = max(1, BATCH // len(rows[order[-1]]))
        some, order = order[-count:], order[:-count]
        tokens = torch.zeros(len(some), len(rows[some[-1]]), dtype=torch.long)
        select = torch.zeros(tokens.shape, dtype=torch.bool)
        for line, number in enumerate(some):
            tokens[line, : len(rows[number])] = torch.tensor(rows[number])
            select[line, list(places[number])] = True
        found = iter(model(tokens, select=select).argmax(-1).tolist())
        for number in some:
            said[number] = [next(found) for _ in places[number]]
    return said


@dataclass
class Written:
    """A context, what a reader was asked after it, and wrote.

    The reader is to say the `wanted` tokens after the tokens at `places`.
    """

    context: list[int]
    ids: list[int]
    places: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)


def written_truly(read: Callable[[str], list[int]], steps: Sequence[Step]) -> list[Written]:
    """Return what is written if every step is answered truly.

    There is one for each context that is read.
    """
    encode, rows, past, found = vocabulary().encode, [], [], ""
    for step in steps:
        question = step.question.replace("{subject}", found)
        context, found = read(question), step.answer
        if not rows or rows[-1].context is not context:
            rows.append(Written(context, [*context, *past]))
        asked, answer = encode(question), encode(f" {found}")
        first = len(rows[-1].ids) + len(asked) - 1
        rows[-1].places += range(first, first + len(answer))
        rows[-1].wanted += answer
        rows[-1].ids += [*asked, *answer]
        past += [*asked, *answer]
    return rows


def chain_answers(
    model: Decoder,
    reads: Sequence[Callable[[str], list[int]]],
    chains: Sequence[Sequence[Step]],
) -> list[list[str]]:
    """Return a reader's answers to the steps of each chain.

    Each step is written by the reader: its question has the reader's own answer to the step
    before, right or not, and stands after the questions and answers so far. An answer is as long as
    the true one. A chain whose true answers are all the likeliest is read once; only the others are
    written step by step.

    Args:
        model: the reader.
        reads: for each chain, question → the context that is read for it.
        chains: the steps, as many in each.
    """
    true = [written_truly(read, steps) for read, steps in zip(reads, chains, strict=True)]
    rows = [row for some in true for row in some]
    said = iter(next_tokens(model, [row.ids for row in rows], [row.places for row in rows]))
    sure = [[next(said) == row.wanted for row in some] for some in true]
    rest = [number for number, known in enumerate(sure) if not all(known)]
    own = step_by_step(model, [reads[n] for n in rest], [chains[n] for n in rest])
    return [
        [step.answer for step in steps] if all(known) else next(own)
        for known, steps in zip(sure, chains, strict=True)
    ]


def step_by_step(
    model: Decoder,
    reads: Sequence[Callable[[str], list[int]]],
    chains: Sequence[Sequence[Step]],
) -> Iterator[list[str]]:
    """Yield a reader's answers to each chain, written step by step."""
    words = vocabulary()
    answers: list[list[str]] = [[] for _ in chains]
    written: list[list[int]] = [[] for _ in chains]  # All questions and answers so far.
    for steps in zip(*chains, strict=True):
        wanted, contexts = [words.encode(f" {step.answer}") for step in steps], []
        for number, step in enumerate(steps):
            question = step.question.replace("{subject}", "".join(answers[number][-1:]))
            contexts.append(reads[number](question))
            written[number] += words.encode(question)
        said: list[list[int]] = [[] for _ in chains]
        for place in range(max(map(len, wanted))):
            active = [number for number, ids in enumerate(wanted) if place < len(ids)]
            rows = [[*contexts[number], *written[number]] for number in active]
            found = next_tokens(model, rows, [[len(row) - 1] for row in rows])
            for number, (token,) in zip(active, found, strict=True):
                written[number].append(token)
                said[number].append(token)
        for number, ids in enumerate(said):
            answers[number].append(words.decode(ids).strip())
    yield from answers


# ------------------------------------------------------------------------------------- evaluations


def tested(
    axis: str, level: int, *, length: int, count: int, seed: int, within: float = 1.0
) -> list[Laid]:
    """Return a seed's puzzles of a level, laid into test prose."""
    made, sentences, encode = [], short_sentences("test"), vocabulary().encode
    for number in range(count):
        rng = np.random.default_rng((PUZZLES, item(seed, number), [*AXES].index(axis), level))
        puzzle = AXES[axis](rng, level, "test")
        size = length - TAIL - 1
        laid = puzzle_text.blocks(rng, puzzle, encode, sentences, size, within)
        made.append(Laid(puzzle, *laid))
    return made


def answers(
    model: Decoder,
    *,
    axis: str,
    level: int,
    length: int,
    count: int,
    seed: int,
    arms: list[str],
    within: float = 1.0,
) -> list[Row]:
    """Return a reader's share of right answers by what it reads (`Laid.reading`).

    steps is written, or direct where the same is asked in one step; tokens is the mean number of
    the context's tokens that the first step reads.
    """
    items, rows = tested(axis, level, length=length, count=count, seed=seed, within=within), []
    for arm in arms:
        reads = [laid.reading(arm) for laid in items]
        asked = {"written": [laid.puzzle.chain for laid in items]}
        if arm in ("whole", "told", "evidence") and items[0].puzzle.direct:
            asked["direct"] = [(laid.puzzle.direct,) for laid in items]
        first = [
            read(laid.puzzle.chain[0].question) for read, laid in zip(reads, items, strict=True)
        ]
        tokens = float(np.mean([len(context) for context in first]))
        for steps, chains in asked.items():
            given = chain_answers(model, reads, chains)
            right = [laid.puzzle.right(some) for laid, some in zip(items, given, strict=True)]
            rows.append(
                {"arm": arm, "steps": steps, "exact": float(np.mean(right)), "tokens": tokens}
            )
    return rows
