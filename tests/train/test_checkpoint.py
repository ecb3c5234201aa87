"""What a checkpoint saves is loaded bit for bit.

Old sets go, and a set that is not whole is no candidate.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from observe import refuses

from farcontext import files
from farcontext.train import checkpoint, kept


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


FILE = {"sha256": "0" * 64, "bytes": 1}


def damage(folder: Path, **changes: object) -> None:
    """Rewrite a manifest with other values and a hash that fits them."""
    body = files.read_json(folder / checkpoint.MANIFEST) | changes
    body = {key: value for key, value in body.items() if key != "sha256" and value is not None}
    kept.write_sealed(folder / checkpoint.MANIFEST, body)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format = 2: expected 1"),
        ({"step": 6}, "step = 6: expected the step of its folder"),
        ({"step": -5}, "step = -5: expected an integer ≥ 0"),
        ({"step": "5"}, "step = '5': expected an integer ≥ 0"),
        ({"step": True}, "step = True: expected an integer ≥ 0"),
        ({"step": 10**4000}, "step = 1000"),
        ({"extra": 1}, "extra = 1: expected one of format, step, files"),
        ({"files": None}, "files: expected this key"),
        ({"files": ["model.safetensors"]}, "files = ['model.safetensors']: expected a mapping"),
        ({"files": {"state.json": 3}}, "files.state.json = 3: expected"),
        ({"files": {"state.json": {"sha256": "0", "bytes": 1}}}, "files.state.json.sha256 = '0'"),
        ({"files": {"state.json": FILE | {"bytes": 10**400}}}, "bytes: expected 1000"),
        ({"files": {"../state.json": FILE}}, "'../state.json': expected"),
        ({"files": {"x" * 300 + ".json": FILE}}, "xxx"),
        ({"files": {"model.safetensors": FILE}}, "files: expected state.json among them"),
        ({"files": {"gone.json": FILE, "state.json": FILE}}, "gone.json: missing"),
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


def text_of(value: object) -> str:
    """Return a manifest that holds a value, with a hash of the right length."""
    return json.dumps({"format": 1, "step": 10, "files": value, "sha256": "0" * 64})


MANIFESTS = {
    "another shape": lambda folder: damage(folder, files=["model.safetensors"]),
    "no object": lambda folder: (folder / checkpoint.MANIFEST).write_text("[]", encoding="utf-8"),
    "no hash": lambda folder: (folder / checkpoint.MANIFEST).write_text("{}", encoding="utf-8"),
    "a number of many digits": lambda folder: damage(folder, step=10**4200),
    "a folder in its place": lambda folder: (
        (folder / checkpoint.MANIFEST).unlink(),
        (folder / checkpoint.MANIFEST).mkdir(),
    ),
    **{
        name: lambda folder, text=text: (folder / checkpoint.MANIFEST).write_text(
            text, encoding="utf-8"
        )
        for name, text in {
            "a number beyond all digits": text_of(0).replace(" 0,", f" {'9' * 5000},"),
            "an infinite number": text_of(0).replace(" 0,", " 1e999,"),
            "half a character": text_of("\ud800"),
            **{
                f"lists {depth} deep": text_of(0).replace(" 0,", f" {'[' * depth}{']' * depth},")
                for depth in (100, 900, 950, 980, 100_000)
            },
        }.items()
    },
    "a state of another shape": lambda folder: restate(folder, {"rows": 3}),
    "a state without rows": lambda folder: restate(folder, []),
}


def restate(folder: Path, state: object) -> None:
    """Give a set another state, which its manifest lists."""
    path = files.write_json(folder / checkpoint.STATE, state)
    listed = files.read_json(folder / checkpoint.MANIFEST)["files"]
    listed[path.name] = {"sha256": files.sha256_file(path), "bytes": path.stat().st_size}
    damage(folder, files=listed)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_of_another_shape_is_a_damaged_set_like_any_other(
    name: str, tmp_path: Path
) -> None:
    for step in (5, 10):
        save(tmp_path, step)
    MANIFESTS[name](tmp_path / "step-00000010")
    with pytest.warns(UserWarning, match="step 5 used: .*step-00000010") as caught:
        assert checkpoint.latest(tmp_path).step == 5
    assert len(caught) == 1


def test_what_a_kill_left_inside_the_removal_of_a_set_is_swept_and_whole_sets_stay(
    tmp_path: Path,
) -> None:
    """The half of a set is what earlier versions left; the other name is what is left now."""
    save(tmp_path, 5)
    save(tmp_path, 10)
    (tmp_path / "step-00000010" / checkpoint.MANIFEST).unlink()
    aside = tmp_path / f"{files.TEMPORARY}step-00000001-discarded"
    aside.mkdir()
    (aside / "model.safetensors").write_bytes(b"x")
    for name in ("step-x", "steps", "tensorboard"):
        (tmp_path / name).mkdir()
    checkpoint.sweep(tmp_path)
    kept_names = ["step-00000005", "step-x", "steps", "tensorboard"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept_names
    assert checkpoint.latest(tmp_path).step == 5


def test_a_set_that_cannot_be_moved_stays_whole(tmp_path: Path, monkeypatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError

    save(tmp_path, 5)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        checkpoint.discard(tmp_path / "step-00000005")
    assert checkpoint.latest(tmp_path).step == 5
    checkpoint.discard(tmp_path / "step-00000005")
    assert not list(tmp_path.iterdir())
