"""The run cache and sweeps: each job once, in the order given, whatever was there before."""

import importlib
import logging
from collections import Counter
from pathlib import Path

import pytest
import torch
from distributed import LocalCluster
from observe import refuses, snapshot
from tiny import constant, die, die_once, embedding_norm, task_run, tiny_run

from farcontext import files
from farcontext.train import keys, loop, runs
from farcontext.train.runs import EvalConfig

RUN = tiny_run(steps=6, save_every=3)
OTHER = tiny_run(steps=6, save_every=3, seed=1)
QUIET = {"dashboard_address": None, "silence_logs": logging.CRITICAL}


@pytest.fixture
def project(tiny_project: Path, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tiny_project)
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FARCONTEXT_JOBS", "1")
    return tmp_path / "cache"


def sweep(jobs: list) -> list:
    """The results of a sweep in the jobs' order."""
    return list(runs.sweep(dict(enumerate(jobs))).values())


def jobs() -> list:
    return [EvalConfig(embedding_norm, RUN), OTHER, EvalConfig(constant, options={"value": 7}), RUN]


def test_a_sweep_does_each_job_and_a_second_one_trains_nothing(project: Path) -> None:
    first = sweep(jobs())
    assert [result.steps_trained for result in first] == [1, 6, 1, 6]
    assert first[2].rows == [{"value": 7}]
    assert first[1].key == keys.run_key(OTHER) and first[3].key == keys.run_key(RUN)
    before = snapshot(project)
    second = sweep(jobs())
    assert [result.steps_trained for result in second] == [0, 0, 0, 0]
    assert [result.rows for result in second] == [result.rows for result in first]
    assert snapshot(project) == before


def test_what_an_evaluation_needs_is_trained_first(project: Path) -> None:
    (result,) = sweep([EvalConfig(embedding_norm, RUN, {"scale": 2.0})])
    assert result.rows[0]["norm"] == pytest.approx(
        2 * next(loop.load_model(RUN).parameters()).norm().item()
    )


def test_a_job_given_twice_is_done_once(project: Path) -> None:
    found = sweep([RUN, EvalConfig(embedding_norm, RUN), RUN, EvalConfig(embedding_norm, RUN)])
    assert found[0].rows == found[2].rows and found[1].rows == found[3].rows
    assert (
        len(list((project / "runs").iterdir()))
        == len(list((project / "evaluations").iterdir()))
        == 1
    )


def test_another_option_another_run_or_another_protocol_is_another_evaluation(
    project: Path,
) -> None:
    keys = {
        EvalConfig(embedding_norm, RUN).key,
        EvalConfig(embedding_norm, RUN, {"scale": 2.0}).key,
        EvalConfig(embedding_norm, OTHER).key,
        EvalConfig(constant, options={"value": 1}).key,
        EvalConfig(constant, options={"value": 2}).key,
    }
    assert len(keys) == 5


def test_two_processes_give_the_bits_of_one(project: Path, monkeypatch) -> None:
    alone = sweep([RUN, OTHER])
    monkeypatch.setenv("FARCONTEXT_CACHE", str(project / "parallel"))
    monkeypatch.setenv("FARCONTEXT_JOBS", "2")
    together = sweep([RUN, OTHER])
    assert [result.rows for result in together] == [result.rows for result in alone]
    assert [result.steps_trained for result in together] == [6, 6]
    # two workers must not meet in one folder
    twice = sweep([EvalConfig(constant, options={"value": 1})] * 2)
    assert [result.rows for result in twice] == [[{"value": 1}]] * 2
    for one, two in zip(alone, together, strict=True):
        name = "step-00000006/model.safetensors"
        assert files.sha256_file(one.folder / name) == files.sha256_file(two.folder / name)
        assert (two.folder / "log.txt").is_file() and one.key == two.key


def test_a_dask_cluster_gives_the_bits_of_one_process(project: Path, monkeypatch) -> None:
    """Two workers run, each a process of its own, by one variable.

    What is done already asks no cluster.
    """
    alone = sweep(jobs())
    monkeypatch.setenv("FARCONTEXT_CACHE", str(project / "cluster"))
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **QUIET) as cluster:
        monkeypatch.setenv("FARCONTEXT_DASK", cluster.scheduler_address)
        together = sweep(jobs())
        with monkeypatch.context() as patch, refuses("other code, texts or versions"):
            patch.setattr(keys, "corpus_fingerprint", lambda: "another")
            sweep([RUN])
    assert [result.rows for result in together] == [result.rows for result in alone]
    assert [result.steps_trained for result in together] == [1, 6, 1, 6]
    for one, two in zip(alone[1::2], together[1::2], strict=True):
        name = "step-00000006/model.safetensors"
        assert one.key == two.key and one.folder != two.folder
        assert files.sha256_file(one.folder / name) == files.sha256_file(two.folder / name)
        assert (two.folder / "log.txt").is_file()
    assert [result.steps_trained for result in sweep(jobs())] == [0, 0, 0, 0]


def test_a_worker_that_dies_costs_its_own_job_once_more_and_no_other(
    project: Path, tmp_path: Path, monkeypatch
) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    wanted = [EvalConfig(die_once, options={"folder": str(calls), "value": i}) for i in range(6)]
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **QUIET) as cluster:
        monkeypatch.setenv("FARCONTEXT_DASK", cluster.scheduler_address)
        assert [result.rows for result in sweep(wanted)] == [[{"value": i}] for i in range(6)]
    done = Counter(path.name.partition("-")[0] for path in calls.iterdir())
    assert done == {"0": 2} | {str(i): 1 for i in range(1, 6)}


def test_a_job_that_kills_every_worker_or_that_none_can_import_is_one_line(
    project: Path, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "only_here.py").write_text("def one():\n    return [{'value': 1}]\n")
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, **QUIET) as cluster:
        monkeypatch.setenv("FARCONTEXT_DASK", cluster.scheduler_address)
        monkeypatch.syspath_prepend(tmp_path)
        with refuses("No module named 'only_here': expected the same code"):
            sweep([EvalConfig(importlib.import_module("only_here").one)])
        cluster.scheduler.allowed_failures = 0
        with refuses("its worker died 1 times: expected more memory"):
            sweep([EvalConfig(die)])


def test_a_cluster_that_cannot_be_is_one_line(project: Path, monkeypatch) -> None:
    monkeypatch.setenv("FARCONTEXT_DASK", "nonsense://nowhere:1")
    with refuses("FARCONTEXT_DASK = nonsense://nowhere:1: expected a scheduler's address"):
        sweep([RUN])


def test_an_evaluation_that_fails_leaves_nothing_that_looks_done(project: Path) -> None:
    with pytest.raises(TypeError):
        sweep([EvalConfig(constant, options={"wrong": 1})])
    with pytest.raises(TypeError):
        sweep([EvalConfig(constant, options={"wrong": 1})])


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_jobs_that_is_none_is_refused(text: str, monkeypatch) -> None:
    monkeypatch.setenv("FARCONTEXT_JOBS", text)
    with refuses(f"FARCONTEXT_JOBS = {text}: expected"):
        runs.jobs()


def test_the_thread_count_is_what_it_was_after_a_sweep(project: Path) -> None:
    before = torch.get_num_threads()
    sweep([RUN])
    assert torch.get_num_threads() == before


def test_what_fine_tuning_starts_from_is_trained_first_and_once(project: Path) -> None:
    base = task_run()
    tuned = [task_run(start=base, seed=seed) for seed in (1, 2)]
    further = task_run(start=tuned[0], seed=3)
    assert runs._generations([further, tuned[1], base]) == [[base], [tuned[0]], [further, tuned[1]]]
    found = sweep([further, *tuned, base])
    assert [result.steps_trained for result in found] == [20] * 4
    assert [result.steps_trained for result in sweep([further, *tuned, base])] == [0] * 4


def test_another_configuration_of_the_same_weights_is_another_evaluation(project: Path) -> None:
    run = task_run()
    jobs = [
        EvalConfig(norm_config, run),
        EvalConfig(norm_config, run, model=run.model.model_copy(update={"log_n": 16})),
    ]
    assert jobs[0].key != jobs[1].key
    assert [result.rows[0]["log_n"] for result in sweep(jobs)] == [None, 16]


def norm_config(model: torch.nn.Module) -> list[dict]:
    """A protocol: what a model was configured with."""
    return [{"log_n": model.config.log_n}]
