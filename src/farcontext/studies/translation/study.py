"""Notebook 09: what a translator gains by reading more of a document.

The gender, formality or term of the last sentence is told by an earlier one, among others that
compete with it or are overruled. The rival of reading on is retrieval: what BM25 finds, in as many
tokens. Claims T1 and T1-retrieval of claims.yaml read the table; `reading` tells what each arm
reads.
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from farcontext.nn.config import ModelConfig
from farcontext.results import tables as results
from farcontext.schema import Row
from farcontext.studies.trainings import training
from farcontext.studies.translation.params import Params
from farcontext.studies.translation.protocol import make_rows, tested, text_scores, translations
from farcontext.studies.translation.words import MARK, row_length, vocabulary
from farcontext.tasks import translation
from farcontext.tasks.second_language import KINDS
from farcontext.tasks.translation import Sentence
from farcontext.train.config import Curriculum, RunConfig, Stage
from farcontext.train.runs import EvalConfig, costs, prepared_task, sweep

NAME = "translation"
COLUMNS = ["arm", "share", "kind", "tellings", "length", "seed", "metric", "value"]
CHANCE = 0.5  # What is told first is drawn evenly: who reads nothing is right in one case of two.


# ----------------------------------------------------------------------------------------- training


SINGLE = 0.25  # Of the rows of tested lengths, this share asks for one sentence, as tests do.


def stage_of(
    params: Params, steps: int, length: int, tellings: tuple[int, ...], single: float
) -> Stage:
    """Return so many steps on documents of one length.

    Their rows are made once.
    """
    asked = params.translator.asked
    options = {"length": length, "tellings": tellings, "shares": params.shares, "asked": asked}
    options |= {"single": single, "rows": params.translator.rows}
    size = row_length(length, asked)
    return Stage(
        steps=steps,
        rows=max(1, params.translator.step_tokens // size),
        length=size,
        tasks=(prepared_task(EvalConfig(make_rows, None, options), size),),
    )


def stages_of(params: Params) -> Curriculum:
    """Return what is trained on.

    Short documents that ask for much come first, then all tested lengths.
    """
    translator = params.translator
    first = (translator.dense_steps, translator.dense_length, params.tellings[:1])
    steps = zip(translator.steps, params.lengths, strict=True)
    tested = (stage_of(params, *one, params.tellings, SINGLE) for one in steps)
    return Curriculum(stages=(stage_of(params, *first, 0.0), *tested))


def model_of(params: Params) -> ModelConfig:
    """Return the translator: a decoder whose attention prefers what is nearer (ALiBi).

    So it can tell what was told last. Its embeddings take up the tokens before them.
    """
    translator = params.translator
    return ModelConfig(
        kind="decoder",
        vocab_size=MARK + 1 + len(vocabulary()),
        width=translator.width,
        layers=translator.layers,
        heads=translator.heads,
        mlp_width=2 * translator.width,
        max_length=row_length(max(params.lengths), translator.asked),
        positions="alibi",
        short_conv=translator.short_conv,
        init_std=0.1,
        embedding_std=1.0,
    )


def run_of(params: Params, seed: int) -> RunConfig:
    """Return the training whose weights every arm of a seed shares."""
    rate = {"lr": params.translator.lr, "warmup": params.translator.warmup}
    return training(model_of(params), stages_of(params), seed=seed, **rate)


# ---------------------------------------------------------------------------------------- the study


def arms_of(params: Params) -> list[tuple[str, float]]:
    """Return every arm with the share that sets its tokens."""
    parts = [share for share in params.shares if 0 < share < 1]
    arms = [("last", share) for share in params.shares] + [("bm25", share) for share in parts]
    return [*arms, ("bm25_neighbours", min(parts)), ("random", 1.0), ("telling", 1.0)]


def run(params: Params) -> pd.DataFrame:
    """Train a translator a seed, test every arm, return the table.

    The table is also written; documents are drawn anew for each seed.

    metric, by arm, share of the tellings, kind, number of tellings and length: contrast (the true
    translation is likelier than the contrast; chance: CHANCE) · exact (greedy translation is the
    true one) · well_formed (it is one of the two) · found (the sentence that decides is read) ·
    tokens (that are read before the last sentence). By distance, for all that is read: contrast_at,
    where `length` is the tokens between the sentence that decides and the last one, at most.
    Pooled: bleu, chrf. slope (of contrast on the share that the last sentences hold, by number of
    tellings) · oracle (share that the oracle gets right). Arm "contrast": BLEU and chrF of the
    contrasts themselves.
    """
    options = {"arms": arms_of(params), "documents": params.documents}
    options |= {"lengths": params.lengths, "tellings": params.tellings}
    jobs = {
        seed: EvalConfig(translations, run_of(params, seed), options | {"items": seed})
        for seed in params.seeds
    }
    rows: list[dict[str, Any]] = []
    for seed, result in sweep(jobs).items():
        found = [*result.rows, *slopes(result.rows), *known(params, seed)]
        rows += [{"seed": seed} | row for row in found]
    table = results.tidy(rows, COLUMNS)
    cost = costs({run_of(params, seed): {"seed": seed} for seed in params.seeds})
    results.write_table(table, NAME, params, cost)
    return table


def slopes(rows: list[Row]) -> list[Row]:
    """Return how right choices rise with the share held.

    There is one slope for each number of tellings.

    The unit is choices from none to all: a straight line through the means of each share, by least
    squares.
    """
    table = pd.DataFrame(rows)
    read = table[(table["metric"] == "contrast") & (table["arm"] == "last")]
    found = []
    for tellings, at in read.groupby("tellings"):
        means = at.groupby("share")["value"].mean()
        slope = float(np.polyfit(means.index, means, 1)[0])
        found.append({"arm": "last", "tellings": tellings, "metric": "slope", "value": slope})
    return found


def all_tested(params: Params, seed: int) -> list[list[Sentence]]:
    """Return every test document of a seed."""
    cells = itertools.product(KINDS, params.tellings, params.lengths)
    return [
        document
        for kind, tellings, length in cells
        for document in tested(
            kind=kind, tellings=tellings, length=length, documents=params.documents + 1, items=seed
        )[:-1]
    ]


def known(params: Params, seed: int) -> list[Row]:
    """Return what the documents alone say.

    It is the share that the oracle translates rightly, and the scores of a translator that errs in
    every choice and in nothing else.
    """
    told = all_tested(params, seed)
    right = [
        translation.oracle([one.source for one in document], (last.contrast, last.target))
        == last.target
        for document in told
        for last in document[-1:]
    ]
    wrong = text_scores(
        [document[-1].contrast for document in told], [document[-1].target for document in told]
    )
    return [{"metric": "oracle", "value": float(np.mean(right))}] + [
        {"arm": "contrast", "metric": name, "value": value} for name, value in wrong.items()
    ]
