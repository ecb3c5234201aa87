"""Weights of an extended folder that are written anew.

They keep the dtype that they had.
"""

import math
from pathlib import Path

import torch
from transformers import PreTrainedModel

from farcontext.checkpoints import headers
from farcontext.checkpoints.extension.folder import WEIGHTS, copy_file
from farcontext.checkpoints.load import Pretrained

NARROW = {
    **{"BF16": torch.bfloat16, "F16": torch.float16},
    **{"F32": torch.float32, "F64": torch.float64},
}


def save(source: Pretrained, folder: Path) -> None:
    """Write a loaded GGUF file or run of ours as folder.

    It keeps its dtype.
    """
    narrow(source.model, dtype_of(source.path) or source.model.dtype)
    source.model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    for path in folder.iterdir():  # Written again, it is on the disk for good.
        copy_file(path, path)


def narrow(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast a model's weights in place, one after another.

    Rotary frequencies stay fp32.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype


def dtype_of(path: Path) -> torch.dtype | None:
    """Return the dtype of most numbers of a checkpoint.

    It is a GGUF file, or a folder with weights. Quantised numbers count as bfloat16. None: neither
    is there.
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
