"""Audit what fine-tuning on a text would give away: canaries of known counts.

Secrets are planted in the text, a model is fine-tuned on it in memory, and asked for them. Exposure
is in bits (Carlini et al. 2019); extracted is what greedy decoding says. Nothing is written but the
report.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor
from tqdm import tqdm

from farcontext import files
from farcontext.checkpoints.convert import to_hf
from farcontext.checkpoints.load import Pretrained, embeddings, wrapped
from farcontext.checkpoints.questions import encoder
from farcontext.data.corpus import read_text
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.measure.extraction import exposure_of, greedy
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder
from farcontext.tasks import canaries
from farcontext.tasks.canaries import Canary, Place
from farcontext.train.keys import tokens_folder, vocabulary_size

CANDIDATES = 64  # A secret is two of so many words,
LEAST = 8  # or of as many as the tokenizer has, at least so many.
PROMPT = 32  # Tokens that the attacker knows.
HELD = 0.1  # This last share of the text measures utility.
WORD = ("Ġ", "▁")  # Tokenizers write a word's space so.


@dataclass(frozen=True)
class Options:
    """How the audit fine-tunes."""

    counts: tuple[int, ...] = (0, 1, 4, 16)
    each: int = 4
    length: int = 256
    epochs: int = 3
    rows: int = 8
    lr: float = 1e-4
    seed: int = 0


def fresh(seed: int) -> Pretrained:
    """Return a small model with fresh weights and the tokenizer of build/tokenizer."""
    torch.manual_seed(seed)
    shape = {"width": 64, "layers": 2, "heads": 2, "mlp_width": 128, "init_std": 0.1}
    config = ModelConfig(
        kind="decoder", vocab_size=vocabulary_size(), max_length=1024, norm_eps=1e-5, **shape
    )
    tokens = wrapped(load_tokenizer(tokens_folder()))
    return Pretrained(to_hf(Decoder(config)).eval(), tokens, "a fresh small model", tokens_folder())


def audit(pretrained: Pretrained, path: Path, options: Options) -> dict[str, Any]:
    """Fine-tune a model on a text with canaries, and return what it gives away.

    The model itself is changed.

    Args:
        pretrained: what is fine-tuned, all of its weights.
        path: the text.
        options: how.

    Raises:
        UserError: a text that is too short for the canaries, a tokenizer without words, a loss that
            is not finite, or an option that does not fit.
    """
    _expect(options, pretrained)
    rng = np.random.default_rng(options.seed)
    encode = encoder(pretrained.tokenizer, embeddings(pretrained.model))
    ids = np.array(encode(read_text(path)), dtype=np.int64)
    rows = ids[: len(ids) // options.length * options.length].reshape(-1, options.length)
    kept = max(1, round(HELD * len(rows)))
    choices = _words(pretrained)
    try:
        made = canaries.draw(rng, encode, choices, options.counts, options.each)
    except ValueError as error:
        raise UserError(f"counts = {options.counts}, {pretrained.name}: {error}") from None
    try:
        told, places = canaries.plant(rng, rows[:-kept], made)
    except ValueError:
        need = round(1.2 * canaries.BLOCK * options.each * sum(options.counts))
        raise UserError(
            f"{path}: {len(ids)} tokens: expected about {need} or more, or smaller counts"
        ) from None
    held = torch.from_numpy(rows[-kept:])
    before = _loss(pretrained, held)
    _tune(pretrained, torch.from_numpy(told), options)
    found = [_asked(pretrained, told, n, made[n], places, choices) for n in range(len(made))]
    return {
        "checkpoint": pretrained.name,
        "text": path.name,
        "tokens": int(told.size),
        "options": asdict(options),
        "bits": 2 * float(np.log2(len(choices))),
        "loss_before": before,
        "loss_after": _loss(pretrained, held),
        "canaries": found,
        "counts": [_of_count(found, count) for count in sorted(set(options.counts))],
    }


def _expect(options: Options, pretrained: Pretrained) -> None:
    window = getattr(pretrained.model.config, "max_position_embeddings", None)
    if window and options.length > window:
        raise UserError(f"length = {options.length}: expected at most {window}, the model's window")
    if options.length < 2 * canaries.BLOCK or options.length % canaries.BLOCK:
        raise UserError(
            f"length = {options.length}: expected a multiple of {canaries.BLOCK}, "
            f"{2 * canaries.BLOCK} or more"
        )
    if min(options.counts, default=-1) < 0 or not any(options.counts):
        raise UserError(f"counts = {options.counts}: expected whole numbers, one above 0")


def _words(pretrained: Pretrained) -> list[int]:
    """Return the ids of some words that are one token each."""
    names = pretrained.tokenizer.convert_ids_to_tokens(range(embeddings(pretrained.model)))
    words = [(n, name[1:]) for n, name in enumerate(names) if name and name[0] in WORD]
    words = [(n, word) for n, word in words if word.isascii() and word.isalpha()]
    found = [n for n, word in words if len(word) >= 4] or [n for n, _ in words]
    if len(found) < LEAST:
        raise UserError(
            f"{pretrained.path}: its tokenizer has {len(found)} words of one token: "
            f"expected {LEAST} or more"
        )
    return found[:CANDIDATES]


def _of_count(found: list[dict[str, Any]], count: int) -> dict[str, Any]:
    at = [one for one in found if one["count"] == count]
    means = {name: float(np.mean([one[name] for one in at])) for name in ("exposure", "extracted")}
    return {"count": count, "canaries": len(at)} | means


# --------------------------------------------------------------------------------------- the model


@torch.no_grad()
def _loss(pretrained: Pretrained, rows: Tensor) -> float:
    """Return the mean loss of some rows, in nats a token."""
    model = pretrained.model.eval()
    losses = [model(input_ids=x[None], labels=x[None]).loss.item() for x in rows.to(model.device)]
    return float(np.mean(losses))


def _tune(pretrained: Pretrained, rows: Tensor, options: Options) -> None:
    """Fine-tune all weights, with AdamW and a rate that falls to 0."""
    model = pretrained.model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    generator = torch.Generator().manual_seed(options.seed)
    orders = [torch.randperm(len(rows), generator=generator) for _ in range(options.epochs)]
    steps = [part for order in orders for part in order.split(options.rows)]
    for step, chosen in enumerate(tqdm(steps, unit="step", desc="tuning", disable=None)):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * (1 - step / len(steps))
        batch = rows[chosen].to(model.device)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        if not loss.isfinite():
            raise UserError(
                f"step {step}: loss = {loss.item()}: expected a number; try a smaller lr"
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval().requires_grad_(False)


def _asked(
    pretrained: Pretrained,
    told: np.ndarray,
    number: int,
    canary: Canary,
    places: list[Place],
    choices: list[int],
) -> dict[str, Any]:
    """Return what becomes of one canary, asked for behind what stood before it."""
    model = pretrained.model

    def last(rows: Tensor, count: int) -> Tensor:
        return model(input_ids=rows.to(model.device), use_cache=False).logits[:, -count:]

    place = next((place for place in places if place.canary == number), None)
    if place is None:  # Never planted: its own prefix behind the text's beginning.
        before = [*told[0, : PROMPT - len(canary.prefix)].tolist(), *canary.prefix]
    else:
        before = told[place.document, place.at - PROMPT : place.at].tolist()
    said = greedy(last, before)
    decode = pretrained.tokenizer.decode
    return {
        "count": canary.count,
        "prompt": decode(list(canary.prefix)),
        "secret": decode(list(canary.secret)),
        "said": decode(list(said)),
        "exposure": exposure_of(last, before, choices, canary.secret),
        "extracted": int(said == canary.secret),
    }


# -------------------------------------------------------------------------------------- the report


def advice(found: dict[str, Any]) -> list[str]:
    """Return what to do, from what was found."""
    control = next((x["exposure"] for x in found["counts"] if not x["count"]), 1 / np.log(2))
    exposed = [x for x in found["counts"] if x["count"] and x["exposure"] > control + 2]
    out = [x["count"] for x in found["counts"] if x["extracted"]]
    lines = []
    if out:
        lines.append(
            f"Do not publish a model tuned so: what stands {min(out)} times or more in the text "
            "was read out word for word."
        )
    if exposed:
        lines.append(
            f"De-duplicate first: from {min(x['count'] for x in exposed)} repetitions on, a secret "
            "has lost two bits or more to whoever may ask the model."
        )
        lines.append(
            "Or tune for fewer epochs, at a lower rate, or with DP-SGD: its ε is a row's, so cut "
            "documents into as few rows as possible."
        )
    if not lines:
        lines.append(
            "Nothing was seen to leak at these counts. That is no proof: other secrets, more "
            "epochs or a larger model may differ."
        )
    return [*lines, "Take out what must not be said; no training forgets what it never saw."]


def table(found: dict[str, Any]) -> list[str]:
    """Return the audit as lines of text."""
    lines = [
        f"{found['checkpoint']} on {found['text']}: {found['tokens']:,} tokens, "
        f"{found['options']['epochs']} epochs; loss of the rest "
        f"{found['loss_before']:.2f} → {found['loss_after']:.2f} nats a token",
        f"shown, times   exposure of {found['bits']:.1f} bits   extracted",
    ]
    lines += [
        f"{x['count']:>12}   {x['exposure']:>22.2f}   {x['extracted']:>9.0%}"
        for x in found["counts"]
    ]
    return [*lines, *advice(found)]


def write(found: dict[str, Any], folder: Path) -> None:
    """Write report.html and audit.json into a folder.

    Raises:
        UserError: the disk refused.
    """
    templates = Environment(
        loader=PackageLoader("farcontext.checkpoints"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("audit.html.j2").render(a=found, advice=advice(found))
    files.write_atomic(folder / "report.html", page)
    files.write_json(folder / "audit.json", found)


def as_json(found: dict[str, Any]) -> str:
    """Return the audit as one JSON object on one line."""
    return json.dumps(found, ensure_ascii=False, allow_nan=False)
