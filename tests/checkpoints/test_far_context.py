"""What far text is worth is measured on the same targets.

The text is the one that is meant, positions jump, and the model is left as it was.
"""

from pathlib import Path

import pytest
import tiny
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from farcontext.checkpoints import far_context
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.rope_check import rotary_modules
from farcontext.checkpoints.token_losses import token_losses

SCHEMES = {
    "none": {},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "ntk": {"rope_theta": 40_000.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
}


@pytest.fixture(scope="module")
def loaded() -> Pretrained:
    """A random Llama whose attention matters."""
    torch.manual_seed(0)
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }
    config = LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        max_position_embeddings=64,
        initializer_range=0.3,
        **ids,
        **sizes,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return Pretrained(model, tokenizer, "tiny", Path("tiny"))


@pytest.fixture(scope="module")
def documents() -> list[list[int]]:
    return torch.randint(4, 256, (3, 64), generator=torch.Generator().manual_seed(0)).tolist()


def plain(loaded: Pretrained, ids: list[int], targets: int) -> float:
    with torch.inference_mode():
        scores = loaded.model(input_ids=torch.tensor([ids])).logits[0, -targets - 1 : -1]
    return float(torch.nn.functional.cross_entropy(scores, torch.tensor(ids[-targets:])))


def test_a_context_that_is_read_once_gives_the_same_losses(
    loaded: Pretrained, documents: list[list[int]]
) -> None:
    def of(rows: list[dict]) -> dict:
        return {(row["document"], row["far"]): row["loss"] for row in rows}

    for length in (24, 64):
        twice = of(far_context.far_context_loss(loaded, documents, lengths=[length], targets=8))
        once = of(far_context.crossed_loss(loaded, documents, length=length, targets=8))
        assert once == pytest.approx(twice, abs=1e-4) and len(once) == 6


def test_targets_follow_their_own_text_or_the_next_documents(
    loaded: Pretrained, documents: list[list[int]]
) -> None:
    rows = far_context.far_context_loss(loaded, documents, lengths=[24, 64], targets=8)
    assert len(rows) == 3 * 2 * 2
    for row in rows:
        own, other = documents[row["document"]], documents[(row["document"] + 1) % 3]
        source = own if row["far"] == "true" else other
        ids = [*source[64 - row["length"] : 56], *own[56:]]
        assert len(ids) == row["length"]
        assert row["loss"] == pytest.approx(plain(loaded, ids, 8), abs=1e-4)
    by = {(row["document"], row["length"], row["far"]): row["loss"] for row in rows}
    assert all(
        abs(by[d, length, "true"] - by[d, length, "other"]) > 0.01
        for d in range(3)
        for length in (24, 64)
    )


def test_the_same_document_as_another_costs_nothing(
    loaded: Pretrained, documents: list[list[int]]
) -> None:
    twins = [documents[0], documents[0]]
    rows = far_context.far_context_loss(loaded, twins, lengths=[24, 64], targets=8)
    for true, other in zip(rows[::2], rows[1::2], strict=True):
        assert (
            true["far"] == "true"
            and other["far"] == "other"
            and true["loss"] == pytest.approx(other["loss"])
        )


def test_losses_stand_at_their_positions(loaded: Pretrained, documents: list[list[int]]) -> None:
    rows = far_context.loss_by_position(loaded, documents, length=32, bucket=8)
    assert [row["position"] for row in rows] == [0, 8, 16, 24] * 3
    for row in rows:
        start = row["position"]
        wanted = plain(loaded, documents[row["document"]][: start + 8], 8 if start else 7)
        assert row["loss"] == pytest.approx(wanted, abs=1e-4)


def test_without_a_gap_it_is_the_plain_loss_and_the_model_is_left_as_it_was(
    loaded: Pretrained, documents: list[list[int]]
) -> None:
    held = rotary_modules(loaded.model)
    before = plain(loaded, documents[0][:48], 24)
    rows = far_context.position_gap(loaded, documents, gaps=[0, 500], schemes=SCHEMES, half=24)
    assert len(rows) == 5 * 2 * 3
    for row in rows:
        if row["scheme"] == "none" and row["gap"] == 0:
            wanted = plain(loaded, documents[row["document"]][:48], 24)
            assert row["loss"] == pytest.approx(wanted, abs=1e-4)
    losses = {
        scheme: [row["loss"] for row in rows if row["scheme"] == scheme and row["gap"] == 500]
        for scheme in SCHEMES
    }
    # each scheme turns otherwise
    assert len({round(sum(part), 4) for part in losses.values()}) == 5
    after = rotary_modules(loaded.model)
    assert held.keys() == after.keys() and all(held[name] is after[name] for name in held)
    assert plain(loaded, documents[0][:48], 24) == pytest.approx(before)


def test_a_jump_is_not_taken_for_another_document(
    loaded: Pretrained, documents: list[list[int]]
) -> None:
    """The second half sees the first across the gap.

    Other text there changes the loss; without a mask it would not.
    """
    changed = [[*documents[1][:24], *documents[0][24:]]]
    losses = [
        far_context.position_gap(loaded, part, gaps=[500], schemes={"none": {}}, half=24)[0]["loss"]
        for part in (documents[:1], changed)
    ]
    assert abs(losses[0] - losses[1]) > 0.05
    at_T = torch.arange(48)
    jump = torch.where(at_T < 24, at_T, at_T + 500)[None]
    hidden = [
        token_losses(loaded.model, part[:48], 23, position_ids=jump).mean()
        for part in (documents[0], changed[0])
    ]
    assert float(hidden[0]) == pytest.approx(float(hidden[1]), abs=1e-4)  # the trap


def test_documents_that_are_too_short_or_alone_are_refused(
    loaded: Pretrained, documents: list[list[int]]
) -> None:
    for given, lengths, targets in (
        (documents, [65], 8),
        (documents, [8], 8),
        (documents[:1], [24], 8),
    ):
        with pytest.raises(
            ValueError, match="expected two documents as long as the longest length"
        ):
            far_context.far_context_loss(loaded, given, lengths=lengths, targets=targets)
    with pytest.raises(ValueError, match="documents of 64 tokens: expected 80 or more"):
        far_context.loss_by_position(loaded, documents, length=80, bucket=8)
    with pytest.raises(ValueError, match="bucket = 7: expected a divisor of length = 32"):
        far_context.loss_by_position(loaded, documents, length=32, bucket=7)
