"""Ask a model for a secret of two tokens: every candidate's likelihood, and what it would say.

A model is given as a function of rows (R, T) and a number n that returns the logits (R, n, V) of
the last n tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from farcontext.measure.memorization import exposure

Last = Callable[[Tensor, int], Tensor]


@torch.inference_mode()
def exposure_of(
    last: Last, before: Sequence[int], choices: Sequence[int], secret: tuple[int, int]
) -> float:
    """Return a secret's exposure in bits among all pairs of candidates.

    Args:
        last: the model.
        before: what stands before the secret.
        choices: C candidates, so that there are C² pairs.
        secret: two of them.
    """
    rows = torch.tensor([[*before, choice] for choice in choices])
    both_C2C = last(rows, 2).float().log_softmax(-1)[..., list(choices)].cpu()
    scores_CC = (both_C2C[0, 0][:, None] + both_C2C[:, 1]).double().numpy()
    at = choices.index(secret[0]), choices.index(secret[1])
    others = np.delete(scores_CC.ravel(), np.ravel_multi_index(at, scores_CC.shape))
    return exposure(-scores_CC[at], (-others).tolist())


@torch.inference_mode()
def greedy(last: Last, before: Sequence[int]) -> tuple[int, int]:
    """Return the two tokens that a model finds likeliest behind a prompt, one by one."""
    ids = list(before)
    for _ in range(2):
        ids.append(int(last(torch.tensor([ids]), 1)[0, -1].argmax()))
    return ids[-2], ids[-1]
