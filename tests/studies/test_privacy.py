"""Notebook 13's assertions hold on its own smoke run.

They fail on tables from which the effect was removed.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder
from farcontext.results import effects, verdicts
from farcontext.results.claims import read_claims
from farcontext.studies.privacy import learning, reading, study, texts
from farcontext.studies.privacy.learning import Recipe
from farcontext.studies.privacy.params import Params as Privacy

LEAKS, HIDES = "ok: members lose less", "ok: DP-SGD hides members"


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Privacy:
    return smoke_params(root, study.NAME, Privacy)


@pytest.fixture(scope="module")
def smoke(params: Privacy, root: Path) -> Iterator[pd.DataFrame]:
    """The smoke run; trained once a session, and what notebook 13 itself asks for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield study.run(params)


def changed(table: pd.DataFrame, value: float, **where: object) -> pd.DataFrame:
    """Return the table with another value in some rows, of which there must be some."""
    hit = np.logical_and.reduce([table[column] == wanted for column, wanted in where.items()])
    assert hit.any(), where
    return table.assign(value=table["value"].where(~hit, value))


@pytest.mark.parametrize("says", [LEAKS, HIDES])
def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: Privacy, says: str
) -> None:
    run_assertion(root, study.NAME, says, table=smoke, params=params)


@pytest.mark.parametrize(
    ("says", "value", "where"),
    [
        (LEAKS, 9.0, {"metric": "member_loss", "arm": "none"}),
        (LEAKS, 0.5, {"metric": "control_extracted", "arm": "none"}),
        (LEAKS, 1.0, {"metric": "exposure", "arm": "none", "count": 16}),
        (HIDES, 1.0, {"metric": "member_loss", "arm": "private"}),
        (HIDES, 1.0, {"metric": "epsilon_document"}),
    ],
)
def test_an_effect_that_is_not_there_is_noticed(
    root: Path, smoke: pd.DataFrame, params: Privacy, says: str, value: float, where: dict
) -> None:
    with pytest.raises(AssertionError):
        table = changed(smoke, value, **where)
        run_assertion(root, study.NAME, says, table=table, params=params)


def test_the_page_answers_from_any_table(smoke: pd.DataFrame) -> None:
    assert reading.answer(smoke.iloc[:0]) == "*Not published yet.*"
    assert "rows of 128 tokens" in reading.answer(smoke)


# --------------------------------------------------------------------------------------- the claim


def told(found: float, bits: float, out: float, **planted: float) -> pd.DataFrame:
    """Rows of all that V1 reads; the first three move by so much with each doubling."""
    rows = []
    for doubling, length in enumerate((64, 128, 256, 512)):
        for seed in range(12):
            at = {"length": length, "seed": seed, "arm": "none"}
            noise = 0.001 * (seed % 3 - 1)
            lira, canary = ({"attack": name} | at for name in ("lira", "canary"))
            rows.append(lira | {"metric": "found", "value": 0.5 + found * doubling + noise})
            rows.append(lira | {"metric": "target_auc", "value": planted.get("auc", 0.8) + noise})
            shown = canary | {"count": 64, "prompt": 32}
            exposed = planted.get("often", 9.0) + bits * doubling + noise
            rows.append(shown | {"metric": "exposure", "value": exposed})
            rows.append(shown | {"metric": "extracted", "value": 0.4 + out * doubling + noise})
            never = canary | {"count": 0, "prompt": 32, "metric": "control_extracted"}
            rows.append(never | {"value": planted.get("never", 0.0)})
    for seed in range(12):
        blind = planted.get("blind", 0.5) + 0.01 * (seed % 3 - 1)
        rows.append({"attack": "blind", "seed": seed, "metric": "auc", "value": blind})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        (told(0.05, 0.3, 0.03), "supported"),
        (told(-0.05, 0.3, 0.03), "refuted"),
        (told(0.05, -0.3, 0.03), "refuted"),
        (told(0.05, 0.3, 0.0), "refuted"),
        (told(0.05, 0.3, 0.03, blind=0.6), "undecided (check failed)"),
        (told(0.05, 0.3, 0.03, auc=0.5), "undecided (check failed)"),
        (told(0.05, 0.3, 0.03, often=2.0), "undecided (check failed)"),
        (told(0.05, 0.3, 0.03, never=0.2), "undecided (check failed)"),
    ],
)
def test_v1_can_win_lose_and_fail_its_checks(root: Path, table: pd.DataFrame, verdict: str) -> None:
    claim = read_claims(root / "claims.yaml").claims["V1"]
    assert verdicts.judge("V1", claim, table).verdict == verdict


def test_v1_reads_the_columns_that_the_study_writes(root: Path, smoke: pd.DataFrame) -> None:
    claim = read_claims(root / "claims.yaml").claims["V1"]
    for effect in claim.effects:
        assert len(effects.measured(smoke, effect, study.NAME)) > 1, effect.name


# --------------------------------------------------------------------------------------- its texts


def test_each_target_is_seen_by_half_of_the_models() -> None:
    seen = texts.members(901, 32, 20)
    assert (seen.sum(0) == 16).all() and len(np.unique(seen, axis=0)) > 30


def test_models_share_documents_and_have_canaries_of_their_own(params: Privacy) -> None:
    one, other = (
        texts.texts_of(**study.drawn(params, study.Cell("none", 64, model))) for model in (0, 1)
    )
    assert (one.targets == other.targets).all() and (one.member != other.member).any()
    assert [x.secret for x in one.canaries] != [x.secret for x in other.canaries]
    for place in one.places:
        secret = one.canaries[place.canary].secret
        assert tuple(one.carriers[place.document, place.at : place.at + 2]) == secret
        assert (place.at % params.document >= params.document // 2) == (place.canary % 2 == 1)
    assert len(one.places) == sum(canary.count for canary in one.canaries)


def test_a_repeated_span_is_learned_once() -> None:
    rows = np.arange(24).reshape(2, 12)
    rows[1, 3:8] = rows[0, 2:7]
    fresh = texts.first_time(rows, 5)
    assert fresh[0].all() and (~fresh[1]).nonzero()[0].tolist() == [3, 4, 5, 6, 7]
    assert texts.first_time(rows, 6).all()


# ---------------------------------------------------------------------------------------- learning


@pytest.fixture
def small() -> Decoder:
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "width": 16, "layers": 1, "heads": 2, "mlp_width": 32}
    return Decoder(ModelConfig(kind="decoder", max_length=8, init_std=0.2, **shape))


def test_gradients_of_each_row_are_those_that_autograd_finds(small: Decoder) -> None:
    rows = torch.randint(0, 32, (3, 8))
    scored = torch.rand(3, 8) < 0.7
    learning._gradient_of_each_row(small, rows, scored)
    for place in range(3):
        small.zero_grad()
        learning.row_losses(small, rows[place : place + 1], scored[place : place + 1])[0].backward()
        for parameter in small.parameters():
            torch.testing.assert_close(parameter.grad_sample[place], parameter.grad)


def test_dp_sgd_clips_each_row(small: Decoder) -> None:
    """Without noise, a step of plain SGD is at most as long as the clipped rows together."""
    rows = torch.randint(0, 32, (4, 8))
    before = torch.cat([p.detach().flatten() for p in small.parameters()])
    recipe = Recipe(steps=1, step_tokens=32, lr=1.0, warmup=0, clip=0.01, noise=0.0)
    optimizer = learning._private(torch.optim.SGD(small.parameters(), lr=1.0), recipe, 4, 0)
    learning._gradient_of_each_row(small, rows, torch.ones_like(rows))
    optimizer.step()
    after = torch.cat([p.detach().flatten() for p in small.parameters()])
    assert 0 < (after - before).norm() <= 0.01 + 1e-6


def test_both_ways_learn_and_the_public_model_stays(small: Decoder) -> None:
    rows = np.tile(np.arange(8), (16, 1))
    public = {name: x.clone() for name, x in small.state_dict().items()}
    given = torch.from_numpy(rows)
    start = learning.row_losses(small, given, torch.ones_like(given)).mean()
    for more in ({}, {"clip": 1.0, "noise": 0.1}):
        recipe = Recipe(steps=30, step_tokens=64, lr=0.01, warmup=2, **more)
        found = learning.learned(small, rows, np.ones(rows.shape, bool), recipe, 3)
        assert learning.row_losses(found, given, torch.ones_like(given)).mean() < 0.7 * start
    assert all((x == public[name]).all() for name, x in small.state_dict().items())
