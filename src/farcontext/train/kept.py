"""What trainings and evaluations keep, each file with its own hash.

A file that was damaged or changed since is never used: its checkpoint, or the evaluation, gives the
same bits again.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farcontext import files
from farcontext.files import UserError
from farcontext.schema import Row
from farcontext.train.config import RunConfig
from farcontext.train.keys import origin

RESULT, COST, ROWS = "result.json", "cost.json", "rows.json"
CONFIG, ORIGIN = "config.json", "origin.json"


@dataclass(frozen=True)
class RunResult:
    """What a training run or an evaluation left behind."""

    key: str
    folder: Path
    # A training has step, loss (nats a scored token), rate, norm, tokens; an evaluation its own.
    rows: list[Row]
    steps_trained: int = 0  # This call trained so many: 0 when the cache already held the result.
    # Seconds and peak bytes are never part of a published table.
    cost: Row = field(default_factory=dict)


def write_sealed(path: Path | str, value: Mapping[str, Any]) -> Path:
    """Write a mapping as JSON with its own sha256, for `read_sealed`."""
    return files.write_json(path, {**value, "sha256": files.sha256_json(value)})


def read_sealed(path: Path | str) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without its hash.

    Raises:
        UserError: no file that can be read, not JSON, or changed since it was written.
    """
    value = files.read_json(path)
    seal = value.pop("sha256", None) if isinstance(value, dict) else None
    if not isinstance(seal, str):
        raise UserError(f"{path}: expected a JSON object that holds its own sha256")
    try:
        digest = files.sha256_json(value)
    except (ValueError, RecursionError) as error:  # An infinite number say, or a deep nesting.
        raise UserError(f"{path}: expected plain JSON: {error}") from None
    if digest != seal:
        raise UserError(f"{path}: sha256 = {digest}: expected {seal:.64}, as the file itself says")
    return value


def rows_of(value: object, path: Path | str) -> list[dict[str, Any]]:
    """Return what stands under `rows` in a JSON document.

    Raises:
        UserError: not a list of objects; the line names `path`.
    """
    rows = value.get("rows") if isinstance(value, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: rows: expected a list of JSON objects")
    return rows


def finished(folder: Path) -> RunResult | None:
    """Return a finished run's result, else None.

    A run is finished if its last step is done and its results are written. A damaged result is
    none, with a warning: its last checkpoint gives it again.
    """
    with _if_whole(folder / RESULT):
        rows = rows_of(read_sealed(folder / RESULT), folder / RESULT)
        return RunResult(folder.name, folder, rows, cost=read_sealed(folder / COST))
    return None


def finish(folder: Path, rows: list[Row], cost: Row) -> Row:
    """Write a run's result and its cost, and return the cost.

    A call that only makes a damaged result again keeps what the training cost.
    """
    with contextlib.suppress(UserError):
        cost = cost if cost["steps"] else read_sealed(folder / COST)
    write_sealed(folder / COST, cost)
    write_sealed(folder / RESULT, {"rows": rows})
    return cost


def evaluated(folder: Path) -> RunResult | None:
    """Return an evaluation's kept rows, None if missing or damaged."""
    rows = kept_rows(folder / ROWS)
    return None if rows is None else RunResult(folder.name, folder, rows)


def kept_rows(path: Path) -> list[Row] | None:
    """Return the rows of a file, None if it has none.

    It is missing, or damaged, which is said in a warning.
    """
    with _if_whole(path):
        return rows_of(read_sealed(path), path)
    return None


@contextlib.contextmanager
def _if_whole(path: Path) -> Iterator[None]:
    """End the block early where a file is missing or damaged.

    A damaged one is said in a warning.
    """
    try:
        yield
    except UserError as error:
        if path.exists():
            warnings.warn(f"damaged, so made again: {error}", stacklevel=4)


def describe(folder: Path, run: RunConfig) -> None:
    """Write a run's configuration, and what readers hold against it."""
    files.write_json(folder / CONFIG, run.model_dump(mode="json"))
    write_sealed(folder / ORIGIN, origin(run))


def expect_origin(folder: Path, run: RunConfig) -> None:
    """Refuse another configuration or tokenizer than a run's own.

    Raises:
        UserError: they are others; the line has both hashes.
    """
    path = folder / ORIGIN
    if not path.exists():
        raise UserError(f"{path}: expected the hashes of what it was trained with; train again")
    trained, today = read_sealed(path), origin(run)
    for name, what in {"config": folder / CONFIG, "tokenizer": "build/tokenizer"}.items():
        if today[name] != trained.get(name):
            raise UserError(
                f"{folder}: {what} has sha256 = {today[name]}: expected {trained.get(name)}, with "
                "which this run was trained; bring it back, or train again"
            )
