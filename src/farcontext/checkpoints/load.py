"""Loading of somebody else's checkpoint, without its code and without the network.

A checkpoint is a Hugging Face folder, a GGUF file, or a run of our own; nothing in it is run.
transformers reads the first two, after `refusals` and `headers` have seen what they hold.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer as BPETokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import PreTrainedTokenizerFast as WrappedTokenizer
from transformers.utils import logging

from farcontext import files
from farcontext.checkpoints import headers, hub, refusals
from farcontext.checkpoints.convert import to_hf
from farcontext.checkpoints.headers import reading
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.nn.transformer import Decoder
from farcontext.schema import SPECIAL, validate
from farcontext.train import checkpoint, kept
from farcontext.train.config import RunConfig
from farcontext.train.keys import tokens_folder

LOCALLY = {"trust_remote_code": False, "local_files_only": True}
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

    It is a Hugging Face folder, a repository in the hub's cache, a GGUF file or a folder with one,
    or a run of ours (its newest whole checkpoint). A run of ours becomes a Llama
    (`convert.to_hf`) with the tokenizer of build/tokenizer. Nothing in the folder is run, nothing
    is fetched. Not applied: quantisation (GGUF weights are unpacked), adapters.

    Raises:
        UserError: missing or damaged files, code or pickles in them, a family that is not known,
            weights that the architecture lacks or leaves at random, a model of ours that Llama
            cannot express, or whose tokenizer or configuration is not what it was trained with.
    """
    path = hub.resolved(Path(path))
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
        config = refusals.configuration(path)
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


# ------------------------------------------------------------------------------------------ loading


def _load_folder(folder: Path, config: dict, dtype: torch.dtype) -> Pretrained:
    where = folder / "config.json"
    refusals.expect_family(where, config.get("model_type"))
    given = validate(refusals.Configuration, config, str(where))
    stored = headers.safetensors_header(refusals.weights_of(folder, config))
    refusals.expect_tokenizer(folder)
    if given.layers:  # transformers makes lists of that length before it reads any weights.
        headers.expect_layers(where, *given.layers, stored)
    model = _model(folder, folder, stored, dtype, use_safetensors=True)
    return Pretrained(model, _tokenizer(folder, folder, model), hub.name_of(folder), folder)


def _load_gguf(path: Path, dtype: torch.dtype) -> Pretrained:
    settings, stored = headers.gguf_header(path)
    layers = f"{settings.get('general.architecture')}.block_count"
    headers.expect_layers(path, layers, settings.get(layers), stored)
    model = _model(path, path.parent, stored, dtype, gguf_file=path.name)
    # transformers still counts the unpacked weights as quantised, and then refuses to save them.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokens = _tokenizer(path, path.parent, model, gguf_file=path.name)
    return Pretrained(model, tokens, path.stem, path)


def _load_ours(folder: Path, config: dict, dtype: torch.dtype) -> Pretrained:
    where = folder / "config.json"
    run = validate(RunConfig, config, str(where))
    kept.expect_origin(folder, run)
    with reading(folder, "its checkpoint cannot be read"):
        found = checkpoint.latest(folder)
    if found is None or run.model.kind != "decoder":
        raise UserError(f"{where}: kind = {run.model.kind}: expected a decoder")
    stored = headers.safetensors_header([found.folder / "model.safetensors"])
    headers.expect_layers(where, "layers", run.model.layers, stored)
    with torch.device("meta"):
        headers.expect_weights(where, Decoder(run.model), stored)
    ours = Decoder(run.model)
    with reading(found.folder, "its weights cannot be loaded"):
        ours.load_state_dict(found.tensors("model"))
    try:
        model = to_hf(ours.to(dtype))
    except ValueError as error:  # Llama cannot express such a model.
        raise UserError(f"{where}: {error}") from None
    headers.expect_numbers(found.folder, model)
    tokens = wrapped(load_tokenizer(tokens_folder()))
    if len(tokens) > run.model.vocab_size:
        raise UserError(
            f"{where}: vocab_size = {run.model.vocab_size}: expected {len(tokens)} or more"
        )
    return Pretrained(_still(model), tokens, folder.name, folder)


def wrapped(tokenizer: BPETokenizer) -> WrappedTokenizer:
    """Return a tokenizer of ours as transformers' class.

    It can be saved beside a model; SPECIAL stay special.
    """
    return WrappedTokenizer(tokenizer_object=tokenizer, additional_special_tokens=list(SPECIAL))


def _model(
    named: Path, folder: Path, stored: dict[str, headers.Stored], dtype: torch.dtype, **how: object
) -> PreTrainedModel:
    """Let transformers load weights; `named` stands in messages.

    The model is first built without memory, and held against the header of its weights.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gguf = {"gguf_file": how["gguf_file"]} if "gguf_file" in how else {}
    with reading(named, "cannot be loaded"):
        config = AutoConfig.from_pretrained(folder, **LOCALLY, **gguf)
    refusals.expect_family(named, config.model_type)
    validate(refusals.Configuration, config.to_dict(), str(named))
    with reading(named, "cannot be loaded"), torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    headers.expect_weights(named, built, stored)
    with reading(named, "cannot be loaded"):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # They are refused below, with both shapes.
            **LOCALLY,
            **how,
        )
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if bad := sorted(map(str, report[kind])):
            raise UserError(
                f"{named}: {kind} = {bad[0]} and {len(bad) - 1} more: expected just this model's "
                "weights"
            )
    headers.expect_numbers(named, model)
    return _still(model)


def _tokenizer(
    named: Path, folder: Path, model: PreTrainedModel, **how: object
) -> PreTrainedTokenizerBase:
    with reading(named, "its tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCALLY, **how)
        added = tokenizer.get_added_vocab()
        words = [n for word, n in tokenizer.get_vocab().items() if word not in added]
        around = tokenizer("a").input_ids  # It may hold what begins and ends every text.
    # An added token may lie beyond the model if no text holds it, as one for padding often does.
    rows = embeddings(model)
    if (last := max([*words, *around], default=-1)) >= rows:
        raise UserError(
            f"{named}: its tokenizer has tokens up to {last}, its model {rows} embeddings: "
            f"expected tokens up to {rows - 1}"
        )
    return tokenizer


def embeddings(model: PreTrainedModel) -> int:
    """Return how many tokens a model can read."""
    return len(model.get_input_embeddings().weight)


def _still(model: PreTrainedModel) -> PreTrainedModel:
    return model.eval().requires_grad_(False)
