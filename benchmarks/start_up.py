"""What a config error costs: processor seconds of `longctx study NAME` on a bad params.yaml, beside `import torch`.

python benchmarks/start_up.py
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from longctx import files

TRIES = 5


def cpu_seconds(folder: str, *command: str) -> float:
    """Return the least processor time of some tries, what other processes disturb least."""
    least = float("inf")
    for _ in range(TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return least


def main() -> None:
    """Print the seconds and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        files.write_atomic(Path(folder) / "dvc.yaml", "stages: {}\n")
        files.write_atomic(Path(folder) / "params.yaml", "profile: 7\n")
        empty = cpu_seconds(folder, sys.executable, "-c", "pass")
        error = cpu_seconds(folder, str(Path(sys.executable).with_name("longctx")), "study", "model_anatomy")
        torch = cpu_seconds(folder, sys.executable, "-c", "import torch")
    print(f"empty Python {empty:.2f} s, config error {error:.2f} s, import torch {torch:.2f} s")
    print(f"config error / import torch = {(error - empty) / (torch - empty):.2f}")


if __name__ == "__main__":
    main()
