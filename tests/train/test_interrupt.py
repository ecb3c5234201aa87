"""What `finishing` and `limited_memory` change in a process, and that they put it back."""

import os
import resource
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from observe import refuses
from tiny import task_run, tiny_run

from farcontext.train import interrupt, loop


@pytest.fixture(autouse=True)
def handlers() -> Iterator[dict]:
    """The handlers that stand before a test stand after it too."""
    before = {number: signal.getsignal(number) for number in interrupt.STOPPING}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupt.STOPPING)
def test_the_first_signal_asks_and_the_next_one_is_the_kernels(
    number: signal.Signals, handlers: dict
) -> None:
    with interrupt.finishing():
        assert interrupt.asked() == 0
        os.kill(os.getpid(), number)
        assert interrupt.asked() == number
        after = {other: signal.getsignal(other) for other in interrupt.STOPPING}
        assert after == {
            signal.SIGTERM: signal.SIG_DFL,
            signal.SIGINT: signal.SIG_DFL,
            signal.SIGHUP: signal.SIG_IGN,
        }
    assert interrupt.asked() == 0
    assert {other: signal.getsignal(other) for other in interrupt.STOPPING} == handlers


def test_nohup_stays_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupt.finishing():
        os.kill(os.getpid(), signal.SIGHUP)
        assert interrupt.asked() == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_library_that_trains_sets_no_handler(handlers: dict, tmp_path, monkeypatch) -> None:
    """A notebook keeps its own."""
    seen = []
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path))
    run = task_run()
    loop._train(run, tmp_path / "run", on_step=lambda step: seen.append(signal.getsignal(15)))
    assert set(seen) == {handlers[signal.SIGTERM]}


def test_memory_that_is_not_there_cannot_be_allocated_and_the_limit_is_lifted_again() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    free = interrupt.free_bytes()
    with interrupt.limited_memory():
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] < free + (64 << 30)
        np.ones(1 << 20)
        with refuses("out of memory: "), interrupt.memory_errors(tiny_run()):
            np.empty(free + (1 << 30), dtype=np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


CUDA = "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 139 GiB"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError(CUDA), "asked for 22011707392 bytes: batch.rows = 6"),
        (MemoryError(), "asked for more than is left: "),
        (RuntimeError("Storage size calculation overflowed with sizes=[1, 2]"), "any machine has"),
        (ValueError("Maximum allowed size exceeded"), "asked for more than any machine has: "),
    ],
)
def test_every_way_to_say_that_memory_is_missing_is_one_line(error: Exception, told: str) -> None:
    """Of a curriculum the largest stage is named."""
    with refuses(told) as caught, interrupt.memory_errors(task_run()):
        raise error
    assert "batch.length = 32" in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2"), ValueError("x"), TypeError("y")])
def test_another_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), interrupt.memory_errors(tiny_run()):
        raise error
