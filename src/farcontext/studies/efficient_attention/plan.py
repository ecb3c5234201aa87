"""What notebook 04 measures: cells of attention, and the cost model's grid."""

import itertools
from typing import NamedTuple

from farcontext.nn.config import ModelConfig
from farcontext.studies.efficient_attention import cells as memory_cells
from farcontext.studies.efficient_attention.params import Params

PLAIN, EFFICIENT = "reference", ("online", "sdpa")
KNOWN = 64 << 20  # The allocation of so many bytes is measured, as a check of the measurement.
CHECKED = 512  # The backends' values are compared at this T.


class Arm(NamedTuple):
    """A family of models whose training step and forward pass are measured."""

    kind: str
    windowed: bool
    backend: str


ARMS = {
    "encoder": Arm("encoder", False, "auto"),
    "encoder, window": Arm("encoder", True, "auto"),
    "encoder, window as a mask": Arm("encoder", True, "sdpa"),
    "decoder": Arm("decoder", False, "auto"),
    "decoder, plain attention": Arm("decoder", False, "reference"),
}

Row = dict[str, object]


def _cells(params: Params) -> list[tuple[Row, memory_cells.Cell]]:
    """Return what is measured, with labels.

    The longest comes first, so that two processes end together.
    """
    found = [({"part": "ceiling"}, {"what": "ceilings", "size": params.product, "tries": 5})]
    lengths = {PLAIN: params.plain_lengths} | dict.fromkeys(EFFICIENT, params.lengths)
    shape = {"heads": params.heads, "head_width": params.head_width}
    attended = []
    for seed, (backend, several) in itertools.product(params.seeds, lengths.items()):
        label = {"part": "attention", "backend": backend, "seed": seed}
        longest = max(several) if backend in EFFICIENT else None
        for T in several:
            cell = {"what": "attend", "backend": backend, "length": T, "seed": seed} | shape
            if longest != T:
                attended.append((label | {"length": T}, cell))
            elif (
                seed == params.seeds[0]
            ):  # The longest takes most of the time, so all repeats share one.
                attended.append((label | {"length": T, "seed": None}, cell))
        if backend != PLAIN:
            cell = {
                "what": "difference",
                "backend": backend,
                "length": CHECKED,
                "seed": seed,
            } | shape
            found.append((label | {"part": "difference", "length": CHECKED}, cell))
    found += sorted(attended, key=lambda pair: -pair[0]["length"])
    found += [
        ({"part": "known", "seed": seed}, {"what": "known", "size": KNOWN}) for seed in params.seeds
    ]
    width = params.heads * params.head_width
    layer = {"what": "layer", "length": params.layer_length, "width": width, "heads": params.heads}
    found.append(
        ({"part": "layer", "length": params.layer_length, "width": width, "layers": 1}, layer)
    )
    return found + _grid(params)


def _grid(params: Params) -> list[tuple[Row, memory_cells.Cell]]:
    """Return the cost model's cells.

    Neighbours in any factor lie in different halves, as on a chessboard.
    """
    factors = (params.step_lengths, params.step_widths, params.step_layers)
    found = []
    for (a, arm), *indexed in itertools.product(
        enumerate(ARMS), *(enumerate(values) for values in factors)
    ):
        (t, T), (d, D), (n, L) = indexed
        half = "fitted" if (a + t + d + n) % 2 == 0 else "held out"
        label = {
            "arm": arm,
            "backend": ARMS[arm].backend,
            "length": T,
            "width": D,
            "layers": L,
            "half": half,
        }
        config = config_of(params, arm, T, D, L).model_dump(mode="json")
        for part in ("training", "inference"):
            cell = {
                "what": part,
                "config": config,
                "rows": params.rows,
                "length": T,
                "backend": ARMS[arm].backend,
            }
            found.append((label | {"part": part}, cell))
    return found


def config_of(params: Params, arm: str, length: int, width: int, layers: int) -> ModelConfig:
    """Return the shape of one model of the grid."""
    kind, windowed, _ = ARMS[arm]
    return ModelConfig(
        kind=kind,
        vocab_size=params.vocabulary,
        width=width,
        layers=layers,
        heads=params.step_heads,
        mlp_width=2 * width,
        max_length=length,
        norm="layer" if kind == "encoder" else "rms",
        mlp="geglu" if kind == "encoder" else "swiglu",
        embedding_norm=kind == "encoder",
        window=params.window if windowed else None,
        global_every=2 if windowed else 1,
    )
