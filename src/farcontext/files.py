"""Everything kept on disk.

It holds the one atomic writer, hashes, locks, and folders. It is importable
without torch. A reader of any file that this module writes sees the old whole file or the new whole
one, at every instant, whatever kills the writer.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock

TEMPORARY = (
    ".partial-"  # Every unfinished file or folder has this prefix, and is swept at the next start.
)
MAX_BYTES = (
    256 << 20
)  # One file, wheel member or unpacked manual has at most so many: all are held in memory.
EXPERIMENTS = (".dvc", "tmp", "exps")  # DVC makes the copies of experiments below this folder.
SET_ASIDE = "-old"  # A folder that is being replaced has this suffix.


class UserError(Exception):
    """A foreseen end, told in one line, with an exit code.

    Its cause is the input, the disk, a lock or a signal; the code is the command's.
    """

    code = 2
    told = False  # It is True if another process of the same run says it.


def project() -> Path:
    """Return the project's root, the nearest folder above that holds dvc.yaml.

    Raises:
        UserError: no folder above holds one.
    """
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(
        f"{here}: expected a folder inside a farcontext checkout (no dvc.yaml here or above)"
    )


def profile() -> str:
    """Return the name of the profile.

    This process writes to its folder below build/. `farcontext study` sets FARCONTEXT_PROFILE from
    params.yaml; a notebook opened by hand runs its own defaults: smoke.
    """
    return os.environ.get("FARCONTEXT_PROFILE", "smoke")


def build(*parts: str) -> Path:
    """Return a path below build/<profile>/."""
    return project() / "build" / profile() / Path(*parts)


def cache() -> Path:
    """Return the run cache's folder: FARCONTEXT_CACHE, or .farcontext in the project.

    `dvc exp run --temp` works in a copy below the project's .dvc/tmp, which it throws away: its
    cache is that of the project.
    """
    if given := os.environ.get("FARCONTEXT_CACHE"):
        return Path(given)
    here = project()
    owners = (f.parents[2] for f in here.parents if f.parts[-3:] == EXPERIMENTS)
    return next(owners, here) / ".farcontext"


# ------------------------------------------------------------------------------------------ writing


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises into one line.

    The line names the path and the free bytes.
    """
    try:
        yield
    except OSError as error:
        try:
            free = f"{shutil.disk_usage(path.parent).free} bytes free"
        except OSError:
            free = "folder missing"
        raise UserError(f"{path}: cannot be written: {error.strerror or error} ({free})") from error


def write_atomic(path: Path | str, data: bytes | str) -> Path:
    """Write a file whole or not at all.

    Any reader, and any crash, sees the old whole content or the new whole content. It writes a
    temporary file in the same folder, then does fsync, rename, and fsync of the folder.

    Raises:
        UserError: the disk refused; the old file is intact and no temporary is left.
    """
    path = Path(path)
    payload = data.encode("utf-8") if isinstance(data, str) else data
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{path.name}-{os.getpid()}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                view = memoryview(payload)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync_folder(path.parent)
    return path


@contextmanager
def stream_atomic(path: Path | str) -> Iterator[BinaryIO]:
    """Open a file to be written piece by piece.

    As with `write_atomic`, it takes its name when it is whole.

    Raises:
        UserError: the disk refused; the old file is intact and no temporary is left.
    """
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{TEMPORARY}{path.name}-{os.getpid()}"
        try:
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync_folder(path.parent)


def write_json(path: Path | str, value: object) -> Path:
    """Write a value as JSON.

    Keys are sorted and one newline ends it: the same value always gives the same bytes.
    """
    return write_atomic(
        path,
        json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
    )


def read_json(path: Path | str, *keys: str) -> Any:
    """Read a JSON file, and require keys if some are given.

    Raises:
        UserError: no file that can be read, not JSON, or without a key.
    """
    try:
        value = json.loads(read_regular(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:  # Also a number of thousands of digits.
        raise UserError(f"{path}: expected JSON: {' '.join(str(error).split())}") from None
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise UserError(f"{path}: {key}: expected an object with this key")
    return value


def read_regular(path: Path | str, limit: int | None = None) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        UserError: nothing there, a folder, a pipe or a device (which might never end), a link to
            itself, no right to read it, or more than `limit` bytes.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: expected a regular file here")
        if limit is not None and status.st_size > limit:
            raise UserError(f"{path}: {status.st_size} bytes: expected at most {limit}")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: expected a file here") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


@contextmanager
def folder_atomic(path: Path | str) -> Iterator[Path]:
    """Fill a folder that appears only when it is complete.

    It has its final name only when the block ends without an error. An existing folder of that name
    is replaced. Write the files inside with `write_atomic`. Several processes may fill the same one
    at once: each succeeds, and the last to end stays.
    """
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{path.name}-", dir=path.parent))
    try:
        yield temporary
        with _disk_errors(path):
            temporary.chmod(0o777 & ~_umask())
            _fsync_folder(temporary)
            _put_in_place(temporary, path)
            _fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a folder; what stands there is set aside first.

    Others may do the same between any two steps.
    """
    discarded = temporary.with_name(temporary.name + SET_ASIDE)
    while True:
        try:
            temporary.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            break
        # It was set aside before; another has taken its place since.
        shutil.rmtree(discarded, ignore_errors=True)
        with suppress(FileNotFoundError):
            path.replace(discarded)
    shutil.rmtree(discarded, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sweep_leftovers(folder: Path) -> None:
    """Remove unfinished files and folders directly in a folder.

    A killed writer left them. Call it while holding the folder. One that was set aside for a
    successor which never came goes back to its place.
    """
    for leftover in folder.glob(f"{TEMPORARY}*"):
        target = (
            folder
            / leftover.name.removeprefix(TEMPORARY).removesuffix(SET_ASIDE).rpartition("-")[0]
        )
        if leftover.name.endswith(SET_ASIDE) and not target.exists():
            leftover.replace(target)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------- hashes


def sha256_file(path: Path | str) -> str:
    """Return a file's sha256 as 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Return the sha256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# -------------------------------------------------------------------------------------------- locks


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for one process.

    It is an flock: a dead holder never blocks.

    Raises:
        UserError: another process holds it; the line names folder, process and host.
    """
    with _disk_errors(folder / ".lock"):
        folder.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(folder / ".lock", timeout=0)
        owner = folder / ".owner.json"
        try:
            held.acquire()
        except filelock.Timeout:
            who = read_json(owner) if owner.exists() else {}
            raise UserError(
                f"{folder}: in use by process {who.get('pid', '?')} on {who.get('host', '?')}: "
                "expected no other run on this folder"
            ) from None
    try:
        write_json(owner, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        held.release()
