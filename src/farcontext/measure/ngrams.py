"""N-gram baselines: interpolated modified Kneser–Ney over token ids.

Kneser & Ney 1995, in the interpolated form with three discounts an order of Chen & Goodman 1999
(the best of all they compared at every order and size of text), ending in the uniform distribution,
so that every token has some probability. One fit gives every order up to its highest: of a model of
order n, level n counts occurrences and the levels below count different left neighbours, so both
counts are kept. Order 1 is the unigram, order 2 the bigram.

No n-gram crosses a document boundary: after EOS the context is empty. A document's start counts as
one more left neighbour of the n-grams that open it, as a start symbol would.
"""

from dataclasses import dataclass

import numpy as np

from farcontext.files import UserError
from farcontext.schema import EOS, MASK

# KenLM's discounts serve where too few n-grams occur once to estimate them.
FALLBACK = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Level:
    """The n-grams of one order n, by one way of counting them."""

    # (n-grams,): keys are sorted. Each is the id of the first n - 1 tokens at order n - 1, times V,
    # plus the last.
    keys: np.ndarray
    discounted: np.ndarray  # (n-grams,): each is the count less its discount, never below 0.
    total: np.ndarray  # (contexts,): each is the sum of counts.
    backoff: np.ndarray  # (contexts,): this share of a context goes to the order below.


@dataclass(frozen=True)
class NGram:
    """A fitted n-gram model.

    Its predictive distribution sums to 1 over the vocabulary in any context.
    """

    order: int
    vocab_size: int
    tops: tuple[Level, ...]  # Each order from 1 has one level, by occurrences.
    # Each order below the highest has one level, by different left neighbours.
    lowers: tuple[Level, ...]

    def log_prob(
        self, rows: np.ndarray, scored: np.ndarray, *, order: int | None = None
    ) -> np.ndarray:
        """Return the natural log-probability of each scored token.

        The true tokens to its left in its row are given.

        That is generous beside a masked model, which sees fewer true neighbours on the left; the
        n-gram sees none on the right.

        Args:
            rows: token ids, (B, T), unmasked.
            scored: booleans, (B, T).
            order: of the model, at most the one fitted; None for that one.

        Returns:
            float64, one a scored position, in row-major order as `rows[scored]`.

        Raises:
            UserError: order out of range, or an id outside the vocabulary.
        """
        order = self.order if order is None else order
        if not 1 <= order <= self.order:
            raise UserError(f"ngrams: order = {order}: expected 1 to {self.order}")
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.vocab_size:
            raise UserError(
                f"ngrams: vocab_size = {self.vocab_size}: expected ids below it, found {rows.max()}"
            )
        row, column = np.nonzero(scored)
        target = rows[row, column]
        room = _left(rows)[row, column]
        probability = np.full(len(target), 1.0 / self.vocab_size)
        for n, level in enumerate((*self.lowers[: order - 1], self.tops[order - 1]), 1):
            inside = room >= n - 1
            context = self._context(rows, row[inside], column[inside], n)
            known = context >= 0
            # Other contexts were seen only at the end of documents.
            known[known] = level.total[context[known]] > 0
            inside[inside] = known
            context = context[known]
            found = _find(level.keys, context * self.vocab_size + target[inside])
            own = np.where(found >= 0, level.discounted[found], 0.0) / level.total[context]
            probability[inside] = own + level.backoff[context] * probability[inside]
        return np.log(probability)

    def distribution(
        self, rows: np.ndarray, scored: np.ndarray, *, order: int | None = None
    ) -> np.ndarray:
        """Return the probability of every token at each scored position, (n, V).

        A [MASK] to the left ends the context: the model of the order that is left serves there,
        as it does for whoever knows how many neighbours are intact.

        Args:
            rows: token ids, (B, T); what stands at a scored position itself is not looked at.
            scored: booleans, (B, T).
            order: of the model, at most the one fitted; None for that one.
        """
        row, column = np.nonzero(scored)
        intact = _left(rows, MASK)[row, column] + 1
        orders = np.minimum(self.order if order is None else order, intact)
        found = np.empty((len(row), self.vocab_size))
        for n in np.unique(orders):
            at = orders == n
            found[at] = self._distribution(rows, row[at], column[at], int(n))
        return found

    def _distribution(
        self, rows: np.ndarray, row: np.ndarray, column: np.ndarray, order: int
    ) -> np.ndarray:
        room = _left(rows)[row, column]
        found = np.full((len(row), self.vocab_size), 1.0 / self.vocab_size)
        for n, level in enumerate((*self.lowers[: order - 1], self.tops[order - 1]), 1):
            inside = np.flatnonzero(room >= n - 1)
            context = self._context(rows, row[inside], column[inside], n)
            known = context >= 0
            known[known] = level.total[context[known]] > 0
            inside, context = inside[known], context[known]
            found[inside] *= level.backoff[context, None]
            first = np.searchsorted(level.keys, context * self.vocab_size)
            last = np.searchsorted(level.keys, (context + 1) * self.vocab_size)
            for place, one, start, end in zip(inside, context, first, last, strict=True):
                tokens = level.keys[start:end] - one * self.vocab_size
                found[place, tokens] += level.discounted[start:end] / level.total[one]
        return found

    def _context(self, rows: np.ndarray, row: np.ndarray, column: np.ndarray, n: int) -> np.ndarray:
        """Return the ids of the n - 1 tokens before each position.

        They are ids at order n - 1. An id is -1 if they were never seen.
        """
        ids = np.zeros(len(row), dtype=np.int64)  # Order 0 has one n-gram, the empty one.
        for level, back in zip(self.tops, range(n - 1, 0, -1), strict=False):
            ids = np.where(
                ids >= 0, _find(level.keys, ids * self.vocab_size + rows[row, column - back]), -1
            )
        return ids


def from_the_right(
    model: NGram, rows: np.ndarray, scored: np.ndarray, *, order: int | None = None
) -> np.ndarray:
    """Return every token's probability from its right side, (n, V).

    Args:
        model: fitted to `backwards` of a text.
        rows, scored, order: as in `NGram.distribution`.
    """
    turned = model.distribution(rows[:, ::-1], scored[:, ::-1], order=order)
    places = np.arange(scored.size).reshape(scored.shape)
    # The scored places in the turned rows' order; sorting them is the way back.
    return turned[np.argsort(places[:, ::-1][scored[:, ::-1]])]


def both_sides(left_nV: np.ndarray, right_nV: np.ndarray, alone_nV: np.ndarray) -> np.ndarray:
    """Return every token's probability from both sides, (n, V).

    p(x | left, right) ∝ p(x | left) · p(x | right) / p(x).

    The two sides are taken as independent given the token between them.
    """
    product = left_nV * right_nV / alone_nV
    return product / product.sum(axis=1, keepdims=True)


def backwards(tokens: np.ndarray) -> np.ndarray:
    """Return a stream of documents, each read from its end.

    Each still ends with EOS.
    """
    return np.roll(tokens[::-1], -1)


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the place of each wanted key, -1 where it is absent."""
    if len(keys) == 0:  # No document is long enough for an n-gram of this order.
        return np.full(len(wanted), -1)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)


def _left(tokens: np.ndarray, end: int = EOS) -> np.ndarray:
    """Count the tokens to the left of each.

    The count goes back to one that ends a stretch.

    Positions run along the last axis. EOS ends documents, MASK what is intact.
    """
    places = np.broadcast_to(np.arange(tokens.shape[-1]), tokens.shape)
    opens = np.zeros(tokens.shape, dtype=np.int64)
    opens[..., 1:] = np.where(tokens[..., :-1] == end, places[..., 1:], 0)
    return places - np.maximum.accumulate(opens, axis=-1)


def estimate_discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """Return the discounts for counts of 1, 2, and 3 or more.

    They come from the counts of counts (Chen & Goodman 1999, eq. 17).

    FALLBACK serves where a count of counts is 0 or an estimate is out of its range.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=5)[1:5].astype(float)
    if n.min() == 0:
        return FALLBACK
    y = n[0] / (n[0] + 2 * n[1])
    estimates = tuple(float(k - (k + 1) * y * n[k] / n[k - 1]) for k in (1, 2, 3))
    return estimates if all(0 <= d <= k for k, d in enumerate(estimates, 1)) else FALLBACK


def _level(
    keys: np.ndarray, counts: np.ndarray, contexts: int, vocab_size: int, fixed: float | None
) -> Level:
    context = keys // vocab_size
    discounts = estimate_discounts(counts) if fixed is None else (fixed,) * 3
    discounted = np.maximum(counts - np.array([0.0, *discounts])[np.minimum(counts, 3)], 0.0)
    total = np.bincount(context, counts, contexts)
    kept = np.bincount(context, discounted, contexts)
    backoff = np.divide(total - kept, total, out=np.ones(contexts), where=total > 0)
    return Level(keys, discounted, total, backoff)


def fit(tokens: np.ndarray, order: int, vocab_size: int, *, discount: float | None = None) -> NGram:
    """Fit the models of order 1 to `order` to a stream.

    The stream consists of documents, each followed by EOS.

    Args:
        tokens: ids, (T,).
        order: the longest n-gram, 1 or more.
        vocab_size: V.
        discount: one value for every count and order (plain Kneser–Ney) instead of estimates.

    Raises:
        UserError: no tokens, an id outside the vocabulary, or order below 1.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    if order < 1 or len(tokens) == 0:
        raise UserError(
            f"ngrams: order = {order}, {len(tokens)} tokens: "
            "expected order 1 or more and some tokens"
        )
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise UserError(
            f"ngrams: vocab_size = {vocab_size}: expected ids below it, found {tokens.max()}"
        )
    left = _left(tokens)
    tops: list[Level] = []
    lowers: list[Level] = []
    # These are the ids of the (n-1)-grams that end here; order 0 has one n-gram, the empty one.
    ids = np.zeros(len(tokens), dtype=np.int64)
    for n in range(1, order + 1):
        ends = np.flatnonzero(left >= n - 1)
        keys, first, inverse, counts = np.unique(
            ids[ends - 1] * vocab_size + tokens[ends],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        contexts = len(tops[-1].keys) if tops else 1
        if tops:
            neighbours = np.bincount(ids[ends[first]], minlength=contexts)
            neighbours[np.unique(ids[left == n - 2])] += 1  # A document's start counts too.
            lowers.append(
                _level(tops[-1].keys, neighbours, len(tops[-1].total), vocab_size, discount)
            )
        tops.append(_level(keys, counts, contexts, vocab_size, discount))
        ids[ends] = inverse
    return NGram(order, vocab_size, tuple(tops), tuple(lowers))
