"""Text generation from a decoder, token by token, with a cache.

The cache keeps the keys and values of what was read.

B rows, T tokens of a prompt, V vocabulary, C capacity in tokens. Prompts of a batch have one
length. Schemes that look at the current length (dynamic NTK, LongRoPE, positions drawn at random)
take C, prompt and new tokens together, from the first token on: what was cached stays right, and
the result is that of one uncached pass over C tokens.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from farcontext.nn.layers import Cache
from farcontext.nn.masks import Pattern
from farcontext.nn.transformer import Decoder


@dataclass(frozen=True)
class Sampling:
    """The way a token is drawn from the logits.

    By default the likeliest token is taken.

    Args:
        temperature: logits are divided by it; 0 takes the likeliest token, whatever the rest says.
        top_k: only the k likeliest tokens remain (Fan et al. 2018).
        top_p: then only the fewest likeliest tokens whose probability reaches p (Holtzman et al.
            2020).

    Raises:
        ValueError: a value out of its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature = {self.temperature}: expected 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k = {self.top_k}: expected 1 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p}: expected a share above 0, up to 1")


GREEDY = Sampling()


def distribution(logits_BV: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """Return the probabilities that a token is drawn with.

    Temperature is applied first, then top-k, then top-p.
    """
    if sampling.temperature == 0:
        return nn.functional.one_hot(logits_BV.argmax(-1), logits_BV.shape[-1]).to(logits_BV.dtype)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, float("-inf"))
    p_BV = logits_BV.softmax(-1)
    if sampling.top_p < 1:
        sorted_BV, order_BV = p_BV.sort(-1, descending=True)
        # It sums the likelier tokens, so the one that crosses p stays.
        before_BV = sorted_BV.cumsum(-1) - sorted_BV
        kept_BV = torch.zeros_like(p_BV).scatter(
            -1, order_BV, sorted_BV.masked_fill(before_BV >= sampling.top_p, 0)
        )
        p_BV = kept_BV / kept_BV.sum(-1, keepdim=True)
    return p_BV


def drawn(
    logits_BV: Float[Tensor, "B V"],
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " B"]:
    """Return a drawn token for each row.

    The generator must be on the logits' device.
    """
    if sampling.temperature == 0:
        return logits_BV.argmax(-1)
    return torch.multinomial(distribution(logits_BV, sampling), 1, generator=generator).squeeze(1)


class Reader:
    """A decoder and the caches of what it has read.

    The caches hold up to C tokens in each of B rows.

    Raises:
        ValueError: a model whose keys a cache cannot hold, or no room.
    """

    def __init__(
        self, model: Decoder, rows: int, capacity: int, pattern: Pattern | None = None
    ) -> None:
        if not isinstance(model, Decoder):
            raise ValueError(f"model = {type(model).__name__}: expected a Decoder")
        if model.config.smear:
            raise ValueError(
                "smear = True: expected False, a cached key would need its neighbour's"
            )
        if model.training and model.config.random_positions:
            raise ValueError(
                "training = True: expected model.eval(), "
                "or positions would be drawn anew for every token"
            )
        if rows < 1 or capacity < 1:
            raise ValueError(f"rows = {rows}, capacity = {capacity}: expected 1 or more")
        self.model, self.pattern = model, pattern
        weight = model.embedding.weight
        self.caches = [Cache(rows, capacity, model.config, weight) for _ in model.stack.blocks]
        # The last tokens that were read stand here.
        self.before = torch.empty(rows, 0, dtype=torch.long, device=weight.device)

    @torch.inference_mode()
    def read(self, tokens_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        """Read tokens and return the logits of the token that follows.

        Nothing else is computed in the output and in the last block.

        Raises:
            ValueError: more tokens than there is room for.
        """
        (B, T), cache = tokens_BT.shape, self.caches[0]
        if cache.length + T > cache.capacity or T < 1:
            raise ValueError(
                f"length = {cache.length} + {T}: expected at most capacity = {cache.capacity} "
                "tokens"
            )
        pattern = self.pattern
        if pattern is None and T == 1:
            pattern = Pattern()  # The last token sees every key, so it needs no mask.
        ends_B = torch.arange(1, B + 1, device=tokens_BT.device) * T - 1
        before, reach = self.before, self.model.config.short_conv or 0
        self.before = torch.cat((before, tokens_BT), 1)[:, -reach:] if reach else before
        return self.model.logits(
            self.model.hidden(tokens_BT, None, pattern, ends_B, self.caches, before)
        )


def stream(
    model: Decoder,
    prompt_BT: Int[Tensor, "B T"],
    new: int,
    *,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    stop: int | None = None,
    pattern: Pattern | None = None,
) -> Iterator[Int[Tensor, " B"]]:
    """Yield up to `new` tokens after the prompt, as they are made.

    Each item holds one token of each row.

    Args:
        model: `laid_out` makes a large one faster on the CPU.
        prompt_BT: ids, on the model's device, without padding.
        new: tokens to make.
        sampling: how they are drawn.
        generator: on the model's device; None: torch's own.
        stop: the token after which a row is finished and repeats it; the stream ends with the last
            row.
        pattern: what global layers see, at unchanged positions, instead of every earlier token.

    Raises:
        ValueError: as `Reader` and the model's positions.
    """
    reader = Reader(model, len(prompt_BT), prompt_BT.shape[1] + new, pattern)
    done_B = torch.zeros(len(prompt_BT), dtype=torch.bool, device=prompt_BT.device)
    tokens_BT = prompt_BT
    for _ in range(new):
        token_B = drawn(reader.read(tokens_BT), sampling, generator)
        if stop is not None:
            token_B = token_B.masked_fill(done_B, stop)
            done_B = token_B == stop
        yield token_B
        if stop is not None and done_B.all():
            return
        tokens_BT = token_B[:, None]


def generate(
    model: Decoder, prompt_BT: Int[Tensor, "B T"], new: int, **options: object
) -> Int[Tensor, "B n"]:
    """Return the new tokens (B, n), n ≤ `new`.

    The options are those of `stream`.
    """
    return torch.stack(list(stream(model, prompt_BT, new, **options)), 1)


def laid_out(model: Decoder) -> Decoder:
    """Return a copy that generates fastest on the CPU.

    Its weights lie as generation reads them fastest; it is the same function up to rounding. One
    token is a vector times every matrix, at the speed of reading these. So matrices lie by columns,
    and the rows of queries and keys are already in the order that `Attention` would otherwise bring
    them into for every token.
    """
    copy = deepcopy(model).eval().requires_grad_(False)
    for block in copy.stack.blocks:
        attention = block.attention
        if hasattr(attention, "order") and attention.pairing == "half":
            turned = attention.qkv.weight[: len(attention.order)]
            turned.copy_(turned.index_select(0, attention.order))
            attention.pairing = "interleaved"
    for parameter in copy.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.t().contiguous().t()
    return copy
