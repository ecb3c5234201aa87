"""Notebook 09: what earlier sentences buy in translating a sentence.

Its gender, formality or term is told only by them. Claim T1 of claims.yaml reads the table.
`words` tells what a source and a target are.
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from farcontext.nn.config import ModelConfig
from farcontext.results import tables as results
from farcontext.studies.trainings import training
from farcontext.studies.translation.params import Params
from farcontext.studies.translation.protocol import make_rows, tested, text_scores, translations
from farcontext.studies.translation.words import MARK, T, source_length, vocabulary
from farcontext.tasks import translation
from farcontext.tasks.translation import KINDS, Sentence
from farcontext.train.config import Curriculum, RunConfig, Stage, Task
from farcontext.train.runs import EvalConfig, costs, prepared_task, sweep

NAME = "translation"
COLUMNS = ["tier", "arm", "seed", "context", "kind", "distance", "metric", "value"]
CHANCE = 0.5  # What tells is drawn evenly, so who does not read it is right in one case of two.


# ----------------------------------------------------------------------------------------- training


def rows_of(params: Params) -> Task:
    """Return the task that draws from the training rows, made once."""
    job = EvalConfig(
        make_rows, None, {"sentences": params.sentences, "rows": params.translator.rows}
    )
    return prepared_task(job, source_length(params.sentences) + T)


def model_of(params: Params) -> ModelConfig:
    """Return the translator, an encoder-decoder.

    Its embeddings take up the tokens before them.
    """
    translator = params.translator
    return ModelConfig(
        kind="encoder_decoder",
        vocab_size=MARK + 1 + len(vocabulary()),
        width=translator.width,
        layers=translator.layers,
        heads=translator.heads,
        mlp_width=2 * translator.width,
        max_length=source_length(params.sentences) + T,
        short_conv=translator.short_conv,
        init_std=0.1,
        embedding_std=1.0,
    )


def run_of(params: Params, seed: int) -> RunConfig:
    """Return the training whose weights every arm of a seed shares."""
    translator, source = params.translator, source_length(params.sentences)
    same = {"steps": translator.steps, "rows": translator.step_rows}
    stage = Stage(length=source + T, source=source, tasks=(rows_of(params),), **same)
    stages = Curriculum(stages=(stage,))
    rate = {"lr": translator.lr, "warmup": translator.warmup}
    return training(model_of(params), stages, seed=seed, **rate)


# ---------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train a translator a seed, have it translate, and return the table.

    It translates with more and fewer sentences before; the table is also written.

    metric: contrast (the true translation is likelier than the contrast; chance: CHANCE) · exact
    (greedy translation is the true one) · well_formed (it is one of the two) · bleu, chrf (all
    kinds and distances) · bleu_at, chrf_at (by distance) · oracle (share that the oracle gets
    right). Arm "contrast": BLEU and chrF of the contrasts themselves.
    """
    told = params.model_dump(mode="json", include={"sentences", "distances", "documents"})
    arms = [*(("own", context) for context in params.contexts), ("random", max(params.contexts))]
    jobs = {
        (arm, context, seed): EvalConfig(
            translations, run_of(params, seed), {"arm": arm, "context": context} | told
        )
        for seed in params.seeds
        for arm, context in arms
    }
    rows: list[dict[str, Any]] = []
    for (arm, context, seed), result in sweep(jobs).items():
        rows += [{"arm": arm, "seed": seed, "context": context} | found for found in result.rows]
    wrong, answered = wrong_scores(params), oracle_share(params)
    for seed in params.seeds:
        rows.append({"seed": seed, "metric": "oracle", "value": answered})
        rows += [
            {"arm": "contrast", "seed": seed, "metric": name, "value": x}
            for name, x in wrong.items()
        ]
    table = results.tidy([{"tier": "controlled"} | row for row in rows], COLUMNS)
    results.write_table(
        table, NAME, params, costs({run_of(params, seed): {"seed": seed} for seed in params.seeds})
    )
    return table


def all_tested(params: Params) -> list[list[Sentence]]:
    """Return every test document."""
    same = {"sentences": params.sentences, "documents": params.documents}
    cells = itertools.product(KINDS, params.distances)
    return [
        told for kind, distance in cells for told in tested(kind=kind, distance=distance, **same)
    ]


def oracle_share(params: Params) -> float:
    """Return the share of documents that the oracle translates rightly.

    The oracle chooses from the sources of the test documents alone.
    """
    read = [([sentence.source for sentence in told], told[-1]) for told in all_tested(params)]
    return float(
        np.mean(
            [
                translation.oracle(said, (last.contrast, last.target)) == last.target
                for said, last in read
            ]
        )
    )


def wrong_scores(params: Params) -> dict[str, float]:
    """Return BLEU and chrF of a translator that always chooses wrongly.

    It errs in nothing but the choice.
    """
    lasts = [told[-1] for told in all_tested(params)]
    return text_scores([last.contrast for last in lasts], [last.target for last in lasts])
