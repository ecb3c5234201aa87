"""A child process of a fault test runs plain calls of the library.

The child has a session and folder of its own. Children are forked from a server that imported torch
once, so that one costs milliseconds, not seconds.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

SECONDS = 60  # for any child, on the slowest machine; what it is expected to need is far less

_forks = multiprocessing.get_context("forkserver")


def _start_server() -> None:
    """Start the fork server once.

    It finds `warm` through PYTHONPATH (Python 3.11 gives it no path of ours).
    """
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), path)))
    _forks.set_forkserver_preload(["warm"])
    forkserver.ensure_running()
    if path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = path


@dataclass
class Child:
    """A running child and where its stderr goes."""

    process: BaseProcess
    stderr: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process.is_alive():
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the exit code (negative: the signal's number).

        The call fails if the child or one of its own stays alive.
        """
        self.process.join(SECONDS)
        code = self.process.exitcode
        assert code is not None, f"process {self.pid} still runs after {SECONDS} s"
        assert not group_alive(self.pid), f"process {self.pid} left a process of its group behind"
        return code

    def said(self) -> str:
        return self.stderr.read_text(encoding="utf-8")


def group_alive(group: int) -> bool:
    """Return whether a process group has a member that is not a zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(of) == group and state not in "ZX":
            return True
    return False


def start(task: Callable[..., None], project: Path, cache: Path, *arguments: Any) -> Child:
    """Run `task(*arguments)` in a new session, in a project's folder.

    The task has a run cache of its own.
    """
    _start_server()
    cache.mkdir(parents=True, exist_ok=True)
    stderr = cache / f"stderr-{time.monotonic_ns()}"
    process = _forks.Process(
        target=_enter, args=(task, project, cache, stderr, arguments), daemon=True
    )
    process.start()
    return Child(process, stderr)


def start_group(
    task: Callable[..., None], project: Path, cache: Path, *arguments: Any, count: int = 2
) -> list[Child]:
    """Run `task(*arguments)` in `count` processes that train together.

    They start as torchrun would start them.
    """
    port = _free_port()
    return [
        start(as_one_of, project, cache, task, rank, count, port, *arguments)
        for rank in range(count)
    ]


def _free_port() -> int:
    """Return a port below those that the system gives to outgoing connections.

    Between this call and the children's, one of those could go to somebody else.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            return port


def _enter(
    task: Callable[..., None], project: Path, cache: Path, stderr: Path, arguments: tuple
) -> None:
    import torch

    from farcontext.files import UserError

    os.setsid()
    os.chdir(project)
    os.environ.update(FARCONTEXT_CACHE=str(cache), FARCONTEXT_JOBS="1", TQDM_DISABLE="1")
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT, 0o600), 2)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    torch.set_num_threads(1)
    try:
        task(*arguments)
    except UserError as error:
        print(f"farcontext: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.stderr.flush()


# -------------------------------------------------------------------------------------------- tasks


def train(run: Any, steps_file: Path | None = None) -> None:
    """Train, adding a byte to `steps_file` after each update."""
    from farcontext.train import loop

    if steps_file is not None:
        _count_steps(steps_file)
    loop.train(run)


def _count_steps(steps_file: Path, slow_at: int = -1) -> None:
    """Add a byte to a file after each update; the update `slow_at` takes a minute."""
    from torch.optim import optimizer

    descriptor = os.open(steps_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def count(*_: Any) -> None:
        os.write(descriptor, b".")
        if os.fstat(descriptor).st_size == slow_at:
            time.sleep(SECONDS)

    optimizer.register_optimizer_step_post_hook(count)


def command_counted(steps_file: Path, slow_at: int, *arguments: str) -> None:
    """Run the command line, adding a byte to `steps_file` after each update."""
    _count_steps(steps_file, slow_at)
    command(*arguments)


def command_on_terminal(terminal: str, steps_file: Path, *arguments: str) -> None:
    """The same with a terminal that this process leads, and with a progress bar on it."""
    os.environ.pop("TQDM_DISABLE")
    descriptor = os.open(terminal, os.O_RDWR)  # A session's leader without a terminal gets it.
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    command_counted(steps_file, -1, *arguments)


def as_one_of(task: Callable[..., None], rank: int, count: int, port: int, *arguments: Any) -> None:
    """Run a task as one of a group.

    A failure that another process says is not repeated, as in `cli.main`.
    """
    from farcontext.files import UserError
    from farcontext.train import distributed

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    if task in (command, command_counted):  # it joins the group itself
        return task(*arguments)
    try:
        with distributed.group():
            task(*arguments)
    except UserError as error:
        if error.told:
            sys.exit(2)
        raise


def train_apart(run: Any) -> None:
    """Train together with a planted error: gradients are never exchanged."""
    from farcontext.train import distributed, loop

    distributed.parallel = lambda model, *_: model
    loop.train(run)


def count_kept(run: Any) -> None:
    """Say which part of the weights and of the moments this process keeps after two steps."""
    from farcontext.train import distributed, loop

    state, (batch_of, _) = loop._fresh(run), loop._batches(run)
    loop._step(state, run, batch_of(0))
    state.optimizer.step()
    moments = [parts["exp_avg"] for parts in state.optimizer.state.values()]
    for tensors in (list(state.model.parameters()), moments):
        mine = sum(getattr(x, "to_local", lambda x=x: x)().numel() for x in tensors)
        print(
            f"{distributed.rank()}: {mine / sum(x.numel() for x in tensors):.2f}", file=sys.stderr
        )


def train_and_die(run: Any, rank: int, step: int) -> None:
    """Train together; one process is killed after a step."""
    from farcontext.train import distributed, keys, loop

    def die(done: int) -> None:
        if (distributed.rank(), done) == (rank, step):
            os.kill(os.getpid(), signal.SIGKILL)

    loop._train(run, keys.run_folder(run), on_step=die)


def disagree() -> None:
    """Each process sees another step."""
    from farcontext.train import distributed

    distributed.agree(str(distributed.rank()), "first step")


def fail_at_last() -> None:
    """The last process alone meets something wrong."""
    from farcontext.files import UserError
    from farcontext.train import distributed

    def read() -> None:
        if not distributed.first():
            raise UserError("text.txt: expected a file here")

    distributed.together(read)


def train_with_nan(run: Any, forward: int) -> None:
    """Train; the output of one forward pass becomes NaN.

    An overflow in a kernel would make it so.
    """
    import torch

    from farcontext.nn import transformer
    from farcontext.train import loop

    count = iter(range(1_000_000))

    def poison(module: Any, inputs: Any, output: Any) -> Any:
        if (
            isinstance(module, (transformer.Decoder, transformer.Encoder))
            and next(count) == forward
        ):
            return output * torch.nan
        return None

    torch.nn.modules.module.register_module_forward_hook(poison)
    loop.train(run)


def save_sets(
    folder: Path, steps: tuple[int, ...], keep: int, before: Callable[[], None] | None = None
) -> None:
    """Save the sets of some steps.

    `before` is called ahead of the last one. The process ends without Python's own clean-up.
    """
    from farcontext.train import checkpoint

    for step in steps:
        if before is not None and step == steps[-1]:
            before()
        groups, state = contents(step)
        checkpoint.save(folder, step, groups=groups, state=state, keep=keep)
    os._exit(0)


def contents(step: int) -> tuple[dict, dict]:
    """Return the groups and the state of a made-up step: every step has other bits."""
    import torch

    generator = torch.Generator().manual_seed(step)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    groups = {"model": {"a": draw(3, 4), "b": draw(5)}, "optimizer": {"a|exp_avg": draw(3, 4)}}
    return groups, {"step": step, "rows": [{"loss": 0.1 * step}]}


def stop_here() -> None:
    """Wait for SIGCONT: the parent attaches strace meanwhile."""
    os.kill(os.getpid(), signal.SIGSTOP)


class KillAtCall:
    """Where ptrace is forbidden, this class dies at the N-th call.

    It counts the calls that change the disk; without N, it writes down each call.
    """

    NAMES = ("open", "write", "fsync", "close", "mkdir", "chmod", "replace", "unlink", "rmdir")

    def __init__(self, number: int | None, log: Path | None = None) -> None:
        self.number, self.log = number, log

    def __call__(self) -> None:
        count = iter(range(1, 1_000_000))
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if self.log else -1
        write = os.write

        def wrap(name: str) -> None:
            call = getattr(os, name)

            def wrapped(*arguments: Any, **options: Any) -> Any:
                number = next(count)
                if log >= 0:
                    write(log, f"{name}\n".encode())
                if number == self.number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            setattr(os, name, wrapped)

        for name in self.NAMES:
            wrap(name)


def command(*arguments: str) -> None:
    """Run the command line as the installed script does."""
    from farcontext.app import cli

    sys.argv = ["farcontext", *arguments]
    cli.main()


def launch(*arguments: str) -> None:
    """A launcher, as `dvc repro` is one: it starts the command as its child and waits."""
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        command(*arguments)
        os._exit(0)


def execute_within(study: str, output: Path, cell_seconds: int) -> None:
    """Run a study's notebook with its own defaults and a limit for each cell."""
    from farcontext.app import notebooks

    values = notebooks.defaults(notebooks.path_of(study))
    notebooks.execute(
        study, notebooks.check(study, values, "defaults"), output, cell_seconds=cell_seconds
    )
