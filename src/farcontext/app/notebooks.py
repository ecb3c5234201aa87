"""Notebooks as experiments, with committed outputs that are always the same bytes.

Parameters are checked, and papermill runs the notebooks.
"""

import ast
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient import NotebookClient
from nbconvert.preprocessors import ClearMetadataPreprocessor, CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from farcontext import files
from farcontext.files import UserError
from farcontext.messages import did_you_mean
from farcontext.results import tables
from farcontext.schema import Frozen, validate
from farcontext.studies.params import STUDIES

KERNEL = "python3"
CELL_SECONDS = 6 * 3600  # A kernel that hangs must not hold a pipeline for ever.
PARAMETERS = "parameters"
WIDGET = "application/vnd.jupyter.widget-view+json"


def path_of(study: str) -> Path:
    """Return a study's notebook, notebooks/NN_<study>.ipynb.

    Raises:
        UserError: no such study.
    """
    paths = sorted((files.project() / "notebooks").glob(f"[0-9][0-9]_{study}.ipynb"))
    if study not in STUDIES or len(paths) != 1:
        raise UserError(
            f"study = {study}: expected one of {', '.join(STUDIES)}{did_you_mean(study, STUDIES)}"
        )
    return paths[0]


def pages() -> list[Path]:
    """Return the notebooks that are no study's, in reading order.

    A page shows what is published. It has no parameters, runs in no stage, and bears the name of
    the stage whose tables it shows.
    """
    found = sorted((files.project() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return [path for path in found if path.stem[3:] not in STUDIES]


def named(name: str) -> Path:
    """Return a notebook by name, a study's or a page's.

    Raises:
        UserError: no such notebook.
    """
    return next((path for path in pages() if path.stem[3:] == name), None) or path_of(name)


def question_of(path: Path, language: str = "en") -> str:
    """Return a notebook's title, which is the question that it answers.

    Args:
        path: the notebook.
        language: en, or zh: the line in italics below the title, where there is one.
    """
    title, _, rest = read(path).cells[0].source.partition("\n")
    below = rest.lstrip().partition("\n")[0]
    chinese = language == "zh" and re.fullmatch(r"\*([^*]+)\*", below.strip())
    return chinese[1] if chinese else title.lstrip("# ")


def read(path: Path) -> NotebookNode:
    """Read a notebook file."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise UserError(f"{path}: expected a notebook: {error}") from None


def parameters_cell(notebook: NotebookNode, path: Path) -> NotebookNode:
    """Return the one cell tagged `parameters`.

    Raises:
        UserError: there is none, or more than one.
    """
    cells = [cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UserError(f"{path}: {len(cells)} cells tagged parameters: expected one")
    return cells[0]


def defaults(path: Path) -> dict[str, Any]:
    """Return the literal assignments of a notebook's parameters cell.

    Raises:
        UserError: something there is not `name = literal`.
    """
    source = parameters_cell(read(path), path).source
    values: dict[str, Any] = {}
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise UserError(
            f"{path}: parameters cell: expected Python: {error.msg}, line {error.lineno}"
        ) from None
    for node in body:
        try:
            (target,) = node.targets
            values[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            line = source.splitlines()[node.lineno - 1]
            raise UserError(f"{path}: parameters cell: {line!r}: expected name = literal") from None
    return values


def check(study: str, values: dict[str, Any], name: str) -> Frozen:
    """Validate a study's parameters before any kernel starts.

    They are held against the study's model and its notebook's own names.

    Raises:
        UserError: one line: a name that the study does not know (with a suggestion), a wrong
            type, a notebook whose parameters cell has other names or types than the study's model.
    """
    path = path_of(study)
    params = validate(STUDIES[study], values, name)
    written = defaults(path)
    validate(STUDIES[study], written, f"{path}: parameters cell")
    if missing := set(STUDIES[study].model_fields) - set(written):
        raise UserError(
            f"{path}: parameters cell: {', '.join(sorted(missing))}: expected all names of "
            "params.yaml"
        )
    return params


def execute(study: str, params: Frozen, output: Path, cell_seconds: int = CELL_SECONDS) -> None:
    """Run a study's notebook with these parameters through papermill.

    The output appears only when it is complete.

    Raises:
        UserError: a cell failed or took too long, or its kernel died; the line names the notebook
            and the error.
    """
    path = path_of(study)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # A failure is one line of ours.
    with tempfile.TemporaryDirectory(prefix="farcontext-") as folder:
        draft = Path(folder) / path.name
        try:
            papermill.execute_notebook(
                str(path),
                str(draft),
                parameters=params.model_dump(mode="json"),
                kernel_name=KERNEL,
                language="python",
                progress_bar=False,
                cwd=str(path.parent),
                start_timeout=120,
                execution_timeout=cell_seconds,
                extra_arguments=["--IPKernelApp.log_level=50"],  # Its log would go to our stderr.
            )
        except papermill.exceptions.PapermillExecutionError as error:
            where = f"{path}: cell {error.cell_index}"
            raise UserError(
                f"{where}: {error.ename}: {' '.join(str(error.evalue).split())}"
            ) from None
        except (
            RuntimeError,
            TimeoutError,
        ) as error:  # nbclient raises DeadKernelError or CellTimeoutError.
            raise UserError(
                f"{path}: {type(error).__name__}: {str(error).splitlines()[0]}"
            ) from None
        notebook = normalise(read(draft))
    files.write_atomic(output, nbformat.writes(notebook) + "\n")


def expected(study: str) -> str:
    """Return how long a study takes, from what its published run recorded."""
    minutes = tables.core_minutes(study)
    if minutes is None:
        return "no time is recorded yet"
    return f"{minutes:.1f} core-minutes when it was published" if minutes >= 1 else "under a minute"


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Drop all that differs from run to run.

    These are stamps, random cell ids, stderr, the language version and papermill's marks; how
    stdout was cut into pieces depends on timing. Widgets go, too: a static picture stands beside.
    """
    notebook, _ = ClearMetadataPreprocessor(preserve_cell_metadata_mask={"tags"}).preprocess(
        notebook, {}
    )
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": KERNEL,
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        if cell.cell_type == "code":
            cell["outputs"] = [_clean(output) for output in cell.outputs if _kept(output)]
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _kept(output: NotebookNode) -> bool:
    """Return whether an output needs no kernel; a widget does."""
    return output.get("name") != "stderr" and WIDGET not in output.get("data", {})


def _clean(output: NotebookNode) -> NotebookNode:
    if "text/plain" in output.get("data", {}):
        output["data"]["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", output["data"]["text/plain"])
    return output


def refresh(path: Path) -> None:
    """Execute a notebook at smoke size and write it back normalised.

    It runs with its own defaults. Outputs are committed this way.
    """
    notebook = read(path)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name=KERNEL,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except Exception as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[-400:]}") from None
    files.write_atomic(path, nbformat.writes(normalise(notebook)) + "\n")


def code_cells(path: Path) -> str:
    """Return a notebook's code as one source.

    The parameters cell is left out: its values come from params.yaml.
    """
    cells = (cell for cell in read(path).cells if cell.cell_type == "code")
    return (
        "\n".join(cell.source for cell in cells if PARAMETERS not in cell.metadata.get("tags", []))
        + "\n"
    )
