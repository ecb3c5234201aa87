"""A probe of how long a checkpoint's context really is.

It has needles by length with intervals, a RoPE check, and what far text is worth. A context holds
needles at even depths in real prose, and a question for each (`questions`). Questions of one
context resemble each other, so contexts are what is counted: each length gets as many as it takes
until the 95 % interval is as narrow as asked for. All that is measured is kept on disk at once, so
a probe that was stopped goes on where it was.
"""

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

from farcontext import files
from farcontext.checkpoints import rope_check
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.probing import losses
from farcontext.checkpoints.probing.asking import LEAST, Asking
from farcontext.checkpoints.probing.progress import Progress
from farcontext.checkpoints.probing.text import read
from farcontext.checkpoints.questions import needles_that_fit
from farcontext.checkpoints.rope.finding import Finding
from farcontext.checkpoints.rope.frequencies import rotary_modules
from farcontext.checkpoints.rope.sections import reach
from farcontext.checkpoints.turning import linear_biases
from farcontext.files import UserError
from farcontext.schema import Row
from farcontext.train.keys import code_fingerprint

LENGTHS = (256, 512, 1024, 1536, 2048)
KEYS = 10  # A context has so many needles, or fewer where the shortest length has no room for them.


@dataclass(frozen=True)
class Options:
    """What to measure, and how precisely.

    With `lengths` None, those of LENGTHS are taken that the model has positions for. With `suite`,
    the tasks of `probing.suite` are asked too; with `beyond`, lengths may exceed the positions.

    Raises:
        UserError: a value out of its range.
    """

    lengths: tuple[int, ...] | None = None
    precision: float = 0.07  # Sampling stops at this half-width of the 95 % interval.
    max_contexts: int = 100  # A length has at most so many contexts.
    seed: int = 0
    suite: bool = False
    beyond: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.005 <= self.precision <= 0.5:
            raise UserError(
                f"precision = {self.precision:g}: expected a half-width from 0.005 to 0.5"
            )
        if self.max_contexts < LEAST:
            raise UserError(f"max-contexts = {self.max_contexts}: expected {LEAST} or more")
        if self.lengths is not None and (
            not self.lengths or np.any(np.diff([0, *self.lengths]) <= 0)
        ):
            shown = ",".join(map(str, self.lengths))
            raise UserError(
                f"lengths = {shown}: expected numbers of tokens, ascending, as 256,512,1024"
            )


@dataclass(frozen=True, eq=False)
class Measured:
    """All rows of a probe.

    `needles`: length, context, question, depth, exact, choice, loss; a row a question. `control`:
    the same without evidence, at the shortest length. `far`: document, length, far, loss.
    `position`: document, position, loss. `options` as used, with the number of needles (keys),
    chance, dtype, device, threads and hashes. `notes`: what was left out, and why. `tasks`: the
    rows of the suite, with their task and chance; none where it was not asked for.
    """

    name: str
    options: Row
    needles: pd.DataFrame
    control: pd.DataFrame
    far: pd.DataFrame
    position: pd.DataFrame
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    tasks: pd.DataFrame = field(default_factory=pd.DataFrame)


def lengths_of(text: str) -> tuple[int, ...] | None:
    """Return "256,512" as numbers, nothing as None, or raise UserError."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(re.fullmatch(r"[0-9]{1,15}", part) for part in parts):
        raise UserError(
            f"lengths = {text:.60}: expected numbers of tokens with commas between, as 256,512,1024"
        )
    return tuple(map(int, parts)) or None


def use_threads(count: int | None) -> None:
    """Set torch's threads (None: as it chose), or raise UserError."""
    if count is not None and count < 1:
        raise UserError(f"threads = {count}: expected 1 or more")
    torch.set_num_threads(count or torch.get_num_threads())


def measure(pretrained: Pretrained, options: Options, text: Path | None = None) -> Measured:
    """Probe a loaded checkpoint.

    Rows that an earlier call with the same model, text and seed made are not made again.

    Args:
        pretrained: from `load.load`.
        options: lengths, precision, most contexts, seed.
        text: a file or a folder of files; None: the plays of the corpus's test split.

    Raises:
        UserError: lengths beyond the model's positions or too short for needles; no text, or too
            little.
    """
    lengths = _lengths(pretrained, options)
    found = read(pretrained, text)
    if (tokens := sum(map(len, found.ids))) < lengths[-1]:
        raise UserError(
            f"{found.source}: {tokens} tokens: expected at least {lengths[-1]}, the longest length"
        )
    keys = needles_that_fit(pretrained.tokenizer, lengths[0], KEYS)
    if keys < 2:
        raise UserError(f"lengths = {lengths[0]}: expected room for two needles and a question")
    if lengths[-1] > window(pretrained):
        warnings.warn(beyond_line(pretrained, lengths[-1]), stacklevel=2)
    used = _identity(pretrained, keys, options, found.texts)
    key = _key(used)
    folder = files.cache() / "probe" / key
    used |= {
        "lengths": [*lengths],
        "precision": options.precision,
        "max_contexts": options.max_contexts,
        "source": found.source,
        "chance": 1 / keys,
        "window": window(pretrained),
        "device": str(pretrained.model.device),
        "threads": torch.get_num_threads(),
        "key": key,
    }
    with files.lock(folder), Progress(f"probe of {pretrained.name}") as progress:
        files.sweep_leftovers(folder)
        limits = (options.precision, options.max_contexts, options.seed)
        asking = Asking(pretrained, found, keys, *limits, folder, progress)
        asking.expect(lengths, options.suite)
        control = asking.contexts(lengths[0], "control")
        rows = [row for length in lengths for row in asking.contexts(length, "needles")]
        lost = losses.measured(asking, lengths[-1])
        tasks = asking.tasks(lengths, lost.notes) if options.suite else []
    findings = (*rope_check.check(pretrained), *lost.findings)
    frames = (pd.DataFrame(part) for part in (rows, control, lost.far, lost.position))
    notes = tuple(lost.notes)
    return Measured(pretrained.name, used, *frames, findings, notes, pd.DataFrame(tasks))


def _identity(pretrained: Pretrained, keys: int, options: Options, texts: tuple[str, ...]) -> Row:
    """Return what the rows depend on, beside the code and the libraries."""
    return {
        "checkpoint": fingerprint(pretrained.path),
        "dtype": str(pretrained.model.dtype).removeprefix("torch."),
        "keys": keys,
        "seed": options.seed,
        "text": files.sha256_json(texts)[:16],
        "device_type": pretrained.model.device.type,
    }


def _key(identity: Row) -> str:
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    code = {"code": code_fingerprint(measure)}
    return files.sha256_json(identity | versions | code)[:16]


def fingerprint(path: Path) -> str:
    """Return 16 hex digits of a checkpoint's file or whole folder."""
    if path.is_file():
        return files.sha256_file(path)[:16]
    found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return files.sha256_json(
        [(p.relative_to(path).as_posix(), files.sha256_file(p)) for p in found]
    )[:16]


def window(pretrained: Pretrained) -> int:
    """Return how many positions a checkpoint's configuration promises."""
    return reach(pretrained.model.config)


def beyond_line(pretrained: Pretrained, longest: int) -> str:
    """Return the warning about lengths that no configuration promises."""
    return (
        f"lengths up to {longest}: {pretrained.name} has {window(pretrained)} positions; what lies "
        "beyond them shows how it fails there, not what it was made for"
    )


def _lengths(pretrained: Pretrained, options: Options) -> tuple[int, ...]:
    limit = window(pretrained)
    lengths = options.lengths or tuple(length for length in LENGTHS if length <= limit)
    shown = ",".join(map(str, lengths or LENGTHS))
    if not lengths or (lengths[-1] > limit and not options.beyond):
        raise UserError(
            f"lengths = {shown}: expected at most {limit}, the model's positions (--beyond goes on)"
        )
    config = pretrained.model.config
    relative = rotary_modules(pretrained.model) or linear_biases(config)
    if lengths[-1] > limit and not relative:
        raise UserError(
            f"lengths = {shown}: expected at most {limit}: this model's positions are a table that "
            "ends there"
        )
    return lengths
