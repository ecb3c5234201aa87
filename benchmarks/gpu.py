"""Checks and times of attention and training on one CUDA card.

    python benchmarks/gpu.py [--minutes 30] [--out results/gpu-<card>] [--paths xformers flex …]
    python benchmarks/gpu.py --dry-run --out build/gpu-dry-run

The dry run is for any CPU: its sizes are tiny, and it checks correctness alone.

Every path is checked first, then timed; `make gpu` runs it all. It needs torch (CUDA), the xformers
wheel, numpy and jaxtyping; the training part also pydantic and ruamel.yaml, and says so if they are
missing. A path with a wrong result is not timed, and the exit code is then 1. Flex is compiled anew
for each pattern (seconds a time), so it comes last, in bfloat16, within a third of --minutes.

Written below --out, each file whole or not at all; one row a cell, empty where nothing was
measured:

card.json        card, capability, memory_gib, driver, cuda, torch, xformers, python, date,
                 seed (of what was checked), minutes (that it took),
                 matmul_tflop_per_s (bf16, 8192³: the ceiling), copy_gb_per_s (read + written),
                 dry_run
correctness.csv  backend, pattern, dtype, queries, keys,
                 quantity (forward: the output where no gradient is wanted; out, dq, dk, dv),
                 error (largest absolute difference from fp64 on the CPU over the largest absolute
                 value there; inf where a query without a key did not get 0), tolerance,
                 result (ok; cannot: why; failed: why; not checked: why)
attention.csv    backend, pattern (full, causal, window, documents), dtype,
                 direction (forward, forward_backward), head_width, length (tokens a row), batch,
                 heads, span (keys of a window, tokens of a document), repeats,
                 milliseconds (median), milliseconds_low and milliseconds_high (quartiles),
                 tflop_per_s, share_of_ceiling, peak_mib (over the inputs),
                 note (why a cell is empty)
training.csv     length, batch, precision, backend (that ran), repeats, milliseconds (of a step),
                 milliseconds_low and milliseconds_high, tokens_per_s, flop_per_token, tflop_per_s,
                 flop_utilisation (share of the ceiling), peak_mib, note

FLOP of attention: 4·B·N·H·pairs forward, 2.5 times that backward (Dao 2023, §4.1); pairs a row: T²,
of a causal half T²/2, of a window its exact number, of documents the sum of theirs. Times are CUDA
events around one call: short ones hold its launch.
"""

import argparse
import csv
import io
import os
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gpu_check import (
    CHECKED,
    COMPILED,
    ROOT,
    TOLERANCES,
    Attend,
    Row,
    check,
    make_paths,
    refusal,
    report_of,
)
from torch import Tensor

from farcontext import files
from farcontext.nn import attention
from farcontext.nn.masks import Pattern

CELL = (
    "backend",
    "pattern",
    "dtype",
    "direction",
    "head_width",
    "length",
    "batch",
    "heads",
    "span",
)
TIMES = ("repeats", "milliseconds", "milliseconds_low", "milliseconds_high")
TIMED = (*CELL, *TIMES, "tflop_per_s", "share_of_ceiling", "peak_mib", "note")
TRAINED = ("length", "batch", "precision", "backend", *TIMES, "tokens_per_s", "flop_per_token")
TRAINED = (*TRAINED, "tflop_per_s", "flop_utilisation", "peak_mib", "note")
DEVICE = "cuda"
WIDTH = 2048  # heads · head width, as in flash-attention's benchmark
TOKENS = 16384  # tokens of a call, in rows of `length`; a longer row is a call alone
SPAN = 1024
LENGTHS = (14, 10, 12, 16, 18, 20, 11, 13, 15, 17, 19)  # log2 of the tokens, in order of importance
FORWARD, BOTH = "forward", "forward_backward"
MASKED = 0.3  # share of the tokens that a training step scores
LONGEST = 20.0  # A call that is expected to take more seconds is skipped.
LONG = 4000.0  # A call of so many milliseconds or more is timed once.
REPEATS = (4, 30)  # A shorter call is repeated for a second, within these counts.


# ------------------------------------------------------------------------------------------- timing


def once(call: Callable[[], Any]) -> float:
    """Return the milliseconds of one call on the card."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def measure(call: Callable[[], Any]) -> Row:
    """Return median and quartiles of a call's milliseconds, and its peak MiB."""
    before = torch.cuda.memory_allocated()
    call()  # This warm-up compiles, and builds masks.
    torch.cuda.reset_peak_memory_stats()
    times = [once(call)]
    if times[0] < LONG:
        times += [once(call) for _ in range(int(np.clip(1000 / max(times[0], 0.01), *REPEATS)))]
    values = np.quantile(times, (0.5, 0.25, 0.75)).tolist()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    return dict(zip(TIMES, (len(times), *values), strict=True)) | {"peak_mib": peak}


def ceilings() -> tuple[float, float]:
    """Return TFLOP/s of a bf16 product (8192³) and GB/s of a copy."""
    a, b = torch.randn(2, 8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    matmul = 2 * 8192**3 / measure(lambda: a @ b)["milliseconds"] / 1e9
    x, y = torch.empty(2, 2**30, device=DEVICE, dtype=torch.float32)
    return matmul, 2 * x.nbytes / measure(lambda: y.copy_(x))["milliseconds"] / 1e6


def timed_pattern(name: str, length: int, batch: int) -> tuple[Pattern, float]:
    """Return a pattern to time, and its visible pairs a row."""
    match name:
        case "full":
            return Pattern(), length**2
        case "causal":
            return Pattern.causal(), length**2 / 2
        case "window":
            return Pattern.window(SPAN), Pattern.window(SPAN).count(length, length)
    documents = (torch.arange(length, device=DEVICE) // SPAN).expand(batch, -1)
    return Pattern.causal().within(documents), length * SPAN / 2


def attention_flop(batch: int, heads: int, head_width: int, pairs: float, direction: str) -> float:
    """Return the FLOP of a call: two products forward, five backward."""
    return 4 * batch * heads * head_width * pairs * (3.5 if direction == BOTH else 1)


class Cell(NamedTuple):
    """A cell that attention.csv has a row for."""

    length: int
    head_width: int
    pattern: str
    backend: str
    direction: str


def time_cell(
    cell: Cell, attend: Attend, seen: dict[tuple, tuple[float, float]], ceiling: float
) -> Row:
    """Return a cell's row; `seen` holds best FLOP/s and shortest failing length."""
    batch, heads = max(1, TOKENS // cell.length), WIDTH // cell.head_width
    pattern, pairs = timed_pattern(cell.pattern, cell.length, batch)
    flop = attention_flop(batch, heads, cell.head_width, pairs, cell.direction)
    row = {"dtype": "bfloat16", "batch": batch, "heads": heads, **cell._asdict()}
    row["span"] = SPAN if cell.pattern in ("window", "documents") else None
    rate, too_long = seen.get(cell[1:], (0.0, float("inf")))
    if cell.length >= too_long:
        return row | {"note": f"out of memory at {too_long}"}
    if rate and flop / rate > LONGEST:
        return row | {"note": f"skipped: about {flop / rate:.0f} s a call expected"}
    shape = (batch, cell.length, heads, cell.head_width)
    leaves = [torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    d_out = torch.randn_like(leaves[0])
    if cell.backend == "flex":
        torch.compiler.reset()  # Torch compiles a function for few patterns only.

    def both() -> None:
        torch.autograd.grad(attend(*leaves, pattern), leaves, d_out)

    try:
        if cell.direction == BOTH:
            leaves = [x.requires_grad_() for x in leaves]
            found = measure(both)
        else:
            with torch.no_grad():
                found = measure(lambda: attend(*leaves, pattern))
    except torch.OutOfMemoryError:
        seen[cell[1:]] = (rate, cell.length)
        return row | {"note": "out of memory"}
    except Exception as error:  # A path that breaks is a row of the table.
        return row | {"note": refusal(error)}
    finally:
        torch.cuda.empty_cache()
    tflop_per_s = flop / found["milliseconds"] / 1e9
    seen[cell[1:]] = (max(rate, tflop_per_s * 1e12), too_long)
    return row | found | {"tflop_per_s": tflop_per_s, "share_of_ceiling": tflop_per_s / ceiling}


def time_attention(paths: dict[str, Attend], ceiling: float, deadline: float, out: Path) -> None:
    """Write attention.csv again after every length and head width.

    Cells past the deadline stay empty.
    """
    rows, seen = [], {}
    compiled_last = ([x for x in paths if x not in COMPILED], [x for x in paths if x in COMPILED])
    patterns = ("causal", "full", "window", "documents")
    for backends, exponent, head_width in product(compiled_last, LENGTHS, (128, 64)):
        for pattern, backend, direction in product(patterns, backends, (FORWARD, BOTH)):
            cell = Cell(2**exponent, head_width, pattern, backend, direction)
            late = {"dtype": "bfloat16", **cell._asdict(), "note": "skipped: --minutes were over"}
            over = time.monotonic() > deadline
            rows.append(late if over else time_cell(cell, paths[backend], seen, ceiling))
        write_table(out / "attention.csv", TIMED, sorted(rows, key=itemgetter(*CELL[:6])))
        print(
            f"attention: {' '.join(backends)}: {2**exponent} tokens, heads of {head_width} done",
            flush=True,
        )


# ----------------------------------------------------------------------------------------- training


def flop_per_token(model: Any, length: int, rate: float) -> float:
    """Return the model FLOP of a token in training.

    It is 3 × forward: 2 a weight + 4·D a visible key and layer (Chowdhery et al. 2022, app. B). The
    output and the last block's MLP run on the scored share `rate` of the tokens; embeddings, norms
    and whatever a kernel computes again are not counted.
    """
    config, scored = (
        model.config,
        (f"stack.blocks.{model.config.layers - 1}.mlp.", "head.", "embedding."),
    )
    matrices = ((name, p.numel()) for name, p in model.named_parameters() if p.ndim == 2)
    weights = sum(number * (rate if name.startswith(scored) else 1) for name, number in matrices)
    causal = config.kind == "decoder"
    band = Pattern.window(config.window or length, causal=causal).count(length, length) / length
    keys = sum(length if model.config.is_global(layer) else band for layer in range(config.layers))
    return 3 * (2 * weights + 4 * config.width * keys)


def time_training(ceiling: float) -> list[Row]:
    """Return one row a length for steps of the gpu profile's encoder."""
    from farcontext.nn.config import ModelConfig  # noqa: PLC0415 (needs pydantic, which a lent machine may not have)
    from farcontext.nn.transformer import Encoder  # noqa: PLC0415
    from farcontext.studies.params import read_profile  # noqa: PLC0415

    profile = read_profile(ROOT, "gpu")
    params, rows = profile.mlm_pretraining, []
    shape = {"width": params.width, "layers": params.encoder_layers, "heads": params.heads}
    shape |= {
        "mlp_width": 2 * params.width,
        "vocab_size": profile.tokenizer.vocab_size,
        "smear": params.smear,
    }
    kind = {
        "norm": "layer",
        "mlp": "geglu",
        "embedding_norm": True,
        "window": params.window,
        "global_every": 3,
    }
    for length in (params.encoder_length, 8192, 32768):
        model = Encoder(ModelConfig(kind="encoder", max_length=length, **shape, **kind)).to(DEVICE)
        batch = max(1, params.encoder_step_tokens // length)
        tokens = torch.randint(4, profile.tokenizer.vocab_size, (batch, length), device=DEVICE)
        flop = flop_per_token(model, length, MASKED)
        row = {
            "length": length,
            "batch": batch,
            "precision": "bf16 autocast",
            "flop_per_token": flop,
        }
        try:
            row |= time_step(model, tokens)
        except torch.OutOfMemoryError:
            rows.append(row | {"note": "out of memory"})
            continue
        each = tokens.numel() / row["milliseconds"] * 1e3
        speed = {"tokens_per_s": each, "tflop_per_s": flop * each / 1e12}
        rows.append(row | speed | {"flop_utilisation": flop * each / 1e12 / ceiling})
    return rows


def time_step(model: Any, tokens: Tensor) -> Row:
    """Return what a training step takes, and the backends it ran."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    scored = torch.rand(tokens.shape, device=DEVICE) < MASKED

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16):
            logits = model(tokens, select=scored)
        F.cross_entropy(logits.float(), tokens[scored]).backward()
        optimizer.step()
        optimizer.zero_grad()

    with attention.recorded() as ran:
        step()
    return measure(step) | {"backend": " ".join(sorted(set(ran)))}


# --------------------------------------------------------------------------------------------- main


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows as CSV with 6 significant digits; missing values stay empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = (row.get(column) for column in columns)
        writer.writerow(
            f"{x:.6g}" if isinstance(x, float) else "" if x is None else x for x in values
        )
    files.write_atomic(path, text.getvalue())


def describe(seed: int, dry_run: bool) -> Row:
    """Return what card.json says before anything is measured."""
    card: Row = {
        "card": "cpu",
        "cuda": None,
        "driver": None,
        "capability": None,
        "memory_gib": None,
        "xformers": None,
    }
    if torch.cuda.is_available():
        query = [
            "nvidia-smi",
            "--query-gpu=driver_version",
            "--format=csv,noheader",
            f"--id={torch.cuda.current_device()}",
        ]
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        card |= {
            "card": found.name,
            "capability": f"{found.major}.{found.minor}",
            "cuda": torch.version.cuda,
        }
        card["memory_gib"] = round(found.total_memory / 2**30, 1)
        try:
            card["driver"] = subprocess.run(
                query, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            print("nvidia-smi: no answer; card.json will not name the driver")
    try:
        card["xformers"] = version("xformers")
    except PackageNotFoundError:
        print("xformers: not installed; its paths will say so")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    versions = {"torch": torch.__version__, "python": platform.python_version(), "date": date}
    return card | versions | {"seed": seed, "dry_run": dry_run}


def checked(paths: dict[str, Attend], seed: int, dry_run: bool, deadline: float) -> list[Row]:
    """Return the rows of correctness.csv, the compiled paths' last.

    Compiled paths are checked on the card in bfloat16 and until the deadline.
    """
    if dry_run:
        return check(paths, "cpu", 24, 8, (torch.float32, torch.bfloat16), seed)
    compiled = {name: attend for name, attend in paths.items() if name in COMPILED}
    others = {name: attend for name, attend in paths.items() if name not in COMPILED}
    rows = check(others, DEVICE, 256, 64, tuple(TOLERANCES), seed)
    print(f"checked: {' '.join(others)}", flush=True)
    return rows + check(compiled, DEVICE, 256, 64, (torch.bfloat16,), seed, deadline=deadline)


def run(paths: dict[str, Attend], out: Path | None, minutes: float, dry_run: bool) -> int:
    """Check, and if all is right measure; return the exit code."""
    begun, seed = time.monotonic(), int.from_bytes(os.urandom(4), "little")
    card = describe(seed, dry_run)
    if out is None:
        out = ROOT / ("build/gpu-dry-run" if dry_run else f"results/gpu-{slug(card['card'])}")
    rows = checked(paths, seed, dry_run, begun + 60 * minutes / 3)
    write_table(out / "correctness.csv", CHECKED, rows)
    files.write_json(out / "card.json", card)
    print("\n".join(report_of(rows)), flush=True)
    wrong = {row["backend"] for row in rows if row["result"].startswith("failed")}
    if wrong:
        where = out / "correctness.csv"
        print(
            f"farcontext: wrong results of {' '.join(sorted(wrong))} ({where}): not timed",
            file=sys.stderr,
        )
    if not dry_run:
        card["matmul_tflop_per_s"], card["copy_gb_per_s"] = ceilings()
        files.write_json(out / "card.json", card)
        try:
            write_table(out / "training.csv", TRAINED, time_training(card["matmul_tflop_per_s"]))
        except ImportError as error:
            print(f"training: skipped ({error})")
        right = {name: attend for name, attend in paths.items() if name not in wrong}
        time_attention(right, card["matmul_tflop_per_s"], begun + 60 * minutes, out)
        files.write_json(
            out / "card.json", card | {"minutes": round((time.monotonic() - begun) / 60, 1)}
        )
    print(f"written: {out}")
    return 1 if wrong else 0


def slug(name: str) -> str:
    """Return the folder name of a card, such as nvidia-h100-80gb-hbm3."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="no cell of attention.csv is begun later"
    )
    parser.add_argument("--out", type=Path, help="folder")
    parser.add_argument("--paths", nargs="+", help="these alone (all: see correctness.csv)")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes on the CPU, correctness alone"
    )
    args = parser.parse_args()
    # The table says why a kernel refuses; torch says it at length.
    warnings.filterwarnings("ignore")
    if not args.dry_run and not torch.cuda.is_available():
        parser.exit(
            2,
            "farcontext: no CUDA device here (torch.cuda.is_available() is false): "
            "expected one, or --dry-run\n",
        )
    paths = make_paths(not args.dry_run)
    unknown = set(args.paths or ()) - set(paths)
    if unknown:
        parser.exit(
            2,
            f"farcontext: --paths {' '.join(sorted(unknown))}: "
            f"expected some of {' '.join(paths)}\n",
        )
    chosen = {
        name: attend for name, attend in paths.items() if not args.paths or name in args.paths
    }
    sys.exit(run(chosen, args.out, args.minutes, args.dry_run))


if __name__ == "__main__":
    main()
