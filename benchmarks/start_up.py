"""What a config error costs in processor seconds.

`farcontext study NAME` reads a bad params.yaml; `import torch` stands beside it.

python benchmarks/start_up.py
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import table
from matplotlib.axes import Axes

from farcontext import files

TRIES = 5


def cpu_seconds(folder: str, *command: str) -> float:
    """Return the least processor time of some tries.

    Other processes disturb the least time least.
    """
    least = float("inf")
    for _ in range(TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return least


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw the seconds."""
    axis.barh(frame["command"], frame["cpu_seconds"])
    axis.set(xlabel="processor seconds")


def main() -> None:
    """Print the seconds and the ratios, and write them."""
    arguments = table.parser_of(__file__, __doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files.write_atomic(Path(folder) / "dvc.yaml", "stages: {}\n")
        files.write_atomic(Path(folder) / "params.yaml", "profile: 7\n")
        empty = cpu_seconds(folder, sys.executable, "-c", "pass")
        error = cpu_seconds(
            folder, str(Path(sys.executable).with_name("farcontext")), "study", "model_anatomy"
        )
        torch = cpu_seconds(folder, sys.executable, "-c", "import torch")
    seconds = {"empty Python": empty, "config error": error, "import torch": torch}
    rows = [
        {"command": name, "cpu_seconds": s, "share_of_import_torch": (s - empty) / (torch - empty)}
        for name, s in seconds.items()
    ]
    frame = table.save(rows, arguments.out, draw)
    print(frame.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
