"""API manuals: JSON descriptions of services as readable text.

The module also finds which services belong together.
"""

import gzip
import hashlib
import html
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farcontext import files
from farcontext.files import MAX_BYTES, UserError
from farcontext.messages import one_line

# One family may hold this share of the budget: a larger one would be most of a split.
FAMILY_SHARE = 0.02


@dataclass(frozen=True)
class Manual:
    """One service's manual.

    Families share paragraphs, so a family is one work.
    """

    family: str
    title: str
    text: str


def read_manuals(folder: Path, budget: int) -> Iterator[Manual]:
    """Yield manuals of whole families, within a budget of characters.

    Families come in the order of their hashes.

    A family that no longer fits is left out, and so is one above FAMILY_SHARE of the budget. The
    newest version of each service is taken.

    Raises:
        UserError: a description is larger than MAX_BYTES.
    """
    services = {path.parent.parent.name: path for path in sorted(folder.rglob("service-2.json.gz"))}
    services = {name: _read_service(path) for name, path in services.items()}
    families: dict[str, list[Manual]] = {}
    for name, family in families_of(services).items():
        title = services[name]["metadata"]["serviceFullName"]
        families.setdefault(family, []).append(Manual(family, title, manual(services[name])))
    left = budget
    for family in sorted(families.values(), key=_family_hash):
        characters = sum(len(member.text) for member in family)
        if characters <= min(left, FAMILY_SHARE * budget):
            left -= characters
            yield from family


def newer_manuals(folder: Path, since: str) -> list[str]:
    """Return the manuals of services that did not exist before a date.

    A service has a folder for each version of its API, named by date: the first one says when it
    came, and the last one is read. So no model that was trained before that date has read them.

    Args:
        folder: what the wheel was unpacked to.
        since: a date or its beginning, such as "2024-11".

    Raises:
        UserError: there is no such service, or a description is larger than MAX_BYTES.
    """
    versions: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("service-2.json.gz")):
        versions.setdefault(path.parent.parent.name, []).append(path)
    newer = [paths[-1] for paths in versions.values() if paths[0].parent.name >= since]
    if not newer:
        raise UserError(f"{folder}: expected services since {since} (dvc repro sources)")
    return [manual(_read_service(path)) for path in newer]


def _read_service(path: Path) -> dict[str, Any]:
    try:
        with gzip.open(path) as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UserError(f"{path}: expected at most {MAX_BYTES} bytes when unpacked")
        return json.loads(data)
    # gzip raises the first three, and JSON the last two.
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON in gzip: {one_line(error)}") from None


def _family_hash(family: Sequence[Manual]) -> str:
    return files.sha256_json(
        sorted(hashlib.sha256(one.text.encode("utf-8")).hexdigest() for one in family)
    )


def families_of(services: Mapping[str, Mapping]) -> dict[str, str]:
    """Return service → family.

    A family has the first service name of those linked by a first word or a signing name.
    """
    family = {name: name for name in services}
    links: dict[tuple[str, str], str] = {}
    for name in sorted(services):
        metadata = services[name]["metadata"]
        for link in (
            ("word", name.split("-")[0]),
            ("signs", metadata.get("signingName", metadata["endpointPrefix"])),
        ):
            old, new = sorted((family[name], links.setdefault(link, family[name])), reverse=True)
            family = {service: new if of == old else of for service, of in family.items()}
            links = {key: new if of == old else of for key, of in links.items()}
    return family


_BLOCK = re.compile(
    r"</?(?:p|ul|ol|dl|dt|dd|note|important|h\d|pre|table|tr|div|br|fullname)\b[^>]*>",
    re.IGNORECASE,
)
_ITEM = re.compile(r"<li\b[^>]*>\s*", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")
# The source escaped these tags; <name> is no tag.
_ESCAPED = re.compile(r"</?(?:a|b|code|i|li|p|ul)\b[^<>]*>")


def plain(markup: str) -> str:
    """Return documentation without its HTML.

    Blocks stand on lines of their own, and list items after "- ".
    """
    text = _ITEM.sub("\n- ", _BLOCK.sub("\n", " ".join(markup.split())))
    lines = (
        " ".join(line.split())
        for line in _ESCAPED.sub("", html.unescape(_TAG.sub("", text))).split("\n")
    )
    return re.sub(r"(?m)^-\n", "- ", "\n".join(line for line in lines if line))


def _type(shapes: Mapping, name: str) -> str:
    shape = shapes[name]
    match shape["type"]:
        case "list":
            return f"list of {shape['member']['shape']}"
        case "map":
            return f"map of {shape['key']['shape']} to {shape['value']['shape']}"
        case "structure":
            return name
        case kind:
            return kind


def _shape(shapes: Mapping, name: str) -> list[str]:
    """Return the lines of a shape.

    They are its values if it is an enumeration, then its members.
    """
    shape = shapes[name]
    lines = [f"One of: {', '.join(shape['enum'])}."] if shape.get("enum") else []
    for member, of in shape.get("members", {}).items():
        needed = ", required" if member in shape.get("required", ()) else ""
        about = plain(of.get("documentation") or shapes[of["shape"]].get("documentation") or "")
        lines.append(f"{member} ({_type(shapes, of['shape'])}{needed}): {about}".removesuffix(": "))
    return lines


def manual(service: Mapping[str, Any]) -> str:
    """Render a service's description as a manual.

    The manual says what the service is, then each operation, then each data type.
    """
    shapes = service["shapes"]
    lines = [
        service["metadata"]["serviceFullName"],
        "",
        plain(service.get("documentation", "")),
        "",
        "OPERATIONS",
    ]
    shown = set()
    for name, operation in service["operations"].items():
        lines += ["", name, plain(operation.get("documentation", ""))]
        for label, key in (("Request", "input"), ("Response", "output")):
            if key in operation:
                shown.add(operation[key]["shape"])
                lines += [f"{label}:", *_shape(shapes, operation[key]["shape"])]
        errors = ", ".join(error["shape"] for error in operation.get("errors", ()))
        lines += [f"Errors: {errors}."] if errors else []
    lines += ["", "DATA TYPES"]
    for name, shape in shapes.items():
        body = list(filter(None, [plain(shape.get("documentation", "")), *_shape(shapes, name)]))
        if name not in shown and body:
            lines += [
                "",
                name if shape["type"] == "structure" else f"{name} ({_type(shapes, name)})",
                *body,
            ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
