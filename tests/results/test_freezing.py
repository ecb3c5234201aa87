"""claims.lock: what was fixed before what, and that git alone proves it."""

import subprocess
from pathlib import Path

import pytest
from observe import refuses

from farcontext import files
from farcontext.results import freezing, tables
from farcontext.results.claims import Claims, read_claims
from farcontext.schema import validate
from farcontext.studies.params import STUDIES, read_params

CLAIM = {
    "section": "1",
    "words": "x",
    "hypothesis": "h",
    "study": "demo",
    "decided_by": "interval",
    "fixed": "2026-11-24",
    "pilot": "none",
    "rival": "another",
    "literature": "none",
    "range": "here",
    "effects": [{"name": "gain", "where": {"metric": "gain"}, "at_least": 0.1}],
}
NOW = freezing.Hashes(claim="c0", params="p0", code="k0")


def claims(**changes: object) -> Claims:
    return validate(Claims, {"exact": {}, "claims": {"X": CLAIM | changes}}, "claims.yaml")


def freeze(root: Path, now: freezing.Hashes, *, same: bool = False, **changes: object) -> list[str]:
    return freezing.freeze(root, claims(**changes), {"X": now}, ["X"], "a reason", same)


# ------------------------------------------------------------------------------------- the hashes


@pytest.mark.parametrize(
    "changes",
    [
        {"effects": [CLAIM["effects"][0] | {"at_least": 0.2}]},
        {"effects": [CLAIM["effects"][0] | {"bounds": [0, 1]}]},
        {"checks": CLAIM["effects"]},
        {"rival": None},
        {"decides": "each"},
        {"under": {"rate": ["first"]}},
        {"hypothesis": "the opposite"},
    ],
    ids=lambda x: next(iter(x)),
)
def test_what_decides_changes_a_claims_hash(changes: dict) -> None:
    assert freezing.of_claim(claims(**changes).claims["X"]) != freezing.of_claim(
        claims().claims["X"]
    )


@pytest.mark.parametrize("key", ["pilot", "literature", "range", "words", "fixed"])
def test_prose_changes_no_hash(key: str) -> None:
    other = claims(**{key: "2026"}).claims["X"]
    assert freezing.of_claim(other) == freezing.of_claim(claims().claims["X"])
    told = claims(runs_before=["a run that failed"]).claims["X"]
    assert freezing.of_claim(told) == freezing.of_claim(claims().claims["X"])


def planted(root: Path, tmp_path: Path, file: str, old: str, new: str) -> tuple[str, str]:
    """Return the code hash of 07 before and after an edit of a copy of the package."""
    for path in (root / "src").rglob("*.py"):
        target = tmp_path / path.relative_to(root / "src")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    before = freezing.of_code("context_extension", tmp_path)
    path = tmp_path / "farcontext" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return before, freezing.of_code("context_extension", tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("studies/context_extension/study.py", "max(curve[trained], 1e-9)", "1.0"),
        ("measure/losses.py", "argmax(-1)", "argmin(-1)"),
        ("tasks/recall.py", "VOCABULARY =", "VOCABULARY = 1 +"),
        ("results/verdicts.py", "1 - CONFIDENCE + 1e-9", "0.2"),
        ("results/effects.py", "dropna(axis=1)", "fillna(0)"),
        ("measure/stats.py", "ddof=1", "ddof=0"),
    ],
)
def test_code_that_decides_changes_the_hash(
    root: Path, tmp_path: Path, file: str, old: str, new: str
) -> None:
    before, after = planted(root, tmp_path, file, old, new)
    assert before != after


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("studies/context_extension/study.py", '"""Notebook 07', '"""The notebook 07'),
        ("studies/context_extension/figures.py", "height=2.7", "height=2.9"),
        ("studies/depth_width/study.py", "max(", "min("),
        ("results/findings.py", "never", "not at all"),
        ("nn/layers.py", "eps", "epsilon_of_norm"),
    ],
)
def test_words_figures_other_studies_and_models_change_no_hash(
    root: Path, tmp_path: Path, file: str, old: str, new: str
) -> None:
    before, after = planted(root, tmp_path, file, old, new)
    assert before == after


# --------------------------------------------------------------------------------------- the tries


def test_a_change_is_a_new_try_and_the_run_before_must_be_told(tmp_path: Path) -> None:
    assert freeze(tmp_path, NOW) == ["X: frozen as try 1"]
    assert freeze(tmp_path, NOW) == ["X: frozen already, as try 1"]
    changed = NOW.model_copy(update={"params": "p1"})
    before = (tmp_path / "claims.lock").read_bytes()
    with refuses("claims.yaml: X: runs_before tells of 0 runs: expected 1"):
        freeze(tmp_path, changed)
    assert (tmp_path / "claims.lock").read_bytes() == before
    assert freeze(tmp_path, changed, runs_before=["refuted"]) == ["X: frozen as try 2"]
    locked = freezing.read_lock(tmp_path)
    assert [(one.number, one.params) for one in locked["X"]] == [(1, "p0"), (2, "p1")]
    assert freezing.tries(claims(runs_before=["refuted"]), locked) == {"X": 2}
    assert freezing.tries(claims(runs_before=["a", "b"]), {}) == {"X": 3}


def test_code_that_gives_the_same_rows_is_no_new_try(tmp_path: Path) -> None:
    freeze(tmp_path, NOW)
    moved = NOW.model_copy(update={"code": "k1"})
    assert freeze(tmp_path, moved, same=True) == ["X: frozen as try 1"]
    locked = freezing.read_lock(tmp_path)
    assert freezing.tries(claims(), locked) == {"X": 1}
    for known in (NOW, moved):
        assert not freezing.not_frozen({"X": known.model_dump()}, locked)


@pytest.mark.parametrize("key", ["claim", "params", "code"])
def test_a_table_made_under_other_hashes_is_named(tmp_path: Path, key: str) -> None:
    freeze(tmp_path, NOW)
    made = NOW.model_dump() | {key: "other"}
    (line,) = freezing.not_frozen({"X": made}, freezing.read_lock(tmp_path))
    assert f"X: its {key} changed since it was frozen" in line and "farcontext freeze X" in line
    (line,) = freezing.not_frozen({"X": made}, {})
    assert "X: its everything changed" in line


def test_a_lock_of_another_shape_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "claims.lock").write_text("X: [{claim: 1}]\n", encoding="utf-8")
    with refuses("claims.lock"):
        freezing.read_lock(tmp_path)


# ------------------------------------------------------------------------------------ this project


def test_every_claim_is_frozen_as_it_stands(root: Path) -> None:
    """Its hash, its parameters' and its code's are those of its last try; each run is told."""
    claims, locked = read_claims(root / "claims.yaml"), freezing.read_lock(root)
    params = read_params(root / "params.yaml")
    for study in STUDIES:
        for name, now in freezing.hashes(claims, study, getattr(params, study)).items():
            assert locked[name][-1].hashes == now, f"{name}: farcontext freeze {name}"
            assert locked[name][-1].number == len(claims.claims[name].runs_before) + 1, name


def test_every_published_table_was_made_by_a_frozen_try(root: Path) -> None:
    locked = freezing.read_lock(root)
    for study in STUDIES:
        path = tables.path_in(root / "results" / "laptop", study).with_suffix(".json")
        assert freezing.not_frozen(files.read_json(path)["frozen"], locked) == []


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    return done.stdout.decode() if done.returncode == 0 else ""


def first_with(root: Path, path: str, text: str) -> str:
    """Return the first commit whose version of a file holds a text; "" if none does."""
    found = git(root, "log", "--reverse", "--format=%H", f"-S{text}", "--", path).split()
    return found[0] if found else ""


LATE = "after its seeds had run"  # What was there before the lock was says so in its own words.


def test_git_shows_that_each_try_was_frozen_before_its_table_was_made(root: Path) -> None:
    claims, locked = read_claims(root / "claims.yaml"), freezing.read_lock(root)
    if git(root, "rev-parse", "--is-shallow-repository").strip() != "false":
        pytest.skip("the history is not here: a shallow clone, or no git")
    if git(root, "status", "--porcelain", "claims.lock").strip():
        pytest.skip("claims.lock is not committed yet")
    for name, claim in claims.claims.items():
        path = tables.path_in(Path("results/laptop"), claim.study).with_suffix(".json").as_posix()
        # Of each try the first entry was fixed before the run; later ones are code with its rows.
        for one in {one.number: one for one in reversed(locked[name])}.values():
            if one.why == LATE:
                continue
            made = first_with(root, path, f'"params": "{one.params}"')
            for text in (one.claim, one.params) if made else ():
                commit = first_with(root, "claims.lock", text)
                assert commit and commit != made, name
                assert git(root, "merge-base", commit, made).strip() == commit, name
