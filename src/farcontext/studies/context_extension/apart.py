"""Where the loss of a longer context goes: claim D1.

The same pairs and questions stand in five surroundings (`recall.apart`), and the differences of
their losses are the parts (after "Context Length Alone Hurts LLM Performance Despite Perfect
Retrieval", 2510.05381):

    positions = masked − together      keys = blank − masked      distraction = real − blank
    length = positions + keys          total = length + distraction = at hand + retrieval
    at hand = beside − together        retrieval = real − beside
"""

from collections.abc import Mapping, Sequence
from typing import Any

from farcontext.schema import Row
from farcontext.studies.context_extension.arms import ARMS, base_run, extended
from farcontext.studies.context_extension.params import Params
from farcontext.studies.context_extension.protocol import answers_apart
from farcontext.train.runs import EvalConfig, grid, sweep

PARTS = {
    "positions": ("masked", "together"),
    "keys": ("blank", "masked"),
    "distraction": ("real", "blank"),
    "length": ("blank", "together"),
    "at hand": ("beside", "together"),
    "retrieval": ("real", "beside"),
    "total": ("real", "together"),
}


def run(params: Params) -> list[Row]:
    """Return the rows of the controlled tier.

    metric: answer_loss (nats an answer, layout = the surrounding) · answer_recall · loss_part
    (nats, layout = the part). Arms are scored as they are.
    """
    same = {"kind": "apart", "trained": params.length, "rate": "first", "dose": 0}
    return [
        row
        for cell, result in sweep(_jobs(params)).items()
        for row in rows_of(result.rows, same | cell._asdict())
    ]


def rows_of(answered: Sequence[Row], base: Row) -> list[Row]:
    """Return the rows of one evaluation.

    Args:
        answered: surrounding, loss and (in the controlled tier) recall, a row each.
        base: the columns that all rows share.
    """
    rows = [
        base | {"layout": row["surrounding"], "metric": f"answer_{what}", "value": row[what]}
        for row in answered
        for what in ("loss", "recall")
        if what in row
    ]
    losses = {row["surrounding"]: row["loss"] for row in answered}
    return rows + [base | row for row in parts(losses)]


def parts(losses: Mapping[str, float]) -> list[Row]:
    """Return a row for each part of the loss.

    Args:
        losses: surrounding → nats an answer.
    """
    return [
        {"layout": part, "metric": "loss_part", "value": losses[more] - losses[less]}
        for part, (more, less) in PARTS.items()
    ]


def _jobs(params: Params) -> dict[Any, EvalConfig]:
    """Return the evaluations by arm, seed and length."""
    lengths = [params.length * n for n in params.multiples if 1 < n <= params.goal]
    jobs = {}
    for cell in grid(arm=params.apart_arms, seed=params.seeds, length=lengths):
        arm = ARMS[cell.arm]
        trained = base_run(params, arm.base, cell.seed, params.rates[arm.base][0])
        changed = extended(params, arm, cell.length / params.length)
        options = {"length": cell.length, "pairs": params.pairs, "rows": params.apart_rows}
        jobs[cell] = EvalConfig(answers_apart, trained, options | {"items": cell.seed}, changed)
    return jobs
