"""What stands around `dvc repro`: fingerprints, profiles, and killed runs.

Code has fingerprints, profiles run in exported copies, and what a killed run leaves is told.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from farcontext import files
from farcontext.app import notebooks
from farcontext.files import UserError
from farcontext.messages import did_you_mean
from farcontext.results import freezing
from farcontext.results.claims import read_claims
from farcontext.schema import read_yaml
from farcontext.studies.params import STUDIES, checked, read_params, read_profile
from farcontext.train import fingerprints

# These stages are not notebooks: a function each does their work.
ENTRIES = {
    "sources": ("farcontext.data.sources", "fetch"),
    "corpus": ("farcontext.data.corpus", "build_corpus"),
    "tokenizer": ("farcontext.data.tokenizer", "build_tokenizer"),
    "smollm2": ("farcontext.checkpoints.load", "convert_gguf"),
    "verdicts": ("farcontext.app.publish", "write_verdicts"),
    "paper": ("farcontext.app.publish", "compile_paper"),
}


def stage_code(stage: str) -> dict[str, str]:
    """Return name → digest of the code that a stage runs.

    It is what the stage's function or its notebook's cells reach; a study's claims count, too,
    since its table's sidecar names those that it decides.
    """
    if stage in ENTRIES:
        return fingerprints.of_symbol(*ENTRIES[stage])
    claims = read_claims(files.project() / "claims.yaml").claims.items()
    decided = {
        f"claim {name}": freezing.of_claim(claim) for name, claim in claims if claim.study == stage
    }
    return fingerprints.of_source(notebooks.code_cells(notebooks.path_of(stage))) | decided


def write_code(root: Path) -> None:
    """Write build/code/<stage>.json for every stage.

    Prose, comments and docstrings change none of them.
    """
    for stage in (*ENTRIES, *STUDIES):
        files.write_json(root / "build" / "code" / f"{stage}.json", stage_code(stage))


def _dvc(*arguments: str, root: Path, silent: bool = False, **environment: str) -> int:
    """Run DVC and return its exit code.

    In silence, it prints errors only.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        command,
        cwd=root,
        env=os.environ | {"PATH": path} | environment,
        check=False,
        stdout=subprocess.DEVNULL if silent else None,
    ).returncode


def prepare(root: Path) -> None:
    """Tell DVC once when there is no git here.

    That is so where an archive was unpacked.

    Raises:
        UserError: an archive without DVC's folder.
    """
    config = root / ".dvc" / "config"
    if not config.is_file():
        raise UserError(f"{config}: expected a file here, as in a whole checkout or archive of it")
    if not (root / ".git").exists() and "no_scm" not in config.read_text(encoding="utf-8"):
        _dvc("config", "-q", "core.no_scm", "true", root=root)


def params_of(root: Path, profile: str) -> Any:
    """Return a profile's values.

    The smoke profile is the data of params.yaml with the defaults of every notebook's parameters
    cell; any other one is profiles/NAME.yaml over params.yaml.

    Raises:
        UserError: no such profile, or a wrong value.
    """
    if profile == "smoke":
        values = read_yaml(root / "params.yaml") | {"profile": profile}
        return checked(
            values | {study: notebooks.defaults(notebooks.path_of(study)) for study in STUDIES},
            "smoke",
        )
    here = read_params(root / "params.yaml")
    if profile == here.profile:
        return here
    known = [
        here.profile,
        "smoke",
        *sorted(path.stem for path in (root / "profiles").glob("*.yaml")),
    ]
    if profile not in known:
        raise UserError(
            f"profile = {profile}: expected one of {', '.join(known)}{did_you_mean(profile, known)}"
        )
    return read_profile(root, profile)


def reproduce(root: Path, profile: str, stages: Sequence[str] = ()) -> int:
    """Run `dvc repro` for a profile and return its exit code.

    Args:
        root: the project; without git, DVC is told so first.
        profile: laptop runs here, another in an exported copy.
        stages: only these, and what they need; in silence.

    Raises:
        UserError: no such profile.
    """
    if profile == read_params(root / "params.yaml").profile:
        prepare(root)
        return _dvc("repro", *stages, root=root, silent=bool(stages))
    params = params_of(root, profile)
    copy = files.cache() / "profiles" / profile
    export(root, copy)
    # DVC reads JSON where it expects YAML: every JSON text is YAML.
    files.write_json(copy / "params.yaml", params.model_dump(mode="json"))
    status = _dvc("repro", *stages, root=copy, FARCONTEXT_CACHE=str(files.cache().resolve()))
    made = copy / "build" / profile
    if status == 0 and made.is_dir():
        shutil.rmtree(root / "build" / profile, ignore_errors=True)
        shutil.copytree(made, root / "build" / profile)
    return status


STAYS = ("params.yaml", ".dvcignore")  # The copy has its own.
# These are made in a checkout, or belong to it alone: no copy has them from there.
MADE = (".dvc", ".git", ".venv", ".farcontext", "build")


def own_files(root: Path) -> list[str]:
    """Return the names of files that git tracks, or would.

    Without git they are all that stand outside the folders that are made, the environments and the
    run cache. A name may be anything that the system allows.
    """
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = (
        subprocess.run(command, cwd=root, capture_output=True, check=False).stdout
        if shutil.which("git")
        else b""
    )
    # Where an archive lies in a folder that another repository ignores, git lists nothing.
    names = [os.fsdecode(name) for name in listed.split(b"\0") if name] or _walked(root)
    cache = files.cache().resolve()
    return sorted(
        name
        for name in set(names)
        if name.split("/")[0] not in MADE
        and (root / name).is_file()
        and not (root / name).resolve().is_relative_to(cache)
    )


def _walked(root: Path) -> list[str]:
    names = []
    for folder, inner, here in os.walk(root):
        inner[:] = [
            name
            for name in inner
            if name != "__pycache__"
            and not (Path(folder) == root and name in MADE)
            and not (Path(folder, name) / "pyvenv.cfg").exists()
        ]
        names += [Path(folder, name).relative_to(root).as_posix() for name in here]
    return names


def export(root: Path, copy: Path) -> None:
    """Make a copy of the working tree's own files alone.

    What was exported before and is gone goes, too. The copy has a DVC folder that shares the cache.

    Raises:
        UserError: a file that cannot be read, or a disk that refused.
    """
    names = [name for name in own_files(root) if name not in STAYS]
    for path in [copy / name for name in set(_walked(copy)).difference(names, STAYS)]:
        path.unlink()
    try:
        for name in names:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    except OSError as error:
        raise UserError(f"{root / name}: cannot be copied to {copy}: {error.strerror}") from None
    if not (copy / ".dvc").is_dir():
        _dvc("init", "--no-scm", "-q", root=copy)
        _dvc("config", "-q", "core.analytics", "false", root=copy)
        _dvc("config", "-q", "core.check_update", "false", root=copy)
    _dvc("cache", "dir", "-q", str(root.resolve() / ".dvc" / "cache"), root=copy)


def diagnose(root: Path) -> list[str]:
    """Return a line for each thing that a killed run broke.

    The run was `dvc repro`; a line names the way back.
    """
    problems = []
    lock = root / "dvc.lock"
    if lock.exists():
        try:
            whole = "stages" in read_yaml(lock)
        except UserError:
            whole = False
        if not whole:
            problems.append(
                f"{lock}: cut or empty: expected DVC's lock; `git checkout dvc.lock` brings it back"
            )
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    if rwlock.exists():
        try:
            files.read_json(rwlock)
        except UserError:
            problems.append(f"{rwlock}: empty or cut: expected JSON; delete it when no dvc runs")
    return problems
