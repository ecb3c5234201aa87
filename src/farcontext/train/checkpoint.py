"""Crash-safe checkpoints, a folder a step.

A manifest with every file's sha256 is written last. Files are safetensors and JSON only; nothing
that is loaded can run code. A folder appears under its final name only when it is complete, so a
reader finds whole sets or none; a set that was damaged later is refused as a whole.
"""

import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from farcontext.files import (
    UserError,
    folder_atomic,
    read_json,
    sha256_file,
    sha256_json,
    write_atomic,
    write_json,
)

FORMAT = 1
MANIFEST = "manifest.json"
_STEP = re.compile(r"step-(\d{8})")


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
    with folder_atomic(target) as temporary:
        for group, tensors in groups.items():
            contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
            write_atomic(temporary / f"{group}.safetensors", safetensors.torch.save(contiguous))
        write_json(temporary / "state.json", dict(state))
        files = sorted(path for path in temporary.iterdir())
        body = {
            "format": FORMAT,
            "step": step,
            "files": {
                path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
                for path in files
            },
        }
        write_json(temporary / MANIFEST, body | {"sha256": sha256_json(body)})
    for old in steps(folder)[:-keep]:
        _discard(folder / f"step-{old:08d}")
    return target


def _discard(folder: Path) -> None:
    """Remove a set so that a kill in the middle leaves no candidate: its manifest goes first."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


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
    manifest = read_json(folder / MANIFEST)
    _check_manifest(folder, manifest)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing: expected the file that {MANIFEST} lists")
        if path.stat().st_size != expected["bytes"]:
            raise UserError(f"{path}: {path.stat().st_size} bytes: expected {expected['bytes']}")
        if (found := sha256_file(path)) != expected["sha256"]:
            raise UserError(f"{path}: sha256 = {found}: expected {expected['sha256']}")
    return Checkpoint(manifest["step"], folder, read_json(folder / "state.json"))


def _check_manifest(folder: Path, manifest: object) -> None:
    path = folder / MANIFEST
    keys = {"format", "step", "files", "sha256"}
    if not isinstance(manifest, dict) or set(manifest) != keys:
        raise UserError(f"{path}: expected the keys {', '.join(sorted(keys))}")
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    if sha256_json(body) != manifest["sha256"]:
        raise UserError(f"{path}: sha256 = {manifest['sha256']}: expected {sha256_json(body)}")
    if manifest["format"] != FORMAT:
        raise UserError(f"{path}: format = {manifest['format']}: expected {FORMAT}")
    if not isinstance(manifest["step"], int) or f"step-{manifest['step']:08d}" != folder.name:
        raise UserError(
            f"{path}: step = {manifest['step']}: expected the step of its folder, {folder.name}"
        )
    if any(Path(name).name != name for name in manifest["files"]):
        raise UserError(f"{path}: expected plain file names")


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
        raise UserError(f"{folder}: every checkpoint is damaged: {'; '.join(reasons)}")
    return None
