"""Notebooks have parameters, code as one source, and a normal form.

Two executions share the normal form.
"""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from observe import refuses

from farcontext.app import notebooks
from farcontext.studies.params import STUDIES
from farcontext.train import fingerprints


def ran(number: int, **metadata: object) -> nbformat.NotebookNode:
    """Return a notebook as one execution would leave it.

    The number stands for all that differs from run to run.
    """
    outputs = [
        new_output("stream", name="stdout", text="a\n"),
        new_output("stream", name="stderr", text=f"warning {number}\n"),
        new_output("stream", name="stdout", text="b\n"),
        new_output(
            "execute_result", data={"text/plain": f"<f at 0x7f00{number:04x}>"}, execution_count=1
        ),
    ]
    cell = new_code_cell("f", execution_count=1, outputs=outputs, id=f"id{number}")
    cell.metadata = {
        "execution": {"iopub.execute_input": f"2026-11-24T00:00:{number:02d}Z"},
        "papermill": {"duration": number},
        "tags": ["x"],
    }
    page = new_notebook(cells=[new_markdown_cell("# T", id=f"m{number}"), cell])
    page.metadata = {
        "papermill": {"start": number},
        "language_info": {"name": "python", "version": f"3.11.{number}"},
    } | metadata
    return page


def test_two_executions_have_the_same_normal_form_and_it_is_stable() -> None:
    one, two = (nbformat.writes(notebooks.normalise(ran(n))) for n in (1, 2))
    assert one == two
    again = nbformat.writes(notebooks.normalise(nbformat.reads(one, as_version=4)))
    assert again == one


def test_the_normal_form_keeps_what_a_reader_sees() -> None:
    page = notebooks.normalise(ran(1))
    (first, second) = page.cells[1].outputs
    assert first.text == "a\nb\n" and second.data["text/plain"] == "<f>"
    assert page.cells[1].metadata == {"tags": ["x"]} and page.cells[1].execution_count == 1
    assert [cell.id for cell in page.cells] == ["cell-00", "cell-01"]


def test_another_output_is_another_normal_form() -> None:
    other = ran(1)
    other.cells[1].outputs[0].text = "c\n"
    assert nbformat.writes(notebooks.normalise(other)) != nbformat.writes(
        notebooks.normalise(ran(1))
    )


def test_a_widget_is_not_kept() -> None:
    made = ran(1)
    data = {notebooks.WIDGET: {"model_id": "1"}, "text/plain": "interactive(…)"}
    made.cells[1].outputs.append(new_output("display_data", data))
    assert notebooks.normalise(made) == notebooks.normalise(ran(1))


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cells = [
        new_markdown_cell("prose"),
        new_code_cell("import os  # why"),
        new_code_cell(
            "seeds = [1, 2]\nname = 'x'\nlimit = None", metadata={"tags": ["parameters"]}
        ),
        new_code_cell("print(seeds)"),
    ]
    path = tmp_path / "01_x.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_the_parameters_cell_is_read_without_running_it(notebook: Path) -> None:
    assert notebooks.defaults(notebook) == {"seeds": [1, 2], "name": "x", "limit": None}


def test_a_notebooks_code_is_all_but_its_parameters(notebook: Path) -> None:
    assert notebooks.code_cells(notebook) == "import os  # why\nprint(seeds)\n"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("prose", "other prose", True),
        ("# why", "# reason", True),
        ("[1, 2]", "[3]", True),
        ("print(seeds)", "print(1)", False),
    ],
)
def test_a_notebooks_digest_changes_with_its_code_alone(
    old: str, new: str, same: bool, notebook: Path
) -> None:
    before = fingerprints.of_source(notebooks.code_cells(notebook))
    text = notebook.read_text(encoding="utf-8")
    assert old in text
    notebook.write_text(text.replace(old, new), encoding="utf-8")
    assert (fingerprints.of_source(notebooks.code_cells(notebook)) == before) is same


def test_a_page_is_found_by_its_name_and_is_no_study(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    for path in notebooks.pages():
        assert notebooks.named(path.stem[3:]) == path and path.stem[3:] not in STUDIES
    assert notebooks.named("model_anatomy") == notebooks.path_of("model_anatomy")
    with refuses("study = model_anatomi: expected one of"):
        notebooks.named("model_anatomi")


def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ipynb").write_text("{", encoding="utf-8")
    with refuses("x.ipynb: expected a notebook"):
        notebooks.read(tmp_path / "x.ipynb")


def test_a_study_is_found_by_its_name_and_a_misspelt_one_gets_a_suggestion(
    root: Path, monkeypatch
) -> None:
    monkeypatch.chdir(root)
    for study in STUDIES:
        assert notebooks.path_of(study).name[3:] == f"{study}.ipynb"
    with refuses("study = model_anatomi: expected one of") as caught:
        notebooks.path_of("model_anatomi")
    assert "did you mean model_anatomy?" in str(caught.value)
    with refuses("study = *: expected one of"):
        notebooks.path_of("*")


def test_the_committed_parameters_pass_the_check_with_the_smoke_values(
    root: Path, monkeypatch
) -> None:
    monkeypatch.chdir(root)
    for study, model in STUDIES.items():
        values = notebooks.defaults(notebooks.path_of(study))
        checked = notebooks.check(study, values, "defaults")
        assert isinstance(checked, model)
