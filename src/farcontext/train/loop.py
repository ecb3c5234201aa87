"""One literal training loop.

A batch is a pure function of (seed, step), so the data position is the step; with the checkpoint's
weights, optimiser and random state, a run that was killed anywhere ends with the same bits as one
that never was.
"""

import contextlib
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from farcontext import files
from farcontext.files import UserError
from farcontext.nn.config import ModelConfig
from farcontext.nn.recurrent import Recurrent
from farcontext.nn.transformer import Decoder, Encoder, EncoderDecoder, padding_of
from farcontext.schema import Row
from farcontext.train import checkpoint, distributed, interrupt, kept
from farcontext.train.batches import IGNORE, Batch, Stream, training_batch
from farcontext.train.config import Curriculum, RunConfig
from farcontext.train.curriculum import task_batch
from farcontext.train.kept import RunResult
from farcontext.train.keys import device, run_folder, tokens_folder
from farcontext.train.optimizer import learning_rate, optimizer

# Every run has the same batches, so that curves compare.
VALIDATION_SEED, VALIDATION_BATCHES = (1_000_003, 4)

Network = Encoder | Decoder | EncoderDecoder | Recurrent


def build_model(config: ModelConfig) -> Network:
    """Return a model with fresh weights from torch's global generator."""
    kinds = {"encoder": Encoder, "decoder": Decoder, "encoder_decoder": EncoderDecoder}
    return kinds.get(config.kind, Recurrent)(config)


def load_model(run: RunConfig, config: ModelConfig | None = None) -> Network:
    """Return a finished run's model, in evaluation mode.

    With another `config` of the same weights, the model is as that says.

    Raises:
        UserError: the run has no checkpoint, not one that is whole, or one of other weights.
    """
    folder = run_folder(run)
    found = checkpoint.latest(folder)
    if found is None or found.step != run.steps:
        raise UserError(
            f"{folder}: expected a finished run of {run.steps} steps"
            + ("; delete the folder to train again" if found else "")
        )
    model = build_model(config or run.model)
    try:
        model.load_state_dict(found.tensors("model"))
    except RuntimeError as error:  # torch tells every weight that is missing or of another shape.
        first = " ".join(str(error).split("\n")[1:2]).strip()
        raise UserError(
            f"{folder}: expected weights of the model that reads them: {first}"
        ) from None
    return model.to(device()).eval()


def scored_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return a batch's summed cross-entropy and its number of scored positions.

    The sum is in nats, over the scored positions. The head runs on scored positions only. With
    none, the loss is 0 with gradient 0, never 0/0.
    """
    scored = batch.targets != IGNORE
    if batch.source is None:
        logits = model(batch.tokens, documents=batch.documents, select=scored)
    else:
        logits = model(batch.source, batch.tokens, padding_of(batch.source), select=scored)
    return F.cross_entropy(logits.float(), batch.targets[scored], reduction="sum"), int(
        scored.sum()
    )


@dataclass
class _State:
    """All that a checkpoint holds: what the next step depends on."""

    model: nn.Module
    # It is the same model, run so that the processes share gradients, or weights too.
    parallel: nn.Module
    optimizer: torch.optim.AdamW
    step: int
    rows: list[Row]

    def save(self, folder: Path) -> None:
        """Gather all that is shared out; the first process writes it."""
        names = dict(enumerate(name for name, _ in self._parameters()))
        moments = self.optimizer.state_dict()["state"]
        flat = {
            f"{names[i]}|{part}": tensor
            for i, parts in moments.items()
            for part, tensor in parts.items()
        }
        groups = {
            "model": distributed.gathered(self.model.state_dict()),
            "optimizer": distributed.gathered(flat),
            "random": {"torch": torch.get_rng_state()},
        }
        state = {"step": self.step, "rows": self.rows}
        distributed.on_first(lambda: checkpoint.save(folder, self.step, groups=groups, state=state))

    def _parameters(self) -> list[tuple[str, Tensor]]:
        """Named parameters in the optimiser's order."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        return [(names[id(p)], p) for group in self.optimizer.param_groups for p in group["params"]]

    def load(self, found: checkpoint.Checkpoint) -> None:
        kept = self.model.state_dict()
        weights = found.tensors("model")
        self.model.load_state_dict(
            {name: distributed.shared(weights[name], kept.get(name)) for name in weights}
        )
        moments: dict[int, dict[str, Tensor]] = {}
        index = {name: i for i, (name, _) in enumerate(self._parameters())}
        for key, tensor in found.tensors("optimizer").items():
            name, part = key.rsplit("|", 1)
            moments.setdefault(index[name], {})[part] = distributed.shared(tensor, kept[name])
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        torch.set_rng_state(found.tensors("random")["torch"])
        self.step, self.rows = found.step, found.state["rows"]


def _fresh(run: RunConfig) -> _State:
    torch.manual_seed(run.seed)
    model = distributed.together(
        lambda: (
            build_model(run.model)
            if run.start is None
            else load_model(run.start, run.model).train()
        )
    )
    # Sharding replaces the parameters, so the optimizer is made of those that come after it.
    parallel = distributed.parallel(model, device(), run.parallel)
    return _State(model, parallel, optimizer(model, run.optimizer), 0, [])


def _batches(run: RunConfig) -> tuple[Callable[[int], Batch], list[Batch]]:
    """Return each step's batch, and the validation loss's fixed batches.

    The first batch of all is made here too: rows that cannot be made are told before anything else.

    Raises:
        UserError: a vocabulary other than the tokenizer's, too little text, rows that are missing.
    """
    if isinstance(run.batch, Curriculum):
        same = {"causal": run.model.kind != "encoder", "vocab_size": run.model.vocab_size}
        # These steps lie in the last stage.
        last = range(run.steps, run.steps + VALIDATION_BATCHES)
        firsts = accumulate((stage.steps for stage in run.batch.stages[:-1]), initial=0)
        fixed = [
            task_batch(run.batch, seed=VALIDATION_SEED, step=step, **same)
            for step in (*last, *firsts)
        ][: len(last)]
        return lambda step: task_batch(run.batch, seed=run.seed, step=step, **same), fixed
    stream = Stream.load(tokens_folder(), "train", run.batch.domains, run.batch.limit)
    if stream.vocab_size != run.model.vocab_size:
        raise UserError(
            f"model.vocab_size = {run.model.vocab_size}: "
            f"expected the tokenizer's {stream.vocab_size}"
        )
    held_out = Stream.load(tokens_folder(), "validation", run.batch.domains)
    fixed = [
        training_batch(held_out, run.batch, seed=VALIDATION_SEED, step=i)
        for i in range(VALIDATION_BATCHES)
    ]
    training_batch(stream, run.batch, seed=run.seed, step=0)
    return lambda step: training_batch(stream, run.batch, seed=run.seed, step=step), fixed


def _check_finite(state: _State, folder: Path, loss: float, norm: float) -> None:
    """Stop before the update if loss or gradient is not finite.

    The weights of the step before are kept.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    bad = (
        n
        for n, p in state.model.named_parameters()
        if p.grad is not None and not distributed.whole(p.grad).isfinite().all()
    )
    name = f"gradient of {next(bad, 'all')}" if math.isfinite(loss) else "loss"
    found = {"step": state.step, "loss": str(loss), "norm": str(norm), "what": name}
    distributed.on_first(lambda: files.write_json(folder / "failure.json", found))
    state.save(folder)

    def stop() -> None:
        raise UserError(
            f"{folder}: step = {state.step}: {name} is not finite: expected a finite value; "
            f"stopped before the update, weights of step {state.step} kept (a lower learning rate "
            "usually helps)"
        )

    distributed.together(stop)


def _step(state: _State, run: RunConfig, batch: Batch) -> tuple[float, float, int]:
    """Accumulate one step's gradient; return loss, gradient norm and scored tokens.

    The loss is in nats a scored token.

    Every process takes its rows of each part, and gradients are averaged over them: hence the
    factor `processes`.
    """
    where, processes = device(), distributed.processes()
    parts = batch.split(run.optimizer.accumulation)
    scored = max(1, int((batch.targets != IGNORE).sum()))
    total = 0.0
    for number, part in enumerate(parts, 1):
        mine = part.split(processes)[distributed.rank()].to(where)
        with distributed.unsynchronised(state.parallel, when=number < len(parts)):
            with torch.autocast(where.type, torch.bfloat16, enabled=run.dtype == "bfloat16"):
                loss, _ = scored_loss(state.parallel, mine)
            (loss * processes / scored).backward()
        total += loss.item()
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), run.optimizer.clip)
    return distributed.total(total) / scored, distributed.whole(norm).item(), scored


@torch.inference_mode()
def _validation_loss(model: nn.Module, run: RunConfig, batches: list[Batch]) -> float:
    sums = [scored_loss(model.eval(), batch.to(device())) for batch in batches]
    model.train()
    return sum(loss.item() for loss, _ in sums) / max(1, sum(count for _, count in sums))


def train(run: RunConfig, *, resume: bool = True) -> RunResult:
    """Train a model, or load what an earlier call left.

    A finished run loads in milliseconds, an interrupted one goes on from its last save. With
    `resume` False, an earlier run of this configuration is removed first.

    Raises:
        UserError: the folder is in use, the disk refused, a checkpoint is damaged beyond its
            elders, or the loss or gradient is not finite.
    """
    folder = run_folder(run)
    distributed.agree(folder.name, "run")
    if resume and (done := distributed.on_first(lambda: kept.finished(folder))):
        return done
    distributed.expect(run.processes)
    with distributed.lock(folder):
        if not resume:
            distributed.on_first(lambda: _forget(folder))
        with interrupt.memory_errors(run):
            return distributed.on_first(lambda: kept.finished(folder)) or _train(run, folder)


def _forget(folder: Path) -> None:
    (folder / "result.json").unlink(missing_ok=True)
    for step in checkpoint.steps(folder):
        checkpoint.discard(folder / f"step-{step:08d}")


def _train(
    run: RunConfig, folder: Path, on_step: Callable[[int], None] = lambda step: None
) -> RunResult:
    """Run the loop.

    `on_step` is called after each update (tests kill the process there).
    """
    started = time.perf_counter()
    batch_of, fixed = distributed.together(lambda: _batches(run))
    state = _fresh(run)
    distributed.on_first(lambda: kept.describe(folder, run))
    distributed.on_first(lambda: checkpoint.sweep(folder))
    if found := distributed.together(lambda: checkpoint.latest(folder)):
        distributed.together(lambda: state.load(found))
    distributed.agree(str(state.step), f"{folder}: first step")
    start, tokens, writes = state.step, 0, distributed.first()
    board = (
        SummaryWriter(folder / "tensorboard", purge_step=start)
        if writes
        else contextlib.nullcontext()
    )
    label = {"unit": "step", "desc": folder.name, "disable": None if writes else True}
    with board, tqdm(total=run.steps, initial=start, **label) as bar:
        while state.step < run.steps:
            step = state.step
            rate = learning_rate(run.optimizer, step, run.steps)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            batch = batch_of(step)
            tokens += batch.tokens.numel()
            loss, norm, scored = _step(state, run, batch)
            _check_finite(state, folder, loss, norm)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            row = {"step": state.step, "loss": loss, "norm": norm, "rate": rate, "scored": scored}
            if run.evaluate_every and (
                state.step % run.evaluate_every == 0 or state.step == run.steps
            ):
                row["validation_loss"] = _validation_loss(state.model, run, fixed)
            state.rows.append(row)
            for name in ("loss", "norm", "rate", "validation_loss"):
                if writes and name in row:
                    board.add_scalar(name, row[name], state.step)
            bar.update()
            bar.set_postfix(
                loss=f"{loss:.3f}", tokens_s=f"{tokens / (time.perf_counter() - started):.0f}"
            )
            asked = distributed.greatest(interrupt.asked())
            if asked or state.step % run.save_every == 0 or state.step == run.steps:
                state.save(folder)
            on_step(state.step)
            if asked and state.step < run.steps:
                raise distributed.said_once(interrupt.stopped(asked, folder, state.step, run.steps))
    cost = {
        "seconds": time.perf_counter() - started,
        "steps": run.steps - start,
        "tokens": tokens,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parameters": sum(p.numel() for p in state.model.parameters()),
    }
    cost = distributed.on_first(lambda: kept.finish(folder, state.rows, cost))
    return RunResult(folder.name, folder, state.rows, run.steps - start, cost)
