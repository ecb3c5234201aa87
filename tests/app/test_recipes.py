"""CONTRIBUTING's recipes are followed: each works, and touches few files.

The tests count the files. The recipe of a study stands in test_profiles.
"""

from pathlib import Path

import pytest
from recipes import BACKEND, SCHEME, TASK, copy_of, follow, python


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    return copy_of(root, tmp_path / "copy")


def test_a_position_scheme_touches_two_files(copy: Path) -> None:
    assert follow(SCHEME, copy) <= 2
    said = python(
        copy,
        """
        from farcontext.nn.config import Extension
        from farcontext.nn.positions import inverse_frequencies
        from farcontext.studies.context_extension.arms import ARMS
        both = [
            inverse_frequencies(s, head_dim=8, scale=4.0, trained_length=64)
            for s in ("linear", "toy_half")
        ]
        assert Extension(scheme="toy_half", scale=4.0, trained_length=64)
        assert ARMS["toy_half"].scheme == "toy_half"
        print(float(both[1][0] / both[0][0]))
        """,
    )
    assert float(said) == 2.0


def test_a_backend_touches_two_files(copy: Path) -> None:
    assert follow(BACKEND, copy) <= 2
    said = python(
        copy,
        """
        import torch
        from farcontext.nn import attention
        x = torch.randn(1, 5, 2, 4)
        with attention.recorded() as ran:
            ours = attention.attend(x, x, x, backend="toy")
        print(ran[0], torch.equal(ours, attention.attend(x, x, x, backend="sdpa")))
        """,
    )
    assert said.split() == ["toy", "True"]


def test_a_task_touches_two_files(copy: Path) -> None:
    """The task's own file, and where its rows are made for training."""
    assert follow(TASK, copy) <= 2
    said = python(
        copy,
        """
        import os
        import numpy as np
        os.environ["FARCONTEXT_CACHE"] = "cache"
        from farcontext.studies.toy_use import make_rows
        from farcontext.train.config import Task
        from farcontext.train.curriculum import task_rows
        (row,) = make_rows(rows=8, length=6, seed=1)
        task = Task(name="prepared", digest=row["digest"])
        tokens, scored = task_rows(task, np.random.default_rng(0), 4, 6)
        print(tokens.shape, (tokens[:, ::2] == tokens[:, 1::2]).all(), scored.mean())
        """,
    )
    assert said.strip() == "(4, 6) True 0.5"
