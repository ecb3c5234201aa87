"""Checks of the numbers of a shape in a config.json.

They are held against what numbers can be before they are used.
"""

from collections.abc import Mapping
from typing import Any

from farcontext.files import UserError

Raw = Mapping[str, Any]  # It is the content of a config.json.
# The formulas need these keys; where one is left out, transformers' class has its default.
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
NEEDED += ("intermediate_size",)
COUNTS = (*NEEDED, "num_key_value_heads", "head_dim", "moe_intermediate_size", "num_experts")
COUNTS += ("num_local_experts", "num_experts_per_tok", "sliding_window", "decoder_sparse_step")
MOST_COUNT = 10**9


def expect_counts(where: object, config: Raw) -> None:
    """Refuse a number of a shape that counts nothing.

    This comes before it is used.

    Raises:
        UserError: the file, the key and its value.
    """
    for key in COUNTS:
        value = config.get(key)
        if value is not None and not (type(value) is int and 1 <= value <= MOST_COUNT):
            raise UserError(f"{where}: {key} = {value!r:.60}: expected an integer from 1 to 1e9")
    if (config.get("num_hidden_layers") or 1) > 10_000:
        raise UserError(
            f"{where}: num_hidden_layers = {config['num_hidden_layers']}: expected at most 10000"
        )
