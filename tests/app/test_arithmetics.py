"""Three arithmetics of one machine: what each computes with, and what counts as agreement."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from commands import call

from farcontext.app import arithmetics

FULL = {"claim": "X", "verdict": "supported", "estimate": 0.5, "low": 0.4, "high": 0.6}


def agreed(*changes: dict) -> bool:
    table = arithmetics._agreement(pd.DataFrame([FULL | change for change in changes]))
    return bool(table["agrees"].all())


def test_one_verdict_and_estimates_within_the_intervals_agree() -> None:
    assert agreed({}, {"estimate": 0.55, "low": 0.45, "high": 0.65}, {})


@pytest.mark.parametrize(
    "change",
    [{"verdict": "undecided"}, {"estimate": 0.61, "low": 0.5, "high": 0.7}, {"estimate": 0.3}],
    ids=str,
)
def test_another_verdict_or_an_estimate_outside_an_interval_does_not(change: dict) -> None:
    assert not agreed({}, change, {})


def test_a_claim_that_has_no_number_anywhere_agrees() -> None:
    nothing = dict.fromkeys(("estimate", "low", "high"), float("nan"))
    assert agreed(nothing, nothing)


@pytest.mark.parametrize("name", ["avx2", "default"])
def test_torch_computes_as_it_was_told(name: str) -> None:
    program = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | arithmetics.ARITHMETICS[name],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = {"avx2": ("AVX2", "DEFAULT"), "default": ("DEFAULT",)}[name]
    assert done.stdout.strip().removeprefix("NO ").upper() in wanted


def test_a_small_study_runs_under_all_three_and_its_claims_agree(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """01 has identities: below 1e-12 in any arithmetic."""
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path))
    done = call(root, "arithmetics", "attention_derivation", "--profile", "smoke", seconds=300)
    assert done.code == 0, done.err
    assert "A1 agrees: own: supported" in done.out and " · default: supported" in done.out
    assert "arithmetics: 2 of 2 claims agree" in done.out
