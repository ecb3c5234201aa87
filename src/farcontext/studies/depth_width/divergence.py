"""Claim G1: plain SGD diverges or not, by length and rate."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from farcontext.schema import Row
from farcontext.studies.depth_width.params import Params
from farcontext.studies.depth_width.trainings import HEAD_WIDTH, _model
from farcontext.tasks import recall
from farcontext.train.batches import Batch
from farcontext.train.config import Curriculum, Stage, Task
from farcontext.train.curriculum import task_batch
from farcontext.train.keys import device
from farcontext.train.loop import build_model, scored_loss
from farcontext.train.runs import EvalConfig, grid, sweep

LAST = 5  # So many losses at the end tell whether a run diverged.


def plain_sgd(*, length: int, rows: int, lr: float, steps: int, seed: int) -> list[Row]:
    """Train a small decoder with plain SGD; return what became of it.

    Plain SGD has no momentum, warm-up or clipping. diverged: a loss or gradient norm that is not
    finite, or a mean of the last losses above the first one. spikes: share of steps whose loss is
    a tenth above the one before. dispersion: s.d. of the log gradient norm over the finite steps.
    """
    task = Task(name="dense_recall", pairs=8)
    batches = Curriculum(stages=(Stage(steps=steps, rows=rows, length=length, tasks=(task,)),))
    losses, norms = [], []
    with torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        model = build_model(_model(2, HEAD_WIDTH, length)).to(device())
        weights = list(model.parameters())
        for step in range(steps):
            batch = task_batch(
                batches, seed=seed, step=step, causal=True, vocab_size=recall.VOCABULARY + 1
            )
            batch = Batch(batch.tokens.to(device()), batch.targets.to(device()), None)
            total, scored = scored_loss(model, batch)
            gradients = torch.autograd.grad(total / scored, weights)
            losses.append(total.item() / scored)
            norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in gradients)))
            if not (math.isfinite(losses[-1]) and math.isfinite(norms[-1])):
                break
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.sub_(gradient, alpha=lr)
    known = np.array([loss for loss in losses if math.isfinite(loss)])
    finite = [norm for norm in norms if math.isfinite(norm) and norm > 0]
    return [
        {
            "diverged": float(diverged(losses, norms)),
            "spikes": float((known[1:] > 1.1 * known[:-1]).sum() / steps),
            "dispersion": float(np.std(np.log(finite))),
        }
    ]


def diverged(losses: Sequence[float], norms: Sequence[float]) -> bool:
    """Return whether training diverged, by the definition fixed beforehand."""
    if not np.isfinite([*losses, *norms]).all():
        return True
    return bool(np.mean(losses[-LAST:]) > losses[0])


def _divergence(params: Params) -> list[Row]:
    """Return G1: what becomes of plain SGD by T and rate.

    Tokens or sequences a step are equal.
    """
    rows_of = {
        "equal tokens": lambda n: params.sgd_tokens // n,
        "equal sequences": lambda n: params.sgd_rows,
    }
    lengths = params.sgd_lengths
    same = {"steps": params.sgd_steps}
    jobs = {
        case: EvalConfig(plain_sgd, None, same | _sgd(rows_of[case.arm](case.length), *case[1:]))
        for case in grid(arm=rows_of, length=lengths[::-1], lr=params.sgd_rates, seed=params.seeds)
    }
    rows = []
    for case, result in sweep(jobs).items():
        rows += [
            case._asdict() | {"metric": metric, "value": value}
            for metric, value in result.rows[0].items()
        ]
    frame = pd.DataFrame(rows)
    share = frame[frame["metric"] == "diverged"].groupby(["arm", "seed", "length"])["value"].mean()
    for (arm, seed), values in share.groupby(["arm", "seed"]):
        slope = np.polyfit(np.log2(values.index.get_level_values("length")), values.to_numpy(), 1)[
            0
        ]
        found_here = {"divergence_trend": float(slope), "floor_divergence": float(values.iloc[0])}
        rows += [
            {"arm": arm, "seed": seed, "metric": name, "value": v} for name, v in found_here.items()
        ]
    return rows


def _sgd(rows: int, length: int, lr: float, seed: int) -> Row:
    return {"rows": rows, "length": length, "lr": lr, "seed": seed}
