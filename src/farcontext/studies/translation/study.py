"""Notebook 09: what earlier sentences buy in translating a sentence.

Its gender, formality or term is told only by them. Claim T1 of claims.yaml reads the table. S
source tokens, filled up with PAD on the left: earlier sentences, MARK, and the sentence to
translate. T target tokens: BOS, its translation, EOS, filled up on the right; scored after BOS up
to EOS.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from farcontext.measure import metrics
from farcontext.nn.config import ModelConfig
from farcontext.nn.transformer import EncoderDecoder, padding_of
from farcontext.results import tables as results
from farcontext.schema import BOS, EOS, PAD, SPECIAL, Row
from farcontext.studies.translation.params import Params
from farcontext.tasks import translation, world
from farcontext.tasks.sample import Ids
from farcontext.tasks.translation import KINDS, Sentence
from farcontext.train.config import Curriculum, OptimizerConfig, RunConfig, Stage, Task
from farcontext.train.curriculum import keep_rows
from farcontext.train.runs import EvalConfig, costs, prepared_task, sweep

NAME = "translation"
COLUMNS = ["tier", "arm", "seed", "context", "kind", "distance", "metric", "value"]
# An arm reads its document's sentences or another's; "own" with none reads the last one alone.
ARMS = ("own", "random")
CHANCE = 0.5  # What tells is drawn evenly, so who does not read it is right in one case of two.
SCORES = ("contrast", "exact", "well_formed")

MARK = len(SPECIAL)  # This id stands before the sentence to translate.
PIECE = re.compile(r" ?\w+|[^\w\s]")
# The sentences of tasks.translation say this around the words of its tables.
FRAMES = (
    *(
        " The is here.",
        " esta qui.",
        " it.",
        " la lo",
        " and are",
        " e sona",
        " asks: do you?",
        " demanda a: tu? vos?",
    ),
    *(" It is about.", " Trata de.", " sees the.", " vida.", " waits.", " atenda."),
)
# Sentences between, the telling one and the last have at most so many tokens.
WAITING, TELLING, LAST = 4, 8, 10
T = LAST + 2  # A translation is as long as what it translates, between BOS and EOS.
# The training documents have the first seed, the test documents the second.
ROWS_SEED, TEST_SEED = 0, 1


# ------------------------------------------------------------------------------------------------------ words and ids


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Return every word and mark of both languages, sorted.

    Words have the space before them; ids count from MARK + 1.
    """
    topics = [
        word
        for meanings in translation.TERMS.values()
        for topic, noun in meanings
        for word in (*topic, noun)
    ]
    asked = [
        verb + end[:1]
        for verb in translation.ASKED.values()
        for _, end in translation.FORMAL.values()
    ]
    tables = (translation.THINGS, translation.VERBS)
    said = [word for table in tables for pair in table.items() for word in pair] + [
        *translation.TERMS,
        *topics,
    ]
    known = [
        *translation.ASKED,
        *asked,
        *translation.FORMAL,
        *(others for others, _ in translation.FORMAL.values()),
    ]
    texts = [*FRAMES, *(f" {word}" for word in (*said, *known, *world.FIRSTS, *world.FAMILIES))]
    return tuple(sorted({piece for text in texts for piece in PIECE.findall(text)}))


@functools.cache
def _numbers() -> dict[str, int]:
    return {word: number for number, word in enumerate(vocabulary(), MARK + 1)}


def encode(text: str) -> Ids:
    """Return a text's ids.

    It raises KeyError for a word of neither language.
    """
    return tuple(_numbers()[piece] for piece in PIECE.findall(text))


def decode(ids: Iterable[int]) -> str:
    """Return the text of ids up to EOS, without special ones."""
    said = itertools.takewhile(lambda token: token != EOS, map(int, ids))
    return "".join(vocabulary()[token - MARK - 1] for token in said if token > MARK)


def source_length(sentences: int) -> int:
    """Return S for documents of so many sentences.

    A source has all sentences before the last one, MARK, and the last one.
    """
    return WAITING * (sentences - 2) + TELLING + 1 + LAST


def source_of(before: Sequence[Sentence], last: Sentence, length: int) -> list[int]:
    """Return a source's ids (S,).

    The sentences that are read stand first, then the one to translate.
    """
    ids = [
        *(token for sentence in before for token in encode(sentence.source)),
        MARK,
        *encode(last.source),
    ]
    return [PAD] * (length - len(ids)) + ids


def target_of(text: str) -> list[int]:
    """Return a translation's ids (T,)."""
    ids = [BOS, *encode(text), EOS]
    return ids + [PAD] * (T - len(ids))


# ----------------------------------------------------------------------------------------------------------- training


def make_rows(*, sentences: int, rows: int) -> list[Row]:
    """Keep rows of training documents and return their digest.

    A uniformly drawn number of sentences of each document is read.
    """
    sources, targets = [], []
    for number in range(rows):
        rng = np.random.default_rng((ROWS_SEED, number))
        *before, last = translation.document(rng, length=sentences, split="train")
        read = before[rng.integers(sentences) :]
        sources.append(source_of(read, last, source_length(sentences)))
        targets.append(target_of(last.target))
    target = np.array(targets)
    scored = (target != PAD) & (target != BOS)
    unscored = np.zeros((rows, source_length(sentences)), dtype=bool)
    return [{"digest": keep_rows(np.hstack((sources, target)), np.hstack((unscored, scored)))}]


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
    return RunConfig(
        model=model_of(params),
        batch=Curriculum(stages=(stage,)),
        optimizer=OptimizerConfig(lr=translator.lr, warmup=min(30, translator.steps // 4)),
        steps=translator.steps,
        save_every=translator.steps,
        seed=seed,
    )


# --------------------------------------------------------------------------------------------------------- what is read


def tested(*, sentences: int, kind: str, distance: int, documents: int) -> list[list[Sentence]]:
    """Return the test documents of a kind and distance.

    The telling sentence stands `distance` before the last; documents are the same in every arm.
    """
    seeds = [(TEST_SEED, KINDS.index(kind), distance, number) for number in range(documents)]
    same = {"length": sentences, "distance": distance, "kind": kind}
    return [
        translation.document(np.random.default_rng(seed), split="test", **same) for seed in seeds
    ]


def context_of(
    arm: str, document: Sequence[Sentence], context: int, *, other: Sequence[Sentence]
) -> list[Sentence]:
    """Return the `context` sentences that an arm reads before the last.

    The arm "random" takes those of `other`.

    Raises:
        ValueError: an unknown arm, or more sentences than there are.
    """
    if not 0 <= context < len(document):
        raise ValueError(f"context = {context}: expected 0 to {len(document) - 1} sentences")
    match arm:
        case "own":
            read = document
        case "random":
            read = other
        case _:
            raise ValueError(f"arm = {arm}: expected one of {', '.join(ARMS)}")
    return list(read[len(read) - 1 - context : -1])


def log_probability(
    model: EncoderDecoder, source_BS: Int[Tensor, "B S"], target_BT: Int[Tensor, "B T"]
) -> Float[Tensor, " B"]:
    """Return the log-probability, nats, of each translation, EOS included, given its source."""
    logits_BTV = model(source_BS, target_BT[:, :-1], padding_of(source_BS))
    said_BT = logits_BTV.float().log_softmax(-1).gather(-1, target_BT[:, 1:, None]).squeeze(-1)
    return said_BT.masked_fill(target_BT[:, 1:] == PAD, 0).sum(1)


def greedy(model: EncoderDecoder, source_BS: Int[Tensor, "B S"]) -> Int[Tensor, "B n"]:
    """Return the likeliest next tokens one after another.

    It goes on until every row has its EOS; what follows that means nothing.
    """
    said_BT, done_B = (
        torch.full_like(source_BS[:, :1], BOS),
        torch.zeros_like(source_BS[:, 0], dtype=torch.bool),
    )
    while said_BT.shape[1] < T and not done_B.all():
        likeliest_B = model(source_BS, said_BT, padding_of(source_BS))[:, -1].argmax(-1)
        said_BT, done_B = (
            torch.cat((said_BT, likeliest_B[:, None]), 1),
            done_B | (likeliest_B == EOS),
        )
    return said_BT[:, 1:]


def _scored(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], lasts: Sequence[Sentence]
) -> list[Row]:
    """Return each sentence's scores, its translation as `said` and its true one as `reference`."""
    both = [(last.target, last.contrast) for last in lasts]
    tensor = functools.partial(torch.tensor, device=model.embedding.weight.device)
    source_BS = tensor(sources)
    source_BS = source_BS[
        :, (source_BS != PAD).any(0)
    ]  # Columns that no row fills change nothing, and take time.
    true_BT, false_BT = (tensor([target_of(choices[i]) for choices in both]) for i in range(2))
    right_B = log_probability(model, source_BS, true_BT) > log_probability(
        model, source_BS, false_BT
    )
    rows = []
    for choices, right, ids in zip(
        both, right_B.tolist(), greedy(model, source_BS).tolist(), strict=True
    ):
        said = decode(ids)
        found = {"contrast": right, "exact": said == choices[0], "well_formed": said in choices}
        rows.append(
            {name: float(x) for name, x in found.items()} | {"said": said, "reference": choices[0]}
        )
    return rows


def translations(
    model: EncoderDecoder,
    *,
    arm: str,
    context: int,
    sentences: int,
    distances: Sequence[int],
    documents: int,
) -> list[Row]:
    """Return an arm's scores by kind and distance, and pooled.

    Shares are means over documents by kind and distance; BLEU and chrF are pooled, and by distance.
    """
    rows = []
    for kind, distance in itertools.product(KINDS, distances):
        told = tested(sentences=sentences, kind=kind, distance=distance, documents=documents + 1)
        pairs = list(itertools.pairwise(told))  # The arm "random" reads the second one.
        read = [context_of(arm, document, context, other=other) for document, other in pairs]
        lasts = [document[-1] for document, _ in pairs]
        sources = [
            source_of(*one, source_length(sentences)) for one in zip(read, lasts, strict=True)
        ]
        rows += [
            {"kind": kind, "distance": distance} | row for row in _scored(model, sources, lasts)
        ]
    scored = pd.DataFrame(rows)
    means = scored.groupby(["kind", "distance"])[list(SCORES)].mean().stack()
    found = [
        {"kind": k, "distance": d, "metric": name, "value": x} for (k, d, name), x in means.items()
    ]
    pooled = text_scores(scored["said"], scored["reference"])
    for distance, part in scored.groupby("distance"):
        at = text_scores(part["said"], part["reference"])
        found += [
            {"distance": distance, "metric": f"{name}_at", "value": x} for name, x in at.items()
        ]
    return found + [{"metric": name, "value": x} for name, x in pooled.items()]


def text_scores(said: Iterable[str], references: Iterable[str]) -> dict[str, float]:
    """Return corpus BLEU and chrF, 0 to 100."""
    texts = [text.strip() for text in said], [text.strip() for text in references]
    return {"bleu": metrics.bleu(*texts)[0], "chrf": metrics.chrf(*texts)[0]}


# ---------------------------------------------------------------------------------------------------------- the study


def run(params: Params) -> pd.DataFrame:
    """Train a translator a seed, have it translate, and return the table.

    It translates with more and fewer sentences before; the table is also written.

    metric: contrast (the true translation is likelier than the contrast; chance: CHANCE) · exact (greedy translation is
    the true one) · well_formed (it is one of the two) · bleu, chrf (all kinds and distances) · bleu_at, chrf_at (by
    distance) · oracle (share that the oracle gets right). Arm "contrast": BLEU and chrF of the contrasts themselves.
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
