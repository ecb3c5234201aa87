"""What extending writes: right for every reader, from the true origin, without loading weights."""

import json
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import test_extend
import test_load
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPTNeoXConfig, MistralConfig, Qwen2Config

from farcontext import files
from farcontext.checkpoints import extend, load, probe, rope_check
from farcontext.checkpoints.extend import Tuning
from farcontext.checkpoints.extension import edit, folder, tuning
from farcontext.checkpoints.rope.sections import parse, reach
from farcontext.checkpoints.unloaded import runtimes
from farcontext.files import UserError

TRAINED = test_extend.TRAINED
SHAPE = test_extend.SHAPE | test_extend.SIZES
L31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
L31 |= {"original_max_position_embeddings": 8192}
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, tiny_project: Path) -> object:
    return load.wrapped(test_extend.load_tokenizer(tiny_project / "build" / "tokenizer"))


@pytest.fixture
def make(tokenizer: object, tmp_path: Path) -> Make:
    """Return a function that saves a small model, its config.json changed afterwards."""

    def made(kind: Any = test_extend.LlamaConfig, /, **changes: Any) -> Path:
        dtype = changes.pop("saved", torch.float32)
        grouped = {} if kind is GPTNeoXConfig else {"num_key_value_heads": 2}
        config = kind(**SHAPE, **grouped)
        path = test_extend.save(config, tokenizer, tmp_path / "in", dtype)
        kept = config_of(path)
        kept.pop("rope_parameters")
        files.write_json(path / "config.json", kept | {"rope_theta": 10_000.0} | changes)
        return path

    return made


def config_of(path: Path) -> dict[str, Any]:
    return json.loads((path / "config.json").read_text(encoding="utf-8"))


def faults(path: Path) -> list[str]:
    return [f.name for f in rope_check.check(load.load(path)) if not f.ok]


def extended(source: Path, out: Path, scheme: str, factor: float = 4.0, **more: Any) -> dict:
    extend.extend(source, out, scheme=scheme, factor=factor, **{"measure": 0} | more)
    return config_of(out)


def test_both_spellings_hold_the_same(make: Make, tmp_path: Path) -> None:
    source = make(Qwen2Config, rope_theta=1e6, rope_scaling=None, torch_dtype="bfloat16")
    found = extended(source, tmp_path / "out", "yarn")
    wanted = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}
    assert found["rope_scaling"] == wanted | {"original_max_position_embeddings": TRAINED}
    assert found["rope_scaling"] == found["rope_parameters"] and found["rope_theta"] == 1e6
    assert faults(tmp_path / "out") == []


def test_gpt_neox_has_its_own_names(make: Make, tmp_path: Path) -> None:
    source = make(GPTNeoXConfig, rotary_pct=0.25, rotary_emb_base=10_000)
    found = extended(source, tmp_path / "out", "ntk")
    assert found["rotary_emb_base"] == pytest.approx(160_000)  # 10000 · 4^(4/2)
    assert found["rotary_emb_base"] == found["rope_parameters"]["rope_theta"]
    assert found["rotary_pct"] == 0.25 and faults(tmp_path / "out") == []


def test_the_tokenizers_limit_is_the_window(make: Make, tmp_path: Path) -> None:
    source = make()
    test_load.edit(source / "tokenizer_config.json", model_max_length=TRAINED)
    for scheme in ("yarn", "dynamic_ntk_hf"):
        extended(source, tmp_path / scheme, scheme)
        kept = json.loads((tmp_path / scheme / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert kept["model_max_length"] == 4 * TRAINED
        kept = json.loads((tmp_path / scheme / "generation_config.json").read_text("utf-8"))
        assert kept["max_length"] == 4 * TRAINED


# ------------------------------------------------------------------------------------- the origin


def test_llama_31_goes_on_from_its_original_length(make: Make, tmp_path: Path) -> None:
    source = make(rope_theta=500_000.0, max_position_embeddings=131072, rope_scaling=L31)
    found = extended(source, tmp_path / "out", "llama3", 2.0)
    assert found["rope_scaling"] == L31 | {"factor": 16.0, "rope_theta": 500_000.0}
    assert found["max_position_embeddings"] == 262144 and faults(tmp_path / "out") == []
    # llama.cpp's converter looks for it there, and takes 8,192 where it finds none.
    assert found["original_max_position_embeddings"] == 8192
    line = r"ships with rope_type = llama3 \(factor 8, from 8192 tokens\), .*: expected scheme = l"
    with pytest.raises(UserError, match=line):
        extended(source, tmp_path / "no", "yarn")
    with pytest.raises(UserError, match="trained_length = 8192: expected none"):
        extended(source, tmp_path / "no", "llama3", trained_length=8192)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, []),
        ({"attention_factor": 1.138629436}, []),  # It is YaRN's own, and follows the factor.
        ({"attn_factor": 0.878}, ["attn_factor = 0.878 of the configuration before is left out"]),
        ({"attention_factor": 1.0}, ["attention_factor = 1.0 of the configuration before is left"]),
    ],
)
def test_an_amplitude_that_does_not_go_on_is_said(
    make: Make, tmp_path: Path, more: dict[str, float], said: list[str]
) -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    keys = {"rope_theta": 1e6, "max_position_embeddings": 131072, "rope_scaling": yarn | more}
    report = edit.edit(make(Qwen2Config, **keys), tmp_path / "out", edit.Request("yarn", 2.0))
    assert len(report["warnings"]) == len(said)
    assert all(map(str.startswith, report["warnings"], said))


@pytest.mark.parametrize("window", [32768, 131072])
def test_qwens_yarn_goes_on_from_its_original_length(
    make: Make, tmp_path: Path, window: int
) -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    source = make(Qwen2Config, rope_theta=1e6, max_position_embeddings=window, rope_scaling=yarn)
    found = extended(source, tmp_path / "out", "yarn", 2.0)
    assert found["rope_scaling"]["factor"] == 8.0
    assert found["rope_scaling"]["original_max_position_embeddings"] == 32768
    assert found["max_position_embeddings"] == 262144 and faults(tmp_path / "out") == []


def test_the_trained_length_stands_where_llama_cpp_looks(make: Make, tmp_path: Path) -> None:
    source, key = make(rope_theta=500_000.0), "original_max_position_embeddings"
    first = extended(source, tmp_path / "first", "llama3")
    assert first[key] == TRAINED != 8192
    reading = runtimes.llama_cpp(first, parse(first))
    assert reading.rotations[""].trained == TRAINED
    for scheme in ("yarn", "linear", "ntk"):  # What a later scheme does not use is taken away.
        then = extended(tmp_path / "first", tmp_path / scheme, scheme, 2.0)
        assert then.get(key) == (TRAINED if scheme == "yarn" else None)
        assert faults(tmp_path / scheme) == []


def test_a_window_by_chunks_is_not_extended(make: Make, tmp_path: Path) -> None:
    chunks = {"chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144}
    keys = {"rope_theta": 1e7, "max_position_embeddings": 1_010_000}
    source = make(Qwen2Config, **keys, dual_chunk_attention_config=chunks)
    line = "dual_chunk_attention_config: .* 1010000 .*without this key, and --trained-length 262144"
    with pytest.raises(UserError, match=line):
        extended(source, tmp_path / "out", "yarn")
    raw = config_of(source)
    raw.pop("dual_chunk_attention_config")
    files.write_json(source / "config.json", raw)
    found = extended(source, tmp_path / "out", "yarn", trained_length=262144)
    assert found["max_position_embeddings"] == 4 * 262144


@pytest.mark.parametrize("first", ["ntk", "abf", "yarn", "linear", "dynamic_ntk_hf", "llama3"])
def test_what_was_extended_counts_from_its_true_origin(
    make: Make, tmp_path: Path, first: str
) -> None:
    source = make()
    extended(source, tmp_path / "a", first)
    found = extended(tmp_path / "a", tmp_path / "b", "yarn", 2.0)
    assert found["rope_scaling"]["original_max_position_embeddings"] == TRAINED
    assert found["rope_scaling"]["factor"] == 8.0 and found["rope_theta"] == 10_000.0
    assert found["max_position_embeddings"] == 8 * TRAINED
    straight = extended(source, tmp_path / "c", "yarn", 8.0)
    assert straight["rope_scaling"] == found["rope_scaling"]
    again = extended(tmp_path / "b", tmp_path / "d", "yarn", 2.0)
    assert again["rope_scaling"]["factor"] == 16.0


def test_what_was_tuned_keeps_its_scheme(make: Make, tmp_path: Path, monkeypatch: Any) -> None:
    text = tmp_path / "text.txt"
    files.write_atomic(text, "a cat and a dog sat on the mat. " * 60)
    source = make()
    how = {"tuning": Tuning(text, steps=1, length=16)}
    extended(source, tmp_path / "a", "ntk", **how)
    with pytest.raises(
        UserError, match=r"tuned with ntk: expected scheme = ntk, or the checkpoint"
    ):
        extended(tmp_path / "a", tmp_path / "b", "yarn", 2.0)
    extended(tmp_path / "a", tmp_path / "c", "ntk", 2.0)
    with pytest.raises(UserError, match="tuned with ntk"):  # however often since
        extended(tmp_path / "c", tmp_path / "d", "yarn", 2.0)


def test_a_report_without_a_base_is_refused(make: Make, tmp_path: Path) -> None:
    source = make()
    extended(source, tmp_path / "a", "ntk")
    kept = files.read_json(tmp_path / "a" / extend.REPORT)
    del kept["origin"]
    files.write_json(tmp_path / "a" / extend.REPORT, kept)
    with pytest.raises(UserError, match="by a version that kept no base"):
        extended(tmp_path / "a", tmp_path / "b", "yarn")


def test_the_trained_length_may_be_told(make: Make, tmp_path: Path) -> None:
    found = extended(make(), tmp_path / "out", "yarn", trained_length=16)
    assert found["rope_scaling"]["original_max_position_embeddings"] == 16
    assert found["max_position_embeddings"] == 64


def test_local_attention_in_every_layer_is_said(make: Make, tmp_path: Path) -> None:
    source = make(MistralConfig, sliding_window=8)
    report = extend.extend(source, tmp_path / "out", scheme="yarn", factor=4, measure=0)
    assert "local attention of 8 tokens in every layer" in report["warnings"][0]
    assert "warning: local attention" in "\n".join(edit.lines(report, tmp_path / "out"))
    files.write_json(source / "config.json", config_of(source) | {"sliding_window": None})
    report = extend.extend(source, tmp_path / "wide", scheme="yarn", factor=4, measure=0)
    assert report["warnings"] == []


@pytest.mark.parametrize("scheme", ["dynamic_ntk_hf", "yarn"])
def test_what_was_extended_can_be_probed_as_far_as_it_reaches(
    make: Make, tmp_path: Path, scheme: str
) -> None:
    extended(make(), tmp_path / "out", scheme)
    config = load.load(tmp_path / "out").model.config
    assert reach(config) == 4 * TRAINED
    assert probe._lengths(load.load(tmp_path / "out"), probe.Options((TRAINED, 4 * TRAINED)))


# ------------------------------------------------------------------------------------ the weights


def dtypes(path: Path) -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(path / "model.safetensors").values()}


def test_bfloat16_stays_bfloat16(make: Make, tmp_path: Path) -> None:
    source = make(saved=torch.bfloat16)
    (source / "tokenizer_config.json").unlink()
    found = extended(source, tmp_path / "out", "yarn")
    assert found["dtype"] == found["torch_dtype"] == "bfloat16"
    assert dtypes(tmp_path / "out") == {torch.bfloat16}
    sizes = {(p / "model.safetensors").stat().st_size for p in (source, tmp_path / "out")}
    assert len(sizes) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (None, torch.float32),
        (gguf.GGMLQuantizationType.F16, torch.float16),
        (gguf.GGMLQuantizationType.BF16, torch.bfloat16),
        (gguf.GGMLQuantizationType.Q4_0, torch.bfloat16),
    ],
)
def test_a_gguf_file_keeps_its_dtype(
    tmp_path: Path, tiny_project: Path, kind: Any, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(test_load.FAMILIES["llama"]).save_pretrained(tmp_path / "hf")
    words = test_extend.load_tokenizer(tiny_project / "build" / "tokenizer")
    load.wrapped(words).save_pretrained(tmp_path / "hf")
    path = test_load.write_gguf(tmp_path / "toy.gguf", tmp_path / "hf", dtype=kind)
    found = extended(path, tmp_path / "out", "yarn")
    assert dtypes(tmp_path / "out") == {dtype}
    assert found["dtype"] == str(dtype).removeprefix("torch.")
    assert found["rope_theta"] == 50_000.0 and faults(tmp_path / "out") == []


def test_tuning_holds_one_copy_of_the_weights(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, loads = tmp_path / "text.txt", []
    files.write_atomic(text, "a cat and a dog sat on the mat. " * 60)
    real = load.load
    monkeypatch.setattr(load, "load", lambda *a, **k: (loads.append(a), real(*a, **k))[1])
    source = make(saved=torch.bfloat16)
    how = Tuning(text, steps=1, length=16, rows=2, seed=3)
    extended(source, tmp_path / "out", "yarn", tuning=how)
    assert len(loads) == 1 and dtypes(tmp_path / "out") == {torch.bfloat16}
    loads.clear()
    extended(source, tmp_path / "edit", "yarn")
    assert loads == []  # twin: without tuning nothing is loaded


def test_the_seed_draws_the_rows(make: Make, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    files.write_atomic(text, "a cat and a dog sat on the mat. " * 60)
    source, found = make(), {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        how = Tuning(text, steps=2, length=16, lr=1e-3, seed=seed)
        extended(source, tmp_path / name, "yarn", tuning=how)
        found[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert found["a"] == found["b"] != found["c"]
    with pytest.raises(UserError, match="dtype = float16: expected one of float32, bfloat16"):
        tuning.expect_trainable(Tuning(text, dtype="float16"))
    with pytest.raises(UserError, match="seed = -1: expected 0 or more"):
        tuning.expect_trainable(Tuning(text, seed=-1))


def test_large_weights_are_linked_and_the_original_is_safe(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "LINKED", 1)
    source, text = make(), tmp_path / "text.txt"
    before = (source / "model.safetensors").read_bytes()
    extended(source, tmp_path / "out", "yarn")
    assert (tmp_path / "out" / "model.safetensors").samefile(source / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    model.save_pretrained(tmp_path / "out")
    assert (source / "model.safetensors").read_bytes() == before
    files.write_atomic(text, "a cat and a dog sat on the mat. " * 60)
    extended(source, tmp_path / "tuned", "yarn", tuning=Tuning(text, steps=1, length=16))
    assert (source / "model.safetensors").read_bytes() == before

    def crosses(*names: Path) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(folder.os, "link", crosses)
    extended(source, tmp_path / "copied", "yarn")
    assert not (tmp_path / "copied" / "model.safetensors").samefile(source / "model.safetensors")


def test_dynamic_changes_nothing_below_the_trained_length(make: Make, tmp_path: Path) -> None:
    source = make()
    report = extend.extend(source, tmp_path / "out", scheme="dynamic_ntk_hf", factor=4)
    below = [row for row in report["loss"] if row["to"] <= TRAINED]
    beyond = [row for row in report["loss"] if row["from"] >= TRAINED]
    assert below and all(row["before"] == row["after"] for row in below)
    assert beyond and any(row["before"] != row["after"] for row in beyond)


# ------------------------------------------------------------------------------------- 8 B at once

WIDE = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
WIDE |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
WIDE |= {"model_type": "llama", "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
WIDE |= {"max_position_embeddings": 131072, "rope_theta": 500_000.0, "rope_scaling": L31}
WIDE |= {"bos_token_id": 128000, "eos_token_id": 128001, "torch_dtype": "bfloat16"}


@pytest.mark.parametrize("sparse", [True, False])
def test_eight_billion_parameters_are_edited_in_seconds(tmp_path: Path, sparse: bool) -> None:
    """Shards are sparse files of the true size, or empty ones: nothing reads them.

    The peak is this program's own: ru_maxrss counts what the process that started it held, too.
    """
    source, shards = tmp_path / "in", [f"model-0000{n}-of-00004.safetensors" for n in range(1, 5)]
    source.mkdir()
    files.write_json(source / "config.json", WIDE)
    index = {"metadata": {"total_size": 16_060_522_496}}
    index["weight_map"] = {f"model.layers.{n}.mlp.up_proj.weight": shards[n] for n in range(4)}
    files.write_json(source / "model.safetensors.index.json", index)
    for name in shards:
        with (source / name).open("wb") as stream:
            if sparse:
                stream.write(struct.pack("<Q", 2) + b"{}")
                stream.truncate(4_000_000_000)
    program = (
        "import resource, sys, time; start = time.process_time();"
        "from farcontext.app.cli import main\n"
        "try:\n main()\nexcept SystemExit as end:\n assert not end.code, end.code\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "peak = next(x for x in open('/proc/self/status') if x.startswith('VmHWM'))\n"
        "print(peak.split()[1], used.ru_utime + used.ru_stime)"
    )
    command = [sys.executable, "-c", program, "extend", str(source), str(tmp_path / "out")]
    command += ["--scheme", "llama3", "--factor", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kibibytes, seconds = map(float, done.stdout.split()[-2:])
    assert kibibytes < 1 << 20
    assert seconds < 12  # about 3 alone on the machine; tests share it
    assert config_of(tmp_path / "out")["rope_scaling"]["factor"] == 16.0
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
    shutil.rmtree(tmp_path / "out")
