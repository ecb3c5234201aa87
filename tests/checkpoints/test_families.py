"""Every family loads, is checked and asked as transformers' own class computes it."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, WITHOUT_ROPE, configuration
from observe import refuses
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from farcontext import files
from farcontext.checkpoints import load, probe, questions, refusals, rope_check
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.rope_config import configuration_findings
from farcontext.checkpoints.token_losses import token_losses
from farcontext.data.tokenizer import load_tokenizer
from farcontext.tasks import needles

PROSE = "The house stands on a hill above the town, and nobody has lived in it for years. " * 120
OWN_CODE = {
    "AutoConfig": "configuration_own.Own",
    "AutoModelForCausalLM": "org/repo--modeling_own.Own",
}


def made(folder: Path, name: str, tokenizer_folder: Path) -> Path:
    """Save random weights by transformers' own class; norms and biases are drawn too."""
    tokenizer = load.wrapped(load_tokenizer(tokenizer_folder))
    raw = configuration(name, len(tokenizer))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[raw["model_type"]].from_dict(raw))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(float(parameter.ndim == 1 and "bias" not in key), 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def theirs(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_computes_what_transformers_does(
    name: str, tmp_path: Path, tokenizer_folder: Path
) -> None:
    folder = made(tmp_path / "model", name, tokenizer_folder)
    found, wanted = load.load(folder), theirs(folder)
    tokens = torch.randint(
        4, len(found.tokenizer), (1, 200), generator=torch.Generator().manual_seed(1)
    )
    with torch.inference_mode():
        scores = wanted(input_ids=tokens).logits
        given = found.model(input_ids=tokens).logits
    assert scores.std() > 0.01
    torch.testing.assert_close(given, scores, rtol=0, atol=1e-5)
    losses = F.cross_entropy(scores[0, :-1].float(), tokens[0, 1:], reduction="none")
    torch.testing.assert_close(token_losses(found.model, tokens[0]), losses, rtol=0, atol=1e-4)
    checked(found, name)
    asked(found, wanted)


def checked(found: Pretrained, name: str) -> None:
    """The RoPE check finds no fault; a damaged buffer is one (twin)."""
    findings = rope_check.check(found)
    assert [finding.name for finding in findings if not finding.ok] == []
    modules = rope_check.rotary_modules(found.model)
    assert bool(modules) is (name not in WITHOUT_ROPE)
    for module in modules.values():
        for key, buffer in list(module.named_buffers(recurse=False)):
            if key.endswith("inv_freq"):
                setattr(module, key, buffer * 1.01)
        assert not all(finding.ok for finding in rope_check.check(found))
        for key, buffer in list(module.named_buffers(recurse=False)):
            if key.endswith("inv_freq"):
                setattr(module, key, buffer / 1.01)


def asked(found: Pretrained, wanted: PreTrainedModel) -> None:
    """A needle's answer scores on a repeated cache as a plain forward pass scores it."""
    encode = questions.encoder(found.tokenizer)
    sample = needles.sample(length=160, seed=3, encode=encode, filler=PROSE, keys=2)
    rows = questions.observe(found.model, sample)
    assert len(rows) == 2 and all(np.isfinite(row["loss"]) for row in rows)
    query = min(sample.queries, key=lambda query: query.depth)
    row = [*sample.context.tolist(), *query.question, *query.answer]
    with torch.inference_mode():
        scores = wanted(input_ids=torch.tensor([row])).logits[0].float().log_softmax(-1)
    last = len(query.answer)
    plain = -scores[-last - 1 : -1][range(last), list(query.answer)].sum()
    assert rows[0]["loss"] == pytest.approx(float(plain), abs=2e-3)


@pytest.mark.parametrize("name", ["phi3", "gemma2", "falcon, ALiBi", "deepseek_v3", "llama4_text"])
def test_a_family_is_probed(
    name: str, tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    found = load.load(made(tmp_path / "model", name, tokenizer_folder))
    for number in range(2):
        (tmp_path / "prose").mkdir(exist_ok=True)
        (tmp_path / "prose" / f"{number}.txt").write_text(f"{number} {PROSE}", encoding="utf-8")
    options = probe.Options(lengths=(256,), max_contexts=12)
    measured = probe.measure(found, options, tmp_path / "prose")
    assert set(measured.needles["length"]) == {256} and measured.needles["loss"].notna().all()
    assert all(f.ok for f in measured.findings if "by loss" not in f.name)


def test_every_family_that_is_taken_is_tried_here() -> None:
    assert {name.partition(",")[0] for name in FAMILIES} == set(refusals.FAMILIES)
    assert len(refusals.FAMILIES) >= 22


# ---------------------------------------------------------------------------------- what is refused


@pytest.fixture
def llama(tmp_path: Path, tokenizer_folder: Path) -> Path:
    return made(tmp_path / "llama", "llama", tokenizer_folder)


def edit(path: Path, **changes: object) -> None:
    files.write_json(path, files.read_json(path) | changes)


def test_code_beside_a_class_of_transformers_is_passed_over_with_a_note(llama: Path) -> None:
    wanted = theirs(llama)
    edit(llama / "config.json", auto_map=OWN_CODE)
    (llama / "modeling_own.py").write_text("raise SystemExit('it ran')\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"config\.json: auto_map is not read: its class is"):
        found = load.load(llama)
    tokens = torch.arange(4, 60)[None]
    with torch.inference_mode():
        torch.testing.assert_close(found.model(tokens).logits, wanted(tokens).logits)
    assert not hasattr(found.model.config, "auto_map")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit(llama / "config.json", model_type="own")
        with refuses("auto_map: names code of its own, which is not run: expected a family"):
            load.load(llama)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model_type": "bert"}, "model_type = 'bert': a masked model, which writes no text"),
        ({"model_type": "t5"}, "model_type = 't5': an encoder and decoder"),
        ({"model_type": "mamba"}, "model_type = 'mamba': recurrent: it has no positions"),
        (
            {"model_type": "gemma3"},
            "a model with images: expected its text part alone, gemma3_text",
        ),
        (
            {"model_type": "some_vl", "vision_config": {}},
            "a model with images: expected its text part alone, a family of text",
        ),
        (
            {"rope_scaling": {"type": "ntk", "factor": 2.0}},
            "rope_scaling.type = 'ntk': expected one of default, linear, dynamic, yarn",
        ),
        (
            {"rope_scaling": {"type": "linear"}},
            "cannot be read: Missing required keys in `rope_parameters` for 'rope_type'='linear'",
        ),
    ],
)
def test_what_cannot_be_done_says_why(llama: Path, changes: dict, line: str) -> None:
    raw = files.read_json(llama / "config.json") | changes
    raw = {key: value for key, value in raw.items() if key != "rope_parameters"}
    files.write_json(llama / "config.json", raw)
    with refuses(line):
        load.load(llama)


def test_the_first_name_of_longrope_is_read(llama: Path) -> None:
    scaling = {"type": "su", "short_factor": [1.0] * 8, "long_factor": [1.0] * 7 + [4.0]}
    raw = files.read_json(llama / "config.json") | {"rope_scaling": scaling}
    raw |= {"original_max_position_embeddings": 128, "rope_theta": 10_000.0}
    raw.pop("rope_parameters")
    files.write_json(llama / "config.json", raw)
    found = load.load(llama)
    assert found.model.config.rope_parameters["rope_type"] == "longrope"
    held = found.model.model.rotary_emb
    _ = held(torch.zeros(1, 1, 1), torch.tensor([[0, 300]]))
    assert float(held.inv_freq[-1]) == pytest.approx(10_000.0 ** (-14 / 16) / 4)
    findings = configuration_findings(found.model.config, raw)
    assert "rope_theta given" in {finding.name for finding in findings}


def test_an_adapter_is_named_with_its_base(tmp_path: Path) -> None:
    raw = {"peft_type": "LORA", "base_model_name_or_path": "org/base-8b", "r": 8}
    files.write_json(tmp_path / "adapter_config.json", raw)
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with refuses("adapter_config.json: expected whole weights, not an adapter to org/base-8b"):
        load.load(tmp_path)
    files.write_json(tmp_path / "config.json", {"model_type": "llama"})
    with refuses("not an adapter to org/base-8b: merge it into its base first (peft: merge_and_"):
        load.load(tmp_path)


def test_a_name_on_the_hub_is_told_how_it_becomes_a_folder() -> None:
    with refuses("download with `hf download meta-llama/Llama-3.1-8B --local-dir Llama-3.1-8B`"):
        load.load("meta-llama/Llama-3.1-8B")


def test_a_folder_of_the_hubs_cache_loads_by_its_name(llama: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--org--tiny"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "0123abc").mkdir(parents=True)
    for number, path in enumerate(sorted(llama.iterdir())):  # A snapshot holds links to blobs.
        shutil.copy(path, cache / "blobs" / str(number))
        (cache / "snapshots" / "0123abc" / path.name).symlink_to(f"../../blobs/{number}")
    found = load.load(cache)
    assert found.name == "org/tiny" and found.path == cache / "snapshots" / "0123abc"


@pytest.mark.parametrize(
    ("begins", "package"), [(b"\n\x0e\n\x05<unk>", "sentencepiece"), (b"IQ== 0\n", "tiktoken")]
)
def test_a_tokenizer_that_no_package_reads_names_the_package(
    llama: Path, begins: bytes, package: str
) -> None:
    (llama / "tokenizer.json").unlink()
    (llama / "tokenizer.model").write_bytes(begins)
    with refuses(f"tokenizer.model: a model of {package}, which is not installed"):
        load.load(llama)


def test_a_pickle_is_shown_its_way_out(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with refuses("pytorch_model.bin is a pickle, which can run code: expected model.safetensors"):
        load.load(llama)
    with refuses("AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)"):
        load.load(llama)
