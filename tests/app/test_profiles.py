"""The pipeline runs as a user runs it.

The smoke profile goes end to end, and the committed lock is held against the committed code.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from commands import call
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from recipes import STUDY, copy_of, follow

from farcontext.app import profiles
from farcontext.schema import read_yaml
from farcontext.studies.params import STUDIES, read_params


def _published(root: Path) -> dict[Path, bytes]:
    """What no run of another profile may touch: the lock and the published results, by content."""
    return {
        path: path.read_bytes()
        for path in [root / "dvc.lock", *sorted((root / "results").rglob("*.*"))]
    }


@pytest.fixture(scope="module")
def published(root: Path) -> dict[Path, bytes]:
    """Return the lock and the published results before the smoke run.

    `make test` itself may have renewed the lock.
    """
    return _published(root)


@pytest.fixture(scope="module")
def smoke(root: Path, published: dict[Path, bytes]) -> Path:
    """build/smoke after `farcontext repro --profile smoke`."""
    assert published
    done = call(root, "repro", "--profile", "smoke", seconds=570)
    assert done.code == 0, done.out[-2000:] + done.err[-2000:]
    return root / "build" / "smoke"


def test_smoke_profile_makes_everything(smoke: Path) -> None:
    for study in STUDIES:
        assert (smoke / "studies" / study / "tables" / f"{study}.csv").stat().st_size > 0
        assert (smoke / "studies" / study / "notebook.ipynb").is_file()
        assert list((smoke / "studies" / study / "figures").glob("*.svg"))
    assert (smoke / "paper.pdf").read_bytes().startswith(b"%PDF")
    metrics = json.loads((smoke / "metrics.json").read_text(encoding="utf-8"))
    assert {"A1", "A2", "X1", "X2", "M1", "M2"} <= set(metrics)


def test_smoke_profile_twice_runs_and_trains_nothing(smoke: Path, root: Path) -> None:
    def state() -> dict[str, int]:
        made = [
            *smoke.rglob("*.csv"),
            *Path(os.environ["FARCONTEXT_CACHE"]).glob("runs/*/result.json"),
        ]
        return {str(path): hash(path.read_bytes()) for path in made}

    before = state()
    done = call(root, "repro", "--profile", "smoke", seconds=570)
    assert done.code == 0, done.err[-2000:]
    assert "Running stage" not in done.out, done.out[-2000:]
    # Another worker may finish a training of its own meanwhile.
    assert state().items() >= before.items()


def test_a_stage_run_again_trains_no_step_again(smoke: Path) -> None:
    cache = Path(os.environ["FARCONTEXT_CACHE"])
    finished = {path: path.stat().st_mtime_ns for path in cache.glob("runs/*/result.json")}
    assert finished
    copy = cache / "profiles" / "smoke"
    made = copy / "build" / "smoke" / "studies" / "mlm_pretraining" / "tables"
    costs = made / "mlm_pretraining.cost.csv"
    took = costs.read_bytes()
    command = [sys.executable, "-m", "dvc", "repro", "-q", "-s", "-f", "study@mlm_pretraining"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=copy, check=True, timeout=300, env=os.environ | {"PATH": path})
    # Other tests may train runs of their own meanwhile.
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    # A run that was trained under another key would have taken other seconds.
    assert costs.read_bytes() == took


def test_smoke_profile_leaves_the_checkout_alone(
    smoke: Path, root: Path, published: dict[Path, bytes]
) -> None:
    assert smoke.is_dir()
    assert _published(root) == published


def test_a_new_study_touches_six_files_and_runs_alone(
    smoke: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes through the pipeline, to its verdict and the paper; no other study is stale."""
    copy = copy_of(root, tmp_path / "copy")
    assert follow(STUDY, copy) <= 6
    (copy / ".dvc").mkdir()
    shutil.copy2(root / ".dvc" / "config", copy / ".dvc" / "config")
    # Finished stages are known; what runs here stays here, or a second call would run nothing.
    cache = root / ".dvc" / "cache"
    (copy / ".dvc" / "cache").mkdir()
    (copy / ".dvc" / "cache" / "files").symlink_to(cache / "files")
    shutil.copytree(cache / "runs", copy / ".dvc" / "cache" / "runs")
    monkeypatch.setenv("PYTHONPATH", str(copy / "src"))
    done = call(copy, "repro", "--profile", "smoke", seconds=300)
    assert done.code == 0, done.out[-2000:] + done.err[-2000:]
    ran = re.findall(r"Running stage '(.*?)'", done.out)
    assert ran == ["code", "study@toy_study", "verdicts", "paper"], done.out[-2000:]

    monkeypatch.chdir(root)
    exported = Path(os.environ["FARCONTEXT_CACHE"]) / "profiles" / "smoke" / "build" / "code"
    for stage in (*profiles.ENTRIES, *STUDIES):
        made = json.loads((exported / f"{stage}.json").read_text(encoding="utf-8"))
        assert made == profiles.stage_code(stage), stage

    made, rows = copy / "build" / "smoke", {}
    for where in (smoke, made):
        table = pd.read_csv(where / "verdicts.csv").set_index("claim")
        rows[where] = table["verdict"].to_dict()
    assert rows[made] == rows[smoke] | {"TOY": "supported"}
    assert (made / "studies" / "toy_study" / "notebook.ipynb").is_file()
    assert (made / "studies" / "toy_study" / "figures" / "means.svg").is_file()
    # Equal tables make equal bytes: the paper has the new row.
    papers = [(where / "paper.pdf").read_bytes() for where in (smoke, made)]
    assert papers[1].startswith(b"%PDF")
    assert papers[0] != papers[1]


# ------------------------------------------------------------------------------------- the lock


@pytest.fixture(scope="module")
def locked(root: Path) -> dict[str, str]:
    """Path → md5 of every output and dependency in dvc.lock."""
    stages = read_yaml(root / "dvc.lock")["stages"]
    return {
        one["path"]: one["md5"]
        for stage in stages.values()
        for one in [*stage.get("deps", []), *stage["outs"]]
    }


@pytest.mark.parametrize("stage", [*profiles.ENTRIES, *STUDIES])
def test_lock_is_of_this_code(
    stage: str, locked: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    text = (
        json.dumps(profiles.stage_code(stage), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )
    assert hashlib.md5(text.encode()).hexdigest() == locked[f"build/code/{stage}.json"], (
        f"{stage}: its code changed since the lock was made: run `dvc repro`"
    )


@pytest.mark.parametrize("study", STUDIES)
def test_what_is_published_is_what_is_locked(
    study: str, locked: dict[str, str], root: Path
) -> None:
    """The manifest is of the locked folder, and the published files are the manifest's."""
    folder = root / "results" / "laptop" / study
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    tree = Tree()
    for name, md5 in manifest.items():
        tree.add(tuple(name.split("/")), None, HashInfo("md5", md5))
    tree.digest()
    assert tree.hash_info.value == locked[f"build/laptop/studies/{study}"]
    published = {path.relative_to(folder).as_posix(): path for path in folder.glob("*/*")}
    assert {name for name in manifest if name.startswith(("tables/", "figures/"))} == set(published)
    for name, path in published.items():
        assert hashlib.md5(path.read_bytes()).hexdigest() == manifest[name], name


def test_lock_is_of_the_laptop_profile(root: Path) -> None:
    assert read_params(root / "params.yaml").profile == "laptop"
    stages = read_yaml(root / "dvc.lock")["stages"]
    values = read_yaml(root / "params.yaml")
    for study in STUDIES:
        assert stages[f"study@{study}"]["params"]["params.yaml"][study] == values[study], study


@pytest.mark.parametrize(
    "damage", [b"", b"schema: '2.0'\nstages:\n  code:\n    cmd: [", b"\x00\x01"]
)
def test_doctor_names_a_broken_lock_and_the_way_back(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "dvc.lock").write_bytes(damage)
    (line,) = profiles.diagnose(tmp_path)
    assert "dvc.lock" in line
    assert "git checkout dvc.lock" in line


def test_doctor_finds_nothing_in_a_sound_checkout(root: Path) -> None:
    assert profiles.diagnose(root) == []
