"""A finding of the RoPE check, and its three grades."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Grade = Literal["fault", "note", "ok"]
GRADES: tuple[Grade, ...] = ("fault", "note", "ok")
MARKS = {"fault": "FAULT", "note": "note ", "ok": "ok   "}


@dataclass(frozen=True)
class Finding:
    """One comparison: what was found, what was expected, and a sentence.

    A *fault* (`ok` is False): the model does not compute what its configuration means. A *note*: it
    works, but a reader should know. The sentence is for the reader.
    """

    name: str
    ok: bool
    found: str
    expected: str
    says: str
    note: bool = False

    @property
    def grade(self) -> Grade:
        """Return fault, note or ok."""
        return "fault" if not self.ok else "note" if self.note else "ok"


def graded(name: str, grade: Grade, found: str, expected: str, says: str) -> Finding:
    """Return a finding of a grade."""
    return Finding(name, grade != "fault", found, expected, says, grade == "note")


def lines(findings: Iterable[Finding]) -> list[str]:
    """Return one line a finding, as it is printed.

    Faults come first, then notes.
    """
    ordered = sorted(findings, key=lambda finding: GRADES.index(finding.grade))
    return [
        f"{MARKS[f.grade]} {f.name}"
        f"{'' if f.grade == 'ok' else f': found {f.found}, expected {f.expected}'}; {f.says}"
        for f in ordered
    ]
