"""What notebook 13 caches: a model learns some documents and is attacked.

A document has D tokens, a row T of them.
"""

import time
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import Tensor

from farcontext.measure.extraction import Last, exposure_of, greedy
from farcontext.measure.memorization import auc
from farcontext.nn.transformer import Decoder
from farcontext.schema import Row
from farcontext.studies.privacy import texts
from farcontext.studies.privacy.learning import Recipe, learned, row_losses
from farcontext.studies.privacy.texts import Texts
from farcontext.tasks.canaries import is_late
from farcontext.train.batches import Stream
from farcontext.train.keys import device, tokens_folder


def attacked(
    public: Decoder,
    *,
    length: int,
    recipe: dict[str, Any],
    repeated: int,
    prompts: list[int],
    validation: int,
    **told: Any,
) -> list[Row]:
    """Return what one model tells of the documents that it learned.

    what = target: number, member, loss (nats a token). what = canary: number, count, late, prompt
    (tokens before the secret), extracted (1 if greedy decoding gives it) and, at the first prompt,
    exposure (bits). what = model: loss (of unseen documents), seconds.

    Args:
        public: the model before.
        length: T.
        recipe: the fields of `Recipe`.
        repeated: spans of so many tokens are learned once; 0 means that nothing is de-duplicated.
        prompts: numbers of tokens that an attacker knows.
        validation: so many windows of unseen documents.
        told: draws the texts.
    """
    started = time.perf_counter()
    given = texts.texts_of(**told)
    rows = given.rows(length)
    fresh = texts.first_time(rows, repeated) if repeated else np.ones(rows.shape, bool)
    model = learned(public, rows, fresh, Recipe(**recipe), seed=told["model"])
    found: list[Row] = [
        {"what": "target", "number": number, "member": int(member), "loss": loss}
        for number, (member, loss) in enumerate(
            zip(given.member, document_losses(model, given.targets, length), strict=True)
        )
    ]
    found += _canaries(model, given, length, prompts, texts.words(told["candidates"]))
    (useful,) = utility(model, length=length, document=told["document"], validation=validation)
    return [*found, {"what": "model", "seconds": time.perf_counter() - started} | useful]


def utility(model: Decoder, *, length: int, document: int, validation: int) -> list[Row]:
    """Return the mean loss of unseen documents, read in rows of T tokens, in nats a token."""
    unseen = Stream.load(tokens_folder(), "validation", (texts.PRIVATE,))
    windows, _ = unseen.windows(texts.PRIVATE, document, validation)
    return [{"loss": float(np.mean(document_losses(model, windows, length)))}]


@torch.inference_mode()
def document_losses(model: Decoder, ids: np.ndarray, length: int) -> list[float]:
    """Return the mean loss of each document, read in rows of T tokens, in nats a token."""
    rows = torch.from_numpy(ids.reshape(-1, length)).to(device())
    losses = [row_losses(model, part, torch.ones_like(part)) for part in rows.split(8192 // length)]
    return torch.cat(losses).double().reshape(len(ids), -1).mean(1).tolist()


# ---------------------------------------------------------------------------------------- canaries


def _canaries(
    model: Decoder, given: Texts, length: int, prompts: list[int], choices: list[int]
) -> list[Row]:
    rows, last = [], _last(model)
    for number, canary in enumerate(given.canaries):
        for prompt in prompts:
            before = prompt_of(given, number, length, prompt)
            if len(before) < prompt:  # The row has no more tokens before this canary.
                continue
            row = {"what": "canary", "number": number, "count": canary.count, "prompt": prompt}
            row |= {"late": int(is_late(number))}
            row |= {"extracted": int(greedy(last, before) == canary.secret)}
            if prompt == prompts[0]:
                row |= {"exposure": exposure_of(last, before, choices, canary.secret)}
            rows.append(row)
    return rows


def prompt_of(given: Texts, number: int, length: int, prompt: int) -> list[int]:
    """Return the tokens before a secret, as the model's row had them.

    They are fewer than `prompt` where the row begins later. A canary that was never planted has its
    prefix behind a carrier's tokens.
    """
    canary = given.canaries[number]
    place = next((place for place in given.places if place.canary == number), None)
    if place is None:
        room = length - len(canary.prefix) - len(canary.secret)
        start = given.carriers[0, : min(room, prompt - len(canary.prefix))]
        return [*start.tolist(), *canary.prefix]
    start = max(place.at // length * length, place.at - prompt)
    return given.carriers[place.document, start : place.at].tolist()


def _last(model: Decoder) -> Last:
    """Return a model as a function of rows and a number of last tokens."""

    def logits(rows: Tensor, count: int) -> Tensor:
        chosen = torch.zeros(rows.shape, dtype=torch.bool)
        chosen[:, -count:] = True
        found = model(rows.to(device()), select=chosen.to(device()))
        return found.reshape(len(rows), count, -1)

    return logits


# ---------------------------------------------------------------------------------- without a model


def blind(*, seed: int, models: int, document: int, targets: int, carriers: int) -> list[Row]:
    """Return how well texts alone tell who was seen: no model is asked.

    One row a model, with the AUC of TF-IDF and logistic regression: on either half of the targets,
    learned from whether the other half was seen (Das et al. 2024). Above 0.5, members and others
    would differ as texts, and no attack would prove that anything was memorised.
    """
    ids = texts.documents(seed, document, targets + carriers)[:targets]
    counts = np.stack([np.bincount(one, minlength=ids.max() + 1) for one in ids])
    parts = np.arange(targets) % 2 == 0
    rows: list[Row] = []
    for model, member in enumerate(texts.members(seed, models, targets)):
        areas = []
        for learn in (parts, ~parts):
            if min(np.bincount(member[learn], minlength=2)) and len(set(member[~learn])) > 1:
                text = make_pipeline(TfidfTransformer(), LogisticRegression(max_iter=1000))
                said = text.fit(counts[learn], member[learn]).decision_function(counts[~learn])
                areas.append(auc(said[member[~learn]], said[~member[~learn]]))
        rows.append({"model": model, "auc": float(np.mean(areas)) if areas else 0.5})
    return rows
