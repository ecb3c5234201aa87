"""Every command that README and CONTRIBUTING print in a box runs.

It runs here with less to do, or the page says that it does not run.
"""

import re
import shlex
from pathlib import Path

import pytest
from commands import call
from tiny import tiny_run

from farcontext import files

PAGES = ("README.md", "CONTRIBUTING.md")
# CI runs the second; the first is the smoke pipeline's test and every publication
ELSEWHERE = {
    "make repro",
    "make test",
}
LESS = {  # a command's first words → what makes it short; nothing else of it is changed
    "farcontext probe": ("--lengths", "128", "--max-contexts", "12"),
    "farcontext rope": (),
    "farcontext cost": (),
    "farcontext extend": ("--steps", "1", "--length", "64", "--measure", "64"),
    "farcontext compare-checkpoints": ("--lengths", "128", "--max-contexts", "12"),
    "farcontext ask": ("--tokens", "2"),
    "farcontext continue": ("--tokens", "2"),
    "farcontext train": (),
}


def printed(page: str) -> list[tuple[str, str]]:
    """Return (command, comment) of each line of a page's boxes of shell commands."""
    boxes = re.findall(r"```bash\n(.*?)```", page, re.S)
    lines = [line for box in boxes for line in box.splitlines() if line.strip()]
    return [
        (command.strip(), comment)
        for command, _, comment in (line.partition("   #") for line in lines)
    ]


def commands(root: Path) -> list[tuple[str, str]]:
    """Return the commands of all pages, comments after fewer spaces cut off too."""
    found = [item for page in PAGES for item in printed((root / page).read_text(encoding="utf-8"))]
    return [(re.sub(r"\s+# .*", "", command), f"{command} {comment}") for command, comment in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A project with what the data stages made, a text, a folder of texts and a run."""
    if not (root / "build" / "smollm2" / "config.json").is_file():
        pytest.fail(
            "run `farcontext repro tokenizer smollm2` first (make test does)", pytrace=False
        )
    made = tmp_path_factory.mktemp("printed")
    files.write_atomic(made / "dvc.yaml", "stages: {}\n")
    for name in ("build", "results"):
        (made / name).symlink_to(root / name)
    text = "Anna has the key.\n\n" + "The house stands on a hill, and nobody lives in it.\n\n" * 60
    (made / "my-text.md").write_text(text, encoding="utf-8")
    (made / "my-texts").mkdir()
    (made / "my-texts" / "one.txt").write_text(text, encoding="utf-8")
    run = tiny_run(steps=2).model_dump(mode="json", exclude={"processes"})
    run["model"]["vocab_size"] = files.read_json(root / "build" / "tokenizer" / "card.json")[
        "vocab_size"
    ]
    files.write_json(made / "run.yaml", run)
    return made


def test_each_command_has_a_test_or_says_that_it_has_none(root: Path) -> None:
    known = [*LESS, *ELSEWHERE]
    unknown = [
        command
        for command, whole in commands(root)
        if not (
            command in ELSEWHERE
            or any(command.startswith(f"{k} ") for k in LESS)
            or "not tested" in whole
        )
    ]
    assert unknown == [], f"expected one of {known}, or `not tested` in its comment"
    # twin: boxes are found
    assert any(command.startswith("farcontext probe") for command, _ in commands(root))


@pytest.mark.parametrize("name", LESS)
def test_a_printed_command_runs(name: str, folder: Path, root: Path) -> None:
    found = [
        command
        for command, whole in commands(root)
        if command.startswith(f"{name} ") and "not tested" not in whole
    ]
    assert found, f"{name}: no longer printed"
    for command in found:
        said = call(folder, *shlex.split(command)[1:], *LESS[name], seconds=300)
        assert said.code == 0, (command, said.err[-500:])


@pytest.mark.parametrize(
    "verb", ["probe", "rope", "cost", "compare-checkpoints", "ask", "continue"]
)
def test_the_example_in_a_verbs_help_is_a_command_that_is_run(verb: str, root: Path) -> None:
    said = " ".join(call(root, verb, "--help").out.split())
    found = re.search(r"Example: (farcontext .*?) (?:Arguments|╭)", said)
    assert found, said
    assert found[1].strip() in [command for command, _ in commands(root)]
