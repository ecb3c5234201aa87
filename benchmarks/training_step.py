"""Training throughput of our Encoder against Hugging Face's ModernBERT, side by side, with the same weights and data.

    python benchmarks/training_step.py --out training_step.csv

Both are one architecture in fp32 (width 128, 4 layers, 4 heads, |i − j| ≤ 64 in two of them), masked at 30 %, no padding,
the same fused AdamW. Steps alternate A B A B; a cell (length, threads) is a process of its own. `hf_sparse` is Hugging
Face with sparse_prediction, whose head like ours runs on masked tokens only: it tells how much of the ratio that is.
"""

import argparse
import csv
import io
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longctx.config import ModelConfig
from longctx.files import write_atomic
from longctx.huggingface import to_hf
from longctx.model import Encoder

TOKENS = 8192  # a step
VOCABULARY, MASK = 4096, 3
Step = Callable[[Tensor, Tensor], float]


def make_batch(length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets: each token is its left neighbour plus one of eight jumps, so there is much to learn."""
    generator = torch.Generator().manual_seed(seed)
    shape = (TOKENS // length, length)
    jumps = torch.randint(1, 9, shape, generator=generator).square()
    tokens = 4 + (jumps.cumsum(1) + torch.randint(VOCABULARY, (shape[0], 1), generator=generator)) % (VOCABULARY - 4)
    masked = torch.rand(shape, generator=generator) < 0.3
    return tokens.masked_fill(masked, MASK), tokens.masked_fill(~masked, -100)


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    """Return the optimiser of every arm."""
    return torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def step_of(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Step:
    """Return a function that takes one training step and returns its loss."""
    optimizer = optimizer_of(model.train())

    def step(inputs: Tensor, targets: Tensor) -> float:
        loss = loss_of(inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def make_arms(length: int) -> dict[str, Step]:
    """Return the arms, from equal weights."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "width": 128,
        "layers": 4,
        "heads": 4,
        "mlp_width": 192,
        "max_length": length,
    }
    kind = {"kind": "encoder", "norm": "layer", "mlp": "geglu", "embedding_norm": True}
    ours = Encoder(ModelConfig(**kind, **shape, theta=160_000.0, window=64, global_every=3))
    hf, hf_sparse = to_hf(ours), to_hf(ours)
    hf_sparse.config.sparse_prediction = hf_sparse.sparse_prediction = True

    def our_loss(inputs: Tensor, targets: Tensor) -> Tensor:
        scored = targets != -100
        return F.cross_entropy(ours(inputs, select=scored), targets[scored])

    return {
        "ours": step_of(ours, our_loss),
        "hf": step_of(hf, lambda inputs, targets: hf(input_ids=inputs, labels=targets).loss),
        "hf_sparse": step_of(hf_sparse, lambda inputs, targets: hf_sparse(input_ids=inputs, labels=targets).loss),
    }


def run_cell(length: int, threads: int, repeats: int) -> list[dict]:
    """Return one row an arm: median tokens/s, median over rounds of its speed over Hugging Face's, last loss."""
    torch.set_num_threads(threads)
    arms = make_arms(length)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(repeats + 1):
        batch = make_batch(length, index)
        losses = {}
        for name, step in arms.items():
            start = time.perf_counter()
            losses[name] = step(*batch)
            if index:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return [
        {
            "length": length,
            "threads": threads,
            "arm": name,
            "steps": repeats + 1,
            "tokens_per_second": round(TOKENS / statistics.median(seconds[name])),
            "speed_over_hf": round(
                statistics.median(hf / own for hf, own in zip(seconds["hf"], seconds[name], strict=True)), 3
            ),
            "last_loss": round(losses[name], 6),
        }
        for name in arms
    ]


def main() -> None:
    """Parse the command line, run every cell in its own process, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 2048], help="tokens a row")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds of each arm")
    parser.add_argument("--out", type=Path, help="CSV")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        logging.getLogger("transformers").setLevel(logging.ERROR)
        print(json.dumps(run_cell(args.lengths[0], args.threads[0], args.repeats)))
        return
    rows = []
    for length in args.lengths:
        for threads in args.threads:
            cell = ["--cell", f"--lengths={length}", f"--threads={threads}", f"--repeats={args.repeats}"]
            done = subprocess.run([sys.executable, __file__, *cell], check=True, stdout=subprocess.PIPE, text=True)
            for row in json.loads(done.stdout):
                rows.append(row)
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if args.out:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(args.out, text.getvalue())


if __name__ == "__main__":
    main()
