"""SECURITY.md's promise about the network: only what a command names opens a connection."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_project, task_run

CLIENTS = {
    "aiohttp",
    "datasets",
    "ftplib",
    "http",
    "httpx",
    "huggingface_hub",
    "pooch",
    "requests",
    "socketserver",
    "ssl",
    "urllib",
    "urllib3",
}
# They fetch what data/sources.yaml lists, and the data set that params.yaml names.
MAY = {"data/sources.py": {"pooch"}, "data/columns.py": {"datasets"}}
DRIVER = """
import json, sys
def refuse(event, given):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("NETWORK", event, given, flush=True)
        raise SystemExit(99)
sys.addaudithook(refuse)
from farcontext.app import cli
sys.argv = ["farcontext", *json.loads(sys.argv[1])]
cli.main()
"""


def clients(source: str) -> set[str]:
    """Return the network clients that a module imports, also late."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named |= {node.value} & {"datasets", "requests"}  # `importlib` takes a name as text.
    return named & CLIENTS


def test_only_what_fetches_imports_a_client(root: Path) -> None:
    package = root / "src" / "farcontext"
    known = {
        path.relative_to(package).as_posix(): clients(path.read_text(encoding="utf-8"))
        for path in package.rglob("*.py")
    }
    assert {name: used for name, used in known.items() if used} == MAY


@pytest.mark.parametrize(
    "source",
    ["import requests", "def f():\n    from urllib import request", "import http.client as h"],
)
def test_a_planted_client_is_seen(source: str) -> None:
    assert clients(source)


def offline(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(arguments)],
        cwd=folder,
        env=os.environ | {"FARCONTEXT_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_training_and_the_doctor_open_no_connection(tmp_path: Path) -> None:
    make_project(tmp_path)
    (tmp_path / "run.yaml").write_text(task_run().model_dump_json(), encoding="utf-8")
    done = offline(tmp_path, "train", "run.yaml")
    assert done.returncode == 0 and "NETWORK" not in done.stdout, done.stderr[-2000:]
    assert "loss" in done.stdout
    done = offline(tmp_path, "doctor")
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_hook_would_see_a_connection(tmp_path: Path) -> None:
    """The twin: a source by URL is fetched, so it is stopped."""
    make_project(tmp_path)
    entry = {
        "kind": "url",
        "url": "http://127.0.0.1:9/a.txt",
        "path": "a.txt",
        "sha256": "0" * 64,
        "domain": "x",
        "language": "en",
        "licence": "none",
        "title": "x",
        "reader": "files",
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sources.yaml").write_text(json.dumps({"x": entry}), encoding="utf-8")
    done = offline(tmp_path, "sources", "x")
    assert "NETWORK" in done.stdout, done.stderr[-2000:]
