"""Notebook 09's assertions hold on its own smoke run.

They fail with the effect removed. The tests hold words and rows, what each arm reads, and
translators known to be good.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext import files
from farcontext.nn.transformer import Decoder
from farcontext.results import tables
from farcontext.schema import BOS, EOS, PAD
from farcontext.studies.translation import protocol, reading, study, words
from farcontext.studies.translation.params import Params as Translation
from farcontext.tasks import translation as language
from farcontext.tasks import world
from farcontext.train import curriculum
from farcontext.train.loop import build_model
from farcontext.train.runs import result_of

FORMULA, ORACLE = "ok: two translations that differ", "ok: the oracle, which"
TELLS, ASKED = "ok: what is read tells", "ok: every arm translated the same"
SEEN = "ok: every choice wrong"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Iterator[Translation]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield smoke_params(root, study.NAME, Translation)


@pytest.fixture(scope="module")
def smoke(params: Translation) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 09 itself asks for."""
    return study.run(params)


def documents(**options) -> list[list[language.Sentence]]:
    same = {"length": 120, "kind": "gender", "tellings": 8, "documents": 4, "items": 3}
    return protocol.tested(**same | options)


def assertion(root: Path, says: str, **known: object) -> None:
    """Run the notebook's own cell that prints `says`."""
    names = {"protocol": protocol, "reading": reading, "study": study, "language": language}
    run_assertion(root, study.NAME, says, **names, math=math, **known)


# --------------------------------------------------------------------------------------- assertions


def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: Translation
) -> None:
    for says in (FORMULA, ORACLE, TELLS, ASKED, SEEN):
        assertion(root, says, table=smoke, params=params)


def test_an_oracle_that_errs_fails_both_cells(
    root: Path, params: Translation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "oracle", lambda sources, choices: choices[0])
    for says in (ORACLE, TELLS):
        with pytest.raises(AssertionError):
            assertion(root, says, params=params)


def test_retrieval_that_costs_more_is_noticed(
    root: Path, params: Translation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "found", lambda document, *_, **__: list(range(len(document) - 1)))
    with pytest.raises(AssertionError):
        assertion(root, TELLS, params=params)


def test_an_arm_that_is_missing_or_dear_is_noticed(
    root: Path, smoke: pd.DataFrame, params: Translation
) -> None:
    dear = (smoke["arm"] == "bm25") & (smoke["metric"] == "tokens")
    for left in (
        smoke[smoke["arm"] != "random"],
        smoke[(smoke["arm"] != "last") | (smoke["share"] != 0)],
        smoke[(smoke["metric"] != "exact") | (smoke["arm"] != "bm25")],
        smoke.assign(value=smoke["value"].where(~dear, 999.0)),
    ):
        with pytest.raises(AssertionError):
            assertion(root, ASKED, table=left, params=params)


def test_a_contrast_that_is_the_translation_is_noticed(
    root: Path, params: Translation, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = protocol.tested

    def alike(**options):
        return [
            [*before, last._replace(contrast=last.target)] for *before, last in honest(**options)
        ]

    monkeypatch.setattr(study, "tested", alike)
    with pytest.raises(AssertionError):
        assertion(root, SEEN, params=params)


# ----------------------------------------------------------------------------------- words and rows


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_sentence_has_its_ids_and_fits(split: str) -> None:
    sizes = {"length": 150, "tellings": 8}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        told = language.document(rng, **sizes, asked=1 + 3 * (seed % 2), split=split)
        for text in (text for one in told for text in (one.source, one.target, one.contrast)):
            assert words.decode(words.encode(text)) == text
        lasts = [one for one in told if one.contrast]
        row = words.read_of(told[: -len(lasts)])
        for last in lasts:
            asked, target = words.asked_of(last), words.target_of(last.target)
            assert (asked[0], asked[-1], target[-1]) == (words.MARK, BOS, EOS)
            assert words.decode(asked) == last.source and words.decode(target) == last.target
            row += asked + target
        assert len(row) <= words.row_length(150, len(lasts))
    with pytest.raises(KeyError, match="river"):
        words.encode(" rivers")


def kept(params: Translation, stage: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and marks of a stage's training rows, (rows, T) each."""
    one = study.stages_of(params).stages[stage]
    tokens, scored = np.load(files.cache() / "rows" / f"{one.tasks[0].digest}.npy")
    return tokens, scored.astype(bool)


def test_training_rows_have_training_people_and_their_translations_are_scored(
    params: Translation, smoke: pd.DataFrame
) -> None:
    tested = {" ".join(name) for name in world.full_names("test")}
    trained = {" ".join(name) for name in world.full_names("train")}
    asked = set()
    for stage in range(1 + len(params.lengths)):
        for row, marks in zip(*kept(params, stage), strict=True):
            text, begins = words.decode(row[: row.tolist().index(EOS)]), np.flatnonzero(row == BOS)
            asked.add((stage > 0, len(begins)))
            assert any(name in text for name in trained)
            assert not any(name in text for name in tested)
            ends = np.flatnonzero(row == EOS)
            said = [range(a + 1, b + 1) for a, b in zip(begins, ends, strict=True)]
            assert np.flatnonzero(marks).tolist() == [place for one in said for place in one]
            assert (row[ends[-1] + 1 :] == PAD).all()
    assert asked >= {(False, 4), (True, 4), (True, 1)} and (False, 1) not in asked


def test_rows_that_ask_for_one_have_a_part_of_their_document_or_all(params: Translation) -> None:
    same = {"length": 120, "tellings": [4], "shares": [0.25], "asked": 4, "rows": 40}

    def sizes(single: float) -> np.ndarray:
        (made,) = protocol.make_rows(**same, single=single)
        tokens = np.load(files.cache() / "rows" / f"{made['digest']}.npy")[0]
        return (tokens == BOS).argmax(1)

    assert (sizes(1.0) > 105).sum() >= 10 and (sizes(1.0) < 90).sum() >= 5
    assert (sizes(0.0) > 80).all()


def test_rows_that_the_cache_lost_are_made_again(params: Translation, smoke: pd.DataFrame) -> None:
    run = study.run_of(params, 3)
    (task,) = run.batch.stages[0].tasks
    path = files.cache() / "rows" / f"{task.digest}.npy"
    before = path.read_bytes()
    path.unlink()
    curriculum._kept_rows.cache_clear()
    assert study.run_of(params, 3) == run
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("tellings", [4, 8, 12])
@pytest.mark.parametrize("share", SHARES)
def test_the_last_sentences_hold_their_share_of_the_tellings(tellings: int, share: float) -> None:
    for document in documents(tellings=tellings, length=240):
        numbers = reading.last_sentences(document, share)
        assert numbers == list(range(len(document) - 1 - len(numbers), len(document) - 1))
        assert sum(document[number].tells for number in numbers) == share * tellings


@pytest.mark.parametrize("arm", reading.FOUND)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_what_is_found_costs_no_more_and_stands_in_order(arm: str, share: float) -> None:
    for document in documents(length=400, tellings=12):
        order = reading.ranked(document)
        read = reading.read_by(arm, document, share, other=(), order=order)
        tokens = [
            sum(map(language.tokens_in, (one.source for one in part)))
            for part in (read, reading.read_by("last", document, share, other=(), order=()))
        ]
        assert tokens[1] - 12 < tokens[0] <= tokens[1]
        places = [next(n for n, one in enumerate(document) if one is said) for said in read]
        assert places == sorted(places)


def test_retrieval_finds_names_but_no_topic_and_takes_neighbours() -> None:
    (gender, *_), (term, *_) = documents(), documents(kind="term")
    name = " ".join(gender[-1].source.split()[:2])
    order = reading.ranked(gender)
    assert all(name in gender[number].source for number in order[:2])
    assert gender[-1].setter in order and term[-1].setter not in reading.ranked(term)
    first = order[0]
    read = reading.found(gender, [first], 40, neighbours=True)
    assert {first - 1, first + 1} & set(range(len(gender) - 1)) <= set(read)
    # Room that is left takes the last sentences.
    assert reading.found(gender, [], 10**6, neighbours=False) == list(range(len(gender) - 1))
    assert reading.found(gender, [], 10, neighbours=False)[-1] == len(gender) - 2


def test_the_controls_read_another_document_and_what_decides_alone() -> None:
    document, other, *_ = documents()
    same = {"share": 1.0, "other": other, "order": ()}
    assert reading.read_by("random", document, **same) == other[:-1]
    assert reading.read_by("telling", document, **same) == [document[document[-1].setter]]
    with pytest.raises(ValueError, match="arm = half: expected one of last, bm25"):
        reading.read_by("half", document, **same)


# -------------------------------------------------------------------------------------- translating


class Known:
    """The oracle translates in a model's place.

    It is right where what it reads tells, else it takes always the first by alphabet.
    """

    embedding = SimpleNamespace(weight=torch.zeros(1))

    def __init__(self, told: list[list[language.Sentence]]) -> None:
        self.lasts = {document[-1].source: document[-1] for document in told}

    def __call__(self, tokens: torch.Tensor, *, select: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, words.MARK + 1 + len(words.vocabulary()))
        for number, row in enumerate(tokens.tolist()):
            place, begin = row.index(words.MARK), row.index(BOS)
            before, last = words.decode(row[:place]), self.lasts[words.decode(row[place:begin])]
            choices = sorted((last.target, last.contrast))
            said = words.target_of(language.oracle([before, last.source], choices) or choices[0])
            for position, token in enumerate(said, begin):
                if position < len(row):
                    logits[number, position, token] = 9
        return logits[select]


CELLS = {"lengths": [120], "tellings": [4], "documents": 40, "items": 5}


@pytest.fixture
def oracle_rows() -> pd.DataFrame:
    told = [
        document
        for kind in language.KINDS
        for document in documents(kind=kind, tellings=4, documents=41, items=5)
    ]
    model = Known(told)
    arms = [("last", share) for share in SHARES]
    arms += [("bm25", 0.25), ("random", 1.0), ("telling", 1.0)]
    return pd.DataFrame(protocol.translations(model, arms=arms, **CELLS))


def test_a_perfect_translator_is_right_as_far_as_it_reads(oracle_rows: pd.DataFrame) -> None:
    means = oracle_rows.groupby(["metric", "arm", "share"])["value"].mean()
    for arm in ("last", "telling"):
        for metric in ("contrast", "exact", "well_formed", "found"):
            assert means[metric, arm, 1.0] == 1
        assert means["bleu", arm, 1.0] == pytest.approx(100)
    for share in SHARES:
        expected = study.CHANCE + (1 - study.CHANCE) * means["found", "last", share]
        assert abs(means["contrast", "last", share] - expected) < 0.1
        assert abs(means["found", "last", share] - share) < 0.12  # Each stands as likely anywhere.
    assert abs(means["contrast", "random", 1.0] - study.CHANCE) < 0.14
    assert means["tokens", "bm25", 0.25] <= means["tokens", "last", 0.25]


def test_the_slope_of_a_perfect_translator_is_one_half(oracle_rows: pd.DataFrame) -> None:
    (slope,) = study.slopes(oracle_rows.to_dict("records"))
    assert abs(slope["value"] - 0.5) < 0.1 and slope["tellings"] == 4
    flat = oracle_rows.assign(value=0.5).to_dict("records")
    assert study.slopes(flat)[0]["value"] == pytest.approx(0)


def test_right_choices_are_told_by_distance(oracle_rows: pd.DataFrame) -> None:
    at = oracle_rows[oracle_rows["metric"] == "contrast_at"]
    assert set(at["length"]) == {30, 60, 90, 120} and (at["value"] == 1).all()


@pytest.fixture(scope="module")
def model(params: Translation) -> Decoder:
    torch.manual_seed(0)
    return build_model(study.model_of(params)).eval()


def test_rows_beside_a_row_change_nothing(model: Decoder) -> None:
    told = documents()
    prompts = [words.read_of(one[n:-1]) + words.asked_of(one[-1]) for n, one in enumerate(told)]
    targets = [words.target_of(one[-1].target) for one in told]
    with torch.inference_mode():
        both = protocol.followed(model, prompts, targets)
        alone = [
            protocol.followed(model, [p], [t])[0] for p, t in zip(prompts, targets, strict=True)
        ]
        row = torch.tensor([prompts[0] + targets[0]])
        log_p = model(row)[0].log_softmax(-1)
    assert np.allclose([p for p, _ in both], [p for p, _ in alone], atol=1e-4)
    at = range(len(prompts[0]) - 1, row.shape[1] - 1)
    own = sum(float(log_p[place, row[0, place + 1]]) for place in at)
    assert both[0][0] == pytest.approx(own, abs=1e-4)


def test_what_is_written_is_what_is_likeliest(model: Decoder) -> None:
    """An untrained model writes neither translation, and what it writes it follows."""
    *_, first, second, last = documents()[0]
    prompt = words.read_of([first, second]) + words.asked_of(last)
    with torch.inference_mode():
        said = protocol.written(model, prompt)
        (row,) = protocol.scored(model, [prompt], [last])
        assert row["said"] == said and row["well_formed"] == 0
        ids = [*words.encode(said)][: words.LAST]
        assert protocol.followed(model, [prompt], [ids])[0][1]


def test_documents_are_drawn_anew_for_each_seed_and_known(params: Translation) -> None:
    first, second = (study.all_tested(params, seed) for seed in (1, 2))
    assert len(first) == len(second) and all(a != b for a, b in zip(first, second, strict=True))
    found = {row["metric"]: row["value"] for row in study.known(params, 1)}
    assert found["oracle"] == 1 and 0 < found["bleu"] < found["chrf"] < 100


def test_every_arm_translates_the_same_documents(params: Translation, smoke: pd.DataFrame) -> None:
    cells = smoke[smoke["metric"].isin(protocol.SCORES)]
    counts = cells.groupby(["arm", "share", "metric"]).size()
    assert counts.nunique() == 1
    assert set(cells["arm"]) == set(reading.ARMS)


def test_one_training_a_seed_serves_every_arm(params: Translation, smoke: pd.DataFrame) -> None:
    result = result_of(study.run_of(params, params.seeds[0]))
    assert result.steps_trained == 0
    costs = pd.read_csv(tables.path_in(tables.made(), study.NAME, "cost"))
    assert costs["seed"].tolist() == list(params.seeds)
