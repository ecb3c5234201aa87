"""What notebook 12 caches of the story readers.

It is attribution by every method, and knocked-out heads.

    | bos | sentence | sentence | EVIDENCE | … | sentence | question |  → the answer's first token
            part       part       gold              part

A context's parts are its sentences. Whoever orders them by what the answer rests on is asked twice:
does the order agree with the known evidence (plausibility: auc, first), and does the reader's
answer fall when the first ones are deleted, or come back when they alone are there (faithfulness:
deletion, insertion)?
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from farcontext.measure import attribution, heads
from farcontext.measure.heads import Head
from farcontext.measure.memorization import auc
from farcontext.nn.transformer import Decoder
from farcontext.schema import Row
from farcontext.studies.question_answering.protocol import Laid, tested
from farcontext.studies.story_reader import vocabulary

METHODS = (
    "attention",
    "rollout",
    "gradient × input",
    "integrated gradients",
    "write-aware",
)
SURROGATE = "surrogate, {} passes"
OUTSIDE = ("bm25", "random", "gold")  # Orders that never look at the model.
FINDERS = ("literal", "write-aware")  # Ways to score a head: where it reads, what it writes.
ORDERS = 4  # So many random orders are averaged.
DRAWN = 12  # It draws orders, ablations and sets of heads.


class Explained:
    """A context, its question, and what every part of it is.

    spans: each sentence's tokens in the row. gold: 1 where a sentence is evidence.
    """

    def __init__(self, laid: Laid) -> None:
        step, encode = laid.puzzle.chain[0], vocabulary().encode
        self.laid, self.text = laid, step.question
        self.question, self.answer = [*encode(step.question)], encode(f" {step.answer}")[0]
        starts = np.cumsum([1, *map(len, laid.made)]).tolist()
        self.spans = [*itertools.pairwise(starts)]
        self.gold = np.zeros(len(laid.made))
        self.gold[[laid.telling[number] for number in laid.puzzle.evidence]] = 1

    def row(self, parts: Sequence[int] | None = None) -> list[int]:
        """Return the ids of some sentences, or all, and the question."""
        parts = range(len(self.spans)) if parts is None else parts
        return [*self.laid.tokens(parts), *self.question]

    def evidence(self) -> torch.Tensor:
        """Return 1 where a token of the row is evidence, (T,)."""
        marks = torch.zeros(len(self.row()))
        for (start, end), mark in zip(self.spans, self.gold, strict=True):
            marks[start:end] = float(mark)
        return marks


def contexts(
    *, axis: str, level: int, length: int, first: int = 0, count: int, seed: int
) -> list[Explained]:
    """Return a seed's contexts from one number on."""
    items = tested(axis, level, length=length, count=first + count, seed=seed)
    return [Explained(laid) for laid in items[first:]]


# -------------------------------------------------------------------------------------- attribution


def layers_of(model: Decoder, row: Sequence[int]) -> list[heads.Layer]:
    """Return what each layer attends to in a row.

    Of the last layer it is what the last token does.
    """
    tokens = torch.tensor([row])
    select = torch.zeros(tokens.shape, dtype=torch.bool)
    select[:, -1] = True
    with torch.inference_mode(), heads.watched(model) as layers:
        model(tokens, select=select)
    return layers


def arms_of(ablations: Sequence[int]) -> list[str]:
    """Return the names of all orders, the model's own first."""
    return [*METHODS, *map(SURROGATE.format, ablations), *OUTSIDE]


def part_scores(
    model: Decoder,
    one: Explained,
    rng: np.random.Generator,
    *,
    ablations: Sequence[int],
    steps: int,
) -> dict[str, list[np.ndarray]]:
    """Return each sentence's score by each method, (U,).

    There are several random orders. Surrogates are fitted on the first ones of the same ablated
    rows.
    """
    row, twin, layers = one.row(), attribution.differentiable(model), layers_of(model, one.row())
    written = sum(x.sum(0) for x in heads.written(model, layers, one.answer))
    tokens = {
        "attention": attribution.attention(layers),
        "rollout": attribution.rollout(layers),
        "gradient × input": attribution.gradient_times_input(twin, row, one.answer),
        "integrated gradients": attribution.integrated_gradients(twin, row, one.answer, steps),
        "write-aware": written,
    }
    scores = {name: [attribution.by_part(found, one.spans)] for name, found in tokens.items()}
    kept = attribution.kept_parts(rng, len(one.spans), max(ablations))
    rows = [one.row(np.flatnonzero(parts)) for parts in kept]
    odds = attribution.log_odds(model, rows, one.answer)
    for passes in ablations:
        fitted = attribution.surrogate(kept[:passes], odds[:passes])
        scores[SURROGATE.format(passes)] = [fitted]
    found, ranked = one.laid.ranked.order(one.text), np.zeros(len(one.spans))
    ranked[found] = np.arange(len(found), 0, -1)
    return scores | {
        "bm25": [ranked],
        "random": [*rng.random((ORDERS, len(one.spans)))],
        "gold": [one.gold],
    }


def curves(
    model: Decoder, one: Explained, orders: Sequence[list[int]], budgets: Sequence[int]
) -> list[tuple[float, float]]:
    """Return the areas of deletion and insertion of each order.

    Deletion is how far the answer's probability falls, insertion the probability itself; both are
    averaged over the logarithm of the budgets. Each set of sentences is read once.
    """
    everything = tuple(range(len(one.spans)))
    left = [[*map(tuple, attribution.deleted(order, budgets))] for order in orders]
    there = [[*map(tuple, attribution.inserted(order, budgets))] for order in orders]
    wanted = list(dict.fromkeys([everything, *itertools.chain(*left, *there)]))
    log_odds = attribution.log_odds(model, [one.row(some) for some in wanted], one.answer)
    p = dict(zip(wanted, 1 / (1 + np.exp(-log_odds)), strict=True))
    return [
        (
            attribution.area(budgets, [p[everything] - p[some] for some in without]),
            attribution.area(budgets, [p[some] for some in alone]),
        )
        for without, alone in zip(left, there, strict=True)
    ]


def explained(
    model: Decoder,
    *,
    axis: str,
    level: int,
    length: int,
    count: int,
    seed: int,
    ablations: list[int],
    steps: int,
    budgets: list[int],
) -> list[Row]:
    """Return each method's means over a seed's contexts.

    auc: how often evidence scores above another sentence. first: share of contexts whose highest
    sentence is evidence. deletion, insertion: areas (`curves`). exact: share of contexts where the
    true answer is likelier than all others together.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for number, one in enumerate(
        contexts(axis=axis, level=level, length=length, count=count, seed=seed)
    ):
        rng = np.random.default_rng((DRAWN, seed, length, number))
        scores = part_scores(model, one, rng, ablations=ablations, steps=steps)
        named = [(arm, parts) for arm, some in scores.items() for parts in some]
        orders = [attribution.order_of(parts) for _, parts in named]
        areas = curves(model, one, orders, budgets)
        right = attribution.log_odds(model, [one.row()], one.answer)[0] > 0
        found.setdefault(("whole", "exact"), []).append(float(right))
        for (arm, parts), order, (fall, alone) in zip(named, orders, areas, strict=True):
            hit = auc(parts[one.gold == 1].tolist(), parts[one.gold == 0].tolist())
            values = {"auc": hit, "first": one.gold[order[0]], "deletion": fall, "insertion": alone}
            for metric, value in values.items():
                found.setdefault((arm, metric), []).append(float(value))
    return [
        {"arm": arm, "metric": metric, "value": float(np.mean(values))}
        for (arm, metric), values in found.items()
    ]


def shown(
    model: Decoder,
    *,
    axis: str,
    level: int,
    length: int,
    seed: int,
    ablations: list[int],
    steps: int,
) -> list[Row]:
    """Return one context's sentences with every method's scores, to be drawn."""
    (one,) = contexts(axis=axis, level=level, length=length, count=1, seed=seed)
    rng = np.random.default_rng((DRAWN, seed, length, 0))
    scores = part_scores(model, one, rng, ablations=ablations, steps=steps)
    return [
        {"sentence": text.strip(), "question": one.text.strip(), "gold": int(gold)}
        | {arm: float(parts[0][number]) for arm, parts in scores.items() if arm != "gold"}
        for number, (text, gold) in enumerate(zip(one.laid.texts, one.gold, strict=True))
    ]


# ----------------------------------------------------------------------------------- knocking out


def head_scores(model: Decoder, items: Sequence[Explained]) -> dict[str, dict[Head, float]]:
    """Return each head's mean score over contexts, by each of FINDERS.

    literal: its highest weight lies on evidence (Wu et al. 2024 ask for the copied token itself).
    write-aware: what it writes for the answer, evidence against the rest (`heads.contrast`).
    """
    totals: dict[str, dict[Head, float]] = {finder: {} for finder in FINDERS}
    for one in items:
        layers, evidence = layers_of(model, one.row()), one.evidence()
        written = heads.written(model, layers, one.answer)
        for layer, (seen, wrote) in enumerate(zip(layers, written, strict=True)):
            top = evidence[seen.weights[:, -1].argmax(-1)]
            for name, values in zip(FINDERS, (top, heads.contrast(wrote, evidence)), strict=True):
                for number, value in enumerate(values.tolist()):
                    head = Head(layer, number)
                    totals[name][head] = totals[name].get(head, 0.0) + value / len(items)
    return totals


def best(scores: dict[Head, float], count: int) -> list[Head]:
    """Return the heads with the highest scores."""
    return sorted(scores, key=lambda head: (-scores[head], head))[:count]


def random_sets(
    rng: np.random.Generator, others: Sequence[Head], count: int, draws: int
) -> Iterator[list[Head]]:
    """Yield random sets of heads."""
    for _ in range(draws):
        yield [others[number] for number in rng.permutation(len(others))[:count]]


def knock_outs(
    model: Decoder,
    *,
    axis: str,
    level: int,
    length: int,
    count: int,
    seed: int,
    silenced: int,
    draws: int,
) -> list[Row]:
    """Return right answers with heads knocked out, and heads' scores.

    Heads are found in other contexts than those that are answered. arm: none, each finder's best
    heads, random (as many of the heads that no finder chose).
    """
    same = {"axis": axis, "level": level, "length": length, "count": count, "seed": seed}
    asked, others = contexts(**same), contexts(**same, first=count)
    scores = head_scores(model, others)
    chosen = {finder: best(found, silenced) for finder, found in scores.items()}
    found = {head for some in chosen.values() for head in some}
    rest = [head for head in scores[FINDERS[0]] if head not in found]
    rng = np.random.default_rng((DRAWN, seed, length))
    sets = [("none", []), *chosen.items()]
    sets += [("random", some) for some in random_sets(rng, rest, silenced, draws)]
    right: dict[str, list[float]] = {}
    for arm, some in sets:
        silence = heads.knocked_out(heads.outputs_of(model), some, model.config.heads)
        with silence if some else nullcontext():
            odds = [attribution.log_odds(model, [one.row()], one.answer)[0] for one in asked]
        right.setdefault(arm, []).append(float(np.mean(np.array(odds) > 0)))
    rows = [{"arm": k, "metric": "knocked", "value": float(np.mean(v))} for k, v in right.items()]
    return rows + [
        {"arm": finder, "metric": "head", "head": f"{head.layer}.{head.number}", "value": value}
        for finder, values in scores.items()
        for head, value in values.items()
    ]
