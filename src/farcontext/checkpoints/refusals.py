"""Refuse what a foreign folder may not hold, before libraries look.

That is code, pickles, names that lead out of the folder, and values of a configuration that no
model has.
"""

import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from farcontext import files
from farcontext.checkpoints.unloaded.families import FAMILIES, TEXT_PARTS, WHY_NOT
from farcontext.checkpoints.unloaded.places import refuse_adapter
from farcontext.files import UserError
from farcontext.schema import Count, Positive, Share, validate

CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json")
# These keys name code of the folder, which is never run: any value is refused. But auto_map at the
# top of a file, with a family that is transformers' own, is passed over with a note.
AUTO_MAP = "auto_map"
FROM_ELSEWHERE = (AUTO_MAP, "custom_pipelines")
# A value with "/" names a repository.
IMPLEMENTATIONS = ("_attn_implementation", "attn_implementation", "experts_implementation")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
SHARDS = ".safetensors.index.json"
# transformers opens the file that this key of config.json names.
CHOSEN_WEIGHTS = "transformers_weights"
# Older versions of transformers wrote the path of its own cache there; nobody reads it.
NEVER_READ = ("special_tokens_map_file",)
DIVIDING = ("yarn", "llama3", "longrope")  # These divide by the factor and the trained length.
TokenId = Annotated[int, Field(ge=-1, lt=2**31)] | None
DType = Annotated[str, Field(pattern=r"^(torch\.)?(float16|float32|float64|bfloat16)$")] | None
# transformers takes any class of its own under such a name, models among them.
TokenizerClass = Annotated[str, Field(pattern=r"^\w*(Tokenizer(Fast)?|Backend)$")] | None


class _Section(BaseModel):
    """A section of a configuration.

    Keys that are not named here may hold anything. The defaults stand for keys that are left out;
    nobody reads them.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Rope(_Section):
    """The section rope_parameters, or rope_scaling."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Positive = 1.0
    factor: Annotated[float, Field(ge=0)] | None = None
    partial_rotary_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    original_max_position_embeddings: Positive | None = None
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 1.0
    short_factor: list[Positive] | None = None
    long_factor: list[Positive] | None = None
    truncate: bool | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        scheme = self.rope_type or self.type
        for key in ("factor", "original_max_position_embeddings"):
            if scheme in DIVIDING and key in self.model_fields_set and not getattr(self, key):
                raise ValueError(f"rope_type = {scheme}: expected {key} above 0")
        return self


class Configuration(_Section):
    """What the families have in common in config.json, under each one's names."""

    hidden_size: Count = 1
    n_embd: Count = 1
    num_hidden_layers: Count = 1
    n_layer: Count = 1
    num_attention_heads: Count = 1
    n_head: Count = 1
    num_key_value_heads: Count | None = None
    head_dim: Annotated[int, Field(ge=2, multiple_of=2)] | None = None
    intermediate_size: Count = 1
    n_inner: Count | None = None
    vocab_size: Count = 1
    max_position_embeddings: Count = 1
    n_positions: Count = 1
    kv_lora_rank: Count | None = None
    sliding_window: Annotated[int, Field(ge=0)] | None = None  # 0 is Qwen2-MoE's none.
    use_sliding_window: bool = False
    rms_norm_eps: Positive = 1.0
    layer_norm_eps: Positive = 1.0
    layer_norm_epsilon: Positive = 1.0
    rope_theta: Positive | None = None
    rotary_emb_base: Positive | None = None
    rotary_pct: Share | None = None
    rope_parameters: Rope | None = None
    rope_scaling: Rope | None = None
    tie_word_embeddings: bool = False
    bos_token_id: TokenId | list[int] = None
    eos_token_id: TokenId | list[int] = None
    pad_token_id: TokenId = None
    id2label: dict[Any, Any] | None = None
    tokenizer_class: TokenizerClass = None
    dtype: DType = None
    torch_dtype: DType = None
    layer_types: list[str] | None = None
    quantization_config: Any = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.quantization_config is not None:
            raise ValueError("quantization_config: expected weights that are not quantised")
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        given = self.model_fields_set
        if groups and "num_attention_heads" in given and heads % groups:
            raise ValueError(
                f"num_attention_heads = {heads}, num_key_value_heads = {groups}: expected a whole "
                "number of heads for each key"
            )
        shaped = {"hidden_size", "num_attention_heads"} <= given and not self.head_dim
        shaped = shaped and self.kv_lora_rank is None  # Latent attention has widths of its own.
        if shaped and self.hidden_size % (2 * heads):
            raise ValueError(
                f"hidden_size = {self.hidden_size}, num_attention_heads = {heads}: expected "
                "an even width of each head"
            )
        if "vocab_size" in given and (self.pad_token_id or 0) >= self.vocab_size:
            raise ValueError(
                f"pad_token_id = {self.pad_token_id}, vocab_size = {self.vocab_size}: expected a "
                "token of the vocabulary"
            )
        return self

    @property
    def layers(self) -> tuple[str, int] | None:
        """Return the number of layers with its key.

        It is None if the file gives none.
        """
        for key in ("num_hidden_layers", "n_layer"):
            if key in self.model_fields_set:
                return key, getattr(self, key)
        return None


class TokenizerSettings(_Section):
    """What tokenizer_config.json may say of a tokenizer."""

    tokenizer_class: TokenizerClass = None
    model_max_length: Positive | None = None


def configuration(folder: Path) -> dict:
    """Return config.json without keys that name code; refuse names that lead outside.

    Raises:
        UserError: the file, the key, and what was expected.
    """
    config = files.read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'}: expected a JSON object")
    known = config.get("model_type") in FAMILIES
    for path in (folder / name for name in CONFIGS):
        if path.is_file():
            for key, value in _settings(_without_own_classes(path, known)):
                _refuse_code(path, key, value)
    for key, value in _settings(config):
        if key == CHOSEN_WEIGHTS and value is not None:
            _expect_own_weights(
                folder, folder / "config.json", key, value, (".safetensors", SHARDS)
            )
    refuse_adapter(folder)
    return {key: value for key, value in config.items() if key != AUTO_MAP}


def _without_own_classes(path: Path, known: bool) -> object:
    """Return a file's content without an auto_map that is not needed.

    transformers has the family's class then.
    """
    content = files.read_json(path)
    if not known or not isinstance(content, dict) or AUTO_MAP not in content:
        return content
    warnings.warn(
        f"{path}: {AUTO_MAP} is not read: its class is transformers' own, and no code of a "
        "checkpoint is run",
        stacklevel=2,
    )
    return {key: value for key, value in content.items() if key != AUTO_MAP}


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
            f"{path}: {key}: names code of its own, which is not run: expected a family of "
            f"transformers' own, without {key}"
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


def expect_family(where: Path, model_type: object, config: Mapping[str, Any] | None = None) -> None:
    """Refuse a model_type that is not one of FAMILIES.

    The line says why where that is known.
    """
    if model_type in FAMILIES:
        return
    said = f"{where}: model_type = {model_type!r:.60}: "
    if model_type in TEXT_PARTS or isinstance((config or {}).get("vision_config"), dict):
        part = TEXT_PARTS.get(str(model_type), "a family of text")
        raise UserError(f"{said}a model with images: expected its text part alone, {part}")
    if why := WHY_NOT.get(str(model_type)):
        raise UserError(f"{said}{why}: expected one of {', '.join(FAMILIES)}")
    raise UserError(f"{said}expected one of {', '.join(FAMILIES)}")


def expect_tokenizer(folder: Path) -> None:
    """Refuse a missing tokenizer, and settings that name files elsewhere."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(
            f"{folder}: no tokenizer: expected {TOKENIZERS[0]} (or {' or '.join(TOKENIZERS[1:])})"
        )
    if not (folder / TOKENIZERS[0]).is_file():
        _expect_a_reader(folder / TOKENIZERS[1])
    if not (path := folder / "tokenizer_config.json").is_file():
        return
    validate(TokenizerSettings, files.read_json(path), str(path))
    for key, value in _settings(files.read_json(path)):
        if key.endswith(("_file", "_files")) and key not in NEVER_READ:
            for name in value if isinstance(value, list) else [value]:
                if name is not None and not _plain(name):
                    raise UserError(
                        f"{path}: {key} = {name!r:.60}: expected a file in the same folder"
                    )


def _expect_a_reader(path: Path) -> None:
    """Refuse a tokenizer.model that no installed package reads.

    The line names the package.
    """
    if not path.is_file():
        return
    with path.open("rb") as stream:  # The protobuf of sentencepiece begins with its first field.
        package = "sentencepiece" if stream.read(1) == b"\n" else "tiktoken"
    if find_spec(package) is None:
        raise UserError(
            f"{path}: a model of {package}, which is not installed: expected tokenizer.json beside "
            f"it (pip install {package}, then AutoTokenizer.from_pretrained(FOLDER)"
            ".save_pretrained(FOLDER) writes it)"
        )


def weights_of(folder: Path, config: dict) -> list[Path]:
    """Return the safetensors files that transformers reads, all of this folder.

    Raises:
        UserError: none, or names that are no safetensors files here; none is opened.
    """
    for index in sorted(folder.glob(f"*{SHARDS}")):
        _shards(folder, index)
    first = folder / str(config.get(CHOSEN_WEIGHTS) or "model.safetensors")
    if not first.is_file():
        first = folder / f"model{SHARDS}"
    if first.name.endswith(SHARDS) and first.is_file():
        return _shards(folder, first)
    if first.is_file():
        return [first]
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if not pickles:
        raise UserError(f"{folder}: no weights: expected model.safetensors")
    raise UserError(
        f"{folder}: {pickles[0]} is a pickle, which can run code: expected model.safetensors; if "
        "you trust it, AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER) of "
        "transformers writes that"
    )


def _shards(folder: Path, index: Path) -> list[Path]:
    """Return the files that an index of shards names.

    Each is held against the folder first.
    """
    content = files.read_json(index)
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict):
        raise UserError(
            f"{index}: weight_map: expected a JSON object: name of a weight to name of a file"
        )
    for weight, shard in named.items():
        _expect_own_weights(folder, index, weight, shard, (".safetensors",))
    return [folder / name for name in sorted(set(named.values()))]


def _plain(name: object) -> bool:
    """Return whether a value is the bare name of a file."""
    return (
        isinstance(name, str)
        and name == Path(name).name
        and name not in ("", "..")
        and "\\" not in name
        and "\0" not in name
        and ":" not in name
    )


def _expect_own_weights(
    folder: Path, where: Path, key: str, name: object, endings: tuple[str, ...]
) -> None:
    """Refuse a file of weights that is not a safetensors file here."""
    if not _plain(name) or not name.endswith(endings) or not (folder / name).is_file():
        raise UserError(
            f"{where}: {key!r:.60} = {name!r:.60}: expected a {endings[0]} file in the same folder"
        )
