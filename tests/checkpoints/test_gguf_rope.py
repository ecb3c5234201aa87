"""A GGUF file's own scaling of RoPE is read and applied, or the file is refused by name."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import test_load
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from farcontext.checkpoints import extend, load, rope_check
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError

SHAPE = test_load.SHAPE | {"hidden_size": 32, "max_position_embeddings": 131072}
SHAPE |= {"num_key_value_heads": 2}
L31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
L31 |= {"original_max_position_embeddings": 8192, "rope_theta": 500_000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
YARN |= {"rope_theta": 1e6}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}
Write = Callable[[gguf.GGUFWriter], None]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_project: Path) -> Callable[..., Path]:
    """Return a function that saves a model as a folder and as a GGUF file beside it."""
    tokenizer = load.wrapped(load_tokenizer(tiny_project / "build" / "tokenizer"))

    def make(rope: dict[str, Any], add: Write, *, kind: Any = LlamaConfig, base: float = 0) -> Path:
        folder = tmp_path_factory.mktemp("gguf")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(kind(**SHAPE, rope_parameters=dict(rope)))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(float(parameter.ndim == 1), 0.1)
        model.save_pretrained(folder / "hf")
        tokenizer.save_pretrained(folder / "hf")
        arch = "llama" if kind is LlamaConfig else "qwen2"
        return write(folder / "toy.gguf", folder / "hf", arch, base or rope["rope_theta"], add)

    return make


def write(path: Path, hf: Path, arch: str, base: float, add: Write) -> Path:
    """Write a folder as GGUF, as llama.cpp's converter does; `add` writes its own keys."""
    model = AutoModelForCausalLM.from_pretrained(hf)
    writer = gguf.GGUFWriter(path, arch)
    test_load.describe(writer, hf, model.config, base=base, context=131072)
    add(writer)
    test_load.add_weights(writer, model, paired=arch == "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def scaling(kind: str, factor: float, original: int | None = None, **more: float) -> Write:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_string(f"{writer.arch}.rope.scaling.type", kind)
        writer.add_rope_scaling_factor(factor)
        if original:
            writer.add_rope_scaling_orig_ctx_len(original)
        for key, value in more.items():
            writer.add_float32(f"{writer.arch}.rope.scaling.{key}", value)

    return add


def tensors(**named: np.ndarray) -> Write:
    def add(writer: gguf.GGUFWriter) -> None:
        for name, values in named.items():
            writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    return add


def llama31() -> np.ndarray:
    """Return the divisors that llama.cpp's converter writes for Llama 3.1, at H = 16."""
    waves = 2 * math.pi * 500_000.0 ** (np.arange(0, 16, 2) / 16)
    smooth = (8192 / waves - 1) / 3
    between = 1 / ((1 - smooth) / 8 + smooth)
    return np.where(waves < 2048, 1, np.where(waves > 8192, 8, between))


CASES = {
    "Llama 3.1": (L31, tensors(rope_freqs=llama31()), LlamaConfig),
    "Qwen2.5 with YaRN": (YARN, scaling("yarn", 4.0, 32768), Qwen2Config),
    "YaRN with its own amplitude": (
        YARN | {"attention_factor": 0.5 * (0.1 * math.log(4) + 1)},
        scaling("yarn", 4.0, 32768, attn_factor=0.5),
        Qwen2Config,
    ),
    "LLaMA-2-7B-32K": (LINEAR, scaling("linear", 8.0), LlamaConfig),
    "no scaling": ({"rope_type": "default", "rope_theta": 5e5}, scaling("none", 8.0), LlamaConfig),
    "other divisors": (
        {"rope_type": "longrope", "rope_theta": 1e4, "attention_factor": 1.0, "factor": 1.0}
        | {"original_max_position_embeddings": 131072}
        | {"short_factor": [1.0, 1.5, 2, 3, 4, 5, 6, 40.0]}
        | {"long_factor": [1.0, 1.5, 2, 3, 4, 5, 6, 40.0]},
        tensors(rope_freqs=np.array([1.0, 1.5, 2, 3, 4, 5, 6, 40.0])),
        LlamaConfig,
    ),
    "LongRoPE": (
        {"rope_type": "longrope", "rope_theta": 1e4, "attention_factor": 1.19}
        | {"original_max_position_embeddings": 64, "short_factor": [1.1] * 8}
        | {"long_factor": [1.0, 1.2, 1.5, 2, 4, 8, 16, 32]},
        lambda writer: (
            scaling("longrope", 1.0, 64, attn_factor=1.19)(writer),
            tensors(
                rope_factors_long=np.array([1.0, 1.2, 1.5, 2, 4, 8, 16, 32]),
                rope_factors_short=np.full(8, 1.1),
            )(writer),
        ),
        LlamaConfig,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_scaling_is_applied_and_the_check_reads_the_file(
    made: Callable[..., Path], name: str
) -> None:
    rope, add, kind = CASES[name]
    path = made(rope, add, kind=kind)
    found = load.load(path)
    wanted = AutoModelForCausalLM.from_pretrained(path.parent / "hf").eval()
    tokens = torch.randint(4, 256, (1, 100), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = (model(input_ids=tokens).logits for model in (found.model, wanted))
        assert (one - other).abs().max() < 1e-4
        plain = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
        if rope["rope_type"] != "default":  # twin: scaling shows in the logits
            wanted.config.rope_parameters = plain
            wanted.model.rotary_emb = type(wanted.model.rotary_emb)(wanted.config)
            assert (wanted(input_ids=tokens).logits - one).abs().max() > 1e-3
    findings = rope_check.check(found)
    assert "frequencies of the file" in {f.name for f in findings}
    wrong = [f.name for f in findings if not f.ok]
    assert set(wrong) <= {"original_max_position_embeddings × factor"}, wrong


def test_the_check_compares_with_the_file_and_not_with_the_model(
    made: Callable[..., Path],
) -> None:
    """Whatever the model's own configuration says, the file's keys stand against it."""
    rope, add, kind = CASES["Llama 3.1"]
    found = load.load(made(rope, add, kind=kind))
    plain = found.model.config.__class__.from_dict(found.model.config.to_dict())
    plain.rope_parameters = {"rope_type": "default", "rope_theta": 500_000.0}
    found.model.config.rope_parameters = dict(plain.rope_parameters)
    found.model.model.rotary_emb = type(found.model.model.rotary_emb)(plain)
    bad = {f.name: f for f in rope_check.check(found) if not f.ok}
    assert "frequencies of the file" in bad and "model.rotary_emb: frequencies" in bad


@pytest.mark.parametrize(
    ("add", "line"),
    [
        (scaling("ntk", 4.0), r"llama\.rope\.scaling\.type = 'ntk': expected one of none, linear"),
        (scaling("longrope", 1.0, 64), r"type = longrope: expected rope_factors_long\.weight"),
        (scaling("linear", 4.0, beta=3.0), r"llama\.rope\.scaling\.beta = 3\.0: expected one of"),
        (scaling("yarn", 4.0, 64, yarn_log_multiplier=0.7), r"yarn_log_multiplier = 0\.69"),
        (scaling("yarn", -4.0, 64), r"scaling\.factor = -4\.0: expected a number above 0"),
        (tensors(rope_freqs=np.zeros(8)), r"rope_freqs\.weight: expected numbers above 0"),
        (
            lambda writer: (
                scaling("yarn", 4.0, 64)(writer),
                tensors(rope_freqs=np.full(8, 2.0))(writer),
            ),
            r"rope_freqs\.weight and llama\.rope\.scaling\.type = yarn: expected one of them",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(
    made: Callable[..., Path], add: Write, line: str
) -> None:
    path = made(LINEAR | {"rope_type": "default"}, add)
    with pytest.raises(UserError, match=line) as caught:
        load.load(path)
    assert "\n" not in str(caught.value)


def test_a_scaled_file_is_extended_from_its_original_length(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    rope, add, kind = CASES["Qwen2.5 with YaRN"]
    path = made(rope, add, kind=kind)
    report = extend.extend(path, tmp_path / "out", scheme="yarn", factor=2, measure=0)
    assert report["trained_length"] == 32768 and report["max_position_embeddings"] == 262144
    assert report["rope_parameters"] == rope | {"factor": 8.0}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # as in the file
    shutil.rmtree(tmp_path / "out")
