"""From claims.yaml and the tables to verdicts.

The git history shows that a threshold came before the run that counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from farcontext.files import UserError
from farcontext.measure.stats import Interval, Side, decide, seeds_to_decide, t_interval
from farcontext.results import tables as results
from farcontext.schema import Frozen, read_yaml, validate

DIGITS = 6  # Numbers in verdicts.csv have so many significant digits.
Verdict = Literal["supported", "refuted", "undecided", "undecided (check failed)"]
Where = dict[str, str | int | float]


class Effect(Frozen):
    """One number a seed, held against a threshold.

    The number is a metric where some columns have some values, minus another arm.
    """

    name: str
    where: Where
    minus: Where | None = (
        None  # The other arm is paired on seed, and holds the keys that differ from `where`.
    )
    times: float = 1.0
    at_least: float | None = None
    at_most: float | None = None
    # With at_least, a value below this refutes, where missing the threshold does not.
    refuted_below: float | None = None

    @property
    def side(self) -> Side:
        """Which side of the threshold the claim is on."""
        return "at_least" if self.at_least is not None else "at_most"

    @property
    def threshold(self) -> float:
        """The threshold, in the metric's unit."""
        value = self.at_least if self.at_least is not None else self.at_most
        if value is None or (self.at_least is not None and self.at_most is not None):
            raise UserError(f"claims.yaml: effect {self.name}: expected one of at_least, at_most")
        return value


class Claim(Frozen):
    """One claim of the article, as a hypothesis with its protocol."""

    section: str
    words: Annotated[str, Field(max_length=25)]  # The words are the article's own.
    hypothesis: str
    study: str
    # The verdict comes from proof, running the program, or seeds.
    decided_by: Literal["identity", "execution", "interval"]
    fixed: str  # The threshold was fixed at this date.
    pilot: str  # The pilot is what was seen before the threshold was fixed.
    # Full runs that were seen, before or after it, were run again; this says why, and what changed.
    runs_before: str | None = None
    over: str = "seeds"  # The interval is over these.
    literature: str
    range: str  # The verdict holds here.
    effects: Annotated[tuple[Effect, ...], Field(strict=False, min_length=1)]  # All must hold.
    # Manipulation checks come before any verdict.
    checks: Annotated[tuple[Effect, ...], Field(strict=False)] = ()


class Claims(Frozen):
    """All of claims.yaml."""

    # The tolerances of `farcontext compare` by study bound |difference| / max(1, |published|).
    tolerances: dict[str, float]
    claims: dict[str, Claim]


@dataclass(frozen=True)
class Finding:
    """A claim with its verdict and interval.

    The interval is that of the effect that decided the verdict.
    """

    id: str
    claim: Claim
    verdict: Verdict
    effect: Effect
    interval: Interval
    note: str


def read_claims(path: Path) -> Claims:
    """Read and validate claims.yaml."""
    return validate(Claims, read_yaml(path), str(path))


def _select(table: pd.DataFrame, where: Mapping[str, object], study: str) -> pd.DataFrame:
    for column, value in where.items():
        if column not in table.columns:
            raise UserError(
                f"claims.yaml: {study}: {column}: expected a column of its table: "
                f"{', '.join(table.columns)}"
            )
        table = table[table[column] == value]
    return table


def per_seed(table: pd.DataFrame, effect: Effect, study: str) -> pd.Series:
    """Return an effect's value for each seed.

    Everything else is averaged first; values are paired where the effect subtracts an arm.
    """
    values = _select(table, effect.where, study).groupby("seed")["value"].mean()
    if effect.minus is not None:
        other = (
            _select(table, {**effect.where, **effect.minus}, study).groupby("seed")["value"].mean()
        )
        values = (
            (values - other).dropna() if set(values.index) & set(other.index) else values.iloc[:0]
        )
    return effect.times * values


def _exact(values: pd.Series, effect: Effect) -> tuple[Verdict, Interval]:
    """An identity or a program: every row must hold. The interval is the range of what was seen."""
    if values.empty or values.isna().any():
        return "undecided", Interval(math.nan, math.nan, math.nan, len(values))
    low, high = float(values.min()), float(values.max())
    worst = low if effect.side == "at_least" else high
    holds = worst >= effect.threshold if effect.side == "at_least" else worst <= effect.threshold
    return "supported" if holds else "refuted", Interval(worst, low, high, len(values))


def _decided(interval: Interval, effect: Effect) -> Verdict:
    """Say what an interval decides.

    Between `refuted_below` and the threshold lies nothing that was claimed or denied.
    """
    verdict = decide(interval, effect.threshold, effect.side)
    if verdict == "refuted" and effect.refuted_below is not None:
        return "refuted" if interval.high <= effect.refuted_below else "undecided"
    return verdict


def _judge(table: pd.DataFrame, effect: Effect, claim: Claim) -> tuple[Verdict, Interval]:
    if claim.decided_by == "interval":
        interval = t_interval(per_seed(table, effect, claim.study))
        return _decided(interval, effect), interval
    return _exact(_select(table, effect.where, claim.study)["value"], effect)


def _check_holds(table: pd.DataFrame, check: Effect, claim: Claim) -> bool:
    if claim.decided_by != "interval":
        return _judge(table, check, claim)[0] == "supported"
    values = per_seed(table, check, claim.study)
    worst = values.min() if check.side == "at_least" else values.max()
    return (
        bool(len(values))
        and decide(Interval(worst, worst, worst, len(values)), check.threshold, check.side)
        == "supported"
    )


def _favour(effect: Effect, verdict: Verdict, interval: Interval, unit: float) -> tuple[int, float]:
    """Rank an effect by its verdict, then by its distance from the threshold.

    Distances are positive on the claimed side. They are counted in `unit`, so that effects of
    different metrics compare.
    """
    distance = interval.estimate - effect.threshold
    margin = (distance if effect.side == "at_least" else -distance) / (unit or 1.0)
    return ("refuted", "undecided", "supported").index(verdict), -math.inf if math.isnan(
        margin
    ) else margin


def _least_favourable(claim: Claim, table: pd.DataFrame) -> tuple[Effect, Verdict, Interval]:
    """Return the effect of a claim that speaks least for it.

    Effects are counted in half widths, those of identities in thresholds.
    """

    def key(judged: tuple[Effect, Verdict, Interval]) -> tuple[int, float]:
        effect, _, interval = judged
        half = (interval.high - interval.low) / 2
        return _favour(
            *judged, unit=half if claim.decided_by == "interval" else abs(effect.threshold)
        )

    return min(((effect, *_judge(table, effect, claim)) for effect in claim.effects), key=key)


def judge(name: str, claim: Claim, table: pd.DataFrame) -> Finding:
    """Return a claim's verdict.

    The checks come first, then every effect; the least favourable effect is the one reported.
    """
    effect, verdict, interval = _least_favourable(claim, table)
    failed = [check.name for check in claim.checks if not _check_holds(table, check, claim)]
    if failed:
        return Finding(
            name,
            claim,
            "undecided (check failed)",
            effect,
            interval,
            f"failed: {', '.join(failed)}",
        )
    note = ""
    if verdict == "undecided":
        seeds = seeds_to_decide(
            interval, lambda narrower: _decided(narrower, effect) != "undecided"
        )
        would = (
            f"about {seeds} {claim.over} would decide"
            if seeds
            else f"no number of {claim.over} alone would decide"
        )
        note = f"interval {interval.high - interval.low:.3g} wide; {would}"
    return Finding(name, claim, verdict, effect, interval, note)


def second_machine() -> dict[str, str]:
    """Return claim → verdict of a second machine.

    It was recorded on a machine with another CPU, from the same code and seeds.
    """
    found, _ = results.recorded("second_machine", "verdicts")
    return dict(zip(found["claim"], found["verdict"], strict=True))


def judge_all(claims: Claims, base: Path) -> list[Finding]:
    """Judge every claim from the tables below a folder of studies."""
    studies = {claim.study for claim in claims.claims.values()}
    read = {study: results.read_table(results.path_in(base, study)) for study in studies}
    return [judge(name, claim, read[claim.study]) for name, claim in claims.claims.items()]


def show_number(x: float) -> str:
    """Return a number with three significant digits as text.

    The minus sign is a true one, and "–" stands for what is unknown.

    It is rounded to the table's six digits first, so that pages, notebooks and paper show one
    number.
    """
    if not math.isfinite(x):
        return "–"
    x = float(f"{x:.{DIGITS}g}")
    if x == int(x) and abs(x) < 1e6:
        return str(int(x)).replace("-", "−")
    return f"{x:.3g}".replace("-", "−")


def estimate(f: Finding) -> str:
    """Return the reported number with its interval, as people read it."""
    shown = show_number(f.interval.estimate)
    if f.claim.decided_by == "interval":
        return f"{shown} [{show_number(f.interval.low)}, {show_number(f.interval.high)}]"
    return shown


def threshold(effect: Effect) -> str:
    """Return an effect's threshold with its side, as people read it."""
    least = (
        "" if effect.refuted_below is None else f" (≤ {show_number(effect.refuted_below)} refutes)"
    )
    return f"{'≥' if effect.side == 'at_least' else '≤'} {show_number(effect.threshold)}{least}"


def observations(f: Finding) -> str:
    """Return what the reported number rests on, counted in its table."""
    return (
        f"{f.interval.n} {f.claim.over}"
        if f.claim.decided_by == "interval"
        else f"{f.interval.n} rows"
    )


def as_table(findings: list[Finding]) -> pd.DataFrame:
    """Return the verdicts as one row a claim."""
    return pd.DataFrame(
        {
            "claim": f.id,
            "section": f.claim.section,
            "words": f.claim.words,
            "hypothesis": f.claim.hypothesis,
            "study": f.claim.study,
            "effect": f.effect.name,
            "threshold": f.effect.threshold,
            "side": f.effect.side,
            "estimate": f.interval.estimate,
            "low": f.interval.low,
            "high": f.interval.high,
            "observations": f.interval.n,
            "n": observations(f),
            "shown": estimate(f),
            "threshold_shown": threshold(f.effect),
            "verdict": f.verdict,
            "note": f.note,
            "runs_before": f.claim.runs_before,
            "literature": f.claim.literature,
            "range": f.claim.range,
        }
        for f in findings
    )


def as_metrics(findings: list[Finding]) -> dict[str, dict[str, object]]:
    """Return claim → estimate, low, high, verdict: what `dvc metrics show` prints."""
    number = lambda x: float(f"{x:.{DIGITS}g}") if math.isfinite(x) else None  # noqa: E731
    return {
        f.id: {
            "estimate": number(f.interval.estimate),
            "low": number(f.interval.low),
            "high": number(f.interval.high),
            "verdict": f.verdict,
        }
        for f in findings
    }
