"""One figure style, and DataFrame → Figure.

This module needs no torch, and computes nothing that a table does not hold.
"""

import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import PIL.Image
import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from farcontext import files

# transformers, which a study may import next, asks for widgets as soon as it runs in a notebook.
warnings.filterwarnings("ignore", message="IProgress not found")

DPI = 90
WIDTH = 7.2  # A notebook's text column is so many inches wide.


def style() -> None:
    """Set the one style; call it in a notebook's first code cell."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.hashsalt": "farcontext",  # Without it, every SVG has ids of its own.
            "svg.fonttype": "path",
        }
    )
    matplotlib.rcParams["axes.titlesize"] = "medium"


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG of at most 128 colours.

    That takes a fourth of the bytes, so that notebooks stay small in git.
    """
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    # An octree keeps thin lines' colours apart, where a median cut merges them.
    colours = PIL.Image.open(full).convert("RGB").quantize(128, PIL.Image.Quantize.FASTOCTREE)
    colours.save(small, "png", optimize=True)
    return small.getvalue()


def save(figure: Figure, study: str, name: str) -> Path:
    """Save a figure for the paper as an SVG.

    The file is build/<profile>/studies/<study>/figures/<name>.svg, with the same bytes every time.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    # An open figure would be shown twice in a notebook, also as the cell's value.
    plt.close(figure)
    return files.write_atomic(
        files.build("studies", study, "figures", f"{name}.svg"), buffer.getvalue()
    )


def grid(columns: int, rows: int = 1, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """Return a figure of the standard width and its axes.

    The axes are in reading order, and the height is in inches a row.
    """
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), squeeze=False)
    # The printer is set here because the first figure makes the backend set a printer of its own.
    if (shell := get_ipython()) is not None:
        shell.display_formatter.formatters["image/png"].for_type(Figure, png)
    return figure, list(axes.flat)


def leading(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the published rows, where there are any.

    A figure without room for two runs shows these.
    """
    return frame[frame["run"] == "published"] if "published" in set(frame["run"]) else frame


def curves(
    axis: Axes,
    frame: pd.DataFrame,
    x: str,
    colors: Mapping[Any, Any],
    *,
    by: str | None = None,
    marker: str | None = None,
    size: float = 5,
) -> None:
    """Draw published rows as lines, and this run's as hollow circles.

    A line is the mean over seeds, and its band is their range.

    Args:
        axis: where they are drawn.
        frame: rows with run, x, value and the column `by`.
        x: the column along the axis.
        colors: the colour of each line by its value of `by`, in the order of drawing.
        by: the column that tells the lines apart; None draws one line, whatever its name.
        marker: of the means on a line.
        size: the circles' diameter, in points.
    """
    for name, color in colors.items():
        rows = frame if by is None else frame[frame[by] == name]
        published, ours = (rows[rows["run"] == run] for run in ("published", "this run"))
        if len(published):
            look = {"color": color, "marker": marker, "legend": False}
            sns.lineplot(published, x=x, y="value", errorbar=("pi", 100), ax=axis, **look)
        axis.plot(ours[x], ours["value"], "o", mfc="none", mec=color, ms=size)


def bars(
    axis: Axes, frame: pd.DataFrame, names: Mapping[str, str], *, by: str = "arm", **look: Any
) -> None:
    """Draw horizontal bars of means, with the range over seeds.

    Args:
        axis: where they are drawn; an axis that is not the first of its row has no names.
        frame: rows with value and the column `by`.
        names: each bar's words by its value of `by`, from the top; those without rows are left out.
        by: the column that tells the bars apart.
        look: further arguments of `seaborn.barplot`.
    """
    order = [name for name in names if name in set(frame[by])]
    look = {"errorbar": ("pi", 100), "err_kws": {"linewidth": 1}} | look
    if "hue" not in look:
        look = {"color": "C0"} | look
    sns.barplot(frame, y=by, x="value", order=order, ax=axis, **look)
    first = axis.get_subplotspec().is_first_col()
    axis.set_yticks(range(len(order)), [names[name] if first else "" for name in order])
    axis.set_ylabel("")


def powers(axis: Axes, values: Iterable[float], unit: str = "") -> None:
    """Scale the x axis by powers of two.

    Only these values have ticks.
    """
    ticks = sorted(set(values))
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{tick:,.10g}{unit}" for tick in ticks])
    axis.minorticks_off()


def legend_below(
    figure: Figure, colors: Mapping[str, Any], runs: Iterable[str] = (), title: str | None = None
) -> None:
    """Draw one legend for all axes, below them.

    Args:
        figure: what has the axes.
        colors: each line's colour by its words.
        runs: the rows' column run; where this run is drawn too, the legend tells how.
        title: what the words have in common.
    """
    lines = {words: Line2D([], [], color=color, lw=2) for words, color in colors.items()}
    if "this run" in set(runs):
        hollow = {"marker": "o", "mfc": "none", "mec": "0.3", "ls": ""}
        lines["hollow: this run"] = Line2D([], [], **hollow)
    look = {"loc": "outside lower center", "frameon": False, "fontsize": "small", "title": title}
    for columns in range(len(lines), 0, -1):  # One row, or as few as the figure's width takes.
        legend = figure.legend(lines.values(), lines, ncols=columns, **look)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
