"""Attribution against values derived by hand.

Rollout of two layers, a linear model's gradients, the Lasso on orthogonal columns, and areas.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from farcontext.measure import attribution, heads
from farcontext.measure.heads import Head, Layer
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder

ROW = [1, 5, 3, 8, 2, 6, 4]
ANSWER = 7


def decoder(**changes: object) -> Decoder:
    torch.manual_seed(0)
    fixed = {"kind": "decoder", "vocab_size": 12, "width": 16, "layers": 2, "heads": 4}
    fixed |= {"mlp_width": 16, "max_length": 16, "positions": "none", "short_conv": 3}
    fixed |= {"init_std": 0.3, "embedding_std": 1.0}
    return Decoder(ModelConfig(**fixed | changes)).eval()


def watched(model: Decoder, last_only: bool = True) -> list[Layer]:
    tokens = torch.tensor([ROW])
    select = torch.zeros(tokens.shape, dtype=torch.bool)
    select[:, -1] = True
    with torch.no_grad(), heads.watched(model) as layers:
        model(tokens, select=select if last_only else None)
    return layers


# ------------------------------------------------------------------------------- attention methods


def test_rollout_of_two_layers_by_hand() -> None:
    first = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    last = torch.tensor([[[0.2, 0.8]]])
    layers = [Layer(first, torch.zeros(2, 1, 1)), Layer(last, torch.zeros(2, 1, 1))]
    # ([0, 1] + [0.2, 0.8]) / 2 = [0.1, 0.9]; through the first layer [0.55, 0.45]; their mean.
    assert torch.allclose(attribution.rollout(layers), torch.tensor([0.325, 0.675]))
    assert torch.allclose(attribution.attention(layers), torch.tensor([0.35, 0.65]))


@pytest.mark.parametrize("changes", [{}, {"log_n": 4}, {"smear": True}, {"kv_heads": 2}])
def test_the_watched_weights_are_the_forward_pass(changes: dict[str, object]) -> None:
    """What the heads wrote, rebuilt from weights and values, is what the layer put out."""
    model = decoder(**changes)
    seen: list[Tensor] = []
    model.stack.blocks[-1].attention.register_forward_hook(lambda *got: seen.append(got[-1]))
    layers = watched(model)
    heads_NH = torch.einsum("ns,snh->nh", layers[-1].weights[:, -1], layers[-1].values)
    rebuilt = model.stack.blocks[-1].attention.out(heads_NH.flatten())
    assert torch.allclose(rebuilt, seen[0][0, -1], atol=1e-6)
    assert all(torch.allclose(layer.weights.sum(-1), torch.ones(())) for layer in layers)
    everything = watched(model, last_only=False)
    assert torch.allclose(attribution.rollout(layers), attribution.rollout(everything), atol=1e-6)
    assert attribution.rollout(layers).sum().item() == pytest.approx(1, abs=1e-6)


def test_what_heads_write_is_their_part_of_the_logit() -> None:
    model = decoder(layers=1)
    layers = watched(model)
    (written,) = heads.written(model, layers, ANSWER)
    heads_NH = torch.einsum("ns,snh->nh", layers[0].weights[:, -1], layers[0].values)
    u_D = model.embedding.weight[ANSWER] * model.stack.norm.weight
    assert written.sum().item() == pytest.approx(
        (model.stack.blocks[0].attention.out(heads_NH.flatten()) @ u_D).item(), abs=1e-5
    )
    evidence = torch.zeros(len(ROW))
    evidence[[2, 3]] = 1
    found = heads.contrast(written, evidence)
    by_hand = written[:, 2:4].mean(1) - written[:, [0, 1, 4, 5, 6]].mean(1)
    assert torch.allclose(found, by_hand, atol=1e-6)


def test_rope_and_several_rows_are_refused() -> None:
    for model, rows in ((decoder(positions="rope"), 1), (decoder(), 2)):
        with heads.watched(model), pytest.raises(ValueError, match="expected one, and a decoder"):
            model(torch.tensor([ROW] * rows))


# ------------------------------------------------------------------------------------- knocking out


def test_a_head_that_is_knocked_out_writes_nothing() -> None:
    model, tokens = decoder(), torch.tensor([ROW])
    before, twin = model(tokens), copy.deepcopy(model)
    with torch.no_grad():
        twin.stack.blocks[1].attention.out.weight[:, 4:8] = 0
    with heads.knocked_out(heads.outputs_of(model), [Head(1, 1)], 4):
        assert torch.allclose(model(tokens), twin(tokens), atol=1e-6)
    assert torch.equal(model(tokens), before) and not torch.equal(twin(tokens), before)


# --------------------------------------------------------------------------------- odds, gradients


def test_odds_of_three_tokens() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log()
    assert attribution.odds(logits, 1).item() == pytest.approx(0.0, abs=1e-6)  # ln(0.5 / 0.5)
    assert attribution.odds(logits, 0).item() == pytest.approx(np.log(0.25), abs=1e-6)


def test_log_odds_do_not_depend_on_the_rows_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = decoder(), [ROW, ROW[2:], ROW[:3], ROW[1:]]
    together = attribution.log_odds(model, rows, ANSWER)
    alone = [attribution.log_odds(model, [row], ANSWER)[0] for row in rows]
    monkeypatch.setattr(attribution, "TOKENS_AT_ONCE", 8)
    few = attribution.log_odds(model, rows, ANSWER)
    assert together == pytest.approx(alone, abs=1e-5) and few == pytest.approx(alone, abs=1e-5)


def test_embedded_is_the_models_own_embedding() -> None:
    model = decoder(embedding_norm=True)
    tokens = torch.tensor([ROW])
    ours = attribution.embedded(model.embedding, model.embedding.weight[tokens])
    assert torch.allclose(ours, model.embedding(tokens, None), atol=1e-6)
    with torch.inference_mode():
        twin = attribution.differentiable(model)
        e_BTD = twin.embedding.weight[tokens]
        found = attribution.odds_of(twin, ANSWER)(e_BTD)
    assert found.item() == pytest.approx(attribution.log_odds(model, [ROW], ANSWER)[0], abs=1e-5)


def test_gradients_of_a_linear_function_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """f(e) = Σ_t c_t Σ_d e_td has gradient × input c_t Σ_d e_td.

    Integrated gradients have the distance to the mean embedding in the place of e.
    """
    model = attribution.differentiable(decoder())
    c_T = torch.tensor([0.0, 1, -2, 0, 3, 0, 0.5])
    monkeypatch.setattr(
        attribution, "odds_of", lambda model, answer: lambda e_BTD: (e_BTD.sum(-1) * c_T).sum(-1)
    )
    e_TD = model.embedding.weight[torch.tensor(ROW)]
    wanted = c_T * e_TD.sum(-1)
    gradient = attribution.gradient_times_input(model, ROW, ANSWER)
    assert torch.allclose(gradient, wanted, atol=1e-5)
    integrated = attribution.integrated_gradients(model, ROW, ANSWER, 3)
    assert torch.allclose(integrated, c_T * (e_TD - e_TD.mean(0)).sum(-1), atol=1e-5)


def test_integrated_gradients_are_complete() -> None:
    model = attribution.differentiable(decoder())
    with torch.inference_mode():
        found = attribution.integrated_gradients(model, ROW, ANSWER, 32).sum().item()
    e_BTD = model.embedding.weight[torch.tensor([ROW])]
    function, mean_BTD = attribution.odds_of(model, ANSWER), attribution.without_words(e_BTD)
    assert found == pytest.approx((function(e_BTD) - function(mean_BTD)).item(), abs=1e-3)


# ----------------------------------------------------------------------------- surrogate and curves


def test_the_surrogate_shrinks_an_orthogonal_column_by_its_penalty() -> None:
    """Over all four subsets of two parts, y = 3 x₁: the Lasso gives 3 · (1 − 0.01), and 0."""
    kept = np.array([[False, False], [True, False], [False, True], [True, True]])
    found = attribution.surrogate(kept, 3.0 * kept[:, 0])
    assert found == pytest.approx([2.97, 0.0], abs=1e-6)
    always = np.column_stack([kept, np.ones(4, bool)])
    assert attribution.surrogate(always, 3.0 * kept[:, 0]) == pytest.approx([2.97, 0, 0], abs=1e-6)
    assert attribution.surrogate(kept, np.ones(4)) == pytest.approx([0, 0])


def test_half_of_the_parts_are_kept() -> None:
    kept = attribution.kept_parts(np.random.default_rng(0), 20, 500)
    assert kept.shape == (500, 20) and kept.mean() == pytest.approx(0.5, abs=0.02)


def test_areas_orders_and_curves() -> None:
    # Budgets 1, 2, 4 are equally far apart: (0/2 + 1 + 0.5/2) / 2 of a width of 2.
    assert attribution.area([1, 2, 4], [0.0, 1.0, 0.5]) == pytest.approx(0.625)
    assert attribution.area([2], [0.3]) == 0.3
    order = attribution.order_of([0.1, 0.9, 0.1, 0.5])
    assert order == [1, 3, 0, 2]
    assert attribution.deleted(order, [1, 2]) == [[0, 2, 3], [0, 2]]
    assert attribution.inserted(order, [1, 3]) == [[1], [0, 1, 3]]
    scores = torch.tensor([1.0, 2, 3, 4])
    assert attribution.by_part(scores, [(0, 1), (1, 4)]).tolist() == [1, 9]
