"""A study's notebook, as its tests use it.

They use the parameters that it has by itself, and its own assertion cells.
"""

from pathlib import Path
from typing import TypeVar

import pytest

from farcontext.app import notebooks
from farcontext.schema import validate
from farcontext.studies.section import Study

Section = TypeVar("Section", bound=Study)


def smoke_params(root: Path, name: str, section: type[Section]) -> Section:
    """Return the values of a notebook's parameters cell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        values = notebooks.defaults(notebooks.path_of(name))
    return validate(section, values, "smoke")


def run_assertion(root: Path, name: str, says: str, **known: object) -> None:
    """Run the notebook's own cell that prints `says`, on names of ours."""
    (path,) = (root / "notebooks").glob(f"*_{name}.ipynb")
    (cell,) = [
        cell.source
        for cell in notebooks.read(path).cells
        if cell.cell_type == "code" and says in cell.source
    ]
    exec(cell, known)
