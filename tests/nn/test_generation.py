"""generation.py: what a cache gives is what the whole pass gives, and how a token is drawn."""

import pytest
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from farcontext.checkpoints.convert import to_hf
from farcontext.nn.config import Extension, ModelConfig
from farcontext.nn.generation import (
    GREEDY,
    Reader,
    Sampling,
    distribution,
    drawn,
    generate,
    laid_out,
    stream,
)
from farcontext.nn.masks import Pattern
from farcontext.nn.transformer import Decoder, Encoder

V, T, NEW = 50, 9, 8  # a prompt and what follows
SAMPLING = Sampling(temperature=0.9, top_k=20, top_p=0.9)


def build(**changes) -> Decoder:
    shape = {
        "vocab_size": V,
        "width": 32,
        "layers": 3,
        "heads": 4,
        "mlp_width": 48,
        "max_length": 64,
    }
    torch.manual_seed(0)
    return (
        Decoder(ModelConfig(**{"kind": "decoder", "init_std": 0.3, **shape, **changes}))
        .double()
        .eval()
    )


def prompt(rows: int = 2, length: int = T) -> Tensor:
    return torch.randint(4, V, (rows, length), generator=torch.Generator().manual_seed(1))


def extension(scheme: str, **options) -> Extension:
    return Extension(scheme=scheme, scale=4.0, trained_length=8, **options)


KINDS = {
    "rope": {},
    "interleaved pairs": {"pairing": "interleaved"},
    "grouped queries": {"kv_heads": 2},
    "yarn": {"extension": extension("yarn")},
    "llama3": {"extension": extension("llama3")},
    "dynamic_ntk": {"extension": extension("dynamic_ntk")},
    "longrope": {
        "extension": extension(
            "longrope", short_factor=(1.0,) * 4, long_factor=(1.0, 2.0, 3.0, 4.0)
        )
    },
    "random_positions": {"random_positions": 40},
    "log_n": {"log_n": 8},
    "learned": {"positions": "learned"},
    "sinusoidal": {"positions": "sinusoidal"},
    "none": {"positions": "none"},
    "alibi": {"positions": "alibi"},
    "t5": {"positions": "t5"},
    "windows": {"window": 4, "global_every": 2},
    "windows alone": {"window": 3, "global_every": 0, "kv_heads": 1},
    "layer norm, geglu": {"norm": "layer", "mlp": "geglu", "embedding_norm": True, "tied": False},
    "scaled logits": {"embedding_std": 1.0},
    "short convolution": {"short_conv": 3},
    "a convolution longer than the prompt": {"short_conv": T + 3},
}


def cached_logits(
    model: Decoder, tokens: Tensor, first: int, pattern: Pattern | None = None
) -> Tensor:
    """Return the logits after the first tokens, then after every further one, (B, n, V)."""
    reader = Reader(model, *tokens.shape, pattern)
    found = [reader.read(tokens[:, :first])]
    return torch.stack(
        found + [reader.read(token[:, None]) for token in tokens[:, first:].unbind(1)], 1
    )


def whole_logits(
    model: Decoder, tokens: Tensor, first: int, pattern: Pattern | None = None
) -> Tensor:
    with torch.inference_mode():
        return model(tokens, pattern=pattern)[:, first - 1 :]


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


# -------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_cache_the_logits_are_those_of_the_whole_pass(kind: str) -> None:
    model, tokens = build(**KINDS[kind]), prompt(length=T + NEW)
    same(cached_logits(model, tokens, T), whole_logits(model, tokens, T))


@pytest.mark.parametrize("kind", ["rope", "learned", "alibi", "windows", "log_n", "t5"])
def test_positions_off_by_one_are_found(kind: str) -> None:
    model, tokens = build(**KINDS[kind]), prompt(length=T + NEW)
    reader = Reader(model, *tokens.shape)
    reader.read(tokens[:, :T])
    for cache in reader.caches:
        cache.length += 1  # a gap: the next token stands one position too far
        cache.keys_BGCH[:, :, T] = cache.keys_BGCH[:, :, T - 1]
        cache.values_BGCH[:, :, T] = cache.values_BGCH[:, :, T - 1]
    wrong = reader.read(tokens[:, T : T + 1])
    assert (wrong - whole_logits(model, tokens, T)[:, 1]).abs().max() > 1e-4


def test_a_prompt_read_in_parts_is_the_same_prompt() -> None:
    model, tokens = build(window=4, global_every=2), prompt(length=T + NEW)
    reader = Reader(model, *tokens.shape)
    for part in tokens.split([5, 1, 7, T + NEW - 13], 1):
        last = reader.read(part)
    same(last, whole_logits(model, tokens, T)[:, -1])


def test_a_pattern_of_a_window_and_sinks_holds_in_global_layers() -> None:
    model, tokens = build(), prompt(length=T + NEW)
    pattern = Pattern(before=3, after=0, sinks=2)
    found = cached_logits(model, tokens, T, pattern)
    same(found, whole_logits(model, tokens, T, pattern))
    assert (found - whole_logits(model, tokens, T)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "kind", ["rope", "interleaved pairs", "grouped queries", "alibi", "windows"]
)
def test_laid_out_is_the_same_function_and_leaves_the_model_alone(kind: str) -> None:
    model, tokens = build(**KINDS[kind]), prompt(length=T + NEW)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = laid_out(model)
    assert not copy.stack.blocks[0].mlp.out.weight.is_contiguous()
    same(cached_logits(copy, tokens, T), whole_logits(model, tokens, T))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.is_contiguous() and p.requires_grad for p in model.parameters())


def test_a_model_can_be_trained_at_a_length_after_it_has_generated() -> None:
    """Tables are kept from call to call.

    One that was made for inference must not end in a gradient.
    """
    model, tokens = build(theta=12_345.0), prompt(length=T + NEW)
    generate(model, tokens[:, :T], NEW)
    model.train()(tokens).sum().backward()
    assert model.embedding.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reader(build(smear=True), 1, 8), "smear"),
        (
            lambda: Reader(Encoder(build().config.model_copy(update={"kind": "encoder"})), 1, 8),
            "Decoder",
        ),
        (lambda: Reader(build(random_positions=40).train(), 1, 8), "training"),
        (lambda: Reader(build(), 1, 0), "capacity"),
        (lambda: Reader(build(), 2, T - 1).read(prompt()), "capacity"),
        (lambda: Reader(build(), 2, T).read(prompt()[:, :0]), "length"),
        (lambda: generate(build(positions="learned", max_length=T), prompt(), 2), "max_length"),
    ],
)
def test_what_cannot_be_cached_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------------ drawing


def test_greedy_tokens_are_those_of_whole_passes_and_of_transformers() -> None:
    model, tokens = build(kv_heads=2), prompt()
    found = generate(model, tokens, NEW)
    wanted = tokens
    for _ in range(NEW):
        wanted = torch.cat((wanted, model(wanted)[:, -1].argmax(-1, keepdim=True)), 1)
    assert torch.equal(found, wanted[:, T:])
    theirs = to_hf(model).generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=None,
    )
    assert torch.equal(found, theirs[:, T:])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.5),
        Sampling(temperature=1.0, top_k=5),
        Sampling(temperature=1.0, top_k=V + 1),
        Sampling(temperature=1.5, top_p=0.7),
        Sampling(temperature=1.0, top_p=1e-9),
        SAMPLING,
    ],
)
def test_the_distribution_is_that_of_transformers(sampling: Sampling) -> None:
    logits = 3 * torch.randn(20, V, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    wanted = TemperatureLogitsWarper(sampling.temperature)(None, logits)
    wanted = TopKLogitsWarper(sampling.top_k)(None, wanted) if sampling.top_k else wanted
    wanted = TopPLogitsWarper(sampling.top_p)(None, wanted) if sampling.top_p < 1 else wanted
    same(distribution(logits, sampling), wanted.softmax(-1))


def test_draws_follow_the_distribution() -> None:
    logits = torch.randn(1, V, generator=torch.Generator().manual_seed(3)).double()
    draws = drawn(logits.expand(20_000, -1), SAMPLING, torch.Generator().manual_seed(4))
    share = torch.bincount(draws, minlength=V) / len(draws)
    wanted = distribution(logits, SAMPLING)[0]
    assert (share - wanted).abs().max() < 0.02
    assert not share[wanted == 0].any()
    assert torch.equal(distribution(logits, GREEDY)[0].nonzero()[:, 0], logits.argmax(-1))


def test_a_seed_repeats_a_text_and_another_does_not() -> None:
    model, tokens = build(), prompt()
    texts = [
        generate(
            model, tokens, 20, sampling=SAMPLING, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (7, 7, 8)
    ]
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


def test_tokens_come_one_at_a_time_and_a_finished_row_repeats_its_stop() -> None:
    model, tokens = build(), prompt()
    plain = generate(model, tokens, NEW)
    first = next(stream(model, tokens, NEW))
    assert torch.equal(first, plain[:, 0]) and not torch.is_inference_mode_enabled()
    stop = int(plain[0, 2])
    stopped = generate(model, tokens, NEW, stop=stop)
    for row, whole in zip(stopped, plain, strict=True):
        at = (whole == stop).nonzero()[:1].flatten().tolist()
        end = at[0] + 1 if at else len(row)
        assert torch.equal(row[:end], whole[:end][: len(row)]) and (row[end:] == stop).all()
    alone = generate(model, tokens[:1], NEW, stop=stop)
    assert alone.shape[1] == 1 + int((plain[0] == stop).nonzero()[0])


@pytest.mark.parametrize(
    "bad", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}]
)
def test_a_value_out_of_range_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)
