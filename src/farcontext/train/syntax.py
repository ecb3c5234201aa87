"""What a statement says: its names, and its text.

Names are used or bound; the text is without what changes no result. Comments, layout, docstrings,
annotations of functions, what `raise` and `assert` say, calls that only warn or refuse, and
validators that only check are left out. All of it is the same under every version of Python.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

# Functions import from these where they are needed: they take seconds to load, and a cached study
# needs none of them. Where such an import stands changes no result. That of another package counts
# where it stands, since runs are kept under keys that were made so.
LATE = {"datasketch", "rouge_score", "sklearn", "transformers"}
# A statement that only calls one of these warns, or refuses.
SPEAKING = {"warn", "expect", "_expect"}
# Options that came after runs were kept, each off by default. A run that sets one has it in
# its configuration, and the code behind it in its key (`keys.LATER`); for all others the field and
# `if config.OPTION:` say nothing, so that their keys stay.
LATER = {"muon"}


class _Bare(ast.NodeTransformer):
    """A pass that takes out what changes no result.

    Annotations stay, as a class that is named there may be used. Imports from LATE packages are
    collected: they count as if they stood at the top of the module.
    """

    def __init__(self) -> None:
        self.late: list[ast.stmt] = []

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = _unquoted(node.returns)
        if not node.body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]  # It held an import from a LATE package alone.
        return node

    visit_Module = visit_FunctionDef = visit_AsyncFunctionDef = _body

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node = self._body(node)
        node.body = [part for part in node.body if not only_checks(part)] or [ast.Pass()]
        return node

    def _import(self, node: Any) -> Any:
        module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        if (module or "").partition(".")[0] not in LATE:
            return node
        self.late.append(node)
        return None

    visit_Import = visit_ImportFrom = _import

    def visit_If(self, node: ast.If) -> Any:
        if (dotted(node.test) or "").rpartition(".")[2] in LATER and not node.orelse:
            return None
        self.generic_visit(node)
        # What only a checker of types runs is an import like others.
        return node.body if dotted(node.test) == "TYPE_CHECKING" and not node.orelse else node

    def _annotated(self, node: Any) -> Any:
        self.generic_visit(node)
        node.annotation = _unquoted(node.annotation)
        return node

    visit_arg = _annotated

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign | None:
        return None if dotted(node.target) in LATER else self._annotated(node)

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        exc = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=exc, cause=None)

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        return ast.Assert(test=self.visit(node.test), msg=None)

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        call = node.value if isinstance(node.value, ast.Call) else None
        if call and (dotted(call.func) or "").rpartition(".")[2] in SPEAKING:
            return ast.Pass()
        self.generic_visit(node)
        return node


def _unquoted(annotation: ast.expr | None) -> ast.expr | None:
    """Return an annotation, without the quotes of a name imported later."""
    match annotation:
        case ast.Constant(value=str(name)) if name.isidentifier():
            return ast.Name(name, ast.Load())
    return annotation


def only_checks(node: ast.stmt) -> bool:
    """Return whether a statement is a validator that only checks.

    It refuses a model, or returns it as it came. It is a pydantic `model_validator(mode="after")`
    that gives back its own first argument and sets and calls nothing by the way: whatever passes it
    is the same with and without it. It is asked of statements that `_Bare` has gone through.
    """
    if not isinstance(node, ast.FunctionDef) or not _is_after(node.decorator_list):
        return False
    itself, inner = node.args.args[0].arg, list(ast.walk(node))
    ends = [part.value for part in inner if isinstance(part, ast.Return)]
    returns_it = isinstance(node.body[-1], ast.Return) and all(
        isinstance(value, ast.Name) and value.id == itself for value in ends
    )
    return returns_it and not any(_may_change(part, itself) for part in inner)


def _is_after(decorators: list[ast.expr]) -> bool:
    """Return whether the only decorator is `model_validator(mode="after")`."""
    return [ast.dump(decorator) for decorator in decorators] == [
        ast.dump(ast.parse('model_validator(mode="after")', mode="eval").body)
    ]


def _may_change(part: ast.AST, itself: str) -> bool:
    """Return whether a part may set what is not its own.

    The validator's own names do not count.
    """
    match part:
        case ast.Attribute(ctx=ctx) | ast.Subscript(ctx=ctx) if not isinstance(ctx, ast.Load):
            return True
        case ast.Name(id=name, ctx=ast.Store()):
            return name == itself
        case ast.Name(id="setattr" | "delattr" | "vars") | ast.Global() | ast.Nonlocal():
            return True
        case ast.Attribute(attr=name):  # `object.__setattr__` changes even what is frozen.
            return name.startswith("__")
        case ast.Expr():  # What is called for its effect may change anything.
            return True
    return False


@cache
def statements(source: str) -> tuple[ast.stmt, ...]:
    """Return a module's statements without what changes no result."""
    bare = _Bare()
    body = bare.visit(ast.parse(source)).body
    return (*bare.late, *body)


def dump(node: Any, names: Mapping[str, str]) -> str:
    """Return a tree as text.

    It is the same under every version of Python; our names are given by `names`.
    """
    if isinstance(node, list):
        return "[" + ",".join(dump(x, names) for x in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Attribute | ast.Name) and (label := names.get(dotted(node) or "")):
        return f"<{label}>"
    left_out = {"ctx", "kind", "type_comment", "type_params"}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        left_out.add("returns")
    if isinstance(node, ast.arg):
        left_out.add("annotation")
    fields = ((key, value) for key, value in ast.iter_fields(node) if key not in left_out)
    inner = ",".join(
        f"{key}={dump(value, names)}" for key, value in fields if value is not None and value != []
    )
    return f"{type(node).__name__}({inner})"


def dotted(node: ast.AST) -> str | None:
    """Return `a.b.c` of such an expression, None of any other.

    It is an attribute of an attribute of a name.
    """
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return None


def dotted_names(statement: ast.AST) -> Iterator[str]:
    """Yield names and dotted names, the longest of each."""
    if name := dotted(statement):
        yield name
        return
    for child in ast.iter_child_nodes(statement):
        yield from dotted_names(child)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def free_names(node: ast.AST) -> set[str]:
    """Return the names that a statement or expression looks up outside itself.

    Those that it binds there are among them.

    `symtable` would tell too, but its answer about comprehensions changed with Python 3.12.
    """
    parts = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, FUNCTIONS):
        body = node.body if isinstance(node.body, list) else [node.body]
        arguments = [arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)]
        outer = [part for part in parts if part not in body]
        return _all_free(outer) | (_all_free(body) - bound_names(body) - set(arguments))
    if isinstance(node, COMPREHENSIONS):
        targets = {
            x.id for one in node.generators for x in ast.walk(one.target) if isinstance(x, ast.Name)
        }
        return free_names(node.generators[0].iter) | (_all_free(parts) - targets)
    return _all_free(parts)


def _all_free(nodes: Iterable[ast.AST]) -> set[str]:
    return set().union(*map(free_names, nodes))


def bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that statements bind in their own scope."""
    bound: set[str] = set()
    elsewhere: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere |= set(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name.partition(".")[0])
        elif isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler
        ):
            bound |= {node.name} if node.name else set()
        elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.MatchMapping):
            bound |= {name for key in ("name", "rest") if (name := getattr(node, key, None))}
        if not isinstance(node, (*FUNCTIONS, *COMPREHENSIONS, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)
    return bound - elsewhere
