"""MQAR: one answer a key, gaps that follow the law, and the paper's layout of rows."""

import numpy as np
import pytest
from toys import CASES, word_toy

from farcontext.tasks import associative

CASE = CASES["associative"]


def solved(tokens: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return what followed each scored token's key the first time, in row order."""
    answers = []
    for row, marks in zip(tokens, scored, strict=True):
        for at in np.flatnonzero(marks):
            answers.append(row[(row == row[at - 1]).argmax() + 1])
    return np.array(answers)


def made(seed: int = 0, **options) -> tuple[np.ndarray, np.ndarray]:
    options = {"rows": 64, "length": 64, "vocabulary": range(10, 90), "pairs": 4} | options
    return associative.rows(np.random.default_rng(seed), **options)


def test_keys_and_values_are_different_halves_and_keys_occur_once() -> None:
    for seed in range(20):
        one = CASE.sample(word_toy(), 128, seed)
        keys = [query.question[0] for query in one.queries]
        assert max(keys) < 25 <= min(query.answer[0] for query in one.queries)
        assert [(one.context == key).sum() for key in keys] == [1] * len(keys)


def test_the_law_is_the_papers() -> None:
    assert associative.gap_law(3, 0.0) == pytest.approx(np.array([6, 3, 2]) / 11)
    assert associative.gap_law(4, 1.0) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("power", [1.0, 0.01])
def test_gaps_follow_the_law(power: float) -> None:
    """The share of pairs whose gap is in the nearest eighth, against the law's own sum."""
    share = []
    for seed in range(300):
        one = CASE.sample(word_toy(), 138, seed, pairs=4, power=power)  # 128 of filler
        ends = np.array([query.evidence[0][1] for query in one.queries])
        after = (len(one.context) - ends) - 2 * (ends[None] > ends[:, None]).sum(1)  # filler tokens
        share.append((after < 16).mean())
    law = associative.gap_law(129, power)
    assert law.sum() == pytest.approx(1)
    error = np.std(share, ddof=1) / np.sqrt(len(share))
    assert abs(np.mean(share) - law[:16].sum()) < 3 * error
    other = associative.gap_law(129, 1.01 - power)  # twin: the other law is seen
    assert abs(np.mean(share) - other[:16].sum()) > 10 * error


def test_rows_are_solved_from_their_pairs() -> None:
    tokens, scored = made()
    assert tokens.shape == scored.shape == (64, 64) and (scored.sum(1) == 4).all()
    assert not scored[:, :8].any() and tokens.min() >= 10 and tokens.max() < 90
    assert (solved(np.where(scored, -1, tokens), scored) == tokens[scored]).all()
    for row, marks in zip(tokens, scored, strict=True):
        assert {*row[:8:2]} == {*row[np.flatnonzero(marks) - 1]}
        assert [(row == key).sum() for key in row[:8:2]] == [2] * 4
    wrong = np.roll(tokens[:, :8], 2, 1)  # twin: every key with another's value
    wrong[:, ::2] = tokens[:, :8:2]
    wrong = np.concatenate([wrong, tokens[:, 8:]], 1)
    assert (solved(np.where(scored, -1, wrong), scored) == tokens[scored]).mean() < 0.05


def test_rows_are_decided_by_their_seed() -> None:
    assert (made()[0] == made()[0]).all()
    assert (made()[0] != made(1)[0]).any()


def test_most_questions_are_near_at_the_papers_power() -> None:
    near, far = (np.flatnonzero(made(rows=400, power=power)[1])[:] % 64 for power in (0.01, 1.0))
    assert near.mean() < far.mean() - 5
    full = made(length=16)[1]  # no place is left over
    assert (full == np.array([False, *[False] * 7, *[False, True] * 4])).all()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="length = 15: expected an even number, at least 16"):
        made(length=15)
    with pytest.raises(ValueError, match="length = 14: expected an even number, at least 16"):
        made(length=14)
    with pytest.raises(
        ValueError, match="vocabulary of 8, pairs = 4: expected 2 pairs or more, fewer than 4"
    ):
        made(vocabulary=range(8))
    with pytest.raises(ValueError, match="length = 9: expected at least 10"):
        CASE.sample(word_toy(), 9)
