"""Peak memory of attention, forward and backward, in the three backends that compute every pattern.

    python benchmarks/attention_memory.py --out attention_memory.csv

fp32, B = 1, 4 heads of 32 channels, no mask. Every cell is a process of its own: peak resident memory (getrusage) less what
was resident before the call, inputs and their gradients included in the former, inputs in the latter. Linux only: the
kernel is asked to forget the higher peak of importing torch.
"""

import argparse
import csv
import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from longctx.attention import attend
from longctx.files import write_atomic
from longctx.patterns import Pattern

BACKENDS = ("reference", "online", "sdpa")
MIB = 1 << 20


def resident() -> int:
    """Return this process's resident bytes now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_cell(backend: str, length: int, causal: bool) -> dict:
    """Return one row: peak bytes over the baseline, and seconds, of one forward and backward pass."""
    torch.set_num_threads(1)
    pattern = Pattern.causal() if causal else Pattern()
    for T in (32, length):  # a small call first: what a backend loads once is not its memory
        q, k, v = torch.randn(3, 1, T, 4, 32).unbind()
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        Path("/proc/self/clear_refs").write_text("5")
        before, start = resident(), time.perf_counter()
        attend(*leaves, pattern, backend).sum().backward()
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"length": length, "backend": backend, "peak_mib": (peak - before) / MIB, "seconds": seconds}


def main() -> None:
    """Parse the command line, run every cell in its own process, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096], help="tokens")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--causal", action="store_true", help="j ≤ i instead of every key")
    parser.add_argument("--out", type=Path, help="CSV")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(run_cell(args.backends[0], args.lengths[0], args.causal)))
        return
    rows = []
    for length in args.lengths:
        for backend in args.backends:
            cell = ["--cell", f"--lengths={length}", f"--backends={backend}", *(["--causal"] * args.causal)]
            done = subprocess.run([sys.executable, __file__, *cell], check=True, stdout=subprocess.PIPE, text=True)
            row = json.loads(done.stdout)
            base = next((r["peak_mib"] for r in rows if r["length"] == length), row["peak_mib"])
            row = {**row, "share_of_first": round(row["peak_mib"] / base, 3)}
            rows.append(row | {"peak_mib": round(row["peak_mib"], 1), "seconds": round(row["seconds"], 3)})
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.out:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(args.out, text.getvalue())


if __name__ == "__main__":
    main()
