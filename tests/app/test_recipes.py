"""CONTRIBUTING's recipes, followed: how many files each one touches, and that it works."""

from pathlib import Path

import pytest
from commands import call
from recipes import BACKEND, SCHEME, STUDY, TASK, copy_of, follow, python


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


def test_a_study_touches_six_files_and_its_claim_is_frozen_first(
    copy: Path, root: Path, tmp_path: Path, monkeypatch
) -> None:
    """Its claim is frozen, and its table decides it: the laptop's own run.

    `test_profiles` takes such a study through the whole pipeline.
    """
    assert follow(STUDY, copy) <= 6
    monkeypatch.setenv("PYTHONPATH", str(copy / "src"))
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    (copy / "build").mkdir()
    (copy / "build" / "tokenizer").symlink_to(root / "build" / "tokenizer")
    freeze = ("freeze", "TOY", "--because", "first")
    for arguments in (freeze, ("study", "toy_study")):
        done = call(copy, *arguments, seconds=200)
        assert done.code == 0, done.err[-2000:]
    said = python(
        copy,
        """
        from pathlib import Path
        from farcontext import files
        from farcontext.results import claims, freezing, tables, verdicts
        given = claims.read_claims(Path("claims.yaml")).claims["TOY"]
        made = Path("build/laptop/studies")
        table = tables.read_table(tables.path_in(made, "toy_study"))
        print(verdicts.judge("TOY", given, table).verdict)
        sidecar = files.read_json(tables.path_in(made, "toy_study").with_suffix(".json"))
        print(freezing.not_frozen(sidecar["frozen"], freezing.read_lock(Path(".").resolve())) == [])
        for name in ("figures/means.svg", "notebook.ipynb"):
            print((made / "toy_study" / name).is_file())
        """,
    )
    assert said.split() == ["supported", "True", "True", "True"]
