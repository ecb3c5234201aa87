"""More real texts for notebooks 08, 09 and 10.

`farcontext realtext` fetches them. No verdict reads the tables.

    question_answering   DRCD       a Chinese paragraph, a question and its answer, a stretch of
                                    that paragraph
    summarization        SQuALITY   stories with four summaries each;  QMSum: meetings with one
    translation          NTREX      news by documents, English → German, French, Chinese;
                         Tatoeba    single sentences, → Chinese

There are two kinds of numbers. What copies (a sentence, the source itself) is scored as an answer,
a summary, a translation: this is a floor. And a checkpoint's loss is taken on the true text, after
what belongs to it, after what does not, and after nothing. Nothing is generated.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Annotated

import pandas as pd
from pydantic import Field

from farcontext import files
from farcontext.results import tables as results
from farcontext.schema import Count, Counts, Frozen, Row, validate
from farcontext.studies.real_tier import known
from farcontext.studies.realtext.protocol import CHECKPOINT, LANGUAGES, answer, summarize, translate
from farcontext.studies.realtext.texts import SOURCES, file_of
from farcontext.train.runs import EvalConfig, sweep

COLUMNS = ["data", "language", "arm", "context", "item", "metric", "value"]


class Sizes(Frozen):
    """How much of the texts is used.

    The seed draws what is used. These sizes take about 5 minutes on 2 cores.
    """

    seed: int = 0
    questions: Count = 300  # DRCD gives so many questions, each about another article.
    asked: Count = 16  # So many questions have losses too.
    documents: Annotated[int, Field(ge=2)] = 24  # So many stories are drawn, and as many meetings.
    read: Count = 4  # So many documents have losses too.
    length: Count = 1024  # So many tokens of a story or meeting are read, from its beginning.
    sentences: Count = 5  # An extract has so many sentences.
    # NTREX gives so many sentences, one a document; Tatoeba gives four times as many.
    translated: Annotated[int, Field(ge=2)] = 8
    contexts: Counts = (2, 4)  # So many pairs of sentences stand before.


# ------------------------------------------------------------------------------------------- tables


def run(**sizes: object) -> dict[str, pd.DataFrame]:
    """Score what `fetch` fetched; write and return the tables.

    The tables stand below build/<profile>/realtext; sizes are given by keyword.

    metric: loss (nats a token; arms true, other or random, none) · exact, f1, contains · rouge1,
    rouge2, rougeL, the same with _wrong · bleu, chrf. context: pairs of sentences before, 0
    elsewhere. item: question, document or sentence.

    Raises:
        UserError: a text or the checkpoint is missing or damaged.
    """
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # It tells of every index otherwise.
    told = validate(Sizes, sizes, "realtext")
    digest = known(CHECKPOINT)["weights"]

    def job(
        protocol: Callable[..., list[Row]], data: str, *names: str, **options: str
    ) -> EvalConfig:
        known = [digest, *(file_of(source)[1] for source in SOURCES[data])]
        options |= {name: getattr(told, name) for name in ("seed", *names)}
        return EvalConfig(protocol, None, {"data": data, "known": known} | options)

    pairs = [*(("ntrex", language) for language in LANGUAGES), ("tatoeba", "zh")]
    jobs = {
        "summarization": [
            job(summarize, data, "documents", "read", "length", "sentences")
            for data in ("squality", "qmsum")
        ],
        "translation": [
            job(translate, data, "translated", "contexts", language=to) for data, to in pairs
        ],
        "question_answering": [job(answer, "drcd", "questions", "asked")],
    }
    found = sweep(
        {(study, number): one for study, group in jobs.items() for number, one in enumerate(group)}
    )
    tables = {}
    for study, group in jobs.items():
        rows = [
            {"context": 0} | row
            for number in range(len(group))
            for row in found[study, number].rows
        ]
        tables[study] = results.tidy(rows, COLUMNS)
        results.write_table(tables[study], study, told, base=files.build("realtext"))
    return tables


def lines(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return each table's means over items, and where its rows are."""
    said = []
    for study, table in tables.items():
        means = (
            table.groupby([*COLUMNS[:4], "metric"], sort=False)["value"]
            .mean()
            .unstack("metric")
            .round(3)
        )
        said += [
            means.reset_index().to_string(index=False, na_rep=""),
            str(results.path_in(files.build("realtext"), study)),
        ]
    return said
