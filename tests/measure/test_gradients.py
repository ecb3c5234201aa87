"""A gradient by distance agrees with a finite difference.

It agrees with a closed form too, from within inference mode, and at its edges.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from farcontext.measure import gradients, stats
from farcontext.nn.config import ModelConfig
from farcontext.nn.recurrent import Recurrent
from farcontext.nn.transformer import Decoder
from farcontext.tasks import flip_flop

TASK = {"name": "flip_flop", "ignores": 0.8}


def shape(kind: str, **changes: object) -> ModelConfig:
    base = {
        "vocab_size": flip_flop.VOCABULARY + 1,
        "width": 8,
        "layers": 1,
        "heads": 2,
        "mlp_width": 8,
    }
    return ModelConfig(kind=kind, max_length=64, init_std=0.3, embedding_std=1.0, **base | changes)


def made(kind: str, **changes: object) -> Decoder | Recurrent:
    torch.manual_seed(0)
    return (Decoder if kind == "decoder" else Recurrent)(shape(kind, **changes)).eval()


@pytest.mark.parametrize("kind", ["decoder", "lstm"])
def test_a_norm_is_that_of_finite_differences(kind: str) -> None:
    model = made(kind).double()
    tokens = torch.randint(5, (2, 6), generator=torch.Generator().manual_seed(1))
    at, target = torch.tensor([5, 3]), torch.tensor([3, 4])
    found = gradients.gradient_norms(model, tokens, at, target)

    def losses(x: torch.Tensor) -> torch.Tensor:
        hidden = model.from_embedded(x) if kind == "lstm" else model.stack(x)
        return F.cross_entropy(model.logits(hidden[torch.arange(2), at]), target, reduction="none")

    table = model.embedding if kind == "lstm" else model.embedding.weight
    x = F.embedding(tokens, table).detach()
    numeric = torch.zeros(2, 6, 8, dtype=torch.float64)
    for t in range(6):
        for channel in range(8):
            step = torch.zeros_like(x)
            step[:, t, channel] = 1e-5
            with torch.no_grad():
                numeric[:, t, channel] = (losses(x + step) - losses(x - step)) / 2e-5
    assert (found - numeric.norm(dim=-1)).abs().max() < 1e-8
    assert (found[1, 4:] == 0).all()  # after the row's own last token: causal
    assert (found[0] > 0).all()


def test_it_works_inside_inference_mode_and_leaves_the_model_alone() -> None:
    for kind in ("decoder", "rnn", "lstm", "gru"):
        with torch.inference_mode():
            model = made(kind)
            before = {name: value.clone() for name, value in model.state_dict().items()}
            rows = gradients.gradient_by_distance(
                model, task=TASK, length=32, distances=(1, 8, 30), rows=4
            )
        assert [row["distance"] for row in rows] == [1, 8, 30]
        assert all(math.isfinite(row["log_norm"]) for row in rows)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert next(model.parameters()).dtype == torch.float32


def test_a_linear_recurrence_has_the_slope_of_its_weight() -> None:
    """tanh is linear around 0.

    A state of width 1 shrinks its gradient by w a token, so the slope is ln w. Twin: another w.
    """
    model = made("rnn", width=1, mlp_width=1, heads=1, positions="none")
    distances = tuple(range(4, 60, 4))
    for w in (0.9, 0.5):
        with torch.no_grad():
            model.embedding.copy_(1e-6 * torch.arange(6.0)[:, None])
            model.recurrence.weight_hh_l0.fill_(w)
        rows = gradients.gradient_by_distance(
            model, task=TASK, length=64, distances=distances, rows=4
        )
        slope = stats.log_slope(distances, np.exp([row["log_norm"] for row in rows]))
        assert slope == pytest.approx(math.log(w), rel=1e-6)


def test_the_range_of_fp64_is_used() -> None:
    """0.01 a token over 60 tokens is 1e-120, which fp32 would have rounded to 0."""
    model = made("rnn", width=1, mlp_width=1, heads=1, positions="none")
    with torch.no_grad():
        model.recurrence.weight_hh_l0.fill_(0.01)
    (row,) = gradients.gradient_by_distance(model, task=TASK, length=64, distances=(60,), rows=4)
    assert -400 < row["log_norm"] < 60 * math.log(0.01) + 20


def test_before_training_means_fresh_weights_of_that_seed() -> None:
    model, options = made("lstm"), {"task": TASK, "length": 32, "distances": (1, 16), "rows": 4}
    same = gradients.gradient_by_distance(model, **options)
    with torch.no_grad():
        model.recurrence.weight_hh_l0.mul_(0.1)
    assert gradients.gradient_before_training(model, seed=0, **options) == same
    assert gradients.gradient_before_training(model, seed=1, **options) != same
    assert gradients.gradient_by_distance(model, **options) != same


def test_a_distance_before_the_first_token_is_refused() -> None:
    for distances in ((31,), (-1,)):
        with pytest.raises(ValueError, match="expected 0 to 30"):
            gradients.gradient_by_distance(
                made("gru"), task=TASK, length=32, distances=distances, rows=2
            )
