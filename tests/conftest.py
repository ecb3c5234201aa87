"""All tests share these fixtures.

They are the corpus that the data stages made, and a run cache of this session's own.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import tiny
import torch

ROOT = Path(__file__).parent.parent
OWN_CACHE = pytest.StashKey[str]()
sys.path.append(str(ROOT / "benchmarks"))  # for what a benchmark imports from beside it


def pytest_configure(config: pytest.Config) -> None:
    """Set one cache a session, one job and no progress bars.

    What notebooks and tests train is trained once.
    """
    if "FARCONTEXT_CACHE" not in os.environ:
        config.stash[OWN_CACHE] = os.environ["FARCONTEXT_CACHE"] = tempfile.mkdtemp(
            prefix="farcontext-runs-"
        )
    os.environ.setdefault("FARCONTEXT_JOBS", "1")
    # two threads on a busy machine wait for each other and take ten times as long
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    os.environ.setdefault("TQDM_DISABLE", "1")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the cache that this session made; one that the caller named stays."""
    if (folder := config.stash.get(OWN_CACHE, None)) is not None:
        os.environ.pop("FARCONTEXT_CACHE", None)
        shutil.rmtree(folder, ignore_errors=True)


def _made(name: str) -> Path:
    folder = ROOT / "build" / name
    if not (folder / "card.json").is_file():
        pytest.fail("run `dvc repro tokenizer` first (make test does)", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def corpus_folder() -> Path:
    """What stage `corpus` made."""
    return _made("corpus")


@pytest.fixture(scope="session")
def tokenizer_folder() -> Path:
    """What stage `tokenizer` made."""
    return _made("tokenizer")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project folder whose corpus and tokenizer are real and small.

    Training in it takes milliseconds.
    """
    return tiny.make_project(tmp_path_factory.mktemp("tiny"))
