"""Associative recall of token ids: which value stood after this key?

R rows, T tokens in a row. Keys, values and filler are ids of their own, so nothing but the row
tells a key's value: whoever ignores the row scores 1/VALUES. A batch is (tokens, scored), both
(R, T): a scored token is to be predicted from what stands before it (a decoder) or with itself
masked (an encoder).
"""

import numpy as np

KEYS, VALUES, FILLER = 32, 32, 32
VOCABULARY = KEYS + VALUES + FILLER  # The ids are keys, then values, then filler.
CHANCE = 1 / VALUES


def dense_recall(
    rng: np.random.Generator, rows: int, length: int, *, pairs: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Return a stream that repeats a few pairs over and over.

    Every repeat's value is scored. Training on it makes induction heads quickly.

    The row below has length 12 and 2 pairs: k is a key, v a value, and a `^` stands below what is
    scored:

        k3 v7 k5 v1 k5 v1 k3 v7 k3 v7 k5 v1
                       ^     ^     ^     ^

    Raises:
        ValueError: odd length, or more pairs than keys.
    """
    if length % 2 or pairs > KEYS:
        raise ValueError(
            f"length = {length}, pairs = {pairs}: expected an even length and at most {KEYS} pairs"
        )
    keys, values = _pairs(rng, rows, pairs)
    which = rng.integers(pairs, size=(rows, length // 2))
    tokens = np.stack(
        (np.take_along_axis(keys, which, 1), np.take_along_axis(values, which, 1)), -1
    )
    # Each pair is shown first at this place.
    first = np.stack([(which == pair).argmax(1) for pair in range(pairs)], 1)
    repeated = np.arange(length // 2) > np.take_along_axis(first, which, 1)
    scored = np.stack((np.zeros_like(repeated), repeated), -1)
    return tokens.reshape(rows, length), scored.reshape(rows, length)


def recall(
    rng: np.random.Generator,
    rows: int,
    length: int,
    *,
    pairs: int = 8,
    span: int | None = None,
    depth: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows that show pairs once among filler, then ask.

    Each key is asked for once, at the end.

    The row below has length 14 and 2 pairs, and f is filler:

        f f k3 v7 f f f k5 v1 f k5 v1 k3 v7
                                   ^     ^

    Args:
        pairs: number of pairs; the last 2·pairs tokens are the questions and their answers.
        span: the pairs stand somewhere within so many tokens, whatever the length (evidence of
            fixed density); None: anywhere before the questions.
        depth: where that span stands: 0 at the very beginning, 1 right before the questions; None:
            anywhere.

    Raises:
        ValueError: more pairs than keys, or no room for them.
    """
    room = length - 2 * pairs
    span = room if span is None else span
    if pairs > KEYS or not 2 * pairs <= span <= room:
        raise ValueError(
            f"length = {length}, pairs = {pairs}, span = {span}: expected at most {KEYS} pairs and "
            "2·pairs ≤ span ≤ length − 2·pairs"
        )
    keys, values = _pairs(rng, rows, pairs)
    tokens = rng.integers(KEYS + VALUES, VOCABULARY, size=(rows, length))
    start = np.round(
        (rng.random(rows) if depth is None else np.full(rows, depth)) * (room - span)
    ).astype(int)
    # Each pair takes two places. Places are drawn among span − pairs, and the rank is added to
    # each, so that there is room for both.
    places = np.argsort(rng.random((rows, span - pairs)), 1)[:, :pairs]
    at = start[:, None] + np.sort(places, 1) + np.arange(pairs)
    np.put_along_axis(tokens, at, keys, 1)
    np.put_along_axis(tokens, at + 1, values, 1)
    asked = np.argsort(rng.random((rows, pairs)), 1)
    tokens[:, room::2] = np.take_along_axis(keys, asked, 1)
    tokens[:, room + 1 :: 2] = np.take_along_axis(values, asked, 1)
    scored = np.zeros(tokens.shape, bool)
    scored[:, room + 1 :: 2] = True
    return tokens, scored


APART = ("together", "masked", "blank", "real", "beside")


def apart(
    rng: np.random.Generator, rows: int, length: int, *, pairs: int = 8
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the same pairs and questions in five surroundings.

    What a longer row costs falls into parts by their differences. The rows below have length 12
    (but the first) and 2 pairs; f is filler, and nobody sees what is hidden (·):

        together  k3 v7 k5 v1 k5 v1 k3 v7
        masked    k3 v7 k5 v1  ·  ·  ·  · k5 v1 k3 v7     positions alone are apart
        blank     k3 v7 k5 v1 f0 f0 f0 f0 k5 v1 k3 v7     and there are more keys to look at
        real      k3 v7 k5 v1 f4 f9 f2 f9 k5 v1 k3 v7     and they differ, as text does
        beside    f4 f9 f2 f9 k3 v7 k5 v1 k5 v1 k3 v7     as long, the evidence beside

    Returns:
        name → (tokens, scored, hidden), (R, T) each; together has 4·pairs tokens.

    Raises:
        ValueError: more pairs than keys, or no room for filler.
    """
    told = 2 * pairs
    if pairs > KEYS or length <= 2 * told:
        raise ValueError(
            f"length = {length}, pairs = {pairs}: expected at most {KEYS} pairs and "
            "length > 4·pairs"
        )
    evidence = np.stack(_pairs(rng, rows, pairs), -1)  # (R, pairs, 2)
    asked = np.argsort(rng.random((rows, pairs)), 1)
    questions = np.take_along_axis(evidence, asked[..., None], 1).reshape(rows, told)
    evidence = evidence.reshape(rows, told)
    real = rng.integers(KEYS + VALUES, VOCABULARY, size=(rows, length - 2 * told))
    blank = np.full_like(real, KEYS + VALUES)
    made = {}
    for name in APART:
        filler = {"together": real[:, :0], "blank": blank}.get(name, real)
        between = (filler, evidence) if name == "beside" else (evidence, filler)
        tokens = np.concatenate((*between, questions), 1)
        scored, hidden = np.zeros(tokens.shape, bool), np.zeros(tokens.shape, bool)
        scored[:, -told + 1 :: 2] = True
        hidden[:, told:-told] = name == "masked"
        made[name] = tokens, scored, hidden
    return made


def oracle(tokens: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return what stood after the same key before, (n,).

    There is one value for each scored token, in row order. The oracle never looks at those tokens.
    """
    answers = []
    for row, marks in zip(tokens, scored, strict=True):
        known: dict[int, int] = {}
        for place in range(1, len(row)):
            if marks[place]:
                answers.append(known[row[place - 1]])
            elif row[place - 1] < KEYS:
                known[row[place - 1]] = row[place]
    return np.array(answers)


def _pairs(rng: np.random.Generator, rows: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return different keys and any values, (R, pairs) each."""
    keys = np.argsort(rng.random((rows, KEYS)), 1)[:, :pairs]
    return keys, KEYS + rng.integers(VALUES, size=(rows, pairs))
