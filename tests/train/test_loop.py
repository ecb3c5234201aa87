"""The training loop: schedules, accumulation, resuming, keys, and what it refuses."""

import math
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from observe import refuses, run_bits, snapshot
from tiny import LENGTH, VOCABULARY, make_project, task_run, tiny_run

from farcontext import files
from farcontext.nn.config import Extension
from farcontext.train import batches, checkpoint, keys, loop, optimizer
from farcontext.train.config import OptimizerConfig


@pytest.fixture
def project(tiny_project: Path, tmp_path: Path, monkeypatch) -> Path:
    """The tiny project as working folder, with a run cache of this test's own."""
    monkeypatch.chdir(tiny_project)
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "cache"
    torch.set_num_threads(before)


def rates(steps: int = 100, **changes: object) -> list[float]:
    config = OptimizerConfig(**{"lr": 2.0, "warmup": 10, "final": 0.1, "decay": 0.2} | changes)
    return [optimizer.learning_rate(config, step, steps) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_every_schedule_warms_up_linearly_to_its_peak(schedule: str) -> None:
    found = rates(schedule=schedule)
    assert found[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert max(found) == pytest.approx(2.0)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_a_falling_schedule_falls_to_its_final_share_at_the_last_step(
    schedule: str, warmup: int
) -> None:
    found = rates(schedule=schedule, warmup=warmup)
    assert found[-1] == pytest.approx(0.2)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(found[warmup:]))


def test_wsd_is_flat_until_its_last_share_and_then_falls_by_equal_steps() -> None:
    found = rates(schedule="wsd")
    assert found[10:80] == pytest.approx([2.0] * 70)
    falls = [a - b for a, b in pairwise(found[79:])]
    assert falls == pytest.approx([falls[0]] * len(falls)) and falls[0] > 0


def test_cosine_is_half_way_down_in_the_middle_and_constant_never_moves() -> None:
    assert rates(steps=101, warmup=0, schedule="cosine")[50] == pytest.approx(2.0 * 0.55)
    assert set(rates(schedule="constant")[10:]) == {2.0}


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_training_learns_and_every_row_is_there(kind: str, project: Path) -> None:
    run = tiny_run(kind=kind)
    result = loop.train(run)
    assert result.steps_trained == run.steps == len(result.rows)
    assert [row["step"] for row in result.rows] == list(range(1, run.steps + 1))
    start, end = (
        sum(row["loss"] for row in part) / 5 for part in (result.rows[:5], result.rows[-5:])
    )
    assert abs(start - math.log(VOCABULARY)) < 1 and end < start - 1
    assert result.cost["tokens"] == run.steps * LENGTH * 4
    model = loop.load_model(run)
    assert not model.training
    again = loop.train(run)
    assert (again.steps_trained, again.rows) == (0, result.rows)


@pytest.mark.parametrize("changes", [{}, {"muon": 0.02}], ids=["AdamW", "Muon"])
def test_an_interrupted_run_ends_with_the_same_bits(
    changes: dict, project: Path, monkeypatch
) -> None:
    class Interrupted(Exception):
        pass

    def stop(step: int) -> None:
        if step == 13:
            raise Interrupted

    run = tiny_run(**changes)
    loop.train(run)
    whole = run_bits(project)
    monkeypatch.setenv("FARCONTEXT_CACHE", str(project / "second"))
    folder = keys.run_folder(run)
    with pytest.raises(Interrupted):
        loop._train(run, folder, on_step=stop)
    assert checkpoint.latest(folder).step == 10
    assert loop.train(run).steps_trained == 30
    assert run_bits(project / "second") == whole


@pytest.mark.parametrize("kind", ["decoder", "encoder", "lstm"])
def test_a_curriculum_trains_every_kind_of_model(kind: str, project: Path) -> None:
    run = task_run(kind=kind)
    result = loop.train(run)
    assert len(result.rows) == 20 and result.cost["tokens"] == 12 * 6 * LENGTH + 8 * 5 * 2 * LENGTH
    assert all(row["scored"] > 0 for row in result.rows)
    loop.load_model(run)


def test_a_curriculum_with_drawn_positions_resumes_to_the_same_bits(
    project: Path, monkeypatch
) -> None:
    """Positions come from torch's generator, whose state a checkpoint holds.

    Twin: with it lost, the bits differ.
    """

    class Interrupted(Exception):
        pass

    def stop(step: int) -> None:
        if step == 13:
            raise Interrupted

    run, bits = task_run(random_positions=128), {}
    for name in ("whole", "resumed", "generator lost"):
        monkeypatch.setenv("FARCONTEXT_CACHE", str(project / name))
        folder = keys.run_folder(run)
        if name != "whole":
            with pytest.raises(Interrupted):
                loop._train(run, folder, on_step=stop)
            torch.manual_seed(123)
        with monkeypatch.context() as patch:
            if name == "generator lost":
                patch.setattr(torch, "set_rng_state", lambda state: None)
            assert loop.train(run).steps_trained == (20 if name == "whole" else 10)
        bits[name] = run_bits(project / name)
    assert bits["resumed"] == bits["whole"] != bits["generator lost"]


def test_fine_tuning_starts_from_the_finished_weights_under_another_configuration(
    project: Path,
) -> None:
    base = task_run()
    extension = Extension(scheme="linear", scale=2.0, trained_length=2 * LENGTH)
    tuned = task_run(start=base, extension=extension)
    with pytest.raises(files.UserError, match="expected a finished run of 20 steps"):
        loop.train(tuned)
    loop.train(base)
    state = loop._fresh(tuned)
    first = loop.load_model(base).state_dict()
    assert all(torch.equal(value, first[name]) for name, value in state.model.state_dict().items())
    assert state.model.training and state.model.config.extension == extension
    assert keys.run_key(tuned) != keys.run_key(task_run(extension=extension))
    loop.train(tuned)
    assert not torch.equal(loop.load_model(tuned).embedding.weight, first["embedding.weight"])


def test_a_task_run_does_not_depend_on_the_corpus(project: Path, monkeypatch) -> None:
    before = keys.run_key(task_run()), keys.run_key(tiny_run())
    monkeypatch.setattr(keys, "corpus_fingerprint", lambda: "another")
    assert keys.run_key(task_run()) == before[0] and keys.run_key(tiny_run()) != before[1]


def test_accumulated_gradients_are_those_of_one_big_batch(project: Path) -> None:
    """To 1e-6, packed with masks, where the parts hold different numbers of scored tokens."""
    found = {}
    for parts in (1, 2, 4):
        run = tiny_run(kind="encoder", rows=8, accumulation=parts, clip=1e9)
        state = loop._fresh(run)
        stream = batches.Stream.load(keys.tokens_folder(), "train")
        loss, norm, scored = loop._step(
            state, run, batches.training_batch(stream, run.batch, seed=0, step=0)
        )
        found[parts] = (
            loss,
            norm,
            scored,
            {n: p.grad.clone() for n, p in state.model.named_parameters()},
        )
    for parts in (2, 4):
        assert found[parts][:3] == pytest.approx(found[1][:3], rel=1e-6)
        for name, gradient in found[parts][3].items():
            torch.testing.assert_close(gradient, found[1][3][name], rtol=1e-6, atol=1e-6)


def test_a_batch_without_a_scored_token_has_loss_0_and_gradient_0(project: Path) -> None:
    state = loop._fresh(tiny_run())
    tokens = torch.full((2, LENGTH), 5)
    loss, scored = loop.scored_loss(
        state.model, batches.Batch(tokens, torch.full_like(tokens, -100), None)
    )
    loss.backward()
    assert (loss.item(), scored) == (0.0, 0)
    assert all(p.grad is None or not p.grad.any() for p in state.model.parameters())


def test_the_key_of_a_run_changes_with_its_config_and_its_corpus(
    project: Path, tmp_path: Path, monkeypatch
) -> None:
    known = {
        keys.run_key(tiny_run(**changes))
        for changes in ({}, {"seed": 1}, {"lr": 0.02}, {"steps": 41})
    }
    assert len(known) == 4
    other = make_project(tmp_path / "other")
    monkeypatch.chdir(other)
    assert keys.run_key(tiny_run()) in known  # the same text in another folder
    card = files.read_json(other / "build" / "tokenizer" / "card.json")
    files.write_json(other / "build" / "tokenizer" / "card.json", card | {"fingerprint": "0"})
    assert keys.run_key(tiny_run()) not in known


def test_muon_has_the_blocks_matrices_and_adamw_the_rest(project: Path) -> None:
    run = tiny_run(kind="encoder", muon=0.05)
    model = loop.build_model(run.model)
    both = optimizer.optimizer(model, run.optimizer)
    names = {id(p): name for name, p in model.named_parameters()}
    by_muon = {names[id(p)] for group in both.muon.param_groups for p in group["params"]}
    by_adamw = {names[id(p)] for group in both.adamw.param_groups for p in group["params"]}
    assert by_muon | by_adamw == set(names.values()) and not by_muon & by_adamw
    assert by_muon and all(name.startswith("stack.blocks.") for name in by_muon)
    assert {"embedding.weight", "head.weight"} <= by_adamw
    for group in both.param_groups:
        group["lr"] = 0.001
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    both.step()
    assert [group["lr"] for group in both.muon.param_groups] == pytest.approx([0.005])
    assert {group["lr"] for group in both.adamw.param_groups} == {0.001}


def test_an_option_that_a_run_leaves_alone_is_not_in_its_key(project: Path, monkeypatch) -> None:
    plain, muon = tiny_run(), tiny_run(muon=0.02)
    assert "muon" not in plain.model_dump(mode="json")["optimizer"]
    assert muon.model_dump(mode="json")["optimizer"]["muon"] == 0.02
    tuned = tiny_run(seed=3).model_copy(update={"start": muon})
    before = {name: keys.run_key(run) for name, run in (("p", plain), ("m", muon), ("t", tuned))}
    assert len(set(before.values())) == 3
    # Other code behind the option: the runs that reach it have another key.
    there = {"muon": ("farcontext.train.optimizer", "learning_rate")}
    monkeypatch.setattr(keys, "LATER", there)
    after = {name: keys.run_key(run) for name, run in (("p", plain), ("m", muon), ("t", tuned))}
    assert after["p"] == before["p"]
    assert after["m"] != before["m"] and after["t"] != before["t"]


def test_starting_afresh_trains_again_and_gives_the_same_bits(project: Path) -> None:
    run = tiny_run(steps=10)
    loop.train(run)
    before = run_bits(project)
    assert loop.train(run, resume=False).steps_trained == 10
    assert run_bits(project) == before


def test_validation_does_not_disturb_the_training(project: Path, monkeypatch) -> None:
    plain = loop.train(tiny_run(steps=12)).rows
    run = tiny_run(steps=12).model_copy(update={"evaluate_every": 5})
    rows = loop.train(run).rows
    assert [row["step"] for row in rows if "validation_loss" in row] == [5, 10, 12]
    assert [row["loss"] for row in rows] == [row["loss"] for row in plain]


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused_before_training(project: Path) -> None:
    run = tiny_run()
    wrong = run.model_copy(update={"model": run.model.model_copy(update={"vocab_size": 300})})
    with refuses(f"model.vocab_size = 300: expected the tokenizer's {VOCABULARY}"):
        loop.train(wrong)


def test_a_model_is_loaded_from_a_finished_run_only(project: Path) -> None:
    with refuses("expected a finished run of 40 steps"):
        loop.load_model(tiny_run())
    loop.train(tiny_run())
    before = snapshot(project)
    loop.load_model(tiny_run())
    assert snapshot(project) == before


def test_bfloat16_trains_too_and_keeps_its_weights_in_float32(project: Path) -> None:
    run = tiny_run(steps=10).model_copy(update={"dtype": "bfloat16"})
    rows = loop.train(run).rows
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert {p.dtype for p in loop.load_model(run).parameters()} == {torch.float32}
    assert os.environ["FARCONTEXT_CACHE"] == str(project)
