"""Checks of every way to compute attention here, against fp64.

The reference runs on the CPU. The command to run is gpu.py, which does these checks first.
"""

import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = Path(__file__).resolve().parent.parent
# A machine lent for its card has torch, but not this package.
sys.path.insert(0, str(ROOT / "src"))

from farcontext.nn import attention, xformers  # noqa: E402
from farcontext.nn.masks import Pattern  # noqa: E402

Attend = Callable[[Tensor, Tensor, Tensor, Pattern], Tensor]
Row = dict[str, Any]
COMPILED = ("flex",)  # Torch compiles them anew for each pattern and dtype, which takes seconds.
TOLERANCES = {torch.bfloat16: 5e-2, torch.float16: 1e-2, torch.float32: 1e-4}
LATE = "not checked: --minutes were over"
CHECKED = (
    "backend",
    "pattern",
    "dtype",
    "queries",
    "keys",
    "quantity",
    "error",
    "tolerance",
    "result",
)


# -------------------------------------------------------------------------------------------- paths


def sdpa_by(backend: SDPBackend) -> Attend:
    """Return torch's attention restricted to one of its kernels."""

    def attend(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
        with sdpa_kernel(backend):
            return attention.sdpa(q, k, v, pattern)

    return attend


def xformers_by(kernel: str) -> Attend:
    """Return xformers' attention restricted to its cutlass, flash (2) or flash3 kernels."""

    def attend(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
        fmha = xformers.fmha()
        ops = getattr(fmha, kernel)
        return xformers.packed(
            q, k, v, pattern, partial(fmha.memory_efficient_attention, op=(ops.FwOp, ops.BwOp))
        )

    return attend


def make_paths(cuda: bool) -> dict[str, Attend]:
    """Return every way to compute attention here, by name."""
    everywhere = {name: partial(attention.attend, backend=name) for name in attention.BACKENDS}
    if not cuda:
        return everywhere
    return everywhere | {
        "sdpa_flash": sdpa_by(SDPBackend.FLASH_ATTENTION),
        "sdpa_efficient": sdpa_by(SDPBackend.EFFICIENT_ATTENTION),
        "sdpa_cudnn": sdpa_by(SDPBackend.CUDNN_ATTENTION),
        "sdpa_math": sdpa_by(SDPBackend.MATH),
        "xformers_flash": xformers_by("flash"),
        "xformers_flash3": xformers_by("flash3"),
        "xformers_cutlass": xformers_by("cutlass"),
    }


def refusal(error: Exception) -> str:
    """Return why a path gave nothing, in one line.

    Either it cannot run here, or it failed. A broken CUDA context ends the run.
    """
    text = " ".join(str(error).split())[:600]
    if "CUDA error" in text:
        raise error
    no_kernel = re.search(
        "no available kernel|no viable backend|out of resource", text, re.IGNORECASE
    )
    known = isinstance(error, ValueError | NotImplementedError) or no_kernel
    return f"cannot: {text}" if known else f"failed: {type(error).__name__}: {text}"


# -------------------------------------------------------------------------------------- correctness


def make_cases(T: int) -> dict[str, tuple[Pattern, int, int, int]]:
    """Return pattern, queries, keys and key/value heads by name.

    A kernel is told no more than that; inputs have 2 rows of 4 heads.
    """
    causal, half, third = Pattern.causal(), T // 2, T // 3
    row = torch.arange(T)
    documents = torch.stack([row // third, (row >= half - 1).long()])
    padded = documents.masked_fill((row < 3) | (row >= T - 5), -1)
    # No key is of document 9.
    across = torch.stack([row[:half] // (half // 2) * 9, row[:half] * 0])
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])
    return {
        "full": (Pattern(), T, T, 4),
        "causal": (causal, T, T, 4),
        "causal, grouped heads": (causal, T, T, 2),
        "causal, fewer queries": (causal, half, T, 4),
        "causal, more queries": (causal, T, half, 4),
        "window": (Pattern.window(third), T, T, 4),
        "window, fewer queries": (Pattern.window(third), half, T, 2),
        "band": (Pattern.local(third // 2), T, T, 4),
        "sinks": (Pattern(before=third, after=0, sinks=4), T, T, 4),
        "alibi": (Pattern(after=0, slopes=slopes), T, T, 4),
        "alibi, symmetric": (Pattern(slopes=slopes), T, T, 2),
        "relative": (Pattern(relative=torch.linspace(-1, 1, 36).view(4, 9)), T, T, 4),
        "documents": (Pattern().within(documents), T, T, 4),
        "documents, causal": (causal.within(documents), T, T, 2),
        "documents, causal, fewer queries": (causal.within(documents), half, T, 4),
        "documents, window": (Pattern.window(third // 2).within(documents), T, T, 4),
        "documents, band": (Pattern.local(third // 2).within(documents), T, T, 4),
        "padding": (causal.within(padded), T, T, 4),
        "across": (Pattern().within(padded, across), half, T, 4),
    }


def forward_and_gradients(
    attend: Attend, inputs: Sequence[Tensor], pattern: Pattern, d_out: Tensor
) -> list[Tensor]:
    """Return the output and the gradients of q, k and v."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = attend(*leaves, pattern)
    return [out.detach(), *torch.autograd.grad(out, leaves, d_out)]


def check(
    paths: dict[str, Attend],
    device: str,
    T: int,
    H: int,
    dtypes: Sequence[torch.dtype],
    seed: int,
    *,
    deadline: float = math.inf,
) -> list[Row]:
    """Return one row a path, pattern, dtype and quantity.

    Each is held against fp64 on the CPU from the same rounded inputs. After `deadline` (seconds of
    `time.monotonic`) no pattern is begun, and its row says so.
    """
    generator, rows = torch.Generator().manual_seed(seed), []
    # This loop is outermost, as masks serve every dtype.
    for name, (pattern, queries, keys, G) in make_cases(T).items():
        if time.monotonic() > deadline:
            late = {"pattern": name, "queries": queries, "keys": keys, "result": LATE}
            rows += [{**late, "backend": backend} for backend in paths]
            continue
        for dtype in dtypes:
            shapes = ((2, queries, 4, H), (2, keys, G, H), (2, keys, G, H), (2, queries, 4, H))
            *inputs, d_out = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
            reference = partial(attention.attend, backend="reference")
            wanted = forward_and_gradients(
                reference, [x.double() for x in inputs], pattern, d_out.double()
            )
            dead = ~pattern.allowed(queries, keys).any(-1).expand(2, 1, queries)[:, 0]
            base = {
                "pattern": name,
                "dtype": str(dtype).removeprefix("torch."),
                "queries": queries,
                "keys": keys,
            }
            base["tolerance"] = TOLERANCES[dtype]
            theirs, d_theirs = [x.to(device) for x in inputs], d_out.to(device)
            for backend, attend in paths.items():
                if (
                    device != "cpu" and backend in COMPILED
                ):  # Torch compiles a function for few patterns only.
                    torch.compiler.reset()
                for quantity, error, result in compare(
                    attend, theirs, pattern, d_theirs, wanted, dead
                ):
                    ok = result or ("ok" if error <= base["tolerance"] else "failed: tolerance")
                    rows.append(
                        {
                            **base,
                            "backend": backend,
                            "quantity": quantity,
                            "error": error,
                            "result": ok,
                        }
                    )
    return rows


def compare(
    attend: Attend,
    inputs: list[Tensor],
    pattern: Pattern,
    d_out: Tensor,
    wanted: list[Tensor],
    dead: Tensor,
) -> list[tuple[str, float | None, str]]:
    """Return (quantity, error, why there is none) of every quantity.

    The output alone stands first, then output and gradients.
    """
    rows: list[tuple[str, float | None, str]] = []
    for names in (("forward",), ("out", "dq", "dk", "dv")):
        try:
            if names == ("forward",):
                with torch.no_grad():
                    found = [attend(*inputs, pattern)]
            else:
                found = forward_and_gradients(attend, inputs, pattern, d_out)
        except Exception as error:  # A path that breaks is a row of the table.
            rows.append((names[-1], None, refusal(error)))
            continue
        for name, ours, theirs in zip(names, found, wanted, strict=False):
            error = float(
                (ours.cpu().double() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9)
            )
            if name in ("forward", "out") and bool((ours.cpu()[dead] != 0).any()):
                error = float("inf")
            rows.append((name, error, ""))
    return rows


def report_of(rows: list[Row]) -> list[str]:
    """Return a line for each path, and one for each failure."""
    lines = []
    for backend in dict.fromkeys(row["backend"] for row in rows):
        mine = [row["result"].partition(":")[0] for row in rows if row["backend"] == backend]
        lines.append(
            f"{backend:18} "
            + "  ".join(f"{mine.count(x):4} {x}" for x in ("ok", "cannot", "failed", "not checked"))
        )
    failed = [row for row in rows if row["result"].startswith("failed")]
    return lines + ["  ".join(str(row.get(column)) for column in CHECKED) for row in failed]
