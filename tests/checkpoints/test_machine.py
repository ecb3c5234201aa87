"""Devices, what reading needs, and what is told meanwhile."""

import io

import pytest
import torch
from observe import refuses
from rows import LLAMA, tiny_model

from farcontext.checkpoints import questions
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.probing import machine, progress

WIDE = LLAMA | {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99", "cpu:1", ""])
def test_a_device_that_is_not_here_is_one_line(name: str) -> None:
    with refuses(f"device = {name}: expected"):
        machine.device_of(name)
    assert machine.device_of("cpu").type == "cpu"
    assert machine.device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_move_changes_no_value_and_no_dtype() -> None:
    model = tiny_model(LLAMA).to(torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    frequencies = model.model.rotary_emb.inv_freq.clone()
    device = machine.device_of("auto")
    found = machine.moved(Pretrained(model, None, "tiny", None), device).model
    assert found.device.type == device.type and found.dtype == torch.bfloat16
    assert found.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(found.model.rotary_emb.inv_freq.cpu(), frequencies)


def test_the_cache_and_the_weights_are_counted_as_they_are() -> None:
    model = tiny_model(WIDE)
    with torch.inference_mode():
        cache = questions.read(model, [5] * 300)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    found = machine.needs(model, 300)
    assert found.cache == held
    assert found.weights == sum(p.nbytes for p in model.parameters())


def test_the_questions_do_not_repeat_the_cache() -> None:
    """Sixteen questions behind a context allocate far less than one more cache."""
    model, context = tiny_model(WIDE), [5] * 2000
    suffixes = [tuple(range(10 + n, 18 + n)) for n in range(16)]

    def peak(asked: list[tuple[int, ...]]) -> int:
        with torch.profiler.profile(profile_memory=True, record_shapes=False) as seen:
            questions.suffix_scores(model, context, asked)
        held = most = 0
        for event in seen.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    needs = machine.needs(model, 2000)
    one, many = peak(suffixes[:1]), peak(suffixes)
    assert one > needs.cache  # The context's own cache is seen.
    assert many - one < 0.5 * needs.cache
    assert many < 1.6 * (needs.weights + needs.cache) - needs.weights


def test_less_memory_is_read_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(WIDE)
    monkeypatch.setattr(machine, "free_on", lambda device: None)
    assert machine.part_that_fits(model, 4096) == machine.READ_MOST
    beside = machine._beside(model, 4096, 512)
    monkeypatch.setattr(machine, "free_on", lambda device: int(beside / 0.75) + 1)
    assert machine.part_that_fits(model, 4096) == 512
    monkeypatch.setattr(machine, "free_on", lambda device: 2**20)
    with refuses("length = 4096: expected 0."):
        machine.part_that_fits(model, 4096)


def test_progress_is_told_in_lines_off_a_terminal() -> None:
    out = io.StringIO()
    with progress.Progress("probe of x", out, every=0.0) as told:
        told.expect(10)
        told.update(2.5)
        told.more(-5)
        told.update(1)
        told.update(1.5)
    lines = out.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "farcontext: probe of x: 25%",
        "farcontext: probe of x: 70%",
    ]
    assert all("minutes so far, about" in line for line in lines)
    quiet = io.StringIO()
    with progress.Progress("probe", quiet) as told:
        told.expect(1)
        told.update(0.5)
    assert quiet.getvalue() == ""  # A short measurement says nothing.
