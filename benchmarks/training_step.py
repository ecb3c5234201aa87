"""Training throughput of our models against ModernBERT and GPT-2.

The peers are those of Hugging Face; all run side by side, on the same data.

    python benchmarks/training_step.py [--lengths 256 1024 4096] [--bf16]

Width 128, 4 layers, 4 heads, 8,192 tokens a step, no padding, the same fused AdamW; fp32, or with
--bf16 autocast on all sides. Steps alternate; a cell (family, length, threads) is a process of its
own. Two families, each against its `sdpa` arm:

masked  one architecture and the same weights (|i − j| ≤ 64 in two layers), masked at 30 %.
        `modernbert_sparse` is Hugging Face with sparse_prediction, whose head like ours runs on
        masked tokens only: it tells how much of the ratio that is.
causal  learned positions, LayerNorm, GELU, loss on every token; GPT-2 has biases besides, and its
        dropout is off.

`eager` arms hold T² scores a head and layer: they run to --eager-to tokens.
"""

import json
import logging
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product

import pandas as pd
import table
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from farcontext.checkpoints.convert import to_hf
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder, Encoder

TOKENS = 8192  # tokens of a step
VOCABULARY, MASK = 4096, 3
WIDTH, LAYERS, HEADS = 128, 4, 4
BASES = {"masked": "modernbert_sdpa", "causal": "gpt2_sdpa"}  # base arm of a family
Step = Callable[[Tensor, Tensor], float]


def make_batch(length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets.

    Each token is its left neighbour plus one of eight jumps, so there is much to learn.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (TOKENS // length, length)
    jumps = torch.randint(1, 9, shape, generator=generator).square()
    tokens = 4 + (
        jumps.cumsum(1) + torch.randint(VOCABULARY, (shape[0], 1), generator=generator)
    ) % (VOCABULARY - 4)
    masked = torch.rand(shape, generator=generator) < 0.3
    return tokens.masked_fill(masked, MASK), tokens.masked_fill(~masked, -100)


def step_of(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], bf16: bool) -> Step:
    """Return a function that takes one training step and returns its loss."""
    optimizer = torch.optim.AdamW(
        model.train().parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )

    def step(inputs: Tensor, targets: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = loss_of(inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def masked_arms(length: int, bf16: bool, eager: bool) -> dict[str, Step]:
    """Return the arms of the family "masked", from equal weights."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "width": WIDTH,
        "layers": LAYERS,
        "heads": HEADS,
        "mlp_width": 192,
    }
    kind = {
        "kind": "encoder",
        "norm": "layer",
        "mlp": "geglu",
        "embedding_norm": True,
        "max_length": length,
    }
    ours = Encoder(ModelConfig(**kind, **shape, theta=160_000.0, window=65, global_every=3))
    theirs = {"modernbert_sdpa": to_hf(ours), "modernbert_sparse": to_hf(ours)}
    sparse = theirs["modernbert_sparse"]
    sparse.config.sparse_prediction = sparse.sparse_prediction = True
    if eager:
        theirs["modernbert_eager"] = to_hf(ours)
        theirs["modernbert_eager"].set_attn_implementation("eager")

    def our_loss(inputs: Tensor, targets: Tensor) -> Tensor:
        scored = targets != -100
        return F.cross_entropy(ours(inputs, select=scored), targets[scored])

    def their_loss(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda inputs, targets: model(input_ids=inputs, labels=targets).loss

    arms = {"ours": step_of(ours, our_loss, bf16)}
    return arms | {name: step_of(model, their_loss(model), bf16) for name, model in theirs.items()}


def causal_arms(length: int, bf16: bool, eager: bool) -> dict[str, Step]:
    """Return the arms of the family "causal"."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "width": WIDTH,
        "layers": LAYERS,
        "heads": HEADS,
        "mlp_width": 4 * WIDTH,
    }
    kind = {
        "kind": "decoder",
        "norm": "layer",
        "mlp": "gelu",
        "positions": "learned",
        "max_length": length,
    }
    ours = Decoder(ModelConfig(**kind, **shape))
    size = {
        "vocab_size": VOCABULARY,
        "n_positions": length,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
    }
    off = {
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    attentions = ["sdpa", *(["eager"] * eager)]
    theirs = {
        f"gpt2_{how}": GPT2LMHeadModel(GPT2Config(**size, **off, attn_implementation=how))
        for how in attentions
    }

    def our_loss(inputs: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(ours(inputs)[:, :-1].flatten(0, 1), inputs[:, 1:].flatten())

    def their_loss(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda inputs, _: model(input_ids=inputs, labels=inputs, use_cache=False).loss

    arms = {"ours": step_of(ours, our_loss, bf16)}
    return arms | {name: step_of(model, their_loss(model), bf16) for name, model in theirs.items()}


def run_cell(
    family: str, length: int, threads: int, repeats: int, bf16: bool, eager_to: int
) -> list[table.Row]:
    """Return one row an arm.

    A row has median tokens/s, the median over rounds of its speed over the family's base, and the
    last loss.
    """
    torch.set_num_threads(threads)
    arms = {"masked": masked_arms, "causal": causal_arms}[family](length, bf16, length <= eager_to)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(repeats + 1):
        batch = make_batch(length, index)
        losses = {}
        for name, step in arms.items():
            start = time.perf_counter()
            losses[name] = step(*batch)
            if index:  # The first round warms up.
                seconds[name].append(time.perf_counter() - start)
    rows: list[table.Row] = []
    for name, own in seconds.items():
        ratios = [base / mine for base, mine in zip(seconds[BASES[family]], own, strict=True)]
        rows.append(
            {
                "family": family,
                "length": length,
                "threads": threads,
                "precision": "bf16" if bf16 else "fp32",
                "arm": name,
                "rounds": repeats,
                "tokens_per_second": round(TOKENS / statistics.median(own)),
                "speed_over_sdpa": round(statistics.median(ratios), 3),
                "last_loss": round(losses[name], 6),
            }
        )
    return rows


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw the gains of our step, and the losses of eager attention.

    Our gain is over the peers' sdpa, as is their loss; only the most threads are drawn.
    """
    frame = frame[(frame["threads"] == frame["threads"].max()) & ~frame["arm"].isin(BASES.values())]
    names = {"ours": {"masked": "ours / ModernBERT sdpa", "causal": "ours / GPT-2 sdpa"}}
    hue = [
        names.get(arm, {}).get(family, arm)
        for arm, family in zip(frame["arm"], frame["family"], strict=True)
    ]
    drawn = frame.assign(hue=hue)
    table.ratio_bars(
        drawn,
        axis,
        x="length",
        y="speed_over_sdpa",
        hue="hue",
        label="training step, speed over sdpa",
    )
    axis.set(
        xlabel="tokens a row",
        title=f"{frame['precision'].iloc[0]}, {frame['threads'].iloc[0]} threads",
    )


def main() -> None:
    """Run every cell in its own process, and keep the table.

    The table is printed, written and drawn.
    """
    parser = table.parser_of(__file__, __doc__)
    parser.add_argument("--families", nargs="+", choices=list(BASES), default=list(BASES))
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[256, 1024, 4096], help="tokens a row"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of each arm")
    parser.add_argument(
        "--eager-to", type=int, default=1024, help="the longest row of the eager arms"
    )
    parser.add_argument("--bf16", action="store_true", help="autocast on all sides instead of fp32")
    parser.add_argument(
        "--cell", action="store_true", help="one length in this process: rows as JSON"
    )
    args = parser.parse_args()
    if args.cell:
        logging.getLogger("transformers").setLevel(logging.ERROR)
        cell = (
            args.families[0],
            args.lengths[0],
            args.threads[0],
            args.repeats,
            args.bf16,
            args.eager_to,
        )
        print(json.dumps(run_cell(*cell)))
        return
    common = (f"--repeats={args.repeats}", f"--eager-to={args.eager_to}", *(["--bf16"] * args.bf16))
    rows: list[table.Row] = []
    for family, length, threads in product(args.families, args.lengths, args.threads):
        options = (f"--families={family}", f"--lengths={length}", f"--threads={threads}")
        rows += table.cell(__file__, *options, *common)
    table.save(rows, args.out, draw)


if __name__ == "__main__":
    main()
