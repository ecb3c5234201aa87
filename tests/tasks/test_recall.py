"""The oracle answers all of recall and flip-flop.

A guesser answers at chance, and pairs stand where they should.
"""

import numpy as np
import pytest

from farcontext.tasks import flip_flop, recall

CASES = [
    (recall.dense_recall, recall, {"pairs": 4}, 64),
    (recall.recall, recall, {"pairs": 8}, 64),
    (recall.recall, recall, {"pairs": 4, "span": 16, "depth": 0.5}, 512),
    (flip_flop.flip_flop, flip_flop, {"ignores": 0.8}, 64),
]


def made(
    task, options: dict, length: int, seed: int = 0, rows: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    return task(np.random.default_rng(seed), rows, length, **options)


@pytest.mark.parametrize(("task", "module", "options", "length"), CASES)
def test_oracle_answers_all_from_what_stands_before(
    task, module, options: dict, length: int
) -> None:
    tokens, scored = made(task, options, length)
    assert tokens.shape == scored.shape == (64, length) and scored.any(1).all()
    assert tokens.min() >= 0 and tokens.max() < module.VOCABULARY
    # it never sees what it is asked for
    answers = module.oracle(np.where(scored, -1, tokens), scored)
    assert (answers == tokens[scored]).all()


@pytest.mark.parametrize(("task", "module", "options", "length"), CASES)
def test_a_guess_is_right_at_chance_and_a_wrong_evidence_is_noticed(
    task, module, options, length
) -> None:
    tokens, scored = made(task, options, length, rows=400)
    asked = tokens[scored]
    guess = np.random.default_rng(1).permutation(asked)
    error = np.sqrt(module.CHANCE * (1 - module.CHANCE) / 400)  # rows, not tokens, are independent
    assert abs((guess == asked).mean() - module.CHANCE) < 4 * error
    damaged = np.roll(tokens, 1, 0)  # another row's evidence under this row's questions
    damaged[scored] = asked
    try:
        hits = (module.oracle(np.where(scored, -1, damaged), scored) == asked).mean()
    except KeyError:  # a key that this evidence does not show
        return
    assert hits < 0.9


@pytest.mark.parametrize(("task", "module", "options", "length"), CASES)
def test_same_seed_same_rows(task, module, options: dict, length: int) -> None:
    first, again, other = (made(task, options, length, seed)[0] for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_packed_pairs_stand_at_their_depth(depth: float) -> None:
    tokens, _ = made(recall.recall, {"pairs": 4, "span": 16, "depth": depth}, 256)
    evidence = tokens[:, : 256 - 8] < recall.KEYS + recall.VALUES
    places = np.nonzero(evidence)[1]
    start = round(depth * (256 - 8 - 16))
    assert (
        start <= places.min() and places.max() < start + 16 and evidence.sum(1).tolist() == [8] * 64
    )


def test_each_key_is_asked_once_and_no_answer_is_scored_before_its_pair() -> None:
    tokens, scored = made(recall.recall, {"pairs": 8}, 128)
    asked = tokens[:, 128 - 16 :: 2]
    assert all(len(set(row)) == 8 for row in asked)
    assert not scored[:, : 128 - 16].any() and (scored.sum(1) == 8).all()


@pytest.mark.parametrize(
    ("task", "options", "length", "says"),
    [
        (recall.recall, {"pairs": 8}, 31, "2·pairs ≤ span"),
        (recall.recall, {"pairs": 33}, 200, "at most 32 pairs"),
        (recall.dense_recall, {"pairs": 4}, 31, "an even length"),
        (flip_flop.flip_flop, {}, 7, "an even number"),
    ],
)
def test_what_cannot_be_made_is_refused(task, options: dict, length: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        made(task, options, length)


def test_the_five_surroundings_hold_the_same_pairs_and_questions() -> None:
    made = recall.apart(np.random.default_rng(1), 32, 96, pairs=8)
    assert tuple(made) == recall.APART
    asked = [tokens[scored].tolist() for tokens, scored, _ in made.values()]
    assert all(answers == asked[0] for answers in asked)
    for name, (tokens, scored, hidden) in made.items():
        assert tokens.shape == (32, 32 if name == "together" else 96)
        answers = recall.oracle(np.where(scored, -1, tokens), scored)
        assert (answers == tokens[scored]).all(), name
        assert hidden.any() == (name == "masked") and not (hidden & (tokens < 64)).any()
    _, last = np.nonzero(made["beside"][0][:, :80] < recall.KEYS)
    assert last.min() == 64 and len(set(made["blank"][0][0, 16:80])) == 1


def test_rows_without_room_for_filler_are_refused() -> None:
    with pytest.raises(ValueError, match=r"length > 4·pairs"):
        recall.apart(np.random.default_rng(0), 1, 32, pairs=8)
