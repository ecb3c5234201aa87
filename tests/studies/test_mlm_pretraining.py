"""Notebook 05's assertions hold on its own smoke run.

They fail on tables from which the effect was removed.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext.measure import losses
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.studies.mlm_pretraining import study
from farcontext.studies.mlm_pretraining.params import Params as MlmPretraining
from farcontext.train.keys import vocabulary_size


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> MlmPretraining:
    return smoke_params(root, study.NAME, MlmPretraining)


@pytest.fixture
def table(params: MlmPretraining, root: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 05 itself asks for."""
    monkeypatch.chdir(root)
    return study.run(params)


def assertion(root: Path, says: str, table: pd.DataFrame, params: MlmPretraining) -> None:
    """Run the notebook's own cell that prints `says`."""
    run_assertion(root, study.NAME, says, table=table, study=study, params=params, results=tables)


def changed(table: pd.DataFrame, metric: str, value: float) -> pd.DataFrame:
    return table.assign(value=table["value"].where(table["metric"] != metric, value))


def test_assertions_hold_on_the_smoke_run(
    root: Path, table: pd.DataFrame, params: MlmPretraining
) -> None:
    for says in ("ok: the encoder ends", "ok: every arm beats", "ok: hiding far tokens"):
        assertion(root, says, table, params)


def test_an_encoder_that_learns_nothing_is_noticed(
    root: Path, table: pd.DataFrame, params: MlmPretraining
) -> None:
    with pytest.raises(AssertionError):
        assertion(
            root,
            "ok: the encoder ends",
            changed(table, "validation_loss", study.uniform_loss()),
            params,
        )


def test_an_arm_at_chance_is_noticed(
    root: Path, table: pd.DataFrame, params: MlmPretraining
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, "ok: every arm beats", changed(table, "gain_over_uniform", 0.0), params)


def test_a_baseline_left_out_is_noticed(
    root: Path, table: pd.DataFrame, params: MlmPretraining
) -> None:
    with pytest.raises(AssertionError):
        assertion(root, "ok: every arm beats", table[table["arm"] != "5-gram"], params)


def test_absolute_positions_break_hidden_equals_truncated(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    shape = {
        "vocab_size": vocabulary_size(),
        "width": 16,
        "layers": 1,
        "heads": 2,
        "mlp_width": 16,
        "max_length": 96,
    }
    for positions, equal in (("rope", True), ("sinusoidal", True), ("learned", True)):
        torch.manual_seed(0)
        model = Decoder(
            ModelConfig(kind="decoder", init_std=0.3, positions=positions, **shape)
        ).eval()
        options = {"domain": "manuals", "length": 96, "rows": 2, "context": 16}
        with torch.inference_mode():
            (row,) = losses.hidden_against_truncated(model, **options)
        assert (row["hidden_minus_truncated"] < 1e-4) is equal, positions


def test_the_table_says_what_the_verdicts_need(table: pd.DataFrame) -> None:
    for metric in (
        "nats_per_byte",
        "gain_over_best_ngram",
        "gain_over_uniform",
        "context_cost",
        "validation_loss",
    ):
        assert np.isfinite(table[table["metric"] == metric]["value"]).all()
        assert (table["metric"] == metric).any()
    full = table[(table["metric"] == "context_cost") & (table["far"] == "full")]["value"]
    assert (full == 0).all()
    best = table[table["metric"] == "gain_over_best_ngram"]
    scored = table[(table["metric"] == "nats_per_byte") & (table["domain"] == "all")].set_index(
        "arm"
    )["value"]
    gain = best[
        (best["domain"] == "all") & (best["mask_rate"] == 0.3) & (best["layout"] == "packed")
    ]["value"].item()
    ngrams = scored[list(study.NGRAMS.values())].min()
    encoder = table[
        (table["metric"] == "nats_per_byte")
        & (table["domain"] == "all")
        & (table["mask_rate"] == 0.3)
        & (table["layout"] == "packed")
    ]["value"].item()
    assert gain == pytest.approx(ngrams - encoder)
