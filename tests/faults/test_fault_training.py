"""Training that is killed, repeated, doubled, or meets a number that is not finite."""

import os
import random
import re
import signal
import socket
import time
from pathlib import Path

import children
import pytest
from observe import leftovers, one_line, run_bits, snapshot
from tiny import tiny_run

from farcontext import files
from farcontext.train import checkpoint, kept
from farcontext.train.config import RunConfig

TRIALS = 8
KILLS = int(os.environ.get("FAULT_KILLS", "6"))
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


def test_fault_2_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(
    tiny_project: Path, fast_disk: Path, rng: random.Random
) -> None:
    """Every step is saved and an older one removed, so kills strike inside both.

    FAULT_KILLS=200 kills so often. After each kill every set has its manifest.
    """
    run = tiny_run(steps=3 * KILLS + 10, save_every=1)
    whole = children.start(children.train, tiny_project, fast_disk / "whole", run)
    assert whole.wait() == 0, whole.said()
    cache, struck = fast_disk / "killed", 0
    while struck < KILLS:
        more = trained(cache) + rng.randrange(3)
        child = children.start(children.train, tiny_project, cache, run, cache / "steps")
        until(lambda: trained(cache) > more, child)  # noqa: B023
        time.sleep(rng.uniform(0, 0.006))
        child.kill()
        struck += child.wait() == -signal.SIGKILL
        assert without_manifest(cache) == [], f"kill {struck}"
    again = children.start(children.train, tiny_project, cache, run, cache / "steps")
    assert again.wait() == 0, again.said()
    assert run_bits(cache) == run_bits(fast_disk / "whole")
    assert (without_manifest(cache), leftovers(cache)) == ([], [])
    print(f"{struck} kills, {trained(cache) - run.steps} steps repeated")


def without_manifest(cache: Path) -> list[Path]:
    """Return the sets of a cache's runs that lack their manifest."""
    sets = cache.glob("runs/*/step-*")
    return [path for path in sets if not (path / checkpoint.MANIFEST).is_file()]


SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


def signalled_run(folder: Path) -> tuple[RunConfig, tuple[str, str]]:
    """Return a run of some steps without a save, and the command that trains it from a file."""
    run = tiny_run(steps=150, save_every=150).model_copy(update={"evaluate_every": 2})
    given = run.model_dump(mode="json", exclude={"processes"})
    return run, ("train", str(files.write_json(folder / "run.yaml", given)))


@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
def test_fault_4_a_signal_ends_training_after_a_saved_step_and_the_command_goes_on_to_the_same_bits(
    number: signal.Signals, tiny_project: Path, fast_disk: Path, rng: random.Random
) -> None:
    """It comes at a random moment: in a step, in an evaluation, or between."""
    run, command = signalled_run(fast_disk)
    cache = fast_disk / "signalled"
    whole = children.start(children.train, tiny_project, fast_disk / "whole", run)
    child = children.start(
        children.command_counted, tiny_project, cache, cache / "steps", -1, *command
    )
    until(lambda: trained(cache) >= 5, child)
    time.sleep(rng.uniform(0, 0.01))
    child.kill(number)
    assert child.wait() == SIGNALS[number], child.said()
    (folder,) = (cache / "runs").iterdir()
    found = checkpoint.latest(folder)
    assert 5 <= found.step == trained(cache) < run.steps
    one_line(child.said(), str(folder), f"{number.name}: step {found.step} of 150 is saved")
    assert not (folder / kept.RESULT).exists() and not leftovers(cache)
    again = children.start(children.train, tiny_project, cache, run, cache / "steps")
    assert (again.wait(), whole.wait()) == (0, 0), again.said()
    assert trained(cache) == run.steps, "no step was trained twice"
    assert run_bits(cache) == run_bits(fast_disk / "whole")


def test_fault_4_a_closed_terminal_ends_training_after_a_saved_step(
    tiny_project: Path, fast_disk: Path
) -> None:
    """The bar and the last line can be written nowhere."""
    _, command = signalled_run(fast_disk)
    ours, terminal = os.openpty()
    child = children.start(
        children.command_on_terminal,
        tiny_project,
        fast_disk,
        os.ttyname(terminal),
        fast_disk / "steps",
        *command,
    )
    until(lambda: trained(fast_disk) >= 5, child)
    os.close(terminal)
    os.close(ours)
    assert child.wait() == 129
    (folder,) = (fast_disk / "runs").iterdir()
    assert checkpoint.latest(folder).step == trained(fast_disk)


def test_fault_4_a_second_signal_ends_training_at_once_and_what_was_saved_is_whole(
    tiny_project: Path, fast_disk: Path
) -> None:
    """The step that runs takes a minute. More of SIGHUP is no second signal."""
    run, _ = signalled_run(fast_disk)
    run = run.model_copy(update={"save_every": 3})
    given = files.write_json(fast_disk / "run.yaml", run.model_dump(mode="json"))
    child = children.start(
        children.command_counted,
        tiny_project,
        fast_disk,
        fast_disk / "steps",
        5,
        "train",
        str(given),
    )
    until(lambda: trained(fast_disk) >= 5, child)
    child.kill(signal.SIGHUP)
    until(lambda: not caught(child.pid, signal.SIGHUP), child)
    child.kill(signal.SIGHUP)
    time.sleep(0.1)
    assert child.process.is_alive()
    started = time.monotonic()
    child.kill(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM and child.said() == ""
    assert time.monotonic() - started < 5
    (folder,) = (fast_disk / "runs").iterdir()
    assert checkpoint.latest(folder).step == 3 and not leftovers(fast_disk)


def caught(process: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return bool(int(re.search(r"SigCgt:\s+(\w+)", status)[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [("model", "width", 10**9), ("model", "mlp_width", 10**12), ("batch", "rows", 10**12)],
)
def test_fault_41_a_model_or_a_batch_that_no_memory_holds_is_one_line(
    place: str, key: str, value: int, tiny_project: Path, fast_disk: Path
) -> None:
    given = tiny_run().model_dump(mode="json")
    given[place][key] = value
    path = files.write_json(fast_disk / "run.yaml", given)
    child = children.start(children.command, tiny_project, fast_disk, "train", str(path))
    assert child.wait() == 2
    line = one_line(child.said(), "out of memory", "batch.length = 16", "expected less of them")
    assert int(re.search(r"asked for (\d+) bytes", line)[1]) >= value


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
