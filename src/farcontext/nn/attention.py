"""Scaled dot-product attention in several backends, and the choice between them.

Attention is computed in plain algebra, blockwise, or by fused kernels.

B batch, T query tokens, S key tokens, N heads, G key/value heads, R = N/G query heads a group,
H head width. O = softmax(QKᵀ/√H + bias) V over the keys that a `Pattern` allows (Vaswani et al.
2017, eq. 1). In every backend a query without a visible key gets exactly 0 and passes on finite
gradients (the formula alone would give NaN).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from farcontext.nn.flex import flex
from farcontext.nn.local import is_local, sdpa_local
from farcontext.nn.masks import Pattern
from farcontext.nn.online import online
from farcontext.nn.sdpa import sdpa
from farcontext.nn.xformers import xformers

BACKENDS = ("reference", "online", "sdpa", "sdpa_local", "xformers", "flex")

_ran: ContextVar[list[str] | None] = ContextVar("ran", default=None)


class Choice(NamedTuple):
    """The backend that `auto` takes, and why."""

    backend: str
    reason: str


# ------------------------------------------------------------------------------------ plain algebra


def weights(
    q_BTNH: Float[Tensor, "B T N H"], k_BSGH: Float[Tensor, "B S G H"], pattern: Pattern
) -> Float[Tensor, "B N T S"]:
    """Return softmax(QKᵀ/√H + bias) over the allowed keys.

    Rows sum to 1, or are 0 where no key is allowed.
    """
    (_, T, N, H), S = q_BTNH.shape, k_BSGH.shape[1]
    k_BSNH = k_BSGH.repeat_interleave(N // k_BSGH.shape[2], dim=2)
    scores_BNTS = torch.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH) / math.sqrt(H)
    bias = pattern.bias(T, S, q_BTNH.device)
    if bias is not None:
        scores_BNTS = scores_BNTS + bias.to(scores_BNTS.dtype)
    allowed = pattern.allowed(T, S, q_BTNH.device)
    # The lowest finite number, not −inf, keeps a row without a key from NaN, in gradients too.
    scores_BNTS = scores_BNTS.masked_fill(~allowed, torch.finfo(scores_BNTS.dtype).min)
    return scores_BNTS.softmax(-1).masked_fill(~allowed, 0.0)


def reference(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    pattern: Pattern,
) -> Float[Tensor, "B T N H"]:
    """Return attention in plain tensor algebra.

    It materialises T×S several times; other backends are checked against it.
    """
    v_BSNH = v_BSGH.repeat_interleave(q_BTNH.shape[2] // v_BSGH.shape[2], dim=2)
    return torch.einsum("bnts,bsnh->btnh", weights(q_BTNH, k_BSGH, pattern), v_BSNH)


# ------------------------------------------------------------------------------------------- choice


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Collect the backend of every `attend` call in the block.

    The backends come in order: `with recorded() as ran: …`.
    """
    ran: list[str] = []
    token = _ran.set(ran)
    try:
        yield ran
    finally:
        _ran.reset(token)


def choose(
    q_BTNH: Float[Tensor, "B T N H"], k_BSGH: Float[Tensor, "B S G H"], pattern: Pattern
) -> Choice:
    """Return the backend that `auto` takes, and why.

    It is the same on CUDA, until a recorded timing says otherwise.
    """
    T, S = q_BTNH.shape[1], k_BSGH.shape[1]
    if is_local(pattern, T, S):
        band = pattern.before + pattern.after + 1
        return Choice(
            "sdpa_local", f"a band of {band} keys in {S}: blocks against their neighbours"
        )
    return Choice("sdpa", "torch's fused kernel takes every pattern, in memory linear in T and S")


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return q, k and v in the dtype that autocast wants.

    Autocast knows torch's own attention, but not flex and xformers.
    """
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(kind)) for x in tensors)


def attend(
    q_BTNH: Float[Tensor, "B T N H"],
    k_BSGH: Float[Tensor, "B S G H"],
    v_BSGH: Float[Tensor, "B S G H"],
    pattern: Pattern = Pattern(),  # noqa: B008 (frozen)
    backend: str = "auto",
) -> Float[Tensor, "B T N H"]:
    """Return softmax(QKᵀ/√H + bias) V over the keys the pattern allows.

    Query head n reads key/value head n // (N/G). The pattern's log-n scaling is applied here, to
    the queries, whatever the backend. Dropout, rotation and projections are not applied.

    Raises:
        ValueError: shapes that do not fit, an unknown backend, or one that cannot do this pattern.
    """
    N, G = q_BTNH.shape[2], k_BSGH.shape[2]
    if k_BSGH.shape != v_BSGH.shape or q_BTNH.shape[-1] != k_BSGH.shape[-1] or N % G:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q_BTNH, k_BSGH, v_BSGH))
        raise ValueError(
            f"q, k, v = {shapes}: expected (B,T,N,H), (B,S,G,H), (B,S,G,H), G dividing N"
        )
    if pattern.log_n:
        T, S = q_BTNH.shape[1], k_BSGH.shape[1]
        q_BTNH = q_BTNH * pattern.query_scale(T, S, q_BTNH.device)[:, None, None].to(q_BTNH.dtype)
    if backend == "auto":
        backend = choose(q_BTNH, k_BSGH, pattern).backend
    match backend:
        case "reference":
            out = reference(q_BTNH, k_BSGH, v_BSGH, pattern)
        case "online":
            out = online(q_BTNH, k_BSGH, v_BSGH, pattern)
        case "sdpa":
            out = sdpa(q_BTNH, k_BSGH, v_BSGH, pattern)
        case "sdpa_local":
            out = sdpa_local(q_BTNH, k_BSGH, v_BSGH, pattern)
        case "xformers":
            out = xformers(*autocast(q_BTNH, k_BSGH, v_BSGH), pattern)
        case "flex":
            out = flex(*autocast(q_BTNH, k_BSGH, v_BSGH), pattern)
        case _:
            raise ValueError(f"backend = {backend!r}: expected one of auto, {', '.join(BACKENDS)}")
    ran = _ran.get()
    if ran is not None:
        ran.append(backend)
    return out
