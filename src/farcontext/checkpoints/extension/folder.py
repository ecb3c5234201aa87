"""The files of an extended folder: copied or linked, nothing loaded."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from farcontext import files
from farcontext.checkpoints import refusals

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
LINKED = 1 << 30  # Weights of so many bytes and more are linked: a copy would double them.
PIECE = 16 << 20


def fill(source: Path, folder: Path) -> None:
    """Fill a folder with the files of a Hugging Face folder.

    Small files are copied. Weights of 1 GiB and more are hard-linked where the file system can:
    safetensors writes a new file and leaves the original alone. Pickles stay behind; `load` reads
    none.
    """
    found = list(_files(source))
    large = sum(path.stat().st_size for path in found if path.match(WEIGHTS[0])) >= LINKED
    for path in found:
        to = folder / path.relative_to(source)
        if not (large and path.match(WEIGHTS[0]) and _linked(path, to)):
            copy_file(path, to)


def _files(source: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if path.is_file() and not hidden and not any(map(path.match, refusals.PICKLES)):
            yield path


def _linked(path: Path, to: Path) -> bool:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), to)
    except OSError:  # It is another file system, or one without links.
        return False
    return True


def copy_file(path: Path, to: Path) -> None:
    """Copy a file piece by piece.

    The copy appears when it is whole.
    """
    with path.open("rb") as source, files.stream_atomic(to) as stream:
        shutil.copyfileobj(source, stream, PIECE)
