"""The base of every configuration, the YAML reader, and validation.

A validation error is one line. The module is importable without torch. YAML is read by ruamel.yaml
1.2, the reader that DVC uses, so a value means the same to both.
"""

import io
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from farcontext.files import UserError, read_regular
from farcontext.messages import one_line, problems

MAX_YAML_BYTES, MAX_YAML_DEPTH = 1 << 20, 40

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
Counts = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]
Shares = Annotated[tuple[Share, ...], Field(strict=False, min_length=1)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
DType = Literal["float32", "bfloat16"]
Model = TypeVar("Model", bound=BaseModel)
Row = dict[str, Any]  # One observation maps a column to a plain value.

SPECIAL = ("[PAD]", "[MASK]", "[BOS]", "[EOS]")  # They stand in the order of their ids.
PAD, MASK, BOS, EOS = range(4)


class Frozen(BaseModel):
    """The base of every configuration.

    It is immutable and strict in types; it takes no unknown key, no NaN and no infinity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _no_repeated_seed(self) -> Self:
        seeds = getattr(self, "seeds", ())
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds = {list(seeds)}: expected each seed once")
        return self


# ------------------------------------------------------------------------------------------ reading


def _too_deep(text: str) -> bool:
    """Cheap bound on nesting before the parser recurses: flow brackets and indentation."""
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    indent = max((len(line) - len(line.lstrip(" ")) for line in text.splitlines()), default=0)
    return deepest > MAX_YAML_DEPTH or indent > 2 * MAX_YAML_DEPTH


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML 1.2 mapping into plain Python values, running nothing.

    Raises:
        UserError: missing, too large, too deep, aliased, tagged, a key given twice, or not a
            mapping.
    """
    try:
        text = read_regular(path, MAX_YAML_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: expected UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Parse YAML 1.2 text.

    `name` stands for the file in messages. It raises UserError as `read_yaml` does.
    """
    if _too_deep(text):
        raise UserError(f"{name}: expected at most {MAX_YAML_DEPTH} levels of nesting")
    reader = YAML(typ="safe", pure=True)
    reader.max_depth = MAX_YAML_DEPTH
    try:
        if any(
            type(token).__name__ in ("AliasToken", "TagToken")
            for token in YAML(typ="safe", pure=True).scan(text)
        ):
            raise UserError(f"{name}: expected plain values: no alias (*), no tag (!)")
        value = reader.load(io.StringIO(text))
    except DuplicateKeyError as error:
        raise UserError(_repeated_key(name, text, error)) from None
    except MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise UserError(f"{name}:{line} expected YAML: {one_line(error.problem)}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name}: expected YAML: {one_line(error)}") from None
    except TypeError as error:  # A list cannot be a key.
        raise UserError(f"{name}: expected text for a key: {one_line(error)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{name}: expected a mapping of keys to values")
    if (wrong := _wrong_key(value)) is not None:
        raise UserError(f"{name}: key {wrong[0]!r}: expected text for a key")
    if (key := _outsized(value)) is not None:
        raise UserError(f"{name}: {key}: expected a whole number of at most 64 bits")
    return value


def _outsized(value: object, place: str = "") -> str | None:
    """Return where a whole number stands that no 64 bits hold."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        inner = (_outsized(x, f"{place}.{key}" if place else str(key)) for key, x in items)
        return next(filter(None, inner), None)
    return place if isinstance(value, int) and value.bit_length() > 63 else None


def _wrong_key(value: object) -> tuple[object] | None:
    """Return the first key anywhere that is not text.

    It comes in a tuple of its own.
    """
    if isinstance(value, dict):
        wrong = next(((key,) for key in value if not isinstance(key, str)), None)
        return wrong or next(filter(None, map(_wrong_key, value.values())), None)
    return next(filter(None, map(_wrong_key, value)), None) if isinstance(value, list) else None


def _repeated_key(name: str, text: str, error: DuplicateKeyError) -> str:
    """Name the key and both of its lines.

    The second is known from the reader, the first is found by walking back at its indentation.
    """
    mark = error.problem_mark
    key = str(error.problem).split('"')[1]
    lines = text.splitlines()
    above = (
        n + 1 for n in range(mark.line - 1, -1, -1) if lines[n][mark.column :].startswith(f"{key}:")
    )
    return f"{name}: {key}: lines {next(above, '?')} and {mark.line + 1}: expected each key once"


def validate(model: type[Model], value: object, name: str) -> Model:
    """Validate a value against a model.

    Raises:
        UserError: one line, `name: KEY = VALUE: expected …`, for the first problem found.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first, *others = problems(error, model, value)
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{name}: {first}{more}") from None
