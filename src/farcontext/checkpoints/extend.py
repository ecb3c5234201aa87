"""Extension of a checkpoint's context by scaled RoPE, tuned or not.

The result is a folder that every reader loads alike (`rope.readers`), with its weights copied,
linked or tuned. The configuration says something new, and the tokenizer's limit; whatever else the
folder holds is copied. What extending changed is measured before the folder appears: loss by
position, before and after, on the same text.
"""

import importlib.metadata
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedConfig

from farcontext import files
from farcontext.checkpoints import load, refusals
from farcontext.checkpoints.extension.folder import fill, save
from farcontext.checkpoints.extension.plan import REPORT, Plan, origin_of, plan
from farcontext.checkpoints.extension.tuning import Tuning, expect_sound, tune
from farcontext.checkpoints.loss_change import before_after
from farcontext.checkpoints.questions import encoder
from farcontext.checkpoints.rope.readers import for_every_reader, write_window
from farcontext.checkpoints.rope.sections import parse
from farcontext.data.corpus import read_text
from farcontext.files import UserError
from farcontext.messages import did_you_mean
from farcontext.nn.positions import SCHEME_NOTES
from farcontext.schema import validate

LONGEST = 16_384  # The before/after table has so many tokens, unless told otherwise.
MEASURED = 10**9  # Of more parameters nothing is loaded to be measured, unless told to.

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
    trained_length: int | None = None,
    tuning: Tuning | None = None,
    text: Path | None = None,
    measure: int | None = None,
) -> dict[str, Any]:
    """Write a folder with the checkpoint's context extended, and return its report.

    Without tuning and measuring a Hugging Face folder is not loaded: its configuration is edited,
    its files are copied or linked.

    Args:
        checkpoint: what `load.load` reads; weights keep their dtype.
        out: a Hugging Face folder that does not exist yet; it appears whole, or not at all.
        scheme: a key of `ADVICE`.
        factor: s, wanted length / the window now, above 1.
        theta: the base of abf; None: the rule of `positions.inverse_frequencies`.
        trained_length: in tokens, where max_position_embeddings is not it; s counts from there.
        tuning: train the extended model on a text; None: the weights stay as they are.
        text: what loss is measured on; None: the language reference that comes with Python.
        measure: tokens up to which loss is measured; None: all reached, at most 16,384, and 0 of
            more than 1,000 million parameters; 0: none.

    Raises:
        UserError: one line; a checkpoint without RoPE, or whose weights know another scheme; a bad
            option or text.
    """
    out = Path(out)
    _check(out, scheme, factor, theta, trained_length)
    if tuning:
        expect_sound(tuning)
    source = _source(Path(checkpoint))
    origin = origin_of(source.path, source.config, trained_length)
    planned = plan(source.path, source.config, origin, scheme, factor, theta)
    if measure is None:
        measure = min(planned.window, LONGEST) if _parameters(source.config) <= MEASURED else 0
    encode = _encoder(source) if measure or tuning else None
    tokens = _tokens(text, encode, measure) if measure else None
    tuned_on = _tokens(tuning.text, encode, tuning.length) if tuning else None
    with files.folder_atomic(out) as folder:
        if source.loaded:
            save(source.loaded, folder)
            source = replace(source, loaded=None)  # One copy of the weights is enough.
        else:
            fill(source.path, folder)
        kept = files.read_json(folder / "config.json")
        stored = for_every_reader(kept, planned.section, planned.limit)
        files.write_json(folder / "config.json", stored)
        write_window(folder, planned.window)
        if tuning:
            tune(folder, tuned_on, tuning)
            files.write_json(folder / "config.json", stored)  # transformers wrote its own.
            write_window(folder, planned.window)
        report = _report(source, planned, scheme, factor, tuning)
        reach = [*_lengths(origin.reach, planned.window)]
        lengths = [length for length in reach if length < measure] + [measure]
        report["loss"] = before_after(source.path, folder, tokens, lengths) if measure else []
        files.write_json(folder / REPORT, report)
    return report


def lines(report: dict[str, Any], out: Path) -> list[str]:
    """Return what is said of an extended folder: its window, from where, and warnings."""
    window, limit = report["window"], report["max_position_embeddings"]
    grows = "" if limit == window else f"; with this scheme texts may have {window} tokens"
    said = [f"{out}: max_position_embeddings = {limit}{grows}"]
    said += [f"counted from the trained length, {report['trained_length']} tokens"]
    if not report["loss"]:
        said += ["loss before and after: not measured (--measure N loads the weights)"]
    return said + [f"warning: {text}" for text in report["warnings"]]


# -------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class _Source:
    """What is extended: a Hugging Face folder as its JSON, anything else loaded."""

    path: Path
    config: PreTrainedConfig
    raw: dict[str, Any]
    loaded: load.Pretrained | None = None


def _source(path: Path) -> _Source:
    """Read a folder's configuration, or load a GGUF file or a run of ours.

    Raises:
        UserError: what `load.load` refuses of either, but for what only weights can show.
    """
    where = path / "config.json"
    raw = refusals.configuration(path) if where.is_file() else {}
    if "model_type" not in raw:
        loaded = load.load(path)
        return _Source(loaded.path, loaded.model.config, {}, loaded)
    refusals.expect_family(where, raw["model_type"])
    validate(refusals.Configuration, raw, str(where))
    refusals.weights_of(path, raw)
    return _Source(path, parse(raw, where), raw)


def _check(
    out: Path, scheme: str, factor: float, theta: float | None, trained_length: int | None
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
    if trained_length is not None and trained_length < 2:
        raise UserError(f"trained_length = {trained_length}: expected 2 tokens or more")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists: expected a folder that is not there yet")


def _parameters(config: PreTrainedConfig) -> int:
    """Return about how many numbers a model of this shape has."""
    width, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * width
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    return layers * width * (3 * width + 3 * inner * (experts or 1)) + config.vocab_size * width


def _report(
    source: _Source, planned: Plan, scheme: str, factor: float, tuning: Tuning | None
) -> dict[str, Any]:
    """Return what is kept of an extension; a later one counts from `origin`."""
    origin = planned.origin
    known = {"rope_theta": origin.theta, "factor": planned.factor, "tuned": bool(tuning)}
    known["tuned"] |= bool(origin.fixed)
    return {
        "scheme": scheme,
        "factor": factor,
        "checkpoint": source.path.resolve().name.removesuffix(".gguf"),
        "trained_length": origin.length,
        "window": planned.window,
        "origin": known,
        "rope_parameters": planned.section,
        "max_position_embeddings": planned.limit,
        "warnings": list(planned.warnings),
        "versions": _versions(),
        "tuning": asdict(tuning) | {"text": tuning.text.name} if tuning else None,
    }


def _versions() -> dict[str, str]:
    names = ("farcontext", "torch", "transformers")
    return {name: importlib.metadata.version(name) for name in names}


def _lengths(original: int, window: int) -> Iterator[int]:
    """Yield L/4, L/2, L, 2L, … as far as the window."""
    length = original // 4
    while length < window:
        if length > 1:
            yield length
        length = max(2 * length, 2)
    yield window


def _encoder(source: _Source) -> Callable[[str], list[int]]:
    """Return text → tokens of a checkpoint; its weights are not read."""
    rows = source.config.vocab_size
    if source.loaded:
        return encoder(source.loaded.tokenizer, rows)
    refusals.expect_tokenizer(source.path)
    return encoder(load.tokenizer_of(source.path, rows), rows)


def _tokens(text: Path | None, encode: Callable[[str], list[int]], least: int) -> Int[Tensor, " T"]:
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
    tokens = torch.tensor(encode(whole), dtype=torch.long)
    if len(tokens) <= least:
        name = "Python's language reference" if text is None else text
        raise UserError(f"{name}: {len(tokens)} tokens: expected more than {least}")
    return tokens
