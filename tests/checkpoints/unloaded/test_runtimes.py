"""What runtimes make of a configuration is what their public code computes.

transformers 4.57.6 was run and its modules recorded (`rope_readings.json`); the installed version's
are built here; of the others, facts of their code are held one by one.
"""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from farcontext.checkpoints import rope_check
from farcontext.checkpoints.rope.frequencies import frequencies, rotary_modules, turned
from farcontext.checkpoints.rope.sections import parse
from farcontext.checkpoints.unloaded import agreement, runtimes
from farcontext.checkpoints.unloaded.rotation import yarn_amplitude

GOLDENS = Path(__file__).parents[2] / "goldens"
REGISTRY = json.loads((GOLDENS / "rope_registry.json").read_text(encoding="utf-8"))
RECORDED = json.loads((GOLDENS / "rope_readings.json").read_text(encoding="utf-8"))
CONFIGS = {row["name"]: row["config"] for row in REGISTRY["configurations"]} | RECORDED["made"]
LLAMA = RECORDED["made"]["made: yarn, attention_factor"]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}
GRADES = ("ok", "note", "fault")


def readings(raw: dict[str, Any], tokenizer: float | None = None) -> dict[str, runtimes.Reading]:
    found = runtimes.read_all(raw, parse(copy.deepcopy(raw)), tokenizer)
    return {reading.runtime: reading for reading in found}


def scaled(section: dict[str, Any] | None, limit: int = 131_072, **more: Any) -> dict[str, Any]:
    return LLAMA | {"max_position_embeddings": limit, "rope_scaling": section} | more


# ------------------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("name", RECORDED["readings"])
def test_transformers_4_computes_what_was_recorded(name: str) -> None:
    rows, found = RECORDED["readings"][name], readings(CONFIGS[name])["transformers 4"]
    if "error" in rows:
        assert found.refusal == "model_type = ministral3: it has no such family"
        return
    assert not found.refusal
    for kind, row in ((kind, row) for kind, part in rows.items() for row in part):
        rotation = found.rotations.get(kind) or found.rotations.get("full_attention")
        if rotation is None:  # A rotary module that Falcon's ALiBi does not use.
            assert CONFIGS[name].get("alibi") and not found.rotations
            continue
        freq_F = rotation.frequencies(row["length"])
        assert len(freq_F) == row["pairs"]
        wanted = torch.tensor(row["inv_freq"], dtype=torch.float64)
        torch.testing.assert_close(freq_F[row["at"]], wanted, rtol=2e-5, atol=0)
        assert rotation.amplitude == pytest.approx(row["amplitude"], abs=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_5_computes_what_its_own_modules_hold(name: str) -> None:
    raw = copy.deepcopy(CONFIGS[name]) | {"num_hidden_layers": 6, "max_window_layers": 6}
    config, found = parse(copy.deepcopy(raw)), readings(raw)["transformers 5"]
    for module in rotary_modules(rope_check.skeleton(config)).values():
        for kind in frequencies(module):
            if not found.rotations:
                assert raw["alibi"]
                continue
            rotation = found.rotations[kind]
            for length in (config.max_position_embeddings // 2, config.max_position_embeddings):
                freq_F, amplitude = turned(copy.deepcopy(module), length, kind)
                wanted_F = rotation.frequencies(length).float()
                torch.testing.assert_close(freq_F, wanted_F, rtol=1e-4, atol=0)
                assert float(amplitude.max()) == pytest.approx(rotation.amplitude, abs=1e-4)


def test_a_file_of_transformers_5_alone_is_plain_rope_for_transformers_4() -> None:
    raw = CONFIGS["made: rope_parameters alone"]
    found = readings(raw)
    four, five = found["transformers 4"], found["transformers 5"]
    assert four.rotations[""].scheme == "rope" and four.rotations[""].amplitude == 1
    assert five.rotations[""].amplitude == pytest.approx(1.1386, abs=1e-4)
    compared = agreement.compared(four, runtimes.meant(parse(copy.deepcopy(raw))), raw)
    assert "amplitude 1.0000 for 1.1386" in compared.differs[1]
    assert compared.keys["rope_scaling"]["factor"] == 4 and compared.keys["rope_theta"] == 1e6


# ----------------------------------------------------------------------------------------- runtimes


def test_yarn_windows_are_counted_from_the_original() -> None:
    card = readings(scaled(YARN, 32_768))
    windows = {name: reading.window for name, reading in card.items()}
    assert windows.pop("vLLM") == 131_072 and set(windows.values()) == {32_768}
    linear = readings(scaled({"rope_type": "linear", "factor": 8.0}, 4096))
    assert linear["vLLM"].window == linear["sglang"].window == 8 * 4096
    assert linear["llama.cpp"].window == 4096
    assert readings(scaled(None, 8192), 2048)["vLLM"].window == 2048  # The tokenizer says so.


def test_amplitudes_follow_the_keys_that_each_runtime_reads() -> None:
    plain = yarn_amplitude(4.0)
    assert plain == pytest.approx(0.1 * math.log(4) + 1)
    own = readings(scaled(YARN | {"attention_factor": 1.0}))
    found = {name: reading.rotations[""].amplitude for name, reading in own.items()}
    assert found["vLLM"] == found["transformers 4"] == found["transformers 5"] == 1.0
    assert found["llama.cpp"] == found["sglang"] == pytest.approx(plain)
    other = readings(scaled(YARN | {"attn_factor": 1 / plain}))
    found = {name: reading.rotations[""].amplitude for name, reading in other.items()}
    assert found.pop("sglang") == pytest.approx(1.0)
    assert all(value == pytest.approx(plain) for value in found.values())


def test_llama_cpp_looks_for_llama3s_length_at_the_top() -> None:
    raw = CONFIGS["made: llama3 from 16,384"]
    assert readings(raw)["llama.cpp"].rotations[""].trained == 8192
    compared = agreement.compared(
        readings(raw)["llama.cpp"], runtimes.meant(parse(copy.deepcopy(raw))), raw
    )
    assert compared.keys == {"original_max_position_embeddings": 16_384} and not compared.flags
    assert readings(raw | compared.keys)["llama.cpp"].rotations[""].trained == 16_384
    dropped = readings(raw | {"model_type": "qwen2"})["llama.cpp"]
    assert dropped.rotations[""].scheme == "rope" and "llama3 is dropped" in dropped.notes[0]


def test_frequencies_that_should_follow_the_length_are_frozen() -> None:
    dynamic = readings(CONFIGS["made: dynamic"])
    for name in ("vLLM", "sglang"):
        rotation = dynamic[name].rotations[""]
        assert torch.equal(rotation.frequencies(64), rotation.frequencies(4 * 4096))
        base = float((rotation.frequencies(64)[0] / rotation.frequencies(64)[1]) ** 32)
        assert base == pytest.approx(10_000 * (4 * 4 - 3) ** (64 / 62), rel=1e-6)
    assert dynamic["llama.cpp"].rotations[""].scheme == "rope"
    phi = readings(CONFIGS["microsoft/Phi-4-mini-instruct"])
    short, long = (phi[name].rotations[""].frequencies(100) for name in ("vLLM", "llama.cpp"))
    assert phi["vLLM"].window == 4096 and float(short[-1] / long[-1]) == pytest.approx(47.77)


def test_a_type_that_a_runtime_does_not_know_is_its_refusal() -> None:
    proportional = {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    raw = scaled(None) | {"rope_parameters": proportional}
    raw.pop("rope_scaling")
    assert readings(raw)["transformers 5"].rotations[""].scheme == "p_rope"
    raw = scaled({"rope_type": "yarn", "original_max_position_embeddings": 4096})
    raw["rope_scaling"]["factor"] = None
    assert readings(raw)["sglang"].refusal


@pytest.mark.parametrize("name", CONFIGS)
def test_the_keys_that_are_advised_make_a_runtime_agree(name: str) -> None:
    raw = CONFIGS[name]
    meant = runtimes.meant(parse(copy.deepcopy(raw)))
    for reading in readings(raw).values():
        advice = agreement.compared(reading, meant, raw)
        if not advice.keys or advice.reading.refusal:
            continue
        edited = json.loads(json.dumps(dict(raw) | dict(advice.keys)))
        edited = {key: value for key, value in edited.items() if value is not None}
        after = agreement.compared(readings(edited)[reading.runtime], meant, edited)
        left = [text for text in after.differs if not text.startswith("window")]
        assert not left, (reading.runtime, advice.differs)


def test_llama_cpp_gets_flags() -> None:
    raw = scaled(YARN | {"attention_factor": 1.0})
    meant = runtimes.meant(parse(copy.deepcopy(raw)))
    flags = agreement.compared(readings(raw)["llama.cpp"], meant, raw).flags
    assert "--rope-scaling yarn" in flags and "--yarn-orig-ctx 32768" in flags
    assert flags[-1].endswith(f"=float:{1 / yarn_amplitude(4.0):.6g}")


# ----------------------------------------------------------------------------------------- registry


def verdict(raw: dict[str, Any]) -> str:
    found = rope_check.check_configuration(copy.deepcopy(raw))
    return max((finding.grade for finding in found), key=GRADES.index)


def test_public_configurations_get_their_verdicts() -> None:
    rows = REGISTRY["configurations"]
    assert len(rows) >= 60 and len({row["name"] for row in rows}) == len(rows)
    assert len({row["config"]["model_type"] for row in rows}) >= 20
    found = {row["name"]: verdict(row["config"]) for row in rows}
    wanted = {row["name"]: row["verdict"] for row in rows}
    alarms = [n for n in found if found[n] == "fault" and wanted[n] != "fault"]
    misses = [n for n in found if found[n] != "fault" and wanted[n] == "fault"]
    # One was published with a base of 10,000 at 131,072 positions, which nobody else is sound with.
    assert not misses and alarms == ["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]
    other = {n: found[n] for n in found if found[n] != wanted[n] and n not in alarms}
    assert len(other) <= 3, other


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("meta-llama/Meta-Llama-3-8B", {"rope_theta": None}),
        ("Qwen/Qwen2.5-7B-Instruct", {"rope_theta": 10_000.0}),
        ("Qwen/Qwen3-8B", {"rope_theta": None}),
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            {"rope_scaling": {"rope_type": "default", "factor": 8.0, "low_freq_factor": 1.0}},
        ),
        (
            "allenai/Olmo-3-7B-Instruct",
            {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "beta_fast": 32}},
        ),
    ],
)
def test_a_public_configuration_that_lost_a_key_is_a_fault(name: str, damage: dict) -> None:
    raw = copy.deepcopy(CONFIGS[name]) | damage
    raw = {key: value for key, value in raw.items() if value is not None}
    assert verdict(CONFIGS[name]) != "fault"  # twin: sound before
    assert verdict(raw) == "fault"
