"""The files of `farcontext realtext`, as questions, documents and pairs.

They are fetched beside the pipeline's and held against their hashes.
"""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from farcontext import files
from farcontext.data import sources
from farcontext.files import UserError
from farcontext.schema import read_yaml, validate

SOURCES = {  # Each data set has its entries of data/sources.yaml.
    "drcd": ("drcd",),
    "squality": ("squality_dev",),
    "qmsum": ("qmsum",),
    "ntrex": ("ntrex_documents", "ntrex_en", "ntrex_de", "ntrex_fr", "ntrex_zh"),
    "tatoeba": ("tatoeba",),
}

Pair = tuple[str, str]  # A pair is an English sentence and its translation.


def fetch() -> None:
    """Fetch into build/realtext what is not there whole.

    The corpus's stage depends on build/sources, so the files do not go there.

    Raises:
        UserError: as `sources.fetch`, of the first that cannot be had or is not what its hash says.
    """
    for name in (name for names in SOURCES.values() for name in names):
        _, _, whole = file_of(name)
        if not whole:
            root = files.project()
            sources.fetch(name, root / "data" / "sources.yaml", root / "build" / "realtext" / name)


def file_of(name: str) -> tuple[Path, str, bool]:
    """Return a source's path, its sha256, and whether it is whole.

    The path is where the file belongs, and data/sources.yaml has the sha256.
    """
    given = files.project() / "data" / "sources.yaml"
    source = validate(sources.Source, read_yaml(given).get(name), f"{given}: {name}")
    path = files.project() / "build" / "realtext" / name / source.path
    return path, source.sha256, path.is_file() and files.sha256_file(path) == source.sha256


def text_of(name: str) -> str:
    """Return the text of a fetched source.

    A byte order mark and the last line's end are left out.

    Raises:
        UserError: it is missing or damaged.
    """
    path, digest, whole = file_of(name)
    if not whole:
        raise UserError(
            f"{path}: expected a file with sha256 = {digest} (farcontext realtext fetches it)"
        )
    return path.read_text(encoding="utf-8-sig").removesuffix("\n")


@dataclass(frozen=True)
class Asked:
    """A question about a paragraph and the answers that count."""

    paragraph: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Summarized:
    """A document and its summaries.

    The document has its sentences in one line, or a turn a line.
    """

    text: str
    references: tuple[str, ...]


def read_drcd(text: str) -> list[list[Asked]]:
    """Return the questions of each article."""
    return [
        [
            Asked(
                paragraph["context"],
                asked["question"],
                tuple(answer["text"] for answer in asked["answers"]),
            )
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
        for article in json.loads(text)["data"]
    ]


def read_squality(text: str) -> list[Summarized]:
    """Return stories and the summaries that tell their plot.

    They answer each story's first question: what is the plot?
    """
    found = [json.loads(line) for line in text.split("\n")]
    return [
        Summarized(
            " ".join(story["document"].split()),
            tuple(
                " ".join(response["response_text"].split())
                for response in story["questions"][0]["responses"]
            ),
        )
        for story in found
    ]


def read_qmsum(text: str) -> list[Summarized]:
    """Return meetings and a summary of each.

    It is the answer to the first general question: what was it about?
    """
    found = [json.loads(line) for line in text.split("\n")]
    return [
        Summarized(
            "\n".join(
                f"{turn['speaker']}: {' '.join(turn['content'].split())}"
                for turn in meeting["meeting_transcripts"]
            ),
            (meeting["general_query_list"][0]["answer"],),
        )
        for meeting in found
    ]


def read_ntrex(documents: str, english: str, references: str) -> list[list[Pair]]:
    """Return the sentence pairs of each document; three files, line by line."""
    rows = zip(*(text.split("\n") for text in (documents, english, references)), strict=True)
    return [
        [(source, target) for _, source, target in group]
        for _, group in groupby(rows, key=lambda row: row[0])
    ]


def read_tatoeba(text: str) -> list[Pair]:
    """Return sentence pairs; of several translations the first."""
    found: dict[str, str] = {}
    for line in filter(None, text.split("\n")):
        source, target, *_ = line.split("\t")
        found.setdefault(source, target)
    return list(found.items())
