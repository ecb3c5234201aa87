"""The RoPE check finds planted faults and passes sound configurations.

The faults are planted outside our own code.
"""

import importlib.util
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from farcontext.checkpoints import load, rope_check, rope_loss
from farcontext.checkpoints.convert import to_hf
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.rope.finding import Finding
from farcontext.checkpoints.token_losses import token_losses
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder

ROOT = Path(__file__).parent.parent.parent
_SPEC = importlib.util.spec_from_file_location(
    "rope_faults", ROOT / "benchmarks" / "rope_faults.py"
)
plants = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(plants)


@pytest.mark.parametrize("fault", plants.FAULTS)
def test_a_planted_fault_is_found_and_named(tmp_path: Path, fault: str) -> None:
    for trial in range(5):
        lines = plants.FAULTS[fault](tmp_path / str(trial), trial, random.Random(trial))
        assert lines, trial
        assert all("found" in line and "expected" in line for line in lines)


@pytest.mark.parametrize("fault", plants.FAULTS)
def test_a_fault_in_a_configuration_of_real_size_is_found(tmp_path: Path, fault: str) -> None:
    for trial in range(20):
        folder, draw = tmp_path / str(trial), random.Random(1000 + trial)
        assert plants.FAULTS[fault](folder, trial, draw, plants.write_real), trial


def test_a_hundred_sound_configurations_of_real_size_raise_no_alarm(tmp_path: Path) -> None:
    kinds = [(family, scheme) for family in plants.FAMILIES for scheme in plants.SCHEMES]
    for trial in range(100):
        family, scheme = kinds[trial % len(kinds)]
        folder = plants.write_real(tmp_path / str(trial), family, scheme, random.Random(trial))
        assert plants.said(plants.loaded_from(folder)) == [], (trial, family, scheme)


@pytest.mark.parametrize("scheme", plants.SCHEMES)
@pytest.mark.parametrize("family", plants.FAMILIES)
def test_a_sound_configuration_raises_no_alarm(tmp_path: Path, family: str, scheme: str) -> None:
    folder = plants.save_sound(tmp_path / "sound", family, scheme, random.Random(7))
    findings = rope_check.check(load.load(folder))
    assert not [line for line in rope_check.lines(findings) if line.startswith("FAULT")]
    compared = {finding.name.partition(": ")[2] for finding in findings}
    assert {"frequencies", "by length", "attention factor", "two computations"} <= compared


def test_a_model_without_rotary_positions_is_said_to_have_none(tmp_path: Path) -> None:
    loaded = load.load(plants.save_sound(tmp_path / "gpt2", "gpt2", "none", random.Random(0)))
    (finding,) = rope_check.check(loaded)
    assert finding.ok and "no rotary module" in finding.says
    assert rope_loss.confirm(loaded, torch.zeros(1, 8, dtype=torch.long)) == []


def loaded_with(tmp_path: Path, family: str, scheme: str, **changes: object) -> Pretrained:
    """Return a sound folder's model after changes of its `rope_parameters`.

    A change is one of the top level where one of that name is known.
    """
    folder = plants.save_sound(tmp_path / f"{family}-{scheme}", family, scheme, random.Random(1))

    def change(config: dict) -> None:
        for name, value in changes.items():
            (config if name in config else config["rope_parameters"])[name] = value

    plants.edit(folder, change)
    return load.load(folder)


def faults(loaded: Pretrained) -> dict[str, Finding]:
    return {
        finding.name.split(": ")[-1]: finding
        for finding in rope_check.check(loaded)
        if not finding.ok
    }


def test_the_attention_factor_is_measured_in_what_the_module_returns(tmp_path: Path) -> None:
    loaded = loaded_with(tmp_path, "llama", "yarn")
    module = plants.rotary(loaded)
    factor = module.attention_scaling
    assert factor > 1 and faults(loaded) == {}
    for value, word in ((1.0, "never"), (factor**2, "twice"), (factor * 1.03, "another")):
        module.attention_scaling = value
        found = faults(loaded)["attention factor"]
        assert (
            found.found == f"{value:.4f}"
            and found.expected == f"{factor:.4f}"
            and word in found.says
        )
    module.attention_scaling = factor
    forward = type(module).forward
    module.forward = lambda x, position_ids: tuple(
        part * factor for part in forward(module, x, position_ids)
    )
    assert set(faults(loaded)) == {"attention factor"}  # not in any number that the module holds


def test_frequencies_are_compared_one_by_one(tmp_path: Path) -> None:
    loaded = loaded_with(tmp_path, "qwen3", "llama3")
    module = plants.rotary(loaded)
    before = module.inv_freq.clone()
    for pair in (0, len(before) // 2, len(before) - 1):
        module.inv_freq.copy_(before)
        module.inv_freq[pair] *= 1 + 1e-3
        assert {"frequencies", "by length"} <= set(faults(loaded))
    module.inv_freq.copy_(before * (1 + 1e-6))  # twin: rounding is no fault
    assert faults(loaded) == {}


def test_dynamic_frequencies_must_grow_and_come_back(tmp_path: Path) -> None:
    loaded = loaded_with(tmp_path, "llama", "dynamic")
    module = plants.rotary(loaded)
    held = module.inv_freq.clone()
    assert faults(loaded) == {}
    assert torch.equal(module.inv_freq, held)  # the check works on a copy
    limit = loaded.model.config.max_position_embeddings
    module(torch.zeros(1), torch.tensor([[3 * limit]]))
    # a long text before is no fault
    assert not torch.equal(module.inv_freq, held) and faults(loaded) == {}
    module(torch.zeros(1), torch.tensor([[0]]))
    module.max_seq_len_cached = 1 << 40
    assert "dynamic is constant" in faults(loaded)["by length"].says


@pytest.mark.parametrize(
    ("scheme", "changes", "name"),
    [
        ("default", {"factor": 4.0}, "keys of another scheme"),
        (
            "default",
            {"max_position_embeddings": 8192, "rope_theta": 1e4},
            "rope_theta for the window",
        ),
        ("linear", {"factor": 0.5}, "factor"),
        ("yarn", {"factor": 1.2}, "original_max_position_embeddings × factor"),
        (
            "yarn",
            {"original_max_position_embeddings": 100},
            "original_max_position_embeddings is a length",
        ),
        ("yarn", {"attention_factor": 1.0}, "attention_factor given"),
        ("longrope", {"attention_factor": 1.0}, "attention_factor given"),
        (
            "llama3",
            {"original_max_position_embeddings": 1 << 20},
            "original_max_position_embeddings × factor",
        ),
    ],
)
def test_a_configuration_that_contradicts_itself_is_named(
    tmp_path: Path, scheme: str, changes: dict, name: str
) -> None:
    assert name in faults(loaded_with(tmp_path, "llama", scheme, **changes))


def test_a_published_configuration_is_sound(tmp_path: Path) -> None:
    """Llama 3.2's: factor 32 beside a window of 16 times the trained length."""
    rope = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 8192, "rope_theta": 500_000.0}
    loaded = loaded_with(
        tmp_path, "llama", "llama3", rope_parameters=rope, max_position_embeddings=131_072
    )
    assert faults(loaded) == {}


def test_two_places_that_give_different_bases_are_named(tmp_path: Path) -> None:
    folder = plants.save_sound(tmp_path / "llama", "llama", "default", random.Random(1))
    plants.edit(folder, lambda config: config.update(rope_theta=123_456.0))
    assert "rope_theta once" in faults(load.load(folder))


# -------------------------------------------------------------------------------------- by the loss

PERIOD, VOCABULARY = 24, 32


def periodic(rows: int, seed: int) -> Tensor:
    """Rows that repeat 24 random tokens four times: predicted by looking back exactly 24."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (rows, PERIOD), generator=generator).repeat(1, 4)


@pytest.fixture(scope="module")
def trained() -> PreTrainedModel:
    """A decoder trained here with base 100,000 until it predicts, exported."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "width": 64,
        "layers": 1,
        "heads": 2,
        "mlp_width": 64,
        "max_length": 128,
    }
    model = Decoder(ModelConfig(kind="decoder", theta=1e5, init_std=0.1, **shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(80):
        tokens = periodic(16, step)
        logits = model(tokens).view(16, -1, VOCABULARY)[:, PERIOD:-1]
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, PERIOD + 1 :].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    return to_hf(model).eval()


@pytest.fixture
def folder(tmp_path: Path, trained: PreTrainedModel) -> Path:
    # for its tokenizer
    plants.save_sound(tmp_path / "trained", "llama", "default", random.Random(0))
    trained.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_the_weights_tell_a_base_that_config_json_lost(folder: Path, theta: float) -> None:
    sound = load.load(folder)
    finding = rope_loss.confirmed(rope_loss.confirm(sound, periodic(8, 999)), 1e5)
    assert finding.ok and faults(sound) == {}
    plants.edit(folder, lambda config: config["rope_parameters"].update(rope_theta=theta))
    wrong = load.load(folder)
    assert faults(wrong) == {}  # consistent with itself: no number gives it away
    rows = rope_loss.confirm(wrong, periodic(8, 999))
    assert theta not in [row.theta for row in rows]
    assert min(rows, key=lambda row: row.loss).theta == 1e5
    finding = rope_loss.confirmed(rows, theta)
    assert not finding.ok and finding.found.startswith("100000 predicts -")
    assert "FAULT rope_theta by loss" in rope_check.lines([finding])[0]


def test_other_bases_leave_the_model_as_it_was(folder: Path) -> None:
    loaded = load.load(folder)
    held, tokens = plants.rotary(loaded), periodic(2, 5)
    before = token_losses(loaded.model, tokens[0])
    with pytest.raises(RuntimeError), rope_loss.rebuilt(loaded.model, rope_theta=1e4) as other:
        assert (token_losses(other, tokens[0]) - before).abs().max() > 0.1
        raise RuntimeError
    assert plants.rotary(loaded) is held
    assert torch.equal(token_losses(loaded.model, tokens[0]), before)


def test_weights_that_know_nothing_accuse_no_base(tmp_path: Path) -> None:
    loaded = load.load(plants.save_sound(tmp_path / "random", "llama", "default", random.Random(3)))
    assert not any(row.better for row in rope_loss.confirm(loaded, torch.randint(0, 64, (4, 256))))


def test_the_paired_error_counts_blocks_of_neighbours() -> None:
    correlated = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)).repeat_interleave(
        rope_loss.BLOCK, 1
    )
    mean, error = rope_loss.paired(correlated)
    assert mean == pytest.approx(float(correlated.mean()))
    assert error == pytest.approx(
        float(correlated[:, :: rope_loss.BLOCK].std() / 40**0.5), rel=1e-5
    )
    # twin: as if tokens were independent
    assert error > 5 * float(correlated.std() / correlated.numel() ** 0.5)
    assert rope_loss.paired(torch.ones(1, 5))[1] == float("inf")
