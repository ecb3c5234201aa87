"""Fixtures shared by all tests: the corpus that the data stages made, and a run cache of this session's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
