"""Notebook 01: attention derived, checked against torch in fp64, and its reach.

Sizes: T tokens (queries), S key tokens, N heads, H head width, D model width, L layers, w keys of a
window. Only the Jacobian has a B, one row for each output number; all else has one batch row.
`predicted` uses inequalities alone, and not `patterns`: the code under test is held against it.
"""

import math
import time
from collections.abc import Iterator
from functools import reduce

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from farcontext.nn import attention
from farcontext.nn.config import ModelConfig
from farcontext.nn.masks import Pattern
from farcontext.nn.online import online_with_logsumexp
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.studies.attention_derivation.by_hand import (
    hand_gradients,
    merge,
    partial,
    softmax_jacobian,
    three_steps,
)
from farcontext.studies.attention_derivation.params import Params

COLUMNS = ["identity", "pattern", "layers", "head_width", "seed", "metric", "value"]
HEADS = 2
CHUNK = 5_000  # So many draws of q·k are held at a time.
ROWS = 1_000  # So many rows of softmax are averaged for each seed and width.


def generator(seed: int) -> torch.Generator:
    """Return a random stream of its own."""
    return torch.Generator().manual_seed(seed)


def normal(random: torch.Generator, *shape: int) -> Tensor:
    """Return standard normal numbers, fp64."""
    return torch.randn(shape, generator=random, dtype=torch.float64)


# --------------------------------------------------------------------------------- masks, predicted


def patterns(window: int) -> dict[str, Pattern]:
    """Return the masks under test by name."""
    return {
        "full": Pattern(),
        "causal": Pattern.causal(),
        "window": Pattern.window(window),
        "local": Pattern.local(window // 2),  # This mask looks w//2 tokens to either side.
    }


def predicted(name: str, T: int, window: int, layers: int = 1) -> Bool[Tensor, "T T"]:
    """Return which inputs (columns) should reach which outputs (rows) after `layers` layers."""
    distance = torch.arange(T)[:, None] - torch.arange(T)
    match name:
        case "full":
            return torch.ones_like(distance, dtype=torch.bool)
        case "causal":
            return distance >= 0
        case "window":  # The mask reaches L(w−1) + 1 tokens, its own among them.
            return (distance >= 0) & (distance <= layers * (window - 1))
        case "local":  # The mask reaches 2Lh + 1 tokens, h = w//2.
            return distance.abs() <= layers * (window // 2)
    raise ValueError(f"name = {name!r}: expected full, causal, window or local")


# ----------------------------------------------------------------------------------- A1, identities


def torch_attention(
    q_BTNH: Tensor, k_BSNH: Tensor, v_BSNH: Tensor, allowed_TS: Bool[Tensor, "T S"]
) -> Float[Tensor, "B T N H"]:
    """Return torch's own attention, unfused ("math"): the judge."""
    with sdpa_kernel(SDPBackend.MATH):
        q, k, v = (x.transpose(1, 2) for x in (q_BTNH, k_BSNH, v_BSNH))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed_TS).transpose(1, 2)


def _differences(ours: dict[str, Tensor], truth: dict[str, Tensor]) -> Iterator[dict]:
    for name, value in ours.items():
        difference = float((value - truth[name.split()[-1]]).detach().abs().max())
        yield {"identity": name, "metric": "max_abs_difference", "value": difference}


def mask_identities(seed: int, params: Params, name: str) -> Iterator[dict]:
    """Yield the largest differences from torch, forward and backward, under one mask."""
    random, (T, H) = generator(seed), (params.length, params.head_widths[0])
    q, k, v, d_out = (normal(random, 1, T, HEADS, H) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    allowed, pattern = predicted(name, T, params.window), patterns(params.window)[name]
    out = torch_attention(*inputs, allowed)
    online, logsumexp = online_with_logsumexp(*inputs, pattern, block=max(1, T // 3))
    heads_first = [x.detach()[0].transpose(0, 1) for x in (q, k, v, d_out)]
    by_hand = [x.transpose(0, 1)[None] for x in hand_gradients(*heads_first, allowed)]
    scores_NTS = (heads_first[0] @ heads_first[1].mT / math.sqrt(H)).masked_fill(
        ~allowed, -math.inf
    )
    truth = {"forward": out, "logsumexp": scores_NTS.logsumexp(-1)[None]}
    truth |= zip(("dq", "dk", "dv"), torch.autograd.grad(out, inputs, d_out), strict=True)
    ours = {"reference forward": attention.reference(*inputs, pattern), "online forward": online}
    ours |= {"fused forward": attention.attend(*inputs, pattern), "online logsumexp": logsumexp}
    ours |= zip(("by hand dq", "by hand dk", "by hand dv"), by_hand, strict=True)
    back = torch.autograd.grad(online, inputs, d_out)
    ours |= zip(("online dq", "online dk", "online dv"), back, strict=True)
    yield from ({**row, "pattern": name} for row in _differences(ours, truth))


def row_identities(seed: int, params: Params) -> Iterator[dict]:
    """Yield the differences of three steps, softmax's Jacobian and online softmax."""
    random, (T, H) = generator(seed), (params.length, params.head_widths[0])
    embedding_VD, tokens = normal(random, T, H), torch.randint(T, (T,), generator=random)
    projections = [normal(random, H, H) / math.sqrt(H) for _ in range(3)]
    q, k, v = (embedding_VD[tokens] @ w for w in projections)
    one_head = (
        x[None, :, None] for x in (q, k, v)
    )  # The three steps need one head, the others one row.
    truth = {"steps": torch_attention(*one_head, predicted("full", T, 1))[0, :, 0]}
    z_S = q[-1] @ k.T / math.sqrt(H)
    p_S = z_S.softmax(0)
    truth["jacobian"] = torch.autograd.functional.jacobian(lambda z: z.softmax(0), z_S)
    truth["blocks"] = truth["order"] = p_S @ v
    step = max(1, T // 5)
    parts = [partial(z_S[i : i + step], v[i : i + step]) for i in range(0, T, step)]
    whole, backwards = reduce(merge, parts), reduce(merge, parts[::-1])
    ours = {"three steps": three_steps(embedding_VD, tokens.tolist(), *projections)}
    ours |= {"softmax jacobian": softmax_jacobian(p_S), "online softmax, blocks": whole.o / whole.l}
    ours["online softmax, reverse order"] = backwards.o / backwards.l
    yield from _differences(ours, truth)
    eigenvalues = torch.linalg.eigvalsh(softmax_jacobian(p_S))
    for which, value in (("smallest", eigenvalues[0]), ("largest", eigenvalues[-1])):
        yield {
            "identity": "softmax jacobian",
            "metric": f"{which}_eigenvalue",
            "value": float(value),
        }


# ----------------------------------------------------------------------------- A1, why divide by √H


def variances(seed: int, head_width: int, samples: int) -> Iterator[dict]:
    """Yield the variance of q·k, plain and divided by √H."""
    random, dots = generator(seed), []
    for start in range(0, samples, CHUNK):  # Both q and k are independent and standard normal.
        q, k = torch.randn((2, min(CHUNK, samples - start), head_width), generator=random)
        dots.append((q * k).sum(-1))
    dots_n = torch.cat(dots).double()
    yield {"metric": "unscaled_variance", "value": float(dots_n.var())}
    yield {"metric": "scaled_variance", "value": float((dots_n / math.sqrt(head_width)).var())}


def saturation(seed: int, head_width: int, keys: int) -> Iterator[dict]:
    """Yield the entropy (nats) and Jacobian norm of softmax over such scores.

    Both are averaged over rows. ‖diag(p) − ppᵀ‖²_F = Σp² − 2Σp³ + (Σp²)² tells how much of a
    gradient that arrives at p passes on to the scores.
    """
    random = generator(seed)
    q_rH, k_rSH = normal(random, ROWS, head_width), normal(random, ROWS, keys, head_width)
    scores_rS = torch.einsum("rh,rsh->rs", q_rH, k_rSH)
    for prefix, z_rS in (("unscaled", scores_rS), ("scaled", scores_rS / math.sqrt(head_width))):
        p_rS = z_rS.softmax(-1)
        square, cube = p_rS.square().sum(-1), p_rS.pow(3).sum(-1)
        norm_r = (square - 2 * cube + square.square()).clamp(min=0).sqrt()
        yield {
            "metric": f"{prefix}_entropy",
            "value": float(-torch.xlogy(p_rS, p_rS).sum(-1).mean()),
        }
        yield {"metric": f"{prefix}_jacobian", "value": float(norm_r.mean())}


# --------------------------------------------------------------------------------- A2, reachability


def random_decoder(seed: int, layers: int, length: int) -> Decoder:
    """Return our whole decoder (rotary positions, norms, MLPs) with random fp64 weights."""
    config = ModelConfig(
        kind="decoder",
        vocab_size=max(2, length),
        width=8,
        layers=layers,
        heads=HEADS,
        mlp_width=16,
        max_length=length,
        init_std=0.3,
        embedding_std=1.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Decoder(config).double().requires_grad_(False)


def jacobian_norms(
    seed: int, layers: int, length: int, pattern: Pattern
) -> Float[np.ndarray, "T T"]:
    """Return ‖∂output_t/∂input_s‖ (Frobenius) of a random decoder.

    Output t is a row, input s a column. The whole Jacobian is taken at once: there is one copy of
    the sequence for each of the T·D output numbers, and each is asked for its own. Inputs are the
    token embeddings, outputs the final hidden states. An exact 0 means that no path exists.
    """
    model = random_decoder(seed, layers, length)
    x_1TD, width = model.embedding(torch.arange(length)[None], None), model.config.width
    x_BTD = x_1TD.repeat(length * width, 1, 1).requires_grad_()
    out = model.stack(x_BTD, None, pattern).unflatten(0, (length, width))
    # Row (t, d) is asked for number d of output t.
    asked = out.diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1)
    (gradient,) = torch.autograd.grad(asked.sum(), x_BTD)
    return gradient.unflatten(0, (length, width)).norm(dim=(1, 3)).numpy()


def reach(seed: int, layers: int, params: Params, name: str) -> Iterator[dict]:
    """Yield a mask's share of joined pairs, the prediction and wrong pairs."""
    norms = jacobian_norms(seed, layers, params.length, patterns(params.window)[name])
    reached, wanted = norms > 0, predicted(name, params.length, params.window, layers).numpy()
    where = {"pattern": f"stacked {name}" if name in ("window", "local") and layers > 1 else name}
    yield {**where, "metric": "reachable_share", "value": float(reached.mean())}
    yield {**where, "metric": "predicted_share", "value": float(wanted.mean())}
    yield {**where, "metric": "reach_error", "value": int((reached != wanted).sum())}
    edge = layers * (params.window - 1)
    if name == "window" and edge < params.length:
        farthest = norms.diagonal(-edge) / norms.diagonal()[edge:]
        yield {**where, "metric": "edge_influence", "value": float(farthest.mean())}


# ---------------------------------------------------------------------------------------- the study


def _observations(params: Params) -> Iterator[tuple[str, dict]]:
    """Yield the stage and the row of each observation."""
    for seed in params.seeds:
        rows = [
            row for name in patterns(params.window) for row in mask_identities(seed, params, name)
        ]
        yield from (
            ("identities", {**row, "seed": seed}) for row in (*rows, *row_identities(seed, params))
        )
        for width in params.head_widths:
            for row in (
                *variances(seed, width, params.samples),
                *saturation(seed, width, params.length),
            ):
                yield "scaling", {**row, "head_width": width, "seed": seed}
        for layers in params.layers:
            for name in patterns(params.window):
                for row in reach(seed, layers, params, name):
                    yield "reach", {**row, "layers": layers, "seed": seed}


def run(params: Params) -> pd.DataFrame:
    """Check every identity and count every reachable pair, on one thread."""
    before, seconds, rows = torch.get_num_threads(), {}, []
    torch.set_num_threads(1)  # The bits of a result depend on the number of threads.
    try:
        last = time.perf_counter()
        for stage, row in _observations(params):
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - last
            last = time.perf_counter()
            rows.append(row)
    finally:
        torch.set_num_threads(before)
    table = tables.tidy(rows, COLUMNS)
    cost = pd.DataFrame({"stage": seconds.keys(), "seconds": seconds.values()})
    tables.write_table(table, "attention_derivation", params, cost)
    return table
