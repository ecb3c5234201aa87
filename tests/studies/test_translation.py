"""Notebook 09's assertions hold on its own smoke run.

They fail with the effect removed. The tests hold words and rows, and translators known to be good.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from cells import run_assertion, smoke_params

from farcontext import files
from farcontext.results import tables
from farcontext.schema import BOS, EOS, PAD
from farcontext.studies.translation import protocol, study, words
from farcontext.studies.translation.params import Params as Translation
from farcontext.tasks import translation as language
from farcontext.tasks import world
from farcontext.train import curriculum
from farcontext.train.loop import build_model
from farcontext.train.runs import result_of

ORACLE, TELLS = "ok: the oracle, which", "ok: what is read tells"
ASKED, SEEN = "ok: every arm translated the same", "ok: BLEU sees less"


@pytest.fixture(scope="module")
def params(root: Path, tokenizer_folder: Path) -> Iterator[Translation]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield smoke_params(root, study.NAME, Translation)


@pytest.fixture(scope="module")
def smoke(params: Translation) -> pd.DataFrame:
    """The smoke run; trained once a session, and what notebook 09 itself asks for."""
    return study.run(params)


def assertion(root: Path, says: str, **known: object) -> None:
    """Run the notebook's own cell that prints `says`."""
    run_assertion(
        root, study.NAME, says, protocol=protocol, study=study, language=language, **known
    )


def documents(**options) -> list[list[language.Sentence]]:
    return protocol.tested(
        **{"sentences": 4, "kind": "gender", "distance": 2, "documents": 2} | options
    )


# --------------------------------------------------------------------------------------- assertions


def test_assertions_hold_on_the_smoke_run(
    root: Path, smoke: pd.DataFrame, params: Translation
) -> None:
    for says in (ORACLE, TELLS, ASKED, SEEN):
        assertion(root, says, table=smoke, params=params)


def test_an_oracle_that_errs_is_noticed(
    root: Path, smoke: pd.DataFrame, params: Translation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "oracle", lambda sources, choices: choices[0])
    for says in (ORACLE, TELLS):
        with pytest.raises(AssertionError):
            assertion(root, says, table=smoke, params=params)


def test_an_arm_that_reads_more_than_it_says_is_noticed(
    root: Path, params: Translation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "context_of", lambda arm, document, context, other: document[:-1])
    with pytest.raises(AssertionError):
        assertion(root, TELLS, params=params)


def test_an_arm_that_is_missing_is_noticed(
    root: Path, smoke: pd.DataFrame, params: Translation
) -> None:
    for left in (
        smoke[smoke["arm"] != "random"],
        smoke[smoke["context"] != 0],
        smoke[smoke["metric"] != "exact"],
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
    for seed in range(400):
        *before, last = language.document(np.random.default_rng(seed), length=5, split=split)
        for sentence in (*before, last):
            for text in (sentence.source, sentence.target, sentence.contrast):
                assert words.decode(words.encode(text)) == text
        assert len(words.source_of(before, last, words.source_length(5))) == words.source_length(5)
        for text in (last.target, last.contrast):
            ids = words.target_of(text)
            assert (
                len(ids) == words.T and ids[0] == BOS and EOS in ids and words.decode(ids) == text
            )
    with pytest.raises(KeyError, match="river"):
        words.encode(" rivers")


def kept(params: Translation) -> np.ndarray:
    """Return the tokens and marks of the training rows, (2, rows, length)."""
    return np.load(files.cache() / "rows" / f"{study.rows_of(params).digest}.npy")


def test_a_training_row_is_a_document_of_training_people_and_its_translation_is_scored(
    params: Translation, smoke: pd.DataFrame
) -> None:
    tested = {" ".join(name) for name in world.full_names("test")}
    trained = {" ".join(name) for name in world.full_names("train")}
    tokens, scored = kept(params)
    source, target = np.split(tokens, [words.source_length(params.sentences)], axis=1)
    read = set()
    for row, said, marks in zip(source, target, scored, strict=True):
        text = words.decode(row)
        read.add(text.count(".") + text.count("?") - 1)
        assert any(name in text for name in trained) and not any(name in text for name in tested)
        assert not marks[: source.shape[1]].any()
        assert words.decode(said[marks[source.shape[1] :].astype(bool)]) == words.decode(said)
        assert (said[0], marks[source.shape[1]]) == (BOS, 0)
        assert said[marks[source.shape[1] :].astype(bool)][-1] == EOS
    assert read == set(range(params.sentences))


def test_rows_that_the_cache_lost_are_made_again(params: Translation, smoke: pd.DataFrame) -> None:
    run = study.run_of(params, 3)
    (task,) = run.batch.stages[0].tasks
    path = files.cache() / "rows" / f"{task.digest}.npy"
    before = path.read_bytes()
    path.unlink()
    curriculum._kept_rows.cache_clear()
    assert study.run_of(params, 3) == run
    assert path.read_bytes() == before


# -------------------------------------------------------------------------------------- translating


class Known:
    """The oracle translates in a model's place.

    It is right where what it reads tells, else it takes always the first by alphabet.
    """

    embedding = SimpleNamespace(weight=torch.zeros(1))

    def __init__(self, *, blind: bool, **cells) -> None:
        told = [
            protocol.tested(kind=kind, distance=d, **cells)
            for kind in language.KINDS
            for d in (1, 3)
        ]
        self.lasts = {document[-1].source: document[-1] for part in told for document in part}
        self.blind = blind

    def __call__(
        self, source: torch.Tensor, target: torch.Tensor, documents: torch.Tensor
    ) -> torch.Tensor:
        assert ((source == PAD) == (documents == -1)).all()
        logits = torch.zeros(*target.shape, words.MARK + 1 + len(words.vocabulary()))
        for number, row in enumerate(source.tolist()):
            place = row.index(words.MARK)
            before, last = words.decode(row[:place]), self.lasts[words.decode(row[place:])]
            choices = sorted((last.target, last.contrast))
            found = None if self.blind else language.oracle([before, last.source], choices)
            said = words.target_of(found or choices[0])[1:]
            for position in range(target.shape[1]):
                logits[number, position, said[position]] = 9
        return logits


def scores(arm: str, context: int, *, blind: bool = False) -> pd.DataFrame:
    cells = {"sentences": 4, "documents": 40}
    model = Known(blind=blind, **cells | {"documents": 41})
    rows = protocol.translations(model, arm=arm, context=context, distances=[1, 3], **cells)
    return (
        pd.DataFrame(rows)
        .fillna({"distance": 0})
        .pivot_table(index="distance", columns="metric", values="value")
    )


def test_a_perfect_translator_scores_perfectly_as_far_as_it_reads() -> None:
    whole = scores("own", 3)
    assert (whole.loc[[1, 3], ["contrast", "exact", "well_formed"]] == 1).all().all()
    assert whole.loc[[1, 3], ["bleu_at", "chrf_at"]].to_numpy() == pytest.approx(100)
    # of all distances together
    assert whole.loc[0, ["bleu", "chrf"]].to_numpy() == pytest.approx(100)
    part = scores("own", 1)
    assert part.loc[1, "exact"] == 1 and part.loc[1, "bleu_at"] == pytest.approx(100)
    assert (
        0.35 <= part.loc[3, "exact"] == part.loc[3, "contrast"] <= 0.65
        and part.loc[3, "bleu_at"] < 90
    )
    assert (part["well_formed"].dropna() == 1).all()


@pytest.mark.parametrize(
    ("arm", "context", "blind"), [("own", 3, True), ("own", 0, False), ("random", 3, False)]
)
def test_whoever_does_not_read_the_sentence_that_tells_is_at_chance(
    arm: str, context: int, blind: bool
) -> None:
    found = scores(arm, context, blind=blind)
    assert abs(found["contrast"].mean() - study.CHANCE) <= 0.12
    assert (found["well_formed"].dropna() == 1).all()


@pytest.mark.parametrize("context", [0, 1, 3])
def test_the_control_reads_as_many_sentences_of_another_document(context: int) -> None:
    document, other = documents()
    assert protocol.context_of("own", document, context, other=other) == document[3 - context : 3]
    assert protocol.context_of("random", document, context, other=other) == other[3 - context : 3]


def test_what_cannot_be_read_is_named() -> None:
    document, other = documents()
    with pytest.raises(ValueError, match="arm = half: expected one of own, random"):
        protocol.context_of("half", document, 1, other=other)
    with pytest.raises(ValueError, match="context = 4: expected 0 to 3 sentences"):
        protocol.context_of("own", document, 4, other=other)


def test_padding_and_rows_beside_a_row_change_nothing(params: Translation) -> None:
    torch.manual_seed(0)
    model = build_model(study.model_of(params)).eval()
    told = documents(documents=3)
    sources = [words.source_of(d[3 - number : 3], d[-1], 27) for number, d in enumerate(told)]
    target = torch.tensor([words.target_of(d[-1].target) for d in told])
    with torch.inference_mode():
        both = protocol.log_probability(model, torch.tensor(sources), target)
        for number, source in enumerate(sources):
            short = torch.tensor([[token for token in source if token != PAD]])
            alone = protocol.log_probability(model, short, target[number : number + 1])
            assert torch.allclose(alone, both[number], atol=1e-4)


def test_one_training_a_seed_serves_every_arm(params: Translation, smoke: pd.DataFrame) -> None:
    result = result_of(study.run_of(params, params.seeds[0]))
    assert result.steps_trained == 0
    costs = pd.read_csv(tables.path_in(tables.made(), study.NAME, "cost"))
    assert costs["seed"].tolist() == list(params.seeds)
