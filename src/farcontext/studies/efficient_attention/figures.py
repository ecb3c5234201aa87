"""Figures of notebook 04: memory and time, the roofline, and the predictions.

Memory and time are drawn against T; the predicted values are drawn against the measured ones.
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from farcontext.results.plotting import grid

MIB, GIGA = 1 << 20, 1e9
COLORS = {"reference": "C3", "online": "C0", "sdpa": "C2"}
NAMES = {"reference": "plain", "online": "online softmax", "sdpa": "fused (sdpa)"}
LOOKS = {"training": "C0", "inference": "C1"}


def _lengths(axis: Axes, lengths: pd.Series) -> None:
    """Label a log axis of tokens at powers of four.

    Labels are short: 512, 2k, 8k, 32k.
    """
    low, high = (int(np.log2(x)) for x in (lengths.min(), lengths.max()))
    ticks = [2**n for n in range(low, high + 1, 2)]
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(t) if t < 1024 else f"{t // 1024}k" for t in ticks])
    axis.xaxis.set_minor_locator(NullLocator())


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the published rows where there are some, else this run's."""
    published = rows[rows["run"] == "published"]
    return published if len(published) else rows


def _against_length(
    axis: Axes, rows: pd.DataFrame, column: str, unit: float, slopes: dict[str, float]
) -> None:
    for backend, color in COLORS.items():
        cells = rows[rows["backend"] == backend].assign(shown=lambda frame: frame[column] / unit)
        ours = cells[cells["run"] == "this run"]
        sns.lineplot(
            _shown(cells),
            x="length",
            y="shown",
            errorbar=("pi", 100),
            color=color,
            ax=axis,
            legend=False,
        )
        axis.plot(ours["length"], ours["shown"], "o", mfc="none", mec=color, ms=5)
        axis.plot([], [], color=color, label=f"{NAMES[backend]}, slope {slopes[backend]:.2f}")
    axis.set_yscale("log")
    _lengths(axis, rows["length"])
    axis.set(xlabel="tokens T")
    axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def against_length(table: pd.DataFrame, costs: pd.DataFrame) -> Figure:
    """Draw peak memory and seconds of one head's attention by T.

    The work is a forward and a backward pass; both axes are logarithmic.

    Args:
        table: rows of metrics memory_slope and time_slope; costs: rows of part attention; both with
            run.
    """
    rows = costs[costs["part"] == "attention"]
    figure, axes = grid(2, height=3.9)
    for axis, (column, unit, metric, label) in zip(
        axes,
        (
            ("bytes", MIB, "memory_slope", "peak memory, MiB"),
            ("seconds", 1.0, "time_slope", "seconds"),
        ),
        strict=True,
    ):
        slopes = _shown(table[table["metric"] == metric]).groupby("backend")["value"].mean()
        _against_length(axis, rows, column, unit, slopes)
        axis.set_ylabel(label)
    return figure


def roofline(table: pd.DataFrame, costs: pd.DataFrame) -> Figure:
    """Draw the reached FLOP/s against FLOPs a byte, under the machine's ceilings.

    The ceilings are measured. A point is the forward pass at one length.

    Args:
        table: rows of part arithmetic, metrics flop and intensity; costs: rows of parts attention
            and ceiling.
    """
    ceiling = _shown(costs[costs["part"] == "ceiling"]).iloc[0]
    top, bandwidth = ceiling["flop_per_second"] / GIGA, ceiling["bytes_per_second"] / GIGA
    exact = _shown(table[table["part"] == "arithmetic"]).pivot_table(
        index="length", columns=["arm", "metric"], values="value"
    )
    attended = _shown(costs[costs["part"] == "attention"])
    figure, (axis,) = grid(1, height=3.6)
    x = np.geomspace(1, 2e4, 200)
    axis.plot(x, np.minimum(top, bandwidth * x), color="0.3")
    axis.annotate(
        f"matrix product, {top:.0f} GFLOP/s",
        (2e4, top),
        (0, 4),
        textcoords="offset points",
        ha="right",
    )
    axis.annotate(
        f"copy, {bandwidth:.0f} GB/s",
        (1.1, bandwidth * 1.1),
        (10, 0),
        textcoords="offset points",
        va="top",
    )
    for backend, color in COLORS.items():
        cells = (
            attended[attended["backend"] == backend].groupby("length")["forward_seconds"].median()
        )
        cells = cells[cells.index.isin(exact.index)]
        moved = exact["written out" if backend == "reference" else "fused"].loc[cells.index]
        reached = moved["flop"] / cells / GIGA
        axis.plot(
            moved["intensity"], reached, "o-", color=color, lw=0.8, ms=5, label=NAMES[backend]
        )
        for T, side in ((cells.index.min(), (-8, -14)), (cells.index.max(), (-8, 6))):
            word = str(T) if T < 1024 else f"{T // 1024:.0f}k"
            axis.annotate(word.removesuffix(".0"), (moved["intensity"][T], reached[T]), side,
                          textcoords="offset points", fontsize=8, color=color)  # fmt: skip
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="FLOPs a byte moved",
        ylabel="GFLOP/s reached",
        ylim=(0.1, 3 * top),
    )
    axis.legend(frameon=False, title="T beside the points", loc="lower right")
    return figure


def predicted(costs: pd.DataFrame) -> Figure:
    """Draw predicted against measured memory and seconds.

    Fitted cells are dots, held-out cells are hollow; dotted lines are at ±15 %.

    Args:
        costs: rows of parts training and inference, with half, measured and predicted bytes and
            seconds.
    """
    rows = _shown(costs[costs["part"].isin(LOOKS)])
    figure, axes = grid(2, height=3.5)
    for axis, (column, unit, label) in zip(
        axes, (("bytes", MIB, "peak memory, MiB"), ("seconds", 1.0, "seconds")), strict=True
    ):
        ends = np.array([rows[column].min(), rows[column].max()]) / unit * np.array([0.7, 1.4])
        axis.plot(ends, ends, color="0.6", lw=1)
        for share in (0.85, 1.15):
            axis.plot(ends, share * ends, color="0.6", lw=1, ls=":")
        for kind, color in LOOKS.items():
            for half, look in (("fitted", {"ms": 3}), ("held out", {"ms": 6, "mfc": "none"})):
                at = rows[(rows["part"] == kind) & (rows["half"] == half)]
                axis.plot(at[column] / unit, at[f"predicted_{column}"] / unit, "o", color=color,
                          label=f"{kind}, {half}", **look)  # fmt: skip
        axis.set(
            xscale="log", yscale="log", xlabel=f"measured {label}", ylabel=f"predicted {label}"
        )
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure
