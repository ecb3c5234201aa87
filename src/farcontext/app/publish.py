"""The last stages: verdicts, the paper, and the published copies.

The copies are what leaves build/ for git.
"""

import hashlib
from pathlib import Path

import pandas as pd
import typst
from rich.console import Console

from farcontext import files
from farcontext.app import notebooks, pages
from farcontext.files import UserError
from farcontext.results import claims as verdicts
from farcontext.results import tables as results
from farcontext.studies.params import STUDIES, read_params


def _findings(root: Path, base: Path) -> list[verdicts.Finding]:
    return verdicts.judge_all(verdicts.read_claims(root / "claims.yaml"), base)


def write_verdicts(root: Path) -> None:
    """Write build/<profile>/metrics.json and verdicts.csv."""
    made = root / "build" / read_params(root / "params.yaml").profile
    findings = _findings(root, made / "studies")
    table = verdicts.as_table(findings).to_csv(
        index=False, float_format=f"%.{verdicts.DIGITS}g", lineterminator="\n"
    )
    files.write_atomic(made / "verdicts.csv", table)
    files.write_json(made / "metrics.json", verdicts.as_metrics(findings))


def compile_paper(root: Path) -> None:
    """Compile the paper; the same tables and figures give the same bytes.

    Raises:
        UserError: typst fails or warns (an unknown font is only a warning, and would change the
            page).
    """
    profile = read_params(root / "params.yaml").profile
    source = root / "paper" / "paper.typ"
    try:
        pdf, warnings = typst.compile_with_warnings(
            str(source),
            root=str(root),
            ignore_system_fonts=True,
            sys_inputs={"build": f"/build/{profile}"},
        )
    except typst.TypstError as error:
        raise UserError(f"{source}: {error}") from None
    if warnings:
        raise UserError(f"{source}: {warnings[0].message}: expected no warning")
    files.write_atomic(root / "build" / profile / "paper.pdf", pdf)


def replace_block(path: Path, name: str, text: str) -> None:
    """Replace what stands between two markers of a Markdown file.

    The markers are `<!-- name:begin -->` and `<!-- name:end -->`.
    """
    page = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise UserError(f"{path}: expected one {begin} and one {end}")
    head, rest = page.split(begin)
    tail = rest.split(end)[1]
    files.write_atomic(path, f"{head}{begin}\n{text.strip()}\n{end}{tail}")


def publish(root: Path) -> None:
    """Copy tables, figures and paper to where git keeps them.

    They come from build/laptop. The pages made from them are regenerated.

    Raises:
        UserError: a table is missing or damaged; nothing was copied.
    """
    claims = verdicts.read_claims(root / "claims.yaml")
    made, target = root / "build" / "laptop", root / "results" / "laptop"
    findings = _findings(root, made / "studies")
    for study in STUDIES:
        _publish_study(made / "studies" / study, target / study)
    files.write_atomic(target / "verdicts.csv", (made / "verdicts.csv").read_bytes())
    files.write_atomic(root / "paper" / "paper.pdf", (made / "paper.pdf").read_bytes())
    notebook_of = {study: notebooks.path_of(study).name for study in STUDIES}
    elsewhere = verdicts.second_machine()
    page = pages.experiments_page(findings, claims, notebook_of, elsewhere)
    files.write_atomic(root / "EXPERIMENTS.md", page)
    replace_block(root / "README.md", "verdicts", pages.verdict_block(findings, elsewhere))
    replace_block(root / "README.md", "costs", pages.cost_block())
    card = files.read_json(root / "build" / "corpus" / "card.json")
    replace_block(root / "data" / "README.md", "corpus", pages.data_card(card))


def _publish_study(made: Path, target: Path) -> None:
    """Copy a study's tables and figures, and list all that it made, as DVC's lock does.

    The list holds the published files to the lock, which knows the study's folder only as a whole.
    """
    listed = [path for path in made.rglob("*") if path.is_file()]
    for path in (path for path in listed if path.parent.name in ("tables", "figures")):
        files.write_atomic(target / path.relative_to(made), path.read_bytes())
    known = {
        path.relative_to(made).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in listed
    }
    files.write_json(target / "manifest.json", known)


def print_comparison(root: Path, console: Console) -> bool:
    """Print how far build/laptop agrees with results/laptop.

    It counts rows within tolerance and verdicts equal, and returns whether all are.
    """
    claims = verdicts.read_claims(root / "claims.yaml")
    made, target = root / "build" / "laptop", root / "results" / "laptop"
    if not (target / "verdicts.csv").is_file():
        console.print("compare: nothing is published yet (farcontext publish)")
        return True
    within = rows = 0
    for study, tolerance in claims.tolerances.items():
        if not results.path_in(target, study).is_file():
            console.print(f"compare: {study}: not published yet")
            continue
        ours = results.read_table(results.path_in(made / "studies", study))
        theirs = results.read_table(results.path_in(target, study))
        found = results.compare_tables(ours, theirs, study, tolerance)
        within, rows = within + found.within, rows + found.rows
        if found.worst:
            console.print(f"compare: {study}: {found.worst}")
    old = pd.read_csv(target / "verdicts.csv").set_index("claim")["verdict"]
    new = pd.read_csv(made / "verdicts.csv").set_index("claim")["verdict"].reindex(old.index)
    equal = int((old == new).sum())
    console.print(
        f"compare: rows within tolerance {within} of {rows}, verdicts equal {equal} of {len(old)}"
    )
    return within == rows and equal == len(old)
