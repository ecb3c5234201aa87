"""Where a checkpoint stands, from what a user typed.

That is a folder, a file in it, or the cache of Hugging Face's hub. Nothing is loaded or fetched. A
name on the hub is told how to become a folder.
"""

import re
from pathlib import Path
from typing import Any

from farcontext import files
from farcontext.checkpoints import hub
from farcontext.files import UserError

# A repository on the hub is OWNER/NAME; an owner's and a name's characters are these.
ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# These keys stand beside the parts of a model with images.
FOR_ALL_PARTS = ("dtype", "torch_dtype", "tie_word_embeddings")


def names_a_checkpoint(text: str) -> bool:
    """Return whether a text is a path or a hub's name.

    Else it is a list of numbers.
    """
    try:
        return "/" in text or Path(text).exists()
    except OSError:  # It is longer than a name can be.
        return False


def located(path: Path | str) -> Path:
    """Return the folder or file of a checkpoint that a path names.

    A folder of the hub's cache becomes its snapshot: that of refs/main, else the only one.

    Raises:
        UserError: a name on the hub (the line has the command that downloads it), or a cache folder
            without a snapshot that can be chosen.
    """
    path = Path(path)
    if not path.exists() and ON_THE_HUB.fullmatch(str(path)):
        raise UserError(
            f"{path}: no such folder; as a name on the hub it is not fetched here: download with "
            f"`hf download {path} --local-dir {path.name}`, then give the folder {path.name}"
        )
    return hub.resolved(path)


def config_file(path: Path | str) -> Path:
    """Return a checkpoint's config.json.

    It is in the folder, or is the JSON file that was given.

    Raises:
        UserError: neither; an adapter's folder is named as such, with its base.
    """
    path = located(path)
    if path.is_file() and path.suffix == ".json":
        return path
    if path.is_file():
        raise UserError(
            f"{path}: expected a folder with config.json, or such a file (of a GGUF file, "
            "`farcontext probe FILE --rope-only` checks how it rotates)"
        )
    if not path.is_dir():
        raise UserError(f"{path}: no such folder or file: expected a folder with config.json")
    if not (path / "config.json").is_file():
        refuse_adapter(path)
        raise UserError(f"{path}: no config.json: expected a folder with one")
    return path / "config.json"


def refuse_adapter(folder: Path) -> None:
    """Refuse an adapter's folder.

    The line names the model that it belongs to.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        return
    given = files.read_json(path)
    base = given.get("base_model_name_or_path") if isinstance(given, dict) else None
    to = (
        f"an adapter to {base}" if isinstance(base, str) and base else "an adapter to another model"
    )
    raise UserError(
        f"{path}: expected whole weights, not {to}: merge it into its base first (peft: "
        "merge_and_unload, save_pretrained)"
    )


def text_config(path: Path) -> dict[str, Any]:
    """Return a configuration, or that of its text part.

    A model with images or sound has one.

    Raises:
        UserError: no JSON object, or one without model_type.
    """
    given = files.read_json(path)
    if not isinstance(given, dict):
        raise UserError(f"{path}: expected a JSON object")
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := given.get(key), dict) and "model_type" in inner:
            given = {k: given[k] for k in FOR_ALL_PARTS if k in given} | inner
    if not isinstance(given.get("model_type"), str):
        raise UserError(f"{path}: model_type: expected the name of a family, as llama")
    return given
