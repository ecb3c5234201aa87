"""The same studies under three arithmetics of one machine.

Another CPU adds in another order, and training amplifies it. Limiting the instruction sets that
torch, oneDNN and MKL may use gives such CPUs without having them: verdicts that hold under all
three should hold on a machine that nobody here has seen.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from farcontext import files
from farcontext.app import profiles
from farcontext.files import UserError
from farcontext.results import findings, tables, verdicts
from farcontext.results.claims import read_claims

OWN = "own"
# torch's kernels, oneDNN's and MKL's, each by the variable that its documentation names.
ARITHMETICS = {
    OWN: {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
DATA = ("corpus", "tokenizer", "smollm2")


def run(root: Path, params: Any, studies: Sequence[str]) -> pd.DataFrame:
    """Run studies under each arithmetic; return their verdicts side by side.

    Columns: claim, arithmetic, verdict, estimate, low, high, shown, agrees (the verdict is that of
    all arithmetics, and the estimate lies within all of their intervals).

    Each arithmetic has a run cache of its own, so that a stopped call goes on; the machine's own
    one is the usual cache.

    Raises:
        UserError: a study failed.
    """
    claims = read_claims(root / "claims.yaml").claims
    rows = []
    for name, limits in ARITHMETICS.items():
        made = _run_one(root, params, studies, name, limits)
        for claim in (x for x in claims if claims[x].study in studies):
            table = tables.read_table(tables.path_in(made, claims[claim].study))
            f = verdicts.judge(claim, claims[claim], table)
            interval = f.interval
            rows.append(
                {"claim": claim, "arithmetic": name, "verdict": f.verdict}
                | {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
                | {"shown": findings.estimate(f)}
            )
    return _agreement(pd.DataFrame(rows))


def _agreement(table: pd.DataFrame) -> pd.DataFrame:
    agrees = {}
    for claim, rows in table.groupby("claim"):
        one_verdict = rows["verdict"].nunique() == 1
        # An identity's interval is the range of its rows: rounding moves it, and decides nothing.
        low, high = rows["low"].max(), rows["high"].min()
        slack = 1e-9 + 1e-3 * rows["estimate"].abs().max()
        within = rows["estimate"].between(low - slack, high + slack).all()
        agrees[claim] = bool(one_verdict and (within or rows["estimate"].isna().all()))
    return table.assign(agrees=table["claim"].map(agrees))


def _run_one(
    root: Path, params: Any, studies: Sequence[str], name: str, limits: dict[str, str]
) -> Path:
    """Run studies in an exported copy under one arithmetic; return their folder."""
    home = files.cache() / "arithmetics" / name
    copy = home / "project"
    profiles.export(root, copy)
    files.write_json(copy / "params.yaml", params.model_dump(mode="json"))
    for data in DATA:
        target = copy / "build" / data
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            target.symlink_to((root / "build" / data).resolve(), target_is_directory=True)
    cache = files.cache() if name == OWN else home / "cache"
    kept = {k: v for k, v in os.environ.items() if k not in ARITHMETICS["avx2"]}
    environment = kept | limits | {"FARCONTEXT_CACHE": str(cache.resolve())}
    for study in studies:
        command = [sys.executable, "-m", "farcontext", "study", study]
        if code := subprocess.run(command, cwd=copy, env=environment, check=False).returncode:
            raise UserError(f"{study} under {name}: exit code {code}: see the lines above")
    return copy / "build" / params.profile / "studies"
