"""The article's listing, quoted, run and mended (notebook 03).

Each of its defects is also tried alone. The quotation is listing.py.txt, which is no code of ours.
Sizes: B batch, T tokens of an answer, D model width, V vocabulary.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from farcontext import files
from farcontext.files import UserError
from farcontext.schema import Row
from farcontext.studies.model_anatomy.exact import quiet

# -------------------------------------------------------------------------- the listing, as printed

LISTING = Path(__file__).with_name("listing.py.txt")
LISTING_SHA256 = "6dd0d6f695d3afb3cc8a16eed19745a13ad18485932b8fade587c67aa6cfec9c"
TIMEOUT = 300  # One process has so many seconds.
EPOCHS = 15
MENDS = (  # Each is (what, the listing's words, ours), in the order in which a run meets them.
    (
        "arguments by name",
        "nn.Transformer(embedding_dim, hidden_dim, num_layers, dropout)",
        "nn.Transformer(embedding_dim, num_encoder_layers=num_layers, "
        "num_decoder_layers=num_layers, dim_feedforward=hidden_dim, dropout=dropout)",
    ),
    (
        "output layer as wide as the model",
        "nn.Linear(hidden_dim, vocab_size)",
        "nn.Linear(embedding_dim, vocab_size)",
    ),
    ("argmax over the vocabulary", "argmax(dim=1)", "argmax(dim=-1)"),
)
# The listing uses four names that it never defines. They are given eight rows of eight different
# tokens, to be reversed, and eight new rows as a test. `data_loader` holds one batch, so that an
# epoch is one step.
PREAMBLE = """\
import torch
torch.manual_seed(10)
vocab_size, num_epochs = 10000, {epochs}
rows = [torch.rand(8, 16).argsort(1)[:, :8].contiguous() for _ in range(2)]
data_loader, test_loader = [[(tgt.flip(1), tgt)] for tgt in rows]
"""
RUNNER = """\
import contextlib, io, json, sys
for program in json.load(sys.stdin):
    printed, outcome = io.StringIO(), "ran to its end"
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(program, "listing.py", "exec"), {"__name__": "__main__"})
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps([outcome, printed.getvalue()]))
"""


def listing() -> str:
    """Return the article's program, §5.2 then §5.4, unmodified.

    Raises:
        UserError: the quoted file is not what it was.
    """
    if files.sha256_file(LISTING) != LISTING_SHA256:
        raise UserError(f"{LISTING}: expected the article's words, unmodified")
    return LISTING.read_text(encoding="utf-8").split("-----\n", 1)[1]


def mended(mends: int) -> str:
    """Return the listing with the first `mends` of MENDS made.

    Nothing else is changed.
    """
    program = listing()
    for _, theirs, ours in MENDS[:mends]:
        if program.count(theirs) != 1:
            raise UserError(f"{LISTING}: expected {theirs!r} once")
        program = program.replace(theirs, ours)
    return program


def run_programs(programs: list[str]) -> list[Row]:
    """Run programs one after another in a process apart.

    The process is isolated Python with one thread, in an empty folder of its own.

    Returns:
        a row for each program: outcome (its last error in words), runs (1 or 0), and the loss and
        accuracy that it printed last.
    """
    with tempfile.TemporaryDirectory(prefix="farcontext-") as folder:
        done = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", "-c", RUNNER],
            input=json.dumps(programs),
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=TIMEOUT,
            check=True,
        )
    return [_outcome(*json.loads(line)) for line in done.stdout.splitlines()]


def _outcome(outcome: str, printed: str) -> Row:
    found = {"printed_loss": r"Loss: (\S+)", "printed_accuracy": r"Test Accuracy: (\S+)%"}
    numbers = {name: re.findall(pattern, printed)[-1:] for name, pattern in found.items()}
    runs = {"outcome": outcome, "runs": float(outcome == "ran to its end")}
    return runs | {name: float(value[0]) for name, value in numbers.items() if value}


def versions() -> list[list[tuple[str, str, str]]]:
    """Return (part, arm, program) of every version of the listing.

    The versions come in groups that share a process.
    """
    missing, supplied = "as printed", "as printed, its four names supplied"
    chain = [("mended", f"{MENDS[0][0]}, names still missing", mended(1))]
    # One step shows that a version stops; the version that runs to its end gets a few.
    names = [
        PREAMBLE.format(epochs=EPOCHS if n == len(MENDS) else 1) for n in range(len(MENDS) + 1)
    ]
    chain += [("mended", what, names[n] + mended(n)) for n, (what, _, _) in enumerate(MENDS, 1)]
    return [chain, [("listing", missing, listing())], [("listing", supplied, names[0] + listing())]]


# ----------------------------------------------------------------------------- one defect at a time

WIDTH, HEADS, MLP_WIDTH, ROWS, RATE, WARMUP = 64, 4, 128, 32, 4e-3, 20
TEST_ROWS, POINTS = 128, 6
ARMS = {
    "repaired": (),
    "no positions": ("no positions",),
    "no causal mask": ("no causal mask",),
    "no shift": ("no shift",),
    "batch order": ("batch order",),
    "all four": ("no positions", "no causal mask", "no shift", "batch order"),
}


class Repaired(nn.Module):
    """The listing's model with every defect mended but those named.

    It is nn.Transformer with one layer a side and no dropout.
    """

    def __init__(self, length: int, defects: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.defects = defects
        self.embedding = nn.Embedding(length + 3, WIDTH)
        self.positions = nn.Embedding(length + 1, WIDTH)
        self.transformer = nn.Transformer(
            WIDTH, HEADS, 1, 1, MLP_WIDTH, dropout=0.0, batch_first="batch order" not in defects
        )
        self.decoder = nn.Linear(WIDTH, length + 3)

    def _embed(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        if "no positions" in self.defects:
            return x_BTD
        return x_BTD + self.positions.weight[: tokens_BT.shape[1]]

    def forward(
        self, source: Int[Tensor, "B T"], target: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        # With the listing's batch order, torch takes axis 0 for the sequence, and so does its mask.
        length = target.shape[0 if "batch order" in self.defects else 1]
        mask = (
            None
            if "no causal mask" in self.defects
            else self.transformer.generate_square_subsequent_mask(length)
        )
        x_BTD = self.transformer(
            self._embed(source), self._embed(target), tgt_mask=mask, tgt_is_causal=mask is not None
        )
        return self.decoder(x_BTD)


def draw(
    rows: int, length: int, generator: torch.Generator
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Return sources and answers of a task that only order solves.

    The task is to copy or to reverse, as the first token says. The tokens are 3 … T+2, each once. A
    source is 1 (copy) or 2 (reverse), then the tokens. An answer is T tokens, then 0, which ends an
    answer and, fed first, starts one. Both have T + 1 columns: with the listing's batch order torch
    demands it.
    """
    answer_BT = torch.rand(rows, length, generator=generator).argsort(1) + 3
    order_B1 = torch.randint(1, 3, (rows, 1), generator=generator)
    source_BT = torch.where(order_B1 == 2, answer_BT.flip(1), answer_BT)
    return torch.cat((order_B1, source_BT), 1), F.pad(answer_BT, (0, 1))


def fed(answer: Int[Tensor, "B T"], defects: tuple[str, ...]) -> Int[Tensor, "B T"]:
    """Return what the decoder reads.

    It is the answer one place to the right after a 0 or, as printed, the answer itself.
    """
    return answer if "no shift" in defects else answer.roll(1, 1)


def probe(model: Repaired, length: int) -> Iterator[tuple[str, float]]:
    """Yield by how much logits move at most when one thing changes.

    The change should, or should not, matter to them.
    """
    source, answer = draw(ROWS, length, torch.Generator().manual_seed(3))
    logits = model(source, fed(answer, model.defects))
    other_order = torch.cat((source[:, :1], source[:, 1:].roll(1, 1)), 1)
    yield (
        "order_effect",
        float((model(other_order, fed(answer, model.defects)) - logits).abs().max()),
    )
    other_answer = answer.clone()
    other_answer[:, length - 1] = answer[:, 0]
    moved = model(source, fed(other_answer, model.defects)) - logits
    yield "answer_leak", float(moved[:, length - 1].abs().max())
    other_source, other_answer = source.clone(), answer.clone()
    other_source[1], other_answer[1] = source[2], answer[2]
    moved = model(other_source, fed(other_answer, model.defects)) - logits
    yield "batch_leak", float(moved[0].abs().max())


def score(model: Repaired, length: int) -> Iterator[tuple[str, float]]:
    """Yield the loss and accuracies of a model on test rows.

    Loss (nats a token) and accuracy have the true answer fed; then comes the accuracy of the model
    when it feeds itself.
    """
    source, answer = draw(TEST_ROWS, length, torch.Generator().manual_seed(4))
    logits = model(source, fed(answer, model.defects))[:, :length]
    wanted = answer[:, :length]
    yield "loss", float(F.cross_entropy(logits.flatten(0, 1), wanted.flatten()))
    yield "accuracy", float((logits.argmax(-1) == wanted).float().mean())
    own = torch.zeros_like(
        answer
    )  # A token not yet written reads 0; a causal model does not see it.
    for t in range(length):
        own[:, t + 1] = model(source, own)[:, t].argmax(-1)
    yield "free_running_accuracy", float((own[:, 1:] == wanted).float().mean())


@quiet()
@torch.inference_mode(mode=False)
def train_arm(arm: str, seed: int, steps: int, length: int) -> list[Row]:
    """Probe a fresh model of one arm, then train and score it.

    It is scored POINTS times. Each number is a row; the last row holds the seconds.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    model, generator = Repaired(length, ARMS[arm]), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        rows = [
            {"part": "probe", "metric": metric, "value": value}
            for metric, value in probe(model, length)
        ]
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP)
    )
    stretch = max(1, steps // POINTS)
    for step in range(1, steps + 1):
        source, answer = draw(ROWS, length, generator)
        loss = F.cross_entropy(
            model(source, fed(answer, model.defects)).flatten(0, 1), answer.flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % stretch == 0 or step == steps:
            with torch.no_grad():
                found = list(score(model, length))
            rows += [
                {"part": "defect", "step": step, "metric": metric, "value": value}
                for metric, value in found
            ]
    return [*rows, {"metric": "seconds", "value": time.perf_counter() - started}]
