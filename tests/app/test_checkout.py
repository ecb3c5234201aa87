"""A checkout as people have it: an archive, odd names, own profiles, experiments in a copy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from observe import refuses
from recipes import copy_of

from farcontext import files
from farcontext.app import notebooks, profiles
from farcontext.studies.params import read_profile

ODD = (
    b"bad\xff.txt",
    "三国.txt".encode(),
    "ключ.txt".encode("koi8-r"),
    b"two\nlines.txt",
    b" a.txt",
)


@pytest.fixture
def checkout(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this checkout without .git, in a folder whose name has spaces."""
    monkeypatch.delenv("FARCONTEXT_CACHE", raising=False)
    copy = copy_of(root, tmp_path / "my own checkout")
    (copy / ".dvc").mkdir()
    (copy / ".dvc" / "config").write_bytes((root / ".dvc" / "config").read_bytes())
    monkeypatch.chdir(copy)
    return copy


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=n@n", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def write_odd(folder: Path) -> set[str]:
    """Write files whose names few expect and return the names."""
    for name in ODD:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:  # noqa: PTH123 (bytes)
            file.write(b"x")
    return set(map(os.fsdecode, ODD))


@pytest.mark.parametrize("with_git", [True, False], ids=["git", "archive"])
def test_own_files_are_those_of_the_tree_whatever_their_names(
    checkout: Path, with_git: bool, root: Path
) -> None:
    before = set(profiles.own_files(root))
    if with_git:
        git(checkout, "init", "-q")
    odd = write_odd(checkout)
    for made in ("build/x", ".farcontext/x", ".venv/x", "env/pyvenv.cfg", "env/lib/x.py"):
        (checkout / made).parent.mkdir(parents=True, exist_ok=True)
        (checkout / made).write_text("x", encoding="utf-8")
    (checkout / "linked").symlink_to(root / "tests")
    (checkout / "broken").symlink_to("nowhere")
    found = set(profiles.own_files(checkout))
    if with_git:  # Git does not know that this folder is an environment.
        found -= {"env/pyvenv.cfg", "env/lib/x.py"}
    assert found == before | odd


def test_without_git_installed_a_tree_is_walked(checkout: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(checkout / "empty"))
    assert "params.yaml" in profiles.own_files(checkout)


def test_an_archive_in_an_ignored_folder_of_another_repository_is_walked(checkout: Path) -> None:
    git(checkout.parent, "init", "-q")
    (checkout.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    assert "params.yaml" in profiles.own_files(checkout)


def test_a_profile_of_ones_own_runs_in_a_copy_that_follows_the_tree(checkout: Path) -> None:
    """DVC itself runs in the copy; a notebook that is renumbered is there once."""
    write_odd(checkout)
    (checkout / "profiles" / "my_own.yaml").write_text(
        "recurrence:\n  test_rows: 40\n", encoding="utf-8"
    )
    copy = checkout / ".farcontext" / "profiles" / "my_own"
    assert profiles.reproduce(checkout, "my_own", ["code"]) == 0
    assert (copy / "build" / "code" / "corpus.json").is_file()
    assert profiles.read_params(copy / "params.yaml").profile == "my_own"
    assert profiles.read_params(copy / "params.yaml").recurrence.test_rows == 40
    held = set(profiles.own_files(checkout))
    assert held <= {path.relative_to(copy).as_posix() for path in copy.rglob("*")}

    old = notebooks.path_of("model_anatomy")
    old.rename(new := old.with_name("44_model_anatomy.ipynb"))
    (checkout / "notebooks" / "11_content_creation.ipynb").unlink()
    profiles.export(checkout, copy)
    names = {path.name for path in (copy / "notebooks").iterdir()}
    assert names == {path.name for path in (checkout / "notebooks").iterdir()}
    assert new.name in names
    assert (copy / "build" / "code" / "corpus.json").is_file()  # What was made stays.
    assert profiles.read_params(copy / "params.yaml").profile == "my_own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profile: laptop\n", "mine.yaml: profile = 'laptop': expected mine"),
        ("profile: {a: 1}\n", "mine.yaml: profile = {'a': 1}: expected mine"),
        ("recurrence: 3\n", "mine.yaml: recurrence = 3: expected"),
        ("recurence: {test_rows: 3}\n", "did you mean recurrence?"),
    ],
)
def test_a_wrong_profile_is_one_line(checkout: Path, text: str, said: str) -> None:
    (checkout / "profiles" / "mine.yaml").write_text(text, encoding="utf-8")
    with refuses(said):
        read_profile(checkout, "mine")


def test_an_archive_without_git_says_what_dvc_says(checkout: Path, capfd) -> None:
    """DVC is told once that there is no git; a stage that does not exist is told, not only 255."""
    assert profiles.reproduce(checkout, "laptop", ["code"]) == 0
    assert (checkout / "build" / "code" / "corpus.json").is_file()
    capfd.readouterr()
    assert profiles.reproduce(checkout, "laptop", ["nothing"]) != 0
    assert "nothing" in capfd.readouterr().err
    (checkout / ".dvc" / "config").unlink()
    with refuses("config: expected a file here"):
        profiles.prepare(checkout)


def test_an_experiment_in_a_temporary_copy_has_the_checkouts_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC itself makes the copy, and throws it away; what the stage keeps is in the checkout."""
    monkeypatch.delenv("FARCONTEXT_CACHE", raising=False)
    program = "from farcontext import files; files.write_json(files.cache() / 'runs' / 'x', 1)"
    (tmp_path / "keep.py").write_text(program + "\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text("a: 1\n", encoding="utf-8")
    stage = f"stages:\n  keep:\n    cmd: '\"{sys.executable}\" keep.py'\n    params: [a]\n"
    (tmp_path / "dvc.yaml").write_text(stage, encoding="utf-8")
    (tmp_path / ".gitignore").write_text(".farcontext/\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q"], cwd=tmp_path, check=True)
    git(tmp_path, "config", "user.name", "n")
    git(tmp_path, "config", "user.email", "n@n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "start")
    command = [*dvc, "exp", "run", "-q", "--temp", "-S", "a=2"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    assert files.read_json(tmp_path / ".farcontext" / "runs" / "x") == 1


def test_the_cache_is_the_projects_own_elsewhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("FARCONTEXT_CACHE", raising=False)
    for inner in (".", "dvc/tmp/exps/x", ".dvc/tmp/other/x"):
        project = tmp_path / inner
        project.mkdir(parents=True, exist_ok=True)
        (project / "dvc.yaml").write_text("", encoding="utf-8")
        monkeypatch.chdir(project)
        assert files.cache() == project.resolve() / ".farcontext"
