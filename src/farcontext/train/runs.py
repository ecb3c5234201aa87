"""The run cache, and sweeps of many trainings and evaluations.

Jobs are cached and resumable, one single-threaded process a core. They run on the cores of this
machine, or of the Dask cluster whose scheduler's address FARCONTEXT_DASK holds.
"""

import contextlib
import importlib
import itertools
import os
import socket
import threading
from collections import namedtuple
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from farcontext import files
from farcontext.files import UserError
from farcontext.nn.config import ModelConfig
from farcontext.schema import Row
from farcontext.train import interrupt, kept
from farcontext.train.config import RunConfig, Task
from farcontext.train.curriculum import prepared
from farcontext.train.kept import RunResult
from farcontext.train.keys import code_fingerprint, corpus_fingerprint, device, run_folder, run_key
from farcontext.train.loop import load_model, train

Name = TypeVar("Name", bound=Hashable)

_busy = threading.Lock()  # A Dask worker with several threads still runs one job at a time.


@dataclass(frozen=True)
class EvalConfig:
    """An evaluation: a function of a finished run's model and options.

    The function is at module level, its options are plain, and it is cached like a training.
    `protocol(model, **options)` returns rows of plain values; `run=None` calls
    `protocol(**options)`. `model` is another configuration of the run's weights: positions that are
    extended without training.
    """

    protocol: Callable[..., list[Row]]
    run: RunConfig | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    model: ModelConfig | None = None

    @property
    def key(self) -> str:
        """Return the evaluation's key, 16 hex digits.

        They are a hash of all that can change the rows.
        """
        identity = {
            "run": run_key(self.run) if self.run else None,
            "model": self.model.model_dump(mode="json") if self.model else None,
            "protocol": self.protocol.__qualname__,
            "options": dict(self.options),
            "corpus": corpus_fingerprint(),
            "code": code_fingerprint(self.protocol),
            "torch": torch.__version__,
            "device": device().type,
        }
        return files.sha256_json(identity)[:16]

    @property
    def folder(self) -> Path:
        """Return the evaluation's folder in the cache."""
        return files.cache() / "evaluations" / self.key


def evaluate(job: EvalConfig) -> RunResult:
    """Run one evaluation, or return its cached rows."""
    if done := _cached(job):
        return done
    with files.lock(job.folder):
        with torch.inference_mode():
            rows = (
                job.protocol(load_model(job.run, job.model), **job.options)
                if job.run
                else job.protocol(**job.options)
            )
        kept.write_sealed(job.folder / kept.ROWS, {"rows": rows})
    return RunResult(job.key, job.folder, rows, steps_trained=1)


def _cached(job: RunConfig | EvalConfig) -> RunResult | None:
    if isinstance(job, RunConfig):
        return kept.finished(run_folder(job))
    return kept.evaluated(job.folder)


def final_loss(result: RunResult, steps: int = 20) -> float:
    """Return a training's mean loss over its last steps.

    It is in nats a scored token.
    """
    return float(np.mean([row["loss"] for row in result.rows[-steps:]]))


def jobs() -> int:
    """Return how many processes a sweep uses.

    It is FARCONTEXT_JOBS, else one a core, and one on a GPU.
    """
    if text := os.environ.get("FARCONTEXT_JOBS"):
        if not text.isdecimal() or int(text) < 1:
            raise UserError(f"FARCONTEXT_JOBS = {text}: expected a number of processes, 1 or more")
        return int(text)
    return 1 if torch.cuda.is_available() else joblib.cpu_count()


@contextlib.contextmanager
def _one_thread():
    """Use one thread everywhere, as bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _do(job: RunConfig | EvalConfig) -> RunResult:
    with _one_thread():
        return evaluate(job) if isinstance(job, EvalConfig) else train(job)


def _do_in_worker(job: RunConfig | EvalConfig) -> RunResult:
    """Do a job in a worker process that ends with its parent."""
    parent = os.getppid()
    interrupt.end_with_parent()
    if isinstance(job, EvalConfig):
        return _do_and_log(job)
    try:
        with interrupt.finishing():
            return _do_and_log(job)
    except UserError as error:
        if os.getppid() != parent:  # Nobody is left to hear of it.
            os._exit(error.code)
        raise


def _key(job: RunConfig | EvalConfig) -> str:
    return job.key if isinstance(job, EvalConfig) else run_key(job)


def _told(job: RunConfig | EvalConfig) -> dict[str, Any]:
    """Return a job in plain values, its protocol by name.

    A worker of Dask that cannot import what it is sent never answers.
    """
    if isinstance(job, RunConfig):
        return {"run": job.model_dump(mode="json")}
    run, model = (part and part.model_dump(mode="json") for part in (job.run, job.model))
    protocol = job.protocol.__module__, job.protocol.__qualname__
    return {"run": run, "model": model, "protocol": protocol, "options": dict(job.options)}


def _job(told: Mapping[str, Any]) -> RunConfig | EvalConfig:
    """Return the job that `_told` told."""
    run = told["run"] and RunConfig.model_validate(told["run"])
    if "protocol" not in told:
        return run
    module, name = told["protocol"]
    protocol = getattr(importlib.import_module(module), name)
    model = told["model"] and ModelConfig.model_validate(told["model"])
    return EvalConfig(protocol, run, told["options"], model)


def _do_on_cluster(told: Mapping[str, Any], key: str, project: Path, cache: Path) -> RunResult:
    """Do a job in a process of a cluster, as `_do`.

    It has the same project and cache.

    Raises:
        UserError: it has not, or has other code, texts, versions or devices: the job's key would be
            another.
    """
    with _busy:
        try:
            os.chdir(project)
        except OSError as error:
            raise UserError(
                f"{socket.gethostname()}: {project}: {error.strerror}: expected the same files"
            ) from None
        os.environ["FARCONTEXT_CACHE"] = str(cache)
        try:
            job = _job(told)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"{socket.gethostname()}: job {key}: {error}: expected the same code"
            ) from None
        if (found := _key(job)) != key:
            raise UserError(
                f"{socket.gethostname()}: key = {found}: expected {key}: "
                "other code, texts or versions"
            )
        return _do_and_log(job)


def _do_and_log(job: RunConfig | EvalConfig) -> RunResult:
    folder = job.folder if isinstance(job, EvalConfig) else run_folder(job)
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "log.txt").open("a", encoding="utf-8")
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        return _do(job)


def _client(address: str) -> Any:
    """Return a client of a Dask cluster.

    Raises:
        UserError: Dask is not installed, or nobody answers.
    """
    try:
        return importlib.import_module("distributed").Client(address, timeout=30)
    except ImportError:
        raise UserError(
            f"FARCONTEXT_DASK = {address}: expected the package distributed: "
            "pip install distributed"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"FARCONTEXT_DASK = {address}: expected a scheduler's address: {error}"
        ) from None


def _on_cluster(todo: Sequence[RunConfig | EvalConfig], address: str) -> Iterator[RunResult]:
    """Do jobs on a Dask cluster; yield their results in order.

    Dask gives the job of a worker that dies to another one, which goes on from its last save.

    Raises:
        UserError: as `_do_on_cluster`; a job whose workers all died.
    """
    there = files.project(), files.cache().resolve()
    with _client(address) as client:
        killed = importlib.import_module("distributed").KilledWorker
        # Each has a name of its own: Dask would take two jobs of one name for the same.
        futures = [
            client.submit(_do_on_cluster, _told(job), _key(job), *there, pure=False) for job in todo
        ]
        for job, future in zip(todo, futures, strict=True):
            try:
                yield future.result()
            except killed as error:
                raise UserError(
                    f"FARCONTEXT_DASK = {address}: job {_key(job)}: its worker died "
                    f"{error.allowed_failures + 1} times: expected more memory, or another machine"
                ) from None


def _spread(todo: Sequence[RunConfig | EvalConfig]) -> Iterator[RunResult]:
    """Do jobs in parallel; yield their results early and in order."""
    at_once = {"return_as": "generator", "pre_dispatch": "all", "batch_size": 1}
    if address := os.environ.get("FARCONTEXT_DASK"):
        yield from _on_cluster(todo, address)
    elif (workers := min(jobs(), len(todo))) > 1:
        yield from joblib.Parallel(n_jobs=workers, **at_once)(
            joblib.delayed(_do_in_worker)(job) for job in todo
        )
    else:
        yield from map(_do, todo)


def _phase(wanted: Sequence[RunConfig | EvalConfig], label: str) -> list[RunResult]:
    """Do what the cache lacks, without a process if that is nothing."""
    known = [_cached(job) for job in wanted]
    todo = [job for job, done in zip(wanted, known, strict=True) if done is None]
    results = _spread(todo) if todo else []
    fresh = iter(list(tqdm(results, total=len(todo), desc=label, disable=None, leave=False)))
    return [done or next(fresh) for done in known]


def _generations(trainings: Sequence[RunConfig]) -> list[list[RunConfig]]:
    """Return each run once, in lists: those first that others need."""
    newest = list(dict.fromkeys(trainings))
    starts = [run.start for run in newest if run.start is not None]
    if not starts:
        return [newest] if newest else []
    earlier = _generations(starts)
    known = {run for generation in earlier for run in generation}
    return [*earlier, [run for run in newest if run not in known]]


def sweep(jobs: Mapping[Name, RunConfig | EvalConfig]) -> dict[Name, RunResult]:
    """Train and evaluate jobs in parallel; return results by name.

    Each is done once. The runs that evaluations need, and those that fine-tuning starts from, are
    trained first, also when they have no name themselves. Put the longest jobs first: they are
    started in order.
    """
    trainings = [job if isinstance(job, RunConfig) else job.run for job in jobs.values()]
    trained: dict[RunConfig, RunResult] = {}
    for generation in _generations([run for run in trainings if run is not None]):
        trained |= zip(generation, _phase(generation, "training"), strict=True)
    evaluations = {job.key: job for job in jobs.values() if isinstance(job, EvalConfig)}
    scored = dict(zip(evaluations, _phase(list(evaluations.values()), "evaluation"), strict=True))
    return {
        name: trained[job] if isinstance(job, RunConfig) else scored[job.key]
        for name, job in jobs.items()
    }


def result_of(job: RunConfig | EvalConfig) -> RunResult:
    """Return the result of one job."""
    return sweep({0: job})[0]


def grid(**axes: Iterable[Any]) -> list[Any]:
    """Return all combinations of some axes, as named tuples.

    The last axis runs fastest.
    """
    cell = namedtuple("Cell", axes)
    return [cell(*values) for values in itertools.product(*axes.values())]


def costs(trainings: Mapping[RunConfig, Row]) -> pd.DataFrame:
    """Return what each training took, beside its columns: seconds, steps, tokens, memory."""
    return pd.DataFrame(
        [
            trainings[run] | result.cost
            for run, result in sweep({run: run for run in trainings}).items()
        ]
    )


def prepared_task(job: EvalConfig, length: int) -> Task:
    """Return the task that draws from rows which a job keeps.

    Rows have one length. They are made once, and again where the cache lost them. The job's
    protocol returns one row with their digest.
    """
    digest = result_of(job).rows[0]["digest"]
    try:
        prepared(np.random.default_rng(0), 1, length, digest=digest)
    except UserError:  # The cache has the digest, but its rows are lost or damaged.
        job.protocol(**job.options)
    return Task(name="prepared", digest=digest)
