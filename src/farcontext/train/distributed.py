"""Training of one model by several processes.

torchrun starts them, and each takes its share of the rows of every batch. Gradients are summed by
torch's DistributedDataParallel, or by its FSDP2 where the weights are shared out too: gloo on CPUs,
NCCL on GPUs. The first process alone writes, so all must share one file system. A foreseen failure
of one process is raised in all of them and said once.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from farcontext import files
from farcontext.files import UserError
from farcontext.train import interrupt

PATIENCE = timedelta(minutes=30)  # A process may be alive but slow, while the first one saves say.
# `farcontext train --processes` sets it and says itself what became of them.
LAUNCHED = "FARCONTEXT_LAUNCHED"
AGAIN = "the same command goes on from the last save"

# What DistributedDataParallel made is never freed before the process ends: its destructor holds the
# interpreter's lock while it waits for gloo's threads, and one of them may be waiting for the lock.
_kept: list[nn.Module] = []

Result = TypeVar("Result")


def processes() -> int:
    """Return how many processes train together; 1 outside `group`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, 0 for the first."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """Return whether this process is the one that writes."""
    return rank() == 0


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Join the processes that torchrun started.

    A process that is alone only fixes the thread count, on which bits depend.

    Raises:
        UserError: another process ended, or cannot be reached; more processes than GPUs.
    """
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    interrupt.end_with_parent()
    backend = "gloo"
    if torch.cuda.is_available():
        local, here = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= here:
            raise UserError(
                f"torchrun: --nproc-per-node > {here}: expected at most one process a GPU"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"  # gloo serves the small talk below.
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"process {os.environ['RANK']}: cannot join the others: {' '.join(str(error).split())}"
        ) from None
    # Not before: Python answers no signal while it waits for the others to join.
    if backend == "gloo":
        signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends SIGTERM for the same reason.
        raise _over("another process of this run ended") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _over(what: str) -> UserError:
    error = UserError(
        f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}: {what}: stopped; {AGAIN}"
    )
    error.told = LAUNCHED in os.environ
    return error


def _stop(number: int, frame: FrameType | None) -> None:
    """Answer torchrun, which ends the others when one has ended.

    The answer is at once, for what is on the disk is always whole.
    """
    if not (over := _over("SIGTERM received")).told:
        os.write(2, f"farcontext: {over}\n".encode())
    os._exit(2)


def together(action: Callable[[], Result]) -> Result:
    """Return each process's own result.

    A UserError in one is raised in all, so that none waits for it in vain.
    """
    if processes() == 1:
        return action()
    problem, result = None, None
    try:
        result = action()
    except UserError as error:
        problem = str(error)
    problems: list[str | None] = [None] * processes()
    dist.all_gather_object(problems, problem)
    for said in filter(None, problems):
        raise said_once(UserError(said))
    return result


def said_once(error: UserError) -> UserError:
    """Return an error that only the first process tells.

    All raise it.
    """
    error.told = not first()
    return error


def on_first(action: Callable[[], Result]) -> Result:
    """Run an action in the first process alone.

    All wait for it and get its result, or its UserError.
    """
    if processes() == 1:
        return action()
    found = [together(lambda: action() if first() else None)]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def agree(value: str, what: str) -> None:
    """Check that a value is the same in every process.

    Raises:
        UserError: it is not: another code, or another file system.
    """
    if processes() == 1:
        return
    values: list[str] = [""] * processes()
    dist.all_gather_object(values, value)
    different = next((number for number, other in enumerate(values) if other != values[0]), None)
    if different is not None:
        problem = f"{what} = {values[0]} in process 0, {values[different]} in process {different}"

        def refuse() -> None:
            raise UserError(
                f"{problem}: expected the same code and files (FARCONTEXT_CACHE) for all"
            )

        on_first(refuse)


def expect(count: int) -> None:
    """Check that as many processes were started as expected.

    A run is configured for `count` of them.

    Raises:
        UserError: more or fewer; every one of them raises it.
    """

    def refuse() -> None:
        raise UserError(
            f"processes = {count}: {processes()} started: expected as many "
            f"(torchrun --nproc-per-node {count}, or farcontext train --processes {count})"
        )

    if processes() != count:
        on_first(refuse)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this group of processes.

    `files.lock` does so for one process.
    """
    with contextlib.ExitStack() as held:
        on_first(lambda: held.enter_context(files.lock(folder)))
        yield


def total(number: float) -> float:
    """Return the sum over all processes."""
    if processes() == 1:
        return number
    summed = torch.tensor(number, dtype=torch.float64)
    dist.all_reduce(summed)
    return summed.item()


def greatest(number: int) -> int:
    """Return the greatest number of all processes."""
    if processes() == 1:
        return number
    highest = torch.tensor(number)
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    return int(highest)


def parallel(model: nn.Module, where: torch.device, kind: str = "ddp") -> nn.Module:
    """Return the model on its device, with gradients averaged over the processes.

    Its backward pass averages them; a process that is alone gets the model itself. With "ddp" every
    process keeps all weights. With "fsdp" each keeps its share of them, of their gradients and of
    the optimizer's moments: `model` itself then holds shares.
    """
    if processes() > 1 and kind == "fsdp":
        return _sharded(model)
    model.to(where)
    if processes() == 1:
        return model
    wrapped = nn.parallel.DistributedDataParallel(
        model, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
    _kept.append(wrapped)
    return wrapped


def _sharded(model: nn.Module) -> nn.Module:
    """Share a model's weights out, by torch's `fully_shard` (FSDP2).

    A block of a list is gathered while it runs, what stands outside lists while the model runs.
    Each part goes to its device and is cut there before the next one, so no device holds all. All
    are shares again after a forward pass, also when no backward pass follows: so they can be saved.
    """
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415 (takes a second to load)

    for blocks in [part for part in model.modules() if isinstance(part, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block)
    return fully_shard(model, reshard_after_forward=True)


def unsynchronised(model: nn.Module, when: bool) -> contextlib.AbstractContextManager:
    """Return a context in which gradients are not averaged.

    `parallel`'s model keeps its gradients to itself there, when more are to be added. One of shares
    averages them all the same: whole gradients would take the memory that it saves.
    """
    together = isinstance(model, nn.parallel.DistributedDataParallel)
    return model.no_sync() if when and together else contextlib.nullcontext()


def _is_share(tensor: Tensor | None) -> bool:
    # A share is a DTensor, whose module takes a second to load: so it is known by what it can do.
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor of which each process may hold a share.

    All processes call this together.
    """
    return tensor.full_tensor() if _is_share(tensor) else tensor


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors in the first process; the others get none.

    All processes call this together. Tensors are gathered one after another, into the memory of the
    processor.
    """
    kept: dict[str, Tensor] = {}
    for name in sorted(tensors):  # A file read back has its tensors in another order in each.
        tensor = whole(tensors[name])
        if first():
            kept[name] = tensor.cpu()
    return kept


def shared(tensor: Tensor, like: Tensor | None) -> Tensor:
    """Return a whole tensor as `like` is kept.

    That is whole, or this process's share of it. A number, such as the optimizer's count of steps,
    stays whole.
    """
    if not tensor.ndim or not _is_share(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 (as above)

    # All have read the same file: nothing need be sent.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
