"""Words from outside: whatever a name, a key or a text holds, it does not steer the terminal."""

import os
import subprocess
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observe import refuses

from farcontext import files
from farcontext.app import cli, profiles
from farcontext.app.verbs import Terminal
from farcontext.data import sources, tokenizer
from farcontext.data.config import Corpus
from farcontext.data.corpus import build_corpus, load_documents, read_text
from farcontext.messages import printable
from farcontext.results import tables
from farcontext.results.claims import read_claims
from farcontext.schema import parse_yaml, read_yaml
from farcontext.studies.params import read_params, read_profile
from farcontext.train import kept, keys
from farcontext.train.batches import Stream

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – 文字 ½", "plain – 文字 ½"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("x\x1b[31my", "x\\x1b[31my"),
        ("bell\x07 and c1\x9b31m", "bell\\x07 and c1\\x9b31m"),
        ("bad\udcff", "bad\\udcff"),
        ("right to left\u202e", "right to left\\u202e"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    screen = StringIO()
    Terminal(file=screen, highlight=False, markup=False, soft_wrap=True).print(text)
    assert screen.getvalue().rstrip("\n").split() == shown.split()


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(st.characters()))
def test_any_text_becomes_one_that_can_be_written(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert all(c in "\n\t" or c.isprintable() for c in shown)


@pytest.mark.parametrize(
    "text",
    [
        "? [a, b]\n: x\n",
        "null: 1\n",
        "2020-01-01: 1\n",
        "1.5: 1\n",
        "a:\n  - {3: 4}\n",
        "a: {true: 1}\n",
    ],
)
def test_a_key_that_is_no_text_is_one_line(text: str) -> None:
    with refuses("p.yaml: ") as caught:
        parse_yaml(text, "p.yaml")
    assert "text for a key" in str(caught.value) and "\n" not in str(caught.value)


def special(kind: str, path: Path) -> None:
    """Put something there that is no regular file that can be read."""
    match kind:
        case "folder":
            path.mkdir()
        case "link to itself":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "broken link":
            path.symlink_to(path.with_name("nowhere"))
        case "below a file":
            path.parent.rmdir()
            path.parent.write_text("a file", encoding="utf-8")


@pytest.mark.parametrize(
    "kind", ["folder", "link to itself", "pipe", "broken link", "below a file"]
)
@pytest.mark.parametrize("read", [read_yaml, files.read_json, files.read_regular])
def test_what_is_no_regular_file_is_one_line_and_never_waited_for(
    kind: str, read, tmp_path: Path
) -> None:
    path = tmp_path / "sub" / "params.yaml"
    path.parent.mkdir()
    special(kind, path)
    with refuses("params.yaml"):
        read(path)


def sources_entry(path: Path) -> object:
    return sources.fetch("plays", path, path.with_name("made"))


def doctored(path: Path) -> None:
    """Ask the doctor about a lock; what it says of a bad one is a line, as every reader's."""
    lock = path.rename(path.with_name("dvc.lock"))
    for line in profiles.diagnose(lock.parent):
        raise files.UserError(line.replace("dvc.lock", path.name))


def section(path: Path) -> object:
    """Read a profile over this checkout's params.yaml."""
    folder = path.with_name("profiles")
    folder.mkdir()
    path.rename(folder / path.name)
    (path.with_name("params.yaml")).write_bytes((ROOT / "params.yaml").read_bytes())
    return read_profile(path.parent, path.stem)


READERS = {
    "params.yaml": read_params,
    "a run file": read_yaml,
    "claims.yaml": read_claims,
    "sources.yaml": sources_entry,
    "a profile": section,
    "dvc.lock": doctored,
}
TEXT = "a: 1\nplays: {kind: wheel}\n"
BAD = {
    "UTF-16 with a mark": TEXT.encode("utf-16"),
    "UTF-16, little end first": TEXT.encode("utf-16-le"),
    "UTF-16, big end first": TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "Latin-1": "a: é\n".encode("latin-1"),
    "a key twice": b"a: 1\na: 2\n",
    "a key that is no text": b"1: 2\n",
    "a list": b"- a\n",
    "nothing": b"",
    "a number": b"7\n",
    "a number of 5,000 digits": b"a: " + b"9" * 5000 + b"\n",
    "a number of 30 digits": b"a: " + b"9" * 30 + b"\n",
    "a billion laughs": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "a merge of itself": b"a: &a\n  <<: *a\n",
    "a tag": b"a: !!python/object/apply:os.system [x]\n",
    "deep brackets": b"a: " + b"[" * 5000 + b"]" * 5000 + b"\n",
    "deep dashes": b"a:\n  " + b"- " * 5000 + b"x\n",
    "deep questions": b"? " * 5000 + b"x\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "no end": b"a: 'x\n",
    "a NUL": b"a: x\x00y\n",
    "more than a megabyte": b"# x\n" * (1 << 18) + b"a: 1\n",
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_yaml_refuses_in_one_line_that_names_the_file(
    reader: str, tmp_path: Path
) -> None:
    for number, data in enumerate(BAD.values()):
        path = tmp_path / str(number) / "given.yaml"
        path.parent.mkdir()
        path.write_bytes(data)
        with refuses("given.yaml") as caught:
            READERS[reader](path)
        assert "\n" not in str(caught.value) and "expected" in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"[]", b"3", b"null", b'"x"', b"{}", b'{"b": 1}', b"{", b"", b"\xff\xfe{\x00}\x00"]
)
def test_a_record_without_its_key_is_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(data)
    with refuses("card.json: ") as caught:
        files.read_json(path, "vocab_size")
    assert "expected" in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(b'{"vocab_size": 3}')
    assert files.read_json(path, "vocab_size") == {"vocab_size": 3}


@pytest.mark.parametrize("data", [b"[]", b"{}", b"{", b"7"])
def test_every_reader_of_a_record_names_the_file(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    readers = {
        "build/tokenizer/card.json": [
            keys.vocabulary_size,
            keys.corpus_fingerprint,
            lambda: tokenizer.vocabulary_size(tmp_path / "build" / "tokenizer"),
            lambda: Stream.load(tmp_path / "build" / "tokenizer", "train"),
        ],
        "result.json": [lambda: kept.read_sealed(tmp_path / "result.json")],
        "t.json": [lambda: tables.read_table(tmp_path / "t.csv")],
    }
    for name, calls in readers.items():
        files.write_atomic(tmp_path / name, data)
        for read in calls:
            with refuses(Path(name).name):
                read()


def test_a_device_is_never_read() -> None:
    with refuses("/dev/zero: expected a regular file here"):
        files.read_regular("/dev/zero")


def test_more_bytes_than_the_limit_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert files.read_regular(tmp_path / "x", 5) == b"12345"
    with refuses("5 bytes: expected at most 4"):
        files.read_regular(tmp_path / "x", 4)


def corpus_of(folder: Path) -> Corpus:
    config = {
        "sources": (),
        "folder": str(folder),
        "manuals": 1,
        "test_share": 0.2,
        "validation_share": 0.2,
    }
    return Corpus(**config, near_duplicate=0.8)


def write_texts(folder: Path) -> None:
    for number in range(8):
        words = " ".join(f"word{number}{i * 7 % 31}" for i in range(80))
        files.write_atomic(folder / f"{number}.txt", words)


def test_a_file_whose_name_is_no_utf_8_is_read_under_an_escaped_name(tmp_path: Path) -> None:
    write_texts(tmp_path / "own")
    bad = os.fsencode(tmp_path / "own") + b"/bad\xff.txt"
    with open(bad, "wb") as file:  # noqa: PTH123 (a Path holds no such name as bytes)
        file.write(b"quite another text " * 40)
    build_corpus(corpus_of(tmp_path / "own"), tmp_path / "sources", tmp_path / "corpus")
    titles = [
        d.title
        for split in ("train", "validation", "test")
        for d in load_documents(tmp_path / "corpus", split)
    ]
    assert "bad\\udcff" in titles and len(titles) == 9


def test_what_is_not_read_of_the_own_folder_is_counted(tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_texts(own)
    write_texts(tmp_path / "real")
    (own / "linked").symlink_to(tmp_path / "real")
    for name in ("note.text", "a.csv", "b.CSV", "c.json.gz", "README", "deep/x.html", "x.\udcff"):
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_text("quite another text", encoding="utf-8")
    card = build_corpus(corpus_of(own), tmp_path / "sources", tmp_path / "corpus")
    endings = {".text": 1, ".csv": 2, ".gz": 1, ".html": 1, ".\\udcff": 1}
    assert card["skipped"] == {f"ending {name}": count for name, count in endings.items()} | {
        "linked folder": 1,
        "no ending": 1,
    }
    assert files.read_json(tmp_path / "corpus" / "card.json") == card


@pytest.mark.parametrize("text", ["plain words of a text. " * 9, "Ключ лежит в башне. " * 9])
@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_text_in_utf_16_without_a_mark_is_refused_not_read_as_utf_8(
    text: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode(name))
    with refuses("text.txt: ") as caught:
        read_text(path)
    assert "expected UTF-8" in str(caught.value)
    path.write_text(text + "\x00\x1b[0m", encoding="utf-8")
    assert read_text(path) == text + "\x00\x1b[0m"


def test_a_number_of_thousands_of_digits_in_a_line_of_json_is_one_line(tmp_path: Path) -> None:
    write_texts(tmp_path / "own")
    line = '{"text": "a b c", "n": ' + "9" * 5000 + "}\n"
    files.write_atomic(tmp_path / "own" / "a.jsonl", line)
    with refuses("a.jsonl: line 1: expected one JSON object that Python can hold"):
        build_corpus(corpus_of(tmp_path / "own"), tmp_path / "sources", tmp_path / "corpus")


def test_the_command_line_escapes_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("", encoding="utf-8")
    (tmp_path / "x\x1b[31my").mkdir()
    command = [sys.executable, "-m", "farcontext", "probe", "x\x1b[31my", "--rope-only"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
    assert done.returncode == 2 and b"\x1b" not in done.stdout + done.stderr
    assert b"\\x1b[31my" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_warning_of_the_command_line_is_one_escaped_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["farcontext", "--help"])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit):
        cli.main()
    capsys.readouterr()
    shown = warnings.formatwarning("a\n\x1b[31mb", UserWarning, "file.py", 1, "line")
    assert shown == "farcontext: a \\x1b[31mb\n"
