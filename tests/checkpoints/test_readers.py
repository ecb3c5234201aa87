"""Every reader makes the same of what extending writes.

transformers 4.57.6 was asked beforehand (tests/transformers4.py says how, and keeps its answers);
the locked one is asked here.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers4

from farcontext import files
from farcontext.checkpoints import rope_check
from farcontext.checkpoints.rope.outline import FAMILIES, outline
from farcontext.checkpoints.rope.readers import (
    for_every_reader,
    refused_by_transformers_4,
    write_window,
)
from farcontext.checkpoints.rope.sections import head_width, parse, sections

GOLDEN = Path(__file__).parent.parent / "goldens" / "transformers4.json"
RECORDED = json.loads(GOLDEN.read_text(encoding="utf-8"))
BOTH = [name for name, row in RECORDED["folders"].items() if "refused" not in row]


@pytest.fixture(scope="module")
def written() -> dict[str, dict[str, Any]]:
    return transformers4.folders()


def apart(found: list, wanted: list) -> float:
    return (torch.tensor(found) - torch.tensor(wanted)).abs().max().item()


def read_of(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: raw[key] for key in transformers4.KEYS if raw.get(key) is not None}


@pytest.mark.parametrize("name", BOTH)
def test_both_readers_compute_the_same(
    written: dict[str, dict[str, Any]], tmp_path: Path, name: str
) -> None:
    wanted = RECORDED["folders"][name]
    assert read_of(written[name]) == wanted["read"], "record anew: tests/transformers4.py"
    files.write_json(tmp_path / "config.json", written[name])
    found = transformers4.observed(tmp_path) | transformers4.frequencies(tmp_path)
    assert apart(found["logits"], wanted["logits"]) < 1e-5
    assert apart(found["inv_freq"], wanted["inv_freq"]) < 1e-7
    assert found["factor"] == pytest.approx(wanted["factor"], abs=1e-6)


def test_enough_folders_are_compared(written: dict[str, dict[str, Any]]) -> None:
    assert set(written) == set(RECORDED["folders"]) and len(BOTH) >= 40
    for name in set(written) - set(BOTH):
        family, _, scheme = name.partition("-")
        assert refused_by_transformers_4(family, scheme), name
    plain = RECORDED["folders"]["llama-plain"]["logits"]
    for scheme in ("yarn", "ntk", "abf", "linear", "llama3"):  # twin: something was extended
        assert apart(RECORDED["folders"][f"llama-{scheme}"]["logits"], plain) > 1e-3
    for family in ("llama", "qwen3", "gpt_neox"):  # twin: each spelling is needed
        lost = {k: v for k, v in written[f"{family}-yarn"].items() if k != "rope_parameters"}
        assert for_every_reader(lost) == written[f"{family}-yarn"]


@pytest.mark.parametrize("name", RECORDED["folders"])
def test_what_is_written_raises_no_alarm(written: dict[str, dict[str, Any]], name: str) -> None:
    found = rope_check.check_configuration(written[name])
    assert [line for line in rope_check.lines(found) if line.startswith("FAULT")] == []


PLAIN = ("num_hidden_layers", "hidden_size", "vocab_size", "sliding_window", "model_type")


@pytest.mark.parametrize("name", [n for n in RECORDED["folders"] if n.split("-")[0] in FAMILIES])
def test_a_plain_familys_keys_mean_what_its_class_makes_of_them(
    written: dict[str, dict[str, Any]], name: str
) -> None:
    raw = written[name] | ({"sliding_window": None} if name.startswith("mistral") else {})
    old = {key: value for key, value in raw.items() if key != "rope_parameters"}
    new = {key: value for key, value in raw.items() if key != "rope_scaling"}
    for spelling in (raw, old, new, old | {"original_max_position_embeddings": 16}):
        found, wanted = outline(spelling), parse(spelling)
        assert isinstance(found, SimpleNamespace)
        assert sections(found) == sections(wanted)
        assert all(getattr(found, key) == getattr(wanted, key, None) for key in PLAIN)
        assert head_width(found) == head_width(wanted)


def test_what_is_not_plain_is_left_to_its_class() -> None:
    for raw in (
        transformers4.raw_of("gemma2"),
        transformers4.raw_of("mistral"),  # its class has a window where there is no key
        transformers4.raw_of("qwen2", use_sliding_window=True, sliding_window=8),
    ):
        assert isinstance(outline(raw), type(parse(raw)))


def test_the_window_is_written_where_readers_look(tmp_path: Path) -> None:
    files.write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 32, "x": 1})
    files.write_json(
        tmp_path / "generation_config.json", {"_from_model_config": True, "top_p": 0.5}
    )
    write_window(tmp_path, 128)
    kept = files.read_json(tmp_path / "tokenizer_config.json")
    assert kept == {"model_max_length": 128, "x": 1}
    assert files.read_json(tmp_path / "generation_config.json") == {"max_length": 128, "top_p": 0.5}
