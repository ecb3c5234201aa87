"""Read the headers of weights: names, shapes and types, nothing built.

A configuration that asks for more than the weights hold would otherwise be built first. Every count
and length of a header is held against the size of its file before it is used.
"""

import math
import mmap
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from safetensors import safe_open
from torch import nn

from farcontext.files import UserError
from farcontext.messages import one_line

FLOATS = ("F64", "F32", "F16", "BF16")
# A model may be so many times larger than its weights: what lacks is then named by the library.
ROOM = 2
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blk|blocks)\.(\d+)\.")
# GGUF's kinds of values: the scalar ones with their format, then text and lists.
SCALARS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"},
    **{10: "Q", 11: "q", 12: "d"},
}
TEXT, LIST = 8, 9
VERSIONS = (2, 3)
MOST_AXES = 4


class Stored(NamedTuple):
    """A tensor as its file's header has it.

    `start` is the byte of a GGUF file where it begins.
    """

    shape: tuple[int, ...]
    dtype: str
    path: Path
    start: int = 0


@contextmanager
def reading(where: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises on a foreign file into one line.

    Nothing but calls of libraries stands inside: dozens of kinds of errors come from there, and the
    libraries in Rust panic with a class that is no Exception.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = one_line(error)[:300] or type(error).__name__
        if isinstance(error, KeyError) and error.args:  # Its text is a key, in quotes.
            said = one_line(error.args[0])[:300]
            said = f"expected the key {said}" if said.isidentifier() else said
        raise UserError(f"{where}: {what}: {said}") from error


def safetensors_header(paths: Iterable[Path]) -> dict[str, Stored]:
    """Return the tensors of safetensors files by name.

    Raises:
        UserError: a header that is cut, too long, or whose offsets do not fit.
    """
    found = {}
    for path in paths:
        with reading(path, "expected safetensors"), safe_open(path, "pt") as stream:
            for name in stream.keys():  # noqa: SIM118 (it is no dict)
                piece = stream.get_slice(name)
                found[name] = Stored(tuple(piece.get_shape()), piece.get_dtype(), path)
    return found


# ---------------------------------------------------------------------------------- against a model


def expect_layers(where: Path, key: str, layers: object, tensors: Iterable[str]) -> None:
    """Refuse a number of layers that the weights do not have.

    Raises:
        UserError: the key, its value, and the number of layers that have tensors.
    """
    numbers = [int(match.group(1)) for name in tensors if (match := LAYER.search(name))]
    stored = len(set(numbers))
    if layers != stored:
        raise UserError(f"{where}: {key} = {layers!r:.60}: expected {stored}, as the weights have")


def expect_weights(where: Path, model: nn.Module, stored: dict[str, Stored]) -> None:
    """Hold a model, built on any device, against a header.

    Names may lack the prefix of the whole model. A tensor of another name, which a library may know
    under its own, counts by its size alone.

    Raises:
        UserError: the first tensor of another shape (both are named), or that is no float; a model
            far larger than the weights.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shape = [*parameter.shape]
        tensor = stored.get(name) or stored.get(name.removeprefix(prefix))
        if tensor and [*tensor.shape] != shape:
            raise UserError(
                f"{tensor.path}: {name}: shape {[*tensor.shape]}: expected {shape}, as the "
                "configuration says"
            )
        if tensor and tensor.dtype not in FLOATS:
            raise UserError(
                f"{tensor.path}: {name}: dtype {tensor.dtype}: expected one of {', '.join(FLOATS)}"
            )
    held = sum(math.prod(tensor.shape) for tensor in stored.values())
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > ROOM * held:
        raise UserError(f"{where}: {held} numbers in its weights: expected {wanted}")


def expect_numbers(where: Path, model: nn.Module) -> None:
    """Refuse weights that hold NaN or infinity; the line names the tensor."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise UserError(f"{where}: {name}: NaN or infinity: expected numbers")


# --------------------------------------------------------------------------------------------- GGUF


@dataclass
class _Bytes:
    """A file's bytes, taken from the beginning on."""

    path: Path
    data: mmap.mmap
    at: int = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise UserError(
                f"{self.path}: byte {self.at}: {count} bytes are to follow: expected at most "
                f"{len(self.data) - self.at}, the rest of the file"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind: str) -> float:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))[0]

    def text(self) -> str:
        start = self.at
        try:
            return self.take(self.number("Q")).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{self.path}: byte {start}: expected UTF-8") from None

    def value(self) -> object:
        """Return a scalar or a text, None for a list."""
        start, kind = self.at, self.number("I")
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == TEXT:
            return self.text()
        inner, count = (self.number("I"), self.number("Q")) if kind == LIST else (kind, 0)
        if inner in SCALARS:
            self.take(count * struct.calcsize(SCALARS[inner]))
        elif inner == TEXT:
            for _ in range(count):
                self.text()
        else:
            raise UserError(f"{self.path}: byte {start}: kind {inner}: expected a kind of GGUF's")
        return None


def gguf_header(path: Path) -> tuple[dict[str, object], dict[str, Stored]]:
    """Return a GGUF file's scalar settings and its tensors.

    Raises:
        UserError: no such file, or one that is cut or damaged; the line names the byte.
    """
    if path.stat().st_size < len(b"GGUF"):  # An empty file cannot be mapped.
        raise UserError(f"{path}: expected a GGUF file, which begins with the letters GGUF")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        source = _Bytes(path, data)
        if source.take(4) != b"GGUF":
            raise UserError(f"{path}: expected a GGUF file, which begins with the letters GGUF")
        if (version := source.number("I")) not in VERSIONS:
            raise UserError(f"{path}: version = {version}: expected 2 or 3, little-endian")
        tensors, settings = source.number("Q"), {}
        for _ in range(source.number("Q")):
            start, key = source.at, source.text()
            if key in settings:
                raise UserError(f"{path}: byte {start}: {key!r:.60}: expected each key once")
            settings[key] = source.value()
        return settings, _tensors(source, tensors, settings.get("general.alignment", 32))


def _tensors(source: _Bytes, count: int, alignment: object) -> dict[str, Stored]:
    """Read the table of tensors, and hold their ends against the file's."""
    found, ends = {}, {}
    for _ in range(count):
        start, name = source.at, source.text()
        axes = source.number("I")
        if name in found or axes > MOST_AXES:
            raise UserError(
                f"{source.path}: byte {start}: {name!r:.60}, {axes} axes: expected each tensor "
                f"once, with at most {MOST_AXES} axes"
            )
        shape = tuple(source.number("Q") for _ in range(axes))[::-1]
        kind, offset = source.number("I"), source.number("Q")
        if kind not in GGML_QUANT_SIZES:
            raise UserError(f"{source.path}: {name!r:.60}: type {kind}: expected a type of GGML's")
        numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        found[name] = Stored(shape, GGMLQuantizationType(kind).name, source.path, offset)
        ends[name] = offset + math.prod(shape) // numbers * size
    if not (isinstance(alignment, int) and alignment > 0 and alignment & (alignment - 1) == 0):
        raise UserError(
            f"{source.path}: general.alignment = {alignment!r:.60}: expected a power of 2"
        )
    first = -(-source.at // alignment) * alignment
    for name, end in ends.items():
        if first + end > len(source.data):
            raise UserError(
                f"{source.path}: {name!r:.60}: ends at byte {first + end}: expected at most "
                f"{len(source.data)}, the file's size"
            )
    return {name: tensor._replace(start=first + tensor.start) for name, tensor in found.items()}
