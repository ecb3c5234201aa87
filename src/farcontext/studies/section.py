"""A study's section of params.yaml, and the types in it."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from farcontext.schema import Count, Frozen, validate

Pair = Annotated[tuple[Count, Count], Field(strict=False)]
Wholes = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]


class Study(Frozen):
    """Base of a study's section: the names of its notebook's parameters cell."""

    number: ClassVar[int]  # Its notebook has this number.

    @classmethod
    def of(cls, names: Mapping[str, Any]) -> Self:
        """Build the section from a notebook's globals(): `params = Params.of(globals())`."""
        return validate(
            cls,
            {name: names[name] for name in cls.model_fields if name in names},
            "parameters cell",
        )
