"""Extension of a checkpoint's context by scaled RoPE, tuned or not.

The result is a folder that transformers loads unchanged, with its weights copied or tuned. Only
config.json says something new; the tokenizer and whatever else the folder holds are copied. What
extending changed is measured before the folder appears: loss by position, before and after, on the
same text.
"""

import importlib.metadata
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedConfig

from farcontext import files
from farcontext.checkpoints import load, refusals
from farcontext.checkpoints.loss_change import before_after
from farcontext.checkpoints.questions import encoder
from farcontext.checkpoints.rope_parameters import rope_parameters
from farcontext.data.corpus import read_text
from farcontext.files import UserError
from farcontext.messages import did_you_mean
from farcontext.nn.config import Extension
from farcontext.nn.positions import SCHEME_NOTES
from farcontext.train.keys import device

REPORT = "farcontext-extend.json"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
LONGEST = 16_384  # The before/after table has so many tokens, unless told otherwise.

# transformers can load these schemes (with advice); the others of `positions` are refused.
ADVICE = {
    "yarn": (
        "try first, untuned and tuned; text within the trained length is turned and scaled "
        "differently too"
    ),
    "dynamic_ntk_hf": (
        "untuned; changes nothing within the trained length; keys in a cache keep the base of "
        "their time"
    ),
    "ntk": (
        "untuned; written as a larger rope_theta, which any reader can load; choose s above the "
        "length wanted"
    ),
    "llama3": "tune; yarn's idea with another ramp and no attention factor",
    "abf": "tune; written as a larger rope_theta, which any reader can load",
    "linear": (
        "tune; untuned it brings neighbours s times closer than any seen, also within the "
        "trained length"
    ),
}
REFUSED = {
    "rope": "extends nothing",
    "longrope": (
        "needs short_factor and long_factor, a list of searched factors each, which no factor "
        "implies"
    ),
    "dynamic_ntk": "transformers has dynamic_ntk_hf instead",
    "yarn_untruncated": "use yarn, which transformers rounds",
    "yarn_rotations": "transformers has yarn instead, with its ramp over the pair index",
    "p_rope": "has to be there from the start of training",
    "partial_rotary": "has to be there from the start of training",
}


@dataclass(frozen=True)
class Tuning:
    """A short fine-tuning with AdamW at a constant rate.

    Rows of consecutive tokens are drawn from the text by seed.
    """

    text: Path  # It is a .txt or .md file, or a folder of them.
    steps: int = 50
    length: int = 1024
    rows: int = 1
    lr: float = 2e-5
    # The arithmetic has this dtype; weights and their updates stay fp32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


def scheme_lines() -> list[str]:
    """Return the lines that `farcontext extend --list` prints.

    They say what each scheme does, and whether and when to choose it.
    """
    lines = ["Schemes that transformers loads (s: --factor, L: the trained length):"]
    lines += [
        f"  {name:<15}{SCHEME_NOTES[name]}\n{'':<17}→ {advice}" for name, advice in ADVICE.items()
    ]
    lines += ["Not here:"]
    return lines + [f"  {name:<17}{why}" for name, why in REFUSED.items()]


def extend(
    checkpoint: Path | str,
    out: Path | str,
    *,
    scheme: str,
    factor: float,
    theta: float | None = None,
    tuning: Tuning | None = None,
    text: Path | None = None,
    measure: int | None = None,
) -> dict[str, Any]:
    """Write a folder with the checkpoint's context extended, and return its report.

    Args:
        checkpoint: what `load.load` reads; weights keep their dtype.
        out: a Hugging Face folder that does not exist yet; it appears whole, or not at all.
        scheme: a key of `ADVICE`.
        factor: s, wanted length / trained length, above 1.
        theta: the base of abf; None: the rule of `positions.inverse_frequencies`.
        tuning: train the extended model on a text; None: the weights stay as they are.
        text: what loss is measured on; None: the language reference that comes with Python.
        measure: tokens up to which loss is measured; None: all reached, at most 16,384; 0: none.

    Raises:
        UserError: one line; a checkpoint without RoPE, or extended already; a bad option or text.
    """
    out = Path(out)
    _check(out, scheme, factor, theta, tuning)
    source = load.load(checkpoint)
    parameters, longest = _extended(source, scheme, factor, theta)
    original = source.model.config.max_position_embeddings
    measure = min(round(factor * original), LONGEST) if measure is None else measure
    tokens = _tokens(text, source, measure) if measure else None
    tuned_on = _tokens(tuning.text, source, tuning.length) if tuning else None
    with files.folder_atomic(out) as folder:
        stored = _copy(source, folder)
        stored.pop("rope_scaling", None)  # The old name would be read first.
        stored |= {"rope_parameters": parameters, "max_position_embeddings": longest}
        if "rope_theta" in stored:
            stored["rope_theta"] = parameters["rope_theta"]
        files.write_json(folder / "config.json", stored)
        if tuning:
            _tune(folder, tuned_on, tuning)
            files.write_json(folder / "config.json", stored)  # transformers wrote its own.
        report = {
            "scheme": scheme,
            "factor": factor,
            "checkpoint": source.name,
            "trained_length": original,
        }
        report |= {
            "rope_parameters": parameters,
            "max_position_embeddings": longest,
            "versions": _versions(),
        }
        report["tuning"] = asdict(tuning) | {"text": tuning.text.name} if tuning else None
        lengths = [length for length in _lengths(original, factor) if length < measure] + [measure]
        report["loss"] = before_after(source.path, folder, tokens, lengths) if measure else []
        files.write_json(folder / REPORT, report)
    return report


# -------------------------------------------------------------------------------------------- parts


def _check(
    out: Path, scheme: str, factor: float, theta: float | None, tuning: Tuning | None
) -> None:
    """Refuse what can be refused before anything is read."""
    if scheme not in ADVICE:
        why = REFUSED.get("rope" if scheme == "none" else scheme)
        hint = "" if why else did_you_mean(scheme, ADVICE)
        expected = f"expected one of {', '.join(ADVICE)}{hint} (farcontext extend --list)"
        raise UserError(
            f"scheme = {scheme}: {why}: {expected}" if why else f"scheme = {scheme}: {expected}"
        )
    if not (math.isfinite(factor) and factor > 1):
        raise UserError(f"factor = {factor}: expected a number above 1")
    if theta is not None and not (scheme == "abf" and math.isfinite(theta) and theta > 1):
        raise UserError(
            f"theta = {theta}, scheme = {scheme}: expected a base above 1, with scheme abf alone"
        )
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists: expected a folder that is not there yet")
    for name, least in (("steps", 1), ("length", 2), ("rows", 1)):
        if tuning and getattr(tuning, name) < least:
            raise UserError(f"{name} = {getattr(tuning, name)}: expected {least} or more")
    if tuning and not (math.isfinite(tuning.lr) and tuning.lr > 0):
        raise UserError(f"lr = {tuning.lr}: expected a number above 0")


def _extended(
    source: load.Pretrained, scheme: str, factor: float, theta: float | None
) -> tuple[dict[str, Any], int]:
    """Return the new rope_parameters and the new max_position_embeddings."""
    config: PreTrainedConfig = source.model.config
    rope = getattr(config, "rope_parameters", None)
    if not rope or "rope_type" not in rope:
        found = f"model_type = {config.model_type}, whose positions are not RoPE"
        raise UserError(
            f"{source.path}: {found}: expected a model with RoPE, such as Llama or Qwen"
        )
    if rope["rope_type"] != "default":
        found = f"rope_type = {rope['rope_type']}, extended already"
        raise UserError(
            f"{source.path}: {found}: expected the checkpoint that it was made from (rope_type "
            "default)"
        )
    original, share = config.max_position_embeddings, rope.get("partial_rotary_factor") or 1.0
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    try:
        extension = Extension(scheme=scheme, scale=factor, trained_length=original, new_theta=theta)
        parameters = rope_parameters(extension, float(rope["rope_theta"]), int(head_dim * share))
    except ValueError as error:
        raise UserError(f"{source.path}: {error}") from None
    if share != 1:
        parameters["partial_rotary_factor"] = share
    # transformers counts dynamic NTK from max_position_embeddings: a larger one would turn it off.
    return parameters, original if scheme == "dynamic_ntk_hf" else math.floor(
        factor * original + 1e-6
    )


def _versions() -> dict[str, str]:
    names = ("farcontext", "torch", "transformers")
    return {name: importlib.metadata.version(name) for name in names}


def _copy(source: load.Pretrained, folder: Path) -> dict[str, Any]:
    """Fill a folder with a checkpoint's files, and return config.json.

    Of a checkpoint in another format it holds what transformers saves. Files are copied, not
    linked: whoever trains the extended folder in place would change the original's weights as well.
    Pickles stay behind; `load` reads none.
    """
    if (
        source.path.is_dir()
        and any(source.path.glob(WEIGHTS[0]))
        and (source.path / "tokenizer_config.json").exists()
    ):
        for path in sorted(source.path.rglob("*")):
            inner = path.relative_to(source.path)
            hidden = any(part.startswith(".") for part in inner.parts)
            if path.is_file() and not hidden and not any(map(path.match, refusals.PICKLES)):
                _copy_file(path, folder / inner)
    else:  # It is a GGUF file or a run of ours.
        source.model.save_pretrained(folder)
        source.tokenizer.save_pretrained(folder)
        # Written again, it is on the disk for good, readable as the umask says.
        for path in folder.iterdir():
            _copy_file(path, path)
    return files.read_json(folder / "config.json")


def _copy_file(path: Path, to: Path) -> None:
    # Weights are large, so they are mapped.
    files.write_atomic(to, np.memmap(path, np.uint8, "r") if path.stat().st_size else b"")


def _lengths(original: int, factor: float) -> Iterator[int]:
    """Yield L/4, L/2, L, 2L, … as far as the factor reaches."""
    length = original // 4
    while length < factor * original:
        if length > 1:
            yield length
        length = max(2 * length, 2)
    yield math.floor(factor * original)


def _tokens(text: Path | None, source: load.Pretrained, least: int) -> Int[Tensor, " T"]:
    """Return a text as tokens, without special ones.

    It is a file, a folder's .txt and .md files, or Python's reference.
    """
    if text is None:
        whole = "\n\n".join(topics[name] for name in sorted(topics))[: 10 * least + 1000]
    else:
        found = (
            sorted(p for p in text.rglob("*") if p.suffix in (".txt", ".md") and p.is_file())
            if text.is_dir()
            else [text]
        )
        if not found or not text.exists():
            raise UserError(f"{text}: expected a .txt or .md file, or a folder with some")
        whole = "\n\n".join(read_text(path) for path in found)
    encode = encoder(source.tokenizer, load.embeddings(source.model))
    tokens = torch.tensor(encode(whole), dtype=torch.long)
    if len(tokens) <= least:
        name = "Python's language reference" if text is None else text
        raise UserError(f"{name}: {len(tokens)} tokens: expected more than {least}")
    return tokens


def _tune(folder: Path, tokens: Int[Tensor, " T"], tuning: Tuning) -> None:
    """Train the model of a folder on rows drawn from the tokens.

    Its weights are saved in the dtype that they had.
    """
    model = load.load(folder).model.to(device()).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=tuning.lr)
    generator = torch.Generator().manual_seed(tuning.seed)
    with tqdm(range(tuning.steps), unit="step", desc="tuning", disable=None) as bar:
        for step in bar:
            starts = torch.randint(
                len(tokens) - tuning.length + 1, (tuning.rows,), generator=generator
            ).tolist()
            rows_BT = torch.stack([tokens[start : start + tuning.length] for start in starts]).to(
                device()
            )
            with torch.autocast(device().type, torch.bfloat16, enabled=tuning.dtype == "bfloat16"):
                loss = model(input_ids=rows_BT, labels=rows_BT, use_cache=False).loss
            if not loss.isfinite():
                raise UserError(
                    f"step {step}: loss = {loss.item()}: expected a number; try a smaller lr"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    weights = [path for pattern in WEIGHTS for path in folder.glob(pattern)]
    with safe_open(min(weights), "pt") as first:
        dtype = first.get_tensor(next(iter(first.keys()))).dtype
    for path in weights:
        path.unlink()
    model.eval().to(dtype).save_pretrained(folder)
    for path in folder.glob(WEIGHTS[0]):
        _copy_file(path, path)
