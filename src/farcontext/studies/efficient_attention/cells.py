"""Peak memory and seconds of single pieces of work in fresh processes.

Each process is the forked child of a server that has torch loaded. The server reads a cell, a line
of JSON, from stdin and answers it with one line:

    python -m farcontext.studies.efficient_attention.cells

`peak` tells what of memory is counted. Each cell is done once before, on a few tokens, to load what
it needs. A process has one thread.
"""

import gc
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from farcontext.files import UserError
from farcontext.nn import attention
from farcontext.nn.config import ModelConfig
from farcontext.nn.embedding import rotation_of
from farcontext.nn.layers import Block
from farcontext.nn.masks import Pattern
from farcontext.nn.transformer import Decoder, Encoder
from farcontext.studies.efficient_attention.peak import forget_peak, give_back, peak, watched

Cell = dict[str, Any]  # "what" names a function; the other keys are its options.
SMALL = 32  # A first call on so many tokens loads what a backend keeps, which is not its memory.
# These are bytes; models use SOONER, since their tensors are small here.
GIVEN_BACK, SOONER = 1 << 20, 1 << 17
MASKED = 0.3
MIB = 1 << 20


# --------------------------------------------------------------------------------- what is measured


def _leaves(
    length: int, heads: int, head_width: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    return [
        torch.randn(1, length, heads, head_width, dtype=dtype).requires_grad_() for _ in range(3)
    ]


def attend(backend: str, length: int, heads: int, head_width: int, seed: int) -> dict[str, float]:
    """Measure causal attention of one row, forward and backward.

    The inputs' gradients are counted, the inputs are not.
    """
    torch.manual_seed(seed)
    give_back(GIVEN_BACK)
    pattern = Pattern.causal()

    def once(T: int) -> dict[str, float]:
        inputs, out = _leaves(T, heads, head_width), []
        forward = watched(lambda: out.append(attention.attend(*inputs, pattern, backend)))
        both = watched(lambda: out[0].sum().backward(), peak() - forward["bytes"])
        return {
            "bytes": max(forward["bytes"], both["bytes"]),
            "seconds": forward["seconds"] + both["seconds"],
            "forward_bytes": forward["bytes"],
            "forward_seconds": forward["seconds"],
        }

    once(min(SMALL, length))
    return once(length)


def difference(
    backend: str, length: int, heads: int, head_width: int, seed: int
) -> dict[str, float]:
    """Return a backend's largest |difference| in fp32 from the reference in fp64."""
    torch.manual_seed(seed)
    exact = _leaves(length, heads, head_width, torch.float64)
    rounded = [x.detach().float().requires_grad_() for x in exact]
    outs = [attention.attend(*exact, Pattern.causal(), "reference")]
    outs.append(attention.attend(*rounded, Pattern.causal(), backend))
    for out in outs:
        out.sum().backward()  # Outputs and gradients are both compared.
    pairs = [(outs[0], outs[1]), *((x.grad, y.grad) for x, y in zip(exact, rounded, strict=True))]
    return {"value": max((x - y).abs().max().item() for x, y in pairs)}


def layer(length: int, width: int, heads: int) -> dict[str, float]:
    """Measure a causal block (attention and MLP), forward and backward, gradients included."""
    config = _config("decoder", width, heads, layers=1, vocabulary=2, length=length)
    block = Block(config)  # The gradients of its weights are counted.

    def once(T: int) -> dict[str, float]:
        x_BTD = torch.randn(1, T, width, requires_grad=True)
        turned = rotation_of(config, T, True, torch.float32, torch.device("cpu"))
        return watched(lambda: block(x_BTD, Pattern.causal(), turned).sum().backward())

    once(min(SMALL, length))
    return once(length)


def _config(
    kind: str, width: int, heads: int, *, layers: int, vocabulary: int, length: int, **others: Any
) -> ModelConfig:
    modernbert = {"norm": "layer", "mlp": "geglu", "embedding_norm": True}
    return ModelConfig(
        kind=kind,
        vocab_size=vocabulary,
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=2 * width,
        max_length=length,
        **(modernbert if kind == "encoder" else {}),
        **others,
    )


def _model(config: ModelConfig) -> nn.Module:
    return (Encoder if config.kind == "encoder" else Decoder)(config)


def _train(
    model: nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, scored: Tensor
) -> None:
    logits = model(tokens, select=scored)
    nn.functional.cross_entropy(logits.float(), tokens.flatten()[scored]).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _tokens(config: ModelConfig, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Return ids and flat scored positions.

    An encoder has a share MASKED of them, a decoder all.
    """
    tokens = torch.randint(config.vocab_size, (rows, length))
    share = MASKED if config.kind == "encoder" else 1.0
    return tokens, torch.arange(max(1, round(share * tokens.numel())))


def training(config: Cell, rows: int, length: int, backend: str) -> dict[str, float]:
    """Measure one training step of a model, its weights included.

    The peak is of all that the model holds. The step is AdamW's, with its moments in place.
    """
    give_back(SOONER)
    force(backend)
    config = ModelConfig(**config)

    def ready(config: ModelConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = _model(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        _train(model, optimizer, *_tokens(config, 1, SMALL))  # This makes the moments.
        return model, optimizer

    ready(config)
    before = forget_peak()
    model, optimizer = ready(config)
    batch = _tokens(config, rows, length)
    return watched(lambda: _train(model, optimizer, *batch), before)


def inference(config: Cell, rows: int, length: int, backend: str) -> dict[str, float]:
    """Measure a forward pass that scores the last token of each row.

    It has no gradient and no cache of keys; the weights are counted.
    """
    give_back(SOONER)
    force(backend)
    config = ModelConfig(**config)
    with torch.inference_mode():
        _model(config)(_tokens(config, 1, SMALL)[0], select=torch.arange(1))
        before = forget_peak()
        model = _model(config).eval()
        tokens, _ = _tokens(config, rows, length)
        last = torch.arange(length - 1, rows * length, length)
        return watched(lambda: model(tokens, select=last), before)


def force(backend: str) -> None:
    """Make all layers of this process use one backend, except for "auto"."""
    if backend != "auto":
        # With "auto" the model chooses. The process ends after its cell, so that nothing has to be
        # put back.
        attention.choose = lambda *_: attention.Choice(backend, "this cell's")


def known(size: int) -> dict[str, float]:
    """Measure so many bytes of ones, which tests the measurement itself."""
    torch.ones(1, dtype=torch.uint8)
    return watched(lambda: torch.ones(size, dtype=torch.uint8))


def ceilings(size: int, tries: int) -> dict[str, float]:
    """Return the machine's most FLOP/s and bytes/s in fp32.

    The FLOP/s are of a matrix product size × size, the bytes/s of a copy (read and written).
    """
    a, b = torch.randn(2, size, size).unbind()
    source, target = torch.ones(2, 8 * MIB).unbind()
    product = min(watched(lambda: a @ b)["seconds"] for _ in range(tries))
    copied = min(watched(lambda: target.copy_(source))["seconds"] for _ in range(tries))
    return {
        "flop_per_second": 2 * size**3 / product,
        "bytes_per_second": 2 * source.nbytes / copied,
    }


# ------------------------------------------------------------------------------------ the processes


def answer(cell: Cell) -> dict[str, float]:
    """Measure one cell in this process."""
    options = {name: value for name, value in cell.items() if name != "what"}
    match cell["what"]:
        case "attend":
            work = attend
        case "difference":
            work = difference
        case "layer":
            work = layer
        case "training":
            work = training
        case "inference":
            work = inference
        case "known":
            work = known
        case "ceilings":
            work = ceilings
        case other:
            raise ValueError(f"what = {other!r}: expected the name of something that is measured")
    return work(**options)


def _forked(line: str) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(answer(json.loads(line))).encode())
        except Exception as error:
            os.write(writing, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said or json.dumps({"error": "the process was killed; expected enough memory for it"})


def main() -> None:
    """Serve: fork a child for each line of stdin."""
    torch.set_num_threads(1)
    small = _config("encoder", 4, 2, layers=1, vocabulary=8, length=SMALL).model_dump(mode="json")
    for kind in (
        training,
        inference,
    ):  # These first small cells import here what torch imports late.
        kind(small, rows=1, length=SMALL, backend="auto")
    # Else the first collection in each child would copy every page that holds an object.
    gc.freeze()
    for line in sys.stdin:
        print(_forked(line), flush=True)


def _serve(waiting: deque[tuple[int, Cell]], found: list[dict[str, float] | None]) -> None:
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "farcontext.studies.efficient_attention.cells"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | single
    ) as server:
        try:
            while waiting:
                number, cell = waiting.popleft()
                print(json.dumps(cell), file=server.stdin, flush=True)
                said = json.loads(server.stdout.readline() or '{"error": "its server ended"}')
                if "error" in said:
                    raise UserError(f"{json.dumps(cell)}: {said['error']}")
                found[number] = said
        finally:
            waiting.clear()  # Where one server fails, the others stop too.
            server.stdin.close()


def measure(cells: Sequence[Cell], jobs: int = 1) -> list[dict[str, float]]:
    """Measure each cell in a process of its own; return the answers.

    The cells are begun in this order, `jobs` at a time.

    Raises:
        UserError: a cell failed, or was killed for want of memory; a system that cannot fork.
    """
    if not hasattr(os, "fork"):
        raise UserError("fresh processes: expected Linux or macOS, where a process can be forked")
    found: list[dict[str, float] | None] = [None] * len(cells)
    waiting = deque(enumerate(cells))
    with ThreadPoolExecutor(jobs) as pool:
        for served in [pool.submit(_serve, waiting, found) for _ in range(jobs)]:
            served.result()
    return found


if __name__ == "__main__":
    main()
