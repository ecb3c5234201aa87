"""How many numbers a checkpoint has, counted from its configuration alone.

V vocabulary, D width, N heads, G key/value heads, H head width, M MLP width, E experts. A family is
a few facts about its layers; tests hold each one's count against transformers' own class. What has
no row here is counted on such a class without memory (`built`), which takes seconds to import.
"""

from dataclasses import dataclass
from typing import Any

from farcontext.checkpoints.unloaded.counts import MOST_COUNT, NEEDED, Raw
from farcontext.measure.formulas import Shape, Size


@dataclass(frozen=True)
class Family:
    """What a family's layers hold.

    A bias is True or False, or the name of the key that says so with its default.
    """

    tied: bool = False  # This holds where tie_word_embeddings is left out.
    norms: int = 2  # A layer has so many norms of width D.
    norm_bias: bool = False
    qkv_bias: bool | tuple[str, bool] = False
    out_bias: bool | tuple[str, bool] = False
    gated: bool = True  # The MLP has three matrices, else two.
    mlp_bias: bool | tuple[str, bool] = False
    qk_norm: str = ""  # "head": a norm of width H each; "all": over all heads; "own": cohere's.
    head_bias: bool = False
    head_dim: int | None = None  # It is the class's default where that is not D / N.
    # A window without layer_types holds in every layer ("all"), in every second ("even") or in all
    # but every sixth ("most").
    sliding: str = ""
    window: int | None = None  # The class has this window where the key is left out.
    grouped: bool = True  # Without num_key_value_heads the class has a number of its own, not N.


ATTENTION, MLP = ("attention_bias", False), ("mlp_bias", False)
PLAIN = Family(qkv_bias=ATTENTION, out_bias=ATTENTION, mlp_bias=MLP, grouped=False)
FAMILIES = {
    "llama": PLAIN,
    "granite": PLAIN,
    "smollm3": Family(tied=True, qkv_bias=ATTENTION, out_bias=ATTENTION, mlp_bias=MLP),
    "mistral": Family(sliding="all", window=4096),
    "ministral3": Family(sliding="all", head_dim=128),
    "mixtral": Family(sliding="all"),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qkv_bias=ATTENTION, out_bias=ATTENTION, qk_norm="head", head_dim=128),
    "qwen3_moe": Family(qkv_bias=ATTENTION, out_bias=ATTENTION, qk_norm="head"),
    "gemma": Family(tied=True, qkv_bias=ATTENTION, out_bias=ATTENTION, head_dim=256),
    "gemma2": Family(
        tied=True,
        norms=4,
        qkv_bias=ATTENTION,
        out_bias=ATTENTION,
        head_dim=256,
        sliding="even",
        window=4096,
    ),
    "gemma3_text": Family(
        tied=True,
        norms=4,
        qkv_bias=ATTENTION,
        out_bias=ATTENTION,
        qk_norm="head",
        head_dim=256,
        sliding="most",
        window=4096,
    ),
    "phi3": Family(sliding="all", grouped=False),
    "olmo2": Family(qkv_bias=ATTENTION, out_bias=ATTENTION, qk_norm="all", grouped=False),
    "cohere": Family(
        tied=True,
        norms=1,
        qkv_bias=ATTENTION,
        out_bias=ATTENTION,
        qk_norm="own",
        grouped=False,
    ),
    "stablelm": Family(norm_bias=True, qkv_bias=("use_qkv_bias", False)),
    "phi": Family(
        norms=1,
        norm_bias=True,
        qkv_bias=True,
        out_bias=True,
        gated=False,
        mlp_bias=True,
        head_bias=True,
        grouped=False,
    ),
    "gpt_neox": Family(
        norm_bias=True,
        qkv_bias=("attention_bias", True),
        out_bias=("attention_bias", True),
        gated=False,
        mlp_bias=True,
        grouped=False,
    ),
    "starcoder2": Family(
        tied=True,
        norm_bias=True,
        qkv_bias=("use_bias", True),
        out_bias=("use_bias", True),
        gated=False,
        mlp_bias=("use_bias", True),
        sliding="all",
    ),
    "glm4": Family(norms=4, qkv_bias=("attention_bias", True), head_dim=128),
}
USUAL_LENGTHS = (1024, 8192, 32_768, 131_072)


def usual_lengths(config: Raw) -> list[int]:
    """Return lengths up to the window, and the window."""
    limit = config.get("max_position_embeddings") or config.get("n_positions") or 8192
    if not (type(limit) is int and 0 < limit <= MOST_COUNT):
        limit = 8192
    return sorted({*(length for length in USUAL_LENGTHS if length < limit), limit})


def stored_dtype(config: Raw) -> str:
    """Return the dtype that a configuration names for its weights.

    It is float32 if none is named.
    """
    named = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return named if named in ("bfloat16", "float16") else "float32"


def shape_of(config: Raw) -> Shape | None:
    """Return a model's shape by its family's formula.

    It is None where the family has none, or where a key is left out that the formula needs.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None or not all(isinstance(config.get(key), int) for key in NEEDED):
        return None
    if family.grouped and not isinstance(config.get("num_key_value_heads"), int):
        return None
    if config.get("qk_layernorm") or (config.get("use_parallel_residual") and family.gated):
        return None  # Two settings of StableLM and Phi, which no published model of theirs has.
    D, N, V = (config[k] for k in ("hidden_size", "num_attention_heads", "vocab_size"))
    G, L = config.get("num_key_value_heads") or N, config["num_hidden_layers"]
    H = config.get("head_dim") or family.head_dim or D // N
    attention = 2 * D * N * H + 2 * D * G * H
    sparse = _sparse_layers(config)
    held = used = small = 0
    for layer in range(L):
        layer_held, layer_used, layer_small = _mlp(family, config, D, layer in sparse)
        held, used, small = held + layer_held, used + layer_used, small + layer_small
    small += L * (
        _on(family.qkv_bias, config) * (N + 2 * G) * H
        + _on(family.out_bias, config) * D
        + family.norms * (1 + family.norm_bias) * D
        + _qk_norm(family.qk_norm, config, N, G, H)
    )
    tied = config.get("tie_word_embeddings")
    tied = family.tied if tied is None else tied
    ends = (1 if tied else 2) * V * D + family.head_bias * V + (1 + family.norm_bias) * D
    return Shape(
        size=Size(L * attention + held + small + ends, L * attention + used),
        vocab_size=V,
        width=D,
        layers=L,
        heads=N,
        kv_heads=G,
        head_width=H,
        mlp_width=used // (L * D * (3 if family.gated else 2)),
        mlp="swiglu" if family.gated else "gelu",
        **windows({"sliding_window": family.window} | dict(config), family.sliding),
    )


def _on(bias: bool | tuple[str, bool], config: Raw) -> bool:
    return bias if isinstance(bias, bool) else bool(config.get(bias[0], bias[1]))


def _qk_norm(kind: str, config: Raw, N: int, G: int, H: int) -> int:
    match kind:
        case "head":
            return 2 * H
        case "all":
            return (N + G) * H
        case "own" if config.get("use_qk_norm"):
            return (N + G) * H
    return 0


def _sparse_layers(config: Raw) -> set[int]:
    """Return the layers whose MLP is a mixture of experts."""
    layers = range(config["num_hidden_layers"])
    match config["model_type"]:
        case "mixtral":
            return set(layers)
        case "qwen3_moe":
            step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
            return {i for i in layers if i not in dense and (i + 1) % step == 0}
    return set()


def _mlp(family: Family, config: Raw, D: int, sparse: bool) -> tuple[int, int, int]:
    """Return a layer's numbers: matrices, those in use, and biases.

    In use are those that one token uses.
    """
    matrices, M = 3 if family.gated else 2, config["intermediate_size"]
    if not sparse:
        ins = 2 if family.gated else 1
        return matrices * D * M, matrices * D * M, _on(family.mlp_bias, config) * (ins * M + D)
    M = config.get("moe_intermediate_size", M)
    E = config.get("num_local_experts") or config.get("num_experts") or 8
    used = config.get("num_experts_per_tok") or 2
    return matrices * D * M * E + D * E, matrices * D * M * used + D * E, 0


def windows(config: Raw, sliding: str) -> dict[str, Any]:
    """Return the window in tokens, and its layers, for a Shape.

    Those layers see it alone.
    """
    window, layers = config.get("sliding_window"), range(config["num_hidden_layers"])
    if not isinstance(window, int) or config.get("use_sliding_window") is False:
        return {}
    if kinds := config.get("layer_types"):
        local = tuple("sliding" in str(kind) for kind in kinds)
    elif "use_sliding_window" in config:  # The first layers of Qwen2 see everything.
        local = tuple(i >= config.get("max_window_layers", 0) for i in layers)
    else:
        wide = {"all": 0, "even": 2, "most": config.get("sliding_window_pattern") or 6}[
            sliding or "all"
        ]
        local = tuple(not wide or (i + 1) % wide != 0 for i in layers)
    return {"window": window, "local": local} if any(local) and len(local) == len(layers) else {}
