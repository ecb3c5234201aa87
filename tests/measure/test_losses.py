"""Protocols: the same targets for everyone, and arms that differ in the far tokens alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from farcontext.measure import losses
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder, Encoder
from farcontext.schema import MASK, SPECIAL
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
        uniform(model_of("encoder")), domains=["plays"], length=64, rows=4, rate=0.3
    )
    assert rows[0]["nats"] == pytest.approx(
        rows[0]["tokens"] * math.log(vocabulary_size()), rel=1e-6
    )
    for row in losses.context_loss(
        uniform(model_of("decoder")), domain="plays", length=LENGTH, rows=4, contexts=[16]
    ):
        assert row["loss"] == pytest.approx(math.log(vocabulary_size()), rel=1e-6)


@torch.inference_mode()
def test_ngrams_are_scored_on_the_encoders_targets() -> None:
    same = {"domains": ["plays", "sanguo"], "length": 64, "rows": 4, "rate": 0.3}
    masked = losses.masked_loss(model_of("encoder"), **same)
    counted = losses.ngram_loss(**same, orders=[1, 2], limit=20_000)
    for order in (1, 2):
        found = [row for row in counted if row["order"] == order]
        assert [(r["domain"], r["tokens"], r["bytes"]) for r in found] == [
            (r["domain"], r["tokens"], r["bytes"]) for r in masked
        ]


def test_masked_positions_spare_special_tokens_and_meet_the_rate() -> None:
    rows = np.full((50, 200), 99)
    rows[:, ::10] = MASK
    scored = losses.masked_positions(rows, 0.3)
    assert not scored[rows < len(SPECIAL)].any()
    assert abs(scored[rows >= len(SPECIAL)].mean() - 0.3) < 5 * math.sqrt(0.21 / 9000)


@torch.inference_mode()
def test_arms_differ_in_far_tokens_alone() -> None:
    model = Seen(model_of("decoder").config).eval()
    model.fed = []
    losses.context_loss(
        model, domain="manuals", length=LENGTH, rows=ROWS, contexts=[16], block=BLOCK
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
        model_of("decoder"), domain="manuals", length=LENGTH, rows=4, contexts=[16, 32]
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


@torch.inference_mode()
def test_blanks_mask_the_token_and_refuse_what_is_none() -> None:
    (row,) = losses.blanks(model_of("encoder"), sentences=[("I thank you, good my lord.", " lord")])
    assert row["true"] == " lord"
    assert 0 < row["p"] < 1
    assert len(row["best"].split(" · ")) == 3
    with pytest.raises(ValueError, match="expected a token of"):
        losses.blanks(model_of("encoder"), sentences=[("I thank you.", "nowhere")])
