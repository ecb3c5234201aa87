"""story_tables.py pairs arms by seed, and says in words where which has more."""

import pandas as pd

from farcontext.studies.story_tables import compared, told


def rows(values: dict[int, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"changes": changes, "seed": seed, "value": value}
            for changes, some in values.items()
            for seed, value in enumerate(some)
        ]
    )


ONE = rows({0: [10, 21, 29], 3: [1, 2, 3], 6: [5, 9, 1]})
OTHER = rows({0: [0, 10, 20], 3: [3, 4, 5], 6: [1, 9, 5]})


def test_differences_are_paired_by_seed_and_said_in_words() -> None:
    table = compared(ONE, OTHER, ["changes"], ("BM25", "whole"))
    assert table["difference"].to_dict() == {0: 10, 3: -2, 6: 0}
    assert table["more"].to_dict() == {0: "BM25", 3: "whole", 6: "not told apart"}
    assert (table["low"] <= table["difference"]).all() and table.loc[3, "low"] == -2
    assert told(table, "more after {}", "in 100") == (
        "more after BM25 with 0 changes (+10 in 100); more after whole with 3 changes (-2 in 100); "
        "not told apart with 6 changes (+0 in 100)"
    )
    alike = table.assign(more="BM25")
    assert told(alike, "{}", "points") == "BM25 with 0, 3, 6 changes (-2 to +10 points)"


def test_an_arm_without_a_column_serves_all_its_values_and_one_seed_decides_nothing() -> None:
    sized = pd.concat([ONE.assign(tokens=32), ONE.assign(tokens=64)])
    table = compared(sized, OTHER.assign(tokens=0), ["tokens", "changes"], ("a", "b"))
    assert table["difference"].to_dict()[64, 3] == table["difference"].to_dict()[32, 3] == -2
    single = compared(ONE[ONE["seed"] == 0], OTHER, ["changes"], ("a", "b"))
    assert set(single["more"]) == {"not told apart"}
