"""Loss by position in one real row longer than the trained length.

The row is twice as long as the checkpoint was trained for: does a scheme that passed the screen
hold?

    python benchmarks/beyond_trained_length.py

Notebook 07 screens schemes by a jump in the positions, at the price of 768 tokens; this reads a
whole play. Minutes a scheme on a CPU, so it runs once: the table is kept in results/cpu/ with what
it cost, and the notebook shows it as recorded.
"""

import argparse
import time
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import torch
import transformers

from farcontext import files
from farcontext.checkpoints import load
from farcontext.checkpoints.far_context import loss_by_position
from farcontext.checkpoints.rope_loss import rebuilt
from farcontext.data import corpus
from farcontext.results import tables
from farcontext.studies.context_extension.real import DOMAIN, changes


def main() -> None:
    """Read the play under each scheme, print the table and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=files.project() / "build" / "smollm2")
    parser.add_argument("--schemes", nargs="+", default=["rope", "ntk", "yarn"], help="at factor 2")
    parser.add_argument(
        "--length", type=int, default=16384, help="tokens of the first play that has as many"
    )
    parser.add_argument("--bucket", type=int, default=1024, help="tokens whose losses are averaged")
    parser.add_argument(
        "--out",
        type=Path,
        default=files.project() / "results" / "cpu" / "beyond_trained_length.csv",
    )
    args = parser.parse_args()
    loaded = load.load(args.checkpoint)
    documents = corpus.load_documents(files.project() / "build" / "corpus", "test", DOMAIN)
    rows = (
        loaded.tokenizer(d.text, add_special_tokens=False, verbose=False)["input_ids"]
        for d in documents
    )
    row = next(ids[: args.length] for ids in rows if len(ids) >= args.length)
    found, seconds = [], {}
    for scheme in args.schemes:
        start, other = time.perf_counter(), changes(loaded, scheme)
        with rebuilt(loaded.model, **other) if other else nullcontext():
            losses = loss_by_position(loaded, [row], length=args.length, bucket=args.bucket)
        seconds[scheme] = round(time.perf_counter() - start)
        found += [
            {"scheme": scheme, "position": r["position"], "loss": round(r["loss"], 4)}
            for r in losses
        ]
        frame = pd.DataFrame(found)
        print(
            f"{scheme}: {seconds[scheme]} s\n",
            frame[frame["scheme"] == scheme].to_string(index=False),
            flush=True,
        )
    files.write_atomic(args.out, frame.to_csv(index=False))
    card = {
        "cpu": tables.processor(),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "length": args.length,
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    files.write_json(
        args.out.with_suffix(".json"),
        card | versions | {"weights": files.sha256_file(args.checkpoint / "model.safetensors")},
    )


if __name__ == "__main__":
    main()
