"""The recurrent baselines have their cells' equations, initialisation and causality.

The tests hold what their gradients do with distance.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from farcontext.nn.config import ModelConfig
from farcontext.nn.recurrent import Recurrent

B, T, D, S, V = 2, 7, 5, 6, 11


def model(kind: str, layers: int = 1, **changes: object) -> Recurrent:
    torch.manual_seed(0)
    shape = {
        "vocab_size": V,
        "width": D,
        "layers": layers,
        "heads": 1,
        "mlp_width": S,
        "max_length": T,
        "positions": "none",
    }
    return Recurrent(ModelConfig(kind=kind, **shape | {"embedding_std": 1.0} | changes)).double()


def tokens(seed: int = 1) -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def by_hand(net: Recurrent, x_BTD: Tensor, forget: int = 1) -> Tensor:
    """Return the projected states of one layer, a token at a time.

    `forget` is the place of the LSTM's forget gate.
    """
    weights = [
        getattr(net.recurrence, f"{name}_l0")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    w_x, w_h, b_x, b_h = weights
    h = c = x_BTD.new_zeros(len(x_BTD), S)
    states = []
    for x in x_BTD.unbind(1):
        from_x, from_h = (x @ w_x.T + b_x).split(S, -1), (h @ w_h.T + b_h).split(S, -1)
        match net.config.kind:
            case "rnn":
                h = torch.tanh(from_x[0] + from_h[0])
            case "lstm":
                gates = [a + b for a, b in zip(from_x, from_h, strict=True)]
                c = gates[forget].sigmoid() * c + gates[1 - forget].sigmoid() * gates[2].tanh()
                h = gates[3].sigmoid() * c.tanh()
            case "gru":
                reset, keep = (
                    (a + b).sigmoid() for a, b in zip(from_x[:2], from_h[:2], strict=True)
                )
                h = (1 - keep) * torch.tanh(from_x[2] + reset * from_h[2]) + keep * h
        states.append(h)
    return torch.stack(states, 1) @ net.out.weight.T


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_logits_and_gradients_are_those_of_the_equations(kind: str) -> None:
    net, ids = model(kind), tokens()
    ours = net(ids)
    theirs = F.linear(by_hand(net, F.embedding(ids, net.embedding)), net.embedding, net.output_bias)
    assert (ours - theirs).abs().max() < 1e-12
    parameters = list(net.parameters())
    pairs = zip(
        *(torch.autograd.grad(x.square().sum(), parameters) for x in (ours, theirs)), strict=True
    )
    assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-10


def test_swapped_gates_would_be_noticed() -> None:
    net, ids = model("lstm"), tokens()
    x = F.embedding(ids, net.embedding)
    assert (net.from_embedded(x) - by_hand(net, x, forget=0)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_a_later_token_changes_no_earlier_output(kind: str) -> None:
    net, ids = model(kind, layers=2), tokens()
    other = ids.clone()
    other[:, 4] = (other[:, 4] + 1) % V
    moved = (net(ids) - net(other)).abs().amax((0, 2))
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 0).all()


def test_state_numbers_are_what_is_handed_on() -> None:
    for kind, tensors in (("rnn", 1), ("lstm", 2), ("gru", 1)):
        net = model(kind, layers=2)
        state = net.recurrence(torch.zeros(1, 1, D, dtype=torch.float64))[1]
        carried = state if kind == "lstm" else (state,)
        assert net.state_numbers == sum(part.numel() for part in carried) == 2 * S * tensors


def test_only_the_forget_gate_of_an_lstm_starts_with_a_bias() -> None:
    for kind in ("rnn", "lstm", "gru"):
        net = model(kind, layers=2)
        for name, parameter in net.recurrence.named_parameters():
            if "bias" in name:
                expected = torch.zeros_like(parameter)
                if kind == "lstm" and "bias_ih" in name:
                    expected[S : 2 * S] = 1
                assert torch.equal(parameter, expected), (kind, name)


def test_with_zero_input_a_cell_is_forgotten_at_the_rate_of_its_bias() -> None:
    """f = logistic(b): 1 gives 0.731058579 a step.

    That is a half-life of 2.21268 steps (Gers et al. 2000).
    """
    net = model("lstm")
    with torch.no_grad():
        net.recurrence.weight_hh_l0.zero_()
    h, c = torch.zeros(1, 1, S).double(), torch.ones(1, 1, S).double()
    _, (_, kept) = net.recurrence(torch.zeros(1, 10, D).double(), (h, c))
    assert kept.flatten().tolist() == pytest.approx([0.0436035428] * S, rel=1e-8)
    assert math.log(0.5) / math.log(torch.tensor(1.0).double().sigmoid().item()) == pytest.approx(
        2.21268, abs=1e-5
    )


def test_recurrent_matrices_start_orthogonal() -> None:
    for kind, gates in (("rnn", 1), ("lstm", 4), ("gru", 3)):
        parts = model(kind).recurrence.weight_hh_l0.split(S)
        assert len(parts) == gates
        for part in parts:
            assert (part @ part.T - torch.eye(S)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("w", "expected"), [(0.9, 2.65613989e-5), (0.99, 0.366032341), (1.1, 13780.6123)]
)
def test_through_a_linear_recurrence_the_gradient_is_a_power(w: float, expected: float) -> None:
    """dh_T/dh_0 = w^T, T = 100: tanh of a state near 0 is linear."""
    net = model("rnn", width=1, mlp_width=1)
    with torch.no_grad():
        net.recurrence.weight_hh_l0.fill_(w)
    start = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    _, end = net.recurrence(torch.zeros(1, 100, 1, dtype=torch.float64), start)
    assert torch.autograd.grad(end.sum(), start)[0].item() == pytest.approx(expected, rel=1e-8)


def test_selected_positions_are_scored_alone_and_documents_are_refused() -> None:
    net, ids = model("gru"), tokens()
    select = torch.zeros(B, T, dtype=torch.bool)
    select[0, 3] = select[1, 6] = True
    assert torch.allclose(net(ids, select=select), net(ids)[select])
    with pytest.raises(ValueError, match="one document"):
        net(ids, documents=torch.zeros_like(ids))
