"""What can be told of the article's listing without training, exactly.

Sizes: B batch, T tokens of an answer, D model width, V vocabulary.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from farcontext.schema import Row


@contextmanager
def quiet() -> Iterator[None]:
    """Silence nn.Transformer's remark that it cannot take its fast path."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="enable_nested_tensor")
        yield


@quiet()
def argument_rows() -> list[Row]:
    """Build and call nn.Transformer with arguments in the listing's order.

    The call is nn.Transformer(64, 32, 2, dropout), with every kind of dropout that it could get.
    """
    tokens_BTD = torch.zeros(2, 3, 64)
    rows = []
    for dropout in (0.1, 0, 1):
        outcome = "runs"
        try:
            nn.Transformer(64, 32, 2, dropout)(tokens_BTD, tokens_BTD)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        base = {"part": "arguments", "arm": f"dropout = {dropout}", "outcome": outcome}
        rows.append(base | {"metric": "runs", "value": float(outcome == "runs")})
    return rows


def accuracy_rows(length: int, rows: int = 1000) -> list[Row]:
    """Score *perfect* logits as §5.4 does.

    A row has T different tokens and V = T, or the comparison of §5.4 would not even broadcast.
    Along dim 1 the argmax is the inverse permutation; it agrees with the permutation at two places
    a row on average.
    """
    generator = torch.Generator().manual_seed(10)
    target_BT = torch.rand(rows, length, generator=generator).argsort(1)
    logits_BTV = F.one_hot(target_BT, length).float()
    hits = {dim: int((logits_BTV.argmax(dim=dim) == target_BT).sum()) for dim in (1, -1)}
    percent = {
        "argmax(dim=-1), hits a token": 100 * hits[-1] / target_BT.numel(),
        "argmax(dim=-1), hits a sequence": 100 * hits[-1] / rows,
        "argmax(dim=1), hits a sequence: as printed": 100 * hits[1] / rows,
    }
    return [
        {"part": "accuracy", "arm": arm, "metric": "percent", "value": v}
        for arm, v in percent.items()
    ]


def ceiling_rows(length: int) -> list[Row]:
    """Return what no model without order can beat on this task.

    It guesses among the tokens that are left, and is right with chance 1/T, then 1/(T−1), ….
    With the true answer fed the mean is (1 + 1/2 + … + 1/T) / T; a model that feeds itself places 1
    token of T right.
    """
    told, own = sum(1 / left for left in range(1, length + 1)) / length, 1 / length
    base = {"part": "ceiling", "arm": "order unknown"}
    return [
        base | {"metric": metric, "value": v}
        for metric, v in (("accuracy", told), ("free_running_accuracy", own))
    ]
