"""Remapped positions: each pair against its own rotation, written out."""

import functools

import pytest
import torch

from farcontext.nn import remap
from farcontext.nn.config import ModelConfig
from farcontext.nn.masks import Pattern
from farcontext.nn.positions import inverse_frequencies
from farcontext.nn.remap import Region
from farcontext.nn.rotation import rotation_table
from farcontext.nn.transformer import Decoder

L = 16
KINDS = {
    "self_extend": functools.partial(remap.self_extend, trained=L, window=8),
    "dual_chunk": functools.partial(remap.dual_chunk, trained=L, chunk=12),
    "lm_infinite": functools.partial(remap.lm_infinite, trained=L, sinks=4),
}


def relative(regions: list[Region]) -> torch.Tensor:
    """Return each pair's relative position, −1 where a key is not visible."""
    length = len(regions[0].queries)
    out = torch.full((length, length), -1)
    for region in regions:
        both = region.queries[:, None] - region.keys
        out = torch.where(region.visible, both, out)
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [5, L, 40, 128])
def test_regions_are_disjoint_causal_and_within_the_trained_length(kind: str, length: int) -> None:
    regions = KINDS[kind](length)
    count = torch.stack([region.visible for region in regions]).sum(0)
    assert count.max() == 1 and (count.diagonal() == 1).all() and not count.triu(1).any()
    seen = relative(regions)[count == 1]
    assert seen.min() >= 0 and seen.max() < L
    if kind != "lm_infinite":
        assert torch.equal(count, torch.ones(length, length).tril().long())


def test_distances_are_those_of_the_papers() -> None:
    """Tokens 0 … 39, L = 16."""
    at = relative(KINDS["self_extend"](40))
    # Groups of 4 are the least: 39 // 4 + 8 − 8 // 4 = 15, and 31 // 4 = 7.
    assert (at[39, 32], at[39, 31], at[39, 0]) == (7, 8, 15)
    at = relative(KINDS["dual_chunk"](40))
    # Chunks of 12: token 39 stands in the fourth, 3 tokens in.
    assert (at[39, 36], at[39, 35], at[39, 24], at[39, 23]) == (3, 4, 15, 4)
    at = relative(KINDS["lm_infinite"](40))
    assert (at[39, 24], at[39, 23], at[39, 4], at[39, 3]) == (15, -1, -1, 15)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_over_regions_is_each_pairs_own_rotation(kind: str) -> None:
    """In fp64, against scores written out pair by pair as complex products."""
    torch.manual_seed(0)
    T, N, G, H = 40, 4, 2, 8
    q, k, v = (torch.randn(2, T, n, H, dtype=torch.float64) for n in (N, G, G))
    freq = inverse_frequencies("rope", head_dim=H, trained_length=L)
    rotation = rotation_table(freq, torch.arange(T), torch.float64)
    regions = KINDS[kind](T)
    ours = remap.attend_regions(q, k, v, rotation, regions)
    some = remap.attend_regions(q, k, v, rotation, regions, last=3)
    assert torch.allclose(some, ours[:, -3:], atol=1e-12)
    apart = relative(regions)
    q_c, k_c = (torch.view_as_complex(x.unflatten(-1, (-1, 2))) for x in (q, k))
    k_c, v = k_c.repeat_interleave(N // G, 2), v.repeat_interleave(N // G, 2)
    turn = torch.polar(torch.ones(T, T, H // 2, dtype=torch.float64), apart[..., None] * freq)
    scores = torch.einsum("btnf,bsnf,tsf->bnts", q_c, k_c.conj(), turn).real / H**0.5
    weights = scores.masked_fill(apart < 0, -torch.inf).softmax(-1)
    theirs = torch.einsum("bnts,bsnh->btnh", weights, v)
    assert (ours - theirs).abs().max() < 1e-12


def decoder(**changes: object) -> Decoder:
    torch.manual_seed(0)
    shape = {"kind": "decoder", "vocab_size": 32, "width": 32, "layers": 2, "heads": 4}
    shape |= {"mlp_width": 64, "max_length": L, "init_std": 0.3}
    return Decoder(ModelConfig(**(shape | changes))).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_within_the_trained_length_a_remapped_model_is_the_model(kind: str, pairing: str) -> None:
    tokens = torch.randint(32, (2, 12))
    select = torch.zeros(2, 12, dtype=torch.bool)
    select[:, -3:] = True
    plain, changed = decoder(pairing=pairing), remap.remapped(decoder(pairing=pairing), KINDS[kind])
    assert (plain(tokens) - changed(tokens)).abs().max() < 1e-5
    assert (plain(tokens, select=select) - changed(tokens, select=select)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_it_the_model_changes_and_stays_causal(kind: str) -> None:
    tokens = torch.randint(32, (1, 48))
    plain, changed = decoder(), remap.remapped(decoder(), KINDS[kind])
    assert (plain(tokens) - changed(tokens)).abs().max() > 1e-3
    other = tokens.clone()
    other[:, 30:] = 0
    assert torch.allclose(changed(tokens)[:, :30], changed(other)[:, :30], atol=1e-6)


def test_what_no_region_knows_is_refused() -> None:
    for model in (decoder(positions="none"), decoder(window=4)):
        with pytest.raises(ValueError, match="expected a decoder with RoPE"):
            remap.remapped(model, KINDS["self_extend"])
    changed = remap.remapped(decoder(), KINDS["self_extend"])
    with pytest.raises(ValueError, match="expected whole rows"):
        changed(torch.zeros(1, 4, dtype=torch.long), pattern=Pattern.window(2))
    with pytest.raises(ValueError, match="window = 16"):
        remap.self_extend(40, trained=L, window=16)
    with pytest.raises(ValueError, match="chunk = 17"):
        remap.dual_chunk(40, trained=L, chunk=17)
