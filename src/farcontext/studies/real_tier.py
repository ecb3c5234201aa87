"""Name a checkpoint in the cache, and read it.

All real tiers do it here.
"""

from farcontext import files
from farcontext.checkpoints.load import Pretrained, load
from farcontext.files import UserError


def known(checkpoint: str) -> dict[str, str]:
    """Return the options that name a checkpoint and its weights.

    An evaluation has them among its own, so other weights under the same name are another one.

    Raises:
        UserError: the folder has no weights.
    """
    weights = files.project() / checkpoint / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights}: expected the checkpoint (dvc repro smollm2 makes it)")
    return {"checkpoint": checkpoint, "weights": files.sha256_file(weights)}


def loaded(checkpoint: str) -> Pretrained:
    """Load a folder of the project in fp32.

    That is fast on every CPU.
    """
    return load(files.project() / checkpoint, dtype="float32")
