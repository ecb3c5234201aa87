"""transformers loads extended folders as they are, and our decoder agrees.

Nothing is left half-written.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

from farcontext import files
from farcontext.checkpoints import extend, load, loss_change, rope_check
from farcontext.checkpoints.convert import from_hf
from farcontext.checkpoints.extend import ADVICE, REFUSED, Tuning, scheme_lines
from farcontext.checkpoints.loss_change import before_after
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.nn.positions import SCHEMES, inverse_frequencies

TRAINED = 32
LONG = 3 * TRAINED
IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
SHAPE = {
    "vocab_size": tiny.VOCABULARY,
    "max_position_embeddings": TRAINED,
    "num_hidden_layers": 2,
    **IDS,
}
SIZES = {"hidden_size": 64, "intermediate_size": 48, "num_attention_heads": 4}
LLAMA = LlamaConfig(**SHAPE, **SIZES, num_key_value_heads=2)
OTHERS: dict[str, PretrainedConfig] = {
    "qwen2": Qwen2Config(**SHAPE, **SIZES, num_key_value_heads=2),
    "gpt_neox": GPTNeoXConfig(
        **SHAPE, **SIZES, rope_parameters={"rope_theta": 500.0, "partial_rotary_factor": 0.5}
    ),
    "gpt2": GPT2Config(
        vocab_size=tiny.VOCABULARY, n_positions=TRAINED, n_embd=32, n_layer=1, n_head=2, **IDS
    ),
}
TOKENS = torch.randint(4, 256, (1, LONG), generator=torch.Generator().manual_seed(0))
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    return load.wrapped(
        load_tokenizer(tiny.make_project(tmp_path_factory.mktemp("tiny")) / "build/tokenizer")
    )


def save(
    config: PretrainedConfig, tokenizer: object, folder: Path, dtype: torch.dtype = torch.float32
) -> Path:
    """Let transformers save large random weights, in which positions matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=float(parameter.ndim == 1), std=0.1)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, tokenizer: object) -> Path:
    folder = save(LLAMA, tokenizer, tmp_path_factory.mktemp("hf") / "llama")
    files.write_atomic(folder / "chat" / "notes.txt", "beside the weights")
    files.write_atomic(folder / "old.bin", "a pickle, say")
    files.write_atomic(folder / ".cache" / "hidden", "of a hub")
    return folder


def logits(folder: Path, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=tokens).logits


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize("scheme", ADVICE)
def test_transformers_and_our_decoder_agree_beyond_the_trained_length(
    llama: Path, tmp_path: Path, scheme: str
) -> None:
    report = extend.extend(llama, tmp_path / "out", scheme=scheme, factor=4, measure=0)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ours = from_hf(theirs)
    for length in (TRAINED // 2, LONG):
        wanted = logits(tmp_path / "out", TOKENS[:, :length])
        with torch.no_grad():
            assert (ours(TOKENS[:, :length]) - wanted).abs().max() < 1e-4
    assert (logits(llama) - wanted).abs().max() > 1e-2  # twin: something was extended
    theirs(input_ids=TOKENS)
    reach = {"head_dim": 16, "scale": 4.0, "trained_length": TRAINED, "length": LONG}
    torch.testing.assert_close(
        theirs.model.rotary_emb.inv_freq,
        inverse_frequencies(scheme, **reach).float(),
        rtol=0,
        atol=1e-6,
    )
    assert [f for f in rope_check.check(load.load(tmp_path / "out")) if not f.ok] == []
    assert config_of(tmp_path / "out")["rope_parameters"] == report["rope_parameters"]
    assert theirs.config.max_position_embeddings == (
        TRAINED if scheme == "dynamic_ntk_hf" else 4 * TRAINED
    )


def test_dynamic_ntk_would_extend_nothing_with_a_longer_limit(llama: Path, tmp_path: Path) -> None:
    extend.extend(llama, tmp_path / "out", scheme="dynamic_ntk_hf", factor=4, measure=0)
    edited = config_of(tmp_path / "out") | {"max_position_embeddings": 4 * TRAINED}
    files.write_json(tmp_path / "out" / "config.json", edited)
    torch.testing.assert_close(logits(tmp_path / "out"), logits(llama), rtol=0, atol=1e-5)


def test_only_the_configuration_differs(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extend.extend(llama, out, scheme="yarn", factor=2.5, measure=0)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    there = {path.relative_to(llama).as_posix() for path in llama.rglob("*") if path.is_file()}
    assert found == there - {"old.bin", ".cache/hidden"} | {extend.REPORT}
    same = found - {"config.json", "tokenizer_config.json", "generation_config.json", extend.REPORT}
    assert all((out / name).read_bytes() == (llama / name).read_bytes() for name in same)
    assert not (out / "model.safetensors").samefile(llama / "model.safetensors")
    old, new = config_of(llama), config_of(out)
    assert {key for key in new if new[key] != old.get(key)} == {
        *("rope_parameters", "rope_scaling", "rope_theta"),
        *("max_position_embeddings", "torch_dtype"),
    }
    assert new["max_position_embeddings"] == 80 and new["torch_dtype"] == old["dtype"]
    assert new["rope_scaling"] == new["rope_parameters"]
    assert new["rope_parameters"]["original_max_position_embeddings"] == TRAINED


def test_a_folder_without_a_tokenizers_configuration_is_copied_as_well(
    llama: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(llama, tmp_path / "in"))
    (source / "tokenizer_config.json").unlink()
    for folder, out in ((llama, "a"), (source, "b")):
        extend.extend(folder, tmp_path / out, scheme="yarn", factor=4, measure=0)
    assert torch.equal(logits(tmp_path / "a"), logits(tmp_path / "b"))
    assert (tmp_path / "b" / "chat").exists()
    assert not (tmp_path / "b" / "tokenizer_config.json").exists()


@pytest.mark.parametrize("scheme", ["yarn", "abf", "linear"])
def test_a_configuration_in_the_old_spelling_is_extended(
    llama: Path, tmp_path: Path, scheme: str
) -> None:
    old = Path(shutil.copytree(llama, tmp_path / "old"))
    plain = {key: value for key, value in config_of(llama).items() if key != "rope_parameters"}
    files.write_json(old / "config.json", plain | {"rope_theta": 10_000.0, "rope_scaling": None})
    for source, out in ((old, "a"), (llama, "b")):
        extend.extend(source, tmp_path / out, scheme=scheme, factor=4, measure=0)
    torch.testing.assert_close(logits(tmp_path / "a"), logits(tmp_path / "b"), rtol=0, atol=1e-5)
    assert (logits(tmp_path / "a") - logits(llama)).abs().max() > 1e-2


def test_a_lost_attention_factor_changes_the_logits(llama: Path, tmp_path: Path) -> None:
    extend.extend(llama, tmp_path / "out", scheme="yarn", factor=4, measure=0)
    wanted, config = logits(tmp_path / "out"), config_of(tmp_path / "out")
    config["rope_scaling"]["attention_factor"] = 1.0  # What every reader looks at first.
    files.write_json(tmp_path / "out" / "config.json", config)
    assert (logits(tmp_path / "out") - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["qwen2", "gpt_neox"])
def test_other_families_with_rope_are_extended(
    tokenizer: object, tmp_path: Path, family: str
) -> None:
    source = save(OTHERS[family], tokenizer, tmp_path / family)
    for scheme in ("yarn", "ntk"):
        extend.extend(source, tmp_path / scheme, scheme=scheme, factor=4, measure=0)
        found = AutoModelForCausalLM.from_pretrained(
            tmp_path / scheme
        ).base_model.rotary_emb.inv_freq
        turned = {"head_dim": 8, "theta": 500.0} if family == "gpt_neox" else {"head_dim": 16}
        wanted = inverse_frequencies(scheme, scale=4.0, trained_length=TRAINED, **turned)
        torch.testing.assert_close(found, wanted.float(), rtol=0, atol=1e-6)
        assert (logits(tmp_path / scheme) - logits(source)).abs().max() > 1e-2


# ------------------------------------------------------------------------------------ before, after


def test_the_table_is_loss_by_position(llama: Path, tmp_path: Path) -> None:
    report = extend.extend(llama, tmp_path / "out", scheme="linear", factor=4, measure=LONG)
    rows = report["loss"]
    assert json.loads((tmp_path / "out" / extend.REPORT).read_text(encoding="utf-8")) == report
    assert [(row["from"], row["to"]) for row in rows] == [
        (1, 8),
        (8, 16),
        (16, 32),
        (32, 64),
        (64, 96),
    ]
    tokens = torch.randint(4, 256, (LONG,), generator=torch.Generator().manual_seed(1))
    rows = before_after(llama, tmp_path / "out", tokens, [40, LONG])
    for name, folder in (("before", llama), ("after", tmp_path / "out")):
        wanted = (
            -logits(folder, tokens[None])[0, :-1].log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
        )
        assert rows[0][name] == pytest.approx(wanted[:39].mean().item(), abs=1e-4)
        assert rows[1][name] == pytest.approx(wanted[39:].mean().item(), abs=1e-4)
    assert rows[1]["before"] != pytest.approx(rows[1]["after"], abs=1e-3)  # twin
    assert all(row["before"] == row["after"] for row in before_after(llama, llama, tokens, [LONG]))
    lines = loss_change.table(report)
    assert len(lines) == 1 + len(report["loss"]) and sum("beyond" in line for line in lines) == 2
    assert loss_change.table(report | {"loss": []}) == []


# ------------------------------------------------------------------------------------------- tuning


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    files.write_atomic(folder / "a.txt", "the cat sat on the mat and the dog sat on the log. " * 40)
    files.write_atomic(folder / "b.md", "a cat and a dog. " * 20)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tuning_lowers_the_loss_and_keeps_the_dtype(
    tokenizer: object, tmp_path: Path, text: Path, dtype
) -> None:
    source = save(LLAMA, tokenizer, tmp_path / "in", dtype)
    tuning = Tuning(text, steps=25, length=LONG, lr=5e-3)
    report = extend.extend(
        source, tmp_path / "out", scheme="yarn", factor=4, tuning=tuning, text=text, measure=LONG
    )
    assert report["loss"][-1]["after"] < report["loss"][-1]["before"] - 1
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    untuned = extend.extend(
        source, tmp_path / "plain", scheme="yarn", factor=4, text=text, measure=LONG
    )
    # twin: the scheme alone does not
    assert untuned["loss"][-1]["after"] > report["loss"][-1]["after"] + 1
    assert config_of(tmp_path / "out") == config_of(tmp_path / "plain")
    assert report["tuning"]["text"] == text.name


def test_arithmetic_in_bfloat16_still_trains_fp32_weights(
    llama: Path, tmp_path: Path, text: Path
) -> None:
    tuning = Tuning(text, steps=2, length=40, rows=2, lr=1e-6, dtype="bfloat16")
    extend.extend(llama, tmp_path / "out", scheme="yarn", factor=4, tuning=tuning, measure=0)
    old, new = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (llama, tmp_path / "out")
    )
    moved = [(new[name] - old[name]).abs().max().item() for name in old]
    assert 0 < max(moved) < 1e-5  # bf16 weights would not have moved at all, or by more


def test_a_loss_that_is_no_number_stops_and_leaves_nothing(
    llama: Path, tmp_path: Path, text: Path
) -> None:
    tuning = Tuning(text, steps=20, length=40, lr=1e30)
    with pytest.raises(UserError, match=r"loss = .*: expected a number; try a smaller lr"):
        extend.extend(llama, tmp_path / "out", scheme="yarn", factor=4, tuning=tuning, measure=0)
    assert list(tmp_path.iterdir()) == []


def test_killed_in_the_middle_leaves_nothing(llama: Path, tmp_path: Path, text: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "farcontext.app.cli",
        "extend",
        str(llama),
        str(tmp_path / "out"),
        "--tune",
        str(text),
    ]
    program = (
        "import sys; from farcontext.app.cli import main; sys.argv[:1] = ['farcontext']; main()"
    )
    command = [sys.executable, "-c", program, *command[3:], "--steps", "1000000", "--length", "40"]
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while (
        not list(tmp_path.rglob("model.safetensors"))
        and child.poll() is None
        and time.monotonic() < until
    ):
        time.sleep(0.05)
    assert list(tmp_path.glob(f"{files.TEMPORARY}out-*"))  # it was in the middle
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(60) != 0
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"scheme": "yran"}, r"scheme = yran: expected one of yarn, .*; did you mean yarn\?"),
        ({"scheme": "none"}, "scheme = none: extends nothing: expected one of yarn"),
        ({"scheme": "longrope"}, "scheme = longrope: needs short_factor and long_factor"),
        ({"scheme": "p_rope"}, "scheme = p_rope: has to be there from the start of training"),
        ({"factor": 1.0}, "factor = 1.0: expected a number above 1"),
        ({"factor": float("nan")}, "factor = nan: expected"),
        (
            {"theta": 5e5},
            "theta = 500000.0, scheme = yarn: expected a base above 1, with scheme abf alone",
        ),
        (
            {"tuning": Tuning(Path("nowhere.txt"))},
            "nowhere.txt: expected a .txt or .md file, or a folder",
        ),
        ({"tuning": Tuning(Path("nowhere.txt"), steps=0)}, "steps = 0: expected 1 or more"),
        ({"tuning": Tuning(Path("nowhere.txt"), lr=-1.0)}, "lr = -1.0: expected a number above 0"),
        ({"measure": 10**6}, "Python's language reference: .* tokens: expected more than 1000000"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_a_bad_option_is_one_line_and_leaves_nothing(
    llama: Path, tmp_path: Path, changes: dict, line: str
) -> None:
    with pytest.raises(UserError, match=line) as caught:
        extend.extend(llama, tmp_path / "out", **{"scheme": "yarn", "factor": 4.0} | changes)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_that_cannot_be_extended_are_refused(
    llama: Path, tokenizer: object, tmp_path: Path
) -> None:
    learned = save(OTHERS["gpt2"], tokenizer, tmp_path / "gpt2")
    extend.extend(llama, tmp_path / "once", scheme="yarn", factor=2, measure=0)
    for source, out, line in (
        (
            learned,
            "out",
            "model_type = gpt2, whose positions are not RoPE: expected a model with RoPE",
        ),
        (llama, "once", "once: exists: expected a folder that is not there yet"),
        (tmp_path / "nowhere", "out", "nowhere: expected a folder"),
    ):
        with pytest.raises(UserError, match=line):
            extend.extend(source, tmp_path / out, scheme="yarn", factor=2, measure=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt2", "once"]
    assert (tmp_path / "once" / extend.REPORT).exists()


def test_every_scheme_is_explained() -> None:
    assert set(ADVICE) | set(REFUSED) == set(SCHEMES)
    assert not set(ADVICE) & set(REFUSED)
    said = "\n".join(scheme_lines())
    assert all(f"  {scheme} " in said for scheme in SCHEMES)
