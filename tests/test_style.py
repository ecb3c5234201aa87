"""The code itself keeps these rules.

They are maxima of size, imports that only point up, one writer, and notebooks as they should be.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_rules import has_parameters, problems_of

from farcontext.app import notebooks
from farcontext.schema import read_yaml, validate
from farcontext.studies import params as schema

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "farcontext"
MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = {
    name: path for name, path in MODULES.items() if not name.endswith(("__init__", "__main__"))
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
# A notebook without parameters is a page: it shows what is published.
PAGES = [path for path in NOTEBOOKS if not has_parameters(path)]
EXPERIMENTS = [path for path in NOTEBOOKS if path not in PAGES]

MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL = 6
MAX_PARAMETERS = 10
MAX_OPTIONS = 16  # of a command
MAX_FIRST_WORDS = 12  # of a docstring, up to its first empty line

# What each room may import beside itself. Imports point up this table: see DESIGN in CONTRIBUTING.
GROUND = {"files", "messages", "schema"}
ROOMS = {
    "tasks": GROUND,
    "nn": GROUND,
    "data": GROUND,
    "train": GROUND | {"tasks", "nn", "data"},
    "measure": GROUND | {"tasks", "nn", "data", "train"},
    "results": GROUND | {"tasks", "nn", "data", "train", "measure"},
    "checkpoints": GROUND | {"tasks", "nn", "data", "train", "measure", "results"},
    "studies": GROUND | {"tasks", "nn", "data", "train", "measure", "results", "checkpoints"},
    "app": GROUND
    | {"tasks", "nn", "data", "train", "measure", "results", "checkpoints", "studies"},
}
GROUND_ORDER = {
    "files": set(),
    "fingerprints": {"syntax"},
    "syntax": set(),
    "messages": set(),
    "schema": {"files", "messages"},
}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def imports(tree: ast.Module) -> set[str]:
    """Return the modules of ours that a tree imports, by the name of module or folder."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "farcontext":
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("farcontext."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found.update(
                a.name.split(".")[1] for a in node.names if a.name.startswith("farcontext.")
            )
    return found


def modules_of(tree: ast.Module) -> set[str]:
    """Return the dotted names of all that a tree's imports may name.

    They are names below the package, of modules or of what is in them.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "farcontext":
            below = node.module.split(".")[1:]
            found.add(".".join(below))
            found.update(".".join([*below, alias.name]) for alias in node.names)
    return found


def oversized(tree: ast.Module) -> list[str]:
    """Return the functions of a tree that are too long or take too many parameters.

    The lines of a function are those of its statements: a docstring is no reason to split one.
    """
    found = []
    for node in functions(tree):
        first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
        lines = node.end_lineno - first.lineno + 1
        positional = len(node.args.posonlyargs + node.args.args) - (
            node.args.args[:1] != [] and node.args.args[0].arg in ("self", "cls")
        )
        if lines > MAX_FUNCTION_LINES:
            found.append(f"{node.name}: {lines} lines")
        most = (
            MAX_OPTIONS
            if any(ast.unparse(one).startswith("app.command(") for one in node.decorator_list)
            else MAX_PARAMETERS
        )
        if positional > MAX_POSITIONAL or positional + len(node.args.kwonlyargs) > most:
            found.append(
                f"{node.name}: {positional} positional, "
                f"{len(node.args.kwonlyargs)} keyword-only parameters"
            )
    return found


def wordy(tree: ast.Module) -> list[str]:
    """Return the first sentences of docstrings that take a second reading."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [
        ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)
    ]
    firsts = [" ".join(text.split("\n\n")[0].split()) for text in texts]
    return [first for first in firsts if len(first.split()) > MAX_FIRST_WORDS]


def misplaced(module: str, imported: set[str]) -> set[str]:
    """Return the imports of a module that do not point up the table of rooms."""
    room = module.partition("/")[0]
    return imported - {room} - (GROUND_ORDER[room] if room in GROUND_ORDER else ROOMS[room])


WRITING = ("shutil.copy", "shutil.copy2", "shutil.copyfile", "json.dump")
WRITERS = (
    "write_text",
    "write_bytes",
    "savefig",
    "savetxt",
    "tofile",
    "to_parquet",
    "save_file",
    "copytree",
)


def writes(tree: ast.Module) -> list[str]:
    """Return the calls of a tree that write a file by another way than `files.write_atomic`."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        texts = [
            a.value
            for a in [*node.args, *(k.value for k in node.keywords)]
            if isinstance(a, ast.Constant)
        ]
        modes = [
            text for text in texts if isinstance(text, str) and text and set(text) <= set("rwaxbt+")
        ]
        opens = name == "open" and any(set(mode) & set("wax+") for mode in modes)
        to_path = name in ("to_csv", "to_json") and any(
            not isinstance(a, ast.Constant) for a in node.args
        )
        whole = ast.unparse(node.func)
        # a BytesIO, then write_atomic
        memory = bool(node.args) and ast.unparse(node.args[0]) in (
            "buffer",
            "full",
            "small",
        )
        writer = name in WRITERS and whole not in ("tables.write_text", "results.write_text")
        if not memory and (writer or opens or to_path or whole in WRITING):
            found.append(f"line {node.lineno}: {whole}")
    return found


# What is not kept: throw-away copies, scratch files, a worker's log.
NOT_KEPT = {
    "app/profiles": {"shutil.copy", "shutil.copy2", "shutil.copytree"},
    "train/runs": {"(folder / 'log.txt').open"},
    "data/sources": {"Path(output).write_bytes"},
    "studies/efficient_attention/peak": {
        "Path('/proc/self/clear_refs').write_text"
    },  # a switch of the kernel's
}


NOT_TEXT = (
    "gzip.open",
    "os.open",
    "PIL.Image.open",
    "read_text",
    "tables.write_text",
    "results.write_text",
    "corpus.read_text",
)


def unnamed_encodings(tree: ast.Module) -> list[str]:
    """Return the calls that open text without naming its encoding."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        binary = any(
            isinstance(a, ast.Constant) and isinstance(a.value, str) and "b" in a.value
            for a in node.args
        )
        named = any(keyword.arg == "encoding" for keyword in node.keywords)
        others = ast.unparse(node.func) in NOT_TEXT
        if name in ("open", "read_text", "write_text") and not (named or binary or others):
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
    return found


# -------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_not_huge(name: str) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES


@pytest.mark.parametrize("name", MODULES)
def test_functions_stay_short_and_take_few_parameters(name: str) -> None:
    assert oversized(tree_of(MODULES[name])) == []


def test_an_oversized_function_is_found() -> None:
    long = "def f():\n" + "    x = 1\n" * 60
    assert oversized(ast.parse(long)) == []
    assert oversized(ast.parse(long + "    x = 1\n")) == ["f: 61 lines"]
    assert oversized(ast.parse('def f():\n    """A\n\n    B"""\n' + "    x = 1\n" * 60)) == []
    assert oversized(ast.parse("def f(a, b, c, d, e, g, h): pass")) == [
        "f: 7 positional, 0 keyword-only parameters"
    ]
    assert oversized(ast.parse("def f(self, a, b, c, d, e, g): pass")) == []


@pytest.mark.parametrize("name", MODULES)
def test_a_docstring_begins_with_few_words(name: str) -> None:
    assert wordy(tree_of(MODULES[name])) == []


def test_a_wordy_docstring_is_found() -> None:
    words = "Return a b c d e f g h i j"
    assert wordy(ast.parse(f'"""{words} k"""\ndef f():\n    """{words} k\n\n    More."""')) == []
    assert wordy(ast.parse(f'class A:\n    def f(self):\n        """{words}\n    k l"""')) == [
        f"{words} k l"
    ]


# ------------------------------------------------------------------------------------------ imports


def test_imports_point_up_the_table() -> None:
    assert {name.split("/")[0] for name in MODULES} == GROUND | set(ROOMS)
    found = {
        name: bad
        for name, path in MODULES.items()
        if (bad := misplaced(name, imports(tree_of(path))))
    }
    assert not found


def test_the_house_is_small_enough_to_know() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 6
    folders = [
        folder for folder in PACKAGE.rglob("*") if folder.is_dir() and any(folder.glob("*.py"))
    ]
    assert max(len(list(folder.glob("*.py"))) for folder in folders) <= 24
    empty = [path for path in PACKAGE.rglob("__init__.py") if path.read_text(encoding="utf-8")]
    assert not empty, "an __init__.py that imports makes cycles"


def test_imports_have_no_cycle() -> None:
    graph = {
        name: {n.replace(".", "/") for n in modules_of(tree_of(path))}
        for name, path in MODULES.items()
    }
    while leaves := {name for name, to in graph.items() if not (to & set(graph))}:
        graph = {name: to for name, to in graph.items() if name not in leaves}
    assert not graph, f"a cycle among {sorted(graph)}"


def test_an_import_that_points_down_is_found() -> None:
    assert misplaced(
        "nn/transformer", imports(ast.parse("from farcontext.train.loop import train"))
    ) == {"train"}
    assert misplaced("files", imports(ast.parse("import farcontext.messages"))) == {"messages"}
    assert (
        misplaced("train/loop", imports(ast.parse("from farcontext.nn import transformer, layers")))
        == set()
    )


@pytest.mark.parametrize(
    "name",
    [
        "files",
        "schema",
        "nn.config",
        "train.config",
        "data.config",
        "studies.params",
        "app.verbs",
        "app.cli",
    ],
)
def test_what_reads_a_configuration_imports_without_torch(name: str) -> None:
    program = f"import sys, farcontext.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize("name", MODULES)
def test_kept_files_are_written_by_the_one_writer_only(name: str) -> None:
    if name != "files":
        found = [
            call
            for call in writes(tree_of(MODULES[name]))
            if call.split(": ")[1] not in NOT_KEPT.get(name, ())
        ]
        assert found == []


@pytest.mark.parametrize("name", MODULES)
def test_text_is_opened_with_its_encoding_named(name: str) -> None:
    assert unnamed_encodings(tree_of(MODULES[name])) == []


@pytest.mark.parametrize("name", MODULES)
def test_input_is_never_checked_by_an_assert(name: str) -> None:
    """`python -O` removes them."""
    assert [
        node.lineno for node in ast.walk(tree_of(MODULES[name])) if isinstance(node, ast.Assert)
    ] == []


@pytest.mark.parametrize("name", MODULES)
def test_annotations_are_evaluated(name: str) -> None:
    """Annotations are evaluated, so jaxtyping's shapes are checked.

    With `from __future__ import annotations` they would be strings that nobody checks.
    """
    assert "from __future__ import annotations" not in MODULES[name].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "source",
    [
        "open(p, 'w')",
        "p.open('ab')",
        "p.write_text(t, encoding='utf-8')",
        "frame.to_csv(path)",
        "shutil.copy(a, b)",
        "figure.savefig(path)",
        "json.dump(x, f)",
    ],
)
def test_a_second_writer_is_found(source: str) -> None:
    assert writes(ast.parse(source))


@pytest.mark.parametrize("source", ["open(p)", "p.read_text()", "p.open('w')"])
def test_a_missing_encoding_is_found(source: str) -> None:
    assert unnamed_encodings(ast.parse(source))


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=["check", "format"])
def test_ruff_has_nothing_to_say(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "ruff", *arguments, "-q", "--no-cache", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


# ---------------------------------------------------------------------------------------- notebooks


def test_every_study_has_one_notebook_and_one_module() -> None:
    assert [path.stem[3:] for path in EXPERIMENTS] == list(schema.STUDIES)
    assert {f"studies/{name}/study" for name in schema.STUDIES} <= set(MODULES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_plain_executed_and_normal(path: Path) -> None:
    assert problems_of(path) == []


def test_a_page_bears_the_name_of_the_stage_whose_tables_it_shows() -> None:
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert {path.stem[3:] for path in PAGES} <= set(stages) - set(schema.STUDIES)
    assert notebooks.pages() == PAGES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_runs_nothing(path: Path) -> None:
    assert imports(ast.parse(notebooks.code_cells(path))) <= {"app", "files", "measure", "results"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_notebooks_parameters_are_its_section(path: Path) -> None:
    study = path.stem[3:]
    written = notebooks.defaults(path)
    assert list(written) == list(schema.STUDIES[study].model_fields)
    assert list(written) == list(read_yaml(ROOT / "params.yaml")[study])
    assert validate(schema.STUDIES[study], written, path.name)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_profile_is_valid_bears_its_name_and_has_the_laptops_data(path: Path) -> None:
    profile, laptop = schema.read_profile(ROOT, path.stem), schema.read_params(ROOT / "params.yaml")
    assert profile.profile == path.stem and laptop.profile == "laptop"
    assert (profile.corpus, profile.tokenizer) == (laptop.corpus, laptop.tokenizer)
