"""A corpus is read from its sources, and written split by split.

A document's text is exactly what its file holds, decoded as strict UTF-8, except that one byte
order mark at the very start is removed; CRLF, NUL and U+2028 stay. (`manuals` renders API manuals
from JSON.) The fingerprint is over texts and splits alone, so listing order, time stamps and folder
names do not matter.
"""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from farcontext import files
from farcontext.data import columns
from farcontext.data.config import NAME, Corpus
from farcontext.data.documents import Document, remove_duplicates, split_of
from farcontext.data.manuals import read_manuals
from farcontext.files import MAX_BYTES, UserError
from farcontext.messages import one_line, printable

SPLITS = ("train", "validation", "test")
EXTENSIONS = (".txt", ".md", ".jsonl", ".parquet")
# Control characters that no text consists of; UTF-16 that is read as UTF-8 is full of them.
CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
# Chapters follow on from each other, so they are split in runs, not one by one.
CHAPTERS_A_GROUP = 10


# ------------------------------------------------------------------------------------------ reading


def read_text(path: Path) -> str:
    """Return a file's text as strict UTF-8.

    One byte order mark at the start is removed; otherwise the text is exact.

    Raises:
        UserError: not UTF-8 (the byte offset is named), larger than MAX_BYTES, changed while it was
            read, or bytes that look like UTF-16 or no text (one in five is a control character).
    """
    try:
        before, data, after = path.stat(), files.read_regular(path, MAX_BYTES), path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(
        data
    ) != after.st_size:
        raise UserError(
            f"{path}: changed while it was read: expected a file that nobody is writing"
        )
    controls = len(data) - len(data.translate(None, CONTROLS))
    if controls >= 8 and 5 * controls > len(data):
        raise UserError(
            f"{path}: {controls} of {len(data)} bytes are control characters: expected UTF-8, not "
            "UTF-16 or what is no text"
        )
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start}: expected UTF-8, found 0x{data[error.start]:02x}"
        ) from None


def _read_files(
    folder: Path, origin: Document, config: Corpus, skipped: Counter
) -> Iterator[Document]:
    """Yield the documents of a folder's files.

    A .txt or .md file is one document, a line of .jsonl is one, and so is a row of .parquet.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder with {', '.join(EXTENSIONS)} files")
    paths = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    for path in sorted(path for path in paths if path.suffix.lower() in EXTENSIONS):
        # Opening a FIFO would wait for ever.
        if not (path.exists() and stat.S_ISREG(path.stat().st_mode)):
            skipped["not a regular file"] += 1
            continue
        if path.suffix.lower() == ".parquet":
            yield from _read_rows(columns.parquet_rows(path), origin, config, skipped)
            continue
        try:
            text = read_text(path)
        except UserError:
            if not config.skip_bad:
                raise
            skipped["unreadable"] += 1
            continue
        if path.suffix.lower() == ".jsonl":
            yield from _read_jsonl(path, text, origin, config, skipped)
        else:
            first = text.partition("\n")[0].strip()
            title = first.removeprefix("# ") if first.startswith("# ") else printable(path.stem)
            yield replace(origin, title=title, text=text)


def _unread(folder: Path) -> Counter:
    """Count what lies in the own folder and is not read.

    That is files with other endings, and linked folders.
    """
    counted: Counter = Counter()

    def lost(error: OSError) -> None:
        counted["folder that cannot be read"] += 1

    for root, folders, names in os.walk(folder, onerror=lost):
        counted["linked folder"] += sum(Path(root, name).is_symlink() for name in folders)
        for ending in (Path(name).suffix.lower() for name in names):
            if ending not in EXTENSIONS:
                counted[f"ending {printable(ending)}" if ending else "no ending"] += 1
    return counted


def _read_rows(
    rows: Iterator[tuple[str, object]], origin: Document, config: Corpus, skipped: Counter
) -> Iterator[Document]:
    """Yield a document a row."""
    for title, value in rows:
        try:
            text = columns.text_of(value, title)
        except UserError:
            if not config.skip_bad:
                raise
            skipped["row without text"] += 1
        else:
            yield replace(origin, title=title, text=text)


def _read_jsonl(
    path: Path, text: str, origin: Document, config: Corpus, skipped: Counter
) -> Iterator[Document]:
    # splitlines() would also cut at U+2028 and NEL.
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, 1):
        try:
            yield replace(
                origin,
                title=f"{printable(path.stem)}:{number}",
                text=columns.text_of_json(line, f"{path}: line {number}"),
            )
        except UserError:
            if not config.skip_bad:
                raise
            skipped["bad JSON line"] += 1


def _read_chapters(folder: Path, origin: Document) -> Iterator[Document]:
    """Yield a novel's chapters from JSON lists of texts.

    Each run of CHAPTERS_A_GROUP is one group.
    """
    for path in sorted(folder.rglob("*.json")):
        if path.name == "source.json":
            continue
        chapters = files.read_json(path)
        if not isinstance(chapters, list) or not all(isinstance(one, str) for one in chapters):
            raise UserError(f"{path}: expected a list of texts")
        for number, text in enumerate(chapters):
            group = f"{path.stem}:{number // CHAPTERS_A_GROUP:02d}"
            yield replace(origin, title=text.split("\n")[0].strip(), group=group, text=text)


# ---------------------------------------------------------------------------- sources and the card


def _identified(document: Document) -> Document:
    digest = hashlib.sha256(document.text.encode("utf-8")).hexdigest()
    return replace(document, id=digest, group=document.group or digest)


def _read_source(
    name: str, sources: Path, config: Corpus, skipped: Counter
) -> tuple[dict, list[Document]]:
    folder = sources / name
    keys = ("domain", "language", "licence", "reader", "title", "sha256")
    entry = files.read_json(folder / "source.json", *keys)
    if not NAME.fullmatch(str(entry["domain"])):
        raise UserError(
            f"{folder / 'source.json'}: domain = {entry['domain']!r:.60}: expected letters, "
            "digits, _, - and ."
        )
    origin = Document("", entry["domain"], entry["language"], "", "", name, entry["licence"], "")
    match entry["reader"]:
        case "files":
            documents = list(_read_files(folder, origin, config, skipped))
        case "chapters":
            documents = list(_read_chapters(folder, origin))
        case "manuals":
            documents = [
                replace(origin, title=one.title, group=one.family, text=one.text)
                for one in read_manuals(folder, config.manuals)
            ]
        case other:
            raise UserError(
                f"corpus: sources: {name}: reader = {other}: expected a source of documents"
            )
    if not documents:
        raise UserError(
            f"{folder}: expected documents, found none (corpus.manuals = {config.manuals})"
        )
    return {key: entry[key] for key in ("title", "licence", "sha256")}, documents


def build_corpus(config: Corpus, sources: Path, destination: Path) -> dict:
    """Write train.jsonl, validation.jsonl, test.jsonl and card.json, and return the card.

    Args:
        config: section `corpus` of params.yaml.
        sources: the folder in which `fetch` made one folder a source.
        destination: appears, or is replaced, only when everything is written.

    Raises:
        UserError: a source or the own folder is missing, empty or damaged; too few works to split.
    """
    skipped: Counter = Counter()
    origins, documents = {}, []
    for name in config.sources:
        origins[name], read = _read_source(name, sources, config, skipped)
        documents += read
    if config.folder is not None:
        origin = Document("", "own", "und", "", "", "folder", "your own", "")
        own = list(_read_files(Path(config.folder), origin, config, skipped))
        if not any(document.text.strip() for document in own):
            raise UserError(
                f"{config.folder}: expected text in {', '.join(EXTENSIONS)} files, found none"
            )
        documents += own
        skipped += _unread(Path(config.folder))
    if config.dataset is not None:
        origin = Document(
            "", "dataset", "und", "", "", config.dataset.path, "the data set's own", ""
        )
        streamed = list(_read_rows(columns.dataset_rows(config.dataset), origin, config, skipped))
        if not any(document.text.strip() for document in streamed):
            raise UserError(
                f"corpus.dataset: {config.dataset.path}: "
                "expected text within its limits, found none"
            )
        documents += streamed
    full = [_identified(document) for document in documents if document.text.strip()]
    skipped["empty"] += len(documents) - len(full)
    kept, removed = remove_duplicates(full, config.near_duplicate)
    domains = sorted({document.domain for document in kept})
    split: dict[str, str] = {}
    for domain in domains:
        split |= split_of([document for document in kept if document.domain == domain], config)
    card = {
        "domains": {
            domain: _counts([d for d in kept if d.domain == domain], split) for domain in domains
        },
        "duplicates": dict(removed),
        "skipped": {reason: count for reason, count in sorted(skipped.items()) if count},
        "sources": origins,
        "fingerprint": files.sha256_json(sorted(split.items())),
    }
    with files.folder_atomic(destination) as folder:
        for name in SPLITS:
            chosen = sorted(
                (d for d in kept if split[d.id] == name), key=lambda d: (d.domain, d.id)
            )
            lines = (json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in chosen)
            files.write_atomic(folder / f"{name}.jsonl", "".join(lines))
        files.write_json(folder / "card.json", card)
    return card


def _counts(documents: Sequence[Document], split: Mapping[str, str]) -> dict[str, dict[str, int]]:
    counts = {name: Counter(documents=0, works=0, characters=0, bytes=0) for name in SPLITS}
    for document in documents:
        size = {"characters": len(document.text), "bytes": len(document.text.encode("utf-8"))}
        counts[split[document.id]].update(documents=1, **size)
    for name in SPLITS:
        counts[name]["works"] = len({d.group for d in documents if split[d.id] == name})
    return {name: dict(count) for name, count in counts.items()}


def each_document(folder: Path, split: str) -> Iterator[Document]:
    """Yield a split's documents by domain and id, holding only one.

    Raises:
        UserError: no such split, or the corpus is not built.
    """
    path = folder / f"{split}.jsonl"
    if split not in SPLITS or not path.is_file():
        raise UserError(
            f"{path}: expected the split's documents ({', '.join(SPLITS)}); "
            "`farcontext corpus` makes them"
        )
    with path.open("rb") as stream:  # Bytes are read, so that only \n ends a line.
        for number, line in enumerate(stream, 1):
            yield _document(line, f"{path}: line {number}")


def _document(line: bytes, where: str) -> Document:
    """Return a document of one line.

    Its domain names files, so it is held against NAME.
    """
    try:
        document = Document(**json.loads(line))
        plain = NAME.fullmatch(document.domain) is not None
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: expected a document: {one_line(error)}") from None
    if not plain:
        raise UserError(
            f"{where}: domain = {document.domain!r:.60}: expected letters, digits, _, - and ."
        )
    return document


def load_documents(folder: Path, split: str, domain: str | None = None) -> list[Document]:
    """Return a split's documents, in order of domain and id.

    It raises UserError as `each_document` does, and for an unknown domain.
    """
    documents = list(each_document(folder, split))
    found = sorted({document.domain for document in documents})
    if domain is not None and domain not in found:
        raise UserError(
            f"{folder / split}.jsonl: domain = {domain}: expected one of {', '.join(found)}"
        )
    return [document for document in documents if domain in (None, document.domain)]
