"""Folders of the hub's cache are found, and named by their repository."""

import shutil
from pathlib import Path

import pytest
from observe import refuses
from rows import LLAMA, saved

from farcontext import files
from farcontext.checkpoints import hub, load
from farcontext.checkpoints.load import wrapped
from farcontext.data.tokenizer import load_tokenizer

HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, tiny_project: Path) -> Path:
    """A repository as the hub's client keeps it: files are links to blobs."""
    root = tmp_path / "hub" / "models--Some-Org--A--Name"
    made = saved(LLAMA, tmp_path / "made")
    wrapped(load_tokenizer(tiny_project / "build" / "tokenizer")).save_pretrained(made)
    snapshot = root / "snapshots" / HASH
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for number, path in enumerate(sorted(made.iterdir())):
        shutil.copy(path, root / "blobs" / f"{number}")
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / f"{number}")
    files.write_atomic(root / "refs" / "main", HASH)
    return root


def test_a_cached_repository_loads_under_its_own_name(cached: Path) -> None:
    for path in (cached, cached / "snapshots" / HASH):
        found = load.load(path)
        assert found.name == "Some-Org/A--Name" and found.path.name == HASH


def test_the_snapshot_that_main_names_is_taken(cached: Path) -> None:
    other = cached / "snapshots" / "ffff"
    shutil.copytree(cached / "snapshots" / HASH, other)
    assert hub.resolved(cached).name == HASH
    files.write_atomic(cached / "refs" / "main", "ffff\n")
    assert hub.resolved(cached) == other
    (cached / "refs" / "main").unlink()
    with refuses("expected one snapshot with config.json, or refs/main to name it; found"):
        hub.resolved(cached)


def test_another_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert hub.resolved(tmp_path) == tmp_path and hub.name_of(tmp_path) == tmp_path.name
    (tmp_path / "models--x").mkdir()
    assert hub.resolved(tmp_path / "models--x") == tmp_path / "models--x"
    assert hub.name_of(tmp_path / "models--gpt2" / "snapshots" / "ab") == "gpt2"
