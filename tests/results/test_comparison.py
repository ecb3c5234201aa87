"""`compare`: exact rows by tolerance, trained numbers by what their seeds explain."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from farcontext.files import UserError
from farcontext.results import comparison, effects, tables
from farcontext.results.claims import Claims, Effect, read_claims
from farcontext.schema import validate

EXACT = pd.DataFrame(
    {"arm": ["a", "b", "none", "c"], "metric": "loss", "value": [1.25, -0.25, -0.1, 7.0]}
)


def test_exact_rows_within_the_tolerance_are_counted_and_the_worst_is_named() -> None:
    theirs = EXACT.iloc[:3]
    ours = theirs.assign(value=[1.3, -0.25, 0.1])
    answer = comparison.exact_rows(ours, theirs, "demo", tolerance=0.1)
    assert (answer.within, answer.of) == (2, 3)
    assert answer.moved == ("arm none, metric loss: 0.1, published -0.1",)
    same = comparison.exact_rows(theirs, theirs, "demo", 0.0)
    assert same == comparison.Comparison("demo", 3, 3, ())


def test_an_exact_row_that_is_not_there_any_more_counts_as_missed() -> None:
    answer = comparison.exact_rows(EXACT.iloc[:2], EXACT, "demo", tolerance=1e9)
    assert (answer.within, answer.of) == (2, 4) and answer.moved
    assert comparison.exact_rows(EXACT.assign(value=np.nan), EXACT, "demo", 1e9).within == 0


def test_rows_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(UserError, match="expected one row for each"):
        comparison.exact_rows(EXACT, pd.concat([EXACT, EXACT]), "demo", 0.1)


def trained(shift: float = 0.0, noise: int = 0, spread: float = 0.02) -> pd.DataFrame:
    """Return three arms on five seeds; `noise` is another CPU's rounding, grown by training."""
    base, rng = np.random.default_rng(0), np.random.default_rng(noise)
    rows = [
        {"arm": arm, "seed": seed, "metric": "recall"}
        | {"value": mean + 0.02 * base.normal() + shift * (arm == "b")}
        for arm, mean in (("a", 0.9), ("b", 0.6), ("c", 0.3))
        for seed in range(5)
    ]
    table = pd.DataFrame(rows)
    return table.assign(value=table["value"] + (spread * rng.normal(size=15) if noise else 0))


def test_the_rounding_of_another_cpu_moves_nothing() -> None:
    moved = sum(
        len(comparison.means(trained(noise=n), trained(), "demo").moved) for n in range(1, 41)
    )
    assert moved <= 5  # 5 % of 40 tables is 2.


def test_a_shift_that_all_seeds_share_has_moved() -> None:
    answer = comparison.means(trained(shift=-0.15), trained(), "demo")
    assert len(answer.moved) == 1 and "arm b" in answer.moved[0] and answer.within == 2
    both = comparison.means(trained(shift=-0.15, noise=3), trained(), "demo")
    assert len(both.moved) == 1


def test_a_mean_that_is_not_there_any_more_has_moved() -> None:
    ours = trained()
    answer = comparison.means(ours[ours["arm"] != "c"], trained(), "demo")
    assert len(answer.moved) == 1 and "arm c" in answer.moved[0]


def test_a_table_with_other_columns_has_moved_as_a_whole() -> None:
    answer = comparison.means(trained().rename(columns={"arm": "scheme"}), trained(), "demo")
    assert answer.within == 0 and answer.moved == ("other columns: arm, scheme",)


def test_a_share_of_nothing_is_not_a_shift() -> None:
    ours = trained()
    undefined = ours.assign(value=ours["value"].where(ours["arm"] != "c"))
    assert comparison.means(undefined, trained(), "demo").moved == ()


# ------------------------------------------------------------------------------------ this project


def shifted(table: pd.DataFrame, effect: Effect, study: str, by: float) -> pd.DataFrame:
    """Return a table whose effect is moved by so much, in the effect's unit."""
    index = effects.rows_where(table, effect.where, study).index
    value = table["value"].copy()
    on = effect.slope or (effect.crossing and effect.crossing.on)
    size = np.log2(table.loc[index, on]) if effect.slope else 1.0
    value[index] += by / effect.times * size
    return table.assign(value=value)


def test_a_shift_of_half_of_any_claims_margin_is_noticed(root: Path) -> None:
    """The margin of an effect is its distance from the threshold; the best one of each claim."""
    claims = read_claims(root / "claims.yaml")
    published = comparison.read_all(claims, root / "results" / "laptop")
    assert comparison.estimates(claims, published, published).moved == ()
    for name, claim in claims.claims.items():
        if claim.decided_by != "interval" or claim.study in claims.exact:
            continue
        for effect in claim.effects:
            table = published[claim.study]
            seen = effects.measured(table, effect, claim.study)
            estimate = effects.interval(seen, effect).estimate
            half = (effect.threshold - estimate) / 2
            if not np.isfinite(half):
                continue
            ours = published | {claim.study: shifted(table, effect, claim.study, half)}
            moved = comparison.estimates(claims, ours, published).moved
            assert any(line.startswith(f"{name}: {effect.name}") for line in moved), effect.name


def test_a_shift_that_no_claim_reads_moves_means_alone() -> None:
    given = {"exact": {}, "claims": {}}
    claims = validate(Claims, given, "claims.yaml")
    assert comparison.estimates(claims, {}, {}) == comparison.Comparison("claims", 0, 0, ())


def test_all_tables_of_a_folder_are_read_as_far_as_they_are_there(root: Path) -> None:
    claims = read_claims(root / "claims.yaml")
    assert set(comparison.read_all(claims, tables.published_folder())) == {
        claim.study for claim in claims.claims.values()
    }
    assert comparison.read_all(claims, root / "nowhere") == {}
