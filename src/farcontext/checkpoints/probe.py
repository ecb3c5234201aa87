"""A probe of how long a checkpoint's context really is.

It has needles by length with intervals, a RoPE check, and what far text is worth. A context holds
needles at even depths in real prose, and a question for each (`questions`). Questions of one
context resemble each other, so contexts are what is counted: each length gets as many as it takes
until the 95 % interval is as narrow as asked for. All that is measured is kept on disk at once, so
a probe that was stopped goes on where it was.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import transformers
from tqdm import tqdm

from farcontext import files
from farcontext.checkpoints import rope_check, rope_loss
from farcontext.checkpoints.far_context import far_context_loss, loss_by_position
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.probing.text import WINDOWS, Text, far_lengths, read, windows
from farcontext.checkpoints.questions import encoder, first_tokens, needles_that_fit, observe
from farcontext.checkpoints.rope_config import Finding
from farcontext.files import UserError
from farcontext.measure.stats import half_width
from farcontext.tasks import needles
from farcontext.tasks.sample import Sample, evidence_removed
from farcontext.train.kept import kept_rows, read_sealed, write_sealed
from farcontext.train.keys import code_fingerprint

LENGTHS = (256, 512, 1024, 1536, 2048)
KEYS = 10  # A context has so many needles, or fewer where the shortest length has no room for them.
LEAST = 12  # Every length has at least so many contexts; the control has just so many.
BUCKETS = 16  # Positions fall into so many buckets.
CONFIRMED = 1024  # Other bases of RoPE are tried on two windows of so many tokens each.
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What to measure, and how precisely.

    With `lengths` None, those of LENGTHS are taken that the model has positions for.

    Raises:
        UserError: a value out of its range.
    """

    lengths: tuple[int, ...] | None = None
    precision: float = 0.07  # Sampling stops at this half-width of the 95 % interval.
    max_contexts: int = 100  # A length has at most so many contexts.
    seed: int = 0

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
    chance, dtype, threads and hashes. `notes`: what was left out, and why.
    """

    name: str
    options: Row
    needles: pd.DataFrame
    control: pd.DataFrame
    far: pd.DataFrame
    position: pd.DataFrame
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


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


def usual_dtype() -> Literal["float32", "bfloat16"]:
    """Return the dtype that this machine reads a model fastest in.

    Without AVX-512 or a GPU, bfloat16 is several times slower.
    """
    fast = torch.cuda.is_available() or "AVX512" in torch.backends.cpu.get_cpu_capability()
    return "bfloat16" if fast else "float32"


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
    identity = {
        "checkpoint": fingerprint(pretrained.path),
        "dtype": str(pretrained.model.dtype).removeprefix("torch."),
        "keys": keys,
        "seed": options.seed,
        "text": files.sha256_json(found.texts)[:16],
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    key = files.sha256_json(identity | versions | {"code": code_fingerprint(measure)})[:16]
    folder = files.cache() / "probe" / key
    used = identity | {
        "lengths": [*lengths],
        "precision": options.precision,
        "max_contexts": options.max_contexts,
    }
    used |= {
        "source": found.source,
        "chance": 1 / keys,
        "threads": torch.get_num_threads(),
        "key": key,
    }
    with files.lock(folder), _bar() as bar:
        files.sweep_leftovers(folder)
        asking = _Probe(pretrained, found, keys, options, folder, bar)
        asking.expect(lengths)
        control = asking.contexts(lengths[0], "control")
        rows = [row for length in lengths for row in asking.contexts(length, "needles")]
        losses = asking.losses(lengths[-1])
    findings = (*rope_check.check(pretrained), *losses.findings)
    frames = (pd.DataFrame(part) for part in (rows, control, losses.far, losses.position))
    return Measured(pretrained.name, used, *frames, findings, tuple(losses.notes))


@dataclass(frozen=True)
class _Losses:
    far: list[Row]
    position: list[Row]
    findings: list[Finding]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class _Probe:
    """A model that is asked, and the folder of its answers.

    Every answer is kept there as soon as it is given.
    """

    pretrained: Pretrained
    text: Text
    keys: int
    options: Options
    folder: Path
    bar: tqdm

    def contexts(self, length: int, part: str) -> list[Row]:
        """Return the rows of contexts 0, 1, … until they are enough.

        `part` is needles or control (which has LEAST).
        """
        rows, scores = [], []
        while not (len(scores) == LEAST if part == "control" else self.enough(scores)):
            number = len(scores)
            found = self.kept(
                f"{part}-{length}-{number}",
                lambda number=number: observe(
                    self.pretrained.model, self.sample(length, number, part)
                ),
                length,
            )
            rows += [{"length": length, "context": number} | row for row in found]
            scores.append(float(np.mean([row["exact"] for row in found])))
        self.bar.total += (len(scores) - (LEAST if part == "control" else self.guess())) * length
        return rows

    def sample(self, length: int, number: int, part: str) -> Sample:
        """Return a context, drawn independently, the same in every call."""
        source = np.random.SeedSequence((self.options.seed, length, number, part == "control"))
        seed, tokenizer = int(source.generate_state(1)[0]), self.pretrained.tokenizer
        made = needles.sample(
            length=length,
            seed=seed,
            encode=encoder(tokenizer),
            filler=self.text.texts[seed % len(self.text.texts)],
            keys=self.keys,
            bos=first_tokens(tokenizer),
        )
        return evidence_removed(made) if part == "control" else made

    def enough(self, scores: list[float]) -> bool:
        """Return whether the interval is narrow enough, or contexts run out."""
        if len(scores) < LEAST:
            return False
        return (
            len(scores) >= self.options.max_contexts or half_width(scores) <= self.options.precision
        )

    def losses(self, longest: int) -> _Losses:
        """Return losses by position, after foreign text, and under other bases."""
        model, found = self.pretrained, _Losses([], [], [], [])
        pieces = windows(self.text.ids, longest)
        if not pieces:
            found.notes.append(f"losses of real text: no document of {longest} tokens or more")
            return found
        bucket = max(2, longest // BUCKETS)
        within = {"length": longest // bucket * bucket, "bucket": bucket}
        cost = len(pieces) * longest
        found.position.extend(
            self.kept(
                f"position-{longest}", lambda: loss_by_position(model, pieces, **within), cost
            )
        )
        if sum(len(ids) >= longest for ids in self.text.ids) < 2:
            found.notes.append(
                f"another document's text: needs two documents of {longest} tokens or more"
            )
        else:
            targets, lengths = far_lengths(longest)
            cost = 2 * len(pieces) * sum(lengths)
            found.far.extend(
                self.kept(
                    f"far-{longest}",
                    lambda: far_context_loss(model, pieces, lengths=lengths, targets=targets),
                    cost,
                )
            )
        tokens_BT = torch.tensor(
            [piece[:CONFIRMED] for piece in pieces[:2]], device=model.model.device
        )
        if tokens_BT.shape[1] < 4 * rope_loss.BLOCK:
            found.notes.append(
                f"rope_theta by loss: needs lengths of {4 * rope_loss.BLOCK} tokens or more"
            )
        elif rope_check.rotary_modules(model.model):
            rows = self.kept(
                f"bases-{longest}",
                lambda: [asdict(r) for r in rope_loss.confirm(model, tokens_BT)],
                0,
            )
            used = float(model.model.config.rope_parameters["rope_theta"])
            found.findings.append(
                rope_loss.confirmed([rope_loss.Candidate(**row) for row in rows], used)
            )
        return found

    def kept(self, name: str, compute: Callable[[], list[Row]], cost: int) -> list[Row]:
        """Return kept rows, or compute them; `cost` tokens move the bar."""
        path = self.folder / f"{name}.json"
        if (rows := kept_rows(path)) is not None:
            self.bar.total -= cost
            return rows
        write_sealed(path, {"rows": compute()})
        self.bar.update(cost)
        return read_sealed(path)["rows"]

    def guess(self) -> int:
        """Return how many contexts a length may take.

        Answers are assumed to have share 1/2, and two in a context to tell as much as one.
        """
        return int(
            np.clip(
                2 * (1.96 / self.options.precision) ** 2 / 4 / self.keys,
                LEAST,
                self.options.max_contexts,
            )
        )

    def expect(self, lengths: Sequence[int]) -> None:
        """Tell the bar how many tokens there will be to read, about."""
        losses = WINDOWS * (lengths[-1] + 2 * sum(far_lengths(lengths[-1])[1]))
        self.bar.reset(LEAST * lengths[0] + self.guess() * sum(lengths) + losses)


def _bar() -> tqdm:
    """Return a progress bar in tokens; none where the output is no terminal."""
    shape = (
        "probe {percentage:3.0f} % |{bar}| {elapsed} so far, about {remaining} left; Ctrl-C: "
        "goes on here next time"
    )
    return tqdm(total=1, bar_format=shape, disable=None, leave=False, smoothing=0.05)


def fingerprint(path: Path) -> str:
    """Return 16 hex digits of a checkpoint's file or whole folder."""
    if path.is_file():
        return files.sha256_file(path)[:16]
    found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return files.sha256_json(
        [(p.relative_to(path).as_posix(), files.sha256_file(p)) for p in found]
    )[:16]


def _lengths(pretrained: Pretrained, options: Options) -> tuple[int, ...]:
    limit = pretrained.model.config.max_position_embeddings
    lengths = options.lengths or tuple(length for length in LENGTHS if length <= limit)
    if not lengths or lengths[-1] > limit:
        shown = ",".join(map(str, lengths or LENGTHS))
        raise UserError(f"lengths = {shown}: expected at most {limit}, the model's positions")
    return lengths
