"""Fingerprints of code: what must change a key, and what must not."""

import ast
import shutil
import textwrap
from pathlib import Path

import pytest

from farcontext.train import fingerprints, keys

TRAINING = ("farcontext.train.loop", "train")
EVALUATION = ("farcontext.studies.context_extension.protocol", "recall_by_layout")
BEFORE = {
    entry: fingerprints.of_symbol(*entry, without=keys.left_out())
    for entry in (TRAINING, EVALUATION)
}

HARMLESS = {
    "the wording of an error": ("nn/rotation", "expected H = 2F", "expected twice as many"),
    "what a check says": ("nn/positions", '"a number above 1"', '"more than 1"'),
    "another check of an input": (
        "nn/positions",
        '    _expect(theta > 1, "theta"',
        '    _expect(theta > 0, "theta"',
    ),
    "another check of a configuration": (
        "nn/config",
        "        if self.heads % kv_heads:\n",
        "        if self.layers > 900:\n"
        '            raise ValueError("layers: expected fewer")\n'
        "        if self.heads % kv_heads:\n",
    ),
    "a validator that only checks": (
        "train/config",
        '    @model_validator(mode="after")\n',
        '    @model_validator(mode="after")\n'
        "    def _few(self) -> Self:\n"
        '        """Refuse."""\n'
        "        for stage in getattr(self.batch, 'stages', ()):\n"
        "            if stage.steps > self.steps:\n"
        '                raise ValueError("steps: expected more")\n'
        "        return self\n\n"
        '    @model_validator(mode="after")\n',
    ),
    "words about a scheme": ("nn/positions", "θ^(−2i/H), extends", "θ^(−2i/H) and extends"),
    "a suggestion": (
        "messages",
        "def did_you_mean",
        "def spare() -> int:\n    return 1\n\n\ndef did_you_mean",
    ),
    "the writer of files": (
        "files",
        "def write_json",
        "def spare() -> int:\n    return 1\n\n\ndef write_json",
    ),
    "a comment": ("nn/masks", "class Pattern", "# A pattern says who sees whom.\nclass Pattern"),
    "a docstring": ("nn/masks", "Return the dense mask, True", "Return the mask, True"),
    "an annotation": (
        "nn/masks",
        "T: int, S: int, device: torch.device | str",
        "T: int, S: int, device: str | torch.device",
    ),
    "the layout": (
        "nn/masks",
        "mask &= offset <= self.after",
        "mask &= (\n                offset <= self.after\n            )",
    ),
    "a plot": ("studies/context_extension/figures", "import ", "EXTRA = 1\nimport "),
    "a section of another study": (
        "studies/recurrence/params",
        "    heads: Count\n",
        "    heads: Count\n    extra: int = 3\n",
    ),
    "a new section": (
        "studies/toy/params",
        None,
        "from farcontext.studies.section import Study\n\n\nclass Params(Study):\n    number = 99\n",
    ),
    "a section of the study itself": (
        "studies/context_extension/params",
        "    width: Count\n",
        "    width: Count\n    extra: int = 3\n",
    ),
    "a new study": ("studies/toy/study", None, "def run(params):\n    return []\n"),
    "how a study makes its table": (
        "studies/context_extension/study",
        "def run(",
        "def spare():\n    return 2\n\n\ndef run(",
    ),
    "code that only CUDA runs": ("nn/xformers", "def packed(", "EXTRA = 1\n\n\ndef packed("),
    "a function that nobody calls": (
        "nn/layers",
        "import torch\n",
        "import torch\n\n\ndef spare() -> int:\n    return 1\n\n\n",
    ),
    "the command line": ("app/cli", "import ", "EXTRA = 1\nimport "),
    "a measure that is not used": ("measure/ngrams", "\nimport numpy", "\nEXTRA = 1\nimport numpy"),
}

# The last value says which of the two keys must change.
REAL = {
    "a formula of positions": ("nn/positions", "theta ** -(", "theta ** (", "both"),
    "a mask that is off by one": (
        "nn/masks",
        "mask &= offset <= self.after",
        "mask &= offset < self.after",
        "both",
    ),
    "a constant": ("nn/masks", "ALL = slice(None)", "ALL = slice(0, None)", "both"),
    "a default of a configuration": ("nn/config", ' = "rope"', ' = "none"', "both"),
    "a validator that comes before": (
        "nn/config",
        '    @model_validator(mode="after")\n',
        '    @model_validator(mode="before")\n    @classmethod\n'
        "    def _first(cls, values: dict) -> dict:\n"
        "        return values\n\n"
        '    @model_validator(mode="after")\n',
        "both",
    ),
    "the rate of learning": (
        "train/optimizer",
        "(step + 1) / config.warmup",
        "step / config.warmup",
        "training",
    ),
    "how tokens are masked": ("train/batches", "(what < 0.8)", "(what < 0.9)", "training"),
    "an import under the same name": (
        "train/optimizer",
        "import math\n",
        "import cmath as math\n",
        "training",
    ),
    "a task's rows": ("tasks/recall", "rng.", "rng.bit_generator and rng.", "both"),
    "a layer's method": (
        "nn/layers",
        "def forward(",
        "def extra(self):\n        return 1\n\n    def forward(",
        "both",
    ),
    "what a module does on import": (
        "nn/layers",
        "import torch\n",
        "import torch\ntorch.manual_seed(3)\n",
        "both",
    ),
    "a protocol": (
        "studies/context_extension/protocol",
        '"layout": "spread"',
        '"layout": "wide"',
        "evaluation",
    ),
    "what a protocol calls": (
        "measure/losses",
        "    depths: Sequence[float | None] = (None,)",
        "    depths: Sequence[float | None] = (0.5,)",
        "evaluation",
    ),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A copy of the package that may be changed."""
    copy = tmp_path_factory.mktemp("planted") / "src"
    shutil.copytree(root / "src", copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return copy


def changed(package: Path, module: str, old: str | None, new: str) -> list[bool]:
    """Return for each of both entries whether an edit changes its fingerprint.

    The edit is taken back.
    """
    path = package / "farcontext" / f"{module}.py"
    before = path.read_text(encoding="utf-8") if old else ""
    assert (old or "") in before, f"{module} no longer holds {old!r}: plant the edit elsewhere"
    path.parent.mkdir(exist_ok=True)
    path.write_text(before.replace(old, new, 1) if old else new, encoding="utf-8")
    try:
        ast.parse(path.read_text(encoding="utf-8"))
        after = [fingerprints.of_symbol(*entry, package, keys.left_out()) for entry in BEFORE]
    finally:
        path.write_text(before, encoding="utf-8") if old else shutil.rmtree(path.parent)
    return [found != known for found, known in zip(after, BEFORE.values(), strict=True)]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_edit_changes_no_key(name: str, package: Path) -> None:
    assert changed(package, *HARMLESS[name]) == [False, False]


@pytest.mark.parametrize("name", REAL)
def test_a_real_edit_changes_the_key(name: str, package: Path) -> None:
    module, old, new, which = REAL[name]
    wanted = {"both": [True, True], "training": [True, False], "evaluation": [False, True]}[which]
    assert changed(package, module, old, new) == wanted


def test_a_definition_that_moves_changes_no_key(package: Path) -> None:
    """Splitting a module must not mean training again."""
    path = package / "farcontext" / "train" / "optimizer.py"
    before = path.read_text(encoding="utf-8")
    start, end = before.index("def learning_rate("), before.index("def optimizer(")
    imported = "from farcontext.train.schedule import learning_rate\n"
    moved = path.with_name("schedule.py")
    moved.write_text(
        f"import math\nfrom farcontext.train.config import OptimizerConfig\n{before[start:end]}",
        "utf-8",
    )
    path.write_text(
        before[:start].replace("import math\n", "") + imported + before[end:], encoding="utf-8"
    )
    try:
        assert fingerprints.of_symbol(*TRAINING, package, keys.left_out()) == BEFORE[TRAINING]
    finally:
        moved.unlink()
        path.write_text(before, encoding="utf-8")


def made(tmp_path: Path, modules: dict[str, str]) -> Path:
    """Write a small package and return the folder that holds it."""
    for name, text in modules.items():
        path = tmp_path / "farcontext" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "from farcontext.b import g\ndef f():\n    return g()\n",
        "from farcontext import b\ndef f():\n    return b.g()\n",
        "import farcontext.b\ndef f():\n    return farcontext.b.g()\n",
        "import farcontext.b as other\ndef f():\n    return other.g()\n",
        "def f():\n    from farcontext.b import g as other\n    return other()\n",
        "def f():\n    from farcontext import b\n    return getattr(b, 'g')()\n",
        "from farcontext import b\nTABLE = {'g': b.g}\ndef f():\n    return TABLE['g']()\n",
        "from farcontext import b\nclass A:\n    def g(self):\n        return b.g()\n"
        "def f():\n    return A().g()\n",
        "from farcontext.c import g\ndef f():\n    return g()\n",
        "from farcontext.b import g\ndef f(do=g):\n    return do()\n",
        "from farcontext.b import g\n@g\ndef f():\n    return 1\n",
    ],
)
def test_a_name_is_followed_through_every_form_of_import(text: str, tmp_path: Path) -> None:
    modules = {
        "a": text,
        "b": "def g():\n    return ONE\nONE = 1\ndef h():\n    return 3\n",
        "c": "from farcontext.b import g\n",
    }
    first = fingerprints.of_symbol("farcontext.a", "f", made(tmp_path, modules))
    assert {"f", "g", "ONE"} <= set(first)
    modules["b"] = modules["b"].replace("ONE = 1", "ONE = 2")
    second = fingerprints.of_symbol("farcontext.a", "f", made(tmp_path, modules))
    assert {name for name in first if first[name] != second[name]} == {"ONE"}
    if "getattr" not in text:  # There the whole module counts.
        assert "h" not in first


LATE = """
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import AutoConfig, Cache


@dataclass
class Loaded:
    cache: Cache


def f(cache: Cache) -> Loaded:
    return Loaded(AutoConfig.of(cache))
"""
IMPORT = "from transformers import AutoConfig, Cache\n"


@pytest.mark.parametrize(
    ("edits", "counts"),
    [
        ([(IMPORT, ""), ("Loaded:\n", f"Loaded:\n    {IMPORT}")], False),
        (
            [
                (IMPORT, "if TYPE_CHECKING:\n    from transformers import Cache\n"),
                ("    return", "    from transformers import AutoConfig\n\n    return"),
                ("    cache: Cache", '    cache: "Cache"'),
                ("f(cache: Cache)", 'f(cache: "Cache")'),
            ],
            False,
        ),
        ([(IMPORT, ""), ("    return", "    import transformers\n    return")], True),
        (
            [
                (IMPORT, ""),
                ("    return", "    from transformers.models import AutoConfig\n    return"),
            ],
            True,
        ),
        ([("    return", "    from torch import fft\n    return")], True),
        ([(IMPORT, f"if TYPE_CHECKING:\n    {IMPORT}else:\n    AutoConfig = None\n")], True),
    ],
)
def test_where_a_slow_library_is_imported_changes_no_key(
    edits: list[tuple[str, str]], counts: bool, tmp_path: Path
) -> None:
    """What is imported from it counts."""
    after = LATE
    for old, new in edits:
        assert old in after
        after = after.replace(old, new, 1)
    found = [
        fingerprints.of_symbol("farcontext.a", "f", made(tmp_path / str(n), {"a": text}))
        for n, text in enumerate((LATE, after))
    ]
    assert (found[0] != found[1]) == counts


LATER = """
class A(Frozen):
    lr: float
    muon: float | None = None

def f(config):
    if config.muon:
        return g(config)
    return config.lr

def g(config):
    return config.muon
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("    muon: float | None = None\n", "", False),
        ("    if config.muon:\n        return g(config)\n", "", False),
        ("    return config.muon", "    return 2 * config.muon", False),
        ("    if config.muon:", "    if config.lr:", True),
        ("        return g(config)\n", "        return 1\n    else:\n        pass\n", True),
        ("    lr: float\n", "    lr: float = 1\n", True),
    ],
)
def test_an_option_that_came_later_counts_where_it_is_set_alone(
    old: str, new: str, counts: bool, tmp_path: Path
) -> None:
    assert old in LATER
    found = [
        fingerprints.of_symbol("farcontext.a", name, made(tmp_path / str(n), {"a": text}))
        for n, text in enumerate((LATER, LATER.replace(old, new, 1)))
        for name in ("A", "f")
    ]
    assert (found[:2] != found[2:]) == counts


CHECK = """
class A(Frozen):
    x: int = 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        most = LIMIT
        if self.x > most:
            raise ValueError("x: expected less")
        return self


LIMIT = 3


def f():
    return A()
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("self.x > most", "self.x > most + 1", False),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("        most = LIMIT\n", "        most = max(LIMIT, 2)\n", False),
        ('"after"', '"before"', True),
        ('"after"', '"wrap"', True),
        ('@model_validator(mode="after")', "@property", True),
        ("        return self\n", "        return self.model_copy(update={'x': 2})\n", True),
        ("        return self\n", "        self = A(x=2)\n        return self\n", True),
        ("        return self\n", "        return (self := A(x=2))\n", True),
        ("        return self\n", "        if most:\n            return self\n", True),
        ("        most = LIMIT\n", "        self.x = most = LIMIT\n", True),
        ("        most = LIMIT\n", "        self.x += (most := LIMIT)\n", True),
        ("        most = LIMIT\n", "        most = object.__setattr__(self, 'x', 3)\n", True),
        ("        most = LIMIT\n", "        most = setattr(self, 'x', 3)\n", True),
        ("        most = LIMIT\n", "        vars(self)['x'] = most = 3\n", True),
        ("        most = LIMIT\n", "        most = LIMIT\n        self.y.append(most)\n", True),
        ("        most = LIMIT\n", "        global most\n        most = LIMIT\n", True),
    ],
)
def test_only_a_validator_that_can_change_nothing_does_not_count(
    old: str, new: str, counts: bool, tmp_path: Path
) -> None:
    assert old in CHECK
    digests = [
        fingerprints.of_symbol("farcontext.a", "f", made(tmp_path, {"a": text}))
        for text in (CHECK, CHECK.replace(old, new, 1))
    ]
    assert (digests[0]["A"] != digests[1]["A"]) == counts


def test_a_local_name_is_not_the_modules(tmp_path: Path) -> None:
    text = (
        "def g():\n    return 1\n"
        "def f(g):\n    h = [i for i in g]\n    return h\n"
        "def h():\n    return 2\n"
    )
    assert set(fingerprints.of_symbol("farcontext.a", "f", made(tmp_path, {"a": text}))) == {"f"}


def test_what_a_function_imports_is_not_its_neighbours(tmp_path: Path) -> None:
    """`f` uses the module's own `g`, although `h` imports another one under that name."""
    modules = {
        "a": "def g():\n    return 1\ndef f():\n    return g()\n"
        "def h():\n    from farcontext.b import g\n    return g()\n",
        "b": "def g():\n    return 2\n",
    }
    first = fingerprints.of_symbol("farcontext.a", "f", made(tmp_path, modules))
    modules["a"] = modules["a"].replace("return 1", "return 3")
    second = fingerprints.of_symbol("farcontext.a", "f", made(tmp_path, modules))
    assert set(first) == {"f", "g"} and first["g"] != second["g"]


def test_two_of_one_name_are_told_apart(tmp_path: Path) -> None:
    modules = {
        "a": "from farcontext import b, c\ndef f():\n    return b.g() + c.g() + b.g()\n",
        "b": "def g():\n    return 1\n",
        "c": "def g():\n    return 2\n",
    }
    first = fingerprints.of_symbol("farcontext.a", "f", made(tmp_path, modules))
    assert {"farcontext.b.g", "farcontext.c.g"} <= set(first)
    modules["a"] = modules["a"].replace("+ b.g()", "+ c.g()")
    assert fingerprints.of_symbol("farcontext.a", "f", made(tmp_path, modules))["f"] != first["f"]


def test_a_source_of_ones_own_is_read_whole() -> None:
    def of(text: str) -> dict[str, str]:
        return fingerprints.of_source(text)

    text = "from farcontext.nn import positions\nx = positions.alibi_slopes(4)\nprint(x)  # why\n"
    first = of(text)
    assert {"x", "alibi_slopes", fingerprints.IMPORTS} <= set(first)
    assert of(text.replace("why", "reason")) == first
    assert of(text.replace("print(x)", "print(-x)")) != first
