"""Fixtures of the fault tests. FAULT_SEED=n repeats what a failing test printed."""

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DEFAULT_SEED = 20261124


@pytest.fixture
def seed() -> int:
    """The seed of a random fault, printed where a failure shows it."""
    value = int(os.environ.get("FAULT_SEED", DEFAULT_SEED))
    print(f"FAULT_SEED={value} repeats this")
    return value


@pytest.fixture
def rng(seed: int) -> random.Random:
    """A generator from that seed."""
    return random.Random(seed)


@pytest.fixture
def fast_disk() -> Iterator[Path]:
    """Make a folder in memory where there is one.

    A killed process leaves the same files there, and an fsync costs nothing.
    """
    base = Path("/dev/shm")
    roomy = os.access(base, os.W_OK) and shutil.disk_usage(base).free > 32 << 20
    folder = Path(tempfile.mkdtemp(prefix="farcontext-faults-", dir=base if roomy else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
