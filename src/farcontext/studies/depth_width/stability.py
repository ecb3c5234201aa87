"""Claim G1: does training grow steadier with longer rows?

Two regimes (plain SGD, AdamW with clipping) at two budgets (equal tokens, equal sequences a step).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from farcontext.schema import Row
from farcontext.studies.depth_width.params import Params
from farcontext.studies.depth_width.protocol import plain_sgd, spikes
from farcontext.studies.depth_width.trainings import BUDGETS, adamw_run, rows_of
from farcontext.train.runs import EvalConfig, final_loss, grid, sweep


def stability_rows(params: Params) -> list[Row]:
    """Return both regimes' runs, and each seed's trend with length.

    metric: diverged (SGD), spread (AdamW), spikes and final_loss by T · trend (slope of diverged,
    or of spread, per doubling of T: below 0 is steadier) · room (at least 0.1 where the regime can
    show a trend: of SGD the smaller share of runs that diverged or did not; of AdamW the share of
    its first loss that training removed, at the length where that is least).
    """
    rows = _sgd(params) + _adamw(params)
    return rows + trends(pd.DataFrame(rows))


def _sgd(params: Params) -> list[Row]:
    jobs = {}
    for budget, length, lr, seed in grid(
        budget=BUDGETS, length=params.stable_lengths[::-1], lr=params.sgd_rates, seed=params.seeds
    ):
        options = {"domain": params.stable_domain, "length": length, "lr": lr, "seed": seed}
        options |= {"rows": rows_of(params, budget, length), "steps": params.sgd_steps}
        jobs[budget, length, lr, seed] = EvalConfig(plain_sgd, None, options)
    return [
        {"arm": f"SGD, {budget}", "length": length, "lr": lr, "seed": seed}
        | {"metric": metric, "value": value}
        for (budget, length, lr, seed), result in sweep(jobs).items()
        for metric, value in result.rows[0].items()
    ]


def _adamw(params: Params) -> list[Row]:
    runs, rows = {}, []
    for budget, seed in grid(budget=BUDGETS, seed=params.seeds):
        for length, lr in zip(params.stable_lengths, params.adamw_rates[budget], strict=True):
            runs[budget, length, lr, seed] = adamw_run(params, budget, length, lr=lr, seed=seed)
    for (budget, length, lr, seed), result in sweep(runs).items():
        losses = [row["loss"] for row in result.rows]
        steady = slice(runs[budget, length, lr, seed].optimizer.warmup, None)
        found = {
            "spread": spread([row["norm"] for row in result.rows][steady]),
            "spikes": spikes(losses[steady]),
            "final_loss": final_loss(result),
            "learned": 1 - final_loss(result) / losses[0],
        }
        at = {"arm": f"AdamW, {budget}", "length": length, "lr": lr, "seed": seed}
        rows += [at | {"metric": metric, "value": value} for metric, value in found.items()]
    return rows


def spread(norms: Sequence[float]) -> float:
    """Return how much the log gradient norm changes from step to step.

    It is the s.d. of the changes, so that the slow course of a training does not count.
    """
    return float(np.diff(np.log(norms)).std())


def trends(rows: pd.DataFrame) -> list[Row]:
    """Return each regime's trend with length and its room, by seed.

    Args:
        rows: metrics diverged, spread and learned with arm, length, seed and value.
    """
    found = []
    for metric in ("diverged", "spread"):
        at = rows[rows["metric"] == metric]
        for (arm, seed), values in at.groupby(["arm", "seed"]):
            curve = values.groupby("length")["value"].mean()
            # Rounded, since equal shares give 0 up to a last digit, which has a sign.
            slope = round(float(np.polyfit(np.log2(curve.index), curve, 1)[0]), 9)
            found.append({"arm": arm, "seed": seed, "metric": "trend", "value": slope})
    diverged, learned = (
        rows[rows["metric"] == metric].groupby(["arm", "seed"])["value"]
        for metric in ("diverged", "learned")
    )
    share = diverged.mean()
    room = pd.concat([share.where(share < 0.5, 1 - share), learned.min()])
    return found + [
        {"arm": arm, "seed": seed, "metric": "room", "value": float(value)}
        for (arm, seed), value in room.items()
    ]
