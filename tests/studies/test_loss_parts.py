"""Where the loss goes: the parts make up the whole, and hidden filler is hidden."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from farcontext.studies.context_extension import apart, real_apart, real_far
from farcontext.tasks.sample import Query

LOSSES = {"together": 1.0, "masked": 1.5, "blank": 3.5, "real": 3.0, "beside": 2.0}


def test_either_way_the_parts_make_up_the_whole() -> None:
    part = {row["layout"]: row["value"] for row in apart.parts(LOSSES)}
    assert part["positions"] + part["keys"] + part["distraction"] == part["total"] == 2.0
    assert part["length"] + part["distraction"] == part["at hand"] + part["retrieval"] == 2.0
    assert part["distraction"] == -0.5 and part["keys"] == 2.0


def test_rows_name_their_surrounding_and_part() -> None:
    answered = [{"surrounding": name, "loss": loss} for name, loss in LOSSES.items()]
    rows = apart.rows_of(answered, {"arm": "a"})
    assert {row["metric"] for row in rows} == {"answer_loss", "loss_part"}
    assert len(rows) == len(LOSSES) + len(apart.PARTS)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(
        **sizes, num_attention_heads=2, num_key_value_heads=2, initializer_range=0.5
    )
    return LlamaForCausalLM(config).eval()


@torch.inference_mode()
def test_a_jump_in_the_positions_is_the_filler_hidden_from_all(model: LlamaForCausalLM) -> None:
    context, filler, query = [1, 7, 9, 4], [20, 21, 22], Query((7, 9), (4, 5), (), (), 0.0)
    row = torch.tensor([[*context, *filler, *query.question, *query.answer]])
    size = row.shape[1]
    sees = torch.ones(size, size, dtype=torch.bool).tril()
    sees[7:, 4:7] = False
    scores = model(input_ids=row, attention_mask=sees[None, None]).logits[0].log_softmax(-1)
    true = -(scores[size - 3, 4] + scores[size - 2, 5]).item()
    fake = SimpleNamespace(model=model)
    # The second time shows that the first has left the context as it was.
    twice = real_apart._behind_gap(fake, context, [query, query], 3)
    assert twice == pytest.approx([true, true], abs=1e-4)
    assert real_apart._behind_gap(fake, context, [query], 0) != pytest.approx([true], abs=1e-3)


def test_documents_stand_in_pairs_that_are_no_neighbours() -> None:
    assert real_far.pairs(6) == [[0, 3], [1, 4], [2, 5]]


def test_a_stretch_begins_behind_the_head_and_short_documents_have_no_number() -> None:
    fake = SimpleNamespace(
        tokenizer=SimpleNamespace(encode=lambda text, **_: [int(x) for x in text.split()])
    )
    texts = ["1 2 3 4 5", "6 7", "8 9 10 11 12 13"]
    assert real_far.stretches(fake, texts, [0, 1], 3, skip=2) == [[3, 4, 5], [10, 11, 12]]
