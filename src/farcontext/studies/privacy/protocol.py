"""What notebook 13 caches: rows with canaries, and what a model tells of them.

A document has D tokens, a row T; a model is trained on the rows of the documents that it may see.
"""

import numpy as np
import torch
import torch.nn.functional as F

from farcontext.data.tokenizer import load_tokenizer
from farcontext.measure.memorization import exposure
from farcontext.nn.transformer import Decoder
from farcontext.schema import Row
from farcontext.tasks import canaries
from farcontext.tasks.canaries import Canary, Place
from farcontext.train.batches import Stream
from farcontext.train.curriculum import keep_rows
from farcontext.train.keys import tokens_folder

DOMAIN = "manuals"
PEOPLE, SECRETS, HALVES = 1, 2, 3  # Purposes of the random streams.


def documents(*, seed: int, document: int, targets: int, carriers: int) -> np.ndarray:
    """Return (targets + carriers, D) ids, one stretch a document of the corpus."""
    stream = Stream.load(tokens_folder(), "train", (DOMAIN,))
    rows, source = stream.windows(DOMAIN, document, 4 * (targets + carriers))
    first = np.unique(source, return_index=True)[1]
    chosen = np.random.default_rng((PEOPLE, seed)).permutation(len(first))[: targets + carriers]
    if len(chosen) < targets + carriers:
        raise ValueError(f"{len(chosen)} documents of {DOMAIN}: expected {targets + carriers}")
    return rows[first[chosen]]


def members(*, seed: int, models: int, targets: int) -> np.ndarray:
    """Return (models, targets), whether a model sees a target.

    Every target is seen by half of the models.
    """
    order = np.random.default_rng((HALVES, seed)).random((models, targets)).argsort(0)
    return order.argsort(0) < models // 2


def words(count: int) -> list[int]:
    """Return the first ids whose text is a space and letters."""
    tokenizer = load_tokenizer(tokens_folder())
    text = (tokenizer.decode([id_]) for id_ in range(tokenizer.get_vocab_size()))
    plain = [n for n, said in enumerate(text) if said[:1] == " " and said[1:].isalpha()]
    return plain[:count]


def planted(
    *,
    seed: int,
    reader: int,
    document: int,
    targets: int,
    carriers: int,
    counts: list[int],
    each: int,
    candidates: int,
) -> tuple[np.ndarray, np.ndarray, list[Canary], list[Place]]:
    """Return a model's targets and carriers, its canaries and their places."""
    rng = np.random.default_rng((SECRETS, seed, reader))
    whole = documents(seed=seed, document=document, targets=targets, carriers=carriers)
    encode = load_tokenizer(tokens_folder()).encode
    made = canaries.draw(rng, lambda text: encode(text).ids, words(candidates), counts, each)
    told, places = canaries.plant(rng, whole[targets:], made)
    return whole[:targets], told, made, places


def make_rows(*, length: int, models: int, **told: int | list[int]) -> list[Row]:
    """Keep one model's rows of T tokens for training and return their digest."""
    attacked, carriers, _, _ = planted(**told)
    seen = members(seed=told["seed"], models=models, targets=told["targets"])[told["reader"]]
    rows = np.concatenate((attacked[seen], carriers)).reshape(-1, length)
    return [{"digest": keep_rows(rows, np.ones(rows.shape, bool))}]


# ----------------------------------------------------------------------------------------- attacks


@torch.inference_mode()
def attack(
    model: Decoder, *, length: int, models: int, prompts: list[int], **told: int | list[int]
) -> list[Row]:
    """Return the loss of every target, and what becomes of every canary.

    what = target: number, member, loss (nats a token of its rows). what = canary: number, count,
    prompt (tokens before the secret), extracted (1 if greedy decoding gives it), exposure (bits).
    """
    attacked, carriers, made, places = planted(**told)
    seen = members(seed=told["seed"], models=models, targets=told["targets"])[told["reader"]]
    losses = document_losses(model, attacked, length)
    rows: list[Row] = [
        {"what": "target", "number": n, "member": int(m), "loss": float(loss)}
        for n, (m, loss) in enumerate(zip(seen, losses, strict=True))
    ]
    choices = words(told["candidates"])
    first = {place.canary: place for place in reversed(places)}
    for number, canary in enumerate(made):
        place = first.get(number)
        for prompt in prompts:
            before = prompt_of(canary, place, carriers, length, prompt)
            scores = secret_scores(model, before, choices)
            at = tuple(choices.index(id_) for id_ in canary.secret)
            others = np.delete(scores.ravel(), np.ravel_multi_index(at, scores.shape))
            found = exposure(-scores[at], (-others).tolist())
            greedy = greedy_is(model, before, canary)
            rows.append(
                {"what": "canary", "number": number, "count": canary.count, "prompt": prompt}
                | {"extracted": int(greedy), "exposure": found}
            )
    return rows


def document_losses(model: Decoder, ids: np.ndarray, length: int) -> np.ndarray:
    """Return the mean loss of each document, read in rows of T tokens, (N,)."""
    rows = torch.from_numpy(np.ascontiguousarray(ids)).reshape(-1, length)
    logits = model(rows)[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2).float(), rows[:, 1:], reduction="none")
    return losses.reshape(len(ids), -1).double().mean(1).numpy()


def prompt_of(
    canary: Canary, place: Place | None, carriers: np.ndarray, length: int, prompt: int
) -> list[int]:
    """Return what stands before a secret: at least its prefix, at most a row's beginning.

    A canary that was never planted has its prefix behind a carrier's own beginning.
    """
    size = max(prompt, len(canary.prefix))
    if place is None:
        return [*carriers[0, : size - len(canary.prefix)].tolist(), *canary.prefix]
    start = max(place.at // length * length, place.at - size)
    return carriers[place.document, start : place.at].tolist()


def secret_scores(model: Decoder, before: list[int], choices: list[int]) -> np.ndarray:
    """Return the log-probability of every pair of words behind a prompt, (C, C)."""
    rows = torch.tensor([[*before, choice] for choice in choices])
    both = model(rows)[:, -2:].float().log_softmax(-1)
    first = both[0, 0, choices]
    return (first[:, None] + both[:, 1][:, choices]).double().numpy()


def greedy_is(model: Decoder, before: list[int], canary: Canary) -> bool:
    """Return whether the likeliest tokens behind a prompt are the secret."""
    best = model(torch.tensor([[*before, *canary.secret[:-1]]]))[0, -len(canary.secret) :]
    return best.argmax(-1).tolist() == [*canary.secret]
