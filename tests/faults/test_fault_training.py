"""Training that is killed, repeated, doubled, or meets a number that is not finite."""

import os
import random
import signal
import socket
import time
from pathlib import Path

import children
import pytest
from observe import one_line, run_bits, snapshot
from tiny import tiny_run

from farcontext.train import checkpoint

TRIALS = 8
STEPS = 40
SAVE_EVERY = 5


def trained(cache: Path) -> int:
    file = cache / "steps"
    return file.stat().st_size if file.exists() else 0


def until(condition, child: children.Child) -> None:
    """Wait for a condition of a running child; return at once when the child is over."""
    give_up = time.monotonic() + children.SECONDS
    while not condition() and child.process.is_alive():
        assert time.monotonic() < give_up, "the child did not get there"
        time.sleep(0.0005)


@pytest.fixture(scope="module")
def undisturbed(tiny_project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bits of a run that nothing interrupted."""
    cache = tmp_path_factory.mktemp("undisturbed")
    child = children.start(
        children.train, tiny_project, cache, tiny_run(steps=STEPS, save_every=SAVE_EVERY)
    )
    assert child.wait() == 0, child.said()
    return run_bits(cache)


def test_fault_1_a_run_killed_at_any_moment_ends_with_the_same_bits(
    tiny_project: Path, undisturbed: dict[str, str], fast_disk: Path, rng: random.Random
) -> None:
    """SIGKILL comes at a uniform moment of training, which then resumes.

    At the end there are the same bits, and at most one interval was repeated.
    """
    run = tiny_run(steps=STEPS, save_every=SAVE_EVERY)
    struck = 0
    for trial in range(TRIALS):
        cache = fast_disk / str(trial)
        step, pause = rng.randrange(STEPS), rng.uniform(0, 0.006)
        child = children.start(children.train, tiny_project, cache, run, cache / "steps")
        until(lambda: trained(cache) > step, child)  # noqa: B023
        time.sleep(pause)
        child.kill()
        struck += child.wait() == -signal.SIGKILL
        before = trained(cache)
        again = children.start(children.train, tiny_project, cache, run, cache / "steps")
        assert again.wait() == 0, f"trial {trial}, step {step}: {again.said()}"
        assert run_bits(cache) == undisturbed, f"trial {trial}: killed after step {before}"
        assert trained(cache) <= STEPS + SAVE_EVERY, (
            f"trial {trial}: {trained(cache) - STEPS} steps repeated"
        )
    assert struck, "no trial was killed: the fault never happened"


def test_other_seeds_give_other_bits(
    tiny_project: Path, undisturbed: dict[str, str], fast_disk: Path
) -> None:
    """The twin that shows `run_bits` can tell two runs apart."""
    child = children.start(
        children.train,
        tiny_project,
        fast_disk,
        tiny_run(steps=STEPS, save_every=SAVE_EVERY, seed=1),
    )
    assert child.wait() == 0, child.said()
    assert {k for k, v in run_bits(fast_disk).items() if undisturbed[k] == v} <= {
        "step",
        "random.safetensors",
    }


def test_fault_11_resuming_a_finished_run_trains_nothing_and_changes_no_file(
    tiny_project: Path, fast_disk: Path
) -> None:
    run = tiny_run(steps=6, save_every=3)
    seen = []
    for _ in range(2):
        child = children.start(children.train, tiny_project, fast_disk, run, fast_disk / "steps")
        assert child.wait() == 0, child.said()
        seen.append(snapshot(fast_disk / "runs"))
    assert seen[0] == seen[1]
    assert trained(fast_disk) == 6


def test_fault_12_a_second_run_on_a_folder_is_refused_and_the_first_is_unharmed(
    tiny_project: Path, undisturbed: dict[str, str], fast_disk: Path
) -> None:
    """The second ends within 2 s with one line that names folder, process and host."""
    run = tiny_run(steps=STEPS, save_every=SAVE_EVERY)
    first = children.start(children.train, tiny_project, fast_disk, run, fast_disk / "steps")
    until(lambda: trained(fast_disk) >= 1, first)
    os.kill(first.pid, signal.SIGSTOP)  # however slow this machine is, it holds the folder now
    started = time.monotonic()
    second = children.start(children.train, tiny_project, fast_disk, run)
    assert second.wait() == 2
    assert time.monotonic() - started < 2
    (folder,) = (fast_disk / "runs").iterdir()
    one_line(second.said(), str(folder), f"process {first.pid}", socket.gethostname())
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0, first.said()
    assert run_bits(fast_disk) == undisturbed


def test_fault_12_a_dead_holder_never_blocks(tiny_project: Path, fast_disk: Path) -> None:
    run = tiny_run(steps=STEPS, save_every=SAVE_EVERY)
    first = children.start(children.train, tiny_project, fast_disk, run, fast_disk / "steps")
    until(lambda: trained(fast_disk) >= 1, first)
    first.kill()
    first.wait()
    assert (next((fast_disk / "runs").iterdir()) / ".owner.json").exists()
    second = children.start(children.train, tiny_project, fast_disk, run)
    assert second.wait() == 0, second.said()


@pytest.mark.parametrize("step", [0, 7])
def test_fault_40_a_nan_loss_stops_before_the_update(
    tiny_project: Path, fast_disk: Path, step: int
) -> None:
    """The line names the step and the loss.

    What is kept has the bits of an undisturbed run at that step.
    """
    run = tiny_run(steps=STEPS, save_every=SAVE_EVERY, schedule="constant")
    child = children.start(children.train_with_nan, tiny_project, fast_disk / "nan", run, step)
    assert child.wait() == 2, child.said()
    one_line(child.said(), f"step = {step}", "loss is not finite")
    (folder,) = (fast_disk / "nan" / "runs").iterdir()
    kept = checkpoint.latest(folder)
    assert kept.step == step and len(kept.state["rows"]) == step
    assert not (folder / "result.json").exists()
    if step:
        clean = tiny_run(steps=step, save_every=step, schedule="constant")  # the same up to there
        assert children.start(children.train, tiny_project, fast_disk / "clean", clean).wait() == 0
        bits, ours = run_bits(fast_disk / "clean"), run_bits(fast_disk / "nan")
        assert all(
            ours[name] == bits[name]
            for name in ("model.safetensors", "optimizer.safetensors", "state.json")
        )
    # the cause is gone: it goes on
    again = children.start(children.train, tiny_project, fast_disk / "nan", run)
    assert again.wait() == 0, again.said()
