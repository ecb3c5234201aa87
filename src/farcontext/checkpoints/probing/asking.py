"""Contexts with their questions, asked until they are enough.

Answers are kept on disk at once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.probing import machine, suite
from farcontext.checkpoints.probing.progress import Progress
from farcontext.checkpoints.probing.text import WINDOWS, Text, far_lengths
from farcontext.checkpoints.questions import encoder, first_tokens, observe
from farcontext.measure.stats import half_width
from farcontext.schema import Row
from farcontext.tasks import needles
from farcontext.tasks.sample import Sample, evidence_removed
from farcontext.train.kept import kept_rows, read_sealed, write_sealed

LEAST = 12  # Every length has at least so many contexts; the control has just so many.


@dataclass(frozen=True, eq=False)
class Asking:
    """A model that is asked, and the folder of its answers.

    Every answer is kept there as soon as it is given.
    """

    pretrained: Pretrained
    text: Text
    keys: int
    precision: float
    most: int
    seed: int
    folder: Path
    progress: Progress

    @property
    def model(self) -> PreTrainedModel:
        """The model."""
        return self.pretrained.model

    def contexts(self, length: int, part: str) -> list[Row]:
        """Return the rows of contexts 0, 1, … until they are enough.

        `part` is needles or control (which has LEAST).
        """
        rows, scores = [], []
        while not (len(scores) == LEAST if part == "control" else self.enough(scores)):
            number = len(scores)
            found = self.asked(f"{part}-{length}-{number}", self.sample(length, number, part))
            rows += [{"length": length, "context": number} | row for row in found]
            scores.append(float(np.mean([row["exact"] for row in found])))
        count = len(scores) - (LEAST if part == "control" else self.guess())
        self.progress.more(count * self.work(length))
        return rows

    def asked(self, name: str, sample: Sample) -> list[Row]:
        """Return the answers of one context, kept ones or new ones."""

        def ask() -> list[Row]:
            part = machine.part_that_fits(self.model, sample.length)
            return observe(self.model, sample, part)

        return self.kept(name, ask, self.work(sample.length))

    def tasks(self, lengths: Sequence[int], notes: list[str]) -> list[Row]:
        """Return the rows of the suite.

        What does not fit a length is noted.
        """
        rows = []
        for task in suite.TASKS:
            for length in lengths:
                try:
                    made = [self.task(task, length, n) for n in range(suite.CONTEXTS)]
                except ValueError as error:  # The task needs more room than the length has.
                    notes.append(f"{task} at {length} tokens: {error}")
                    self.progress.more(-suite.CONTEXTS * self.work(length))
                    continue
                for number, one in enumerate(made):
                    same = {"task": task, "length": length, "context": number, "chance": one.chance}
                    name = f"{task.replace(' ', '_')}-{length}-{number}"
                    rows += [same | row for row in self.asked(name, one)]
        return rows

    def sample(self, length: int, number: int, part: str) -> Sample:
        """Return a context, drawn independently, the same in every call."""
        source = np.random.SeedSequence((self.seed, length, number, part == "control"))
        made = needles.sample(keys=self.keys, **self.given(source, length))
        return evidence_removed(made) if part == "control" else made

    def task(self, task: str, length: int, number: int) -> Sample:
        """Return a context of the suite, the same in every call."""
        where = [*suite.TASKS].index(task)
        source = np.random.SeedSequence((self.seed, length, number, 2, where))
        return suite.sample(task, **self.given(source, length))

    def given(self, source: np.random.SeedSequence, length: int) -> Row:
        """Return what every generator takes."""
        seed = int(source.generate_state(1)[0])
        tokenizer, texts = self.pretrained.tokenizer, self.text.texts
        return {
            "length": length,
            "seed": seed,
            "encode": encoder(tokenizer),
            "filler": texts[seed % len(texts)],
            "bos": first_tokens(tokenizer),
        }

    def enough(self, scores: list[float]) -> bool:
        """Return whether the interval is narrow enough, or contexts run out."""
        if len(scores) < LEAST:
            return False
        return len(scores) >= self.most or half_width(scores) <= self.precision

    def kept(self, name: str, compute: Callable[[], list[Row]], work: float) -> list[Row]:
        """Return kept rows, or compute them; `work` moves the bar."""
        path = self.folder / f"{name}.json"
        if (rows := kept_rows(path)) is not None:
            self.progress.more(-work)
            return rows
        write_sealed(path, {"rows": compute()})
        self.progress.update(work)
        return read_sealed(path)["rows"]

    # --------------------------------------------------------------------------------- expectations

    def work(self, length: int) -> float:
        """Return the operations of reading one context."""
        return machine.operations(self.model, length)

    def guess(self) -> int:
        """Return how many contexts a length may take.

        Answers are assumed to have share 1/2, and two in a context to tell as much as one.
        """
        wanted = 2 * (1.96 / self.precision) ** 2 / 4 / self.keys
        return int(np.clip(wanted, LEAST, self.most))

    def expect(self, lengths: Sequence[int], tasks: bool) -> None:
        """Tell the bar how much there is to read.

        Say about how long it takes, too. One context of the shortest length is read for the rate,
        after another that warms up.
        """
        pieces = WINDOWS * (
            self.work(lengths[-1]) + 2 * sum(map(self.work, far_lengths(lengths[-1])[1]))
        )
        each = self.guess() + suite.CONTEXTS * len(suite.TASKS) * tasks
        total = LEAST * self.work(lengths[0]) + each * sum(map(self.work, lengths)) + pieces
        self.progress.expect(total)
        if kept_rows(self.folder / f"control-{lengths[0]}-0.json") is not None:
            return  # It goes on where it was.
        sample = self.sample(lengths[0], 0, "control")
        observe(self.model, sample)
        start = time.monotonic()
        observe(self.model, sample)
        minutes = (time.monotonic() - start) / self.work(lengths[0]) * total / 60
        need = machine.needs(
            self.model, lengths[-1], machine.part_that_fits(self.model, lengths[-1])
        )
        dtype = str(self.model.dtype).removeprefix("torch.")
        self.progress.say(
            f"about {minutes:.1f} minutes on {self.model.device} in {dtype}, and "
            f"{need.whole / machine.GIB:.2f} GiB ({need.weights / machine.GIB:.2f} of weights, "
            f"{need.cache / machine.GIB:.2f} of keys and values)"
        )
