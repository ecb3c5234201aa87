"""Tidy tables with provenance.

A table has one row for each observation and a JSON sidecar. It can be compared with what is
published.
"""

import hashlib
import importlib.metadata
import io
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from farcontext import files
from farcontext.files import UserError
from farcontext.results import freezing
from farcontext.schema import Frozen, validate

Section = TypeVar("Section", bound=Frozen)

RECORDED_VERSIONS = ("torch", "numpy", "transformers", "tokenizers")
SIGNIFICANT_DIGITS = 10  # This is below fp64, and above anything a tolerance looks at.


def made() -> Path:
    """Return the folder where this profile's studies have theirs."""
    return files.build("studies")


def path_in(base: Path, study: str, name: str = "") -> Path:
    """Return the path of a study's table, or of a named one.

    Args:
        base: `made()`, or `published_folder()`, which has the same folders.
    """
    return base / study / "tables" / (f"{study}.{name}.csv" if name else f"{study}.csv")


def write_table(
    frame: pd.DataFrame,
    study: str,
    params: Frozen,
    cost: pd.DataFrame | None = None,
    *,
    base: Path | None = None,
) -> Path:
    """Write a study's long-form table, its sidecar and, apart, what it cost.

    Args:
        frame: one row an observation; must hold `metric` and `value`.
        cost: seconds, bytes and tokens/s, exempt from every promise about bytes.
        base: `made()`, or another folder of studies.

    Raises:
        UserError: a text cell that a spreadsheet would run as a formula.
    """
    _refuse_formulas(frame, study)
    text = frame.to_csv(index=False, float_format=f"%.{SIGNIFICANT_DIGITS}g", lineterminator="\n")
    base = base or made()
    path = path_in(base, study)
    files.write_atomic(path, text)
    config = params.model_dump(mode="json")
    sidecar = {
        "config": config,
        "config_sha256": files.sha256_json(config),
        "rows": len(frame),
        "sha256": files.sha256_file(path),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED_VERSIONS},
        "threads": 1,
        "frozen": freezing.of_run(study, params),
    }
    files.write_json(path.with_suffix(".json"), sidecar)
    if cost is not None:
        rounded = cost.to_csv(index=False, float_format="%.4g", lineterminator="\n")
        files.write_atomic(path_in(base, study, "cost"), rounded)
    return path


def _refuse_formulas(frame: pd.DataFrame, study: str) -> None:
    for column in frame.select_dtypes(exclude="number"):
        bad = [
            v
            for v in frame[column].dropna().unique()
            if str(v)[:1] in ("=", "+", "-", "@", "\t", "\r")
        ]
        if bad:
            raise UserError(
                f"{study}: {column} = {bad[0]!r}: expected text that no spreadsheet takes for a "
                "formula"
            )


def write_text(frame: pd.DataFrame, study: str, name: str) -> Path:
    """Write a small table of words beside a study's table.

    The file is <study>.<name>.csv. It holds examples, and is never compared.
    """
    return files.write_atomic(
        path_in(made(), study, name), frame.to_csv(index=False, lineterminator="\n")
    )


def published_text(study: str, name: str) -> pd.DataFrame:
    """Return a published table of words; empty before the first publication."""
    path = path_in(published_folder(), study, name)
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def read_table(path: Path) -> pd.DataFrame:
    """Read a table and hold it against its sidecar.

    Raises:
        UserError: missing, half-written, or of another run than its sidecar.
    """
    sidecar = files.read_json(path.with_suffix(".json"), "rows", "sha256")
    if not path.is_file():
        raise UserError(f"{path}: expected a table here")
    data = path.read_bytes()
    rows, digest = max(0, data.count(b"\n") - 1), hashlib.sha256(data).hexdigest()
    if digest != sidecar["sha256"]:
        raise UserError(
            f"{path}: {rows} rows, sha256 = {digest}: "
            f"expected {sidecar['rows']} rows, {sidecar['sha256']}, as its sidecar says"
        )
    return pd.read_csv(io.BytesIO(data))


def published_folder() -> Path:
    """Return the folder of what we publish.

    It holds the laptop profile's tables and figures, in git, one folder a study.
    """
    return files.project() / "results" / "laptop"


def published(study: str) -> pd.DataFrame:
    """Return the published table of a study."""
    return read_table(path_in(published_folder(), study))


def core_minutes(study: str) -> float | None:
    """Return what a study's published run took.

    It is None if none is published.
    """
    path = path_in(published_folder(), study, "cost")
    return float(pd.read_csv(path)["seconds"].sum()) / 60 if path.is_file() else None


def recorded(machine: str, name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a table that was recorded once, and its card.

    It lies below results/`machine`; the card has the machine, versions and cost.

    Such a table takes minutes on the right hardware or an hour on the reader's: no stage makes it,
    and no verdict reads it.
    """
    path = files.project() / "results" / machine / f"{name}.csv"
    return pd.read_csv(path), files.read_json(path.with_suffix(".json"))


def processor() -> str:
    """Return the name of this machine's processor."""
    told = Path("/proc/cpuinfo")  # Linux has it.
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


def beside_published(frame: pd.DataFrame, study: str) -> pd.DataFrame:
    """Return the published rows and this run's.

    A column `run` tells them apart ("published" or "this run").

    A run of the laptop profile is what gets published: its rows stand alone, as such.
    """
    if files.profile() == "laptop":
        return frame.assign(run="published")
    ours = frame.assign(run="this run")
    if not path_in(published_folder(), study).is_file():
        return ours
    return pd.concat([published(study).assign(run="published"), ours], ignore_index=True)


def params_behind(params: Section, study: str) -> Section:
    """Return the parameters of the rows that count as published.

    They are the rows that `beside_published` calls so: this run's, where it is what gets published.
    """
    path = path_in(published_folder(), study).with_suffix(".json")
    if files.profile() == "laptop" or not path.is_file():
        return params
    return validate(type(params), files.read_json(path, "config")["config"], str(path))


def tidy(rows: Iterable[dict], columns: list[str]) -> pd.DataFrame:
    """Return rows as a frame with these columns first to last.

    The frame is sorted by all columns but `value`; missing cells are empty.
    """
    frame = pd.DataFrame(list(rows)).reindex(columns=columns)
    by = [column for column in columns if column != "value"]
    return frame.sort_values(by, kind="stable").reset_index(drop=True)


def rounded(columns: Mapping[str, Sequence[float]], index: str, digits: int) -> pd.DataFrame:
    """Return columns as a rounded table.

    Rows are numbered from 0 under the name `index`; the rounding makes every CPU show the same.
    """
    return pd.DataFrame(columns).rename_axis(index).round(digits)


def verdict_line(claim: str) -> str:
    """Return a claim's published verdict as one line.

    A notebook's last cell prints it.
    """
    path = published_folder() / "verdicts.csv"
    verdicts = pd.read_csv(path).set_index("claim") if path.is_file() else pd.DataFrame()
    if claim not in verdicts.index:
        return f"{claim}: not published yet"
    row = verdicts.loc[claim]
    sign = "≥" if row["side"] == "at_least" else "≤"
    interval = f"{row['estimate']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    return (
        f"{claim} {row['verdict']}: {row['effect']} = {interval}, threshold {sign} "
        f"{row['threshold']:g}"
    )
