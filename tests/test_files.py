"""The one writer makes files, and folders that appear whole.

The tests hold locks, hashes, and code fingerprints that prose leaves alone.
"""

import os
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from observe import leftovers, refuses

from farcontext import files
from farcontext.files import UserError


def test_writing_replaces_the_whole_content_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    files.write_atomic(path, "old" * 1000)
    files.write_atomic(path, "新")
    assert path.read_bytes() == "新".encode()
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_written_file_has_the_mode_that_the_umask_allows(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            files.write_atomic(tmp_path / "a", "x")
            with files.folder_atomic(tmp_path / "d"):
                pass
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
        assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == mode | 0o111 & ~mask


def test_a_refusing_disk_is_one_line_with_the_path_and_the_old_file_stays(tmp_path: Path) -> None:
    """A file size limit below the content (RLIMIT_FSIZE), in a child."""
    files.write_atomic(tmp_path / "kept", "old")
    program = f"""
        import resource, signal
        from farcontext import files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            files.write_atomic({str(tmp_path / "kept")!r}, b"x" * 5000)
        except files.UserError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "kept") in done.stdout and "bytes free" in done.stdout
    assert (tmp_path / "kept").read_text(encoding="utf-8") == "old"
    assert not leftovers(tmp_path)


def test_a_path_below_a_file_is_refused_in_words(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "file", "x")
    with refuses("cannot be written"):
        files.write_atomic(tmp_path / "file" / "below", "x")


def test_json_is_the_same_bytes_for_the_same_value_and_refuses_nan(tmp_path: Path) -> None:
    one = files.write_json(tmp_path / "1", {"b": [1.5, None], "a": "长"}).read_bytes()
    two = files.write_json(tmp_path / "2", {"a": "长", "b": [1.5, None]}).read_bytes()
    assert one == two and files.read_json(tmp_path / "1") == {"a": "长", "b": [1.5, None]}
    assert (
        files.sha256_json({"b": 1, "a": 2})
        == files.sha256_json({"a": 2, "b": 1})
        != files.sha256_json({"a": 2})
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "3", float("nan"))
    assert not (tmp_path / "3").exists()


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_reading_what_is_not_json_names_the_path(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with refuses(f"{tmp_path / 'x.json'}: expected"):
        files.read_json(tmp_path / "x.json")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with pytest.raises(RuntimeError), files.folder_atomic(target) as folder:
        files.write_atomic(folder / "a", "1")
        raise RuntimeError
    assert not target.exists() and not leftovers(tmp_path)
    with files.folder_atomic(target) as folder:
        files.write_atomic(folder / "a", "1")
        assert not target.exists()
    with pytest.raises(RuntimeError), files.folder_atomic(target) as folder:
        raise RuntimeError
    assert (target / "a").read_text(encoding="utf-8") == "1"
    with files.folder_atomic(target) as folder:
        files.write_atomic(folder / "b", "2")
    assert [p.name for p in target.iterdir()] == ["b"] and not leftovers(tmp_path)


def test_processes_that_fill_one_folder_at_once_all_succeed(tmp_path: Path) -> None:
    program = f"""
        from farcontext import files
        for number in range(150):
            with files.folder_atomic({str(tmp_path / "made")!r}) as folder:
                (folder / "a").touch()
                (folder / "b").touch()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    children = [subprocess.Popen(command) for _ in range(3)]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["a", "b"]


def test_leftovers_are_swept_and_a_folder_set_aside_goes_back(tmp_path: Path) -> None:
    (tmp_path / f"{files.TEMPORARY}a.txt-123").write_text("half", encoding="utf-8")
    (tmp_path / f"{files.TEMPORARY}step-00000005-abc_1234").mkdir()
    aside = tmp_path / f"{files.TEMPORARY}step-00000005-abc_1234{files.SET_ASIDE}"
    aside.mkdir()
    (aside / "weights").write_text("old", encoding="utf-8")
    files.sweep_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]
    assert (tmp_path / "step-00000005" / "weights").read_text(encoding="utf-8") == "old"
    aside.mkdir()
    files.sweep_leftovers(tmp_path)  # its successor is there: the old one goes
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


def test_a_lock_is_refused_to_the_second_and_free_after_the_first(tmp_path: Path) -> None:
    with files.lock(tmp_path / "run"):
        program = (
            "from farcontext import files\nfrom pathlib import Path\n"
            f"with files.lock(Path({str(tmp_path / 'run')!r})): pass"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert f"process {os.getpid()} on {socket.gethostname()}" in done.stderr
    with files.lock(tmp_path / "run"):
        pass


def test_the_project_is_found_from_below_and_missed_from_outside(
    tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "p" / "a" / "b").mkdir(parents=True)
    (tmp_path / "p" / "dvc.yaml").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "p" / "a" / "b")
    assert files.project() == (tmp_path / "p").resolve()
    monkeypatch.setenv("FARCONTEXT_PROFILE", "laptop")
    assert files.build("studies") == (tmp_path / "p" / "build" / "laptop" / "studies").resolve()
    monkeypatch.delenv("FARCONTEXT_CACHE", raising=False)
    assert files.cache() == (tmp_path / "p" / ".farcontext").resolve()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no dvc\.yaml"):
        files.project()
