"""Loading of somebody else's checkpoint, without its code and without the network.

A checkpoint is a Hugging Face folder, a GGUF file, or a run of our own; nothing in it is run.
transformers reads the first two; what it would take from the folder beyond data (code, pickled
weights, a kernel from a repository) is refused before it looks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer as BPETokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import PreTrainedTokenizerFast as WrappedTokenizer
from transformers.utils import logging

from farcontext import files
from farcontext.checkpoints.convert import to_hf
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.nn.transformer import Decoder
from farcontext.schema import SPECIAL, validate
from farcontext.train import checkpoint
from farcontext.train.config import RunConfig
from farcontext.train.keys import tokens_folder
from farcontext.train.loop import build_model

# They are values of model_type.
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox")
CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json")
FROM_ELSEWHERE = ("auto_map", "custom_pipelines")  # These keys name code, so any value is refused.
# A value with "/" names a repository.
IMPLEMENTATIONS = ("_attn_implementation", "attn_implementation", "experts_implementation")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
SHARDS = ".safetensors.index.json"
# transformers opens the file that this key of config.json names.
CHOSEN_WEIGHTS = "transformers_weights"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Pretrained:
    """A causal language model and its tokenizer.

    The model is in evaluation mode, without gradients, with sdpa attention.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    path: Path


def load(path: Path | str, *, dtype: Literal["float32", "bfloat16"] = "float32") -> Pretrained:
    """Load a checkpoint from a folder or a file.

    It is a Hugging Face folder, a GGUF file or a folder with one, or a run of ours (its newest
    whole checkpoint). A run of ours becomes a Llama (`convert.to_hf`) with the tokenizer of
    build/tokenizer. Nothing in the folder is run, nothing is fetched. Not applied: quantisation
    (GGUF weights are unpacked), adapters.

    Raises:
        UserError: missing or damaged files, code or pickles in them, a family that is not known,
            weights that the architecture lacks or leaves at random, a model of ours that Llama
            cannot express.
    """
    path = Path(path)
    if dtype not in DTYPES:
        raise UserError(f"dtype = {dtype}: expected one of {', '.join(DTYPES)}")
    if path.suffix == ".gguf" and path.is_file():
        return _load_gguf(path, DTYPES[dtype])
    if not path.is_dir():
        raise UserError(
            f"{path}: expected a folder: a checkpoint in Hugging Face's layout, GGUF, or a run of "
            "farcontext"
        )
    if (path / "config.json").is_file():
        config = _config(path)
        if "model_type" not in config and checkpoint.steps(path):
            return _load_ours(path, config, DTYPES[dtype])
        return _load_folder(path, config, DTYPES[dtype])
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return _load_gguf(ggufs[0], DTYPES[dtype])
    found = f"{len(ggufs)} GGUF files" if ggufs else "neither config.json nor a GGUF file"
    raise UserError(f"{path}: {found}: expected config.json or one GGUF file")


def convert_gguf(source: Path, out: Path) -> None:
    """Write a GGUF file as a Hugging Face folder.

    The source may be a folder with just one such file. The written folder has bf16 safetensors, a
    config and a tokenizer.

    Raises:
        UserError: as `load`; nothing is left half-written.
    """
    loaded = load(source, dtype="bfloat16")
    with files.folder_atomic(out) as folder:
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        # Written again, it is on the disk for good, readable as the umask says.
        for path in folder.iterdir():
            files.write_atomic(path, path.read_bytes())


# ----------------------------------------------------------------------------------------- refusals


def _config(folder: Path) -> dict:
    """Return config.json after refusing what would run code."""
    config = files.read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'}: expected a JSON object")
    for name in CONFIGS:
        if (folder / name).is_file():
            for key, value in _settings(files.read_json(folder / name)):
                _refuse_code(folder / name, key, value)
    for key, value in _settings(config):
        if key == CHOSEN_WEIGHTS and value is not None:
            _expect_own_weights(
                folder, folder / "config.json", key, value, (".safetensors", SHARDS)
            )
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder / 'adapter_config.json'}: expected whole weights, not an adapter to another "
            "model"
        )
    return config


def _settings(value: object) -> Iterator[tuple[str, object]]:
    """Yield every key and value of a JSON document, at any depth."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _settings(inner)


def _refuse_code(path: Path, key: str, value: object) -> None:
    if key in FROM_ELSEWHERE:
        raise UserError(
            f"{path}: {key}: names code of its own: expected a model of transformers' own, "
            f"without {key}"
        )
    named = (
        [value]
        if isinstance(value, str)
        else list(value.values())
        if isinstance(value, dict)
        else []
    )
    if key.removesuffix("_internal") in IMPLEMENTATIONS and any("/" in str(name) for name in named):
        raise UserError(
            f"{path}: {key} = {value!r:.60}: names code in a repository: expected sdpa or no such "
            "key"
        )


def _expect_family(where: Path, model_type: object) -> None:
    if model_type not in FAMILIES:
        raise UserError(
            f"{where}: model_type = {model_type!r:.60}: expected one of {', '.join(FAMILIES)}"
        )


def _expect_safetensors(folder: Path) -> None:
    """Refuse weights that are not safetensors files of this folder, unopened."""
    for index in sorted(folder.glob(f"*{SHARDS}")):
        _expect_own_shards(folder, index)
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    found = f"{pickles[0]} is a pickle, which can run code" if pickles else "no weights"
    raise UserError(f"{folder}: {found}: expected model.safetensors")


def _expect_own_shards(folder: Path, index: Path) -> None:
    """Hold every file that an index of shards names against the folder."""
    content = files.read_json(index)
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict):
        raise UserError(
            f"{index}: weight_map: expected a JSON object: name of a weight to name of a file"
        )
    for weight, shard in named.items():
        _expect_own_weights(folder, index, weight, shard, (".safetensors",))


def _expect_own_weights(
    folder: Path, where: Path, key: str, name: object, endings: tuple[str, ...]
) -> None:
    """Refuse a file of weights that is not a safetensors file here."""
    plain = (
        isinstance(name, str) and name == Path(name).name and "\\" not in name and "\0" not in name
    )
    if not plain or not name.endswith(endings) or not (folder / name).is_file():
        raise UserError(
            f"{where}: {key!r:.60} = {name!r:.60}: expected a {endings[0]} file in the same folder"
        )


# ------------------------------------------------------------------------------------------ loading


def _load_folder(folder: Path, config: dict, dtype: torch.dtype) -> Pretrained:
    _expect_family(folder / "config.json", config.get("model_type"))
    _expect_safetensors(folder)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(
            f"{folder}: no tokenizer: expected {TOKENIZERS[0]} (or {' or '.join(TOKENIZERS[1:])})"
        )
    model = _model(folder, folder, dtype, use_safetensors=True)
    return Pretrained(model, _tokenizer(folder, folder), folder.resolve().name, folder)


def _load_gguf(path: Path, dtype: torch.dtype) -> Pretrained:
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise UserError(f"{path}: expected a GGUF file, which begins with the letters GGUF")
    model = _model(path, path.parent, dtype, gguf_file=path.name)
    _expect_family(path, model.config.model_type)
    # transformers still counts the unpacked weights as quantised, and then refuses to save them.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return Pretrained(model, _tokenizer(path, path.parent, gguf_file=path.name), path.stem, path)


def _load_ours(folder: Path, config: dict, dtype: torch.dtype) -> Pretrained:
    run = validate(RunConfig, config, str(folder / "config.json"))
    found = checkpoint.latest(folder)
    ours = build_model(run.model)
    if found is None or not isinstance(ours, Decoder):
        raise UserError(f"{folder / 'config.json'}: kind = {run.model.kind}: expected a decoder")
    ours.load_state_dict(found.tensors("model"))
    try:
        model = to_hf(ours.to(dtype))
    except ValueError as error:  # Llama cannot express such a model.
        raise UserError(f"{folder / 'config.json'}: {error}") from None
    tokens = wrapped(load_tokenizer(tokens_folder()))
    if len(tokens) > run.model.vocab_size:
        raise UserError(
            f"{folder / 'config.json'}: vocab_size = {run.model.vocab_size}: expected "
            f"{len(tokens)} or more"
        )
    return Pretrained(_still(model), tokens, folder.name, folder)


def wrapped(tokenizer: BPETokenizer) -> WrappedTokenizer:
    """Return a tokenizer of ours as transformers' class.

    It can be saved beside a model; SPECIAL stay special.
    """
    return WrappedTokenizer(tokenizer_object=tokenizer, additional_special_tokens=list(SPECIAL))


def _model(named: Path, folder: Path, dtype: torch.dtype, **how: object) -> PreTrainedModel:
    """Let transformers load weights; `named` stands in messages."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **how,
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        ImportError,
        SafetensorError,
    ) as error:
        raise UserError(f"{named}: cannot be loaded: {_short(error)}") from None
    except Exception as error:
        # huggingface_hub's strict checks of a configuration have classes of their own.
        if type(error).__module__.split(".")[0] not in ("huggingface_hub", "transformers"):
            raise
        raise UserError(f"{named}: cannot be loaded: {_short(error)}") from None
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if bad := sorted(map(str, report[kind])):
            raise UserError(
                f"{named}: {kind} = {bad[0]} and {len(bad) - 1} more: expected just this model's "
                "weights"
            )
    return _still(model)


def _tokenizer(named: Path, folder: Path, **how: object) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, **how
        )
    except Exception as error:  # The tokenizers library raises bare Exception.
        raise UserError(f"{named}: its tokenizer cannot be loaded: {_short(error)}") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _still(model: PreTrainedModel) -> PreTrainedModel:
    return model.eval().requires_grad_(False)
