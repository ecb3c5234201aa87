"""The claims of claims.yaml: hypotheses with thresholds, checks and rivals.

`effects` turns a table into numbers with intervals, `verdicts` these into verdicts, and `freezing`
proves what was fixed before its seeds ran.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from farcontext.measure.stats import Side
from farcontext.schema import Frozen, read_yaml, validate

Where = dict[str, str | int | float]
Pair = Annotated[tuple[float, float], Field(strict=False)]


class Crossing(Frozen):
    """The level from which on an effect is at least so much."""

    on: str  # The column that holds the levels.
    at: float  # In the effect's unit, so after `times`.
    falls: bool = False  # True asks for the level from which on it is at most so much.


class Effect(Frozen):
    """One number a seed, held against a threshold.

    The number is a metric where some columns have some values, minus another arm; or that number's
    slope over a column; or the level of a column from which on it is large enough.
    """

    name: str
    where: Where
    # The other arm is paired on seed, and holds the keys that differ from `where`.
    minus: Where | None = None
    times: float = 1.0
    # Per doubling: the slope of a seed's values on log2 of this column.
    slope: str | None = None
    crossing: Crossing | None = None
    each: Annotated[tuple[str, ...], Field(strict=False)] = ()  # One effect a cell of these.
    at_least: float | None = None
    at_most: float | None = None
    between: Pair | None = None  # Equivalence: the whole interval lies within.
    # With at_least, a value below this refutes, where missing the threshold does not.
    refuted_below: float | None = None
    # The worst and the best that the metric can be, from which headroom follows.
    bounds: Pair | None = None
    # A check guards only effects with its own values in these columns; none means every effect.
    guards: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), exclude_if=lambda columns: not columns
    )

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        given = [x for x in (self.at_least, self.at_most, self.between) if x is not None]
        if len(given) != 1:
            raise ValueError(f"effect {self.name}: expected one of at_least, at_most, between")
        if self.slope and self.crossing:
            raise ValueError(f"effect {self.name}: expected slope or crossing, not both")
        if unknown := set(self.guards) - {*self.where, *self.each}:
            names = ", ".join(sorted(unknown))
            raise ValueError(f"effect {self.name}: guards {names}: expected columns it selects")
        return self

    def guarded_by(self, check: "Effect") -> bool:
        """Say whether this effect needs a check to hold.

        A check whose rows are missing has no value there, and every effect needs it.
        """
        known = {c: check.where[c] for c in check.guards if c in check.where}
        arms = (self.where, self.minus or {})
        return all(any(arm.get(c) == value for arm in arms) for c, value in known.items())

    @property
    def side(self) -> Side | Literal["between"]:
        """Which side of the threshold the claim is on."""
        if self.between is not None:
            return "between"
        return "at_least" if self.at_least is not None else "at_most"

    @property
    def threshold(self) -> float:
        """The threshold, in the metric's unit; of two, half their distance."""
        if self.between is not None:
            return (self.between[1] - self.between[0]) / 2
        return self.at_least if self.at_least is not None else self.at_most


class Budget(Frozen):
    """A learning curve that says whether more training would change a verdict."""

    where: Where  # The rows of the arm that may not have learned enough.
    on: str  # The column that counts the training.
    falls: bool = True  # A loss falls while it is learned; a score rises.
    times: float = 1.0  # It turns the curve's unit into the effect's.


class Short(Frozen):
    """A hypothesis in one line, in English and in Chinese."""

    en: Annotated[str, Field(max_length=90)]
    zh: Annotated[str, Field(max_length=45)]


class Claim(Frozen):
    """One claim of the article, as a hypothesis with its protocol."""

    section: str
    words: Annotated[str, Field(max_length=25)]  # The words are the article's own.
    hypothesis: str
    short: Short | None = None
    study: str
    # The verdict comes from proof, running the program, or seeds.
    decided_by: Literal["identity", "execution", "interval"]
    fixed: str  # The threshold was fixed at this date.
    pilot: str  # The pilot is what was seen before the threshold was fixed.
    # Each full run that was seen before the one that counts, failed ones too, and what it changed.
    runs_before: Annotated[tuple[str, ...], Field(strict=False)] = ()
    over: str = "seeds"  # The interval is over these.
    # What one would use instead at the same price. An arm that is denied the evidence is none.
    rival: str | None = None
    # Every effect must hold, each has a verdict of its own, or two must have opposite signs.
    decides: Literal["all", "each", "opposite"] = "all"
    # A choice that was all but tied: the verdict must be the same under all of these values.
    under: dict[str, Annotated[tuple[str | int | float, ...], Field(strict=False)]] = Field(
        default={}
    )
    budget: Budget | None = None
    literature: str
    range: str  # The verdict holds here.
    effects: Annotated[tuple[Effect, ...], Field(strict=False, min_length=1)]
    # Manipulation checks come before any verdict.
    checks: Annotated[tuple[Effect, ...], Field(strict=False)] = ()


class Claims(Frozen):
    """All of claims.yaml."""

    # Rows of these studies are numbers that are exact by nature, up to rounding; `farcontext
    # compare` holds each of them to |difference| <= tolerance * max(1, |published|).
    exact: dict[str, float]
    claims: dict[str, Claim]


def read_claims(path: Path) -> Claims:
    """Read and validate claims.yaml."""
    return validate(Claims, read_yaml(path), str(path))
