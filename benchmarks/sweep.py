"""Do two single-threaded processes beat one with two threads?

Four trainings run both ways, in one run of this script.

Sweep: `runs.sweep`, a process a core, one thread each. Serial: the same four, one after another,
two threads. Each way starts with an empty cache; the sweep's time includes starting its processes
and importing torch in them.
"""

import os
import tempfile
import time

import pandas as pd
import table
import torch
from joblib.externals.loky import get_reusable_executor
from matplotlib.axes import Axes

from farcontext.nn.config import ModelConfig
from farcontext.train import keys, loop, runs
from farcontext.train.config import BatchConfig, OptimizerConfig, RunConfig


def configurations(steps: int) -> list[RunConfig]:
    """Return four encoders that differ in their seed."""
    model = ModelConfig(
        kind="encoder",
        vocab_size=keys.vocabulary_size(),
        width=64,
        layers=3,
        heads=2,
        mlp_width=128,
        max_length=128,
        norm="layer",
        mlp="geglu",
        embedding_norm=True,
        window=17,
        global_every=3,
    )
    batch = BatchConfig(objective="mlm", length=128, rows=32)
    optimizer = OptimizerConfig(lr=1e-3)
    return [
        RunConfig(
            model=model, batch=batch, optimizer=optimizer, steps=steps, save_every=steps, seed=seed
        )
        for seed in range(4)
    ]


def timed(label: str, steps: int) -> float:
    """Return the seconds of one way, in a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FARCONTEXT_CACHE"] = cache
        started = time.perf_counter()
        if label == "sweep":
            os.environ["FARCONTEXT_JOBS"] = "2"
            runs.sweep(dict(enumerate(configurations(steps))))
            # Workers keep the cache that they were started with.
            get_reusable_executor().shutdown()
        else:
            torch.set_num_threads(2)
            for run in configurations(steps):
                loop.train(run)
        return time.perf_counter() - started


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw each pair's ratio."""
    axis.plot(frame["pair"], frame["ratio"], "o")
    axis.axhline(1, color="black", lw=0.8)
    axis.set(xlabel="pair", xticks=frame["pair"], ylabel="speed of the sweep / serial")


def main() -> None:
    """Alternate the two ways and print their tokens/s.

    The ratio of each pair is printed too.
    """
    parser = table.parser_of(__file__, __doc__)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    tokens = 4 * arguments.steps * 32 * 128
    rows = []
    for pair in range(arguments.pairs):
        seconds = {label: timed(label, arguments.steps) for label in ("sweep", "serial")}
        rows.append(
            {"pair": pair}
            | {f"{label}_tokens_per_s": tokens / s for label, s in seconds.items()}
            | {"ratio": seconds["serial"] / seconds["sweep"]}
        )
    frame = table.save(rows, arguments.out, draw)
    print(frame.round(2).to_string(index=False))
    print(f"median ratio sweep / serial: {frame['ratio'].median():.2f}")


if __name__ == "__main__":
    main()
