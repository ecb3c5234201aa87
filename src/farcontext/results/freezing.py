"""What was fixed before what, in claims.lock.

It holds the hashes of each claim's tries. A try is a claim, its parameters and the code that
decides it. Changing any of the three is a new try, and the table's sidecar says which one made it,
so that git alone proves that a threshold, a learning rate or a rule came before the seeds that it
judges.
"""

import datetime
import io
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel
from ruamel.yaml import YAML

from farcontext import files
from farcontext.files import UserError
from farcontext.results.claims import Claim, Claims, read_claims
from farcontext.schema import Frozen, read_yaml, validate
from farcontext.train import fingerprints

HEADER = """\
# Written by `farcontext freeze`: what was fixed before each try ran its seeds. No hand edits it.
"""
# These fields of a claim decide its verdict; the others only tell of it.
DECIDE = (
    "hypothesis",
    "study",
    "decided_by",
    "over",
    "rival",
    "decides",
    "under",
    "budget",
    "effects",
    "checks",
)
# A study's protocol stands in these rooms; models, training and files are tested by themselves.
PROTOCOL = tuple(f"{fingerprints.PACKAGE}.{room}" for room in ("studies", "tasks", "measure"))
# These only word what was decided.
WORDING = frozenset({"farcontext.results.findings", "farcontext.results.tables"})


class Hashes(Frozen):
    """What decides a verdict."""

    claim: str
    params: str
    code: str


class Try(Hashes):
    """Hashes that were fixed at a date, for one run that counts."""

    number: Annotated[int, Field(ge=1)]
    date: str
    why: str

    @property
    def hashes(self) -> Hashes:
        """The three hashes alone."""
        return Hashes(claim=self.claim, params=self.params, code=self.code)


class Lock(RootModel[dict[str, Annotated[tuple[Try, ...], Field(strict=False, min_length=1)]]]):
    """All of claims.lock: the tries of each claim, the last one last."""


def of_claim(claim: Claim) -> str:
    """Return the hash of what decides in a claim.

    Prose, dates and literature are left out.
    """
    return files.sha256_json(claim.model_dump(mode="json", include=set(DECIDE)))[:16]


def of_params(section: Frozen) -> str:
    """Return the hash of a study's section of params.yaml."""
    return files.sha256_json(section.model_dump(mode="json"))[:16]


def of_code(study: str, root: Path = fingerprints.SOURCES) -> str:
    """Return the hash of the code that decides a study's claims.

    It is the study's protocol with its tasks and measures, and the judge. Comments, docstrings and
    errors' wording leave no trace.
    """
    names = fingerprints.modules(root)
    others = {name for name in names if not name.startswith(PROTOCOL)}
    protocol = fingerprints.of_symbol(f"farcontext.studies.{study}.study", "run", root, others)
    plumbing = fingerprints.PLUMBING | WORDING
    judge = fingerprints.of_symbol("farcontext.results.verdicts", "judge", root, plumbing)
    return files.sha256_json([protocol, judge])[:16]


def hashes(claims: Claims, study: str, section: Frozen) -> dict[str, Hashes]:
    """Return the hashes of what decides a study's claims, by claim."""
    params, code = of_params(section), of_code(study)
    return {
        name: Hashes(claim=of_claim(claim), params=params, code=code)
        for name, claim in claims.claims.items()
        if claim.study == study
    }


def of_run(study: str, section: Frozen) -> dict[str, dict[str, str]]:
    """Return what a table's sidecar says of the claims that it decides."""
    path = files.project() / "claims.yaml"
    claims = read_claims(path) if path.is_file() else Claims(exact={}, claims={})
    return {name: x.model_dump() for name, x in hashes(claims, study, section).items()}


def lock_of(root: Path, profile: str = "laptop") -> Path:
    """Return the lock of a profile's runs.

    The laptop's is claims.lock; another profile's stands beside its values.
    """
    return root / ("claims.lock" if profile == "laptop" else f"profiles/{profile}.lock")


def read_lock(root: Path, profile: str = "laptop") -> dict[str, tuple[Try, ...]]:
    """Read a profile's lock; nothing was frozen where there is none."""
    path = lock_of(root, profile)
    return validate(Lock, read_yaml(path), str(path)).root if path.is_file() else {}


def tries(claims: Claims, locked: dict[str, tuple[Try, ...]]) -> dict[str, int]:
    """Return each claim's number of tries.

    They are the runs before the lock, and those frozen since.
    """
    return {
        name: locked[name][-1].number if name in locked else len(claim.runs_before) + 1
        for name, claim in claims.claims.items()
    }


def freeze(
    root: Path,
    claims: Claims,
    now: dict[str, Hashes],
    names: Collection[str],
    why: str,
    same: bool,
    *,
    profile: str = "laptop",
) -> list[str]:
    """Add a try of these claims to a profile's lock.

    It returns a line for each.

    Args:
        root: the project.
        claims: all of claims.yaml.
        now: claim → the hashes as they stand here.
        names: claims to freeze.
        why: what changed since the last try.
        same: what changed gives the same rows and verdict; the caller has seen that it does.
        profile: whose runs are meant. `runs_before` tells of the laptop's alone.

    Raises:
        UserError: `runs_before` does not tell what the last try gave. Nothing is written then.
    """
    locked, lines = dict(read_lock(root, profile)), []
    for name in names:
        before, claim = locked.get(name, ()), claims.claims[name]
        if before and before[-1].hashes == now[name]:
            lines.append(f"{name}: frozen already, as try {before[-1].number}")
            continue
        number = len(claim.runs_before) + 1
        if profile != "laptop":
            number = before[-1].number + (not same) if before else 1
        elif before and number != (wanted := before[-1].number + (not same)):
            raise UserError(
                f"claims.yaml: {name}: runs_before tells of {number - 1} runs: expected "
                f"{wanted - 1}, the last one with what it gave"
            )
        new = Try(**now[name].model_dump(), number=number, date=_today(), why=why)
        locked[name] = (*before, new)
        lines.append(f"{name}: frozen as try {number}")
    ordered = {
        name: [one.model_dump() for one in locked[name]] for name in claims.claims if name in locked
    }
    files.write_atomic(lock_of(root, profile), HEADER + _yaml(ordered))
    return lines


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _yaml(value: object) -> str:
    writer, text = YAML(), io.StringIO()
    writer.width = 10_000
    writer.dump(value, text)
    return text.getvalue()


def not_frozen(sidecar: dict[str, dict[str, str]], locked: dict[str, tuple[Try, ...]]) -> list[str]:
    """Name the claims whose table no frozen try made.

    There is a line for each; no try has its hashes.
    """
    lines = []
    for name, made in sidecar.items():
        known = locked.get(name, ())
        if any(one.hashes.model_dump() == made for one in known):
            continue
        last = known[-1].hashes.model_dump() if known else {}
        changed = [key for key in made if made[key] != last.get(key)] if known else ["everything"]
        lines.append(
            f"{name}: its {' and '.join(changed)} changed since it was frozen: expected "
            f"`farcontext freeze {name} --because …`, a commit, and then the run"
        )
    return lines
