"""Notebook 03: the article's listing, and our models against shipped ones.

The listing is run with its defects. Our models are compared, leaf to root, with those of others.
Sizes: B batch, T tokens, D model width, N heads, G key/value heads, H head width, M MLP width,
V vocabulary, L layers.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farcontext.checkpoints import convert
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder, Encoder, EncoderDecoder, num_parameters
from farcontext.results import tables
from farcontext.schema import Row
from farcontext.studies.model_anatomy.closed_form import PARTS, closed_form
from farcontext.studies.model_anatomy.exact import accuracy_rows, argument_rows, ceiling_rows, quiet
from farcontext.studies.model_anatomy.listing import ARMS, run_programs, train_arm, versions
from farcontext.studies.model_anatomy.params import Params
from farcontext.train.runs import EvalConfig, grid, sweep

NAME = "model_anatomy"
COLUMNS = ["part", "arm", "seed", "step", "metric", "outcome", "value"]

# ------------------------------------------------------------------------- our models, leaf to root

SMALL = {
    "vocab_size": 80,
    "width": 64,
    "heads": 4,
    "mlp_width": 96,
    "max_length": 32,
    "init_std": 0.05,
}
MODERNBERT = {
    "kind": "encoder",
    "norm": "layer",
    "mlp": "geglu",
    "theta": 160_000.0,
    "embedding_norm": True,
}
ENCODER = ModelConfig(**MODERNBERT, **SMALL, layers=4, window=5, global_every=3)
DECODER = ModelConfig(kind="decoder", **SMALL, layers=3, kv_heads=2)
BOTH = ModelConfig(
    kind="encoder_decoder", **SMALL, layers=2, norm="layer", mlp="gelu", positions="none"
)
_BASE = ModelConfig(
    **MODERNBERT, vocab_size=50_368, width=768, layers=22, heads=12, mlp_width=1152, max_length=8192
)
_LLAMA = {
    "kind": "decoder",
    "width": 4096,
    "layers": 32,
    "heads": 32,
    "max_length": 4096,
    "tied": False,
}
# The numbers are the parameters of Hugging Face's classes (transformers 5.23.0, built on torch's
# meta device).
SHIPPED = {
    "ModernBERT-base": (_BASE, 149_655_232),
    "Llama-2-7B": (ModelConfig(**_LLAMA, vocab_size=32_000, mlp_width=11_008), 6_738_415_616),
    "Llama-3.1-8B": (
        ModelConfig(**_LLAMA, vocab_size=128_256, mlp_width=14_336, kv_heads=8),
        8_030_261_248,
    ),
}
MODELS = {"encoder": Encoder, "decoder": Decoder, "encoder_decoder": EncoderDecoder}


def anatomy_rows() -> list[Row]:
    """Count the parameters of our models and of their parts.

    It counts each part of a small decoder, our three models, and shipped sizes without memory.
    """
    model, shapes = Decoder(DECODER), {}
    block = model.stack.blocks[0]
    parts = (
        model.embedding,
        block.attention_norm,
        block.attention,
        block.mlp,
        block,
        model.stack,
        model,
    )
    for name, module in zip(PARTS, parts, strict=True):
        module.register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)})
        )
    with torch.no_grad():
        model(torch.zeros(2, 24, dtype=torch.int64))
    rows = []
    for name, module in zip(PARTS, parts, strict=True):
        base = {"part": "anatomy", "arm": name, "outcome": " × ".join(map(str, shapes[name]))}
        rows.append(base | {"metric": "parameters", "value": num_parameters(module)})
        rows.append(base | {"metric": "closed_form", "value": closed_form(DECODER)[name]})
    small = {f"small {config.kind}": (config, None) for config in (ENCODER, DECODER, BOTH)}
    for name, (config, theirs) in (small | SHIPPED).items():
        with torch.device("meta"):
            counts = {"parameters": num_parameters(MODELS[config.kind](config))}
        counts |= {"closed_form": closed_form(config)["model"], "hugging_face": theirs}
        rows += [
            {"part": "size", "arm": name, "metric": m, "value": n}
            for m, n in counts.items()
            if n is not None
        ]
    return rows


# ------------------------------------------------------------------------------ ours against theirs

PARITY_ROWS, PARITY_LENGTH, PARITY_RATE, IGNORE = 4, 24, 1e-3, -100


class Pair(NamedTuple):
    """Our model and theirs with the same weights.

    The logits of both are of the same tokens; `targets` are what they should predict.
    """

    ours: nn.Module
    theirs: nn.Module
    logits: Callable[[nn.Module], Tensor]
    their_logits: Callable[[], Tensor]
    targets: Tensor


def _tokens(seed: int) -> Tensor:
    generator, shape = torch.Generator().manual_seed(seed), (PARITY_ROWS, PARITY_LENGTH)
    return torch.randint(1, SMALL["vocab_size"], shape, generator=generator)


def encoder_pair(seed: int) -> Pair:
    """Pair our Encoder with Hugging Face's ModernBertForMaskedLM.

    30 % of the tokens are hidden behind token 0.
    """
    theirs = convert.to_hf(Encoder(ENCODER))
    tokens_BT = _tokens(seed)
    hidden_BT = torch.rand(tokens_BT.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    read_BT, targets_BT = (
        tokens_BT.masked_fill(hidden_BT, 0),
        tokens_BT.masked_fill(~hidden_BT, IGNORE),
    )
    ours = convert.from_hf(theirs)
    return Pair(
        ours, theirs, lambda m: m(read_BT), lambda: theirs(input_ids=read_BT).logits, targets_BT
    )


def decoder_pair(seed: int) -> Pair:
    """Pair our Decoder with Hugging Face's LlamaForCausalLM on next tokens."""
    theirs = convert.to_hf(Decoder(DECODER))
    tokens_BT = _tokens(seed)
    read_BT = tokens_BT[:, :-1]
    ours = convert.from_hf(theirs)
    return Pair(
        ours,
        theirs,
        lambda m: m(read_BT),
        lambda: theirs(input_ids=read_BT).logits,
        tokens_BT[:, 1:],
    )


def encoder_decoder_pair(
    seed: int, activation: str = "gelu", dtype: torch.dtype = torch.float32
) -> Pair:
    """Pair our EncoderDecoder with torch's nn.Transformer.

    Both are pre-norm, with one embedding for input and output. Its s.d. is 0.1: with smaller ones
    the first gradients are so near to AdamW's epsilon that rounding shows in the update.
    """
    c = BOTH
    shape = (c.width, c.heads, c.layers, c.layers, c.mlp_width)
    plain = {"dropout": 0.0, "batch_first": True, "norm_first": True, "bias": False, "dtype": dtype}
    torchs = nn.Transformer(*shape, activation=activation, **plain)
    ours = convert.from_torch(torchs, c.vocab_size, c.max_length)
    nn.init.normal_(ours.embedding.weight, std=0.1)
    embedding = nn.Embedding.from_pretrained(ours.embedding.weight.detach().clone(), freeze=False)
    source_BT, target_BT = _tokens(seed), _tokens(seed + 1000)
    read_BT = target_BT[:, :-1]
    mask_TT = torchs.generate_square_subsequent_mask(PARITY_LENGTH - 1, dtype=dtype)

    def their_logits() -> Tensor:
        hidden_BTD = torchs(
            embedding(source_BT), embedding(read_BT), tgt_mask=mask_TT, tgt_is_causal=True
        )
        return F.linear(hidden_BTD, embedding.weight)

    theirs = nn.ModuleList((torchs, embedding))
    return Pair(ours, theirs, lambda m: m(source_BT, read_BT), their_logits, target_BT[:, 1:])


PAIRS = {  # Each has the pair and an error to plant, which the check must notice.
    "encoder vs ModernBERT": (
        encoder_pair,
        {"theta": 10_000.0},
    ),
    "decoder vs Llama": (decoder_pair, {"pairing": "interleaved"}),
    "encoder-decoder vs nn.Transformer": (encoder_decoder_pair, {"mlp": "relu"}),
}


def planted(model: nn.Module, **changes: object) -> nn.Module:
    """Return a model with the same weights and a changed configuration."""
    other = type(model)(model.config.model_copy(update=changes))
    other.load_state_dict(model.state_dict())
    return other


def _losses(
    model: nn.Module, logits: Callable[[], Tensor], targets: Tensor, steps: int
) -> list[float]:
    """Return the loss (nats a token) before each AdamW step.

    All steps have one and the same batch.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=PARITY_RATE)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(logits().flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _both_losses(pair: Pair, steps: int) -> tuple[list[float], list[float]]:
    ours = _losses(pair.ours, lambda: pair.logits(pair.ours), pair.targets, steps)
    return ours, _losses(pair.theirs, pair.their_logits, pair.targets, steps)


@quiet()
@torch.inference_mode(mode=False)
def kink(seed: int, steps: int) -> list[Row]:
    """Compare losses of the encoder-decoders with ReLU, in fp32 and in fp64.

    ReLU's slope jumps at 0. Where rounding puts one unit on different sides, the gradients differ
    by more than rounding.
    """
    rows = []
    for name, dtype in (("fp32", torch.float32), ("fp64", torch.float64)):
        torch.manual_seed(seed)
        losses = zip(*_both_losses(encoder_decoder_pair(seed, "relu", dtype), steps), strict=True)
        worst = max(abs(a - b) for a, b in losses)
        rows.append({"part": "kink", "metric": f"{name}_loss_difference", "value": worst})
    return rows


@quiet()
@torch.inference_mode(mode=False)
def parity(arm: str, seed: int, steps: int) -> list[Row]:
    """Compare the logits, then the losses, of models with equal weights.

    Logits are compared with and without a planted error, losses through `steps` updates of each.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    make, error = PAIRS[arm]
    pair = make(seed)
    with torch.no_grad():
        theirs = pair.their_logits()
        apart = float((pair.logits(pair.ours) - theirs).abs().max())
        noticed = float((pair.logits(planted(pair.ours, **error)) - theirs).abs().max())
    ours, others = _both_losses(pair, steps)
    worst = max(abs(a - b) for a, b in zip(ours, others, strict=True))
    rows = [{"part": "parity", "metric": "max_logit_difference", "value": apart}]
    rows += [{"part": "parity", "metric": "max_loss_difference", "value": worst}]
    rows += [
        {"part": "planted", "outcome": str(error), "metric": "logit_difference", "value": noticed}
    ]
    for step, pair_of_losses in enumerate(zip(ours, others, strict=True)):
        for metric, loss in zip(("our_loss", "their_loss"), pair_of_losses, strict=True):
            rows.append({"part": "parity", "step": step, "metric": metric, "value": loss})
    return [*rows, {"metric": "seconds", "value": time.perf_counter() - started}]


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Run every part of the study; write and return the table.

    The parts are the listing, its defects, the shape walk and the comparisons.

    part: listing, mended (runs, printed_loss, printed_accuracy) · arguments, accuracy, ceiling
    (exact) · probe, defect (by seed, by step) · anatomy, size (counts) · parity, planted, kink.
    `outcome` holds an error's or a shape's words.
    """
    groups = versions()
    sizes, steps = {"steps": params.steps, "length": params.length}, {"steps": params.parity_steps}
    programs = {
        n: EvalConfig(run_programs, None, {"programs": [p for _, _, p in g]})
        for n, g in enumerate(groups)
    }
    jobs = {
        case: EvalConfig(train_arm, None, case._asdict() | sizes)
        for case in grid(seed=params.seeds, arm=ARMS)
    }
    jobs |= {
        case: EvalConfig(parity, None, case._asdict() | steps)
        for case in grid(seed=params.seeds, arm=PAIRS)
    }
    relu = "encoder-decoder, ReLU"
    jobs |= {
        case: EvalConfig(kink, None, {"seed": case.seed} | steps)
        for case in grid(seed=params.seeds, arm=[relu])
    }
    found = sweep(programs | jobs)
    rows = (
        argument_rows()
        + accuracy_rows(params.length)
        + ceiling_rows(params.length)
        + anatomy_rows()
    )
    for number, group in enumerate(groups):
        for (part, arm, _), outcome in zip(group, found[number].rows, strict=True):
            base = {"part": part, "arm": arm, "outcome": outcome["outcome"]}
            rows += [
                base | {"metric": name, "value": outcome[name]}
                for name in outcome
                if name != "outcome"
            ]
    for seed, arm in jobs:
        rows += [{"arm": arm, "seed": seed} | row for row in found[seed, arm].rows]
    table = tables.tidy((row for row in rows if row["metric"] != "seconds"), COLUMNS)
    cost = [
        {"stage": r["arm"], "seed": r["seed"], "seconds": r["value"]}
        for r in rows
        if r["metric"] == "seconds"
    ]
    tables.write_table(table, NAME, params, pd.DataFrame(cost))
    return table
