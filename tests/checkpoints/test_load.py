"""Other people's checkpoints load where they are sound, and predict as before.

What could run code does not load.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from farcontext import files
from farcontext.checkpoints import load, rope_check
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.train import keys, loop

IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}
SHAPE = {"vocab_size": tiny.VOCABULARY, "max_position_embeddings": 64, **IDS, **SIZES}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=1),
    "qwen3": Qwen3Config(**SHAPE, num_key_value_heads=1, head_dim=16),
    "mistral": MistralConfig(**SHAPE, num_key_value_heads=1),
    "gpt2": GPT2Config(
        vocab_size=tiny.VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2, **IDS
    ),
    "gpt_neox": GPTNeoXConfig(**SHAPE),
}
TOKENS = torch.randint(4, 256, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_project: Path) -> dict[str, Path]:
    """A folder of random weights for each family, saved by transformers alone."""
    made = {}
    tokenizer = load.wrapped(load_tokenizer(tiny_project / "build" / "tokenizer"))
    for family, config in FAMILIES.items():
        torch.manual_seed(0)
        made[family] = tmp_path_factory.mktemp("hf") / family
        AutoModelForCausalLM.from_config(config).save_pretrained(made[family])
        tokenizer.save_pretrained(made[family])
    return made


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["llama"], tmp_path / "llama"))


def edit(path: Path, **changes: object) -> None:
    files.write_json(
        path, (json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}) | changes
    )


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_as_transformers_loads_it(folders: dict[str, Path], family: str) -> None:
    found = load.load(folders[family])
    wanted = AutoModelForCausalLM.from_pretrained(folders[family]).eval()
    torch.testing.assert_close(logits(found.model), logits(wanted), rtol=0, atol=1e-5)
    with torch.no_grad():
        next(wanted.parameters()).mul_(1.1)  # twin: other weights are seen
    assert (logits(found.model) - logits(wanted)).abs().max() > 1e-4
    assert found.name == family and found.path == folders[family]
    assert not found.model.training and not any(p.requires_grad for p in found.model.parameters())
    assert found.model.config._attn_implementation == "sdpa"
    text = "jab dec"
    assert found.tokenizer.decode(found.tokenizer(text, add_special_tokens=False).input_ids) == text


def test_weights_come_in_the_dtype_asked_for(folders: dict[str, Path]) -> None:
    found = load.load(folders["llama"], dtype="bfloat16")
    assert {p.dtype for p in found.model.parameters()} == {torch.bfloat16}
    assert (
        logits(found.model).float() - logits(load.load(folders["llama"]).model)
    ).abs().max() < 0.05
    with pytest.raises(UserError, match="dtype = float16: expected one of float32, bfloat16"):
        load.load(folders["llama"], dtype="float16")


def test_a_run_of_ours_loads_and_predicts_the_same(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_project)
    run = tiny.tiny_run(steps=2)
    loop.train(run)
    found = load.load(keys.run_folder(run))
    with torch.no_grad():
        wanted = loop.load_model(run)(TOKENS[:, :16])
        torch.testing.assert_close(
            found.model(input_ids=TOKENS[:, :16]).logits, wanted, rtol=0, atol=1e-4
        )
    assert len(found.tokenizer) == tiny.VOCABULARY
    narrow = load.load(keys.run_folder(run), dtype="bfloat16")
    assert {p.dtype for p in narrow.model.parameters()} == {torch.bfloat16}
    for loaded in (found, narrow):
        assert all(finding.ok for finding in rope_check.check(loaded))
    narrow.model.to(torch.bfloat16)  # twin: frequencies that are cast as well are found
    assert sum(not finding.ok for finding in rope_check.check(narrow)) >= 2
    encoder = tiny.tiny_run(kind="encoder", steps=2)
    loop.train(encoder)
    with pytest.raises(UserError, match="kind = encoder: expected a decoder"):
        load.load(keys.run_folder(encoder))


def describe(
    writer: Any, hf: Path, config: PretrainedConfig, *, base: float = 50_000.0, context: int = 64
) -> None:
    """Write what a GGUF file says of a small model's shape, base and tokenizer."""
    writer.add_context_length(context)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(base)
    writer.add_vocab_size(tiny.VOCABULARY)
    kept = json.loads((hf / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    writer.add_tokenizer_model("gpt2")
    words = sorted(kept["vocab"], key=kept["vocab"].get)
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges([" ".join(pair) for pair in kept["merges"]])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)


def add_weights(
    writer: Any, model: torch.nn.Module, *, paired: bool = True, dtype: Any = None
) -> None:
    """Add a model's weights under GGUF's names.

    Llama's q and k rows stand in pairs of neighbours, as that format has them.
    """
    parts = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    parts |= {f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"} | {
        "self_attn.o_proj": "attn_output"
    }
    parts |= {f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")}
    ends = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, weight in model.state_dict().items():
        inner, _, kind = name.rpartition(".")
        layer, _, part = inner.removeprefix("model.layers.").partition(".")
        turned = paired and part.endswith(("q_proj", "k_proj")) and kind == "weight"
        rows = weight.view(2, 2, 8, 32).transpose(1, 2).reshape(32, 32) if turned else weight
        named = ends.get(inner) or f"blk.{layer}.{parts[part]}"
        numbers, how = rows.contiguous().numpy(), {}
        if dtype is not None and numbers.ndim == 2 and numbers.shape[1] % 32 == 0:
            numbers, how = gguf.quants.quantize(numbers, dtype), {"raw_dtype": dtype}
        writer.add_tensor(f"{named}.{kind}", numbers, **how)


def write_gguf(path: Path, hf: Path, paired: bool = True, dtype: Any = None) -> Path:
    """Write a Llama folder as GGUF; dtype: GGML's type of matrices."""
    model = AutoModelForCausalLM.from_pretrained(hf)
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer, hf, model.config)
    add_weights(writer, model, paired=paired, dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.filterwarnings("ignore")
def test_a_gguf_file_loads_and_becomes_a_folder(copy: Path, tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 50_000.0}
    edit(copy / "config.json", rope_parameters=rope)
    wanted = logits(AutoModelForCausalLM.from_pretrained(copy).eval())
    (tmp_path / "gguf").mkdir()
    file = write_gguf(tmp_path / "gguf" / "toy.gguf", copy)
    found = load.load(file.parent)
    assert found.name == "toy" and found.model.config.rope_parameters == rope
    torch.testing.assert_close(logits(found.model), wanted, rtol=0, atol=1e-5)
    twin = write_gguf(tmp_path / "twin.gguf", copy, paired=False)
    assert (logits(load.load(twin).model) - wanted).abs().max() > 1e-4
    load.convert_gguf(file, tmp_path / "out")
    again = load.load(tmp_path / "out", dtype="bfloat16")
    torch.testing.assert_close(logits(again.model).float(), wanted, rtol=0, atol=0.05)
    text = "jab dec"
    assert again.tokenizer.decode(again.tokenizer(text, add_special_tokens=False).input_ids) == text
    mask = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert mask == {file.stat().st_mode & 0o777}  # readable as the umask says
    written = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert written["rope_theta"] == 50_000.0  # where transformers 4 looks for it
    tokens = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokens["model_max_length"] == 64


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def bert(folder: Path) -> None:
    edit(folder / "config.json", model_type="bert")


def text_as_weights(folder: Path) -> None:
    files.write_atomic(folder / "model.safetensors", b"not tensors")


def other_width(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=40)


def more_layers(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=3)


def gguf_of_text(folder: Path) -> None:
    (folder / "config.json").unlink()
    files.write_atomic(folder / "model.gguf", b"text")


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (shutil.rmtree, "llama: expected a folder"),
        (remove("config.json"), "llama: neither config.json nor a GGUF file: expected"),
        (remove("tokenizer.json"), r"llama: no tokenizer: expected tokenizer\.json"),
        (remove("model.safetensors"), r"llama: no weights: expected model\.safetensors"),
        (
            lambda folder: files.write_atomic(folder / "config.json", "{"),
            r"config\.json: expected JSON",
        ),
        (
            lambda folder: files.write_atomic(folder / "config.json", "[]"),
            r"config\.json: expected a JSON object",
        ),
        (
            lambda folder: files.write_atomic(folder / "tokenizer.json", "{"),
            "tokenizer cannot be loaded",
        ),
        (
            lambda folder: edit(folder / "adapter_config.json", r=8),
            "expected whole weights, not an adapter",
        ),
        (
            bert,
            r"config\.json: model_type = 'bert': a masked model, which writes no text: "
            r"expected one of llama, qwen2, qwen3, mistral, gpt2, gpt_neox",
        ),
        (text_as_weights, r"model\.safetensors: expected safetensors: "),
        (
            other_width,
            r"gate_proj\.weight: shape \[48, 32\]: expected \[40, 32\], as the configuration says",
        ),
        (more_layers, r"config\.json: num_hidden_layers = 3: expected 2, as the weights have"),
        (gguf_of_text, r"model\.gguf: expected a GGUF file"),
    ],
)
def test_what_is_missing_or_damaged_is_one_line(
    copy: Path, damage: Callable[[Path], None], line: str
) -> None:
    load.load(copy)  # twin: sound before
    damage(copy)
    with pytest.raises(UserError, match=line) as error:
        load.load(copy)
    assert "\n" not in str(error.value)


def test_the_unpacked_checkpoint_is_sound(root: Path) -> None:
    if not (root / "build" / "smollm2" / "config.json").is_file():
        pytest.skip("stage smollm2 has not run")
    found = load.load(root / "build" / "smollm2", dtype="bfloat16")
    assert sum(p.numel() for p in found.model.parameters()) == 134_515_008  # as published
    ids = found.tokenizer(
        "To be, or not to be, that is the question: Whether", return_tensors="pt"
    ).input_ids
    with torch.inference_mode():
        scores = found.model(ids).logits.float()[0]
    loss = torch.nn.functional.cross_entropy(scores[:-1], ids[0, 1:])
    shuffled = torch.nn.functional.cross_entropy(scores[:-1], ids[0, 1:].flip(0))
    assert loss + 2 < shuffled
