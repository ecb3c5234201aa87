"""N-grams have values worked out by hand, and are distributions.

They agree with a slow dictionary version.
"""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcontext.files import UserError
from farcontext.measure import ngrams
from farcontext.schema import EOS, MASK
from farcontext.train.batches import Stream

A, B, C = 4, 5, 6
V = 8


def probability(
    model: ngrams.NGram, context: list[int], token: int, order: int | None = None
) -> float:
    rows = np.array([[*context, token]])
    scored = np.zeros(rows.shape, bool)
    scored[0, -1] = True
    return float(np.exp(model.log_prob(rows, scored, order=order)[0]))


def test_bigram_by_hand() -> None:
    """One document a b a b a c EOS, every discount 1/2, V = 8.

    Left neighbours: a {start, b} 2, b {a} 1, c {a} 1, EOS {c} 1; in all 5, of 4 kinds, so 4/2 = 2
    of 5 go to the uniform: P(a) = 1.5/5 + 2/5/8 = 0.35, P(b) = P(c) = P(EOS) = 0.5/5 + 0.05 = 0.15,
    others 0.05. After a: b twice, c once, of 3: 2 kinds give up 1/2 each, so 1/3 backs off. After
    b: a twice, 1/4 backs off.
    """
    model = ngrams.fit(np.array([A, B, A, B, A, C, EOS]), 2, V, discount=0.5)
    assert probability(model, [A], B) == pytest.approx(1.5 / 3 + 0.15 / 3, abs=1e-12)
    assert probability(model, [A], C) == pytest.approx(0.5 / 3 + 0.15 / 3, abs=1e-12)
    assert probability(model, [A], 7) == pytest.approx(0.05 / 3, abs=1e-12)
    assert probability(model, [B], A) == pytest.approx(1.5 / 2 + 0.35 / 4, abs=1e-12)
    assert probability(model, [7], A) == pytest.approx(0.35, abs=1e-12)  # a context never seen
    # a row's first token has no context
    assert probability(model, [], A) == pytest.approx(0.35, abs=1e-12)
    assert probability(model, [B, EOS], A) == pytest.approx(0.35, abs=1e-12)  # nor has a document's
    # order 1 counts occurrences: a 3, b 2, c 1, EOS 1, of 7; 2/7 goes to the uniform
    assert probability(model, [A], A, order=1) == pytest.approx(2.5 / 7 + 2 / 7 / 8, abs=1e-12)


def test_discounts_by_hand() -> None:
    """n1 = 4, n2 = 2, n3 = 1, n4 = 1: Y = 4/(4 + 4); 1 − 2Y·2/4, 2 − 3Y·1/2, 3 − 4Y·1/1."""
    assert ngrams.estimate_discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])) == pytest.approx(
        (0.5, 1.25, 1.0)
    )
    assert ngrams.estimate_discounts(np.array([1, 1, 2, 5])) == ngrams.FALLBACK


def slow_probability(
    documents: list[list[int]], context: list[int], token: int, discount: float
) -> float:
    """Interpolated Kneser–Ney by dictionaries; a document's start counts as a left neighbour."""
    order = len(context) + 1

    def counts(n: int) -> dict[tuple, int]:
        grams = Counter(tuple(d[i : i + n]) for d in documents for i in range(len(d) - n + 1))
        if n == order:
            return grams
        left = defaultdict(set)
        for d in documents:
            for i in range(len(d) - n + 1):
                left[tuple(d[i : i + n])].add(d[i - 1] if i else "start")
        return {gram: len(found) for gram, found in left.items()}

    value = 1 / V
    for n in range(1, order + 1):
        history = tuple(context[order - n :])
        after = {gram[-1]: count for gram, count in counts(n).items() if gram[:-1] == history}
        total = sum(after.values())
        if total:
            given_up = sum(min(discount, count) for count in after.values())
            value = max(after.get(token, 0) - discount, 0) / total + given_up / total * value
    return value


DOCUMENTS = st.lists(st.lists(st.integers(4, 6), min_size=0, max_size=12), min_size=1, max_size=4)


@given(DOCUMENTS, st.lists(st.integers(4, 7), max_size=3), st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_fast_equals_slow(bodies: list[list[int]], context: list[int], token: int) -> None:
    documents = [[*body, EOS] for body in bodies]
    model = ngrams.fit(np.concatenate(documents), 4, V, discount=0.4)
    slow = slow_probability(documents, context, token, 0.4)
    assert probability(model, context, token, order=len(context) + 1) == pytest.approx(
        slow, rel=1e-9
    )


@given(DOCUMENTS, st.lists(st.integers(3, 7), max_size=5), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_sums_to_one_in_any_context(
    bodies: list[list[int]], context: list[int], order: int
) -> None:
    model = ngrams.fit(np.concatenate([[*body, EOS] for body in bodies]), 5, V)
    values = [probability(model, context, token, order) for token in range(V)]
    assert sum(values) == pytest.approx(1, abs=1e-9) and min(values) > 0


def test_scores_come_in_row_order_and_orders_can_be_fitted_at_once() -> None:
    rng = np.random.default_rng(0)
    text = np.append(rng.integers(4, V, 3000), EOS)
    rows = rng.integers(3, V, (20, 15))
    scored = rng.random(rows.shape) < 0.4
    model = ngrams.fit(text, 4, V)
    for order in (1, 2, 3, 4):
        found = model.log_prob(rows, scored, order=order)
        alone = ngrams.fit(text, order, V).log_prob(rows, scored)
        assert np.array_equal(found, alone)
        every = np.zeros(rows.shape)
        every[:] = model.log_prob(rows, np.ones(rows.shape, bool), order=order).reshape(rows.shape)
        assert np.array_equal(found, every[scored])


def test_no_context_crosses_a_document() -> None:
    """After A comes B inside documents.

    The document after one that ends in A always opens with C.
    """
    text = np.array([C, A, B, A, EOS] * 50)
    model = ngrams.fit(text, 3, V)
    assert (
        probability(model, [A, EOS], C)
        == probability(model, [B, EOS], C)
        == probability(model, [], C)
    )
    together = np.concatenate([text, text[::-1]])
    assert probability(model, [C, A], B) > 0.9
    assert ngrams.fit(together, 3, V).tops[1].keys.size < 12


def test_structure_is_learned_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    structured = np.append(np.tile([A, B, C, 7, A, C], 400), EOS)
    noise = np.append(rng.permutation(structured[:-1]), EOS)
    for text, gain in ((structured, True), (noise, False)):
        model = ngrams.fit(text[: len(text) // 2], 5, V)
        rows = text[len(text) // 2 : -1][:1000].reshape(10, 100)
        losses = [
            -model.log_prob(rows, np.ones(rows.shape, bool), order=order).mean() for order in (1, 5)
        ]
        assert (losses[1] < 0.3 * losses[0]) == gain
        assert losses[1] < 1.1 * losses[0]


def stories(count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.concatenate([np.append(rng.integers(4, V, 9), EOS) for _ in range(count)])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_distribution_holds_every_tokens_probability(order: int) -> None:
    model = ngrams.fit(stories(), 3, V)
    rows = stories(3).reshape(3, 10)
    scored = np.random.default_rng(6).random(rows.shape) < 0.5
    scored[:, : order - 1] = False  # There `log_prob` takes an order's own backing off.
    found = model.distribution(rows, scored, order=order)
    assert found.sum(1) == pytest.approx(1)
    own = found[np.arange(scored.sum()), rows[scored]]
    np.testing.assert_allclose(np.log(own), model.log_prob(rows, scored, order=order))


def test_what_is_damaged_ends_the_context() -> None:
    model = ngrams.fit(stories(), 3, V)
    scored = np.array([[False, False, True]])
    damaged = model.distribution(np.array([[A, MASK, B]]), scored)
    alone = model.distribution(np.array([[MASK, MASK, C]]), scored)
    near = model.distribution(np.array([[MASK, A, B]]), scored)
    np.testing.assert_array_equal(damaged, alone)  # A stands behind a damaged token.
    assert np.abs(near - alone).max() > 0.01
    np.testing.assert_allclose(near, model.distribution(np.array([[C, A, B]]), scored, order=2))


def test_the_right_side_is_the_left_side_of_the_text_read_backwards() -> None:
    text = stories()
    turned = ngrams.backwards(text)
    assert turned[-1] == EOS
    np.testing.assert_array_equal(turned[:-1], text[:-1][::-1])
    model = ngrams.fit(turned, 2, V)
    rows = np.array([[A, B, C, 7], [C, C, A, B]])
    scored = np.array([[True, False, True, False], [False, True, True, False]])
    found = ngrams.from_the_right(model, rows, scored)
    for place, (row, column) in enumerate(np.argwhere(scored)):
        right = [int(rows[row, column + 1])]
        expected = [probability(model, right, token) for token in range(V)]
        np.testing.assert_allclose(found[place], expected)


def test_both_sides_know_what_neither_knows_alone() -> None:
    """After A comes B or C, before A stands B or 7: between two A only B fits."""
    text = np.array([A, B, A, EOS, A, C, 7, EOS, C, 7, A, EOS] * 30)
    left = ngrams.fit(text, 2, V)
    right = ngrams.fit(ngrams.backwards(text), 2, V)
    rows, scored = np.array([[A, MASK, A]]), np.array([[False, True, False]])
    before, alone = (left.distribution(rows, scored, order=n) for n in (2, 1))
    behind = ngrams.from_the_right(right, rows, scored)
    together = ngrams.both_sides(before, behind, alone)
    assert together.sum() == pytest.approx(1)
    assert before[0, B] == pytest.approx(before[0, C], rel=0.1)
    assert behind[0, B] == pytest.approx(behind[0, 7], rel=0.1)
    assert together[0, B] > 5 * max(together[0, C], together[0, 7])


@pytest.mark.parametrize(
    ("tokens", "order", "message"),
    [
        ([4, 5], 0, "order = 0"),
        ([], 2, "0 tokens"),
        ([4, 9], 2, "found 9"),
        ([4, -1], 2, "vocab_size = 8"),
    ],
)
def test_bad_input_is_one_line(tokens: list[int], order: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ngrams.fit(np.array(tokens), order, V)
    model = ngrams.fit(np.array([4, 5, 3]), 2, V)
    with pytest.raises(UserError, match="order = 3: expected 1 to 2"):
        model.log_prob(np.array([[4]]), np.array([[True]]), order=3)
    with pytest.raises(UserError, match="expected ids below it, found 8"):
        model.log_prob(np.array([[8]]), np.array([[True]]))


def test_on_real_text_a_longer_context_helps(tokenizer_folder: Path) -> None:
    train = Stream.load(tokenizer_folder, "train", limit=150_000)
    held_out = Stream.load(tokenizer_folder, "validation")
    model = ngrams.fit(train.all_tokens(), 4, train.vocab_size)
    for domain in train.domains:
        rows, _ = held_out.windows(domain, 256, 20)
        losses = [
            -model.log_prob(rows, np.ones(rows.shape, bool), order=order).mean()
            for order in (1, 2, 3)
        ]
        assert losses[0] > losses[1] + 0.5 and losses[1] > losses[2]
        assert losses[0] < np.log(train.vocab_size) + 1
