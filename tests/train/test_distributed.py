"""A process alone shares nothing.

The number of processes belongs to the run. The tests with two processes are in tests/faults.
"""

from pathlib import Path

import pytest
import torch
from observe import refuses
from tiny import task_run, tiny_run

from farcontext.schema import validate
from farcontext.train import distributed, keys, loop
from farcontext.train.config import RunConfig


@pytest.fixture
def project(tiny_project: Path, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tiny_project)
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def in_two(run: RunConfig) -> RunConfig:
    return run.model_copy(update={"processes": 2})


def test_a_process_alone_is_the_first_and_shares_nothing() -> None:
    assert (distributed.processes(), distributed.rank(), distributed.first()) == (1, 0, True)
    assert distributed.together(lambda: 3) == distributed.on_first(lambda: 3) == 3
    assert distributed.total(0.1) == 0.1
    model = torch.nn.Linear(1, 1)
    assert distributed.parallel(model, torch.device("cpu")) is model
    assert distributed.gathered(model.state_dict()).keys() == {"weight", "bias"}
    with distributed.group(), distributed.unsynchronised(model, when=True):
        assert distributed.processes() == 1


def test_a_number_of_processes_other_than_the_runs_is_refused_before_anything_is_written(
    project: Path,
) -> None:
    with refuses("processes = 2: 1 started: expected as many (torchrun --nproc-per-node 2"):
        loop.train(in_two(tiny_run()))
    assert not project.exists()


def test_a_finished_run_of_several_processes_is_read_by_one(project: Path) -> None:
    run = tiny_run(steps=4, save_every=4)
    loop.train(run)
    keys.run_folder(run).rename(keys.run_folder(in_two(run)))
    assert loop.train(in_two(run)).steps_trained == 0
    loop.load_model(in_two(run))


def test_the_number_of_processes_is_in_the_key_and_divides_the_rows(project: Path) -> None:
    assert keys.run_key(tiny_run()) != keys.run_key(in_two(tiny_run()))
    given = tiny_run(rows=6, accumulation=3).model_dump(mode="json")
    assert validate(RunConfig, given | {"processes": 2}, "run.yaml").processes == 2
    with refuses(
        "batch.rows = 6, optimizer.accumulation = 3, processes = 3: "
        "expected accumulation · processes"
    ):
        validate(RunConfig, given | {"processes": 3}, "run.yaml")
    given = task_run().model_dump(mode="json") | {"processes": 2}
    with refuses("batch.rows = 5"):
        validate(RunConfig, given, "run.yaml")


@pytest.mark.parametrize(
    ("processes", "kind", "line"),
    [
        (1, "decoder", "parallel = fsdp, processes = 1: expected 2 processes or more"),
        (2, "lstm", "parallel = fsdp, model.kind = lstm: expected a Transformer, or ddp"),
    ],
)
def test_weights_that_cannot_be_shared_out_are_refused(
    processes: int, kind: str, line: str
) -> None:
    given = (tiny_run() if kind == "decoder" else task_run(kind=kind)).model_dump(mode="json")
    for stage in given["batch"].get("stages", ()):
        stage["rows"] = 6
    with refuses(line):
        validate(RunConfig, given | {"processes": processes, "parallel": "fsdp"}, "run.yaml")
    with refuses("parallel = 'zero': expected one of ddp, fsdp"):
        validate(RunConfig, given | {"processes": 2, "parallel": "zero"}, "run.yaml")
