"""Protocols: the same targets for everyone, and arms that differ in the far tokens alone."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from observe import refuses
from torch import Tensor, nn

from farcontext.measure import losses
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder, Encoder
from farcontext.schema import EOS, MASK, SPECIAL
from farcontext.train import batches
from farcontext.train.batches import Stream
from farcontext.train.config import BatchConfig
from farcontext.train.keys import vocabulary_size

LENGTH, ROWS, BLOCK = 96, 8, 16


@pytest.fixture(autouse=True)
def in_the_checkout(root: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


def model_of(kind: str) -> Encoder | Decoder:
    torch.manual_seed(0)
    config = ModelConfig(
        kind=kind,
        vocab_size=vocabulary_size(),
        width=16,
        layers=1,
        heads=2,
        mlp_width=16,
        max_length=LENGTH,
        init_std=0.3,
    )
    return (Encoder if kind == "encoder" else Decoder)(config).eval()


class Seen(Decoder):
    """A decoder that notes what it is fed."""

    fed: list[Tensor]

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, select: Tensor | None = None
    ) -> Tensor:
        self.fed.append(tokens)
        return super().forward(tokens, documents, select)


def uniform(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.data.zero_()
    return model


@torch.inference_mode()
def test_a_uniform_model_loses_ln_v_on_every_token() -> None:
    rows = losses.masked_loss(
        uniform(model_of("encoder")), domains=["plays"], length=64, rows=4, rate=0.3, items=1
    )
    assert rows[0]["nats"] == pytest.approx(
        rows[0]["tokens"] * math.log(vocabulary_size()), rel=1e-6
    )
    for row in losses.context_loss(
        uniform(model_of("decoder")), domain="plays", length=LENGTH, rows=4, contexts=[16], items=1
    ):
        assert row["loss"] == pytest.approx(math.log(vocabulary_size()), rel=1e-6)


SAME = {"domains": ["plays", "sanguo"], "length": 64, "rows": 4, "rate": 0.3}


@torch.inference_mode()
def test_ngrams_are_scored_on_the_encoders_targets() -> None:
    masked = losses.masked_loss(model_of("encoder"), **SAME, items=3)
    counted = losses.ngram_loss(**SAME, items=[3], orders=[1, 2], read={"limit": 20_000})
    for order, sees in itertools.product((1, 2), losses.SEES):
        found = [row for row in counted if (row["order"], row["sees"]) == (order, sees)]
        assert [(r["domain"], r["tokens"], r["bytes"]) for r in found] == [
            (r["domain"], r["tokens"], r["bytes"]) for r in masked
        ]


def test_an_ngram_that_sees_more_of_the_row_loses_less() -> None:
    counted = losses.ngram_loss(**SAME, items=[3], orders=[1, 2], read={"limit": 60_000})
    nats = {}
    for row in counted:
        at = row["order"], row["sees"]
        nats[at] = nats.get(at, 0) + row["nats"]
    assert nats[2, "both"] < nats[2, "left"] > nats[2, "true left"]
    assert nats[1, "both"] == pytest.approx(nats[1, "left"])  # A unigram sees nothing.


def test_ngrams_of_the_same_tokens_read_the_rows_of_the_training(tokenizer_folder: Path) -> None:
    batch = BatchConfig(objective="mlm", length=32, rows=4, limit=20_000)
    read = {"batch": batch.model_dump(mode="json"), "seed": 5, "steps": 3}
    text = losses._text_read(**read).reshape(12, 33)
    stream = Stream.load(tokenizer_folder, "train", limit=20_000)
    for step in range(3):
        seen = batches.training_batch(stream, batch, seed=5, step=step)
        rows = torch.where(seen.targets != batches.IGNORE, seen.targets, seen.tokens)
        np.testing.assert_array_equal(text[4 * step : 4 * step + 4, :-1], rows)
    assert (text[:, -1] == EOS).all()


def test_rows_are_drawn_for_each_seed_inside_documents_and_apart() -> None:
    first, documents = losses.test_rows("manuals", 128, 20, 1)
    again, _ = losses.test_rows("manuals", 128, 20, 1)
    other, _ = losses.test_rows("manuals", 128, 20, 2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(1).all()
    assert len({tuple(row) for row in first}) == 20 == len(documents)
    assert not (first[:, :-1] == EOS).any()
    with refuses("test-sanguo: length = 256, rows = 9999: expected at most"):
        losses.test_rows("sanguo", 256, 9999, 1)


def test_masked_positions_spare_special_tokens_and_meet_the_rate() -> None:
    rows = np.full((50, 200), 99)
    rows[:, ::10] = MASK
    scored = losses.masked_positions(rows, 0.3, 1)
    assert not scored[rows < len(SPECIAL)].any()
    assert abs(scored[rows >= len(SPECIAL)].mean() - 0.3) < 5 * math.sqrt(0.21 / 9000)
    assert (scored != losses.masked_positions(rows, 0.3, 2)).any()


@torch.inference_mode()
def test_arms_differ_in_far_tokens_alone() -> None:
    model = Seen(model_of("decoder").config).eval()
    model.fed = []
    losses.context_loss(
        model, domain="manuals", length=LENGTH, rows=ROWS, contexts=[16], items=1, block=BLOCK
    )
    full, truncated, other, same = (fed.numpy() for fed in model.fed)
    near = BLOCK + 16 - 1  # the last token is predicted, not fed
    assert truncated.shape[1] == near
    np.testing.assert_array_equal(truncated, full[:, -near:])
    np.testing.assert_array_equal(other[:, -near:], full[:, -near:])
    assert (other[:, :-near] != full[:, :-near]).mean() > 0.5
    assert {tuple(row) for row in same[:, -near:]} <= {tuple(row) for row in full[:, -near:]}


@torch.inference_mode()
def test_full_context_does_not_depend_on_how_much_of_it_is_called_near() -> None:
    rows = losses.context_loss(
        model_of("decoder"), domain="manuals", length=LENGTH, rows=4, contexts=[16, 32], items=1
    )
    full = {(r["context"], r["row"]): r["loss"] for r in rows if r["far"] == "full"}
    assert all(full[16, row] == full[32, row] for row in range(4))
    cut = {(r["context"], r["row"]): r["loss"] for r in rows if r["far"] == "truncated"}
    assert any(cut[16, row] != cut[32, row] for row in range(4))


def test_foreign_rows_come_from_where_they_say() -> None:
    documents = np.array([0, 0, 0, 1, 1, 2])
    other, same = (
        losses.foreign_rows(documents, same=False),
        losses.foreign_rows(documents, same=True),
    )
    assert (documents[other] != documents).all()
    assert same[5] == -1  # the only row of its document
    assert (documents[same[:5]] == documents[:5]).all()
    assert (same[:5] != np.arange(5)).all()
    np.testing.assert_array_equal(other, losses.foreign_rows(documents, same=False))
