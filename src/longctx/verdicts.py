"""From claims.yaml and the tables to verdicts; git history shows that a threshold came before the run that counts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from longctx import results
from longctx.config import Frozen, read_yaml, validate
from longctx.files import UserError
from longctx.stats import Interval, Side, decide, seeds_to_decide, t_interval

DIGITS = 6  # of numbers in verdicts.csv
Verdict = Literal["supported", "refuted", "undecided", "undecided (check failed)"]
Where = dict[str, str | int | float]


class Effect(Frozen):
    """One number a seed, held against a threshold: a metric where some columns have some values, minus another arm."""

    name: str
    where: Where
    minus: Where | None = None  # paired on seed; keys that differ from `where`
    times: float = 1.0
    at_least: float | None = None
    at_most: float | None = None
    refuted_below: float | None = None  # with at_least: what refutes, where that is less than missing the threshold

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
    words: Annotated[str, Field(max_length=25)]  # the article's own
    hypothesis: str
    study: str
    decided_by: Literal["identity", "execution", "interval"]  # proof, running the program, or seeds
    fixed: str  # date at which the threshold was fixed
    pilot: str  # what was seen before it
    runs_before: str | None = (
        None  # full runs that were seen, before or after it, and then run again: why, and what changed
    )
    over: str = "seeds"  # what the interval is over
    literature: str
    range: str  # where the verdict holds
    effects: Annotated[tuple[Effect, ...], Field(strict=False, min_length=1)]  # all must hold
    checks: Annotated[tuple[Effect, ...], Field(strict=False)] = ()  # manipulation checks, before any verdict


class Claims(Frozen):
    """All of claims.yaml."""

    tolerances: dict[str, float]  # of `longctx compare`, by study: |difference| / max(1, |published|)
    claims: dict[str, Claim]


@dataclass(frozen=True)
class Finding:
    """A claim with its verdict and the interval of the effect that decided it."""

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
                f"claims.yaml: {study}: {column}: expected a column of its table: {', '.join(table.columns)}"
            )
        table = table[table[column] == value]
    return table


def per_seed(table: pd.DataFrame, effect: Effect, study: str) -> pd.Series:
    """Return an effect's value for each seed, everything else averaged first; paired where it subtracts an arm."""
    values = _select(table, effect.where, study).groupby("seed")["value"].mean()
    if effect.minus is not None:
        other = _select(table, {**effect.where, **effect.minus}, study).groupby("seed")["value"].mean()
        values = (values - other).dropna() if set(values.index) & set(other.index) else values.iloc[:0]
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
    """Say what an interval decides; between `refuted_below` and the threshold lies nothing that was claimed or denied."""
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
        and decide(Interval(worst, worst, worst, len(values)), check.threshold, check.side) == "supported"
    )


def _favour(effect: Effect, verdict: Verdict, interval: Interval, unit: float) -> tuple[int, float]:
    """Rank an effect: by its verdict, then by its distance from the threshold on the claimed side, in `unit`."""
    distance = interval.estimate - effect.threshold
    margin = (distance if effect.side == "at_least" else -distance) / (unit or 1.0)
    return ("refuted", "undecided", "supported").index(verdict), -math.inf if math.isnan(margin) else margin


def _least_favourable(claim: Claim, table: pd.DataFrame) -> tuple[Effect, Verdict, Interval]:
    """Return the effect of a claim that speaks least for it, counted in half widths; of identities, in thresholds."""

    def key(judged: tuple[Effect, Verdict, Interval]) -> tuple[int, float]:
        effect, _, interval = judged
        half = (interval.high - interval.low) / 2
        return _favour(*judged, unit=half if claim.decided_by == "interval" else abs(effect.threshold))

    return min(((effect, *_judge(table, effect, claim)) for effect in claim.effects), key=key)


def judge(name: str, claim: Claim, table: pd.DataFrame) -> Finding:
    """Return a claim's verdict: checks first, then every effect; the least favourable effect is the one reported."""
    effect, verdict, interval = _least_favourable(claim, table)
    failed = [check.name for check in claim.checks if not _check_holds(table, check, claim)]
    if failed:
        return Finding(name, claim, "undecided (check failed)", effect, interval, f"failed: {', '.join(failed)}")
    note = ""
    if verdict == "undecided":
        seeds = seeds_to_decide(interval, lambda narrower: _decided(narrower, effect) != "undecided")
        would = f"about {seeds} {claim.over} would decide" if seeds else f"no number of {claim.over} alone would decide"
        note = f"interval {interval.high - interval.low:.3g} wide; {would}"
    return Finding(name, claim, verdict, effect, interval, note)


def second_machine() -> dict[str, str]:
    """Return claim → verdict, recorded on a machine with another CPU from the same code and seeds."""
    found, _ = results.recorded("second_machine", "verdicts")
    return dict(zip(found["claim"], found["verdict"], strict=True))


def judge_all(claims: Claims, tables: Path) -> list[Finding]:
    """Judge every claim from the tables in a folder."""
    read = {study: results.read_table(tables / f"{study}.csv") for study in {c.study for c in claims.claims.values()}}
    return [judge(name, claim, read[claim.study]) for name, claim in claims.claims.items()]


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
            "n": _observations(f),
            "shown": _estimate(f),
            "threshold_shown": _threshold(f.effect),
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


# ----------------------------------------------------------------------------------------------- what people read


def show_number(x: float) -> str:
    """Return a number with three significant digits, a minus sign that is one, and "–" for what is unknown.

    It is rounded to the table's six digits first, so that pages, notebooks and paper show one number.
    """
    if not math.isfinite(x):
        return "–"
    x = float(f"{x:.{DIGITS}g}")
    if x == int(x) and abs(x) < 1e6:
        return str(int(x)).replace("-", "−")
    return f"{x:.3g}".replace("-", "−")


def _estimate(f: Finding) -> str:
    shown = show_number(f.interval.estimate)
    if f.claim.decided_by == "interval":
        return f"{shown} [{show_number(f.interval.low)}, {show_number(f.interval.high)}]"
    return shown


def _threshold(effect: Effect) -> str:
    least = "" if effect.refuted_below is None else f" (≤ {show_number(effect.refuted_below)} refutes)"
    return f"{'≥' if effect.side == 'at_least' else '≤'} {show_number(effect.threshold)}{least}"


def _cell(text: str) -> str:
    """Return text that a cell of a Markdown table can hold: a bar would end the cell."""
    return text.replace("|", "\\|")


def _observations(f: Finding) -> str:
    """Return what the reported number rests on, counted in its table."""
    return f"{f.interval.n} {f.claim.over}" if f.claim.decided_by == "interval" else f"{f.interval.n} rows"


def _verdict(f: Finding, elsewhere: Mapping[str, str]) -> str:
    """Return a verdict, with its note, and with what a second machine said where that is something else."""
    note = f" ({f.note})" if f.note else ""
    other = elsewhere.get(f.id, f.verdict)
    return f"**{f.verdict}**{note}" + (f"; *not the same on a second machine: {other}*" if other != f.verdict else "")


def verdict_block(findings: list[Finding], elsewhere: Mapping[str, str]) -> str:
    """Return README's table of verdicts; `elsewhere`: claim → verdict of the same commit on a second machine."""
    head = (
        "| | the article says | we tested | estimate [95 %] | n | threshold | verdict |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    rows = (
        f"| {f.id} | {f.claim.words} (§{f.claim.section}) | {_cell(f.claim.hypothesis)} | {_estimate(f)} "
        f"| {_observations(f)} | {_threshold(f.effect)} | {_verdict(f, elsewhere)} |"
        for f in findings
    )
    both = [f for f in findings if f.id in elsewhere]
    same = sum(f.verdict == elsewhere[f.id] for f in both)
    tail = (
        f"\nA second machine, with another CPU, gave the same verdict for {same} of {len(both)} claims.\n"
        if both
        else ""
    )
    return head + "\n".join(rows) + "\n" + tail


def _seconds(study: str, tables: Path) -> str:
    path = tables / f"{study}.cost.csv"
    if not path.is_file():
        return "seconds"
    return f"{pd.read_csv(path)['seconds'].sum() / 60:.1f} core-minutes"


def experiments_page(
    findings: list[Finding], claims: Claims, notebook_of: Mapping[str, str], elsewhere: Mapping[str, str]
) -> str:
    """Return EXPERIMENTS.md: what was claimed, how it was tested, what came out, and what it cost."""
    tables = results.published_folder()
    lines = [
        "# Experiments",
        "",
        "Generated by `longctx publish` from `claims.yaml` and the tables in `results/laptop`; do not edit.",
        "",
        "A verdict is *supported* when the whole 95 % interval lies on the claimed side of a threshold that was fixed "
        "before the run that counts, *refuted* when it lies wholly on the other side, else *undecided*. Where a whole "
        "run was seen before that one, it stands under *runs before*. Of several effects the least favourable is shown.",
        "",
        "| claim | notebook · stage | effect | threshold, date fixed | estimate [95 %] | n | verdict | cost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for f in findings:
        notebook = notebook_of[f.claim.study]
        lines.append(
            f"| **{f.id}** {f.claim.words} | [{notebook[:2]}](notebooks/{notebook}) · `{f.claim.study}` "
            f"| {_cell(f.effect.name)} | {_threshold(f.effect)}, {f.claim.fixed} | {_estimate(f)} | {_observations(f)} "
            f"| {_verdict(f, elsewhere)} | {_seconds(f.claim.study, tables)} |"
        )
    lines += ["", "## Claim by claim", ""]
    for f in findings:
        lines += _claim_section(f, elsewhere)
    lines += ["## Tolerances of `longctx compare`", "", "|difference| ≤ tolerance · max(1, |published|):", ""]
    lines += [f"- `{study}`: {tolerance:g}" for study, tolerance in claims.tolerances.items()]
    return "\n".join(lines) + "\n"


def _claim_section(f: Finding, elsewhere: Mapping[str, str]) -> list[str]:
    before = [f"- Runs before: {f.claim.runs_before}"] if f.claim.runs_before else []
    return [
        f"### {f.id}: {f.claim.hypothesis}",
        "",
        f"- The article, §{f.claim.section}: 「{f.claim.words}」",
        f"- Measured: {f.effect.name} = {_estimate(f)}, threshold {_threshold(f.effect)}, n = {_observations(f)} → {_verdict(f, elsewhere)}",
        f"- Literature: {f.claim.literature}",
        f"- Seen before the threshold was fixed ({f.claim.fixed}): {f.claim.pilot}",
        *before,
        f"- Holds for: {f.claim.range}",
        "",
    ]
