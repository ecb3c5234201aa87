"""Loading of somebody else's checkpoint, without its code and without the network.

A checkpoint is a Hugging Face folder, a GGUF file, or a run of our own; nothing in it is run.
transformers reads the first two, after `refusals` and `headers` have seen what they hold.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tokenizers import Tokenizer as BPETokenizer

from farcontext import files
from farcontext.checkpoints import headers, hub, refusals
from farcontext.checkpoints.convert import to_hf
from farcontext.checkpoints.headers import reading
from farcontext.checkpoints.rope import gguf, sections
from farcontext.checkpoints.rope.readers import for_every_reader, write_window
from farcontext.checkpoints.unloaded import places
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.nn.transformer import Decoder
from farcontext.schema import SPECIAL, validate
from farcontext.train import checkpoint, kept
from farcontext.train.config import RunConfig
from farcontext.train.keys import tokens_folder

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers import PreTrainedTokenizerFast as WrappedTokenizer

LOCALLY = {"trust_remote_code": False, "local_files_only": True}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Pretrained:
    """A causal language model and its tokenizer.

    The model is in evaluation mode, without gradients, with sdpa attention. `stated` is what a file
    without a config.json says itself, under the names of one; None where there is such a file.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    path: Path
    stated: dict[str, Any] | None = None


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
    path = places.located(path)
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
    places.refuse_adapter(path)
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
        written = for_every_reader(files.read_json(folder / "config.json"))
        files.write_json(folder / "config.json", written)
        write_window(folder, written["max_position_embeddings"])
        # Written again, it is on the disk for good, readable as the umask says.
        for path in folder.iterdir():
            files.write_atomic(path, path.read_bytes())


# ------------------------------------------------------------------------------------------ loading


def _load_folder(folder: Path, config: dict, dtype: torch.dtype) -> Pretrained:
    where = folder / "config.json"
    refusals.expect_family(where, config.get("model_type"), config)
    given = validate(refusals.Configuration, config, str(where))
    stored = headers.safetensors_header(refusals.weights_of(folder, config))
    refusals.expect_tokenizer(folder)
    if given.layers:  # transformers makes lists of that length before it reads any weights.
        headers.expect_layers(where, *given.layers, stored)
    parsed = sections.parse(config, where)
    model = _model(folder, parsed, stored, dtype, use_safetensors=True)
    tokenizer = tokenizer_of(folder, embeddings(model))
    return Pretrained(model, tokenizer, hub.name_of(folder), folder)


def _load_gguf(path: Path, dtype: torch.dtype) -> Pretrained:
    settings, stored = headers.gguf_header(path)
    layers = f"{settings.get('general.architecture')}.block_count"
    headers.expect_layers(path, layers, settings.get(layers), stored)
    stated = _stated(path, gguf.rope_of(path, settings, stored))
    config = sections.parse(stated, path)
    model = _model(path, config, stored, dtype, gguf_file=path.name)
    # transformers still counts the unpacked weights as quantised, and then refuses to save them.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokens = _tokenizer(path, path.parent, embeddings(model), gguf_file=path.name)
    return Pretrained(model, tokens, path.stem, path, stated)


def _stated(path: Path, rope: gguf.Rope) -> dict[str, Any]:
    """Return what a GGUF file says, by the names of config.json.

    Its rotary settings are among it.
    """
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    with reading(path, "cannot be loaded"):
        found = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, **LOCALLY).to_dict()
    found = {key: value for key, value in found.items() if key != "rope_parameters"}
    scaled = {key: value for key, value in rope.items() if key != "rope_theta"}
    base = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    return found | base | {"rope_scaling": scaled if scaled["rope_type"] != "default" else None}


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


def wrapped(tokenizer: BPETokenizer) -> "WrappedTokenizer":
    """Return a tokenizer of ours as transformers' class.

    It can be saved beside a model; SPECIAL stay special.
    """
    from transformers import PreTrainedTokenizerFast as WrappedTokenizer

    return WrappedTokenizer(tokenizer_object=tokenizer, additional_special_tokens=list(SPECIAL))


def _model(
    where: Path,
    config: "PreTrainedConfig",
    stored: dict[str, headers.Stored],
    dtype: torch.dtype,
    **how: object,
) -> "PreTrainedModel":
    """Let transformers load the weights of a folder or a file.

    The model is first built without memory, and held against the header of its weights.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    refusals.expect_family(where, config.model_type)
    validate(refusals.Configuration, config.to_dict(), str(where))
    attention = _attention_of(config)
    with reading(where, "cannot be loaded"), torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    headers.expect_weights(where, built, stored)
    with reading(where, "cannot be loaded"):
        model, report = AutoModelForCausalLM.from_pretrained(
            where if where.is_dir() else where.parent,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # They are refused below, with both shapes.
            **LOCALLY,
            **how,
        )
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if bad := sorted(map(str, report[kind])):
            raise UserError(
                f"{where}: {kind} = {bad[0]} and {len(bad) - 1} more: expected just this model's "
                "weights"
            )
    headers.expect_numbers(where, model)
    return _still(model)


def tokenizer_of(folder: Path, rows: int) -> "PreTrainedTokenizerBase":
    """Load a Hugging Face folder's tokenizer.

    Its model has so many embeddings.

    Raises:
        UserError: one that cannot be loaded, or with tokens beyond the embeddings.
    """
    return _tokenizer(folder, folder, rows)


def _tokenizer(named: Path, folder: Path, rows: int, **how: object) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    with reading(named, "its tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCALLY, **how)
        added = tokenizer.get_added_vocab()
        words = [n for word, n in tokenizer.get_vocab().items() if word not in added]
        around = tokenizer("a").input_ids  # It may hold what begins and ends every text.
    # An added token may lie beyond the model if no text holds it, as one for padding often does.
    if (last := max([*words, *around], default=-1)) >= rows:
        raise UserError(
            f"{named}: its tokenizer has tokens up to {last}, its model {rows} embeddings: "
            f"expected tokens up to {rows - 1}"
        )
    return tokenizer


def embeddings(model: "PreTrainedModel") -> int:
    """Return how many tokens a model can read."""
    return len(model.get_input_embeddings().weight)


def _attention_of(config: "PreTrainedConfig") -> str:
    """Return sdpa, or eager where sdpa cannot compute the scores.

    Gemma 2's and ALiBi's are such.
    """
    from transformers import AutoModelForCausalLM

    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    return "sdpa" if model_class._supports_sdpa else "eager"


def _still(model: "PreTrainedModel") -> "PreTrainedModel":
    if model.base_model is model and hasattr(model, "model"):
        # Llama 4's text class names its base model otherwise than it stores it.
        model.base_model_prefix = "model"
    return model.eval().requires_grad_(False)
