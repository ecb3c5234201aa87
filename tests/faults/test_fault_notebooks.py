"""The notebook runner: parameters that are wrong, kernels that die, and runners that are killed."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import children
import nbformat
import notebooks_made as made
import pytest
from notebook_rules import problems_of
from observe import leftovers, one_line, refuses, snapshot

from farcontext.app import notebooks

PID = "import os, pathlib; pathlib.Path('../kernel.pid').write_text(str(os.getpid()))"
HANG = f"{PID}\nimport time\ntime.sleep(600)"
OLD = "the old notebook"
SCRIPT = nbformat.v4.new_output(
    "display_data",
    data={"text/html": "<p>hello</p><script>alert(1)</script>", "text/plain": "hello"},
)


def alive(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            not in "ZX"
        )
    except OSError:
        return False


def kernel_of(folder: Path, child: children.Child) -> int:
    """Wait until the notebook's cell has told its kernel's pid."""
    file, give_up = folder / "kernel.pid", time.monotonic() + children.SECONDS
    while not (file.exists() and file.read_text(encoding="utf-8")):
        assert child.process.is_alive() or file.exists(), (
            f"it ended without a kernel: {child.said()}"
        )
        assert time.monotonic() < give_up, f"the kernel did not start: {child.said()}"
        time.sleep(0.02)
    return int(file.read_text(encoding="utf-8"))


def gone(pid: int, seconds: float = 10) -> bool:
    give_up = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < give_up:
        time.sleep(0.02)
    return not alive(pid)


def started(
    folder: Path, cell: str, task=children.command, arguments=("study", made.STUDY)
) -> children.Child:
    """Start a notebook whose executed form already exists from an earlier run."""
    made.project(folder, cell)
    made.output(folder).parent.mkdir(parents=True)
    made.output(folder).write_text(OLD, encoding="utf-8")
    return children.start(task, folder, folder / "cache", *arguments)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, tuple[Path, children.Child]]]:
    """Every notebook of this module that needs a kernel, all started ahead: their waits overlap."""
    base = tmp_path_factory.mktemp("kernels")
    late = (made.STUDY, base / "late" / "executed.ipynb", 2)
    plans = {
        "late": (HANG, children.execute_within, late),
        "died": (f"{PID}\nos._exit(7)",),
        "failed": (f"{PID}\n1 / 0",),
        "killed": (HANG,),
        "stopped": (HANG,),
        "orphan-9": (HANG, children.launch),
        "orphan-15": (HANG, children.launch),
    }
    cases = {}
    for (
        name,
        plan,
    ) in plans.items():  # one by one: kernels that start together may choose the same ports
        cases[name] = started(base / name, *plan)
        kernel_of(base / name, cases[name])
    yield {name: (base / name, child) for name, child in cases.items()}
    for name, child in cases.items():  # what a failing test would leave behind
        file = base / name / "kernel.pid"
        for process, kill in (
            (child.pid, os.killpg),
            (int(file.read_text(encoding="utf-8")) if file.exists() else 0, os.kill),
        ):
            with contextlib.suppress(ProcessLookupError):
                if process:
                    kill(process, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_fault_13_when_the_launcher_dies_the_study_and_its_kernel_end(
    running: dict, number: int
) -> None:
    folder, launcher = running[f"orphan-{int(number)}"]
    kernel = kernel_of(folder, launcher)
    assert alive(kernel)
    launcher.kill(number)
    launcher.process.join(children.SECONDS)
    assert launcher.process.exitcode == -number
    assert gone(kernel), "the kernel outlived its launcher by 10 s"
    give_up = time.monotonic() + 10
    while children.group_alive(launcher.pid) and time.monotonic() < give_up:
        time.sleep(0.02)
    assert not children.group_alive(launcher.pid), "the study outlived its launcher by 10 s"
    assert made.output(folder).read_text(encoding="utf-8") == OLD


@pytest.mark.parametrize(
    ("case", "wanted"),
    [("died", "DeadKernelError"), ("failed", "ZeroDivisionError"), ("late", "2 seconds")],
)
def test_fault_87_a_dead_kernel_or_a_late_cell_is_one_line_and_leaves_no_half_output(
    running: dict, case: str, wanted: str
) -> None:
    folder, child = running[case]
    assert child.wait() == 2, child.said()
    one_line(child.said(), made.NAME, wanted)
    assert made.output(folder).read_text(encoding="utf-8") == OLD
    assert not (folder / "executed.ipynb").exists()
    assert not leftovers(folder)
    assert gone(kernel_of(folder, child)), "the kernel still runs"


@pytest.mark.parametrize(
    ("case", "number"), [("killed", signal.SIGKILL), ("stopped", signal.SIGTERM)]
)
def test_fault_88_a_killed_runner_leaves_the_old_output_and_no_kernel(
    running: dict, case: str, number: int
) -> None:
    folder, child = running[case]
    kernel = kernel_of(folder, child)
    os.kill(child.pid, number)
    child.process.join(children.SECONDS)
    assert child.process.exitcode == (-number if number == signal.SIGKILL else 128 + number), (
        child.said()
    )
    assert gone(kernel), "the kernel outlived its runner by 10 s"
    assert made.output(folder).read_text(encoding="utf-8") == OLD


def canary_project(folder: Path, **changes: object) -> Path:
    """A notebook that betrays any kernel that starts."""
    return made.project(folder, "import pathlib; pathlib.Path('../canary').touch()", **changes)


def with_values(folder: Path, old: str, new: str) -> Path:
    file = folder / "params.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


def refused_before_a_kernel(folder: Path, *wanted: str) -> None:
    before = snapshot(folder)
    child = children.start(
        children.command, folder, folder.with_name(f"{folder.name}-cache"), "study", made.STUDY
    )
    assert child.wait() == 2, child.said()
    one_line(child.said(), *wanted)
    assert not (folder / "canary").exists()
    assert snapshot(folder) == before


def test_fault_84_an_unknown_parameter_is_refused_with_a_suggestion_before_a_kernel(
    tmp_path: Path,
) -> None:
    folder = with_values(canary_project(tmp_path), "  samples:", "  smaples:")
    refused_before_a_kernel(folder, "attention_derivation.smaples", "did you mean samples?")


def test_fault_84_an_unknown_name_in_the_notebook_is_refused_too(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(
        canary_project(tmp_path, parameters=made.PARAMETERS.replace("samples", "smaples"))
    )
    with refuses("did you mean samples?"):
        notebooks.check(made.STUDY, made.VALUES, "values")
    with refuses("did you mean samples?"):
        notebooks.check(
            made.STUDY,
            {"smaples": 1} | {k: v for k, v in made.VALUES.items() if k != "samples"},
            "values",
        )


@pytest.mark.parametrize(
    "name",
    [
        "x\nimport pathlib; pathlib.Path('../canary').touch()\ny",
        "a b",
        "class",
        "1x",
        "__import__('os')",
    ],
)
def test_fault_85_a_name_that_is_no_identifier_never_runs(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    """The name goes through the library.

    As a key of params.yaml, where it can be written, it goes through the command line too.
    """
    folder = canary_project(tmp_path)
    monkeypatch.chdir(folder)
    with refuses("expected one of seeds, samples"):
        notebooks.check(made.STUDY, made.VALUES | {name: 1}, "values")
    assert not (folder / "canary").exists()


def test_fault_85_a_key_holding_a_newline_and_a_statement_is_one_line(tmp_path: Path) -> None:
    folder = with_values(
        canary_project(tmp_path),
        "  samples:",
        "  \"x\\nimport os; os.mkdir('canary')\": 1\n  samples:",
    )
    refused_before_a_kernel(folder, "import os", "expected one of seeds")


def test_fault_86_a_wrong_type_names_notebook_and_cell(tmp_path: Path, monkeypatch) -> None:
    wrong = made.PARAMETERS.replace(f"samples = {made.VALUES['samples']!r}", "samples = 'many'")
    monkeypatch.chdir(canary_project(tmp_path, parameters=wrong))
    with refuses(f"{made.NAME}: parameters cell: samples = 'many': expected an integer ≥ 1"):
        notebooks.check(made.STUDY, made.VALUES, "values")
    with refuses("values: samples = '5': expected an integer ≥ 1"):
        notebooks.check(made.STUDY, made.VALUES | {"samples": "5"}, "values")


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        (None, "0 cells tagged parameters: expected one"),
        ("seeds = range(3)", "parameters cell: 'seeds = range(3)': expected name = literal"),
        ("seeds = samples = 3", "expected name = literal"),
        ("import os", "expected name = literal"),
        ("seeds = [", "parameters cell: expected Python"),
        (made.PARAMETERS.replace("length", "# length"), "length: expected this key"),
    ],
)
def test_fault_86_a_notebook_without_a_plain_parameters_cell_is_refused(
    parameters: str | None, wanted: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(canary_project(tmp_path, parameters=parameters))
    with refuses(wanted) as caught:
        notebooks.check(made.STUDY, made.VALUES, "values")
    assert made.NAME in str(caught.value)


def test_fault_86_the_command_says_so_in_one_line_before_a_kernel(tmp_path: Path) -> None:
    refused_before_a_kernel(
        canary_project(tmp_path, parameters=None), made.NAME, "0 cells tagged parameters"
    )


def test_fault_89_a_notebook_that_would_pass_without_being_compared_is_found(
    root: Path, tmp_path: Path
) -> None:
    """The notebook rules object to cleared outputs and to planted JavaScript.

    The test clears the outputs of a committed notebook, or plants JavaScript in them.
    """
    source = sorted((root / "notebooks").glob("[0-9]*.ipynb"))[0]
    assert problems_of(source) == []
    for name, damage, wanted in (
        ("cleared", lambda cell: cell.update(outputs=[], execution_count=None), "execution count"),
        ("no outputs", lambda cell: cell.update(outputs=[]), "no stored output"),
        ("script", lambda cell: cell.outputs.append(SCRIPT), "JavaScript"),
    ):
        notebook = notebooks.read(source)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                damage(cell)
        copy = tmp_path / source.name
        nbformat.write(notebook, copy)
        assert any(wanted in problem for problem in problems_of(copy)), (
            f"{name}: {problems_of(copy)}"
        )
