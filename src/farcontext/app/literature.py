"""What others measured for each claim, from data/literature.yaml."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from farcontext.schema import Frozen, Names, read_yaml, validate

Text = Annotated[str, Field(min_length=1)]


class Source(Frozen):
    """A paper, or the documentation of a program."""

    cited: Text  # Authors and year, as a text cites it.
    title: Text
    url: Annotated[str, Field(pattern="^https://")]


class Found(Frozen):
    """One measurement of others."""

    claims: Names  # It says something of these.
    source: Text
    where: Text  # Section, table and cell.
    number: Text | None = None  # None: the source states none, or it was not checked.
    measured: Text
    differs: Text  # Why theirs and ours are not the same measurement.


class Literature(Frozen):
    """All of data/literature.yaml."""

    sources: dict[str, Source]
    found: Annotated[tuple[Found, ...], Field(strict=False)]

    def of(self, claim: str) -> list[tuple[Source, Found]]:
        """Return what is known of a claim, each with its source."""
        return [(self.sources[one.source], one) for one in self.found if claim in one.claims]


def read_literature(root: Path) -> Literature:
    """Read and validate data/literature.yaml."""
    path = root / "data" / "literature.yaml"
    return validate(Literature, read_yaml(path), str(path))
