"""Progress of a long measurement: a bar on a terminal, lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from farcontext.messages import one_line, printable

SHAPE = (
    "{desc} {percentage:3.0f} % |{bar}| {elapsed} so far, about {remaining} left; Ctrl-C: "
    "goes on here next time"
)
EVERY = 30.0  # Off a terminal a line is due after so many seconds.


class Progress:
    """How much work is done of how much.

    It is in any unit, and told on stderr. On a terminal it is a bar. Elsewhere (a log, a notebook,
    a job) a line comes at most every EVERY seconds, so a short measurement says nothing.
    """

    def __init__(self, name: str, out: TextIO | None = None, every: float = EVERY) -> None:
        self.name, self.out, self.every = name, out or sys.stderr, every
        self.done = self.total = 0.0
        self.start = self.told = time.monotonic()
        self.bar = tqdm(
            total=1,
            desc=name,
            bar_format=SHAPE,
            disable=not self._terminal(),
            leave=False,
            smoothing=0.05,
            file=self.out,
        )

    def _terminal(self) -> bool:
        return self.out.isatty()

    def expect(self, total: float) -> None:
        """Begin anew, with so much work before it."""
        self.done, self.total = 0.0, total
        self.start = self.told = time.monotonic()
        self.bar.reset(total)

    def more(self, work: float) -> None:
        """Add to what is to be done.

        Less than none takes away from it.
        """
        self.total += work
        self.bar.total = self.total

    def update(self, work: float) -> None:
        """Say that so much more is done."""
        self.done += work
        self.bar.update(work)
        now = time.monotonic()
        if not self._terminal() and now - self.told >= self.every and self.done < self.total:
            self.told = now
            self.say(
                f"{self.share():.0%}, {self.seconds() / 60:.1f} minutes so far, "
                f"about {self.left() / 60:.1f} left"
            )

    def share(self) -> float:
        """Return the share of the work that is done."""
        return min(1.0, self.done / self.total) if self.total > 0 else 1.0

    def seconds(self) -> float:
        """Return the seconds since the work began."""
        return time.monotonic() - self.start

    def left(self) -> float:
        """Return about how many seconds the rest takes.

        The rate is that until now.
        """
        return self.seconds() * (self.total / self.done - 1) if self.done else 0.0

    def say(self, text: str) -> None:
        """Write one line, beside the bar where there is one."""
        tqdm.write(f"farcontext: {self.name}: {printable(one_line(text))}", file=self.out)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.bar.close()
