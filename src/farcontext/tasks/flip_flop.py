"""The flip-flop language: one bit is written, kept and read.

The language is from Liu et al. 2023 ("Exposing Attention Glitches").

R rows, T tokens in a row. A recurrent state of one bit solves it at any length; attention must find
the last write among all that look like it. A batch is (tokens, scored), as in `tasks.recall`.
"""

import numpy as np

WRITE, READ, IGNORE, ZERO, ONE = range(5)
VOCABULARY = 5
CHANCE = 0.5


def flip_flop(
    rng: np.random.Generator, rows: int, length: int, *, ignores: float = 0.8
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of instructions, each followed by a bit.

    The instructions are `write b`, `ignore b` (any b) and `read b` (b is the last bit written).

    The row below has length 10. A `^` stands below what is scored, the bits that are read:

        w 1 i 0 i 1 r 1 w 0
                      ^

    Args:
        ignores: share of ignore instructions; the rest are writes and reads in equal numbers on
            average. The first instruction writes and the last one reads.

    Raises:
        ValueError: odd length, or less than 4.
    """
    if length % 2 or length < 4:
        raise ValueError(f"length = {length}: expected an even number, at least 4")
    acting = (1 - ignores) / 2
    instructions = rng.choice(
        [WRITE, READ, IGNORE], size=(rows, length // 2), p=[acting, acting, ignores]
    )
    instructions[:, 0], instructions[:, -1] = WRITE, READ
    bits = rng.integers(2, size=instructions.shape)
    at = np.arange(length // 2)
    # The last write stands here.
    written = np.maximum.accumulate(np.where(instructions == WRITE, at, 0), 1)
    reads = instructions == READ
    bits = np.where(reads, np.take_along_axis(bits, written, 1), bits)
    tokens = np.stack((instructions, ZERO + bits), -1).reshape(rows, length)
    return tokens, np.stack((np.zeros_like(reads), reads), -1).reshape(rows, length)


def oracle(tokens: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return the last bit written before each scored token, (n,).

    The bits are in row order.
    """
    answers = []
    for row, marks in zip(tokens, scored, strict=True):
        kept = ZERO
        for instruction, bit, mark in zip(row[::2], row[1::2], marks[1::2], strict=True):
            if mark:
                answers.append(kept)
            elif instruction == WRITE:
                kept = bit
    return np.array(answers)
