"""The files of an extended folder: copied or linked, nothing loaded."""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedModel

from farcontext import files
from farcontext.checkpoints import headers, refusals
from farcontext.checkpoints.load import Pretrained

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
LINKED = 1 << 30  # Weights of so many bytes and more are linked: a copy would double them.
PIECE = 16 << 20
NARROW = {
    **{"BF16": torch.bfloat16, "F16": torch.float16},
    **{"F32": torch.float32, "F64": torch.float64},
}


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
    """Copy a file piece by piece; the copy appears when it is whole."""
    with path.open("rb") as source, files.stream_atomic(to) as stream:
        shutil.copyfileobj(source, stream, PIECE)


def save(source: Pretrained, folder: Path) -> None:
    """Write a loaded GGUF file or run of ours as a folder, in the dtype that it has."""
    narrow(source.model, dtype_of(source.path) or source.model.dtype)
    source.model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    for path in folder.iterdir():  # Written again, it is on the disk for good.
        copy_file(path, path)


def narrow(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast a model's weights in place, one after another; rotary frequencies stay fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype


def dtype_of(path: Path) -> torch.dtype | None:
    """Return the dtype of most of the numbers of a GGUF file, or of a folder's weights.

    Quantised numbers count as bfloat16. None: neither is there.
    """
    if path.is_dir() and len(ggufs := sorted(path.glob("*.gguf"))) == 1:
        path = ggufs[0]
    if path.is_file():
        stored = headers.gguf_header(path)[1]
    else:
        stored = headers.safetensors_header(sorted(path.glob(WEIGHTS[0])))
    if not stored:
        return None
    counts: dict[torch.dtype, int] = {}
    for tensor in stored.values():
        dtype = NARROW.get(tensor.dtype, torch.bfloat16)
        counts[dtype] = counts.get(dtype, 0) + math.prod(tensor.shape)
    return max(counts, key=counts.__getitem__)
