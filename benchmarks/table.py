"""What all benchmarks share: options, cells and tables.

Option --out names the CSV; cells are processes of their own; a table is text, CSV and figure.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from farcontext import files
from farcontext.results import plotting

FOLDER = Path(__file__).parent.parent / "build" / "benchmarks"
Row = dict[str, object]


def parser_of(script: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with --out, the CSV to write.

    A figure stands beside the CSV.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=FOLDER / f"{Path(script).stem}.csv",
        help="CSV; a PNG stands beside it",
    )
    return parser


def cell(script: str, *options: str) -> list[Row]:
    """Return the rows that the script prints for one cell.

    The script is called with --cell, in a fresh process, and prints them as JSON.
    """
    command = [sys.executable, script, "--cell", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return rows


def save(
    rows: list[Row] | pd.DataFrame,
    out: Path,
    draw: Callable[[pd.DataFrame, Axes], None],
    digits: int = 4,
) -> pd.DataFrame:
    """Write rows as CSV and figure, and return the table.

    The figure is what `draw(frame, axis)` makes of them; it stands beside the CSV.
    """
    frame = pd.DataFrame(rows)
    files.write_atomic(out, frame.round(digits).to_csv(index=False, lineterminator="\n"))
    plotting.style()
    figure, (axis,) = plotting.grid(1)
    draw(frame, axis)
    files.write_atomic(out.with_suffix(".png"), plotting.png(figure))
    print(f"written: {out}, {out.with_suffix('.png').name}")
    return frame


def ratio_bars(frame: pd.DataFrame, axis: Axes, *, x: str, y: str, hue: str, label: str) -> None:
    """Draw ratios as bars from 1.

    A bar above 1 is faster, one below is slower; the axis is one of powers of two.
    """
    wide = frame.pivot_table(index=x, columns=hue, values=y, sort=False)
    (wide - 1).plot.bar(ax=axis, bottom=1, rot=0, width=0.8)
    axis.axhline(1, color="black", lw=0.8)
    axis.set(ylabel=label)
    axis.legend(frameon=False, title=None)
