"""The site: it is built from the committed files, whole, and asks no other host."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from observe import refuses

from farcontext import files
from farcontext.app import cli
from farcontext.app.cards import cards as all_cards
from farcontext.app.site import build, cards, checks, markdown, modules, notebook
from farcontext.app.site.checks import Report
from farcontext.app.site.layout import Places
from farcontext.results.claims import read_claims
from farcontext.studies.params import STUDIES

COMMANDS = typer.main.get_command(cli.app).commands


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """Return the site's folder, and what its checks said."""
    folder = tmp_path_factory.mktemp("site") / "site"
    return folder, build.build(root, cli.app, folder)


@pytest.fixture(scope="module")
def site(built: tuple[Path, Report]) -> Path:
    return built[0]


def page(site: Path, url: str) -> str:
    return (site / url).read_text(encoding="utf-8")


def index(site: Path) -> list[dict[str, str]]:
    text = page(site, "static/index.js").removeprefix("window.searchIndex = ")
    return json.loads(text.rstrip(";\n"))


# --------------------------------------------------------------------------------- links, requests


def test_no_link_is_broken_and_no_other_host_is_asked(built: tuple[Path, Report]) -> None:
    report = built[1]
    assert report.broken == () and report.outside == ()
    assert report.pages >= len(STUDIES) + len(COMMANDS) + 30 and report.links > 1000


BROKEN = {
    '<a href="nowhere.html">': "page.html: nowhere.html",
    '<a href="#nowhere">': "page.html: #nowhere",
    '<a href="other.html#nowhere">': "page.html: other.html#nowhere",
    '<a href="../outside.html">': "page.html: ../outside.html",
    '<img src="nothing.png">': "page.html: nothing.png",
}
OUTSIDE = [
    '<img src="https://example.org/a.png">',
    '<script src="//example.org/a.js">',
    '<link rel="stylesheet" href="http://example.org/a.css">',
    '<object data="https://example.org/a.pdf">',
    '<p style="background: url(https://example.org/a.png)">',
    "<style>@import 'https://example.org/a.css';</style>",
    "<style>@font-face { src: url('https://example.org/a.woff2'); }</style>",
    '<svg><image href="https://example.org/a.png"/></svg>',
]


def planted(folder: Path, text: str) -> Report:
    files.write_atomic(folder / "outside.html", "")
    files.write_atomic(folder / "site" / "other.html", '<h2 id="here">')
    files.write_atomic(folder / "site" / "page.html", text)
    return checks.check(folder / "site")


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_link_is_found(text: str, tmp_path: Path) -> None:
    assert planted(tmp_path, text).broken == (BROKEN[text],)


@pytest.mark.parametrize("text", OUTSIDE)
def test_a_request_to_another_host_is_found(text: str, tmp_path: Path) -> None:
    assert len(planted(tmp_path, text).outside) == 1


def test_a_style_sheet_is_read_too(tmp_path: Path) -> None:
    sheet = "p { background: url(https://example.org/a.png) }"
    files.write_atomic(tmp_path / "site" / "a.css", sheet)
    assert planted(tmp_path, "").outside == ("a.css: https://example.org/a.png",)


def test_what_waits_for_the_reader_or_stands_within_is_allowed(tmp_path: Path) -> None:
    text = '<a href="https://example.org"><a href="other.html#here"><img src="data:image/png,">'
    report = planted(tmp_path, text)
    assert (report.broken, report.outside, report.links) == ((), (), 2)


# ------------------------------------------------------------------------------------ what is there


def test_every_notebook_claim_verb_and_module_has_its_page(site: Path, root: Path) -> None:
    for path in (root / "notebooks").glob("[0-9]*.ipynb"):
        assert (site / "notebooks" / f"{path.stem}.html").is_file()
    for name, claim in read_claims(root / "claims.yaml").claims.items():
        assert claim.words in page(site, f"claims/{name}.html")
    for name, command in COMMANDS.items():
        text = page(site, f"commands/{name}.html")
        assert all(option in text for one in command.params for option in one.opts)
    for path in (root / "src" / "farcontext" / "nn").glob("[a-z]*.py"):
        assert f'id="nn.{path.stem}"' in page(site, "library/nn.html")


def test_every_page_is_named_on_the_first_or_in_the_menu(site: Path) -> None:
    reached = set()
    for link in checks.read(page(site, "index.html")).links:
        reached.add((site / link.partition("#")[0]).resolve())
    assert {path.resolve() for path in site.rglob("*.html")} <= reached


def test_a_card_tells_what_the_tables_say(site: Path, root: Path) -> None:
    for card in all_cards(root):
        text = markdown.plain(page(site, card.url))
        for told in (card.english, card.verdict, card.claim.range, card.chinese, card.means):
            assert told in text or "`" in told, card.id
        for effect in card.effects:
            assert effect["effect"] in text and effect["shown"]["estimate"] in text


def test_the_paper_is_a_page_with_the_published_numbers(site: Path) -> None:
    text = page(site, "paper/index.html")
    assert 'id="1-introduction"' in text and "../figures/context_extension/" in text
    assert (site / "paper" / "paper.pdf").is_file()


@pytest.mark.parametrize(
    ("word", "url"),
    [
        ("yarn", "notebooks/07_context_extension.html"),
        ("长期依赖", "claims/M2.html"),
        ("effective length", "commands/probe.html"),
        ("flashattention", "library/studies.html"),
    ],
)
def test_the_search_finds_a_known_word(word: str, url: str, site: Path) -> None:
    found = {row["u"].partition("#")[0] for row in index(site) if word in row["t"].lower()}
    assert url in found


def test_every_address_of_the_index_resolves(site: Path) -> None:
    for row in index(site):
        path, _, anchor = row["u"].partition("#")
        assert not anchor or f'id="{anchor}"' in page(site, path)


# ------------------------------------------------------------------------------------------- pieces


def test_an_executed_notebook_comes_before_the_committed_one(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "notebooks" / "01_toy.ipynb", "{}")
    (source,) = notebook.sources(tmp_path)
    assert (source.executed, source.profile) == (source.path, "smoke")
    made = tmp_path / "build" / "laptop" / "studies" / "toy" / "notebook.ipynb"
    files.write_atomic(made, "{}")
    (source,) = notebook.sources(tmp_path)
    assert (source.executed, source.profile) == (made, "laptop")


def test_links_of_the_repository_lead_to_pages_copies_or_stay_text(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "CITATION.cff", "x")
    places = Places(tmp_path, {"notebooks/01_toy.ipynb": "notebooks/01_toy.html"})
    text = "[a](../notebooks/01_toy.ipynb#here) [b](../CITATION.cff) [c](../src) [d](../../up)"
    html = markdown.Renderer(places, "data/README.md", "about/data-README.html").html(text)
    assert 'href="../notebooks/01_toy.html#here"' in html
    assert 'href="../files/CITATION.cff"' in html and list(places.copies) == ["files/CITATION.cff"]
    assert html.count("<a ") == 2


def test_headings_have_anchors_of_their_own(tmp_path: Path) -> None:
    renderer = markdown.Renderer(Places(tmp_path, {}), "a.md", "a.html")
    renderer.html("# What, `here`?\n\n## What here\n\n## 中文 标题")
    assert [one.anchor for one in renderer.headings] == ["what-here", "what-here-1", "中文-标题"]


def test_a_formula_becomes_mathml(tmp_path: Path) -> None:
    renderer = markdown.Renderer(Places(tmp_path, {}), "a.md", "a.html")
    html = renderer.html("$x^2$ and\n\n$$\\text{a\\_b} = \\big(\\frac12\\big)$$\n\nin `$HOME`")
    assert html.count("<math ") == 2 and "<msup>" in html and "a_b" in html and "$HOME" in html
    with refuses(r"\nosuch: expected a command"):
        renderer.html(r"$\nosuch{x}$")


def test_intervals_of_one_effect_share_a_scale() -> None:
    effects = [
        {"effect": "a: near", "low": 0.0, "estimate": 1.0, "high": 2.0, "threshold": "≥ 0"},
        {"effect": "a: far", "low": 6.0, "estimate": 8.0, "high": 10.0, "threshold": "≥ 0"},
        {"effect": "b", "low": -1.0, "estimate": -1.0, "high": -1.0, "threshold": "−1 … 3e−1"},
    ]
    near, far, alone = (cards.drawn(one, effects) for one in effects)
    assert near == {"low": 5.0, "estimate": 14.0, "high": 23.0, "marks": [5.0]}
    assert far["high"] == 95.0 and alone["marks"] == [5.0, 95.0]
    unknown = effects[0] | {"high": float("nan")}
    assert cards.drawn(unknown, [unknown]) == {}


def test_a_long_signature_has_a_parameter_a_line(tmp_path: Path) -> None:
    source = 'def f(a, *many, b: dict[str, int] = {"x": 1}, **others) -> int:\n    """Say."""\n'
    long = source.replace("others", "o" * 60).replace("f(", "g(").replace("Say", "Say `it`")
    files.write_atomic(tmp_path / "m.py", source + long + "def _hidden(): pass\n")
    short, wide = modules.read(tmp_path / "m.py", tmp_path).entries
    assert markdown.plain(short.signature).startswith("def f(a, *many, b: dict[str, int] = {'x'")
    assert len(re.sub(r"<[^>]*>", "", wide.signature).strip().splitlines()) == 6
    assert wide.said == "<p>Say <code>it</code>.</p>"


def test_a_damaged_page_leaves_the_last_site(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_atomic(tmp_path / "site" / "index.html", "the last")
    bad = Report(1, 1, ("a.html: nowhere.html",), ())
    monkeypatch.setattr(build, "pages", lambda root, app: ([], Places(root, {})))
    monkeypatch.setattr(checks, "check", lambda folder: bad)
    with refuses("a.html: nowhere.html: expected a link within the site"):
        build.build(root, cli.app, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_text(encoding="utf-8") == "the last"


def test_the_site_needs_no_torch() -> None:
    program = "import sys, farcontext.app.site.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
