"""Times of attention on this CPU, by backend, length and pattern.

Every backend that can run here is timed forward and backward, against `sdpa`.

    python benchmarks/attention_backends.py [--lengths 256 1024 4096]

fp32, 8,192 tokens a call, 4 heads of 32 channels, as in benchmarks/training_step.py; a window is |i
− j| ≤ 64. Backends alternate within a round; a length is a process of its own. `reference` and
`online` run to --slow-to tokens: the one holds T² numbers several times, the other is made to be
read. On CUDA, and xformers: `make gpu`.
"""

import json
import statistics
import time

import pandas as pd
import table
import torch
from matplotlib.axes import Axes

from farcontext.nn import attention
from farcontext.nn.local import is_local
from farcontext.nn.masks import Pattern

TOKENS, HEADS, HEAD_WIDTH, HALF_WINDOW = 8192, 4, 32, 64
PATTERNS = {"full": Pattern(), "causal": Pattern.causal(), "window": Pattern.local(HALF_WINDOW)}
SLOW = ("reference", "online")


def backends_of(pattern: Pattern, length: int, slow_to: int) -> list[str]:
    """Return the backends to time."""
    local = ["sdpa_local"] if is_local(pattern, length, length) else []
    return ["sdpa", *local, *(SLOW if length <= slow_to else ())]


def run_cell(length: int, repeats: int, slow_to: int) -> list[table.Row]:
    """Return one row a pattern and backend.

    A row has median milliseconds, and the median over rounds of its speed over sdpa's.
    """
    torch.manual_seed(0)
    q, k, v, d_out = torch.randn(4, TOKENS // length, length, HEADS, HEAD_WIDTH).unbind()
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    rows: list[table.Row] = []
    for name, pattern in PATTERNS.items():
        seconds: dict[str, list[float]] = {
            backend: [] for backend in backends_of(pattern, length, slow_to)
        }
        for index in range(repeats + 1):
            for backend, own in seconds.items():
                start = time.perf_counter()
                torch.autograd.grad(attention.attend(*leaves, pattern, backend), leaves, d_out)
                if index:  # The first round warms up, and makes the masks.
                    own.append(time.perf_counter() - start)
        for backend, own in seconds.items():
            ratio = statistics.median(
                base / mine for base, mine in zip(seconds["sdpa"], own, strict=True)
            )
            rows.append(
                {
                    "length": length,
                    "pattern": name,
                    "backend": backend,
                    "threads": torch.get_num_threads(),
                    "milliseconds": round(1e3 * statistics.median(own), 2),
                    "speed_over_sdpa": round(ratio, 3),
                }
            )
    return rows


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw milliseconds by length."""
    for (pattern, backend), part in frame.groupby(["pattern", "backend"], sort=False):
        marks = {"full": "o-", "causal": "s--", "window": "^:"}
        axis.plot(
            part["length"], part["milliseconds"], marks[pattern], label=f"{backend}, {pattern}"
        )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="tokens a row",
        ylabel=f"milliseconds of {TOKENS:,} tokens",
    )
    axis.set_xticks(sorted(set(frame["length"])), [f"{n:,}" for n in sorted(set(frame["length"]))])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def main() -> None:
    """Run every length in its own process, and keep the table.

    The table is printed, written and drawn.
    """
    parser = table.parser_of(__file__, __doc__)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[256, 1024, 4096], help="tokens a row"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--slow-to", type=int, default=1024)
    parser.add_argument(
        "--cell", action="store_true", help="one length in this process: rows as JSON"
    )
    args = parser.parse_args()
    if args.cell:
        torch.set_num_threads(args.threads)
        print(json.dumps(run_cell(args.lengths[0], args.repeats, args.slow_to)))
        return
    common = (f"--repeats={args.repeats}", f"--threads={args.threads}", f"--slow-to={args.slow_to}")
    rows: list[table.Row] = []
    for length in args.lengths:
        rows += table.cell(__file__, f"--lengths={length}", *common)
    table.save(rows, args.out, draw)


if __name__ == "__main__":
    main()
