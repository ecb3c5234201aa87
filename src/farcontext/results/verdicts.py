"""From claims and tables to verdicts.

The rules stand in CONTRIBUTING ("How a verdict is reached"); each has a test with a twin that
breaks it.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from farcontext import files
from farcontext.measure.stats import CONFIDENCE, Interval, decide, holm, seeds_to_decide, t_interval
from farcontext.results import effects, tables
from farcontext.results.claims import Claim, Claims, Effect
from farcontext.results.findings import Decision, Finding, Judged, estimate, show_number

NAMED_CELLS = 6  # A note names so many cells, and counts more.
LEAST_P, HALVINGS = 1e-12, 60  # A p value is found by halving between this and 1.

# ------------------------------------------------------------------------------------ one effect


def decided(interval: Interval, effect: Effect) -> Decision:
    """Say what an interval decides about an effect.

    Between `refuted_below` and the threshold lies nothing that was claimed or denied. Equivalence
    is supported by an interval within its bounds, and refuted by one wholly outside.
    """
    if effect.between is not None:
        low, high = effect.between
        if not interval.known:
            return "undecided"
        inside = interval.low >= low and interval.high <= high
        outside = interval.high < low or interval.low > high
        return "supported" if inside else "refuted" if outside else "undecided"
    verdict = decide(interval, effect.threshold, effect.side)
    if verdict == "refuted" and effect.refuted_below is not None:
        return "refuted" if interval.high <= effect.refuted_below else "undecided"
    return verdict


def _p(table: pd.DataFrame, effect: Effect, study: str) -> float:
    """Return the least error at which an effect's interval decides anything.

    It works for every kind of effect, since it only narrows the interval: of a mean against one
    threshold it is the t test's two-sided p. 1 where even the estimate decides nothing.
    """

    values = effects.measured(table, effect, study)

    def says(error: float) -> bool:
        return decided(effects.interval(values, effect, 1 - error), effect) != "undecided"

    low, high = math.log(LEAST_P), 0.0
    if not says(1 - 1e-9):
        return 1.0
    for _ in range(HALVINGS if not effect.crossing else 12):  # A crossing is slow, and coarse.
        middle = (low + high) / 2
        low, high = (low, middle) if says(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _exact(values: pd.Series, effect: Effect) -> tuple[Decision, Interval]:
    """Judge an identity or a program: every row must hold.

    The interval is the range of what was seen.
    """
    if values.empty or values.isna().any():
        return "undecided", Interval(math.nan, math.nan, math.nan, len(values))
    low, high = float(values.min()), float(values.max())
    worst = low if effect.side == "at_least" else high
    holds = worst >= effect.threshold if effect.side == "at_least" else worst <= effect.threshold
    return "supported" if holds else "refuted", Interval(worst, low, high, len(values))


def _judge(table: pd.DataFrame, effect: Effect, claim: Claim) -> Judged:
    if claim.decided_by != "interval":
        rows = effects.rows_where(table, effect.where, claim.study)
        return Judged(effect, *_exact(rows["value"], effect))
    interval = effects.interval(effects.measured(table, effect, claim.study), effect)
    room = effects.headroom(table, effect, claim.study)
    return Judged(effect, decided(interval, effect), interval, math.nan, room)


def _all(table: pd.DataFrame, given: tuple[Effect, ...], claim: Claim) -> list[Judged]:
    return [
        _judge(table, cell, claim)
        for effect in given
        for cell in effects.cells(table, effect, claim.study)
    ]


def adjusted(judged: list[Judged], table: pd.DataFrame, claim: Claim) -> list[Judged]:
    """Return effects with p values that Holm adjusted, which decide.

    Where all effects must hold, each that does so holds at its own 95 % (an intersection needs no
    correction), and only those that refute are many chances to err: so they are adjusted for the
    number of effects. Where each has a verdict of its own, all are adjusted, and one without
    headroom decides nothing.
    """
    if claim.decided_by != "interval":
        return judged
    raw = np.array([_p(table, one.effect, claim.study) for one in judged])
    raw = np.where([bool(_cannot(one)) for one in judged], 1.0, raw)
    counts = [claim.decides != "all" or one.decision != "supported" for one in judged]
    family = holm(np.where(counts, raw, 1.0))
    error = 1 - CONFIDENCE + 1e-9
    return [
        replace(one, p=float(p), decision=one.decision if p <= error else "undecided")
        for one, p in zip(judged, np.where(counts, family, raw), strict=True)
    ]


# -------------------------------------------------------------------------- what is in the way


def _checked(judged: list[Judged], table: pd.DataFrame, claim: Claim) -> list[Judged]:
    """Return effects with the checks that they need and that fail.

    A check is an interval, too: all of it must hold.
    """
    checks = [x.effect for x in _all(table, claim.checks, claim) if x.decision != "supported"]
    return [
        replace(one, failed=tuple(x.name for x in checks if one.effect.guarded_by(x)))
        for one in judged
    ]


def _failed(judged: list[Judged]) -> str:
    return "failed: " + ", ".join(dict.fromkeys(name for one in judged for name in one.failed))


def _cannot(one: Judged) -> str:
    """Return why an effect could not win, or not lose.

    It is empty if it could do both. With the arm at its best in every seed it must be supported,
    with the arm at its worst it must not.
    """
    effect, room = one.effect, one.headroom
    if effect.side == "between" or not room.known:
        return ""
    loses, wins = room.worst, room.best
    if effect.side == "at_most":
        loses, wins = wins, loses
    ends = (show_number(x.estimate) for x in (room.worst, room.best))
    span = f"{effect.name}: between {' and '.join(ends)} at all"
    if decided(wins, effect) != "supported":
        return f"{span}, so it could not win"
    if decided(loses, effect) == "supported":
        return f"{span}, so it could not lose"
    return ""


def _more_training(table: pd.DataFrame, effect: Effect, claim: Claim) -> str:
    """Return how much more training a moving curve needs.

    It was still moving at its end. Its last two levels are compared, seed by seed; empty where
    nothing moved in the direction of the claim. The line through them is carried on over doublings
    of the training until the effect reaches its threshold: a guess, since curves bend.
    """
    if claim.budget is None:
        return ""
    rows = effects.rows_where(table, claim.budget.where, claim.study)
    curves = rows.pivot_table(index=claim.budget.on, columns="seed", values="value").sort_index()
    if len(curves) < 2:
        return ""
    moved = curves.iloc[-1] - curves.iloc[-2]
    moved = -moved if claim.budget.falls else moved
    if not t_interval(list(moved)).low > 0:
        return ""
    a_doubling = moved / math.log2(curves.index[-1] / curves.index[-2])
    missing = (effects.per_seed(table, effect, claim.study) - effect.threshold).abs()
    doublings = t_interval(list((missing / (claim.budget.times * a_doubling)).dropna()))
    ends = (doublings.estimate, doublings.low, doublings.high)
    times = [show_number(2 ** min(x, 40)) for x in ends]
    return (
        f"{claim.budget.on} at the end {show_number(curves.index[-1])}, and still learning: at its "
        f"last slope {times[0]} [{times[1]}, {times[2]}] times as many would do"
    )


# --------------------------------------------------------------------------------------- one claim


def _favour(one: Judged, claim: Claim) -> tuple[int, float]:
    """Rank an effect by decision, then by distance from the threshold.

    Distances are positive on the claimed side. They are counted in half widths (of identities: in
    thresholds), so that effects of different metrics compare.
    """
    effect, interval = one.effect, one.interval
    half = (interval.high - interval.low) / 2
    unit = half if claim.decided_by == "interval" else abs(effect.threshold)
    if effect.between is not None:
        middle = sum(effect.between) / 2
        distance = effect.threshold - abs(interval.estimate - middle)
    else:
        distance = interval.estimate - effect.threshold
        distance = -distance if effect.side == "at_most" else distance
    margin = distance / unit if math.isfinite(unit) and unit else distance
    rank = ("refuted", "undecided", "supported").index(one.decision)
    return rank, -math.inf if math.isnan(margin) else margin


def _together(judged: list[Judged], claim: Claim) -> str:
    """Return what the effects say together.

    All must hold, or each is told apart: a claim of cells is mixed where cells differ. One of
    opposite signs is supported by one cell on either side.
    """
    said = {one.decision for one in judged}
    if claim.decides == "opposite":
        if {"supported", "refuted"} <= said:
            return "supported"
        return "refuted" if said in ({"supported"}, {"refuted"}) else "undecided"
    if claim.decides == "each" and len(said) > 1:
        return "mixed" if said != {"undecided"} else "undecided"
    return "refuted" if "refuted" in said else "undecided" if "undecided" in said else "supported"


def _undecided_note(one: Judged, claim: Claim) -> str:
    interval = one.interval
    seeds = (
        None
        if one.effect.crossing
        else seeds_to_decide(interval, lambda x: decided(x, one.effect) != "undecided")
    )
    would = (
        f"about {seeds} {claim.over} would decide"
        if seeds
        else f"no number of {claim.over} alone would decide"
    )
    return f"interval {interval.high - interval.low:.3g} wide; {would}"


def _mixed_note(judged: list[Judged]) -> str:
    """Return which cells say what; of many, how many do."""
    kinds = {
        kind: [one.effect.name for one in judged if one.decision == kind]
        for kind in ("supported", "refuted", "undecided")
    }
    if len(judged) <= NAMED_CELLS:
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    counts = ", ".join(f"{kind} in {len(names)}" for kind, names in kinds.items() if names)
    return f"of {len(judged)} cells {counts}"


def _opposite_note(judged: list[Judged]) -> str:
    ordered = sorted(judged, key=lambda one: one.interval.estimate)
    ends = (
        f"{x.effect.name} {show_number(x.interval.estimate)}" for x in (ordered[0], ordered[-1])
    )
    return f"from {' to '.join(ends)}; {_mixed_note(judged)}"


def _obstacle(judged: list[Judged], claim: Claim) -> tuple[str, str] | None:
    """Return what keeps a claim undecided, and why.

    It does so whatever its effects say; None if nothing does. Where each effect has a verdict of
    its own, what is in the way of one leaves the others alone.
    """
    failed = [one for one in judged if one.failed]
    if failed and (claim.decides != "each" or len(failed) == len(judged)):
        return "undecided (check failed)", _failed(judged)
    if claim.decided_by == "interval" and claim.rival is None:
        return "undecided (no rival)", "no arm that one would use instead at the same price"
    cannot = [said for one in judged if (said := _cannot(one))]
    if cannot and (claim.decides == "all" or len(cannot) == len(judged)):
        return "undecided (no headroom)", cannot[0]
    return None


def _under(name: str, claim: Claim, table: pd.DataFrame) -> Finding:
    """Return the verdict under one choice, the checks first."""
    told = adjusted(_all(table, claim.effects, claim), table, claim)
    told = _checked(told, table, claim)
    obstacle = _obstacle(told, claim)
    if not obstacle:
        told = [replace(x, decision="undecided") if x.failed else x for x in told]
    verdict = _together(told, claim)
    one = min(told, key=lambda x: _favour(x, claim))
    if obstacle:
        verdict, note = obstacle
    elif verdict == "refuted" and (more := _more_training(table, one.effect, claim)):
        verdict, note = "undecided (budget)", more
    elif claim.decides == "opposite":
        note = _opposite_note(told)
    else:
        note = {"undecided": _undecided_note(one, claim), "mixed": _mixed_note(told)}.get(
            verdict, ""
        )
    if not obstacle and any(x.failed for x in told):
        note = "; ".join(filter(None, (note, _failed(told))))
    return Finding(name, claim, verdict, one.effect, one.interval, note, tuple(told))


def judge(name: str, claim: Claim, table: pd.DataFrame) -> Finding:
    """Return a claim's verdict.

    Where a choice was all but tied (`under`), the verdict must be the same under each of its
    values; the least favourable finding is the one reported.
    """
    choices = [{}]
    for column, values in claim.under.items():
        choices = [choice | {column: value} for choice in choices for value in values]
    answers = []
    for choice in choices:
        rows = effects.rows_where(table, choice, claim.study)
        answers.append(_under(name, claim, rows))
    order = ("refuted", "undecided", "mixed", "supported")
    rank = lambda f: order.index(f.verdict.split(" ")[0])  # noqa: E731
    worst = min(answers, key=rank)
    if len({f.verdict for f in answers}) > 1:
        told = "; ".join(
            f"{', '.join(f'{k} {v}' for k, v in choice.items())}: {f.verdict}, {estimate(f)}"
            for choice, f in zip(choices, answers, strict=True)
        )
        return replace(worst, verdict="undecided (choices disagree)", note=told)
    return worst


def recorded(where: str) -> dict[str, tuple[str, str]]:
    """Return claim → (verdict, estimate) of results/`where`.

    That is a second machine, from the same code and seeds, or another profile; none where nothing
    is recorded.
    """
    path = files.project() / "results" / where / "verdicts.csv"
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    return {row["claim"]: (row["verdict"], row["shown"]) for row in rows.to_dict("records")}


def judge_all(claims: Claims, base: Path) -> list[Finding]:
    """Judge every claim from the tables below a folder of studies."""
    studies = {claim.study for claim in claims.claims.values()}
    read = {study: tables.read_table(tables.path_in(base, study)) for study in studies}
    return [judge(name, claim, read[claim.study]) for name, claim in claims.claims.items()]
