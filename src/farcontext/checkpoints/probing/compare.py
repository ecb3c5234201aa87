"""Two checkpoints on the same contexts, paired.

Both are probed as `probe.measure` probes one, so an earlier probe of either is used again. Contexts
with the same number are the same tokens for both, and so are the windows of real text. Their
differences say more than two intervals beside each other: what makes one context hard makes it hard
for both.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from farcontext import files
from farcontext.checkpoints import hub, probe
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.probe import Measured, Options
from farcontext.checkpoints.probing import machine
from farcontext.checkpoints.probing.summary import finite
from farcontext.checkpoints.rope.outline import outline
from farcontext.checkpoints.rope.sections import reach
from farcontext.files import UserError
from farcontext.measure.stats import t_interval
from farcontext.schema import Row

ALIKE = ("keys", "seed", "text", "dtype", "lengths")  # Else the contexts are not the same.


def compared(
    paths: tuple[Path, Path],
    options: Options,
    text: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Row:
    """Probe two checkpoints, one after the other, and return their paired differences.

    Args:
        paths: the two; differences are the second minus the first.
        options: as `probe.measure` takes them; without lengths, those that both have positions for.
        text: as there.
        device: as `machine.device_of`.
        dtype: as `load.load`, or auto.

    Raises:
        UserError: as `probe.measure`, or two tokenizers that make other tokens of a text.
    """
    found: list[Measured] = []
    vocabulary = None
    if options.lengths is None:
        most = min(_promised(path) for path in paths)
        usual = tuple(length for length in probe.LENGTHS if length <= most)
        options = replace(options, lengths=usual or None)
    for path in paths:
        loaded = machine.loaded(path, device, dtype)
        if vocabulary not in (None, words := _words(loaded)):
            raise UserError(
                f"{path}: its tokenizer is not that of {paths[0]}: expected the same one, so that "
                "both read the same tokens"
            )
        vocabulary = words
        found.append(probe.measure(loaded, options, text))
        del loaded  # One model at a time is held.
    return paired(*found)


def _promised(path: Path) -> int:
    """Return the window that a folder's configuration names, before anything is loaded."""
    config = hub.resolved(path) / "config.json"
    found = files.read_json(config) if config.is_file() else {}
    known = isinstance(found, dict) and "model_type" in found
    return (reach(outline(found, config)) if known else None) or probe.LENGTHS[-1]


def _words(loaded: Pretrained) -> str:
    """Return a digest of what a tokenizer makes of texts."""
    return files.sha256_json(sorted(loaded.tokenizer.get_vocab().items()))


def paired(first: Measured, second: Measured) -> Row:
    """Return the differences of two probes, with 95 % intervals.

    They are the second minus the first. `needles`: a row a length, over contexts that both
    answered: exact, choice, loss (nats an answer). `position`: the mean loss by position over
    windows. `tasks`: of the suite.

    Raises:
        UserError: the contexts are not the same.
    """
    for key in ALIKE:
        if first.options[key] != second.options[key]:
            raise UserError(
                f"{key} = {first.options[key]} and {second.options[key]}: expected the same"
            )
    needles = ["length", "context"]
    return {
        "first": first.name,
        "second": second.name,
        "options": {key: first.options[key] for key in ALIKE},
        "needles": _differences(first.needles, second.needles, "length", needles, METRICS),
        "position": _differences(
            first.position, second.position, "position", ["position", "document"], ("loss",)
        ),
        "tasks": [
            {"task": task} | row
            for task in (first.tasks["task"].unique() if len(first.tasks) else ())
            for row in _differences(
                *(one.tasks[one.tasks["task"] == task] for one in (first, second)),
                "length",
                needles,
                METRICS,
            )
        ],
    }


METRICS = ("exact", "choice", "loss")


def _differences(
    one: pd.DataFrame,
    other: pd.DataFrame,
    by: str,
    unit: Sequence[str],
    metrics: Sequence[str],
) -> list[Row]:
    """Return both means and their paired difference, by metric.

    There is a row a value of `by`.
    """
    if not len(one) or not len(other):
        return []
    means = [frame.groupby([*unit])[[*metrics]].mean() for frame in (one, other)]
    both = means[0].merge(
        means[1], left_index=True, right_index=True, suffixes=("_first", "_second")
    )
    rows = []
    for value, part in both.groupby(level=by):
        row: dict[str, Any] = {by: int(value), "pairs": len(part)}
        for metric in metrics:
            gap = t_interval(part[f"{metric}_second"] - part[f"{metric}_first"])
            row[metric] = {
                "first": float(part[f"{metric}_first"].mean()),
                "second": float(part[f"{metric}_second"].mean()),
                "difference": gap.estimate,
                "low": finite(gap.low),
                "high": finite(gap.high),
            }
        rows.append(row)
    return rows


def lines(found: Row) -> list[str]:
    """Return the comparison as printed lines."""
    said = [f"{found['second']} minus {found['first']}, on the same contexts (95 %)"]
    said += ["length  pairs  found      difference               loss of the answer, nats"]
    for row in found["needles"]:
        said.append(
            f"{row['length']:6d}  {row['pairs']:5d}  {_both(row['exact'])}  "
            f"{_gap(row['exact'])}  {_gap(row['loss'])}"
        )
    for row in found["tasks"]:
        said.append(
            f"{row['task']}, {row['length']} tokens: {_both(row['choice'])} right among "
            f"choices, {_gap(row['choice'])}"
        )
    if found["position"]:
        last = found["position"][-1]
        said.append(
            f"loss of real text from position {last['position']} on: {_gap(last['loss'])} nats a "
            "token"
        )
    return said


def _both(value: Row) -> str:
    return f"{value['first']:.2f} {value['second']:.2f}"


def _gap(value: Row) -> str:
    if value["low"] is None:
        return f"{value['difference']:+.3f} (interval unknown)"
    return f"{value['difference']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f})"
