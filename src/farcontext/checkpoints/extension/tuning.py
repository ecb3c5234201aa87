"""A short fine-tuning of an extended folder.

It holds one copy of the weights.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from farcontext.checkpoints import load
from farcontext.checkpoints.extension.folder import WEIGHTS, copy_file
from farcontext.checkpoints.extension.weights import dtype_of, narrow
from farcontext.files import UserError
from farcontext.train.keys import device


@dataclass(frozen=True)
class Tuning:
    """A short fine-tuning with AdamW at a constant rate.

    Rows of consecutive tokens are drawn from the text by seed.
    """

    text: Path  # It is a .txt or .md file, or a folder of them.
    steps: int = 50
    length: int = 1024
    rows: int = 1
    lr: float = 2e-5
    # The arithmetic has this dtype; weights and their updates stay fp32.
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


def expect_trainable(tuning: Tuning) -> None:
    """Refuse numbers with which nothing can be trained.

    Raises:
        UserError: the option, its value, and what was expected.
    """
    for name, least in (("steps", 1), ("length", 2), ("rows", 1), ("seed", 0)):
        if getattr(tuning, name) < least:
            raise UserError(f"{name} = {getattr(tuning, name)}: expected {least} or more")
    if not (math.isfinite(tuning.lr) and tuning.lr > 0):
        raise UserError(f"lr = {tuning.lr}: expected a number above 0")
    if tuning.dtype not in load.DTYPES:
        raise UserError(f"dtype = {tuning.dtype}: expected one of {', '.join(load.DTYPES)}")


def tune(folder: Path, tokens: Int[Tensor, " T"], tuning: Tuning) -> None:
    """Train the model of a folder on rows drawn from the tokens.

    Its weights are saved in the dtype that they had.
    """
    dtype = dtype_of(folder)
    model = load.load(folder).model.to(device()).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=tuning.lr)
    generator = torch.Generator().manual_seed(tuning.seed)
    with tqdm(range(tuning.steps), unit="step", desc="tuning", disable=None) as bar:
        for step in bar:
            starts = torch.randint(
                len(tokens) - tuning.length + 1, (tuning.rows,), generator=generator
            ).tolist()
            rows_BT = torch.stack([tokens[start : start + tuning.length] for start in starts]).to(
                device()
            )
            with torch.autocast(device().type, torch.bfloat16, enabled=tuning.dtype == "bfloat16"):
                loss = model(input_ids=rows_BT, labels=rows_BT, use_cache=False).loss
            if not loss.isfinite():
                raise UserError(
                    f"step {step}: loss = {loss.item()}: expected a number; try a smaller lr"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    del optimizer
    for path in [path for pattern in WEIGHTS for path in folder.glob(pattern)]:
        path.unlink()  # Not written over: it may be a link to the original.
    narrow(model.eval(), dtype)
    model.save_pretrained(folder)
    for path in folder.glob(WEIGHTS[0]):
        copy_file(path, path)
