"""Small notebooks of a real study stand in their own project.

They are what the runner meets when a notebook misbehaves.
"""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from farcontext.schema import read_yaml

ROOT = Path(__file__).parents[2]
STUDY = "attention_derivation"
NAME = f"01_{STUDY}.ipynb"
VALUES = read_yaml(ROOT / "params.yaml")[STUDY]
PARAMETERS = "\n".join(f"{key} = {value!r}" for key, value in VALUES.items())


def project(folder: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    """Write dvc.yaml, params.yaml and one notebook; return the folder.

    The notebook's code cells follow its parameters cell.
    """
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(
        text.replace("profile: laptop", "profile: smoke"), encoding="utf-8"
    )
    made = (
        [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    )
    nbformat.write(
        new_notebook(cells=made + [new_code_cell(cell) for cell in cells]),
        folder / "notebooks" / NAME,
    )
    return folder


def output(folder: Path) -> Path:
    """Return where the executed notebook goes."""
    return folder / "build" / "smoke" / "notebooks" / NAME
