"""The last stages: verdicts, the paper, and the published copies.

The copies are what leaves build/ for git.
"""

import datetime
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import typst
from rich.console import Console

from farcontext import files
from farcontext.app import notebooks, pages
from farcontext.app.languages import CHINESE, ENGLISH
from farcontext.files import UserError
from farcontext.messages import did_you_mean
from farcontext.results import comparison, findings, freezing, verdicts
from farcontext.results import tables as results
from farcontext.results.claims import Claims, read_claims
from farcontext.results.comparison import Comparison
from farcontext.results.findings import Finding
from farcontext.studies.params import STUDIES, read_params, read_profile

READMES = {"README.md": ENGLISH, "README.zh.md": CHINESE}
SHOWN_MOVES = 3  # Of each study; where one thing moved, all that rests on it did.


def _judged(root: Path, base: Path) -> tuple[list[Finding], dict[str, int]]:
    """Return all findings, and each claim's number of tries."""
    claims = read_claims(root / "claims.yaml")
    return verdicts.judge_all(claims, base), freezing.tries(claims, freezing.read_lock(root))


def write_verdicts(root: Path) -> None:
    """Write metrics.json, verdicts.csv and effects.csv below build/<profile>."""
    made = root / "build" / read_params(root / "params.yaml").profile
    judged, tries = _judged(root, made / "studies")
    said = {"verdicts": findings.as_table(judged, tries), "effects": findings.as_effects(judged)}
    for name, table in said.items():
        text = table.to_csv(index=False, float_format=f"%.{findings.DIGITS}g", lineterminator="\n")
        files.write_atomic(made / f"{name}.csv", text)
    files.write_json(made / "metrics.json", findings.as_metrics(judged))


def freeze(
    root: Path, names: Sequence[str], why: str, *, same: bool, profile: str = "laptop"
) -> list[str]:
    """Freeze claims as they stand here; return a line for each.

    Args:
        root: the project.
        names: claims; none: all.
        why: what changed since the last try.
        same: no new try, since the rows and the verdict are the published ones.
        profile: whose parameters and runs are meant.

    Raises:
        UserError: no such claim; a claim that is said to be the same, and is not.
    """
    claims = read_claims(root / "claims.yaml")
    params = read_params(root / "params.yaml")
    if profile != params.profile:
        params = read_profile(root, profile)
    names = names or list(claims.claims)
    for name in names:
        if name not in claims.claims:
            raise UserError(
                f"claim = {name}: expected one of {', '.join(claims.claims)}"
                f"{did_you_mean(name, claims.claims)}"
            )
    studies = dict.fromkeys(claims.claims[name].study for name in names)
    now = {
        name: value
        for study in studies
        for name, value in freezing.hashes(claims, study, getattr(params, study)).items()
    }
    if same:
        _hold_same(root, claims, names, profile)
    return freezing.freeze(root, claims, now, names, why, same, profile=profile)


def _hold_same(root: Path, claims: Claims, names: Sequence[str], profile: str) -> None:
    """Refuse claims whose rows or verdicts here differ from the published ones.

    Raises:
        UserError: the first one that differs.
    """
    made, target = root / "build" / profile / "studies", root / "results" / profile
    published = pd.read_csv(target / "verdicts.csv").set_index("claim")
    for name in names:
        claim = claims.claims[name]
        here, there = (results.path_in(base, claim.study) for base in (made, target))
        ours, theirs = results.read_table(here), results.read_table(there)
        if claim.study in claims.exact:  # Some of its numbers are measured, and never the same.
            allowed = claims.exact[claim.study]
            same = not comparison.exact_rows(ours, theirs, claim.study, allowed).moved
        else:
            same = files.sha256_file(here) == files.sha256_file(there)
        if not same:
            raise UserError(f"{here}: not the rows of {there}: {name} is not the same try")
        judged = verdicts.judge(name, claim, theirs)
        if (judged.verdict, findings.estimate(judged)) != tuple(
            published.loc[name, ["verdict", "shown"]]
        ):
            raise UserError(f"{name}: {judged.verdict}, {findings.estimate(judged)}: not the same")


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
        UserError: a table is missing or damaged, or its claims were not frozen before; nothing
            was copied.
    """
    made, target = root / "build" / "laptop", root / "results" / "laptop"
    _hold_frozen(root, made / "studies", STUDIES)
    judged, tries = _judged(root, made / "studies")
    for study in STUDIES:
        _publish_study(made / "studies" / study, target / study)
    for name in ("verdicts.csv", "effects.csv"):
        files.write_atomic(target / name, (made / name).read_bytes())
    files.write_atomic(root / "paper" / "paper.pdf", (made / "paper.pdf").read_bytes())
    paths = {study: notebooks.path_of(study) for study in STUDIES}
    exact = read_claims(root / "claims.yaml").exact
    elsewhere = (verdicts.recorded("second_machine"), verdicts.recorded("night"))
    names = {study: path.name for study, path in paths.items()}
    page = pages.experiments_page(judged, tries, exact, names, *elsewhere)
    files.write_atomic(root / "EXPERIMENTS.md", page)
    for name, said in READMES.items():
        block = pages.verdict_block(judged, tries, paths, *elsewhere, said)
        replace_block(root / name, "verdicts", block)
        replace_block(root / name, "answers", pages.answers_block(judged, said))
    replace_block(root / "README.md", "costs", pages.cost_block())
    card = files.read_json(root / "build" / "corpus" / "card.json")
    replace_block(root / "data" / "README.md", "corpus", pages.data_card(card))


def record(root: Path, profile: str) -> None:
    """Copy another profile's tables and verdicts to results/<profile>.

    Its card says on what machine, at which cost; `publish` then shows its verdicts beside the
    laptop's.

    Raises:
        UserError: a table is missing, or its claims were not frozen before; nothing was copied.
    """
    made, target = root / "build" / profile, root / "results" / profile
    _hold_frozen(root, made / "studies", STUDIES, profile)
    minutes = 0.0
    for study in STUDIES:
        for path in sorted((made / "studies" / study / "tables").iterdir()):
            files.write_atomic(target / study / "tables" / path.name, path.read_bytes())
        cost = results.path_in(made / "studies", study, "cost")
        minutes += pd.read_csv(cost)["seconds"].sum() / 60 if cost.is_file() else 0
    for name in ("verdicts.csv", "effects.csv"):
        files.write_atomic(target / name, (made / name).read_bytes())
    card = {"cpu": results.processor(), "cores": os.cpu_count(), "core_minutes": round(minutes, 1)}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    files.write_json(target / "verdicts.json", card | {"date": today})


def _hold_frozen(root: Path, made: Path, studies: Iterable[str], profile: str = "laptop") -> None:
    """Refuse tables whose claims were not frozen as they were run.

    Raises:
        UserError: the first such claim.
    """
    locked = freezing.read_lock(root, profile)
    for study in studies:
        sidecar = results.path_in(made, study).with_suffix(".json")
        for line in freezing.not_frozen(files.read_json(sidecar)["frozen"], locked):
            raise UserError(f"{sidecar}: {line}")


def _publish_study(made: Path, target: Path) -> None:
    """Copy a study's tables and figures, and list all its files.

    They are listed as in DVC's lock. The list holds the published files to the lock, which knows
    the study's folder only as a whole.
    """
    listed = [path for path in made.rglob("*") if path.is_file()]
    names = {path.relative_to(made) for path in listed}
    for folder in ("tables", "figures"):  # What is no longer made is no longer published.
        for path in (target / folder).glob("*"):
            if path.relative_to(target) not in names:
                path.unlink()
    for path in (path for path in listed if path.parent.name in ("tables", "figures")):
        files.write_atomic(target / path.relative_to(made), path.read_bytes())
    known = {
        path.relative_to(made).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in listed
    }
    files.write_json(target / "manifest.json", known)


def compare(root: Path) -> tuple[list[Comparison], list[str]]:
    """Hold build/laptop against results/laptop, study by study, then the claims' estimates.

    Studies that are not published yet are named, and left out.
    """
    claims = read_claims(root / "claims.yaml")
    theirs = comparison.read_all(claims, root / "results" / "laptop")
    ours = comparison.read_all(claims, root / "build" / "laptop" / "studies")
    unknown = [study for study in STUDIES if study not in theirs]
    compared = [
        comparison.exact_rows(ours[study], table, study, claims.exact[study])
        if study in claims.exact
        else comparison.means(ours[study], table, study)
        for study, table in theirs.items()
    ]
    return [*compared, comparison.estimates(claims, ours, theirs)], unknown


def print_comparison(root: Path, console: Console) -> bool:
    """Print how far build/laptop agrees with results/laptop, and return whether it does.

    It does where exact rows are within tolerance, nothing moved by more than seeds explain, and all
    verdicts are equal.
    """
    made, target = root / "build" / "laptop", root / "results" / "laptop"
    exact_studies = read_claims(root / "claims.yaml").exact
    if not (target / "verdicts.csv").is_file():
        console.print("compare: nothing is published yet (farcontext publish)")
        return True
    compared, unknown = compare(root)
    for study in unknown:
        console.print(f"compare: {study}: not published yet")
    for one in compared:
        for line in one.moved[:SHOWN_MOVES]:
            console.print(f"compare: {one.name}: moved: {line}")
    exact = [one for one in compared if one.name in exact_studies]
    trained = [one for one in compared[:-1] if one not in exact]
    old = pd.read_csv(target / "verdicts.csv").set_index("claim")["verdict"]
    new = pd.read_csv(made / "verdicts.csv").set_index("claim")["verdict"].reindex(old.index)
    equal, moved = int((old == new).sum()), sum(len(one.moved) for one in compared)
    console.print(
        f"compare: exact rows within tolerance {_share(exact)}; means over seeds within each "
        f"other's intervals {_share(trained)}, claims' estimates {_share(compared[-1:])}; moved by "
        f"more than seeds explain {moved}; verdicts equal {equal} of {len(old)}"
    )
    return not moved and equal == len(old)


def _share(compared: list[Comparison]) -> str:
    return f"{sum(one.within for one in compared)} of {sum(one.of for one in compared)}"
