"""params.yaml and its schema are the same thing, and a notebook's globals become its section."""

import subprocess
import sys
from pathlib import Path

import pytest
from observe import refuses

from farcontext.schema import read_yaml
from farcontext.studies import params
from farcontext.train import syntax


def test_params_yaml_gives_every_key_of_the_schema_in_its_order(root: Path) -> None:
    tree = read_yaml(root / "params.yaml")
    assert list(tree) == list(params.Params.model_fields)
    for section, study in params.STUDIES.items():
        assert list(tree[section]) == list(study.model_fields)
    assert params.read_params(root / "params.yaml").profile == "laptop"


def test_every_study_is_a_section_of_the_schema() -> None:
    for name, study in params.STUDIES.items():
        assert params.Params.model_fields[name].annotation is study


def test_a_section_is_read_from_a_notebooks_globals(root: Path) -> None:
    values = read_yaml(root / "params.yaml")["model_anatomy"]
    found = params.STUDIES["model_anatomy"].of(values | {"unrelated": object(), "np": None})
    assert found.model_dump(mode="json") == values
    with refuses("parameters cell: steps: expected this key"):
        params.STUDIES["model_anatomy"].of(
            {key: value for key, value in values.items() if key != "steps"}
        )
    with refuses("parameters cell: steps = 0: expected an integer ≥ 1"):
        params.STUDIES["model_anatomy"].of(values | {"steps": 0})


@pytest.mark.parametrize("name", ["../laptop", "", "a/b", ".hidden", "Laptop"])
def test_a_profile_is_a_plain_folder_name(name: str, root: Path, tmp_path: Path) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(
        text.replace("profile: laptop", f'profile: "{name}"'), encoding="utf-8"
    )
    with refuses(f"profile = {name!r}: expected text"):
        params.read_params(tmp_path / "params.yaml")


def test_no_study_loads_a_slow_library_before_it_needs_one() -> None:
    """A cached study reads its table in less time than transformers takes to load."""
    modules = ", ".join(f"farcontext.studies.{name}.study" for name in params.STUDIES)
    program = f"import sys, {modules}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & syntax.LATE
