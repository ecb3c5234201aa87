"""A checkpoint's save is killed, or its bytes are damaged.

Another one is not a checkpoint but a program.
"""

import ast
import json
import pickle
import random
import shutil
import sys
import warnings
from functools import cache
from pathlib import Path

import boundaries
import children
import numpy as np
import pytest
import torch
from observe import leftovers, refuses

from farcontext import files
from farcontext.files import UserError
from farcontext.train import checkpoint

# name → (steps saved before, step of the save that is killed, sets kept,
#         steps that may load afterwards)
SAVES = {
    "first": ((), 5, 2, {None, 5}),
    "overwrite": ((5,), 10, 1, {5, 10}),  # keep 1: the newest set takes the place of the only one
    "again": ((5,), 5, 1, {5}),  # the same step once more, as after a step that was not finite
}


def bits(found: checkpoint.Checkpoint) -> dict[str, bytes]:
    return {
        f"{g}/{n}": t.numpy().tobytes()
        for g in ("model", "optimizer")
        for n, t in found.tensors(g).items()
    }


def as_saved(step: int) -> dict[str, bytes]:
    groups, _ = children.contents(step)
    return {
        f"{g}/{n}": t.numpy().tobytes() for g, tensors in groups.items() for n, t in tensors.items()
    }


def prepare(folder: Path, steps: tuple[int, ...]) -> None:
    for step in steps:
        groups, state = children.contents(step)
        checkpoint.save(folder, step, groups=groups, state=state)


def sweep(name: str, project: Path, disk: Path, way: str) -> list[str]:
    """Kill one save at each of its calls; return what loaded afterwards, one word a call."""
    before, step, keep, allowed = SAVES[name]
    run = boundaries.with_strace if way == "strace" else boundaries.with_wrapper
    prepare(disk / "whole" / "run", before)
    calls = run(project, disk / "whole", (disk / "whole" / "run", (step,), keep), None)
    outcomes = []
    for number, call in enumerate(boundaries.numbered(calls), 1):
        work = disk / f"{number}"
        prepare(work / "run", before)
        run(project, work, (work / "run", (step,), keep), call if way == "strace" else number)
        files.sweep_leftovers(work / "run")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no set may be found damaged
            found = checkpoint.latest(work / "run")
        loaded = found.step if found else None
        assert loaded in allowed, (
            f"{name}: killed at call {number} of {len(calls)}, {call}: step {loaded} loads"
        )
        assert found is None or bits(found) == as_saved(found.step), (
            f"{name}: call {number}, {call}: torn"
        )
        assert not leftovers(work), f"{name}: call {number}, {call}: leftovers not swept"
        outcomes.append(str(loaded))
        shutil.rmtree(work)
    return outcomes


@pytest.mark.parametrize("name", SAVES)
def test_fault_3_a_save_killed_at_any_system_call_leaves_the_old_set_or_the_new(
    name: str, tiny_project: Path, fast_disk: Path
) -> None:
    outcomes = sweep(
        name, tiny_project, fast_disk, "strace" if boundaries.strace_permitted() else "wrapper"
    )
    print(f"{name}: {len(outcomes)} calls: {outcomes}")
    assert len(outcomes) >= 20, "a save makes more calls than that: the sweep missed some"
    assert set(outcomes) == {str(step) for step in SAVES[name][3]}, (
        "every allowed outcome must have been seen"
    )


def test_fault_3_without_ptrace_the_wrapped_calls_find_the_same(
    tiny_project: Path, fast_disk: Path
) -> None:
    assert set(sweep("first", tiny_project, fast_disk, "wrapper")) == {"None", "5"}


FLIPS = {
    "model.safetensors": 150,
    "optimizer.safetensors": 60,
    "state.json": 60,
    checkpoint.MANIFEST: 300,
}


@pytest.mark.parametrize("name", FLIPS)
def test_fault_22_one_flipped_bit_anywhere_in_a_set_is_refused(
    name: str, tmp_path: Path, rng: random.Random
) -> None:
    """In the header (the first 8 bytes and its JSON), in the data, in the manifest."""
    prepare(tmp_path, (5,))
    folder = tmp_path / "step-00000005"
    path = folder / name
    good = path.read_bytes()
    places = list(range(64)) + [rng.randrange(len(good) * 8) for _ in range(FLIPS[name])]
    for place in places:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        path.write_bytes(bad)
        with pytest.raises(UserError) as caught:
            checkpoint.load(folder)
        assert str(path) in str(caught.value), f"bit {place}: {caught.value}"
    path.write_bytes(good)
    assert bits(checkpoint.load(folder)) == as_saved(5)


def test_fault_22_a_damaged_newest_set_falls_back_to_the_older_with_one_warning(
    tmp_path: Path,
) -> None:
    prepare(tmp_path, (5, 10))
    weights = tmp_path / "step-00000010" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.warns(UserWarning, match="model.safetensors") as caught:
        found = checkpoint.latest(tmp_path)
    assert len(caught) == 1
    assert found.step == 5 and bits(found) == as_saved(5)
    (tmp_path / "step-00000005" / "state.json").write_text("{}", encoding="utf-8")
    with refuses("every checkpoint is damaged") as caught:
        checkpoint.latest(tmp_path)
    assert "step-00000005" in str(caught.value) and "step-00000010" in str(caught.value)


@cache
def pickle_events() -> list[str]:
    """Return a list that each unpickling in this process adds to.

    It does so from now on (an audit hook cannot be removed).
    """
    events: list[str] = []
    sys.addaudithook(
        lambda event, _: events.append(event) if event == "pickle.find_class" else None
    )
    return events


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def pickles(folder: Path, canary: Path) -> dict[str, Path]:
    """Write the payload in each form in which weights travel."""
    payload = Payload(canary)
    made = {
        name: folder / name
        for name in ("model.pt", "model.bin", "model.pkl", "model.npy", "model.safetensors")
    }
    torch.save(payload, made["model.pt"])
    torch.save({"weight": payload}, made["model.bin"])
    made["model.pkl"].write_bytes(pickle.dumps(payload))
    np.save(made["model.npy"], np.array([payload], dtype=object), allow_pickle=True)
    made["model.safetensors"].write_bytes(pickle.dumps(payload))
    return made


def test_fault_76_the_payload_would_run_if_it_were_unpickled(tmp_path: Path) -> None:
    """The twin: the canary does sing."""
    pickles(tmp_path, tmp_path / "canary")
    before = len(pickle_events())
    pickle.loads((tmp_path / "model.pkl").read_bytes())
    assert (tmp_path / "canary").exists()
    assert len(pickle_events()) > before


@pytest.mark.parametrize(
    "name", ["model.pt", "model.bin", "model.pkl", "model.npy", "model.safetensors"]
)
def test_fault_76_a_pickle_in_a_checkpoint_never_runs(name: str, tmp_path: Path) -> None:
    """A pickle beside the weights is ignored.

    In their place it is refused, even with a manifest that lists its hash.
    """
    canary = tmp_path / "canary"
    source = tmp_path / "pickles"
    source.mkdir()
    made = pickles(source, canary)
    prepare(tmp_path / "run", (5,))
    folder = tmp_path / "run" / "step-00000005"
    heard = pickle_events()
    before = len(heard)

    shutil.copy(made[name], folder / "extra.safetensors")
    assert bits(checkpoint.load(folder)) == as_saved(5)

    weights = folder / "model.safetensors"
    shutil.copy(made[name], weights)
    with refuses("model.safetensors"):
        checkpoint.load(folder)
    manifest = json.loads((folder / checkpoint.MANIFEST).read_text(encoding="utf-8"))
    manifest["files"]["model.safetensors"] = {
        "sha256": files.sha256_file(weights),
        "bytes": weights.stat().st_size,
    }
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    files.write_json(folder / checkpoint.MANIFEST, body | {"sha256": files.sha256_json(body)})
    with refuses("model.safetensors"):
        checkpoint.load(folder).tensors("model")
    assert not canary.exists()
    assert len(heard) == before


FORBIDDEN = ("pickle", "dill", "cloudpickle", "joblib.load", "torch.load", "shelve", "marshal")


def unpickling(source: str) -> list[str]:
    """Return what a source could unpickle with.

    These are forbidden imports, torch.load, and an allow_pickle that is not False.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom):
            found += [
                f"{node.module}.{a.name}"
                for a in node.names
                if f"{node.module}.{a.name}" in FORBIDDEN
            ]
            found += [node.module] if node.module in FORBIDDEN else []
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            if any(not (isinstance(v, ast.Constant) and v.value is False) for v in allowed):
                found.append(f"{name}(allow_pickle)")
            if name.endswith(("np.load", "numpy.load")) and not allowed:
                found.append(f"{name} without allow_pickle=False")
    return found


def test_fault_76_nothing_in_the_library_unpickles(root: Path) -> None:
    sources = sorted((root / "src" / "farcontext").rglob("*.py"))
    assert sources
    found = {
        path.name: bad for path in sources if (bad := unpickling(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(p)",
        "from torch import load",
        "np.load(p, allow_pickle=True)",
        "np.load(p)",
        "joblib.load(p)",
    ],
)
def test_fault_76_the_rule_finds_a_planted_unpickler(source: str) -> None:
    assert unpickling(source)
