"""Strict reading, near-duplicates, leak-free splits, fingerprints."""

import gzip
import hashlib
import importlib
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcontext import files
from farcontext.app import pages
from farcontext.data import columns, corpus
from farcontext.data.config import Corpus
from farcontext.data.corpus import SPLITS, build_corpus, load_documents
from farcontext.data.documents import Document, remove_duplicates, shingles, split_of
from farcontext.files import UserError
from farcontext.schema import validate

WORDS = [a + b + c + d for a in "bcdfgk" for b in "aeiou" for c in "lr" for d in "aeo"]


def prose(seed: int, words: int = 300) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def config(**changes: object) -> Corpus:
    values = {"sources": ("plays",), "manuals": 10**6, "test_share": 0.2, "validation_share": 0.1}
    return Corpus(**{**values, "near_duplicate": 0.8, **changes})


def source_folder(sources: Path, name: str, reader: str, contents: dict[str, bytes]) -> Path:
    entry = {
        "reader": reader,
        "domain": name,
        "language": "en",
        "licence": "none",
        "title": name,
        "sha256": "0" * 64,
    }
    for path, data in contents.items():
        files.write_atomic(sources / name / path, data)
    files.write_json(sources / name / "source.json", {"name": name, **entry})
    return sources / name


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    plays = {f"p{i}.txt": prose(i).encode("utf-8") for i in range(10)}
    source_folder(tmp_path / "sources", "plays", "files", plays)
    return tmp_path / "sources"


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"ab\xc0\xafcd", 2),  # overlong
        (b"ab\xed\xa0\x80", 2),  # lone surrogate
        ("好".encode()[:2], 0),  # cut at the end of the file
        (b"x" * 70_000 + b"\xff", 70_000),
        ("hi".encode("utf-16"), 0),
        ("中文".encode("gb18030"), 0),
    ],
)
def test_bad_utf8_names_file_and_offset_or_is_skipped(
    data: bytes, offset: int, sources: Path, tmp_path: Path
) -> None:
    (sources / "plays" / "bad.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"bad\.txt: byte {offset}: expected UTF-8") as error:
        build_corpus(config(), sources, tmp_path / "out")
    one_line(error)
    assert not (tmp_path / "out").exists()
    card = build_corpus(config(skip_bad=True), sources, tmp_path / "out")
    assert card["skipped"] == {"unreadable": 1}
    assert sum(card["domains"]["plays"][split]["documents"] for split in SPLITS) == 10


def test_text_is_exact_but_for_one_byte_order_mark(sources: Path, tmp_path: Path) -> None:
    text = "\r\n a\x00b\u2028c\x85d\x0be\ufefff " + prose(77) + "\n\n"
    (sources / "plays" / "odd.txt").write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
    build_corpus(config(), sources, tmp_path / "out")
    found = [
        d for split in SPLITS for d in load_documents(tmp_path / "out", split) if d.title == "odd"
    ]
    assert [d.text for d in found] == [text]
    assert found[0].id == hashlib.sha256(text.encode("utf-8")).hexdigest()


@pytest.mark.parametrize("made", [None, {}, {"a.txt": b"", "b.md": b" \r\n"}, {"a.pdf": b"text"}])
def test_nothing_to_read_names_folder_and_extensions(
    made: dict | None, sources: Path, tmp_path: Path
) -> None:
    own = tmp_path / "mine"
    for name, data in (made or {}).items():
        files.write_atomic(own / name, data)
    if made == {}:
        own.mkdir()
    with pytest.raises(
        UserError, match=r"mine: expected .*\.txt, \.md, \.jsonl, \.parquet"
    ) as error:
        build_corpus(config(folder=str(own)), sources, tmp_path / "out")
    one_line(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2, column"),
        ('{"text": "a",}', "line 2, column"),
        ('{"text": "a"} {"text": "b"}', "line 2, column"),
        ("", "line 2, column 1"),
        ('{"text": NaN}', "line 2: expected JSON, found NaN"),
        ("[1]", "line 2: expected one JSON object, found list"),
        ('{"body": "a", "n": 1}', 'line 2: columns body, n: expected a string column "text"'),
        ('{"text": 7}', 'line 2: columns text: expected a string column "text"'),
        ('{"text": "a\\ud800"}', "line 2: text, character 1: expected no lone surrogate"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_bad_json_line_names_its_place_or_is_counted(
    line: str, message: str, sources: Path, tmp_path: Path
) -> None:
    lines = [json.dumps({"text": prose(40 + i)}) for i in range(5)]
    files.write_atomic(tmp_path / "own" / "d.jsonl", "\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(UserError, match=r"d\.jsonl: ") as error:
        build_corpus(config(folder=str(tmp_path / "own")), sources, tmp_path / "out")
    assert message in one_line(error)
    card = build_corpus(
        config(folder=str(tmp_path / "own"), skip_bad=True), sources, tmp_path / "out"
    )
    assert card["skipped"] == {"bad JSON line": 1}
    assert sum(count["documents"] for count in card["domains"]["own"].values()) == 5


def test_only_a_newline_ends_a_json_line(sources: Path, tmp_path: Path) -> None:
    texts = [prose(60 + i) + "\u2028\x85 a\nb" for i in range(4)]
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\r\n" for text in texts)
    files.write_atomic(tmp_path / "own" / "d.jsonl", "".join(lines))
    build_corpus(config(folder=str(tmp_path / "own")), sources, tmp_path / "out")
    found = [
        d.text
        for split in SPLITS
        for d in load_documents(tmp_path / "out", split)
        if d.domain == "own"
    ]
    assert sorted(found) == sorted(texts)


def test_pipes_links_and_loops_do_not_stop_the_reader(sources: Path, tmp_path: Path) -> None:
    folder = sources / "plays"
    os.mkfifo(folder / "pipe.txt")
    (folder / "broken.txt").symlink_to(tmp_path / "nowhere")
    (folder / "loop").symlink_to(folder)
    card = build_corpus(config(), sources, tmp_path / "out")
    assert card["skipped"] == {"not a regular file": 2}
    assert sum(count["documents"] for count in card["domains"]["plays"].values()) == 10


def test_a_file_too_large_is_refused_unread(sources: Path, tmp_path: Path) -> None:
    with (sources / "plays" / "big.txt").open("wb") as stream:
        stream.truncate(corpus.MAX_BYTES + 1)  # sparse
    with pytest.raises(UserError, match=r"big\.txt: .*expected at most"):
        build_corpus(config(), sources, tmp_path / "out")


def test_a_source_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plays/source\.json: expected a file here"):
        build_corpus(config(), tmp_path, tmp_path / "out")


def test_chapters_are_split_in_runs(tmp_path: Path) -> None:
    chapters = [f"第{i}回 {prose(i, 80)}\n正文" for i in range(60)]
    data = json.dumps(chapters, ensure_ascii=False).encode("utf-8")
    source_folder(tmp_path / "s", "novel", "chapters", {"deep/novel.json": data})
    build_corpus(config(sources=("novel",)), tmp_path / "s", tmp_path / "out")
    for split, runs in (("test", 1), ("validation", 1), ("train", 4)):
        numbers = sorted(chapters.index(d.text) for d in load_documents(tmp_path / "out", split))
        assert len(numbers) == 10 * runs
        assert Counter(n // 10 for n in numbers) == {n // 10: 10 for n in numbers}


def write_manuals(sources: Path, names: list[str]) -> None:
    """Write services of which `a` and `a-x` are one family."""
    contents = {}
    for seed, name in enumerate(names):
        metadata = {"serviceFullName": f"Service {name}", "endpointPrefix": name}
        described = {
            "metadata": metadata,
            "documentation": prose(seed),
            "operations": {},
            "shapes": {},
        }
        data = gzip.compress(json.dumps(described).encode())
        contents[f"data/{name}/2020-01-01/service-2.json.gz"] = data
    source_folder(sources, "manuals", "manuals", contents)


def test_a_family_of_manuals_is_one_work(tmp_path: Path) -> None:
    write_manuals(tmp_path / "s", [f"s{i}{end}" for i in range(12) for end in ("", "-x")])
    card = build_corpus(config(sources=("manuals",)), tmp_path / "s", tmp_path / "out")
    counts = card["domains"]["manuals"]
    assert sum(count["works"] for count in counts.values()) == 12
    assert all(count["documents"] == 2 * count["works"] for count in counts.values())


def test_too_small_a_budget_is_one_line(tmp_path: Path) -> None:
    write_manuals(tmp_path / "s", ["a"])
    with pytest.raises(UserError, match=r"expected documents, found none \(corpus\.manuals = 3\)"):
        build_corpus(config(sources=("manuals",), manuals=3), tmp_path / "s", tmp_path / "out")


def test_one_s_own_folder_alone_is_a_corpus_and_nothing_at_all_is_refused(tmp_path: Path) -> None:
    for i in range(6):
        files.write_atomic(tmp_path / "own" / f"{i}.txt", prose(i))
    section = config(sources=(), folder=str(tmp_path / "own")).model_dump(mode="json")
    card = build_corpus(validate(Corpus, section, "corpus"), tmp_path / "none", tmp_path / "out")
    assert list(card["domains"]) == ["own"] and card["sources"] == {}
    with pytest.raises(
        UserError, match=r"corpus: sources = \[\], folder = null: expected"
    ) as error:
        validate(Corpus, section | {"folder": None}, "corpus")
    one_line(error)


def write_parquet(path: Path, **columns: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def texts_of(folder: Path, domain: str) -> list[str]:
    return sorted(
        d.text for split in SPLITS for d in load_documents(folder, split) if d.domain == domain
    )


def test_parquet_files_of_one_s_own_are_documents_a_row_each(sources: Path, tmp_path: Path) -> None:
    texts = [prose(60 + i) + "\u2028 a\nb\r" for i in range(600)]  # more than a batch
    write_parquet(tmp_path / "own" / "a.parquet", n=list(range(600)), text=texts)
    card = build_corpus(config(folder=str(tmp_path / "own")), sources, tmp_path / "out")
    assert texts_of(tmp_path / "out", "own") == sorted(texts) and card["skipped"] == {}
    titles = {
        d.title
        for split in SPLITS
        for d in load_documents(tmp_path / "out", split)
        if d.domain == "own"
    }
    assert titles == {f"a:{number}" for number in range(1, 601)}


@pytest.mark.parametrize(
    ("columns_", "message"),
    [
        ({"body": ["a"]}, 'a.parquet: columns body: expected a column "text"'),
        ({"text": ["a", None]}, "a:2: expected text, found NoneType"),
        ({"text": [1]}, "a:1: expected text, found int"),
        (None, "a.parquet: expected a .parquet file"),
    ],
)
def test_a_bad_parquet_file_is_one_line(
    columns_: dict | None, message: str, sources: Path, tmp_path: Path
) -> None:
    if columns_ is None:
        files.write_atomic(tmp_path / "own" / "a.parquet", b"PAR1 but not really")
    else:
        write_parquet(tmp_path / "own" / "a.parquet", **columns_)
    with pytest.raises(UserError) as error:
        build_corpus(config(folder=str(tmp_path / "own")), sources, tmp_path / "out")
    assert message in one_line(error)
    assert not (tmp_path / "out").exists()


def test_rows_without_text_are_counted_when_bad_ones_are_skipped(
    sources: Path, tmp_path: Path
) -> None:
    texts = [prose(40 + i) for i in range(5)]
    write_parquet(tmp_path / "own" / "a.parquet", text=[*texts[:2], None, *texts[2:], None])
    card = build_corpus(
        config(folder=str(tmp_path / "own"), skip_bad=True), sources, tmp_path / "out"
    )
    assert card["skipped"] == {"row without text": 2} and texts_of(
        tmp_path / "out", "own"
    ) == sorted(texts)


# ---------------------------------------------------------------------------------------- data sets


def dataset(tmp_path: Path, **changes: object) -> Corpus:
    """Return a corpus of one data set, two local .parquet files.

    `datasets` reads it as it reads any other, streaming.
    """
    section = {
        "path": "parquet",
        "files": [str(tmp_path / "set" / "*.parquet")],
        "column": "body",
        **changes,
    }
    return validate(Corpus, config().model_dump() | {"sources": [], "dataset": section}, "corpus")


@pytest.fixture
def bodies(tmp_path: Path) -> list[str]:
    texts = [prose(100 + i) for i in range(40)]
    write_parquet(tmp_path / "set" / "0.parquet", body=texts[:20], n=list(range(20)))
    write_parquet(tmp_path / "set" / "1.parquet", body=texts[20:], n=list(range(20)))
    return texts


def test_a_hugging_face_data_set_is_a_corpus_by_one_parameter(
    bodies: list[str], tmp_path: Path
) -> None:
    card = build_corpus(dataset(tmp_path), tmp_path, tmp_path / "out")
    assert list(card["domains"]) == ["dataset"] and texts_of(tmp_path / "out", "dataset") == sorted(
        bodies
    )
    # by its path, as a name on the hub
    folder = dataset(tmp_path, path=str(tmp_path / "set"), files=())
    assert build_corpus(folder, tmp_path, tmp_path / "again")["fingerprint"] == card["fingerprint"]


@pytest.mark.parametrize("limit", [{"documents": 7}, {"characters": 7}])
def test_a_data_set_is_read_up_to_its_limit_and_no_further(
    limit: dict, bodies: list[str], tmp_path: Path
) -> None:
    if "characters" in limit:
        limit = {"characters": sum(map(len, bodies[:8])) - 1}
    read, rows = [], columns.dataset_rows(dataset(tmp_path, **limit).dataset)
    library = importlib.import_module("datasets").IterableDataset
    plain = library.__iter__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            library, "__iter__", lambda rows: (read.append(row) or row for row in plain(rows))
        )
        assert [text for _, text in rows] == bodies[:7]
    assert len(read) <= 8  # streamed: what lies behind the limit is not asked for


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "dev"}, "parquet: ValueError: Bad split: dev"),
        ({"files": ["nowhere/*.parquet"]}, "corpus.dataset: parquet: "),
        ({"column": "text"}, "column = text: expected one of body, n"),
        ({"column": "n"}, "parquet:1: expected text, found int"),
        (
            {"characters": 10},
            "corpus.dataset: parquet: expected text within its limits, found none",
        ),
        ({"path": "./nowhere", "files": ()}, "corpus.dataset: ./nowhere: "),
    ],
)
def test_a_data_set_that_cannot_be_read_is_one_line(
    changes: dict, message: str, bodies: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        build_corpus(dataset(tmp_path, **changes), tmp_path, tmp_path / "out")
    assert message in one_line(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "what"), [("pyarrow.parquet", "a.parquet"), ("datasets", "corpus.dataset: x")]
)
def test_a_missing_library_is_one_line(name: str, what: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=f"{what}: expected the package .* pip install {name[:7]}"):
        columns.library(name, what)


# ---------------------------------------------------------------------------- duplicates and splits


def changed(text: str, share: float, seed: int) -> str:
    words, rng = text.split(), random.Random(seed)
    for place in rng.sample(range(len(words)), round(share * len(words))):
        words[place] = "other"
    return " ".join(words)


def test_duplicates_are_removed_and_counted(sources: Path, tmp_path: Path) -> None:
    before = build_corpus(config(), sources, tmp_path / "before")
    for i in range(4):
        files.write_atomic(sources / "plays" / f"copy{i}.txt", prose(i).encode())
        files.write_atomic(sources / "plays" / f"near{i}.txt", changed(prose(i), 0.01, i).encode())
    card = build_corpus(config(), sources, tmp_path / "out")
    assert before["duplicates"] == {"exact": 0, "near": 0}
    assert card["duplicates"] == {"exact": 4, "near": 4}
    loose = build_corpus(config(near_duplicate=0.999), sources, tmp_path / "loose")
    assert loose["duplicates"] == {"exact": 4, "near": 0}  # it is the threshold that removes them


def test_near_duplicates_are_found_in_chinese() -> None:
    rng = random.Random(0)
    text = "".join(chr(0x4E00 + rng.randrange(2000)) for _ in range(600))
    documents = [
        Document("", "d", "zh", "", "", "s", "", t)
        for t in (text, text[:300] + "好" + text[301:], text[::-1])
    ]
    kept, removed = remove_duplicates([corpus._identified(d) for d in documents], 0.8)
    assert removed == {"exact": 0, "near": 1} and len(kept) == 2


def documents_of(groups: list[int], seed: int = 0) -> list[Document]:
    made = [
        Document("", "d", "en", "", f"g{group}", "s", "", f"{seed} {group} {number}")
        for group, size in enumerate(groups)
        for number in range(size)
    ]
    return [corpus._identified(document) for document in made]


@given(st.lists(st.integers(1, 4), min_size=4, max_size=40), st.integers(0, 9), st.randoms())
@settings(max_examples=60, deadline=None)
def test_a_new_work_moves_at_most_two_others(
    groups: list[int], seed: int, rng: random.Random
) -> None:
    documents = documents_of(groups, seed)
    split = split_of(documents, config())
    assert set(split.values()) == set(SPLITS) and len(split) == len(documents)
    more = [
        *documents,
        corpus._identified(Document("", "d", "en", "", "new", "s", "", f"new {seed}")),
    ]
    rng.shuffle(more)
    after = split_of(more, config())
    group_of = {document.id: document.group for document in documents}
    for of in (split, after):
        home: dict[str, set[str]] = {}
        for document in documents:
            home.setdefault(document.group, set()).add(of[document.id])
        assert all(len(splits) == 1 for splits in home.values())
    assert len({group_of[i] for i in split if after[i] != split[i]}) <= 2


def test_too_few_works_is_one_line(tmp_path: Path) -> None:
    source_folder(
        tmp_path / "s", "plays", "files", {f"{i}.txt": prose(i).encode() for i in range(2)}
    )
    with pytest.raises(
        UserError, match=r"domain plays: 2 independent works.*expected at least one for each split"
    ):
        build_corpus(config(), tmp_path / "s", tmp_path / "out")


# --------------------------------------------------------------------------- fingerprints and cards


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fingerprint_ignores_order_times_and_names(tmp_path: Path) -> None:
    texts = {f"n{i}.txt": prose(i).encode() for i in range(10)}
    fingerprints, splits = set(), []
    for run, order in enumerate((list(texts), list(texts)[::-1])):
        base = tmp_path / f"run{run}"
        source_folder(base / "s", "plays", "files", {})
        for place, name in enumerate(order):
            path = (
                base
                / "s"
                / "plays"
                / ("" if run else "deeper")
                / (f"{place}-{name}" if run else name)
            )
            files.write_atomic(path, texts[name])
            os.utime(path, (place * 1000, place * 1000))
        fingerprints.add(build_corpus(config(), base / "s", base / "out")["fingerprint"])
        splits.append({s: [d.text for d in load_documents(base / "out", s)] for s in SPLITS})
    assert len(fingerprints) == 1 and splits[0] == splits[1]


def test_fingerprint_follows_text_and_split(sources: Path, tmp_path: Path) -> None:
    first = build_corpus(config(), sources, tmp_path / "a")
    assert build_corpus(config(), sources, tmp_path / "b") == first
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    other_split = build_corpus(config(test_share=0.4), sources, tmp_path / "c")
    (sources / "plays" / "p3.txt").write_bytes(prose(3).encode() + b".")
    other_text = build_corpus(config(), sources, tmp_path / "d")
    assert len({card["fingerprint"] for card in (first, other_split, other_text)}) == 3


def test_card_counts_what_is_written(sources: Path, tmp_path: Path) -> None:
    (sources / "plays" / "zh.txt").write_text("三国" + prose(50), encoding="utf-8")
    card = build_corpus(config(), sources, tmp_path / "out")
    assert files.read_json(tmp_path / "out" / "card.json") == card
    for split in SPLITS:
        found = load_documents(tmp_path / "out", split, "plays")
        assert card["domains"]["plays"][split] == {
            "documents": len(found),
            "works": len(found),
            "characters": sum(len(d.text) for d in found),
            "bytes": sum(len(d.text.encode("utf-8")) for d in found),
        }
    rendered = pages.data_card(card)
    assert "| plays | train |" in rendered and card["fingerprint"] in rendered


def test_unknown_split_or_domain_is_one_line(sources: Path, tmp_path: Path) -> None:
    build_corpus(config(), sources, tmp_path / "out")
    with pytest.raises(UserError, match="expected the split's documents"):
        load_documents(tmp_path / "out", "dev")
    with pytest.raises(UserError, match="domain = poems: expected one of plays"):
        load_documents(tmp_path / "out", "train", "poems")


# ---------------------------------------------------------------------------------- the real corpus


def test_real_corpus_leaks_nothing(corpus_folder: Path) -> None:
    documents = {split: load_documents(corpus_folder, split) for split in SPLITS}
    ids = [d.id for split in SPLITS for d in documents[split]]
    assert len(set(ids)) == len(ids)
    assert {d.domain for d in documents["train"]} == {"manuals", "plays", "sanguo"}
    for first in SPLITS:
        for second in SPLITS[: SPLITS.index(first)]:
            groups = [{(d.source, d.group) for d in documents[split]} for split in (first, second)]
            assert not groups[0] & groups[1]
    seen = {
        d.id: shingles(d.text) for split in SPLITS for d in documents[split] if d.domain != "sanguo"
    }
    for held_out in (d for d in documents["test"] if d.id in seen):
        for other in (d for d in documents["train"] if d.domain == held_out.domain):
            mine, theirs = seen[held_out.id], seen[other.id]
            both = len(np.intersect1d(mine, theirs, assume_unique=True))
            assert both <= 0.8 * (len(mine) + len(theirs) - both), (held_out.title, other.title)


def test_readme_shows_the_real_card(corpus_folder: Path, root: Path) -> None:
    page = (root / "data" / "README.md").read_text(encoding="utf-8")
    shown = page.split("<!-- corpus:begin -->")[1].split("<!-- corpus:end -->")[0].strip()
    assert shown == pages.data_card(files.read_json(corpus_folder / "card.json")).strip()
