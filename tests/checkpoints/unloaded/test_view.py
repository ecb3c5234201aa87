"""`farcontext rope` shows what config.json says, and its vectors are what a model computes."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call, imports
from observe import one_line, refuses

from farcontext.checkpoints import hub, rope_check
from farcontext.checkpoints.rope.frequencies import frequencies, rotary_modules
from farcontext.checkpoints.rope.sections import parse
from farcontext.checkpoints.rope_config import configuration_findings
from farcontext.checkpoints.unloaded import places, view

GOLDENS = Path(__file__).parents[2] / "goldens"
ROWS = json.loads((GOLDENS / "rope_registry.json").read_text(encoding="utf-8"))["configurations"]
CONFIGS = {row["name"]: row["config"] for row in ROWS}


def folder(tmp_path: Path, name: str, **changes: Any) -> Path:
    """A folder with nothing but a public model's configuration in it."""
    made = tmp_path / name.replace("/", "-")
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIGS[name] | changes), encoding="utf-8")
    return made


def test_the_picture_has_the_wavelengths_and_the_runtimes(tmp_path: Path) -> None:
    llama = folder(tmp_path, "meta-llama/Llama-3.1-8B-Instruct")
    said = view.shown(view.view(llama))
    assert said[0].endswith("llama · window 131,072 tokens")
    assert said[2] == (
        "llama3 × 8 from 8,192 tokens · base 500,000 · 128 of 128 channels turn · amplitude 1.0000"
    )
    first, last = said[4].split(), said[19].split()
    assert first[:2] == ["0", "6.3"] and last[:2] == ["63", "20,473,564.1"]
    assert all("●" in line for line in said[4:20]) and "│ 8,192, trained" in said[20]
    assert sum(line.endswith("as it is meant") for line in said) == 5
    assert view.shown(view.view(llama / "config.json"))[2:] == said[2:]


def test_a_card_recipe_says_which_key_widens_the_window(tmp_path: Path) -> None:
    found = view.view(folder(tmp_path, "Qwen/Qwen2.5-7B-Instruct with its card's YaRN"))
    said = "\n".join(view.shown(found))
    assert "window 131,072" in said.splitlines()[0] and "amplitude 1.1386" in said
    assert '→ in config.json: {"max_position_embeddings": 131072}' in said
    assert "→ --context-length 131072" in said
    assert [finding.grade for finding in found.findings if finding.grade != "ok"] == ["note"]


@pytest.mark.parametrize("name", CONFIGS)
def test_an_outline_says_what_the_whole_class_says(name: str) -> None:
    raw = {"vocab_size": 1000, "intermediate_size": 64} | CONFIGS[name]
    given = view.settings_of(copy.deepcopy(raw), Path("config.json"))
    whole = parse(copy.deepcopy(raw))
    assert view.runtimes.read_all(raw, given) == view.runtimes.read_all(raw, whole)
    assert view.runtimes.meant(given) == view.runtimes.meant(whole)
    assert configuration_findings(given, raw) == configuration_findings(whole, raw)


def test_layers_of_two_kinds_have_a_picture_each(tmp_path: Path) -> None:
    found = view.view(folder(tmp_path, "google/gemma-3-4b-it (text part)"))
    said = "\n".join(view.shown(found))
    assert "sliding_attention: plain RoPE · base 10,000" in said
    assert "full_attention: linear × 8 from" in said


def test_without_rope_there_is_nothing_to_draw(tmp_path: Path) -> None:
    said = view.shown(view.view(folder(tmp_path, "tiiuae/falcon-rw-1b")))
    assert said[1].startswith("no rotary positions: learned ones, ALiBi or none")


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-8B with its card's YaRN", "google/gemma-3-1b-it", "microsoft/phi-2"]
)
def test_vectors_are_what_the_model_multiplies_with(name: str, tmp_path: Path) -> None:
    found = json.loads(view.as_json(view.view(folder(tmp_path, name))))
    model = rope_check.skeleton(parse(copy.deepcopy(CONFIGS[name])))
    ((_, module),) = rotary_modules(model).items()
    by_kind = {row["layers"]: row for row in found["vectors"]}
    assert len(by_kind) == len(found["vectors"]) == len(frequencies(module))
    for kind in frequencies(module):
        row = by_kind[kind or "all"]
        for at in (table for table in row["at"] if table["position"] < 10_000):
            position = torch.tensor([[at["position"]]])
            cos, sin = module(torch.zeros(1, 1, 1), position, *([kind] if kind else []))
            pairs = len(at["cos"])
            wanted = torch.tensor([at["cos"], at["sin"]])
            given = torch.stack([cos[0, 0, :pairs], sin[0, 0, :pairs]])
            torch.testing.assert_close(given, wanted, rtol=0, atol=2e-3)
        assert row["rotated_channels"] == 2 * len(row["inverse_frequencies"])


def test_vectors_of_longrope_come_for_short_and_for_long_texts(tmp_path: Path) -> None:
    found = json.loads(view.as_json(view.view(folder(tmp_path, "microsoft/Phi-4-mini-instruct"))))
    lengths = {row["length"]: row["inverse_frequencies"] for row in found["vectors"]}
    assert lengths[4096][-1] / lengths[131_072][-1] == pytest.approx(47.77)
    assert {row["runtime"] for row in found["runtimes"]} == set(view.runtimes.SOURCES)
    assert all(row["source"] for row in found["runtimes"])


def test_what_is_no_configuration_is_one_line(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    with refuses("bare: no config.json: expected a folder with one"):
        view.view(bare)
    with refuses("no such folder or file"):
        view.view(tmp_path / "absent" / "deeper")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with refuses("of a GGUF file, `farcontext probe FILE --rope-only` checks how it rotates"):
        view.view(tmp_path / "model.gguf")
    path = tmp_path / "config.json"
    path.write_text("[]", encoding="utf-8")
    with refuses("config.json: expected a JSON object"):
        view.view(path)
    path.write_text('{"model_type": "no-such"}', encoding="utf-8")
    with refuses("model_type = 'no-such': expected a family of transformers"):
        view.view(path)
    path.write_text('{"model_type": "llama", "num_attention_heads": 0}', encoding="utf-8")
    with refuses("num_attention_heads = 0: expected an integer from 1 to 1e9"):
        view.view(path)


def test_the_command_reads_nothing_else_and_imports_no_model(tmp_path: Path) -> None:
    llama = folder(tmp_path, "meta-llama/Llama-3.1-8B-Instruct")
    (llama / "model.safetensors").write_bytes(b"not read")
    said = call(tmp_path, "rope", llama.name)
    assert said.code == 0 and "as it is meant" in said.out
    assert "pandas" not in imports(tmp_path, "rope", llama.name)
    said = call(tmp_path, "rope", "org/nowhere")
    assert said.code == 2 and not said.out
    one_line(said.err, "download with `hf download org/nowhere --local-dir nowhere`")


def test_a_folder_of_the_hubs_cache_is_its_snapshot(tmp_path: Path) -> None:
    cache = tmp_path / "models--Qwen--Qwen3-8B"
    held = cache / "snapshots" / "abc123"
    held.mkdir(parents=True)
    (held / "config.json").write_text(json.dumps(CONFIGS["Qwen/Qwen3-8B"]), encoding="utf-8")
    assert places.located(cache) == held and hub.name_of(held) == "Qwen/Qwen3-8B"
    assert view.view(cache).name == "Qwen/Qwen3-8B"
    shutil.copytree(held, cache / "snapshots" / "def456")
    with refuses("refs/main to name it; found abc123, def456"):
        view.view(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc123", encoding="utf-8")
    assert places.located(cache) == held
    (cache / "refs" / "main").write_text("../../elsewhere", encoding="utf-8")
    with refuses("expected one snapshot"):
        places.located(cache)
