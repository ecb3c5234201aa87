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
from farcontext.app import cli
from farcontext.app.verbs import Terminal
from farcontext.data.config import Corpus
from farcontext.data.corpus import build_corpus, load_documents
from farcontext.messages import printable
from farcontext.schema import parse_yaml, read_yaml


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
