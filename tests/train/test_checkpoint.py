"""What a checkpoint saves is loaded bit for bit.

Old sets go, and a set that is not whole is no candidate.
"""

import os
from pathlib import Path

import pytest
import torch
from observe import refuses

from farcontext import files
from farcontext.train import checkpoint


def save(folder: Path, step: int, keep: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(step)
    weights = {
        "w": torch.randn(4, 3).t(),
        "half": torch.randn(5).bfloat16(),
        "step": torch.tensor(float(step)),
    }
    random = {"torch": torch.get_rng_state()}
    rows = [{"loss": 0.1 + step, "norm": 1e-300}]
    checkpoint.save(
        folder, step, groups={"model": weights, "random": random}, state={"rows": rows}, keep=keep
    )
    return weights


def test_a_set_loads_with_the_bits_that_were_saved(tmp_path: Path) -> None:
    weights = save(tmp_path, 7)
    found = checkpoint.latest(tmp_path)
    assert found.step == 7 and found.state == {"rows": [{"loss": 7.1, "norm": 1e-300}]}
    loaded = found.tensors("model")
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
    assert torch.equal(found.tensors("random")["torch"], torch.get_rng_state())


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_sets_are_kept_and_the_others_go(keep: int, tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep)
    assert checkpoint.steps(tmp_path) == [5, 10, 15, 20][-keep:]
    assert len(list(tmp_path.iterdir())) == keep


def test_the_newest_is_the_highest_step_never_the_latest_time(tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, step)
    os.utime(tmp_path / "step-00000010", (0, 0))
    os.utime(tmp_path / "step-00000005", (4_070_908_800, 4_070_908_800))
    assert checkpoint.latest(tmp_path).step == 10


def test_a_folder_without_a_set_has_none(tmp_path: Path) -> None:
    (tmp_path / "step-00000005").mkdir()
    (tmp_path / "step-x").mkdir()
    (tmp_path / "step-x" / checkpoint.MANIFEST).write_text("{}", encoding="utf-8")
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "missing") is None


def test_reading_a_folder_removes_nothing_from_it(tmp_path: Path) -> None:
    """Another process may be writing there."""
    save(tmp_path, 5)
    (tmp_path / f"{files.TEMPORARY}step-00000010-abcd").mkdir()
    checkpoint.latest(tmp_path)
    assert (tmp_path / f"{files.TEMPORARY}step-00000010-abcd").exists()


def damage(folder: Path, **changes: object) -> None:
    """Rewrite a manifest with other values and a hash that fits them."""
    body = files.read_json(folder / checkpoint.MANIFEST) | changes
    body = {key: value for key, value in body.items() if key != "sha256" and value is not None}
    files.write_json(folder / checkpoint.MANIFEST, body | {"sha256": files.sha256_json(body)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format = 2: expected 1"),
        ({"step": 6}, "step = 6: expected the step of its folder"),
        ({"step": -5}, "expected the step of its folder"),
        ({"step": "5"}, "expected the step of its folder"),
        ({"extra": 1}, "expected the keys"),
        ({"files": None}, "expected the keys"),
        ({"files": {"../state.json": {"sha256": "0", "bytes": 1}}}, "expected plain file names"),
        ({"files": {"gone.safetensors": {"sha256": "0", "bytes": 1}}}, "gone.safetensors: missing"),
    ],
)
def test_a_manifest_that_lies_is_refused_in_words(
    changes: dict, message: str, tmp_path: Path
) -> None:
    save(tmp_path, 5)
    damage(tmp_path / "step-00000005", **changes)
    with refuses(message):
        checkpoint.load(tmp_path / "step-00000005")


@pytest.mark.parametrize("size", [0, 1, 50, -1])
def test_a_file_that_was_cut_or_grew_is_refused_with_both_sizes(size: int, tmp_path: Path) -> None:
    save(tmp_path, 5)
    path = tmp_path / "step-00000005" / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:size] if size >= 0 else data + b"x")
    with refuses(f"{path}: {path.stat().st_size} bytes: expected {len(data)}"):
        checkpoint.load(path.parent)
