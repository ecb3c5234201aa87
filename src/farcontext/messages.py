"""The words for what is wrong with a configuration.

One line has the key, its value, what is expected, and what was perhaps meant. The module is
importable without torch. pydantic finds the problems; the words are ours, from each model's JSON
schema.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def one_line(message: object) -> str:
    """Return a message on one line, its spaces single."""
    return " ".join(str(message).split())


def printable(text: str) -> str:
    """Return a text that cannot steer a terminal.

    Control characters, but for new lines and tabs, and bytes that were no UTF-8 are shown as
    escapes.
    """
    return "".join(
        c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that are allowed at a place of the tree.

    Keys of a mapping and indices only lead on.
    """
    for part in location:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        nested = [
            t for t in (inner, *get_args(inner)) if isinstance(t, type) and issubclass(t, BaseModel)
        ]
        model = nested[0] if nested else model
    return list(model.model_fields)


def _given_at(value: Any, location: tuple[str | int, ...]) -> set[str]:
    """Return the keys that a document gives at one place."""
    for part in location:
        value = value[part]
    return set(map(str, value))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the nearest known name.

    It is empty when none is near.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else ""


def _unknown_key(location: tuple[str | int, ...], model: type[BaseModel], value: Any) -> str:
    """Say what is expected in place of an unknown key.

    A key that is given already is never suggested.
    """
    *parent, key = location
    known = _fields_at(model, tuple(parent))
    absent = [name for name in known if name not in _given_at(value, tuple(parent))]
    return f"one of {', '.join(known)}{did_you_mean(str(key), absent or known)}"


def problems(error: ValidationError, model: type[BaseModel], value: Any) -> Iterator[str]:
    """Yield the problems in words, unknown keys first.

    A misspelt key also counts as one that is missing.
    """
    for item in sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden"):
        where = ".".join(str(part) for part in item["loc"])
        given = item.get("input")
        shown = one_line(repr(given) if not isinstance(given, Mapping) else "{…}")[:80]
        match item["type"]:
            case "extra_forbidden":
                yield f"{where} = {shown}: expected {_unknown_key(item['loc'], model, value)}"
            case "missing":
                yield f"{where}: expected this key"
            case "value_error":
                text = str(item["ctx"]["error"])
                yield f"{where + ': ' if where else ''}{text}"
            case _:
                yield f"{where} = {shown}: expected {_expectation(model, item['loc'], item['msg'])}"


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _expectation(model: type[BaseModel], location: tuple[str | int, ...], message: str) -> str:
    """Say what a field takes, type and range.

    The words are pydantic's own where a union leaves no single place.
    """
    whole = node = _schema(model)
    try:
        for part in location:
            if "$ref" in node:
                node = whole["$defs"][node["$ref"].rpartition("/")[2]]
            node = (
                node.get("items") or node["prefixItems"][part]
                if isinstance(part, int)
                else node.get("properties", {}).get(part) or node["additionalProperties"]
            )
        return _in_words(node)
    except KeyError:
        return message[0].lower() + message[1:]


def _in_words(node: Mapping[str, Any]) -> str:
    """Put a JSON schema of one value into words."""
    match node:
        case {"anyOf": choices}:
            words = " or ".join(map(_in_words, choices))
        case {"const": value}:
            words = str(value)
        case {"enum": names}:
            words = f"one of {', '.join(names)}"
        case {"type": "integer" | "number" as kind}:
            signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
            signs["exclusiveMaximum"] = "<"
            limits = " and ".join(
                f"{sign} {node[key]}" for key, sign in signs.items() if key in node
            )
            words = f"{'an integer' if kind == 'integer' else 'a number'} {limits}".strip()
        case {"type": "array", "items": inner}:
            words = (
                f"a list of {'1 or more' if node.get('minItems') else '0 or more'}, each "
                f"{_in_words(inner)}"
            )
        case {"type": "array", "prefixItems": inner}:
            words = f"a list of {len(inner)}, each {_in_words(inner[0])}"
        case {"type": "string", "pattern": pattern}:
            words = f"text that matches {pattern}"
        case _:
            simple = {"string": "text", "boolean": "true or false", "null": "null"}
            words = simple.get(node.get("type"), "a mapping of keys to values")
    return words
