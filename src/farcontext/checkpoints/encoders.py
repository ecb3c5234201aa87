"""Loading of somebody else's masked model: BERT, RoBERTa, ModernBERT, ALBERT.

The rules are those of `load`: nothing in the folder is run, nothing is fetched.
"""

from pathlib import Path
from typing import Literal

from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from farcontext import files
from farcontext.checkpoints import headers, hub, refusals
from farcontext.checkpoints.headers import reading
from farcontext.checkpoints.load import DTYPES, LOCALLY, Pretrained, embeddings
from farcontext.files import UserError

ENCODERS = ("bert", "roberta", "modernbert", "albert")
# Heads that masked prediction does without; a base checkpoint often holds them.
OTHER_HEADS = ("pooler", "seq_relationship", "position_ids", "sop_classifier")


def is_encoder(path: Path) -> bool:
    """Return whether a folder's configuration is that of a masked model."""
    config = hub.resolved(path) / "config.json"
    if not config.is_file():
        return False
    found = files.read_json(config)
    return isinstance(found, dict) and found.get("model_type") in ENCODERS


def load(path: Path | str, *, dtype: Literal["float32", "bfloat16"] = "float32") -> Pretrained:
    """Load a masked model from a folder in Hugging Face's layout.

    Raises:
        UserError: as `load.load`; a checkpoint without the head that predicts masked tokens; a
            tokenizer without a mask.
    """
    folder = hub.resolved(Path(path))
    if dtype not in DTYPES:
        raise UserError(f"dtype = {dtype}: expected one of {', '.join(DTYPES)}")
    config = refusals.configuration(folder)
    if (kind := config.get("model_type")) not in ENCODERS:
        raise UserError(f"{folder}: model_type = {kind!r:.60}: expected {', '.join(ENCODERS)}")
    stored = headers.safetensors_header(refusals.weights_of(folder, config))
    refusals.expect_tokenizer(folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with reading(folder, "cannot be loaded"):
        model, report = AutoModelForMaskedLM.from_pretrained(
            folder,
            config=AutoConfig.from_pretrained(folder, **LOCALLY),
            dtype=DTYPES[dtype],
            attn_implementation="sdpa",
            output_loading_info=True,
            use_safetensors=True,
            **LOCALLY,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCALLY)
    headers.expect_weights(folder, model, stored)
    unread = [k for k in report["unexpected_keys"] if not any(head in k for head in OTHER_HEADS)]
    for what, keys in (("missing_keys", report["missing_keys"]), ("unexpected_keys", unread)):
        if bad := sorted(map(str, keys)):
            raise UserError(
                f"{folder}: {what} = {bad[0]} and {len(bad) - 1} more: expected a model with its "
                "head of masked prediction"
            )
    headers.expect_numbers(folder, model)
    if tokenizer.mask_token_id is None or tokenizer.mask_token_id >= embeddings(model):
        raise UserError(f"{folder}: its tokenizer has no mask that the model reads: expected one")
    model = model.eval().requires_grad_(False)
    return Pretrained(model, tokenizer, hub.name_of(folder), folder)


def window(pretrained: Pretrained) -> int:
    """Return how many tokens a masked model reads at once.

    Its two marks are included. RoBERTa's table of positions begins behind the padding's id.
    """
    config = pretrained.model.config
    behind = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return config.max_position_embeddings - behind
