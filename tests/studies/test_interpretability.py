"""Notebook 12's assertions hold on its own smoke run, and fail with the effect removed.

The tests also hold what is scored, deleted and knocked out, against small readers whose attention
is known.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from cells import run_assertion, smoke_params

from farcontext.app.profiles import params_of
from farcontext.measure import attribution
from farcontext.measure.heads import Head
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.studies.interpretability import protocol, reactions, real, study
from farcontext.studies.interpretability.params import Params as Interpretability
from farcontext.train.loop import load_model

GRADIENT, PATH = "ok: these lines are the library's gradient", "ok: these lines are captum's"
AREA, SAME = "ok: the area of these three", "ok: every method was asked"
CELL = {"axis": "updates", "level": 2, "length": 180, "seed": 3}


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Iterator[Interpretability]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield smoke_params(root, study.NAME, Interpretability)


@pytest.fixture(scope="module")
def smoke(params: Interpretability) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 12 itself asks for."""
    return study.run(params)


@pytest.fixture(scope="module")
def reader(params: Interpretability, smoke: pd.DataFrame) -> Decoder:
    return load_model(study.reader(params, params.seeds[0]))


def assertion(root: Path, says: str, **known: object) -> None:
    """Run the notebook's own cell that prints `says`."""
    modules = {"study": study, "protocol": protocol, "attribution": attribution, "torch": torch}
    modules |= {"F": F, "load_model": load_model}
    run_assertion(root, study.NAME, says, **modules | known)


# ---------------------------------------------------------------------------- the page's assertions


def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: Interpretability
) -> None:
    assertion(root, GRADIENT, params=params)
    assertion(root, AREA)
    assertion(root, SAME, table=smoke, params=params)


def test_a_gradient_without_its_input_is_noticed(
    root: Path, params: Interpretability, reader: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = attribution.gradient_times_input
    monkeypatch.setattr(
        attribution,
        "gradient_times_input",
        lambda model, row, answer: 1 + honest(model, row, answer),
    )
    with pytest.raises(AssertionError):
        assertion(root, GRADIENT, params=params)


def test_an_area_without_its_logarithm_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "area", lambda budgets, values: float(np.mean(values)))
    with pytest.raises(AssertionError):
        assertion(root, AREA)


def changed(table: pd.DataFrame, value: float, **where: str) -> pd.DataFrame:
    rows = np.logical_and.reduce([table[column] == name for column, name in where.items()])
    return table.assign(value=table["value"].where(~rows, value))


def test_a_missing_method_a_biased_order_and_a_head_by_chance_are_noticed(
    root: Path, smoke: pd.DataFrame, params: Interpretability
) -> None:
    planted = [
        smoke[smoke["arm"] != "rollout"],
        changed(smoke, 0.95, arm="random", metric="auc"),
        changed(smoke, 0.9, arm="gold", metric="auc"),
        changed(smoke, 0.5, arm="known head", metric="pointing"),
        changed(smoke, 0.3, arm="random weights", metric="pointing"),
    ]
    for table in planted:
        with pytest.raises(AssertionError):
            assertion(root, SAME, table=table, params=params)


def test_readers_are_those_of_notebook_08(root: Path) -> None:
    for profile in ("laptop", "gpu"):
        both = params_of(root, profile)
        asked, ours = both.question_answering, both.interpretability
        for name in ("seeds", "story_reader", "dealt", "trained_levels"):
            assert getattr(asked, name) == getattr(ours, name), (profile, name)


# -------------------------------------------------------------------------- contexts, orders, areas


def test_a_context_s_parts_are_its_sentences(params: Interpretability) -> None:
    for one in protocol.contexts(**CELL, count=4):
        row, words = one.row(), protocol.vocabulary()
        assert [words.decode(row[a:b]) for a, b in one.spans] == one.laid.texts
        assert one.spans[0][0] == 1 and one.spans[-1][1] == len(row) - len(one.question)
        assert one.gold.sum() == len(one.laid.puzzle.evidence) == 1
        (place,) = np.flatnonzero(one.gold)
        start, end = one.spans[place]
        assert one.evidence().nonzero().flatten().tolist() == [*range(start, end)]
        without = one.row([n for n in range(len(one.spans)) if n != place])
        assert without == [*row[:start], *row[end:]]
        assert one.laid.puzzle.chain[0].answer in one.laid.texts[place]


def test_areas_of_a_reader_that_rests_on_the_evidence_alone(
    params: Interpretability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-odds are +4 with the evidence and −4 without, so all areas follow by hand."""
    (one,) = protocol.contexts(**CELL, count=1)
    start, end = one.spans[int(np.flatnonzero(one.gold)[0])]
    evidence = tuple(one.row()[start:end])

    def told(model: object, rows: list[list[int]], answer: int) -> np.ndarray:
        return np.array([4.0 if _holds(row, evidence) else -4.0 for row in rows])

    monkeypatch.setattr(attribution, "log_odds", told)
    gold = attribution.order_of(one.gold)
    last = gold[::-1]
    p = 1 / (1 + np.exp(-4.0))
    (found, worst) = protocol.curves(None, one, [gold, last], [1, 2, 4])
    assert found == pytest.approx((2 * p - 1, p)) and worst == pytest.approx((0.0, 1 - p))


def _holds(row: list[int], some: tuple[int, ...]) -> bool:
    return any(tuple(row[n : n + len(some)]) == some for n in range(len(row)))


def test_every_method_scores_every_sentence(reader: Decoder) -> None:
    (one,) = protocol.contexts(**CELL, count=1)
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        scores = protocol.part_scores(reader, one, rng, ablations=[4, 8], steps=4)
    assert [*scores] == protocol.arms_of([4, 8])
    for some in scores.values():
        assert all(parts.shape == (len(one.spans),) for parts in some)
        assert np.isfinite(some).all()
    assert len(scores["random"]) == protocol.ORDERS
    assert (scores["bm25"][0] > 0).any()


def test_faithfulness_and_what_is_lost_by_hand() -> None:
    def row(arm: str, length: int, value: float) -> dict:
        return {"arm": arm, "seed": 1, "length": length, "metric": "deletion", "value": value}

    rows = [row("random", 128, 0.2), row("gold", 128, 0.8), row("attention", 128, 0.5)]
    rows += [row("random", 256, 0.0), row("gold", 256, 0.8), row("attention", 256, 0.2)]
    rows += [row("random", 512, 0.3), row("gold", 512, 0.3), row("attention", 512, 0.2)]
    found = study.falls(study.faithfulness(rows), 128)
    share = {(r["arm"], r["length"]): r["value"] for r in found if r["metric"] == "faithfulness"}
    assert share["attention", 128] == pytest.approx(0.5)
    assert share["attention", 256] == pytest.approx(0.25)
    assert ("attention", 512) not in share  # Gold is no better than random there.
    (lost,) = [r for r in found if r["metric"] == "fall"]
    assert lost["value"] == pytest.approx(0.5) and lost["length"] == 256


# -------------------------------------------------------------------------------------------- heads


def test_heads_are_found_and_random_sets_leave_them_out(
    reader: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = protocol.contexts(**CELL, count=2)
    with torch.inference_mode():
        scores = protocol.head_scores(reader, items)
    heads = {Head(*place) for place in itertools.product(range(2), range(2))}
    assert all({*found} == heads for found in scores.values())
    assert all(0 <= value <= 1 for value in scores["literal"].values())
    assert protocol.best({Head(0, 0): 1.0, Head(0, 1): 2.0, Head(1, 0): 2.0}, 2) == [
        Head(0, 1),
        Head(1, 0),
    ]
    silenced: list[list[Head]] = []
    honest = protocol.heads.knocked_out

    def knocked_out(outputs: list, some: list[Head], count: int) -> object:
        silenced.append([*some])
        return honest(outputs, some, count)

    monkeypatch.setattr(protocol.heads, "knocked_out", knocked_out)
    with torch.inference_mode():
        rows = protocol.knock_outs(reader, **CELL, count=2, silenced=1, draws=3)
    found = {head for some in silenced[1:3] for head in some}
    assert len(silenced) == 6 and not found & {head for some in silenced[3:] for head in some}
    knocked = {row["arm"] for row in rows if row["metric"] == "knocked"}
    assert knocked == {"none", "random", *protocol.FINDERS}


def test_knocking_out_is_compared_with_random_heads_seed_by_seed() -> None:
    def row(arm: str, seed: int, value: float) -> dict:
        place = {"model": "m", "scheme": "s", "length": 9.0, "metric": "knocked"}
        return place | {"arm": arm, "seed": seed, "value": value}

    rows = [row("none", n, 1.0) for n in range(3)] + [row("random", n, 0.9) for n in range(3)]
    rows += [row("literal", n, 0.4 + 0.01 * n) for n in range(3)]
    (found,) = study.knocked(pd.DataFrame(rows)).reset_index().to_dict("records")
    assert found["said"] == "separated" and found["random − found"].startswith("+49 [")
    assert found["found"] == pytest.approx(41) and found["heads"] == "literal"


# ---------------------------------------------------------------------------------- the atom mapper


class Pointer:
    """A network whose head (10, 5) points at the source, and all others at the first atom."""

    def __init__(self, made: list[reactions.Reaction]) -> None:
        self.sources = {one.tokens: one.source for one in made}

    def attention(self, tokens: tuple[str, ...]) -> torch.Tensor:
        weights = torch.zeros(12, 8, len(tokens), len(tokens))
        weights[..., 0] = 0.1
        for place, source in self.sources[tokens].items():
            weights[10, 5, place, source] = 1.0
        return weights


def test_pointing_is_counted_against_the_known_source(
    root: Path, params: Interpretability, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reactions.reactions(protocol.DRAWN, 1)
    monkeypatch.setattr(real.atom_mapper, "load", lambda folder, random_seed: Pointer(made))
    rows = pd.DataFrame(real.pointing(folder="x", weights="y", pairs=1))
    shares = study.pointed(rows.assign(metric="pointing"))["share"]
    assert shares["known head"] == 1 and shares["best other head"] < 0.2
    assert shares["chance"] == pytest.approx(0.054, abs=0.01)
    each = rows[rows["arm"] == "each head"].set_index("head")["value"]
    assert len(each) == 96 and each["10.5"] == 1 and each.drop("10.5").max() < 0.2
    assert {*rows["scheme"].dropna()} == {*reactions.RULES}


def test_the_table_is_written_with_its_columns(smoke: pd.DataFrame) -> None:
    assert [*smoke.columns] == study.COLUMNS
    assert {*smoke["model"].dropna()} == {study.READER, "SmolLM2-135M", "atom mapper"}
    assert tables.path_in(tables.made(), study.NAME, study.PICTURE).is_file()
