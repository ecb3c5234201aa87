"""positions.py against published arrays, in fp64."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longctx.positions import inverse_frequencies, pairs_together, rotate, rotation_table, sinusoidal

GOLDENS = Path(__file__).parent / "goldens"
fast = settings(derandomize=True, deadline=None, max_examples=30)


def cases(name: str) -> list[dict]:
    return json.loads((GOLDENS / f"{name}.json").read_text())["cases"]


def array(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", cases("rope_inv_freq"), ids=lambda c: f"{c['head_dim']}-{c['theta']}")
def test_rope_frequencies_are_the_published_ones(case):
    ours = inverse_frequencies("rope", head_dim=case["head_dim"], theta=float(case["theta"]), trained_length=2048)
    torch.testing.assert_close(ours, array(case["inv_freq"]), rtol=1e-12, atol=0)
    other = inverse_frequencies("rope", head_dim=case["head_dim"], theta=20_000.0, trained_length=2048)
    assert (other / array(case["inv_freq"]) - 1).abs().max() > 0.4  # twin: another theta is seen


def turned(case: dict, pairing: str, dtype=torch.float64) -> torch.Tensor:
    """Rotate the case's rows by the case's own frequencies, one row a position."""
    cos, sin = rotation_table(array(case["inv_freq"]), torch.tensor(case["positions"]), dtype)
    factor = case["attention_factor"]
    x_1T1H = array(case["x"]).to(dtype)[None, :, None]
    return rotate(x_1T1H, cos * factor, sin * factor, pairing)[0, :, 0].double()


@pytest.mark.parametrize("case", cases("rope_rotation"), ids=lambda c: f"{c['scheme']}-{c['head_dim']}")
@pytest.mark.parametrize(
    ("pairing", "theirs", "wrong"),
    [("half", "half_split", "interleaved"), ("interleaved", "interleaved", "half")],
)
def test_rotation_is_the_published_one(case, pairing, theirs, wrong):
    torch.testing.assert_close(turned(case, pairing), array(case[theirs]), rtol=0, atol=1e-12)
    assert (turned(case, wrong) - array(case[theirs])).abs().max() > 0.1  # twin: the pairings do differ


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_angles_survive_far_positions_only_in_fp64(pairing):
    case = cases("rope_rotation")[0]
    assert max(case["positions"]) == 65536
    golden = array(case["half_split" if pairing == "half" else "interleaved"])
    assert (turned(case, pairing, torch.float32) - golden).abs().max() < 5e-7
    angles = torch.tensor(case["positions"])[:, None] * array(case["inv_freq"]).float()  # twin: fp32 angles
    x = array(case["x"]).float()[None, :, None]
    assert (rotate(x, angles.cos(), angles.sin(), pairing)[0, :, 0] - golden).abs().max() > 2e-5


@fast
@given(m=st.integers(0, 5000), n=st.integers(0, 5000), shift=st.integers(0, 60_000), seed=st.integers(0, 99))
def test_scores_depend_on_the_distance_alone(m, n, shift, seed):
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    inv_freq = inverse_frequencies("rope", head_dim=16, trained_length=64)

    def score(at_q: int, at_k: int) -> float:
        tables = [rotation_table(inv_freq, torch.tensor([at]), torch.float64) for at in (at_q, at_k)]
        return float((rotate(q, *tables[0]) * rotate(k, *tables[1])).sum())

    assert score(m, n) == pytest.approx(score(m + shift, n + shift), abs=1e-9)
    assert abs(score(m, n) - score(m + 1, n)) > 1e-12  # twin: one token further is another score


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_is_interleaved_in_another_channel_order(dtype):
    x = torch.randn(2, 5, 3, 12, dtype=dtype)
    cos, sin = rotation_table(inverse_frequencies("rope", head_dim=12, trained_length=8), torch.arange(5), dtype)
    order = pairs_together(12)
    half, other = rotate(x, cos, sin, "half")[..., order], rotate(x[..., order], cos, sin, "interleaved")
    torch.testing.assert_close(half, other, rtol=1e-6, atol=1e-6)
    assert (half - rotate(x, cos, sin, "interleaved")).abs().max() > 0.1


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_rotation_keeps_lengths_dtype_and_gradients(pairing):
    x = torch.randn(2, 7, 3, 8, dtype=torch.float64, requires_grad=True)
    tables = rotation_table(inverse_frequencies("rope", head_dim=8, trained_length=8), torch.arange(7), torch.float64)
    torch.testing.assert_close(rotate(x, *tables, pairing).norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(lambda x: rotate(x, *tables, pairing), x)
    low = rotate(x.detach().bfloat16(), *(table.float() for table in tables), pairing)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), rotate(x, *tables, pairing).detach(), rtol=0.02, atol=0.02)


def test_rows_of_a_batch_may_stand_at_other_positions():
    x = torch.randn(2, 4, 1, 8, dtype=torch.float64)
    inv_freq = inverse_frequencies("rope", head_dim=8, trained_length=8)
    at_BT = torch.tensor([[0, 1, 2, 3], [9, 8, 7, 6]])
    both = rotate(x, *rotation_table(inv_freq, at_BT, torch.float64))
    alone = rotate(x[1:], *rotation_table(inv_freq, at_BT[1], torch.float64))
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-14)


def test_sinusoidal_is_the_published_one():
    (case,) = cases("sinusoidal")
    table = sinusoidal(512, case["width"])
    torch.testing.assert_close(table[case["positions"]], array(case["interleaved"]), rtol=0, atol=1e-12)
    assert (table[case["positions"]][:, ::2] - array(case["interleaved"])[:, 1::2]).abs().max() > 0.5


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoidal_is_sine_and_cosine_of_one_angle(width):
    table = sinusoidal(20, width)
    assert table.shape == (20, width)
    for channel in range(width):
        angle = 13 / 10_000 ** (2 * (channel // 2) / width)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert table[13, channel].item() == pytest.approx(expected, abs=1e-14)


def test_sinusoidal_shift_is_a_rotation():
    table = sinusoidal(64, 8)
    tables = rotation_table(
        inverse_frequencies("rope", head_dim=8, trained_length=64), torch.tensor([5]), torch.float64
    )
    # (sin, cos) is a complex number turned by −angle, so going forward turns back
    moved = rotate(table[:59, None, None], tables[0], -tables[1], "interleaved")[:, 0, 0]
    torch.testing.assert_close(moved, table[5:], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: inverse_frequencies("ropes", head_dim=8, trained_length=8),
            "scheme = 'ropes': expected one of rope",
        ),
        (
            lambda: inverse_frequencies("rope", head_dim=7, trained_length=8),
            "head_dim = 7: expected an even number",
        ),
        (
            lambda: rotate(torch.zeros(1, 1, 1, 8), torch.zeros(1, 3), torch.zeros(1, 3)),
            "F = 3, H = 8: expected H = 2F",
        ),
    ],
)
def test_bad_arguments_are_named(call, line):
    with pytest.raises(ValueError, match=line):
        call()
