"""Fixtures shared by all tests: the corpus that the data stages made, and a run cache of this session's own."""

import os
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """One cache a session, one job, no progress bars: what notebooks and tests train is trained once."""
    if "LONGCTX_CACHE" not in os.environ:
        os.environ["LONGCTX_CACHE"] = str(config.cache.mkdir("longctx-runs")) if config.cache else ""
    os.environ.setdefault("LONGCTX_JOBS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder whose corpus and tokenizer are real and small; training in it takes milliseconds."""
    return tiny.make_project(tmp_path_factory.mktemp("tiny"))
