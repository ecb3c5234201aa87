"""The site: every page built, laid out, written and checked."""

from importlib import resources
from pathlib import Path

import typer

from farcontext import files
from farcontext.app import notebooks
from farcontext.app.cards import Card, tally
from farcontext.app.cards import cards as all_cards
from farcontext.app.site import cards, checks, commands, modules, notebook, paper, search
from farcontext.app.site.checks import Report
from farcontext.app.site.layout import Page, Places, lay_out, render
from farcontext.app.site.markdown import Renderer
from farcontext.files import UserError

# Pages of the repository, with their names in the sidebar; a missing one is left out.
DOCUMENTS = {
    "README.md": "Read me",
    "README.zh.md": "中文",
    "REPRODUCING.md": "Reproducing",
    "CONTRIBUTING.md": "Contributing",
    "data/README.md": "Data",
    "SECURITY.md": "Security",
    "CHANGELOG.md": "Changes",
}
ABOUT = "About"
ASSETS = ("site.css", "site.js", "search.js")


def _places(root: Path, sources: list[notebook.Source]) -> Places:
    """Say which files of the repository have a page."""
    known = {source.path.relative_to(root).as_posix(): source.url for source in sources}
    for name in DOCUMENTS:
        if (root / name).is_file():
            known[name] = f"about/{name.removesuffix('.md').replace('/', '-')}.html"
    known["EXPERIMENTS.md"] = "claims/index.html"  # The cards say the same, one a page.
    return Places(root, known)


def _document(name: str, places: Places) -> Page:
    url = places.pages[name]
    markdown = Renderer(places, name, url)
    body = markdown.html((places.root / name).read_text(encoding="utf-8"))
    title = markdown.headings[0].text if markdown.headings else DOCUMENTS[name]
    headings = tuple(one for one in markdown.headings[1:] if one.level == 2)
    return Page(url, title, ABOUT, body, DOCUMENTS[name], headings)


def _home(places: Places, known: list[Card], sources: list[notebook.Source]) -> Page:
    """Return the first page: README's beginning, all verdicts and all notebooks."""
    url = "index.html"
    text = (places.root / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    text = text.replace("](#", "](README.md#")  # The section is on README's own page.
    leads = [
        (one, notebooks.question_of(one.executed), notebook.lead(one, places, url))
        for one in sources
    ]
    beginning = Renderer(places, "README.md", url).html(text)
    told = {"cards": known, "tally": tally(known), "leads": leads}
    return Page(url, "farcontext", "", render("home", url, beginning=beginning, **told))


def _notebooks(places: Places, known: list[Card], sources: list[notebook.Source]) -> list[Page]:
    before, after = [None, *sources[:-1]], [*sources[1:], None]
    return [
        notebook.page(one, places, [card for card in known if card.claim.study == one.study], pair)
        for one, *pair in zip(sources, before, after, strict=True)
    ]


def pages(root: Path, app: typer.Typer) -> tuple[list[Page], Places]:
    """Return all pages, and the places of the files that they show."""
    sources = notebook.sources(root)
    places, known = _places(root, sources), all_cards(root)
    of_study = {source.study: source for source in sources}
    made = [
        _home(places, known, sources),
        *_notebooks(places, known, sources),
        cards.overview(known),
        *(cards.page(card, places, of_study[card.claim.study]) for card in known),
        paper.page(places),
        *(_document(name, places) for name in DOCUMENTS if name in places.pages),
        *commands.pages(app),
        *modules.pages(root),
    ]
    return [*made, Page("search.html", "Search", "", render("search", "search.html"))], places


def build(root: Path, app: typer.Typer, target: Path) -> Report:
    """Build the site below a folder, which it replaces whole.

    Raises:
        UserError: a link that leads nowhere, or something that another host would be asked for.
    """
    made, places = pages(root, app)
    with files.folder_atomic(target) as folder:
        for page in made:
            files.write_atomic(folder / page.url, lay_out(page, made))
        for url, path in places.copies.items():
            files.write_atomic(folder / url, files.read_regular(path))
        for name in ASSETS:
            asset = resources.files("farcontext.app") / "templates" / "site" / name
            files.write_atomic(folder / "static" / name, asset.read_bytes())
        files.write_atomic(folder / "static" / "index.js", search.index(made))
        report = checks.check(folder)
        if objections := (*report.broken, *report.outside):
            raise UserError(f"{objections[0]}: expected a link within the site; {report.line()}")
    return report
