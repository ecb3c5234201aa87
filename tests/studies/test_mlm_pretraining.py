"""Notebook 05's assertions hold on its own smoke run.

They fail on tables from which the effect was removed.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext.measure import losses
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import Decoder, Encoder
from farcontext.results import tables
from farcontext.results.claims import read_claims
from farcontext.results.effects import rows_where
from farcontext.schema import MASK
from farcontext.studies.mlm_pretraining import blanks, labels, study
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
    run_assertion(root, study.NAME, says, table=table, study=study, params=params, tables=tables)


def changed(table: pd.DataFrame, value: float, **where: object) -> pd.DataFrame:
    """Return a table in which the rows of some columns' values have another value."""
    these = np.logical_and.reduce([table[column] == x for column, x in where.items()])
    return table.assign(value=table["value"].where(~these, value))


CELLS = ("ok: the encoder ends", "ok: learners had", "ok: better than", "ok: hiding far tokens")


def test_assertions_hold_on_the_smoke_run(
    root: Path, table: pd.DataFrame, params: MlmPretraining
) -> None:
    for says in CELLS:
        assertion(root, says, table, params)


def test_an_encoder_that_learns_nothing_is_noticed(
    root: Path, table: pd.DataFrame, params: MlmPretraining
) -> None:
    flat = changed(table, study.uniform_loss(), metric="validation_loss")
    with pytest.raises(AssertionError):
        assertion(root, "ok: the encoder ends", flat, params)


def test_labels_that_teach_nothing_and_a_learner_left_out_are_noticed(
    root: Path, table: pd.DataFrame, params: MlmPretraining
) -> None:
    at_chance = changed(table, 1 / study.labels.CLASSES, metric="accuracy", arm="tf_idf")
    fewer = (table["arm"] != "scratch") | (table["labels"] != max(params.labels))
    for broken in (at_chance, table[fewer]):
        with pytest.raises(AssertionError):
            assertion(root, "ok: learners had", broken, params)


def test_an_arm_at_chance_a_baseline_left_out_and_a_blind_side_are_noticed(
    root: Path, table: pd.DataFrame, params: MlmPretraining
) -> None:
    scored = table["metric"] == "nats_per_byte"
    left = table[scored & (table["sees"] == "left")]["value"].max()
    for broken in (
        changed(table, 0.0, metric="gain_over_uniform"),
        table[table["arm"] != "5-gram"],
        changed(table, left, metric="nats_per_byte", sees="both"),
    ):
        with pytest.raises(AssertionError):
            assertion(root, "ok: better than", broken, params)


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


def test_the_table_says_what_the_verdicts_need(root: Path, table: pd.DataFrame) -> None:
    claims = read_claims(root / "claims.yaml").claims
    for claim in (claims[name] for name in ("M1", "M1-rival", "M1-loss", "M2")):
        for effect in (*claim.effects, *claim.checks):
            where = {k: v for k, v in effect.where.items() if (k, v) != ("labels", 512)}
            rows = rows_where(table, where, study.NAME)
            assert len(rows) and np.isfinite(rows["value"]).all(), effect.name
    full = table[(table["metric"] == "context_cost") & (table["far"] == "full")]["value"]
    assert (full == 0).all()


def test_a_gain_is_the_best_ngrams_loss_minus_the_encoders(table: pd.DataFrame) -> None:
    rows = table[(table["domain"] == "plays") & (table["tokens"] == table["tokens"].max())]
    own = rows[(rows["metric"] == "nats_per_byte") & (rows["arm"] == "encoder")]["value"].item()
    for read in study.READ:
        for sees in losses.SEES:
            at = rows[(rows["read"] == read) & (rows["sees"] == sees)].set_index("metric")["value"]
            gain = at["gain_over_ngrams"]
            assert gain == pytest.approx(at["nats_per_byte"].min() - own)
            assert at["final_gain_over_ngrams"] == gain


# ------------------------------------------------------------------------------ labels and learners


@pytest.mark.parametrize("task", labels.TASKS)
def test_labels_are_even_nested_and_apart_from_tests(task: str, root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    few, many = (labels.labelled(task, 5, count, 60) for count in (12, 48))
    assert few.train == many.train[:12]
    assert Counter(x.label for x in many.train) == dict.fromkeys(range(labels.CLASSES), 8)
    assert not {x.text for x in many.train} & {x.text for x in many.test}
    other = labels.labelled(task, 6, 48, 60)
    assert {x.text for x in other.test} != {x.text for x in many.test}
    rows = labels.encoded([x.text for x in many.test])
    assert ((rows == MASK).any(1) == (task in ("name", "type"))).all()
    if task == "name":
        people = labels.classes(task)
        assert all(people[x.label] not in x.text for x in (*many.train, *many.test))


def tiny_encoder() -> Encoder:
    torch.manual_seed(0)
    shape = {"width": 16, "layers": 1, "heads": 2, "mlp_width": 16, "max_length": 64}
    config = ModelConfig(kind="encoder", vocab_size=vocabulary_size(), init_std=0.3, **shape)
    return Encoder(config).eval()


def test_fine_tuning_leaves_the_encoder_alone_and_starts_from_it(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    same = {"task": "type", "items": 5, "labels": [12], "tests": 12, "rates": [0.01], "rows": 6}
    with torch.inference_mode():
        model = tiny_encoder()
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        first = labels.fine_tuned(model, pretrained=True, steps=2, **same)
        assert labels.fine_tuned(model, pretrained=True, steps=2, **same) == first
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, before[name]), name
        # Fresh weights do not depend on the model's.
        fresh = labels.fine_tuned(model, pretrained=False, steps=2, **same)
        for parameter in model.parameters():
            parameter.zero_()
        assert labels.fine_tuned(model, pretrained=False, steps=2, **same) == fresh


def test_every_learner_learns_from_labels_and_from_shuffled_ones_does_not(
    root: Path, monkeypatch
) -> None:
    monkeypatch.chdir(root)
    same = {"task": "family", "items": 5, "labels": [96], "tests": 120}

    def right() -> list[float]:
        with torch.inference_mode():
            tuned = labels.fine_tuned(
                tiny_encoder(), pretrained=True, rates=[0.01], steps=40, rows=16, **same
            )
        return [rows[0]["accuracy"] for rows in (tuned, labels.tf_idf(rates=[10.0], **same))]

    assert min(right()) > 0.35, "a guess has 0.17"
    honest = labels.labelled

    def shuffled(*given: object) -> labels.Labelled:
        found = honest(*given)
        mixed = np.random.default_rng(0).permutation([x.label for x in found.train])
        learn = [x._replace(label=int(n)) for x, n in zip(found.train, mixed, strict=True)]
        return found._replace(train=learn)

    monkeypatch.setattr(labels, "labelled", shuffled)
    assert max(right()) < 0.32


def test_blanks_are_words_of_the_text_that_no_model_chose(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    with torch.inference_mode():
        rows = blanks.fill_in(tiny_encoder(), domain="sanguo", count=4)
    assert rows and all(0 < row["p"] < 1 and 0 < row["unigram"] < 0.1 for row in rows)
    assert all(blanks.is_word(row["true"]) and "＿" in row["text"] for row in rows)
    assert [blanks.is_word(x) for x in (" lord", "lord", " my", "孔明", "曰", " 12ab")] == [
        *(True, False, False, True, False, False)
    ]
