"""A kept result was cut, changed, or is read with another tokenizer than its run had."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from observe import refuses, run_bits, snapshot
from tiny import constant, make_project, task_run, tiny_run

from farcontext import files
from farcontext.checkpoints import load
from farcontext.train import kept, keys, loop, runs
from farcontext.train.runs import EvalConfig

RUN = tiny_run(steps=6, save_every=3)


@pytest.fixture
def cache(tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run cache of this test's own."""
    monkeypatch.chdir(tiny_project)
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FARCONTEXT_JOBS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "cache"
    torch.set_num_threads(before)


def text(change: Callable[[str], str]) -> Callable[[Path], None]:
    """Return a damage that changes a file's text."""
    return lambda path: (
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8") and None
    )


def in_place(value: object) -> Callable[[Path], None]:
    """Return a damage that puts another JSON document in a file's place."""
    return text(lambda _: json.dumps(value))


DAMAGES = {
    "cut": text(lambda old: old[:100]),
    "empty": text(lambda _: ""),
    "no bytes of text": lambda path: path.write_bytes(b"\xff\x00") and None,
    "an empty object": in_place({}),
    "a list": in_place([]),
    "without a hash, as earlier versions wrote it": text(
        lambda old: json.dumps({k: v for k, v in json.loads(old).items() if k != "sha256"})
    ),
    "a changed digit": text(lambda old: old.replace('": 0.', '": 1.', 1).replace(" 7\n", " 8\n")),
    "an infinite number": text(lambda old: old.replace("\n}", ',\n "more": 1e999\n}')),
    "another hash": text(lambda old: old.replace('"sha256": "', '"sha256": "0')),
    "another shape under a right hash": lambda path: kept.write_sealed(path, {"rows": 3}) and None,
    "rows that are none": lambda path: kept.write_sealed(path, {"rows": [1]}) and None,
    "nested too deep": text(lambda _: "[" * 100_000 + "]" * 100_000),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_fault_23_a_damaged_result_is_made_again_from_its_checkpoint(
    name: str, cache: Path
) -> None:
    first = loop.train(RUN)
    bits, cost = run_bits(cache), (first.folder / kept.COST).read_bytes()
    before = (first.folder / kept.RESULT).read_bytes()
    DAMAGES[name](first.folder / kept.RESULT)
    assert (first.folder / kept.RESULT).read_bytes() != before
    with pytest.warns(UserWarning, match=kept.RESULT):
        again = loop.train(RUN)
    assert (again.steps_trained, again.rows, again.cost) == (0, first.rows, first.cost)
    assert run_bits(cache) == bits and (first.folder / kept.COST).read_bytes() == cost
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loop.train(RUN).rows == first.rows


@pytest.mark.parametrize("name", DAMAGES)
def test_fault_23_a_damaged_evaluation_is_made_again(name: str, cache: Path) -> None:
    job = EvalConfig(constant, options={"value": 7})
    first = runs.evaluate(job)
    before = (first.folder / kept.ROWS).read_bytes()
    DAMAGES[name](first.folder / kept.ROWS)
    with pytest.warns(UserWarning, match=kept.ROWS):
        assert runs.result_of(job).rows == [{"value": 7}]
    assert (first.folder / kept.ROWS).read_bytes() == before


def test_fault_23_a_damaged_cost_is_noticed_and_the_result_stays(cache: Path) -> None:
    first = loop.train(RUN)
    path = first.folder / kept.COST
    path.write_text(path.read_text(encoding="utf-8").replace('"steps": 6', '"steps": 7'), "utf-8")
    with pytest.warns(UserWarning, match=kept.COST):
        again = loop.train(RUN)
    assert again.rows == first.rows and again.cost["steps"] == 0


def test_fault_23_what_nothing_can_make_again_is_one_line_that_says_what_to_delete(
    cache: Path,
) -> None:
    """Every checkpoint is damaged too; or the newest; or a folder stands in the result's place."""
    folder = loop.train(RUN).folder
    before = set(snapshot(folder))
    for path in folder.glob("step-*/model.safetensors"):
        path.write_bytes(b"")
    DAMAGES["cut"](folder / kept.RESULT)
    with pytest.warns(UserWarning), refuses(f"{folder}: every checkpoint is damaged; delete the"):
        loop.train(RUN)
    shutil.rmtree(folder)
    assert loop.train(RUN).steps_trained == 6
    assert {name for name in before if "tensorboard" not in name} <= set(snapshot(folder))
    (folder / "step-00000006" / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning), refuses("of 6 steps; delete the folder to train again"):
        loop.load_model(RUN)
    (folder / kept.RESULT).unlink()
    (folder / kept.RESULT).mkdir()
    with pytest.warns(UserWarning), refuses(f"{folder / kept.RESULT}: cannot be written"):
        loop.train(RUN)


# ------------------------------------------------------------------------------------------- origin


def test_fault_24_a_run_whose_tokenizer_was_trained_again_is_refused_with_both_hashes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = loop.train(RUN).folder
    load.load(folder)
    trained = files.sha256_file(keys.tokens_folder() / "tokenizer.json")
    project = make_project(tmp_path / "other")
    monkeypatch.chdir(project)
    load.load(folder)  # the same text gives the same tokenizer in another folder
    path = keys.tokens_folder() / "tokenizer.json"
    content = files.read_json(path)
    content["model"]["merges"].reverse()  # as many tokens as before
    files.write_json(path, content)
    with refuses(f"expected {trained}") as caught:
        load.load(folder)
    assert files.sha256_file(path) in str(caught.value) and str(folder) in str(caught.value)


def test_fault_24_a_configuration_that_was_changed_is_refused_with_both_hashes(
    cache: Path,
) -> None:
    folder = loop.train(RUN).folder
    config = files.read_json(folder / kept.CONFIG)
    config["model"]["theta"] = 20_000.0
    files.write_json(folder / kept.CONFIG, config)
    with refuses(f"{folder / kept.CONFIG} has sha256 = ") as caught:
        load.load(folder)
    assert keys.origin(RUN)["config"] in str(caught.value)


@pytest.mark.parametrize("name", ["cut", "an empty object", "a changed digit of the hash", "gone"])
def test_fault_24_a_run_without_its_hashes_is_refused(name: str, cache: Path) -> None:
    path = loop.train(RUN).folder / kept.ORIGIN
    damages = DAMAGES | {
        "gone": Path.unlink,
        "a changed digit of the hash": text(lambda old: old.replace('config": "', 'config": "0')),
    }
    damages[name](path)
    with refuses(str(path)):
        load.load(path.parent)


def test_a_run_on_tasks_has_no_tokenizer(cache: Path) -> None:
    assert keys.origin(task_run())["tokenizer"] is None
