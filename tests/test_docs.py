"""A reader is told the truth.

README's commands and tree exist, and every generated page equals what would be generated.
"""

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from farcontext import files
from farcontext.app import notebooks, pages, publish
from farcontext.app.languages import Language
from farcontext.checkpoints.unloaded.families import FAMILIES
from farcontext.results import freezing, tables, verdicts
from farcontext.results.claims import read_claims
from farcontext.results.findings import Finding
from farcontext.studies.params import STUDIES


@pytest.fixture
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def findings(root: Path) -> list[Finding]:
    return verdicts.judge_all(read_claims(root / "claims.yaml"), root / "results" / "laptop")


@pytest.fixture
def tries(root: Path) -> dict[str, int]:
    return freezing.tries(read_claims(root / "claims.yaml"), freezing.read_lock(root))


def block(page: str, name: str) -> str:
    return (
        page.split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->", maxsplit=1)[0].strip()
    )


def test_readme_length(readme: str) -> None:
    assert 120 <= len(readme.splitlines()) <= 200


def test_readme_commands_are_targets(readme: str, root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", readme))
    assert {"repro", "test", "lab"} <= named <= targets


def test_readme_counts_the_families_that_load(readme: str) -> None:
    assert f"of {len(FAMILIES)} families" in readme


def test_the_tree_names_what_is_there(root: Path) -> None:
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = next(part for part in page.split("```")[1::2] if part.startswith("\nnotebooks/"))
    package = root / "src" / "farcontext"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert set(re.findall(r"^  ([a-z]+)/", tree, re.M)) == rooms
    known = {path.name for path in package.rglob("*.py")}
    assert set(re.findall(r"\b([a-z_]+\.py)\b", tree)) <= known


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "README.zh.md",
        "EXPERIMENTS.md",
        "CONTRIBUTING.md",
        "REPRODUCING.md",
        "SECURITY.md",
        "data/README.md",
    ],
)
def test_links_resolve(page: str, root: Path) -> None:
    text = (root / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (root / page).parent.joinpath(target).exists(), target


def test_every_promise_of_security_names_its_tests(readme: str, root: Path) -> None:
    page = (root / "SECURITY.md").read_text(encoding="utf-8")
    promises = [line.split("|") for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(promises) >= 5 and "](SECURITY.md)" in readme
    for _, promise, _, tests, _ in promises:
        named = re.findall(r"`(tests/[a-z_/]+\.py)`", tests)
        assert named and all((root / name).is_file() for name in named), promise


@pytest.mark.parametrize(("name", "said"), publish.READMES.items(), ids=publish.READMES)
def test_verdicts_and_answers_of_a_readme_are_generated(
    root: Path, findings: list[Finding], tries: dict[str, int], name: str, said: Language
) -> None:
    page = (root / name).read_text(encoding="utf-8")
    paths = {study: notebooks.path_of(study) for study in STUDIES}
    elsewhere = (verdicts.recorded("second_machine"), verdicts.recorded("night"))
    made = pages.verdict_block(findings, tries, paths, *elsewhere, said)
    assert block(page, "verdicts") == made.strip()
    assert block(page, "answers") == pages.answers_block(findings, said).strip()


def test_the_readmes_print_the_same_commands(root: Path) -> None:
    """What a Chinese reader is told to run is in the English page, and so is tested."""
    english, chinese = (
        {
            line.split("#")[0].strip()
            for part in text.split("```bash")[1:]
            for line in part.split("```")[0].splitlines()
        }
        for text in ((root / name).read_text(encoding="utf-8") for name in publish.READMES)
    )
    assert chinese <= english


def test_readme_costs_are_computed(
    readme: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert block(readme, "costs") == pages.cost_block().strip()


def test_experiments_page_is_generated(
    root: Path, findings: list[Finding], tries: dict[str, int]
) -> None:
    exact = read_claims(root / "claims.yaml").exact
    names = {study: notebooks.path_of(study).name for study in STUDIES}
    page = pages.experiments_page(
        findings,
        tries,
        exact,
        names,
        verdicts.recorded("second_machine"),
        verdicts.recorded("night"),
    )
    assert (root / "EXPERIMENTS.md").read_text(encoding="utf-8") == page


def test_data_card_is_generated(root: Path) -> None:
    card = files.read_json(root / "build" / "corpus" / "card.json")
    page = (root / "data" / "README.md").read_text(encoding="utf-8")
    assert block(page, "corpus") == pages.data_card(card).strip()


def test_verdicts_of_the_second_machine_are_of_the_claims_as_they_stand(
    root: Path, findings: list[Finding]
) -> None:
    """A claim whose effects or thresholds changed has no verdict there any more."""
    there, _ = tables.recorded("second_machine", "verdicts")
    known = {f.id: {(e.name, e.threshold, e.side) for e in f.claim.effects} for f in findings}
    for row in there.itertuples():
        assert (row.effect, row.threshold, row.side) in known[row.claim], row.claim


def test_undecided_verdicts_are_named(findings: list[Finding]) -> None:
    """No test asks science for an outcome.

    This one prints the open claims, and holds that each says why.
    """
    for f in findings:
        if f.verdict.startswith("undecided"):
            print(f"{f.id}: {f.verdict}: {f.note}")
            assert f.note


@pytest.mark.parametrize(
    "page", ["README.md", "EXPERIMENTS.md", "data/README.md", "REPRODUCING.md"]
)
def test_every_row_of_a_table_has_the_cells_of_its_head(page: str, root: Path) -> None:
    head = None
    for line in (root / page).read_text(encoding="utf-8").splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        head = cells if head is None else head
        assert cells in (None, head), line
        head = cells if cells is None else head


def test_conda_pin_equals_pyproject(root: Path) -> None:
    pins = YAML(typ="safe").load(root / "environment.yml")["dependencies"]
    python = next(pin for pin in pins if str(pin).startswith("python="))
    required = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "requires-python"
    ]
    least, most = re.fullmatch(r">=3\.(\d+)\.\d+,<3\.(\d+)", required).groups()
    assert int(least) <= int(python.removeprefix("python=3.")) < int(most)


def test_lock_holds_every_direct_dependency_but_torch(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (root / "requirements.lock").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock, re.M))
    assert "torch" not in pins
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        name, _, version = requirement.split(";")[0].strip().partition("==")
        if name != "torch":
            found = pins[name.lower().replace("_", "-").replace(".", "-")]
            assert version in ("", found), requirement


def test_ci_calls_exactly_the_test_command(root: Path) -> None:
    assert (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "exec make test"


def test_claims_quote_at_most_25_characters_and_all_have_a_date(root: Path) -> None:
    for name, claim in read_claims(root / "claims.yaml").claims.items():
        assert 0 < len(claim.words) <= 25, name
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", claim.fixed), name
        assert claim.study in STUDIES, name
