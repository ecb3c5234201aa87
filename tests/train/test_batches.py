"""Batches are pure functions of (seed, step).

Each token comes once an epoch, and targets keep to a document.
"""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farcontext import files
from farcontext.files import UserError
from farcontext.schema import EOS, MASK, PAD, SPECIAL
from farcontext.train import batches
from farcontext.train.batches import (
    IGNORE,
    Batch,
    Stream,
    evaluation_starts,
    mask_tokens,
    training_batch,
)
from farcontext.train.config import BatchConfig

VOCABULARY = 60_000
FIRST = len(SPECIAL)


def stream_of(**lengths: list[int]) -> Stream:
    """Return a stream of documents of these lengths.

    Each token but EOS is unique, so it can be traced.
    """
    tokens, offsets, at = {}, {}, FIRST
    for domain, sizes in lengths.items():
        ids = np.arange(at, at + sum(sizes), dtype=np.uint16)
        at += len(ids)
        offsets[domain] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        ids[offsets[domain][1:] - 1] = EOS
        tokens[domain] = ids
    return Stream("toy/train", VOCABULARY, "f", tokens, offsets)


def owner_of(stream: Stream) -> dict[int, tuple[str, int]]:
    """Return token → (domain, document)."""
    return {
        int(token): (domain, int(stream.document_of(domain, np.array([place]))[0]))
        for domain, ids in stream.tokens.items()
        for place, token in enumerate(ids)
        if token != EOS
    }


def config(**changes: object) -> BatchConfig:
    return BatchConfig(
        **{"objective": "clm", "length": 8, "rows": 4, "layout": "packed", **changes}
    )


def equal(a: Batch, b: Batch) -> bool:
    if (a.documents is None) != (b.documents is None):
        return False
    same = torch.equal(a.tokens, b.tokens) and torch.equal(a.targets, b.targets)
    return same and (a.documents is None or torch.equal(a.documents, b.documents))


STREAM = stream_of(a=[40, 3, 1, 30, 55], b=[200])


# ----------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("objective", ["mlm", "clm"])
def test_a_batch_depends_on_its_arguments_alone(objective: str, layout: str) -> None:
    options = config(objective=objective, layout=layout)
    forward = [training_batch(STREAM, options, seed=5, step=step) for step in range(30)]
    batches._permutation.cache_clear()
    np.random.seed(1)
    torch.manual_seed(1)
    assert all(
        equal(training_batch(STREAM, options, seed=5, step=s), forward[s])
        for s in reversed(range(30))
    )
    assert not equal(forward[0], forward[1])
    assert not equal(forward[0], training_batch(STREAM, options, seed=6, step=0))
    for batch in forward:
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        assert batch.tokens.shape == batch.targets.shape == (4, 8)


def epoch_of(stream: Stream, options: BatchConfig, seed: int, epoch: int) -> Batch:
    """Return one whole epoch as one batch: as many rows as the epoch has."""
    match options.layout:
        case "packed":
            rows = sum(len(ids) // options.length for ids in stream.tokens.values())
        case "padded":
            rows = sum(
                int(np.ceil(np.diff(o) / options.length).sum()) for o in stream.offsets.values()
            )
    return training_batch(stream, options.model_copy(update={"rows": rows}), seed=seed, step=epoch)


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12).filter(
    lambda sizes: sum(sizes) >= 30
)


@given(LENGTHS, LENGTHS, st.integers(2, 30), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_packed_each_token_comes_at_most_once_an_epoch(
    a: list, b: list, length: int, seed: int, epoch: int
) -> None:
    stream = stream_of(a=a, b=b)
    batch = epoch_of(stream, config(length=length), seed, epoch)
    seen = Counter(batch.tokens.flatten().tolist())
    eos = seen.pop(EOS, 0)
    assert PAD not in seen and set(seen.values()) <= {1} and eos <= len(a) + len(b)
    for domain, ids in stream.tokens.items():
        here = sum(int(t) in seen for t in ids if t != EOS) + (eos if domain == "a" else 0)
        assert len(ids) - here < length + len(a) + len(b)
    assert batch.tokens.numel() == sum(
        len(ids) // length * length for ids in stream.tokens.values()
    )


@given(LENGTHS, LENGTHS, st.integers(2, 30), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_padded_each_token_comes_exactly_once_an_epoch(
    a: list, b: list, length: int, seed: int
) -> None:
    stream = stream_of(a=a, b=b)
    batch = epoch_of(stream, config(length=length, layout="padded"), seed, 0)
    seen = Counter(batch.tokens.flatten().tolist())
    seen.pop(PAD, 0)
    assert seen.pop(EOS) == len(a) + len(b)
    assert set(seen.values()) <= {1} and set(seen) == set(owner_of(stream))
    owner = owner_of(stream)
    documents = torch.zeros_like(batch.tokens) if batch.documents is None else batch.documents
    assert torch.equal(documents == 1, batch.tokens == PAD)
    for row in batch.tokens.tolist():
        assert len({owner[token] for token in row if token not in (EOS, PAD)}) <= 1


@pytest.mark.parametrize("layout", ["packed", "padded"])
@given(LENGTHS, st.integers(2, 30), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_clm_targets_are_the_next_token_of_the_same_document(
    layout: str, a: list, length: int, seed: int
) -> None:
    stream = stream_of(a=a)
    ids, bounds = stream.tokens["a"].astype(int), stream.offsets["a"]
    follows = {int(t): int(n) for t, n in pairwise(ids) if t != EOS}
    batch = epoch_of(stream, config(length=length, layout=layout), seed, 1)
    for token, target in zip(
        batch.tokens.flatten().tolist(), batch.targets.flatten().tolist(), strict=True
    ):
        assert target == (IGNORE if token in (EOS, PAD) else follows[token])
    scored = int((batch.targets != IGNORE).sum())
    if layout == "padded":
        assert scored == len(ids) - (len(bounds) - 1)  # every token but each document's first


def test_documents_are_given_exactly_when_a_row_crosses_a_boundary() -> None:
    owner, crossed, plain = owner_of(STREAM), 0, 0
    for step in range(60):
        batch = training_batch(STREAM, config(), seed=1, step=step)
        rows = batch.tokens.tolist()
        alone = all(row[:-1].count(EOS) == 0 for row in rows)
        assert (batch.documents is None) == alone
        crossed, plain = crossed + (not alone), plain + alone
        for row, found in zip(rows, [] if alone else batch.documents.tolist(), strict=False):
            runs: dict[int, set] = {}
            for token, document in zip(row, found, strict=True):
                if token != EOS:
                    runs.setdefault(document, set()).add(owner[token])
            assert all(len(owners) == 1 for owners in runs.values())
            boundaries = sum(a != b for a, b in pairwise(found))
            assert boundaries == row[:-1].count(EOS) == len(set(found)) - 1
    assert crossed and plain


def test_the_ring_s_seam_separates_the_ends_of_one_document() -> None:
    stream = stream_of(a=[30])
    for epoch in range(20):
        batch = epoch_of(stream, config(), 0, epoch)
        for row, tokens in enumerate(batch.tokens.tolist()):
            if EOS in tokens[:-1]:
                cut = tokens.index(EOS)
                assert batch.documents[row, cut] != batch.documents[row, cut + 1]
                assert batch.targets[row, cut] == IGNORE


def test_windows_move_between_epochs_and_domains_mix_by_their_tokens() -> None:
    stream = stream_of(a=[900], b=[100])
    starts = [set(epoch_of(stream, config(), 0, epoch).tokens[:, 0].tolist()) for epoch in range(6)]
    assert len(set.union(*starts)) > 3 * len(starts[0])
    order = epoch_of(stream, config(), 0, 0).tokens[:, 0].tolist()
    small = [i for i, token in enumerate(order) if token >= FIRST + 900 or token == EOS]
    assert len(small) in (12, 13) and max(small) - min(small) > len(order) // 2


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_each_epoch_has_an_order_of_its_own(layout: str) -> None:
    stream = stream_of(a=[800])
    orders = [
        epoch_of(stream, config(layout=layout), 0, epoch).tokens[:, 0].argsort()
        for epoch in range(3)
    ]
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])


def test_mlm_targets_follow_the_packed_tokens() -> None:
    options = config(objective="mlm", mask_rate=0.3)
    for step in range(20):
        plain = training_batch(STREAM, config(), seed=2, step=step)
        masked = training_batch(STREAM, options, seed=2, step=step)
        selected = masked.targets != IGNORE
        assert torch.equal(masked.targets[selected], plain.tokens[selected])
        assert torch.equal(masked.tokens[~selected], plain.tokens[~selected])


def test_a_domain_shorter_than_a_row_is_one_line() -> None:
    with pytest.raises(UserError, match="toy/train-b: 5 tokens: expected at least length = 8"):
        training_batch(stream_of(a=[50], b=[5]), config(), seed=0, step=0)


# ------------------------------------------------------------------------------------------ masking


def within(count: int, of: int, share: float) -> bool:
    """Whether a binomial count lies within 5 standard deviations of its mean."""
    return abs(count - of * share) < 5 * math.sqrt(of * share * (1 - share))


def test_masks_have_bert_s_shares() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(FIRST, VOCABULARY, 400_000)
    inputs, targets = mask_tokens(tokens, rng, 0.15, VOCABULARY)
    selected = targets != IGNORE
    masked, kept = selected & (inputs == MASK), selected & (inputs == tokens)
    random = selected & ~masked & ~kept
    shares = {
        "mask": (masked.sum(), 0.12),
        "random": (random.sum(), 0.015),
        "kept": (kept.sum(), 0.015),
    }
    for name, (count, share) in shares.items():
        assert within(int(count), len(tokens), share), name
    assert np.array_equal(targets[selected], tokens[selected])
    assert np.array_equal(inputs[~selected], tokens[~selected])
    assert inputs[random].min() >= FIRST and len(np.unique(inputs[random])) > 0.9 * random.sum()
    # a share half a point off would be seen
    assert not within(int(masked.sum()), len(tokens), 0.125)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.sampled_from([0.0, 0.3, 1.0]))
def test_specials_are_never_selected(tokens: list[int], rate: float) -> None:
    inputs, targets = mask_tokens(np.array(tokens), np.random.default_rng(1), rate, 10)
    special = np.array(tokens) < FIRST
    assert (targets[special] == IGNORE).all() and np.array_equal(
        inputs[special], np.array(tokens)[special]
    )
    if rate in (0.0, 1.0):
        assert ((targets != IGNORE) == (~special & (rate == 1.0))).all()
    assert set(inputs[~special].tolist()) <= {MASK, *range(FIRST, 10)}


# --------------------------------------------------------------------------------------- evaluation


def test_evaluation_windows_are_fixed_whole_and_apart() -> None:
    stream = stream_of(a=[100, 5, 64, 200, 31])
    starts = evaluation_starts(stream, "a", 32, 9)
    first, last = stream.document_of("a", starts), stream.document_of("a", starts + 31)
    assert np.array_equal(first, last) and set(first) == {0, 2, 3}
    assert (np.diff(starts) >= 32).all()
    rows, documents = stream.windows("a", 32, 9)
    assert rows.dtype == np.int64 and rows.shape == (9, 32) and np.array_equal(documents, first)
    assert np.array_equal(rows, stream.tokens["a"][starts[:, None] + np.arange(32)])
    crossing = evaluation_starts(stream, "a", 32, 9, within_document=False)
    assert (stream.document_of("a", crossing) != stream.document_of("a", crossing + 31)).any()


def test_evaluation_windows_overlap_only_when_they_must() -> None:
    stream = stream_of(a=[100])
    assert np.diff(evaluation_starts(stream, "a", 30, 3)).min() >= 30
    crowded = evaluation_starts(stream, "a", 30, 40)
    assert len(set(crowded)) == 40 and crowded.min() >= 0 and crowded.max() <= 70
    with pytest.raises(UserError, match="length = 30, rows = 72: expected at most 71 rows"):
        evaluation_starts(stream, "a", 30, 72)
    with pytest.raises(UserError, match="domain = x: expected one of a"):
        evaluation_starts(stream, "x", 30, 1)
    # no document is that long
    assert len(evaluation_starts(stream_of(a=[20, 20, 20]), "a", 30, 2)) == 2


# ------------------------------------------------------------------------------------------ loading


def write_stream(folder: Path, stream: Stream) -> Path:
    folder.mkdir()
    for domain, ids in stream.tokens.items():
        np.save(folder / f"train-{domain}.npy", ids)
        np.save(folder / f"train-{domain}.offsets.npy", stream.offsets[domain])
    domains = {domain: {} for domain in stream.tokens}
    files.write_json(
        folder / "card.json", {"vocab_size": VOCABULARY, "fingerprint": "f", "domains": domains}
    )
    return folder


def test_loading_maps_and_limits(tmp_path: Path) -> None:
    folder = write_stream(tmp_path / "tokens", STREAM)
    whole = Stream.load(folder, "train")
    assert whole.domains == ("a", "b") and (whole.vocab_size, whole.fingerprint) == (
        VOCABULARY,
        "f",
    )
    assert isinstance(whole.tokens["a"], np.memmap) and np.array_equal(
        whole.all_tokens(), STREAM.all_tokens()
    )
    assert equal(
        training_batch(whole, config(), seed=0, step=3),
        training_batch(STREAM, config(), seed=0, step=3),
    )
    part = Stream.load(folder, "train", ("a",), limit=42)
    assert part.domains == ("a",) and len(part.tokens["a"]) == 42
    assert part.offsets["a"].tolist() == [0, 40, 42]
    assert Stream.load(folder, "train", limit=40).offsets["a"].tolist() == [0, 40]


def test_bad_token_files_are_one_line(tmp_path: Path) -> None:
    folder = write_stream(tmp_path / "tokens", STREAM)
    with pytest.raises(UserError, match="domains: x: expected some of a, b"):
        Stream.load(folder, "train", ("x",))
    with pytest.raises(UserError, match=r"test-a\.npy: expected a file here"):
        Stream.load(folder, "test")
    with pytest.raises(UserError, match=r"card\.json: expected a file here"):
        Stream.load(tmp_path, "train")
    path = folder / "train-a.npy"
    for array in (np.arange(9), np.zeros((3, 3), np.uint16)):
        np.save(path, array)
        with pytest.raises(UserError, match=r"train-a\.npy: dtype = .*expected uint16, 1 axis"):
            Stream.load(folder, "train")
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"train-a\.npy: expected an array"):
        Stream.load(folder, "train")
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"train-a\.npy: expected an array"):
        Stream.load(folder, "train")
