"""The loss of each token of a text under a pretrained model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from farcontext.checkpoints.turning import turned
from farcontext.files import UserError

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedModel

SCORES = 2**22  # So many scores are held at once: those of all positions of a long row do not fit.


@torch.inference_mode()
def token_losses(
    model: "PreTrainedModel",
    tokens_T: Int[Tensor, " T"] | Sequence[int],
    last: int | None = None,
    **inputs: Tensor,
) -> Float[Tensor, " t"]:
    """Return −log p of each token but the first, in nats.

    With `last`, only so many last tokens are returned. The values are fp32, on the CPU. They do not
    depend on what the model read before (`turning`).

    Args:
        inputs: further keywords of the model, such as `position_ids`.
    """
    tokens_T = torch.as_tensor(tokens_T, device=model.device)
    length = int(inputs["position_ids"].max()) + 1 if "position_ids" in inputs else len(tokens_T)
    with turned(model, length):
        hidden_TD = model.base_model(
            input_ids=tokens_T[None], use_cache=False, **inputs
        ).last_hidden_state[0, :-1]
    wanted_T = tokens_T[1:]
    if last is not None:
        hidden_TD, wanted_T = hidden_TD[-last:], wanted_T[-last:]
    size = max(1, SCORES // model.config.vocab_size)
    slices = zip(hidden_TD.split(size), wanted_T.split(size), strict=True)
    losses = [F.cross_entropy(scores_of(model, x), w, reduction="none") for x, w in slices]
    return numbers(torch.cat(losses).cpu())


def scores_of(model: "PreTrainedModel", hidden_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T V"]:
    """Return a model's scores of the next token, fp32.

    They come from its last hidden states. What some families do to their scores is done here too:
    Granite divides them, Cohere multiplies them, Gemma 2 squeezes them by a tanh.
    """
    config = model.config
    scores = model.get_output_embeddings()(hidden_TD)
    if divisor := getattr(config, "logits_scaling", None):
        scores = scores / divisor
    if factor := getattr(config, "logit_scale", None):
        scores = scores * factor
    if most := getattr(config, "final_logit_softcapping", None):
        scores = torch.tanh(scores / most) * most
    return scores.float()


def numbers(scores: Tensor) -> Tensor:
    """Return a model's scores if they are finite numbers.

    UserError is raised if it gives NaN or infinity.
    """
    if not scores.isfinite().all():
        raise UserError(
            "the model's scores hold NaN or infinity: expected numbers; its weights may be too "
            "large, or damaged"
        )
    return scores
