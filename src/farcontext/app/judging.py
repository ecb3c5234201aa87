"""The command line around verdicts: before, and after.

It fixes what is fixed before the seeds run; it judges and publishes after.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from farcontext import files
from farcontext.app.verbs import app, console
from farcontext.studies import params as schema

Study = Annotated[str, typer.Argument(help="A study's name, as in params.yaml.")]


def project_root() -> Path:
    """Return the project's folder, and go there."""
    os.chdir(root := files.project())
    return root


@app.command()
def verdicts() -> None:
    """Compute every claim's verdict from the tables, into metrics.json and verdicts.csv."""
    from farcontext.app import publish as publishing

    publishing.write_verdicts(project_root())


@app.command()
def paper() -> None:
    """Compile paper/paper.typ against this profile's tables and figures.

    The result is build/<profile>/paper.pdf.
    """
    from farcontext.app import publish as publishing

    publishing.compile_paper(project_root())


@app.command()
def publish(
    *,
    profile: Annotated[str, typer.Option(help="Another one is recorded beside it.")] = "laptop",
) -> None:
    """Copy tables and paper to where git keeps them.

    The tables of build/laptop go to results/laptop, the PDF to paper/. EXPERIMENTS.md and README's
    block are rewritten. Of another profile, tables and verdicts go to results/<profile>.
    """
    from farcontext.app import publish as publishing

    if profile == "laptop":
        publishing.publish(project_root())
    else:
        publishing.record(project_root(), profile)


@app.command()
def site() -> None:
    """Build the site of HTML below build/site, which opens from the disk.

    It holds the notebooks as build/laptop executed them, else as committed; a card for each claim;
    the paper; all commands; the library. Every link is followed, and no page asks another host.
    """
    from farcontext.app.site import build

    root = project_root()
    report = build.build(root, app, root / "build" / "site")
    console.print(f"{root / 'build' / 'site' / 'index.html'}: {report.line()}")


@app.command()
def tune(
    name: Study,
    *,
    profile: Annotated[str | None, typer.Option(help="Default: params.yaml's.")] = None,
) -> None:
    """Try learning rates and arms on seeds of their own.

    It prints what to put into params.yaml. The trials are recorded in results/tuning. A run itself
    never chooses.
    """
    from farcontext.app import profiles, tuning

    root = project_root()
    params = profiles.params_of(root, profile or schema.read_params(root / "params.yaml").profile)
    for key, value in tuning.tune(root, name, params).items():
        console.print(f"  {key}: {json.dumps(value)}", soft_wrap=True, highlight=False)


@app.command()
def freeze(
    names: Annotated[list[str] | None, typer.Argument(help="Claims; default: all.")] = None,
    *,
    because: Annotated[str, typer.Option(help="What changed since the last try.")],
    same: Annotated[
        bool, typer.Option(help="Rows and verdict are the published ones: no new try.")
    ] = False,
    profile: Annotated[str, typer.Option(help="Whose runs are meant.")] = "laptop",
) -> None:
    """Write into claims.lock what decides claims, before their seeds run.

    The lock holds hashes of the claim, of its parameters and of the code that decides it.
    """
    from farcontext.app import publish as publishing

    root = project_root()
    for line in publishing.freeze(root, names or [], because, same=same, profile=profile):
        console.print(line)


@app.command()
def compare() -> None:
    """Hold what was just made against what is published.

    Exact rows have to be within tolerance, means within what seeds explain, and verdicts equal.
    """
    from farcontext.app import publish as publishing

    if not publishing.print_comparison(project_root(), console):
        raise typer.Exit(1)


@app.command()
def arithmetics(
    names: Annotated[list[str] | None, typer.Argument(help="Studies; default: all.")] = None,
    *,
    profile: Annotated[str | None, typer.Option(help="Default: params.yaml's.")] = None,
) -> None:
    """Run studies under three arithmetics, and compare their verdicts.

    They are arithmetics of this machine. The arithmetics are those of a CPU without AVX, of one
    with AVX2, and this machine's own. The table is written to build/<profile>/arithmetics.csv.
    """
    from farcontext.app import arithmetics as three
    from farcontext.app import notebooks, profiles

    root = project_root()
    params = profiles.params_of(root, profile or schema.read_params(root / "params.yaml").profile)
    for name in names or ():
        notebooks.path_of(name)  # It refuses a study that is not there before anything runs.
    table = three.run(root, params, names or list(schema.STUDIES))
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    files.write_atomic(root / "build" / params.profile / "arithmetics.csv", text)
    for claim, rows in table.groupby("claim", sort=False):
        told = " · ".join(f"{x.arithmetic}: {x.verdict} {x.shown}" for x in rows.itertuples())
        console.print(f"{claim} {'agrees' if rows['agrees'].all() else 'DIFFERS'}: {told}")
    claims = table.groupby("claim")["agrees"].all()
    console.print(f"arithmetics: {int(claims.sum())} of {len(claims)} claims agree")
    if not claims.all():
        raise typer.Exit(1)
