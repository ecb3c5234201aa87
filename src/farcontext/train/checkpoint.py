"""Crash-safe checkpoints, a folder a step.

A manifest with every file's sha256 is written last. Files are safetensors and JSON only; nothing
that is loaded can run code. A folder appears under its final name only when it is complete, so a
reader finds whole sets or none; a set that was damaged later is refused as a whole.
"""

import contextlib
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import safetensors.torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from torch import Tensor

from farcontext import files
from farcontext.files import UserError
from farcontext.schema import Frozen, validate
from farcontext.train import kept

FORMAT = 1
MANIFEST, STATE = "manifest.json", "state.json"
_STEP = re.compile(r"step-(\d{8})")


class _File(Frozen):
    """What a manifest says of a file."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class _Manifest(Frozen):
    """The files of a set, all of them in its folder."""

    format: Literal[1]
    step: Annotated[int, Field(ge=0)]
    files: dict[Annotated[str, Field(pattern=r"^\w{1,40}\.(json|safetensors)$")], _File]

    @model_validator(mode="after")
    def _has_a_state(self) -> Self:
        if STATE not in self.files:
            raise ValueError(f"files: expected {STATE} among them")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """One verified set: named groups of tensors and a JSON state."""

    step: int
    folder: Path
    state: dict[str, Any]

    def tensors(self, group: str) -> dict[str, Tensor]:
        """Return the tensors of one group, "model" or "optimizer" say.

        Raises:
            UserError: the file is missing or not in the safetensors format, a pickle under its name
                say.
        """
        path = self.folder / f"{group}.safetensors"
        try:
            return safetensors.torch.load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path}: expected safetensors: {' '.join(str(error).split())}"
            ) from None


def save(
    folder: Path,
    step: int,
    *,
    groups: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Write the set of one step, then remove old sets.

    The newest `keep` sets stay.

    Raises:
        UserError: the disk refused; older sets are intact.
    """
    target = folder / f"step-{step:08d}"
    with files.folder_atomic(target) as temporary:
        for group, tensors in groups.items():
            contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
            files.write_atomic(
                temporary / f"{group}.safetensors", safetensors.torch.save(contiguous)
            )
        files.write_json(temporary / STATE, dict(state))
        listed = {
            path.name: {"sha256": files.sha256_file(path), "bytes": path.stat().st_size}
            for path in sorted(temporary.iterdir())
        }
        kept.write_sealed(temporary / MANIFEST, {"format": FORMAT, "step": step, "files": listed})
    for old in steps(folder)[:-keep]:
        discard(folder / f"step-{old:08d}")
    return target


def discard(folder: Path) -> None:
    """Remove a set.

    It loses its name first: a kill in the middle leaves no half of a set, but what `sweep` removes.
    """
    aside = folder.with_name(f"{files.TEMPORARY}{folder.name}-discarded")
    shutil.rmtree(aside, ignore_errors=True)
    # One that cannot be moved stays whole; the next save tries again.
    with contextlib.suppress(OSError):
        folder.replace(aside)
    shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder that is held.

    Sets without a manifest are of earlier versions, which removed sets file by file.
    """
    files.sweep_leftovers(folder)
    for path in folder.glob("step-*"):
        if _STEP.fullmatch(path.name) and not (path / MANIFEST).exists():
            shutil.rmtree(path, ignore_errors=True)


def steps(folder: Path) -> list[int]:
    """Return the steps of a folder's sets, ascending.

    A set counts if it has a manifest. Steps are read from names, never from time stamps.
    """
    names = (_STEP.fullmatch(path.parent.name) for path in folder.glob(f"step-*/{MANIFEST}"))
    return sorted(int(name.group(1)) for name in names if name)


def load(folder: Path) -> Checkpoint:
    """Verify one set and return it.

    Raises:
        UserError: anything in it differs from what its manifest says; the line names the file and
            both values.
    """
    manifest = _manifest(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        try:
            if not path.is_file():
                raise UserError(f"{path}: missing: expected the file that {MANIFEST} lists")
            if (size := path.stat().st_size) != expected.bytes:
                raise UserError(f"{path}: {size} bytes: expected {expected.bytes}")
            if (digest := files.sha256_file(path)) != expected.sha256:
                raise UserError(f"{path}: sha256 = {digest}: expected {expected.sha256}")
        except OSError as error:  # A bad block of the disk, say.
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    state = files.read_json(folder / STATE)
    kept.rows_of(state, folder / STATE)
    return Checkpoint(manifest.step, folder, state)


def _manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    manifest = validate(_Manifest, kept.read_sealed(path), str(path))
    if f"step-{manifest.step:08d}" != folder.name:
        raise UserError(
            f"{path}: step = {manifest.step}: expected the step of its folder, {folder.name}"
        )
    return manifest


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest whole set of a run.

    It is None if the run never had one; a damaged one is skipped with a warning.

    Raises:
        UserError: there are sets and every one is damaged; the line lists why.
    """
    reasons: list[str] = []
    for step in reversed(steps(folder)):
        try:
            found = load(folder / f"step-{step:08d}")
        except UserError as error:
            reasons.append(str(error))
            continue
        if reasons:
            warnings.warn(
                f"damaged checkpoint skipped, step {found.step} used: {reasons[0]}", stacklevel=2
            )
        return found
    if reasons:
        raise UserError(
            f"{folder}: every checkpoint is damaged; delete the folder to train again: "
            f"{'; '.join(reasons)}"
        )
    return None
