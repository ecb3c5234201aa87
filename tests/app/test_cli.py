"""The command line helps for every command, and refuses in one line.

What is foreseen ends with one line and code 2; exit codes arrive.
"""

from pathlib import Path

import pytest
from commands import Said, call, try_all
from observe import one_line

from farcontext.app import cli

COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
MISSPELT = {name: f"{name}x" for name in COMMANDS}
WRONG = {  # arguments → what the one line must hold
    ("study", "mlm_pretrainin"): "did you mean mlm_pretraining?",
    ("study",): "Missing argument",
    ("repro", "--profil", "smoke"): "--profile",
    ("repro", "--profile", "smoek"): "did you mean smoke?",
    ("notebooks", "atention_derivation"): "did you mean attention_derivation?",
    ("sources", "nowhere"): "sources.yaml: expected a file here",
    ("realtext",): "sources.yaml: expected a file here",
    ("verdicts", "extra"): "extra",
    ("corpus",): "expected a file here",
    ("compare",): "claims.yaml: expected a file here",
    ("train", "run.yaml", "--processes", "0"): "--processes",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A project folder with nothing built, and a lock that was cut."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (folder / "dvc.lock").write_text("schema: '2.0'\nsta", encoding="utf-8")
    (folder / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    (folder / "profiles").mkdir()
    (folder / "profiles" / "gpu.yaml").write_bytes((root / "profiles" / "gpu.yaml").read_bytes())
    return folder


@pytest.fixture(scope="module")
def child(folder: Path) -> tuple[dict[tuple[str, ...], Said], bool]:
    """Return what the command line said to each try, in one child.

    The second value says whether that child imported torch.
    """
    tries = [(name, "--help") for name in COMMANDS] + [(word,) for word in MISSPELT.values()]
    tries += [*WRONG, ("--help",), ("doctor",), ()]
    found, torch_imported = try_all(folder, [(list(arguments), None) for arguments in tries])
    return dict(zip(tries, found, strict=True)), torch_imported


@pytest.fixture
def said(child: tuple[dict, bool]) -> dict[tuple[str, ...], Said]:
    """Arguments → what was said."""
    return child[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_in_a_sentence(name: str, said: dict) -> None:
    found = said[name, "--help"]
    assert found.code == 0 and not found.err
    assert f"farcontext {name}" in found.out and len(found.out.split()) > 15
    assert name in said[("--help",)].out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_misspelt_command_is_one_line_with_the_right_suggestion(name: str, said: dict) -> None:
    found = said[(MISSPELT[name],)]
    assert found.code == 2
    one_line(found.err, MISSPELT[name], f"'{name}'")


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_what_is_foreseen_is_one_line_and_code_2(arguments: tuple[str, ...], said: dict) -> None:
    assert said[arguments].code == 2, said[arguments]
    one_line(said[arguments].err, WRONG[arguments])


def test_without_a_command_the_help_is_shown_and_nothing_else(said: dict) -> None:
    assert said[()].code == 2
    assert "Commands" in said[()].out + said[()].err
    assert "farcontext: \n" not in said[()].err


def test_the_exit_code_of_a_command_arrives(said: dict) -> None:
    """`doctor` found something: code 2, and one line for each thing, however long."""
    assert said[("doctor",)].code == 2
    (line,) = said[("doctor",)].out.splitlines()
    assert "dvc.lock" in line and "git checkout" in line


def test_help_and_errors_need_no_torch(child: tuple[dict, bool]) -> None:
    assert child[1] is False


def test_the_installed_script_says_the_same(folder: Path, tmp_path: Path) -> None:
    found = call(folder, "stody", "mlm_pretraining")
    assert found.code == 2
    one_line(found.err, "'stody'", "'study'")
    outside = call(tmp_path, "study", "model_anatomy")
    assert outside.code == 2
    one_line(outside.err, str(tmp_path), "no dvc.yaml")
