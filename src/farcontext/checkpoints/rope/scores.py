"""The scale of attention scores, where a factor may stand twice.

It is a second place where one may be applied.
"""

import math
from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from farcontext.checkpoints.rope.finding import Finding, graded
from farcontext.checkpoints.rope.keys import TOLERANCE
from farcontext.checkpoints.rope.sections import computes_with, sections


def score_scale(model: PreTrainedModel, config: PreTrainedConfig) -> Iterator[Finding]:
    """Yield whether scores are scaled as the configuration says.

    That is by 1/√H, or by its own number.
    """
    scales = [
        float(module.scaling) * math.sqrt(width)
        for module in model.modules()
        if isinstance(getattr(module, "scaling", None), float) and (width := _width(module))
    ]
    if not scales:
        return
    wanted, why = _wanted(model, config)
    worst = max(scales, key=lambda scale: abs(scale / wanted - 1))
    bad = abs(worst / wanted - 1) > TOLERANCE
    grade = "fault" if bad else "note" if why else "ok"
    says = "logits are divided by √H and by nothing else"
    if why:
        says = f"the model scales its scores itself: {why} in config.json"
    expected = f"{wanted:.4f}/√H" if why else "1/√H"
    yield graded("logit scale", grade, f"{worst:.4f}/√H", expected, says)


def _width(module: nn.Module) -> int | None:
    """Return the width over which a module's scores are summed."""
    names = ("qk_head_dim", "head_dim", "head_size")
    return next((w for n in names if isinstance(w := getattr(module, n, None), int)), None)


def _wanted(model: PreTrainedModel, config: PreTrainedConfig) -> tuple[float, str]:
    """Return the scale that a configuration asks for, and the key.

    It is in units of 1/√H.
    """
    width = next(
        (w for module in model.modules() if hasattr(module, "scaling") and (w := _width(module))), 1
    )
    if computes_with(config.model_type, "attention_multiplier"):
        own = float(getattr(config, "attention_multiplier", 0) or 0)
        if own:
            return own * math.sqrt(width), f"attention_multiplier = {own:g}"
    if computes_with(config.model_type, "query_pre_attn_scalar"):
        own = float(getattr(config, "query_pre_attn_scalar", 0) or 0)
        same = own == width
        return math.sqrt(
            width / own
        ) if own else 1.0, "" if same else f"query_pre_attn_scalar = {own:g}"
    rope = next(iter(sections(config).values()), {})
    own = rope.get("mscale_all_dim")
    if (
        own
        and rope["rope_type"] != "default"
        and computes_with(config.model_type, '"mscale_all_dim"')
    ):
        scale = (0.1 * own * math.log(rope["factor"]) + 1) ** 2 if rope["factor"] > 1 else 1.0
        return scale, f"mscale_all_dim = {own:g}"
    return 1.0, ""
