"""Extension of a checkpoint's context by scaled RoPE, tuned or not.

The result is a folder that every reader loads alike (`rope.readers`), with its weights copied,
linked or tuned. The configuration says something new, and the tokenizer's limit; whatever else the
folder holds is copied. What extending changed is measured before the folder appears: loss by
position, before and after, on the same text.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from farcontext import files
from farcontext.checkpoints import load, refusals
from farcontext.checkpoints.extension.edit import (
    ADVICE,
    MEASURED,
    REFUSED,
    Request,
    Source,
    edit,
    expect_sound,
    parameters,
    report_of,
    rewrite,
    scheme_lines,
    source_of,
)
from farcontext.checkpoints.extension.folder import fill
from farcontext.checkpoints.extension.plan import REPORT
from farcontext.checkpoints.extension.tuning import Tuning, expect_trainable, tune
from farcontext.checkpoints.extension.weights import save
from farcontext.checkpoints.loss_change import before_after
from farcontext.checkpoints.questions import encoder
from farcontext.data.corpus import read_text
from farcontext.files import UserError

__all__ = ["ADVICE", "REFUSED", "REPORT", "Tuning", "extend", "scheme_lines"]
LONGEST = 16_384  # The before/after table has so many tokens, unless told otherwise.


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
    out, request = Path(out), Request(scheme, factor, theta, trained_length)
    expect_sound(out, request)
    if tuning:
        expect_trainable(tuning)
    source, loaded = source_of(Path(checkpoint)), None
    if source is None:
        loaded = load.load(checkpoint)
        source = Source(loaded.path, loaded.model.config, {})
    planned = source.planned(request)
    if measure is None:
        small = parameters(source.config) <= MEASURED
        measure = min(planned.window, LONGEST) if small else 0
    if not (loaded or measure or tuning):
        return edit(source.path, out, request)
    encode = _encoder(source, loaded) if measure or tuning else None
    tokens = _tokens(text, encode, measure) if measure else None
    tuned_on = _tokens(tuning.text, encode, tuning.length) if tuning else None
    with files.folder_atomic(out) as folder:
        if loaded:
            save(loaded, folder)
            loaded = encode = None  # One copy of the weights is enough.
        else:
            fill(source.path, folder)
        rewrite(folder, planned)
        if tuning:
            stored = files.read_json(folder / "config.json")
            tune(folder, tuned_on, tuning)
            files.write_json(folder / "config.json", stored)  # transformers wrote its own.
            rewrite(folder, planned)
        tuned = asdict(tuning) | {"text": tuning.text.name} if tuning else None
        report = report_of(source.path, planned, request, tuned)
        reach = [*_lengths(planned.origin.reach, planned.window)]
        lengths = [length for length in reach if length < measure] + [measure]
        report["loss"] = before_after(source.path, folder, tokens, lengths) if measure else []
        files.write_json(folder / REPORT, report)
    return report


# -------------------------------------------------------------------------------------------- parts


def _lengths(original: int, window: int) -> Iterator[int]:
    """Yield L/4, L/2, L, 2L, … as far as the window."""
    length = original // 4
    while length < window:
        if length > 1:
            yield length
        length = max(2 * length, 2)
    yield window


def _encoder(source: Source, loaded: load.Pretrained | None) -> Callable[[str], list[int]]:
    """Return text → tokens of a checkpoint; its weights are not read."""
    rows = source.config.vocab_size
    if loaded:
        return encoder(loaded.tokenizer, rows)
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
