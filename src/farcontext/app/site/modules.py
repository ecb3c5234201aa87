"""The library as pages: one a room, with each module's docstrings.

The source is parsed and never imported, so torch is not needed.
"""

import ast
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from farcontext.app.site.layout import Heading, Page, render, ticked
from farcontext.app.site.notebook import code

GROUP = "Library"
WIDTH = 80  # So many characters of code fit on a page.
GROUND = "ground"  # The modules that belong to no room.


@dataclass(frozen=True)
class Entry:
    """A public name of a module, with signature and docstring."""

    anchor: str
    signature: str
    said: str
    below: tuple["Entry", ...] = ()


@dataclass(frozen=True)
class Module:
    """A module with its public names."""

    name: str
    said: str
    entries: tuple[Entry, ...]


def prose(docstring: str | None) -> str:
    """Return a docstring as HTML.

    What is set in columns stays as it stands.
    """
    parts = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring or "")):
        columns = re.search(r"^(\s|>>>|\w+:$)", block, re.M) is not None
        parts.append(f"<pre>{ticked(block)}</pre>" if columns else f"<p>{ticked(block)}</p>")
    return "".join(parts) if docstring else ""


def _parameters(given: ast.arguments) -> list[str]:
    """Return a function's parameters one by one, as they are written."""
    positional = given.posonlyargs + given.args
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    star = [f"*{ast.unparse(given.vararg)}"] if given.vararg else ["*"] * bool(given.kwonlyargs)
    many = [f"**{ast.unparse(given.kwarg)}"] if given.kwarg else []

    def told(pairs: Iterable[tuple[ast.arg, ast.expr | None]]) -> list[str]:
        return [
            ast.unparse(one) + (f" = {ast.unparse(value)}" if value else "") for one, value in pairs
        ]

    named = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return [*told(zip(positional, defaults, strict=True)), *star, *told(named), *many]


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a function's first line.

    A long one has a parameter a line.
    """
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    parameters = _parameters(node.args)
    line = f"def {node.name}({', '.join(parameters)}){returns}"
    if len(line) <= WIDTH or not parameters:
        return line
    return f"def {node.name}(\n    " + ",\n    ".join(parameters) + f"\n){returns}"


def _public(node: ast.AST) -> bool:
    known = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    return known and not node.name.startswith("_")


def _entry(node: ast.AST, module: str) -> Entry:
    """Return one public name.

    A class has its fields in its signature, and its methods below.
    """
    anchor, said = f"{module}.{node.name}", prose(ast.get_docstring(node))
    if not isinstance(node, ast.ClassDef):
        return Entry(anchor, code(_signature(node)), said)
    bases = ", ".join(map(ast.unparse, node.bases))
    fields = [f"    {ast.unparse(x)}" for x in node.body if isinstance(x, ast.AnnAssign)]
    head = f"class {node.name}({bases})" if bases else f"class {node.name}"
    methods = tuple(
        _entry(one, anchor)
        for one in node.body
        if isinstance(one, ast.FunctionDef) and _public(one) and ast.get_docstring(one)
    )
    return Entry(anchor, code("\n".join([head, *fields])), said, methods)


def read(path: Path, package: Path) -> Module:
    """Read a module's docstrings without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = ".".join(path.relative_to(package).with_suffix("").parts)
    entries = tuple(_entry(node, name) for node in tree.body if _public(node))
    return Module(name, prose(ast.get_docstring(tree)), entries)


def pages(root: Path) -> list[Page]:
    """Return a page for each room of the package."""
    package = root / "src" / "farcontext"
    rooms: dict[str, list[Module]] = {}
    for path in sorted(package.rglob("*.py")):
        if not path.name.startswith("__"):
            parts = path.relative_to(package).parts
            rooms.setdefault(parts[0] if len(parts) > 1 else GROUND, []).append(read(path, package))
    return [_page(room, modules) for room, modules in sorted(rooms.items())]


def _page(room: str, modules: list[Module]) -> Page:
    url = f"library/{room}.html"
    title = "farcontext: files, messages, schema" if room == GROUND else f"farcontext.{room}"
    body = render("modules", url, title=title, modules=modules)
    headings = tuple(Heading(2, one.name, one.name.removeprefix(f"{room}.")) for one in modules)
    return Page(url, title, GROUP, body, room, headings)
