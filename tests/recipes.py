"""CONTRIBUTING's recipes as edits of a copy of the checkout.

Each recipe is a list of edits: a file of the checkout, what stands there (None: a new file), and
what comes instead.
"""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from farcontext.app import profiles

Edits = list[tuple[str, str | None, str]]

SCHEME: Edits = [
    (
        "src/farcontext/nn/positions.py",
        "SCHEME_NOTES = {\n",
        'SCHEME_NOTES = {\n    "toy_half": "all frequencies / √s; a test",\n',
    ),
    (
        "src/farcontext/nn/positions.py",
        '        case "linear":\n            freq_F = freq_F / scale\n',
        '        case "linear":\n            freq_F = freq_F / scale\n'
        '        case "toy_half":\n            freq_F = freq_F / scale**0.5\n',
    ),
    (
        "src/farcontext/studies/context_extension/arms.py",
        '        Arm("linear", "rope", "linear"),\n',
        '        Arm("linear", "rope", "linear"),\n        Arm("toy_half", "rope", "toy_half"),\n',
    ),
]
BACKEND: Edits = [
    (
        "src/farcontext/nn/toy.py",
        None,
        "from farcontext.nn.sdpa import sdpa\n\n\n"
        "def toy(q, k, v, pattern):\n    return sdpa(q, k, v, pattern)\n",
    ),
    ("src/farcontext/nn/attention.py", '"xformers", "flex")\n', '"xformers", "flex", "toy")\n'),
    (
        "src/farcontext/nn/attention.py",
        '        case _:\n            raise ValueError(f"backend',
        '        case "toy":\n            from farcontext.nn.toy import toy\n\n'
        "            out = toy(q_BTNH, k_BSGH, v_BSGH, pattern)\n"
        '        case _:\n            raise ValueError(f"backend',
    ),
]
TASK: Edits = [
    (
        "src/farcontext/tasks/toy_echo.py",
        None,
        "import numpy as np\n\nVOCABULARY = 8\n\n\n"
        "def toy_echo(rng: np.random.Generator, rows: int, length: int) "
        "-> tuple[np.ndarray, np.ndarray]:\n"
        "    tokens = np.repeat(rng.integers(VOCABULARY, size=(rows, length // 2)), 2, axis=1)\n"
        "    return tokens, np.broadcast_to(np.arange(length) % 2 == 1, tokens.shape)\n",
    ),
    (
        "src/farcontext/studies/toy_use.py",
        None,
        "import numpy as np\n\nfrom farcontext.tasks.toy_echo import toy_echo\n"
        "from farcontext.train.curriculum import keep_rows\n\n\n"
        "def make_rows(*, rows: int, length: int, seed: int) -> list[dict]:\n"
        "    return [{'digest': "
        "keep_rows(*toy_echo(np.random.default_rng(seed), rows, length))}]\n",
    ),
]

STUDY: Edits = [
    (
        "src/farcontext/studies/toy_study/params.py",
        None,
        """
        from typing import ClassVar

        from farcontext.schema import Count, Seeds
        from farcontext.studies.section import Study


        class Params(Study):
            \"\"\"Notebook 98.\"\"\"

            number: ClassVar[int] = 98

            seeds: Seeds
            draws: Count
        """,
    ),
    (
        "src/farcontext/studies/toy_study/study.py",
        None,
        """
        import numpy as np
        import pandas as pd

        from farcontext.results import tables
        from farcontext.studies.toy_study.params import Params
        from farcontext.train.runs import EvalConfig, sweep

        NAME = "toy_study"


        def mean_of_draws(*, seed: int, draws: int) -> list[dict]:
            return [{"value": float(np.random.default_rng(seed).normal(1.0, 0.1, draws).mean())}]


        def run(params: Params) -> pd.DataFrame:
            options = {"draws": params.draws}
            jobs = {
                seed: EvalConfig(mean_of_draws, None, options | {"seed": seed})
                for seed in params.seeds
            }
            rows = [
                {"arm": "toy", "seed": seed, "metric": "mean", "value": result.rows[0]["value"]}
                for seed, result in sweep(jobs).items()
            ]
            frame = pd.DataFrame(rows)
            tables.write_table(frame, NAME, params, cost=pd.DataFrame({"seconds": [0.0]}))
            return frame
        """,
    ),
    (
        "src/farcontext/studies/toy_study/figures.py",
        None,
        """
        import pandas as pd
        from matplotlib.figure import Figure

        from farcontext.results.plotting import grid


        def means(table: pd.DataFrame) -> Figure:
            figure, (axis,) = grid(1)
            axis.plot(table["seed"], table["value"], "o")
            axis.set(xlabel="seed", ylabel="mean")
            return figure
        """,
    ),
    ("notebooks/98_toy_study.ipynb", None, ""),
    ("params.yaml", "  - privacy\n", "  - privacy\n  - toy_study\n"),
    ("params.yaml", None, "\ntoy_study:\n  seeds: [1, 2, 3, 4, 5]\n  draws: 50\n"),
    (
        "claims.yaml",
        None,
        """
          TOY:
            section: "1"
            words: 长文本
            hypothesis: the mean of the draws is above one half
            study: toy_study
            decided_by: interval
            fixed: "2026-11-28"
            pilot: none
            rival: draws around zero
            literature: none
            range: a test
            effects:
              - {name: mean of the draws, where: {metric: mean}, at_least: 0.5}
        """,
    ),
]
CELLS = [
    new_markdown_cell("# 98 · A toy study"),
    new_code_cell(
        "from farcontext.results import plotting\n"
        "from farcontext.studies.toy_study import figures, study\n\nplotting.style()"
    ),
    new_code_cell("seeds = [1, 2, 3]\ndraws = 5", metadata={"tags": ["parameters"]}),
    new_code_cell("params = study.Params.of(globals())\ntable = study.run(params)"),
    new_code_cell('plotting.save(figures.means(table), study.NAME, "means")'),
]


def copy_of(root: Path, folder: Path) -> Path:
    """Copy what git tracks, or would."""
    for name in profiles.own_files(root):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, folder / name)
    return folder


def follow(recipe: Edits, copy: Path) -> int:
    """Make a recipe's edits in a copy and return how many files they touch."""
    for name, old, new in recipe:
        path = copy / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        assert (old or "") in before, f"{name} no longer holds {old!r}: the recipe changed"
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".ipynb"):
            nbformat.write(new_notebook(cells=CELLS), path)
            continue
        text = textwrap.dedent(new).lstrip("\n") if path.suffix == ".py" and not old else new
        if path.name == "claims.yaml" and old is None:
            text = textwrap.indent(textwrap.dedent(new).strip("\n"), "  ") + "\n"
        path.write_text(before.replace(old, text, 1) if old else before + text, encoding="utf-8")
    return len({name for name, _, _ in recipe})


def python(copy: Path, program: str) -> str:
    """Run a program on the copy's package and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
