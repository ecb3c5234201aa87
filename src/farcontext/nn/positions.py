"""Position encodings as pure functions.

T tokens, H head width, F = H/2 frequencies, D model width, N heads, L trained length, s scale
(wanted length / L). Frequencies are computed in fp64; `rotation` turns queries and keys by them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from farcontext.nn.rotation import rotation_table

SCHEME_NOTES = {
    "rope": "θ^(−2i/H), extends nothing; needs neither scale nor length (Su et al. 2021, RoFormer)",
    "linear": "position interpolation, all frequencies / s; "
    "needs training on (Chen et al. 2023, eq. 4)",
    "ntk": "NTK-aware base θ·s^(H/(H−2)): the first frequency stays, the last is / s "
    "(bloc97 2023; YaRN eq. 14-16)",
    "dynamic_ntk": "ntk with s = max(1, length / L), plain RoPE within L; "
    "needs the length (YaRN section 3.3)",
    "dynamic_ntk_hf": "ntk with 1 + s·(length / L − 1), plain RoPE within L; "
    "needs scale and length (transformers)",
    "yarn": "keeps fast pairs, slow ones / s, ramp over the rounded pair index; "
    "attention factor (YaRN authors' code)",
    "yarn_untruncated": "yarn without rounding the ends of its ramp; "
    "attention factor (transformers, truncate=False)",
    "yarn_rotations": "yarn as printed, ramp over rotations within L; "
    "attention factor (Peng et al. 2023, eq. 17-20)",
    "longrope": "one factor a pair, short within L and long beyond; "
    "needs both lists, length (Ding et al. 2024; Phi-3)",
    "llama3": "keeps wavelengths below L/4, frequencies of those above L are / s, "
    "ramp over rotations between (Llama 3.1)",
    "p_rope": "turns the share p of fastest pairs, the rest never; "
    "needs p, from training on (Barbero et al. 2024)",
    "partial_rotary": "RoPE on the first p·H channels alone; "
    "needs p, from training on (GPT-J, GPT-NeoX rotary_pct)",
    "abf": "RoPE with a larger base, given or by a rule; "
    "needs training on (Xiong et al. 2023; rule: Liu et al. 2023)",
}
SCHEMES = tuple(SCHEME_NOTES)
# Further options and their defaults: a None must be given, but new_theta has a rule.
OPTIONS: dict[str, dict[str, float | None]] = {
    "yarn": {"beta_fast": 32.0, "beta_slow": 1.0},
    "yarn_untruncated": {"beta_fast": 32.0, "beta_slow": 1.0},
    "yarn_rotations": {"beta_fast": 32.0, "beta_slow": 1.0},
    "longrope": {"short_factor": None, "long_factor": None},
    "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "p_rope": {"p": None},
    "partial_rotary": {"p": None},
    "abf": {"new_theta": None},
}


def _expect(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} = {value!r:.60}: expected {expected}")


def _rope(width: int, theta: float) -> Float[Tensor, " F"]:
    return theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)


def _ntk(head_dim: int, theta: float, scale: float) -> Float[Tensor, " F"]:
    """Return the base of NTK-aware scaling.

    There the last frequency is exactly θ_{F−1}/s (YaRN eq. 16). The first frequency is 1 at any
    base.
    """
    _expect(head_dim > 2, "head_dim", head_dim, "4 or more, one pair leaves NTK nothing to spread")
    return _rope(head_dim, theta * scale ** (head_dim / (head_dim - 2)))


def _blend(plain_F: Tensor, scale: float, kept_F: Tensor) -> Float[Tensor, " F"]:
    kept_F = kept_F.clamp(0, 1)
    return plain_F * (kept_F + (1 - kept_F) / scale)


def _by_rotations(
    plain_F: Tensor, scale: float, trained_length: int, slow: float, fast: float
) -> Float[Tensor, " F"]:
    """Ramp over the turns within the trained length (eq. 17-20).

    Up to `slow` turns a frequency is interpolated, from `fast` turns it is kept.
    """
    turns_F = trained_length * plain_F / (2 * math.pi)
    return _blend(plain_F, scale, (turns_F - slow) / (fast - slow))


def _by_index(plain_F: Tensor, scale: float, low: float, high: float) -> Float[Tensor, " F"]:
    """Return a ramp over the pair index.

    Up to `low` a pair is kept, from `high` it is interpolated. Both are held within 0 … H−1, as in
    the released code.
    """
    low, high = max(low, 0), min(high, 2 * len(plain_F) - 1)
    high = max(high, low + 0.001)  # The ramp becomes a step where it has no width.
    return _blend(
        plain_F, scale, (high - torch.arange(len(plain_F), dtype=torch.float64)) / (high - low)
    )


def _pair_turning(times: float, head_dim: int, theta: float, trained_length: int) -> float:
    """Return the index of the pair that turns so often.

    It is fractional; the turns are counted within the trained length. It follows YaRN's code.
    """
    return head_dim * math.log(trained_length / (2 * math.pi * times)) / (2 * math.log(theta))


def _larger_base(theta: float, scale: float, trained_length: int, new_theta: float | None) -> float:
    """The base whose reach is s·L: θ^(ln(sL/2π) / ln(L/2π)).

    With it as many pairs as before complete a turn.
    """
    if new_theta is not None:
        _expect(new_theta > 1, "new_theta", new_theta, "a number above 1")
        return new_theta
    _expect(
        trained_length > 2 * math.pi,
        "trained_length",
        trained_length,
        "7 tokens or more, or a new_theta",
    )
    return theta ** (
        math.log(scale * trained_length / (2 * math.pi)) / math.log(trained_length / (2 * math.pi))
    )


def _ends(options: dict, slow: str, fast: str) -> tuple[float, float]:
    _expect(
        0 < options[slow] < options[fast],
        slow,
        options[slow],
        f"a number between 0 and {fast} = {options[fast]}",
    )
    return options[slow], options[fast]


def _share(p: float | None) -> float:
    _expect(p is not None and 0 <= p <= 1, "p", p, "a share from 0 to 1")
    return p


def _factors(options: dict, name: str, head_dim: int) -> Float[Tensor, " F"]:
    values = options[name]
    fits = (
        isinstance(values, Sequence)
        and len(values) == head_dim // 2
        and all(value > 0 for value in values)
    )
    _expect(fits, name, values, f"{head_dim // 2} positive numbers")
    return torch.tensor(values, dtype=torch.float64)


def _options(scheme: str, given: dict) -> dict:
    _expect(scheme in SCHEMES, "scheme", scheme, f"one of {', '.join(SCHEMES)}")
    known = OPTIONS.get(scheme, {})
    for name, value in given.items():
        _expect(
            name in known,
            name,
            value,
            f"an option of {scheme} ({', '.join(known) or 'it takes none'})",
        )
    return known | given


def _check(head_dim: int, theta: float, scale: float, trained_length: int, length: int) -> None:
    _expect(
        head_dim % 2 == 0 < head_dim,
        "head_dim",
        head_dim,
        "an even number, RoPE turns channels in pairs",
    )
    _expect(theta > 1, "theta", theta, "a number above 1")
    _expect(scale > 0, "scale", scale, "a positive number")
    _expect(trained_length > 0, "trained_length", trained_length, "a positive number of tokens")
    _expect(length > 0, "length", length, "a positive number of tokens")


def inverse_frequencies(
    scheme: str,
    *,
    head_dim: int,
    theta: float = 10_000.0,
    scale: float = 1.0,
    trained_length: int,
    length: int | None = None,
    **options: float | Sequence[float] | None,
) -> Float[Tensor, " F"]:
    """Return a scheme's inverse frequencies, fp64, in radians a token.

    Pair i at position p turns by p * result[i]. `SCHEME_NOTES` says what each scheme does,
    `OPTIONS` says what it takes besides. `length` is the current length in tokens (None: the
    trained one). All take the same call, but "rope", "p_rope" and "partial_rotary" ignore `scale`
    and both lengths, "dynamic_ntk" and "longrope" ignore `scale`, and only these two and
    "dynamic_ntk_hf" look at `length`: with them keys must be cached before rotation. p_rope zeroes
    all but the int(p·H // 2) fastest pairs; partial_rotary returns int(p·H) / 2 values, for the
    first int(p·H) channels. Without `new_theta`, the base of abf follows a rule attributed to Liu
    et al. 2023 ("Scaling Laws of RoPE-based Extrapolation"), unverified: the paper was not at hand.
    `attention_factor` is not applied, and no channel is left out of the rotation here. What a
    scheme really gains may be below s.

    Raises:
        ValueError: unknown scheme or option, a missing option, or a value out of its range.
    """
    length = trained_length if length is None else length
    _check(head_dim, theta, scale, trained_length, length)
    options = _options(scheme, options)
    stretch = max(1.0, length / trained_length)
    freq_F = _rope(head_dim, theta)
    match scheme:
        case "linear":
            freq_F = freq_F / scale
        case "ntk" | "dynamic_ntk" | "dynamic_ntk_hf":
            wider = {
                "ntk": scale,
                "dynamic_ntk": stretch,
                "dynamic_ntk_hf": 1 + scale * (stretch - 1),
            }
            freq_F = _ntk(head_dim, theta, wider[scheme])
        case "yarn" | "yarn_untruncated":
            slow, fast = _ends(options, "beta_slow", "beta_fast")
            low, high = (
                _pair_turning(times, head_dim, theta, trained_length) for times in (fast, slow)
            )
            rounded = math.floor(low), math.ceil(high)
            freq_F = _by_index(freq_F, scale, *(rounded if scheme == "yarn" else (low, high)))
        case "yarn_rotations":
            freq_F = _by_rotations(
                freq_F, scale, trained_length, *_ends(options, "beta_slow", "beta_fast")
            )
        case "llama3":  # This is the same with another ramp.
            ends = _ends(options, "low_freq_factor", "high_freq_factor")
            freq_F = _by_rotations(freq_F, scale, trained_length, *ends)
        case "longrope":
            freq_F = freq_F / _factors(
                options, "long_factor" if stretch > 1 else "short_factor", head_dim
            )
        case "p_rope":
            freq_F = freq_F * (
                torch.arange(head_dim // 2) < int(_share(options["p"]) * head_dim // 2)
            )
        case "partial_rotary":
            width = int(_share(options["p"]) * head_dim)
            _expect(width % 2 == 0, "p", options["p"], f"an even number of channels, not {width}")
            freq_F = _rope(width, theta)
        case "abf":
            freq_F = _rope(
                head_dim, _larger_base(theta, scale, trained_length, options["new_theta"])
            )
    return freq_F


def attention_factor(scheme: str, *, scale: float, trained_length: int) -> float:
    """Return what cos *and* sin are multiplied by, on queries and keys.

    Both get it alike, so logits grow by its square. It is 0.1 ln s + 1 in the YaRN family (eq. 22),
    √(1 + ln s / ln L) in longrope (Phi-3 and transformers, not in the paper), 1 for all other
    schemes, and for s ≤ 1.

    Raises:
        ValueError: unknown scheme, or a trained length that has no logarithm to divide by.
    """
    _expect(scheme in SCHEMES, "scheme", scheme, f"one of {', '.join(SCHEMES)}")
    _expect(trained_length > 1, "trained_length", trained_length, "2 tokens or more")
    match scheme:
        case "yarn" | "yarn_untruncated" | "yarn_rotations":
            return 0.1 * math.log(max(scale, 1.0)) + 1.0
        case "longrope":
            return math.sqrt(1 + math.log(max(scale, 1.0)) / math.log(trained_length))
        case _:
            return 1.0


def sinusoidal(length: int, width: int) -> Float[Tensor, "T D"]:
    """Return the sinusoidal table of Vaswani et al. 2017 (§3.5), fp64.

    It has PE(p, 2i) = sin(p / 10000^(2i/D)), and PE(p, 2i+1) = cos of the same. It is interleaved
    as printed; GPT-J and fairseq put all sines first. No scale is applied.
    """
    cos, sin = rotation_table(_rope(width, 10_000.0), torch.arange(length), torch.float64)
    return torch.stack((sin, cos), -1).flatten(-2)[:, :width]


def alibi_slopes(heads: int) -> Float[Tensor, " N"]:
    """Return ALiBi's slopes (Press et al. 2022), fp64.

    The bias is −slope·(i − j), or −slope·|i − j| in an encoder. Slopes are 2^(−8n/N), n = 1 … N,
    for N a power of two. Otherwise they are, as in the authors' code, BLOOM and MPT, the slopes of
    the next lower power c, then every other slope of 2c. The paper's sentence (one ratio 2^(−8/N)
    for all N) differs there. Neither the bias nor the scale 1/√H before it is applied.

    Raises:
        ValueError: no head.
    """
    _expect(heads > 0, "heads", heads, "a positive number")
    lower = 2 ** (heads.bit_length() - 1)
    exponents = [8 * n / lower for n in range(1, lower + 1)] + [
        4 * n / lower for n in range(1, 2 * lower, 2)
    ]
    return 2.0 ** -torch.tensor(exponents[:heads], dtype=torch.float64)


def smear(
    k_BSGH: Float[Tensor, "B S G H"],
    mix_G: Float[Tensor, " G"] | None,
    documents_BS: Int[Tensor, "B S"] | None = None,
    causal: bool = True,
) -> Float[Tensor, "B S G H"]:
    """Return each key mixed with the key before it, by head.

    It is (1 − σ(mix))·k_j + σ(mix)·k_{j−1}: a key that also says what stands before its token.
    Smeared keys (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits") let one
    layer do what takes an induction head two. Without `causal`, odd heads look at the next key
    instead. Before the first token of a document stands nothing: that neighbour counts as 0. Apply
    before any rotation. Without a mix, keys stay as they are.
    """
    if mix_G is None:
        return k_BSGH
    before = F.pad(k_BSGH[:, :-1], (0, 0, 0, 0, 1, 0))
    after = F.pad(k_BSGH[:, 1:], (0, 0, 0, 0, 0, 1))
    if documents_BS is not None:
        same = (documents_BS[:, 1:] == documents_BS[:, :-1])[..., None, None].to(k_BSGH.dtype)
        before = before * F.pad(same, (0, 0, 0, 0, 1, 0))
        after = after * F.pad(same, (0, 0, 0, 0, 0, 1))
    if not causal:
        odd = (torch.arange(len(mix_G), device=k_BSGH.device) % 2 == 1)[:, None]
        before = torch.where(odd, after, before)
    share = mix_G.sigmoid()[:, None]
    return torch.lerp(k_BSGH, before, share.to(k_BSGH.dtype))


def positions_within(tokens_BT: Tensor, documents_BT: Tensor | None) -> Int[Tensor, "*B T"]:
    """Return each token's position within its document, counted from 0.

    A document is a run of equal ids.
    """
    at_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    if documents_BT is None:
        return at_T
    starts_BT = F.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0), value=True)
    return at_T - (at_T * starts_BT).cummax(-1).values
