"""A checkpoint that contradicts itself, or is damaged anywhere, is one line and builds nothing."""

import json
import random
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import test_load
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from farcontext import files
from farcontext.checkpoints import ask, extend, headers, load, rope_check
from farcontext.checkpoints.token_losses import token_losses
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.train import kept, keys, loop


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, tiny_project: Path) -> Path:
    """A small Llama."""
    made = tmp_path_factory.mktemp("headers") / "llama"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(test_load.FAMILIES["llama"]).save_pretrained(made)
    load.wrapped(load_tokenizer(tiny_project / "build" / "tokenizer")).save_pretrained(made)
    return made


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "llama"))


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        rope_check.check(load.load(folder))
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


WRONG = (0, -1, "8", [1], {}, 1.5, True)
COUNTS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
COUNTS += ("head_dim", "intermediate_size", "vocab_size", "max_position_embeddings")


@pytest.mark.parametrize("key", COUNTS)
def test_a_size_that_no_model_has_is_named(copy: Path, key: str) -> None:
    for value in WRONG:
        test_load.edit(copy / "config.json", **{key: value})
        refused(copy, f"config.json: {key} = ", "expected")
    if key not in ("num_key_value_heads", "head_dim"):  # these may be left out by null
        test_load.edit(copy / "config.json", **{key: None})
        refused(copy, f"config.json: {key} = None: expected an integer ≥ 1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("quantization_config", value) for value in ([1], {"quant_method": "x"}, 3, True)),
        *(("rope_parameters", value) for value in (3, [1], "x", {"rope_theta": 0})),
        *(("rope_theta", value) for value in (0, [1], {}, "8")),
        *(("rope_parameters", {"rope_type": "yarn", "factor": value}) for value in (0, -1, "8")),
        *(("rms_norm_eps", value) for value in (0, None, "8")),
        *(("id2label", value) for value in (1, [1], "x")),
        *(("dtype", value) for value in ("8", [1])),
        *(("layer_types", value) for value in (1, {}, "x")),
        ("pad_token_id", 10**9),
        ("tie_word_embeddings", 3),
        ("num_key_value_heads", 3),
        ("head_dim", 7),
    ],
    ids=str,
)
def test_a_setting_of_a_wrong_kind_is_named(copy: Path, key: str, value: object) -> None:
    test_load.edit(copy / "config.json", **{key: value})
    refused(copy, f"config.json: {'' if key == 'num_key_value_heads' else key}", "expected")


@pytest.mark.parametrize("key", COUNTS)
def test_a_thousand_million_of_anything_builds_nothing(copy: Path, key: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    test_load.edit(copy / "config.json", **{key: 10**9, "num_key_value_heads": None} | {key: 10**9})
    if key == "max_position_embeddings":  # RoPE needs no table
        load.load(copy)
    else:
        refused(copy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_layers_are_counted_in_the_weights(copy: Path) -> None:
    test_load.edit(copy / "config.json", num_hidden_layers=10**9)
    refused(copy, "config.json: num_hidden_layers = 1000000000: expected 2, as the weights have")


def test_the_first_tensor_of_another_shape_is_named_with_both(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(31)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, "model.safetensors: model.norm.weight: shape [31]: expected [32]")


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_tensor_too_few_or_too_many_is_named(copy: Path, change: str) -> None:
    weights = load_file(copy / "model.safetensors")
    if change == "missing":
        del weights["model.norm.weight"]
    else:
        weights["model.other.weight"] = torch.ones(3)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, {"missing": "model.norm.weight", "extra": "model.other.weight"}[change])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_weights_that_are_no_numbers_are_named(copy: Path, name: str, value: float) -> None:
    weights = load_file(copy / "model.safetensors")
    weights[name].view(-1)[-1] = value
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, f"{name}: NaN or infinity: expected numbers")
    # An edit of the configuration alone reads no weights; one whose loss is measured does.
    with pytest.raises(UserError, match="NaN or infinity"):
        extend.extend(copy, copy.parent / "out", scheme="yarn", factor=2, measure=1)
    assert not (copy.parent / "out").exists()


def test_scores_that_overflow_are_one_line(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"].fill_(3e38)
    weights["model.norm.weight"].fill_(3e38)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    loaded = load.load(copy)
    for call in (
        lambda: token_losses(loaded.model, [4, 5, 6, 7]),
        lambda: "".join(ask.write(loaded, [4, 5, 6], 3)),
        lambda: ask.cost_of(loaded, [4, 5], [6, 7]),
    ):
        with pytest.raises(UserError, match="scores hold NaN or infinity"):
            call()


def test_tokens_beyond_the_model_are_named_with_both_sizes(copy: Path) -> None:
    kept = files.read_json(copy / "tokenizer.json")
    kept["model"]["vocab"] = {word: i + 4000 for word, i in kept["model"]["vocab"].items()}
    files.write_json(copy / "tokenizer.json", kept | {"added_tokens": []})
    refused(copy, "tokens up to 4263", "264 embeddings")


def test_an_added_token_beyond_the_model_is_refused_where_a_text_holds_it(copy: Path) -> None:
    kept = files.read_json(copy / "tokenizer.json")
    more = kept["added_tokens"][0] | {"id": 264, "content": "[MORE]"}
    files.write_json(
        copy / "tokenizer.json", kept | {"added_tokens": [*kept["added_tokens"], more]}
    )
    loaded = load.load(copy)
    files.write_atomic(copy.parent / "a.txt", "jab dec [MORE] abc")
    with pytest.raises(UserError, match=r"token 264: .*expected tokens up to 263"):
        ask.end_of(loaded, copy.parent / "a.txt", 64, 10)
    files.write_atomic(copy.parent / "a.txt", "jab dec abc")  # twin
    assert ask.end_of(loaded, copy.parent / "a.txt", 64, 10)


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ("x " * 10_000, "the question has"),
        (" \n ", "expected some words"),
        ("a\udcff", "expected UTF-8"),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_line(copy: Path, question: str, line: str) -> None:
    files.write_atomic(copy.parent / "a.txt", "jab dec abc")
    with pytest.raises(UserError, match=line) as caught:
        ask.prompt_of(load.load(copy), copy.parent / "a.txt", question, 64, 10)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------- safetensors


def with_header(path: Path, change: Callable[[dict], object]) -> None:
    """Rewrite a file with another header before the same data."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode("utf-8")
    files.write_atomic(path, struct.pack("<Q", len(text)) + text + data[8 + size :])


NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header[NORM].update(data_offsets=header[EMBED]["data_offsets"]),
        lambda header: header[NORM].update(data_offsets=[0, 10**12]),
        lambda header: header[NORM].update(dtype="I32"),
        lambda header: header[NORM].update(dtype="F16"),
        lambda header: header[NORM].update(dtype="nothing"),
        lambda header: header[NORM].update(shape=[10**18, 10**18]),
        lambda header: header[NORM].update(shape=[-1]),
        lambda header: header.update({NORM: 3}),
        lambda header: header.pop(NORM),
    ],
)
def test_a_damaged_header_of_safetensors_is_one_line(copy: Path, change: Callable) -> None:
    with_header(copy / "model.safetensors", change)
    refused(copy)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_any_length_is_one_line(copy: Path, length: int) -> None:
    data = (copy / "model.safetensors").read_bytes()
    files.write_atomic(copy / "model.safetensors", struct.pack("<Q", length) + data[8:])
    refused(copy, "model.safetensors: expected safetensors")


# --------------------------------------------------------------------------------------------- GGUF


@pytest.fixture(scope="module")
def gguf(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return test_load.write_gguf(tmp_path_factory.mktemp("gguf") / "toy.gguf", sound)


def damaged(data: bytes, header: int, draws: random.Random, number: int) -> bytes:
    """Cut, or change one bit, one byte or one length of the header."""
    at = draws.randrange(header)
    match number % 4:
        case 0:
            return data[: draws.randrange(header if number % 8 else len(data))]
        case 1:
            return data[:at] + bytes([data[at] ^ 1 << draws.randrange(8)]) + data[at + 1 :]
        case 2:
            at = draws.randrange(min(header, 1500))
            return data[:at] + draws.randbytes(1) + data[at + 1 :]
        case _:
            many = draws.choice([b"\xff" * 8, draws.randbytes(8)])
            return data[:at] + many + data[at + 8 :]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(4))
def test_a_gguf_file_damaged_anywhere_is_one_line_or_works(
    gguf: Path, tmp_path: Path, part: int
) -> None:
    data, draws, lines = gguf.read_bytes(), random.Random(part), 0
    _, tensors = headers.gguf_header(gguf)
    header = len(data) - sum(4 * torch.Size(one.shape).numel() for one in tensors.values())
    load.load(gguf)
    for number in range(80):
        files.write_atomic(tmp_path / "toy.gguf", damaged(data, header, draws, number))
        try:
            rope_check.check(load.load(tmp_path / "toy.gguf"))
        except UserError as error:
            assert "\n" not in str(error) and "toy.gguf" in str(error)
            lines += 1
    assert lines > 40


@pytest.mark.parametrize(
    "data", [b"", b"G", b"GGUF", b"GGUF\3\0\0\0", b"GGUF\1\0\0\0" + b"\0" * 99]
)
def test_a_gguf_file_that_ends_early_is_one_line(tmp_path: Path, data: bytes) -> None:
    files.write_atomic(tmp_path / "a.gguf", data)
    refused(tmp_path / "a.gguf", "a.gguf", "expected")


def test_layers_of_a_gguf_file_are_counted_before_they_are_built(
    gguf: Path, tmp_path: Path
) -> None:
    key = b"llama.block_count"
    data = gguf.read_bytes()
    at = data.index(key) + len(key) + 4
    files.write_atomic(tmp_path / "a.gguf", data[:at] + struct.pack("<I", 10**9) + data[at + 4 :])
    refused(tmp_path / "a.gguf", "llama.block_count = 1000000000: expected 2, as the weights have")


# ------------------------------------------------------------------------------------- our own runs


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"layers": 10**9}, "layers = 1000000000: expected 1"),
        ({"width": 32}, r"shape \[264, 16\]: expected \[264, 32\]"),
        ({"mlp_width": 10**9}, "shape"),
        ({"heads": 0}, "heads = 0: expected an integer ≥ 1"),
    ],
)
def test_a_run_whose_configuration_is_another_is_one_line(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: dict, line: str
) -> None:
    monkeypatch.chdir(tiny_project)
    run = tiny.tiny_run(steps=2)
    loop.train(run)
    folder = Path(shutil.copytree(keys.run_folder(run), tmp_path / "run"))
    config = files.read_json(folder / "config.json")
    changed = config | {"model": config["model"] | change}
    files.write_json(folder / "config.json", changed)
    # Whoever changed the configuration changed its hash too.
    trained = kept.read_sealed(folder / kept.ORIGIN)
    trained["config"] = files.sha256_json(changed)
    kept.write_sealed(folder / kept.ORIGIN, trained)
    with pytest.raises(UserError, match=line) as caught:
        load.load(folder)
    assert "\n" not in str(caught.value)
