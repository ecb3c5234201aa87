"""Folders of the Hugging Face hub's cache, and their repositories.

    models--ORG--NAME/
        refs/main                  the hash of the newest snapshot
        snapshots/HASH/            the files, as links to blobs

Nothing is fetched.
"""

from pathlib import Path

from farcontext.files import UserError, read_regular

PREFIX = "models--"


def resolved(path: Path) -> Path:
    """Return the snapshot of a cached repository's folder.

    Any other path comes back as it is.

    Raises:
        UserError: a cached repository without a whole snapshot.
    """
    if not path.name.startswith(PREFIX) or not (path / "snapshots").is_dir():
        return path
    found = sorted(p for p in (path / "snapshots").iterdir() if (p / "config.json").is_file())
    main = path / "refs" / "main"
    if main.is_file():
        commit = read_regular(main, 200).decode("ascii", "replace").strip()
        if chosen := [p for p in found if p.name == commit]:
            return chosen[0]
    if len(found) != 1:
        hashes = ", ".join(p.name[:12] for p in found) or "none"
        raise UserError(
            f"{path}: expected one snapshot with config.json, or refs/main to name it; found "
            f"{hashes}"
        )
    return found[0]


def name_of(path: Path) -> str:
    """Return the name of a checkpoint's folder.

    It is ORG/NAME for a snapshot of the hub's cache.
    """
    whole = path.absolute()
    repository = whole.parent.parent.name
    if whole.parent.name == "snapshots" and repository.startswith(PREFIX):
        return repository.removeprefix(PREFIX).replace("--", "/", 1)
    return path.resolve().name
