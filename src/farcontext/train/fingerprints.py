"""Fingerprints of code: what a result can depend on, and no more.

A fingerprint starts at a function (or at a notebook's cells) and follows names: a definition at the
top of a module counts if it is reached, and its neighbours do not. Comments, layout, docstrings,
annotations, what `raise` and `assert` say, calls that only warn or refuse (`syntax.SPEAKING`), and
validators that only check a configuration (`syntax.only_checks`) leave no trace. A definition
counts by its own name, so that one that moves to another module is still the same.

Where the text cannot tell what is reached, more is taken: a module that is passed around counts
whole, and what a module does on import counts for everybody who imports it.
"""

import ast
import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from farcontext.train import syntax

PACKAGE = "farcontext"
SOURCES = Path(__file__).parent.parent.parent
# These move bytes and words and compute nothing: no result depends on how.
PLUMBING = frozenset(
    {
        "farcontext.files",
        "farcontext.messages",
        "farcontext.results.freezing",
        "farcontext.train.fingerprints",
        "farcontext.train.interrupt",
        "farcontext.train.kept",
        "farcontext.train.syntax",
    }
)
IMPORTS = "on import"  # It names what modules do beside defining names.


class Symbol(NamedTuple):
    """A name at the top of a module."""

    module: str
    name: str


@dataclass
class Definition:
    """What a symbol is bound by.

    That is its statements, and the names of its module that they use.
    """

    statements: list[ast.stmt]
    uses: set[Symbol] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)  # These are used as values: they count whole.
    # A dotted name gives a symbol, or where others define it.
    names: dict[str, Symbol | str] = field(default_factory=dict)
    resolved: bool = False


def of_function(
    function: Callable[..., Any], without: Collection[str] = PLUMBING
) -> dict[str, str]:
    """Return name → digest of all definitions that a function can reach.

    Args:
        function: it stands at the top of its module, or is a method of a class there.
        without: modules that count by their names alone.
    """
    module, name = function.__module__, function.__qualname__.partition(".")[0]
    code = _installed()
    if module.split(".")[0] != PACKAGE:  # It is a test's own function, or a notebook's.
        code.read(module, Path(function.__code__.co_filename).read_text(encoding="utf-8"))
    return code.digests([Symbol(module, name)], without)


def of_source(source: str, root: Path = SOURCES) -> dict[str, str]:
    """Return the digests of a source and all it can reach.

    They are by name; the source's own statements are among them.

    Args:
        source: Python source text, such as a notebook's cells.
        root: the folder that holds the package.
    """
    code = _installed() if root == SOURCES else Code(root)
    module = code.read("source", source)
    return code.digests(
        [Symbol("source", name) for name in (*module.definitions, IMPORTS)], PLUMBING
    )


def of_symbol(
    module: str, name: str, root: Path = SOURCES, without: Collection[str] = PLUMBING
) -> dict[str, str]:
    """Return the digests of all that a definition can reach.

    They are by name; the definition is a checkout's.
    """
    code = _installed() if root == SOURCES else Code(root)
    return code.digests([Symbol(module, name)], without)


def modules(root: Path = SOURCES) -> list[str]:
    """Return the names of all modules of a checkout's package."""
    paths = (path.relative_to(root).with_suffix("") for path in (root / PACKAGE).rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


@lru_cache
def _installed() -> "Code":
    """Return the installed package; its text is that of the process's start."""
    return Code(SOURCES)


# ------------------------------------------------------------------------------------------ modules


class Module:
    """A module's definitions and what it does on import."""

    def __init__(self, name: str, source: str, code: "Code") -> None:
        self.name, self.code = name, code
        self.definitions: dict[str, Definition] = {}
        self.on_import = Definition([])
        # A name gives a module of ours, or a symbol in one.
        self.aliases: dict[str, str | Symbol] = {}
        self.others: dict[str, str] = {}  # A name gives what it is in another package.
        for statement in syntax.statements(source):
            self._add(statement)

    def _add(self, statement: ast.stmt) -> None:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.aliases |= dict(
                self.code.imported(statement)
            )  # What a function imports is its own.
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self.others |= {
                name: origin for name, origin in _origins(statement) if name not in self.aliases
            }
            return
        bound = syntax.bound_names([statement])
        for name in sorted(bound):
            self.definitions.setdefault(name, Definition([])).statements.append(statement)
        plain = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
        if not isinstance(statement, plain) or not bound:
            self.on_import.statements.append(statement)

    def definition(self, name: str) -> Definition:
        """Return a definition, and what it uses."""
        definition = self.on_import if name == IMPORTS else self.definitions[name]
        if not definition.resolved:
            definition.resolved = True
            for statement in definition.statements:
                self._resolve(statement, definition)
        return definition

    def _resolve(self, statement: ast.stmt, definition: Definition) -> None:
        local = dict(self.code.imported(statement))
        definition.uses |= {target for target in local.values() if isinstance(target, Symbol)}
        free = syntax.free_names(statement) | set(local)
        for dotted in syntax.dotted_names(statement):
            first, *rest = dotted.split(".")
            if first not in free:
                continue
            target = (self.aliases | local).get(first) or (
                Symbol(self.name, first) if first in self.definitions else None
            )
            if target is None:
                definition.names |= {first: self.others[first]} if first in self.others else {}
                continue
            while isinstance(target, str) and rest:
                first, target = f"{first}.{rest[0]}", self.code.member(target, rest.pop(0))
            if isinstance(target, Symbol):
                definition.uses.add(target)
                definition.names[first] = target
            else:
                definition.modules.add(target)


def _origins(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield name → where it comes from, of an import."""
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom):
            yield alias.asname or alias.name, f"{statement.module}.{alias.name}"
        else:
            first = alias.name.partition(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (first, first)


class Code:
    """A checkout's package, read as far as it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.own: dict[str, Module] = {}

    def read(self, name: str, source: str) -> Module:
        """Read a source under a name beside the package's modules."""
        self.own[name] = Module(name, source, self)
        return self.own[name]

    def path(self, name: str) -> Path | None:
        """Return a module's file, None if there is none."""
        stem = self.root.joinpath(*name.split("."))
        paths = (stem.with_suffix(".py"), stem / "__init__.py")
        return next((path for path in paths if path.is_file()), None)

    def module(self, name: str) -> Module:
        """Return a module, parsed once as long as its text stays."""
        if name not in self.own:
            self.read(name, self.path(name).read_text(encoding="utf-8"))
        return self.own[name]

    def member(self, module: str, name: str) -> str | Symbol:
        """Return what `module.name` is: a module of the package, or a symbol."""
        return f"{module}.{name}" if self.path(f"{module}.{name}") else Symbol(module, name)

    def imported(self, statement: ast.stmt) -> Iterator[tuple[str, str | Symbol]]:
        """Yield what a statement imports from the package, by name.

        It is a module or a symbol, imported anywhere in the statement.
        """
        for node in ast.walk(statement):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.split(".")[0] == PACKAGE
            ):
                for alias in node.names:
                    yield alias.asname or alias.name, self.member(node.module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == PACKAGE:
                        yield (alias.asname, alias.name) if alias.asname else (PACKAGE, PACKAGE)

    def reached(
        self, entries: Collection[Symbol], without: Collection[str]
    ) -> dict[Symbol, Definition]:
        """Return all definitions that some can reach, themselves among them."""
        reached: dict[Symbol, Definition] = {}
        waiting = list(entries)
        while waiting:
            symbol = waiting.pop()
            if symbol in reached or symbol.module in without or not self._has(symbol.module):
                continue
            module = self.module(symbol.module)
            if symbol.name != IMPORTS and symbol.name not in module.definitions:
                waiting += self._behind(module.aliases.get(symbol.name))
                continue
            reached[symbol] = definition = module.definition(symbol.name)
            waiting += definition.uses | {Symbol(symbol.module, IMPORTS)}
            for whole in definition.modules:
                waiting += self._behind(whole)
            waiting += {
                Symbol(x if isinstance(x, str) else x.module, IMPORTS)
                for x in module.aliases.values()
            }
        return reached

    def _has(self, module: str) -> bool:
        return module in self.own or self.path(module) is not None

    def _behind(self, target: str | Symbol | None) -> list[Symbol]:
        """Return what stands for a name that is only imported.

        It is its symbol, or all of a module.
        """
        if isinstance(target, Symbol):
            return [target]
        if target is None or not self.path(target):
            return []
        return [Symbol(target, name) for name in self.module(target).definitions]

    def digests(self, entries: Collection[Symbol], without: Collection[str]) -> dict[str, str]:
        """Return label → digest of all that the entries can reach, sorted."""
        reached = self.reached(entries, without)
        alike: dict[str, set[str]] = {}
        for symbol in reached:
            alike.setdefault(symbol.name, set()).add(symbol.module)

        def label(symbol: Symbol) -> str:
            target = self._origin(symbol)
            return target.name if len(alike.get(target.name, ())) < 2 else ".".join(target)

        texts: dict[str, list[str]] = {}
        for symbol, definition in reached.items():
            told = definition.names.items()
            names = {dotted: label(x) if isinstance(x, Symbol) else x for dotted, x in told}
            where = IMPORTS if symbol.name == IMPORTS else label(symbol)
            texts.setdefault(where, []).extend(syntax.dump(x, names) for x in definition.statements)
        return {
            name: hashlib.sha256("\n".join(sorted(texts[name])).encode()).hexdigest()[:16]
            for name in sorted(texts)
            if texts[name]
        }

    def _origin(self, symbol: Symbol) -> Symbol:
        """Follow an imported symbol to where it is defined."""
        for _ in range(10):
            if symbol.module not in self.own:
                return symbol
            module = self.own[symbol.module]
            target = module.aliases.get(symbol.name)
            if symbol.name in module.definitions or not isinstance(target, Symbol):
                return symbol
            symbol = target
        return symbol
