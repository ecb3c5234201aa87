"""Tokens a second of our decoder against transformers' `generate`.

Our decoder runs SmolLM2's weights; the two stand side by side.

    python benchmarks/generation.py [--prompts 512 2048] [--new 33] [--repeats 5]

fp32, batch 1, greedy, the same prompt, the same number of threads (the machine's cores), one
process; the two alternate, and every round they must make the same tokens. `decode` is of tokens
after the first, `whole` counts reading the prompt too. Ours is `generation.stream` on a model that
`generation.laid_out` prepared once; how long that took is told.
"""

import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import table
import torch
from matplotlib.axes import Axes
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from farcontext.checkpoints import load
from farcontext.checkpoints.convert import from_hf
from farcontext.nn.generation import laid_out, stream

ROOT = Path(__file__).parent.parent
TEXT = ROOT / "README.md"


class Clock(BaseStreamer):
    """Note when transformers hands out the prompt and each token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        """Take a token."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Take the end."""


def by_transformers(
    model: torch.nn.Module, prompt: Tensor, new: int
) -> tuple[list[int], list[float]]:
    """Return the new tokens and their times, counted from the call."""
    clock, start = Clock(), time.perf_counter()
    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        use_cache=True,
        max_new_tokens=new,
        eos_token_id=None,
        streamer=clock,
    )
    return found[0, prompt.shape[1] :].tolist(), [at - start for at in clock.times[1:]]


def by_ours(model: torch.nn.Module, prompt: Tensor, new: int) -> tuple[list[int], list[float]]:
    """Return the new tokens and their times, from our decoder."""
    tokens, times, start = [], [], time.perf_counter()
    for token_B in stream(model, prompt, new):
        tokens.append(int(token_B))
        times.append(time.perf_counter() - start)
    return tokens, times


def run_cell(checkpoint: Path, length: int, new: int, repeats: int) -> list[table.Row]:
    """Return one row an arm.

    A row has median tokens/s, and the median over rounds of its speed over transformers'.

    Raises:
        ValueError: the two made different tokens.
    """
    loaded = load.load(checkpoint)
    prompt = loaded.tokenizer(TEXT.read_text(encoding="utf-8") * 2, return_tensors="pt").input_ids[
        :, :length
    ]
    start = time.perf_counter()
    ours = laid_out(from_hf(loaded.model))
    prepared = time.perf_counter() - start
    arms: dict[str, Callable[[int], tuple[list[int], list[float]]]] = {
        "transformers": lambda count: by_transformers(loaded.model, prompt, count),
        "ours": lambda count: by_ours(ours, prompt, count),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for index in range(repeats + 1):
        made = {}
        for name, arm in arms.items():
            made[name], times = arm(new if index else 2)  # The first round warms up.
            if index:
                seconds[name].append(((times[-1] - times[0]) / (new - 1), times[-1] / new))
        if made["ours"] != made["transformers"]:
            raise ValueError(
                f"tokens = {made['ours']}: expected those of transformers, {made['transformers']}"
            )
    rows = []
    for name in arms:
        row: table.Row = {
            "prompt": length,
            "new": new,
            "threads": torch.get_num_threads(),
            "arm": name,
        }
        for part, what in enumerate(("decode", "whole")):
            own, theirs = ([pair[part] for pair in seconds[arm]] for arm in (name, "transformers"))
            row[f"{what}_tokens_per_s"] = round(1 / statistics.median(own), 2)
            row[f"{what}_ratio"] = round(
                statistics.median(t / o for t, o in zip(theirs, own, strict=True)), 3
            )
        rows.append(row | {"prepared_in_s": round(prepared, 2) if name == "ours" else 0.0})
    return rows


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw our ratios by length of the prompt."""
    long = frame[frame["arm"] == "ours"].melt(
        "prompt", ["decode_ratio", "whole_ratio"], "what", "ratio"
    )
    long["what"] = long["what"].map(
        {"decode_ratio": "tokens after the first", "whole_ratio": "prompt included"}
    )
    table.ratio_bars(long, axis, x="prompt", y="ratio", hue="what", label="speed over transformers")
    axis.set(xlabel="tokens of prompt")


def main() -> None:
    """Run every length in its own process, and keep the table.

    The table is printed, written and drawn.
    """
    parser = table.parser_of(__file__, __doc__)
    parser.add_argument(
        "--checkpoint", type=Path, default=ROOT / "build" / "smollm2", help="folder or GGUF file"
    )
    parser.add_argument("--prompts", type=int, nargs="+", default=[512, 2048], help="tokens")
    parser.add_argument("--new", type=int, default=33, help="tokens to make")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of each arm")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--cell", action="store_true", help="one length in this process: rows as JSON"
    )
    args = parser.parse_args()
    if args.cell:
        logging.getLogger("transformers").setLevel(logging.ERROR)
        torch.set_num_threads(args.threads)
        print(json.dumps(run_cell(args.checkpoint, args.prompts[0], args.new, args.repeats)))
        return
    rows: list[table.Row] = []
    for length in args.prompts:
        options = (
            f"--prompts={length}",
            f"--new={args.new}",
            f"--repeats={args.repeats}",
            f"--threads={args.threads}",
        )
        rows += table.cell(__file__, *options, f"--checkpoint={args.checkpoint}")
    table.save(rows, args.out, draw)


if __name__ == "__main__":
    main()
