"""Notebook 04: memory and time of attention, and a cost model.

Attention is measured against T, beside its arithmetic; the cost model is of whole models. All is
measured in fresh processes on one thread each (`memory_cells`). Claims E1 and E2 of claims.yaml
read the table. What is measured in seconds and bytes goes to the cost table alone; slopes, relative
errors and what formulas give go to the other table.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from farcontext import files
from farcontext.measure import cost, formulas
from farcontext.nn.config import ModelConfig
from farcontext.results import tables
from farcontext.studies.efficient_attention import cells as memory_cells
from farcontext.studies.efficient_attention.params import Params
from farcontext.studies.efficient_attention.plan import CHECKED, KNOWN, Row, _cells, config_of
from farcontext.train import runs

NAME = "efficient_attention"
COLUMNS = ["part", "arm", "backend", "length", "width", "layers", "half", "metric", "seed", "value"]
MEASURED = [
    "bytes",
    "seconds",
    "forward_bytes",
    "forward_seconds",
    "flop_per_second",
    "bytes_per_second",
]
DIGITS = 3
GIB = 1 << 30


SHAPES = {  # These configurations are published.
    "SmolLM2-135M": {
        "layers": 30,
        "width": 576,
        "heads": 9,
        "kv_heads": 3,
        "mlp_width": 1536,
        "vocab_size": 49_152,
    },
    "Llama-2-7B": {
        "layers": 32,
        "width": 4096,
        "heads": 32,
        "mlp_width": 11_008,
        "vocab_size": 32_000,
        "tied": False,
    },
    "Llama-3.1-8B": {
        "layers": 32,
        "width": 4096,
        "heads": 32,
        "kv_heads": 8,
        "mlp_width": 14_336,
        "vocab_size": 128_256,
        "tied": False,
    },
}
# These trained lengths are in tokens.
TRAINED = {"SmolLM2-135M": 8192, "Llama-2-7B": 4096, "Llama-3.1-8B": 131_072}


def run(params: Params) -> pd.DataFrame:
    """Measure all, fit the cost model, and write and return the table.

    The fit uses half of the model's grid. The table has one row for each observation.

    part attention: memory_slope, time_slope (log-log, against T) · check: known_allocation
    (measured / true), max_difference (fp32 against fp64) · arithmetic: flop, bytes, intensity ·
    cache, break_even: by published model · training, inference: memory_error, time_error
    (|predicted / measured − 1|), by half of the grid.
    """
    labels, cells = zip(*_cells(params), strict=True)
    found = memory_cells.measure(cells, runs.jobs())
    costs = pd.DataFrame([label | answer for label, answer in zip(labels, found, strict=True)])
    costs, coefficients = _with_predictions(
        params, costs.reindex(columns=[*COLUMNS[:7], "seed", "value", *MEASURED])
    )
    costs = costs.astype(
        dict.fromkeys(("length", "width", "layers", "seed"), "Int64")
    )  # The cost table has these numbers whole, not to 4 digits.
    rows = _slopes(costs) + _checks(costs) + _arithmetic(params) + _models() + _errors(costs)
    table = tables.tidy(rows, COLUMNS)
    tables.write_table(
        table, NAME, params, costs[costs["seconds"].notna() | costs["flop_per_second"].notna()]
    )
    tables.write_text(cost.as_frame(coefficients), NAME, cost.TABLE)
    return table


# ----------------------------------------------------------------------------------- the cost model


def _work(params: Params, row: pd.Series) -> cost.Work:
    return cost.Work(row["part"], int(row["length"]), params.rows, row["backend"])


def _with_predictions(
    params: Params, costs: pd.DataFrame
) -> tuple[pd.DataFrame, cost.Coefficients]:
    """Fit memory and time on the first half; predict both halves.

    It is done for both kinds of work.
    """
    coefficients = {}
    for quantity, column, terms_of in (
        ("memory", "bytes", cost.memory_terms),
        ("time", "seconds", cost.time_terms),
    ):
        costs[f"predicted_{column}"] = np.nan
        for kind in ("training", "inference"):
            grid = costs[costs["part"] == kind]
            shapes = [
                config_of(params, r["arm"], *map(int, r[["length", "width", "layers"]]))
                for _, r in grid.iterrows()
            ]
            terms = [
                terms_of(shape, _work(params, row))
                for shape, (_, row) in zip(shapes, grid.iterrows(), strict=True)
            ]
            fitted = (grid["half"] == "fitted").to_numpy()
            some = [term for term, chosen in zip(terms, fitted, strict=True) if chosen]
            coefficients[quantity, kind] = cost.fit(some, grid[column][fitted])
            predicted = [cost.predict(coefficients[quantity, kind], term) for term in terms]
            costs.loc[grid.index, f"predicted_{column}"] = predicted
    return costs, coefficients


# ----------------------------------------------------------------------------------------- the rows


def slope(lengths: Sequence[float], values: Sequence[float]) -> float:
    """Return the least-squares slope of ln(value) against ln(T).

    It is the power of T that the values grow with.
    """
    x, y = (np.log(np.asarray(numbers, float)) for numbers in (lengths, values))
    return float(np.polyfit(x, y, 1)[0])


def _slopes(costs: pd.DataFrame) -> list[Row]:
    found = []
    attended = costs[costs["part"] == "attention"]
    shared = attended[attended["seed"].isna()]
    for (backend, seed), own in attended.groupby(["backend", "seed"]):
        cells = pd.concat([own, shared[shared["backend"] == backend]])
        for metric, column in (("memory_slope", "bytes"), ("time_slope", "seconds")):
            value = round(slope(cells["length"], cells[column]), DIGITS)
            found.append(
                {
                    "part": "attention",
                    "backend": backend,
                    "seed": seed,
                    "metric": metric,
                    "value": value,
                }
            )
    return found


def _checks(costs: pd.DataFrame) -> list[Row]:
    known, differences = costs[costs["part"] == "known"], costs[costs["part"] == "difference"]
    shares = (known["bytes"] / KNOWN).round(2)
    return [
        {"part": "check", "metric": "known_allocation", "seed": seed, "value": share}
        for seed, share in zip(known["seed"], shares, strict=True)
    ] + [
        {
            "part": "check",
            "metric": "max_difference",
            "backend": row["backend"],
            "length": CHECKED,
            "seed": row["seed"],
            "value": row["value"],
        }
        for _, row in differences.iterrows()
    ]


def _arithmetic(params: Params) -> list[Row]:
    """Return FLOPs and moved bytes of a causal forward pass.

    It is one row's, in fp32. The bytes are the fewest possible, and those moved when T × S is
    written out.
    """
    found = []
    for T in params.lengths:
        flop = formulas.attention_flop(1, params.heads, params.head_width, T * (T + 1) / 2)
        least = formulas.attention_bytes(1, params.heads, params.head_width, T, T, 4)
        written = least + 4 * formulas.score_bytes(1, params.heads, T, T, 4)
        for arm, moved in (("fused", least), ("written out", written)):
            values = {"flop": flop, "bytes": moved, "intensity": flop / moved}
            found += [
                {"part": "arithmetic", "arm": arm, "length": T, "metric": m, "value": v}
                for m, v in values.items()
            ]
    return found


def _models() -> list[Row]:
    """Return the KV cache and attention's break-even of models.

    The cache is at the trained length, 2 bytes a number.
    """
    found = []
    for name, values in SHAPES.items():
        config, T = cost.shape(name, **values), TRAINED[name]
        cache = formulas.kv_cache_bytes(config, T)
        found.append(
            {"part": "cache", "arm": name, "length": T, "metric": "kv_cache_bytes", "value": cache}
        )
        found.append(
            {
                "part": "break_even",
                "arm": name,
                "metric": "tokens",
                "value": round(formulas.break_even(config)),
            }
        )
    return found


def _errors(costs: pd.DataFrame) -> list[Row]:
    grid = costs[costs["part"].isin(["training", "inference"])]
    found = []
    for metric, column in (("memory_error", "bytes"), ("time_error", "seconds")):
        errors = (grid[f"predicted_{column}"] / grid[column] - 1).abs().round(DIGITS)
        labelled = grid[COLUMNS[:7]].assign(metric=metric, value=errors)
        if metric == "time_error":  # Single cells are too noisy to compare with another machine's.
            labelled = labelled.groupby(["part", "half", "metric"], as_index=False)[
                "value"
            ].median()
        found += labelled.to_dict("records")
    return found


# -------------------------------------------------------------------------------- what a page shows


def costs() -> pd.DataFrame:
    """Return what was measured, in seconds and bytes.

    The column `run` tells published rows and this run's apart.
    """
    ours = pd.read_csv(tables.path_in(tables.made(), NAME, "cost"))
    if files.profile() == "laptop":
        return ours.assign(run="published")
    path = tables.path_in(tables.published_folder(), NAME, "cost")
    both = [pd.read_csv(path).assign(run="published")] if path.is_file() else []
    return pd.concat([*both, ours.assign(run="this run")], ignore_index=True)


def coefficients() -> cost.Coefficients:
    """Return the published cost model or, until there is one, this run's."""
    frame = tables.published_text(NAME, cost.TABLE)
    return cost.from_frame(
        pd.read_csv(tables.path_in(tables.made(), NAME, cost.TABLE)) if frame.empty else frame
    )


def would_cost(config: ModelConfig, lengths: Sequence[int], **options: object) -> pd.DataFrame:
    """Return `cost.estimate` for reading: GiB, seconds and percent."""
    found = cost.estimate(config, lengths, coefficients(), **options).set_index("length")
    shown = {f"{kind}, GiB": found[f"{kind}_bytes"] / GIB for kind in ("training", "inference")}
    shown |= {f"{kind}, s": found[f"{kind}_seconds"] for kind in ("training", "inference")}
    shown["KV cache, GiB"] = found["kv_cache_bytes"] / GIB
    return pd.DataFrame(shown | {"attention, % of FLOPs": 100 * found["attention_share"]}).round(2)


def gpu_tables() -> dict[str, pd.DataFrame]:
    """Return the recorded GPU tables by "card, date".

    Each is as results/gpu-<card>/attention.csv holds it; where there are none, the result is empty.
    """
    found = {}
    for folder in sorted(
        path.parent for path in (files.project() / "results").glob("gpu-*/attention.csv")
    ):
        card = files.read_json(folder / "card.json", "card", "date")
        found[f"{card['card']}, {card['date']}"] = pd.read_csv(folder / "attention.csv")
    return found


def gpu_lines(found: dict[str, pd.DataFrame]) -> list[str]:
    """Return one line for each card, or say there is none.

    A line has the fastest bf16 forward pass of each backend, with its pattern and its length.
    """
    if not found:
        return [
            "no GPU table is recorded yet: `make gpu` on a machine with a CUDA card makes "
            "results/gpu-<card>/"
        ]
    lines = []
    for name, table in found.items():
        rows = table[
            (table["dtype"] == "bfloat16")
            & (table["direction"] == "forward")
            & table["tflop_per_s"].notna()
        ]
        best = rows.loc[rows.groupby("backend")["tflop_per_s"].idxmax()]
        said = (
            f"{row['backend']} {row['tflop_per_s']:.0f} TFLOP/s "
            f"({row['pattern']}, {row['length']:.0f} tokens)"
            for _, row in best.iterrows()
        )
        lines.append(f"{name}, as recorded: {' · '.join(said)}")
    return lines
