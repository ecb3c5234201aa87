"""The real tier of notebook 12: heads of two public checkpoints.

SmolLM2 answers needles, and its retrieval heads are knocked out, before and after its positions are
extended. The atom mapper, a masked language model of reactions, has exact gold: the source of every
atom of a product that a rule made. Rows fit the study's table: tier = real, seed = the context, or
the left fragment of the reactions.
"""

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from farcontext import files
from farcontext.checkpoints import atom_mapper
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.questions import encoder, first_tokens, observe, read
from farcontext.checkpoints.rope_loss import rebuilt
from farcontext.checkpoints.rope_parameters import rope_parameters
from farcontext.data import corpus
from farcontext.measure import heads
from farcontext.measure.heads import Head
from farcontext.nn.config import Extension
from farcontext.schema import Row
from farcontext.studies.interpretability import reactions
from farcontext.studies.interpretability.params import Params
from farcontext.studies.interpretability.protocol import DRAWN, best, random_sets
from farcontext.studies.real_tier import known, loaded
from farcontext.tasks import needles
from farcontext.tasks.sample import Sample
from farcontext.train.runs import EvalConfig, sweep

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import PreTrainedModel

FACTOR = 2.0  # Schemes extend the positions by this factor.
RANDOM = 0  # It draws the atom mapper's random weights.


def run(params: Params) -> list[Row]:
    """Return the real tier's rows; none of a checkpoint that is null.

    metric: knocked (share of needles whose word is the likeliest; scheme: how positions are
    extended) · same_heads (share of retrieval heads that a scheme leaves what they were) · pointing
    (share of a product's atoms whose source has a head's highest weight among all atoms).
    """
    jobs: dict[Any, EvalConfig] = {}
    if params.checkpoint is not None:
        same = known(params.checkpoint)
        same |= {"length": params.real_length, "contexts": params.real_contexts}
        same |= {"keys": params.real_needles, "silenced": params.real_silenced}
        same |= {"draws": params.real_draws, "schemes": list(params.real_schemes)}
        jobs["needles"] = EvalConfig(needle_heads, None, same)
    if params.reactions is not None:
        weights = files.sha256_file(atom_mapper.prepare(files.project() / params.reactions))
        same = {"folder": params.reactions, "weights": weights, "pairs": params.reaction_pairs}
        jobs["reactions"] = EvalConfig(pointing, None, same)
    return [{"tier": "real"} | row for result in sweep(jobs).values() for row in result.rows]


# ------------------------------------------------------------------------------ SmolLM2 and needles


def needle_heads(
    *,
    checkpoint: str,
    weights: str,
    length: int,
    contexts: int,
    keys: int,
    silenced: int,
    draws: int,
    schemes: Sequence[str],
) -> list[Row]:
    """Return the share of needles found with heads knocked out.

    It is by scheme and context. The heads of arm "retrieval" are found in other contexts, by their
    weight on the word that is asked for. `weights` only names the evaluation in the cache.
    """
    pretrained = loaded(checkpoint)
    pretrained.model.set_attn_implementation("eager")  # The only one that returns its weights.
    samples = _samples(pretrained, length, 2 * contexts, keys)
    rows, first = [], None
    for scheme in schemes:
        with ExitStack() as stack:
            if changed := _changes(pretrained, scheme):
                stack.enter_context(rebuilt(pretrained.model, **changed))
            found = _found(pretrained.model, samples[contexts:])
            chosen = best(found, silenced)
            first = first or chosen
            overlap = len({*first} & {*chosen}) / silenced
            rows.append({"scheme": scheme, "metric": "same_heads", "value": overlap})
            rows += [
                {"scheme": scheme, "metric": "knocked"} | row
                for row in _answers(pretrained.model, samples[:contexts], found, silenced, draws)
            ]
    return [{"model": "SmolLM2-135M", "length": length} | row for row in rows]


def _samples(pretrained: Pretrained, length: int, count: int, keys: int) -> list[Sample]:
    plays = corpus.load_documents(files.project() / "build" / "corpus", "test", "plays")
    same = {"encode": encoder(pretrained.tokenizer), "bos": first_tokens(pretrained.tokenizer)}
    same |= {"length": length, "keys": keys}
    return [
        needles.sample(seed=number, filler=plays[number % len(plays)].text, **same)
        for number in range(count)
    ]


def _changes(pretrained: Pretrained, scheme: str) -> dict[str, Any]:
    """Return what a scheme changes in `rope_parameters`; nothing for "rope"."""
    config = pretrained.model.config
    if scheme == "rope":
        return {}
    reach = {"scale": FACTOR, "trained_length": config.max_position_embeddings}
    width = config.hidden_size // config.num_attention_heads
    theta = config.rope_parameters["rope_theta"]
    return rope_parameters(Extension(scheme=scheme, **reach), theta, width)


@torch.inference_mode()
def _found(model: "PreTrainedModel", samples: Sequence[Sample]) -> dict[Head, float]:
    """Return each head's mean weight on the word that is asked for."""
    totals: dict[Head, float] = {}
    asked = sum(len(sample.queries) for sample in samples)
    for sample in samples:
        cache = read(model, sample.context.tolist())
        for query in sample.queries:
            ids = torch.tensor([query.question])
            out = model(ids, past_key_values=cache, use_cache=True, output_attentions=True)
            cache.crop(-len(query.question))
            end = query.evidence[0][1] - 1  # A full stop ends the needle.
            word = slice(end - len(query.answer), end)
            for layer, weights in enumerate(out.attentions):
                on_word: Tensor = weights[0, :, -1, word].sum(-1)
                for number, value in enumerate(on_word.tolist()):
                    head = Head(layer, number)
                    totals[head] = totals.get(head, 0.0) + value / asked
    return totals


def _answers(
    model: "PreTrainedModel",
    samples: Sequence[Sample],
    found: dict[Head, float],
    silenced: int,
    draws: int,
) -> list[Row]:
    chosen = best(found, silenced)
    others = [head for head in found if head not in chosen]
    rng = np.random.default_rng(DRAWN)
    sets = [("none", []), ("retrieval", chosen)]
    sets += [("random", some) for some in random_sets(rng, others, silenced, draws)]
    outputs = [layer.self_attn.o_proj for layer in model.model.layers]
    right: dict[tuple[str, int], list[float]] = {}
    for (arm, some), (number, sample) in itertools.product(sets, enumerate(samples)):
        with heads.knocked_out(outputs, some, model.config.num_attention_heads):
            exact = float(np.mean([row["exact"] for row in observe(model, sample)]))
        right.setdefault((arm, number), []).append(exact)
    return [
        {"arm": arm, "seed": number, "value": float(np.mean(values))}
        for (arm, number), values in right.items()
    ]


# ------------------------------------------------------------------------- the atom mapper's heads


def pointing(*, folder: str, weights: str, pairs: int) -> list[Row]:
    """Return the share of atoms whose source heads point at.

    It is by left fragment. arm: known (the head that the network's authors use), best other and
    random heads (the mean of all others; both of the trained network), random weights (the best
    head of an untrained one), chance (one over the number of the reactants' atoms). head: each
    single head of the trained network, over all fragments.
    """
    made = reactions.reactions(DRAWN, pairs)
    trained, drawn = (
        _hits(atom_mapper.load(files.project() / folder, random_seed=seed), made)
        for seed in (None, RANDOM)
    )
    names = [one.fragments[0] for one in made]
    sizes = np.array([len(one.source) for one in made])
    chance = np.array([1 / len(_atoms(one)) for one in made]) * sizes
    total = trained.sum(0) / sizes.sum()
    rest = np.ones_like(total, bool)
    rest[atom_mapper.KNOWN] = False
    other = np.unravel_index(np.where(rest, total, 0).argmax(), total.shape)
    lucky = np.unravel_index(drawn.sum(0).argmax(), total.shape)
    arms = {
        "known head": trained[:, *atom_mapper.KNOWN],
        "best other head": trained[:, *other],
        "other heads": trained[:, rest].mean(1),
        "random weights": drawn[:, *lucky],
        "chance": chance,
    }
    rows = []
    for number, left in enumerate(reactions.AROMATIC):
        mine = np.array([name == left for name in names])
        rows += [
            {"arm": arm, "seed": number, "value": float(hits[mine].sum() / sizes[mine].sum())}
            for arm, hits in arms.items()
        ]
    for rule in reactions.RULES:
        mine = np.array([one.rule == rule for one in made])
        share = arms["known head"][mine].sum() / sizes[mine].sum()
        rows.append({"arm": "known head", "scheme": rule, "value": float(share)})
    rows += [
        {"arm": "each head", "head": f"{layer}.{number}", "value": float(total[layer, number])}
        for layer, number in np.ndindex(*total.shape)
    ]
    return [{"model": "atom mapper", "metric": "pointing"} | row for row in rows]


def _atoms(one: reactions.Reaction) -> list[int]:
    """Return the places of the reactants' atoms."""
    before = range(one.tokens.index(">>"))
    return [place for place in before if reactions.ATOM.fullmatch(one.tokens[place])]


def _hits(mapper: atom_mapper.AtomMapper, made: Sequence[reactions.Reaction]) -> np.ndarray:
    """Return how many atoms each head points right, (R, layers, N).

    They are those of each reaction's product.
    """
    found = []
    for one in made:
        atoms, weights = _atoms(one), mapper.attention(one.tokens)
        pointed = weights[:, :, [*one.source]][..., atoms].argmax(-1)
        gold = torch.tensor([atoms.index(place) for place in one.source.values()])
        found.append((pointed == gold).sum(-1).numpy())
    return np.array(found, dtype=float)
