"""The texts of notebook 13: who saw which document, and where the canaries stand.

A document has D tokens, a row T of them. A model is trained on the rows of the documents that it
sees: its half of the targets, and all carriers, which hold canaries of its own.
"""

from dataclasses import dataclass

import numpy as np

from farcontext.data.tokenizer import load_tokenizer
from farcontext.tasks import canaries
from farcontext.tasks.canaries import Canary, Place
from farcontext.train.batches import Stream
from farcontext.train.keys import tokens_folder

PUBLIC, PRIVATE = "plays", "manuals"
DRAWN, SECRETS, HALVES = 1, 2, 3  # Purposes of the random streams.
LETTERS = 4  # A secret's words have so many or more.


@dataclass(frozen=True)
class Texts:
    """What one model is trained on, and attacked with."""

    targets: np.ndarray  # (N, D) ids.
    member: np.ndarray  # (N,), whether the model sees a target.
    carriers: np.ndarray  # (C, D) ids, with canaries.
    canaries: list[Canary]
    places: list[Place]

    def rows(self, length: int) -> np.ndarray:
        """Return what the model is trained on, (R, T) ids."""
        return np.concatenate((self.targets[self.member], self.carriers)).reshape(-1, length)


def documents(seed: int, document: int, count: int) -> np.ndarray:
    """Return stretches of as many different documents, (count, D) ids.

    Raises:
        ValueError: fewer documents are as long.
    """
    stream = Stream.load(tokens_folder(), "train", (PRIVATE,))
    bounds, rng = stream.offsets[PRIVATE], np.random.default_rng((DRAWN, seed))
    spare = np.diff(bounds) - document
    long = np.flatnonzero(spare >= 0)
    if len(long) < count:
        raise ValueError(f"{count} documents of {document} tokens: expected at most {len(long)}")
    chosen = rng.permutation(long)[:count]
    starts = bounds[chosen] + rng.integers(spare[chosen] + 1)
    return stream.tokens[PRIVATE][starts[:, None] + np.arange(document)].astype(np.int64)


def members(seed: int, models: int, targets: int) -> np.ndarray:
    """Return (models, targets), whether a model sees a target.

    Every target is seen by half of the models.
    """
    drawn = np.random.default_rng((HALVES, seed)).random((models, targets))
    return drawn.argsort(0) < models // 2


def words(count: int) -> list[int]:
    """Return the first ids whose text is a space and a word."""
    tokenizer = load_tokenizer(tokens_folder())
    text = (tokenizer.decode([id_]) for id_ in range(tokenizer.get_vocab_size()))
    plain = [n for n, said in enumerate(text) if said[:1] == " " and said[1:].isalpha()]
    return [n for n in plain if len(tokenizer.decode([n])) > LETTERS][:count]


def texts_of(
    *,
    seed: int,
    model: int,
    models: int,
    document: int,
    targets: int,
    carriers: int,
    counts: list[int],
    canaries_each: int,
    candidates: int,
) -> Texts:
    """Return what one of `models` reads.

    Canaries are drawn anew for each model, documents are the same for all.
    """
    rng = np.random.default_rng((SECRETS, seed, model))
    whole = documents(seed, document, targets + carriers)
    encode = load_tokenizer(tokens_folder()).encode
    made = canaries.draw(
        rng, lambda text: encode(text).ids, words(candidates), counts, canaries_each
    )
    told, places = canaries.plant(rng, whole[targets:], made)
    seen = members(seed, models, targets)[model]
    return Texts(whole[:targets], seen, told, made, places)


def first_time(rows: np.ndarray, span: int) -> np.ndarray:
    """Return which tokens are not part of a span that came before, (R, T).

    De-duplication of exact substrings (Lee et al. 2022): where `span` tokens stand that an earlier
    row, or an earlier part of the row, had, they are read and not learned again.
    """
    fresh, seen = np.ones(rows.shape, bool), set()
    for number, row in enumerate(rows):
        for start in range(len(row) - span + 1):
            piece = row[start : start + span].tobytes()
            if piece in seen:
                fresh[number, start : start + span] = False
            seen.add(piece)
    return fresh
