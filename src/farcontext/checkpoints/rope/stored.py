"""Frequencies that files of weights hold, from versions that saved them.

Loading leaves them aside and computes those of the configuration. If the two differ, the weights
were trained with another base than config.json says.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig

from farcontext.checkpoints.rope.finding import Finding, graded
from farcontext.checkpoints.rope.frequencies import ENDING, apart, base_of, expected
from farcontext.checkpoints.rope.keys import TOLERANCE
from farcontext.checkpoints.rope.sections import sections

# Rounding of the dtypes in which they were saved.
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-10}
LEAST = 1e-6  # In float16 the slow ones are below its normal numbers.


def stored_frequencies(
    folder: Path, config: PreTrainedConfig, modules: dict[str, nn.Module]
) -> list[Finding]:
    """Return a finding if a folder's weights hold frequencies.

    There is none if they hold none.
    """
    if not folder.is_dir() or not modules or "" not in sections(config):
        return []
    module = next(iter(modules.values()))
    scaled = expected(module, config)[0]
    theta = sections(config)[""]["rope_theta"]
    plain = theta ** -(torch.arange(len(scaled), dtype=torch.float64) / len(scaled))
    if not (kept := _stored(folder)):
        return []
    others = [pair for pair in kept if not any(_close(pair[1], w) for w in (plain, scaled))]
    (name, found), same = (others or kept)[0], not others
    says = f"{name} in the weights' file; loading leaves it aside and computes config.json's"
    if not same:
        says = f"{says}: the weights were trained with another base"
    return [
        graded("stored inv_freq", "ok" if same else "fault", base_of(found), base_of(plain), says)
    ]


def _stored(folder: Path) -> list[tuple[str, Tensor]]:
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as stream:
            names = sorted(name for name in stream.keys() if name.endswith(ENDING))  # noqa: SIM118
            found += [(name, stream.get_tensor(name)) for name in names]
    return found


def _close(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    slack = ROUNDING.get(found.dtype, TOLERANCE)
    above = wanted.abs() > (LEAST if found.dtype == torch.float16 else 0)
    return apart(found[above], wanted[above]) <= slack if bool(above.any()) else True
