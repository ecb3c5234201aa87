"""One figure style, and DataFrame → Figure.

This module needs no torch, and computes nothing that a table does not hold.
"""

import io
import warnings
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import PIL.Image
import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    """Return a figure as a PNG of at most 256 colours.

    That takes a third of the bytes, so that notebooks stay small in git.
    """
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    PIL.Image.open(full).convert("RGB").quantize(256).save(small, "png", optimize=True)
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


def band_and_points(axis: Axes, frame: pd.DataFrame, x: str) -> None:
    """Draw published rows as a line, and this run's as circles.

    The line has the range over seeds, and the circles are hollow.
    """
    published, ours = (frame[frame["run"] == run] for run in ("published", "this run"))
    if len(published):
        sns.lineplot(
            published,
            x=x,
            y="value",
            errorbar=("pi", 100),
            ax=axis,
            label="published, range over seeds",
        )
    if len(ours):
        axis.plot(ours[x], ours["value"], "o", mfc="none", mec="C1", ms=5, label="this run")
    axis.legend(frameon=False)
