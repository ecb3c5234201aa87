"""Every committed notebook keeps to these rules.

It is small, plain, executed, and the same bytes after each run.
"""

import ast
import json
import re
from pathlib import Path

import nbformat

from farcontext.app import notebooks

MAX_CELL_LINES = 15
MAX_HELPER_LINES = 6
MAX_BYTES = 150_000
JAVASCRIPT = re.compile(r"<script|javascript|onload=|onclick=", re.IGNORECASE)


def has_parameters(path: Path) -> bool:
    """Return whether a notebook has a cell of parameters, as every study's has."""
    return any(
        notebooks.PARAMETERS in cell.metadata.get("tags", []) for cell in notebooks.read(path).cells
    )


def problems_of(path: Path) -> list[str]:
    """Return every rule that a notebook breaks, in words; none for a notebook as it should be."""
    notebook = notebooks.read(path)
    cells = [
        (number, cell) for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"
    ]
    found = (
        []
        if path.stat().st_size <= MAX_BYTES
        else [f"{path.stat().st_size} bytes: at most {MAX_BYTES}"]
    )
    for place, (number, cell) in enumerate(cells):
        found += [
            f"cell {number}: {problem}" for problem in [*_source(cell, place == 0), *_outputs(cell)]
        ]
    if any(cell.execution_count != place for place, (_, cell) in enumerate(cells, 1)):
        found.append("execution counts are not 1, 2, 3 …: run it with `farcontext notebooks`")
    if not any(cell.outputs for _, cell in cells):
        found.append("no stored output: nothing would be compared")
    if normal_form(path) != path.read_text(encoding="utf-8"):
        found.append("not in its normal form: run `farcontext normalise`")
    return found


def _source(cell: nbformat.NotebookNode, first: bool) -> list[str]:
    found = []
    lines = [line for line in cell.source.splitlines() if line.strip()]
    # a list of names, as long as the study's section is
    listed = "parameters" in cell.metadata.get("tags", [])
    if len(lines) > MAX_CELL_LINES and not listed:
        found.append(f"{len(lines)} lines: at most {MAX_CELL_LINES}")
    for node in ast.walk(ast.parse(cell.source)):
        match node:
            case ast.ClassDef():
                found.append(f"class {node.name}")
            case ast.FunctionDef() if node.end_lineno - node.lineno + 1 > MAX_HELPER_LINES:
                found.append(f"helper {node.name} is longer than {MAX_HELPER_LINES} lines")
            case ast.Import() | ast.ImportFrom() if not first:
                found.append(f"import outside the first code cell: {ast.unparse(node)}")
    return found


def _outputs(cell: nbformat.NotebookNode) -> list[str]:
    found = []
    if cell.execution_count is None:
        found.append("no execution count: nbval would run it and compare nothing")
    prints = any(
        isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        for node in ast.walk(ast.parse(cell.source))
    )
    if prints and not cell.outputs:
        found.append("it prints, but there is no stored output")
    for output in cell.outputs:
        data = output.get("data", {})
        if "application/javascript" in data or JAVASCRIPT.search(
            json.dumps(data.get("text/html", ""))
        ):
            found.append("JavaScript in an output")
        if output.output_type == "error" or output.get("name") == "stderr":
            found.append(f"an output of type {output.output_type}, {output.get('name', '')}")
    return found


def normal_form(path: Path) -> str:
    """Return what `farcontext normalise` would write."""
    return nbformat.writes(notebooks.normalise(notebooks.read(path))) + "\n"
