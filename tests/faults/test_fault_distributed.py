"""Two processes train one model: the curve and weights of one.

A failure is one line, and after a kill the training goes on.
"""

import os
import signal
import time
from pathlib import Path

import children
import pytest
import torch
from observe import one_line, run_bits
from tiny import task_run, tiny_run

from farcontext import files
from farcontext.train import checkpoint, keys
from farcontext.train.config import Curriculum, RunConfig

LOSS, WEIGHT = 1e-5, 1e-5  # relative, absolute: fp32 sums in another order, over 20 steps

RUNS = {
    "decoder": tiny_run(steps=20, save_every=20),
    "encoder, accumulated": tiny_run(
        kind="encoder", rows=8, accumulation=2, steps=20, save_every=20
    ),
    "positions drawn": task_run(random_positions=64),
    "lstm": task_run(kind="lstm"),
}


def shared(run: RunConfig, processes: int, parallel: str = "ddp") -> RunConfig:
    """Return the run for so many processes; a curriculum's rows become six."""
    changes = {"processes": processes, "parallel": parallel, "evaluate_every": 10}
    if isinstance(run.batch, Curriculum):
        stages = tuple(stage.model_copy(update={"rows": 6}) for stage in run.batch.stages)
        changes["batch"] = run.batch.model_copy(update={"stages": stages})
    return RunConfig.model_validate(run.model_copy(update=changes).model_dump())


WAYS = [(name, "ddp") for name in RUNS] + [(name, "fsdp") for name in RUNS if name != "lstm"]


def ended(group: list[children.Child]) -> tuple[list[int], str]:
    """Wait for all; return the exit codes by rank, and all that was said."""
    codes = [child.wait() for child in group]
    return codes, "".join(child.said() for child in group)


def kept(cache: Path) -> checkpoint.Checkpoint:
    (folder,) = (cache / "runs").iterdir()
    return checkpoint.latest(folder)


def alike(one: Path, two: Path) -> bool:
    """Return whether two caches' runs have the same curve and weights, within the tolerances."""
    one, two = kept(one), kept(two)
    close = [
        abs(a[name] - b[name]) <= LOSS * abs(a[name])
        for a, b in zip(one.state["rows"], two.state["rows"], strict=True)
        for name in a
    ]
    weights, others = one.tensors("model"), two.tensors("model")
    apart = max(float((weights[name] - others[name]).abs().max()) for name in weights)
    return (
        all(close)
        and apart <= WEIGHT
        and torch.equal(one.tensors("random")["torch"], two.tensors("random")["torch"])
    )


@pytest.mark.parametrize(("name", "parallel"), WAYS)
def test_two_processes_have_the_curve_and_the_weights_of_one(
    name: str, parallel: str, tiny_project: Path, fast_disk: Path
) -> None:
    alone, two = fast_disk / "alone", fast_disk / "two"
    one = children.start(children.train, tiny_project, alone, shared(RUNS[name], 1))
    group = children.start_group(children.train, tiny_project, two, shared(RUNS[name], 2, parallel))
    assert ended([one, *group]) == ([0, 0, 0], "")
    assert alike(alone, two)
    assert len(kept(two).state["rows"]) == 20 and "validation_loss" in kept(two).state["rows"][-1]
    (folder,) = (two / "runs").iterdir()
    assert len(list((folder / "tensorboard").iterdir())) == 1, "the first process alone writes"


def test_gradients_that_are_not_exchanged_are_seen(tiny_project: Path, fast_disk: Path) -> None:
    alone, two = fast_disk / "alone", fast_disk / "two"
    one = children.start(children.train, tiny_project, alone, shared(RUNS["decoder"], 1))
    group = children.start_group(
        children.train_apart, tiny_project, two, shared(RUNS["decoder"], 2)
    )
    assert ended([one, *group])[0] == [0, 0, 0]
    assert not alike(alone, two)


@pytest.mark.parametrize(("parallel", "kept"), [("ddp", "1.00"), ("fsdp", "0.50")])
def test_a_process_of_fsdp_keeps_its_share_of_the_weights_and_of_the_moments(
    parallel: str, kept: str, tiny_project: Path, fast_disk: Path
) -> None:
    run = shared(RUNS["decoder"], 2, parallel)
    codes, said = ended(children.start_group(children.count_kept, tiny_project, fast_disk, run))
    assert codes == [0, 0]
    assert said.splitlines() == [f"{rank}: {kept}" for rank in (0, 0, 1, 1)]


@pytest.mark.parametrize(("before", "after"), [("fsdp", "ddp"), ("ddp", "fsdp"), ("fsdp", "alone")])
def test_a_save_of_one_way_goes_on_in_another(
    before: str, after: str, tiny_project: Path, fast_disk: Path, monkeypatch
) -> None:
    """The files hold whole weights and moments: nothing tells how many processes wrote them."""
    monkeypatch.chdir(tiny_project)
    monkeypatch.setenv("FARCONTEXT_CACHE", str(fast_disk / "cache"))
    plain = tiny_run(steps=20, save_every=5)
    run = {way: shared(plain, 2, way) for way in ("ddp", "fsdp")} | {"alone": shared(plain, 1)}
    whole = children.start(children.train, tiny_project, fast_disk / "whole", run["alone"])
    stopped = children.start_group(
        children.train_and_die, tiny_project, fast_disk / "cache", run[before], 1, 12
    )
    assert ended([whole])[0] == [0] and ended(stopped)[0][1] == -signal.SIGKILL
    assert kept(fast_disk / "cache").step == 10
    keys.run_folder(run[before]).rename(keys.run_folder(run[after]))
    count = run[after].processes
    group = children.start_group(
        children.train, tiny_project, fast_disk / "cache", run[after], count=count
    )
    assert ended(group) == ([0] * count, "")
    assert alike(fast_disk / "whole", fast_disk / "cache")


def test_a_sharded_gradient_that_is_not_finite_is_named_and_the_weights_before_it_are_kept(
    tiny_project: Path, fast_disk: Path
) -> None:
    run = shared(tiny_run(steps=10, save_every=5), 2, "fsdp")
    codes, said = ended(
        children.start_group(children.train_with_nan, tiny_project, fast_disk, run, 6)
    )
    assert codes == [2, 2]
    one_line(said, "step = 6: loss is not finite", "weights of step 6 kept")
    assert kept(fast_disk).step == 6


@pytest.mark.parametrize(("rank", "parallel"), [(0, "ddp"), (1, "ddp"), (0, "fsdp"), (1, "fsdp")])
def test_fault_90_when_one_of_two_is_killed_the_other_ends_with_one_line_and_the_run_goes_on(
    rank: int, parallel: str, tiny_project: Path, fast_disk: Path
) -> None:
    run = shared(tiny_run(steps=30, save_every=5), 2, parallel)
    whole = children.start_group(children.train, tiny_project, fast_disk / "whole", run)
    assert ended(whole) == ([0, 0], "")
    group = children.start_group(
        children.train_and_die, tiny_project, fast_disk / "killed", run, rank, 13
    )
    codes, said = ended(group)
    assert codes[rank] == -signal.SIGKILL and codes[1 - rank] == 2
    one_line(
        said,
        f"process {1 - rank} of 2",
        "another process of this run ended",
        "goes on from the last save",
    )
    assert kept(fast_disk / "killed").step == 10
    assert ended(children.start_group(children.train, tiny_project, fast_disk / "killed", run)) == (
        [0, 0],
        "",
    )
    assert run_bits(fast_disk / "killed") == run_bits(fast_disk / "whole")


def test_fault_91_a_signal_to_one_of_two_ends_both_after_the_same_saved_step_with_one_line(
    tiny_project: Path, fast_disk: Path
) -> None:
    run = shared(tiny_run(steps=100, save_every=100), 2)
    given = files.write_json(fast_disk / "run.yaml", run.model_dump(mode="json"))
    whole = children.start_group(children.train, tiny_project, fast_disk / "whole", run)
    assert ended(whole) == ([0, 0], "")
    cache, steps = fast_disk / "signalled", fast_disk / "steps"
    group = children.start_group(
        children.command_counted, tiny_project, cache, steps, -1, "train", str(given)
    )
    give_up = time.monotonic() + children.SECONDS
    while not steps.exists() or steps.stat().st_size < 10:
        assert time.monotonic() < give_up
        time.sleep(0.001)
    group[1].kill(signal.SIGTERM)
    codes, said = ended(group)
    assert codes == [143, 143], said
    one_line(said, f"stopped by SIGTERM: step {kept(cache).step} of 100 is saved")
    assert steps.stat().st_size == 2 * kept(cache).step
    assert ended(children.start_group(children.train, tiny_project, cache, run)) == ([0, 0], "")
    assert run_bits(cache) == run_bits(fast_disk / "whole")


def test_a_failure_of_one_process_ends_all_and_is_said_once(
    tiny_project: Path, fast_disk: Path
) -> None:
    codes, said = ended(children.start_group(children.fail_at_last, tiny_project, fast_disk))
    assert codes == [2, 2]
    one_line(said, "text.txt: expected a file here")
    codes, said = ended(children.start_group(children.disagree, tiny_project, fast_disk))
    assert codes == [2, 2]
    one_line(said, "first step = 0 in process 0, 1 in process 1: expected the same code and files")


def test_a_folder_in_use_or_a_wrong_number_of_processes_is_refused_by_all_and_said_once(
    tiny_project: Path, fast_disk: Path, monkeypatch
) -> None:
    run = shared(RUNS["decoder"], 2)
    monkeypatch.chdir(tiny_project)
    monkeypatch.setenv("FARCONTEXT_CACHE", str(fast_disk))
    with files.lock(keys.run_folder(run)):
        codes, said = ended(children.start_group(children.train, tiny_project, fast_disk, run))
    assert codes == [2, 2]
    one_line(said, f"in use by process {os.getpid()}")
    codes, said = ended(
        children.start_group(children.train, tiny_project, fast_disk, shared(run, 1))
    )
    assert codes == [2, 2]
    one_line(said, "processes = 1: 2 started: expected as many")


def test_the_command_starts_two_processes_and_says_in_one_line_which_was_killed(
    tiny_project: Path, fast_disk: Path, monkeypatch
) -> None:
    """The installed command trains, as a user has it do.

    It is torchrun's own machinery with its report left out.
    """
    monkeypatch.setenv("FARCONTEXT_CACHE", str(fast_disk / "cache"))
    run = tiny_run(steps=100_000, save_every=10)
    given = files.write_json(
        fast_disk / "run.yaml", run.model_dump(mode="json", exclude={"processes"})
    )
    command = children.start(
        children.command, tiny_project, fast_disk / "cache", "train", str(given), "--processes", "2"
    )
    give_up = time.monotonic() + 2 * children.SECONDS
    while not list(fast_disk.glob("cache/runs/*/step-*")):
        assert time.monotonic() < give_up and command.process.is_alive(), command.said()
        time.sleep(0.05)
    (owner,) = fast_disk.glob("cache/runs/*/.owner.json")
    os.kill(files.read_json(owner)["pid"], signal.SIGKILL)  # the process that writes
    started = time.monotonic()
    assert command.wait() == 2
    assert time.monotonic() - started < 30
    one_line(command.said(), "process 0 of 2 ended by SIGKILL", "goes on from the last save")


def test_a_run_is_trained_from_a_file_alone_and_in_two(tiny_project: Path, fast_disk: Path) -> None:
    """What the command does in each process: the number of processes need not stand in the file."""
    given = tiny_run(steps=4, save_every=4).model_dump(mode="json", exclude={"processes"})
    arguments = "train", str(files.write_json(fast_disk / "run.yaml", given))
    assert ended([children.start(children.command, tiny_project, fast_disk, *arguments)]) == (
        [0],
        "",
    )
    assert ended(children.start_group(children.command, tiny_project, fast_disk, *arguments)) == (
        [0, 0],
        "",
    )
    runs = [
        files.read_json(folder / "config.json")["processes"]
        for folder in (fast_disk / "runs").iterdir()
    ]
    assert sorted(runs) == [1, 2]
    files.write_json(fast_disk / "run.yaml", given | {"stepps": 3})
    codes, said = ended(children.start_group(children.command, tiny_project, fast_disk, *arguments))
    assert codes == [2, 2]
    one_line(said, "run.yaml: stepps = 3: expected one of", "did you mean steps?")
