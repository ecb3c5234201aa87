"""The parameters of a model and of its parts, by arithmetic."""

from farcontext.nn.config import ModelConfig

PARTS = ("embedding", "norm", "attention", "mlp", "block", "stack", "model")


def closed_form(config: ModelConfig) -> dict[str, int]:
    """Return the parameters of each of PARTS by arithmetic.

    They are V·D, D, 2D(N + G)H, 3DM (2DM ungated), and sums of these.
    """
    D, M, kv_heads = config.width, config.mlp_width, config.kv_heads or config.heads
    embedding = config.vocab_size * D
    attention = 2 * D * (config.heads + kv_heads) * config.head_width
    mlp = (3 if config.mlp in ("geglu", "swiglu") else 2) * D * M
    block = 2 * D + attention + mlp
    # An embedding norm replaces the attention norm of layer 0, so it changes nothing.
    stack = config.layers * block + D
    ends = 0 if config.tied else embedding
    match config.kind:
        case "encoder":
            ends += D * D + D + config.vocab_size
        case "encoder_decoder":
            ends += config.layers * (block + D + attention) + D
    sizes = (embedding, D, attention, mlp, block, stack, embedding + stack + ends)
    return dict(zip(PARTS, sizes, strict=True))
