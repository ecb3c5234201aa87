"""The real tier of notebook 11: a checkpoint continues real plays.

Plays go on, by how much of them was read. Losses of the true text and countable things are kept.

    |<------------- stretch, real_length tokens ------------->|<- what follows ->|
                                          |<-- a window ----->|    scored, and instead of it: drawn

Nothing here says that a text is good: shares of different and of repeated words and of known
speakers are counted alike for the play's own continuation (arm human), which is the band to compare
with. Rows fit the study's table: tier = real, recipe = plays, arm = tokens read, full or other,
seed = number of the play.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from farcontext import files
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.questions import encoder, first_tokens
from farcontext.data import corpus
from farcontext.measure import metrics
from farcontext.nn.generation import Sampling, drawn
from farcontext.schema import Row
from farcontext.studies.content_creation.params import Params
from farcontext.studies.real_tier import known, loaded
from farcontext.tasks.sample import Encode, Ids
from farcontext.train.runs import EvalConfig, sweep

if TYPE_CHECKING:  # transformers takes seconds to load.
    from transformers import Cache, PreTrainedModel

SPEAKER = re.compile(
    r"^\*\*(.+?)\*\*", re.MULTILINE
)  # A speaker is written as **CALIBAN**, at the start of a line.
CHARACTERS = 12  # Each wanted token gets so many characters of text, more than any stretch needs.
SHOWN = 48  # So many tokens at the stretch's end are shown before its continuations.


@dataclass(frozen=True)
class Stretch:
    """Tokens of a play, those that follow, and tokens of another.

    Both plays are read from their middle on; the other play gives as many tokens as the first.
    """

    read: Ids
    follows: Ids
    other: Ids


def run(params: Params) -> list[Row]:
    """Return the real tier's rows; none without a checkpoint.

    metric: loss (nats a token of what truly follows) · of a drawn text and of the true one (arm
    human): distinct_2, repetition_4 (of words), names (share of its speakers that the stretch
    names; no row where nobody speaks).
    """
    return [
        {"tier": "real"} | row
        for rows in _results(params)
        for row in rows
        if row["metric"] != "text"
    ]


def continuations(params: Params, number: int) -> dict[str, str]:
    """Return one play's texts by arm.

    They are the stretch's end (before), what truly follows (human), and what each window drew.
    """
    return {row["arm"]: row["value"] for row in _results(params)[number] if row["metric"] == "text"}


def _results(params: Params) -> list[list[Row]]:
    """Return the rows of each play, texts among them."""
    if params.checkpoint is None:
        return []
    same = known(params.checkpoint) | {
        "length": params.real_length,
        "windows": params.real_windows,
        "new": params.real_new,
    }
    same |= {"temperature": params.temperature, "top_p": params.top_p}
    jobs = {
        number: EvalConfig(go_on, None, same | {"number": number})
        for number in range(params.real_documents)
    }
    return [result.rows for result in sweep(jobs).values()]


def go_on(
    *,
    checkpoint: str,
    weights: str,
    number: int,
    length: int,
    windows: Sequence[int],
    new: int,
    temperature: float,
    top_p: float,
) -> list[Row]:
    """Return one play's scores and texts.

    `weights` only names the evaluation in the cache. Every arm draws alike.
    """
    pretrained = loaded(checkpoint)
    made, decode = (
        stretch(number, length, new, encoder(pretrained.tokenizer)),
        pretrained.tokenizer.decode,
    )
    before, sampling = (
        first_tokens(pretrained.tokenizer),
        Sampling(temperature=temperature, top_p=top_p),
    )
    rows, texts = [], {"before": decode(made.read[-SHOWN:]), "human": decode(made.follows)}
    for arm, context in contexts(made, windows).items():
        loss, cache, logits = scored(pretrained.model, (*before, *context), made.follows)
        rows.append({"arm": arm, "metric": "loss", "value": loss})
        if arm != "other":  # How another play goes on says nothing of this one.
            ids = continued(pretrained, cache, logits, new=new, sampling=sampling, seed=number)
            texts[arm] = decode(ids)
    for arm, text in texts.items():
        found = counts(text, decode(made.read)) if arm != "before" else {}
        rows += [
            {"arm": arm, "metric": name, "value": value}
            for name, value in [*found.items(), ("text", text)]
        ]
    return [{"recipe": "plays", "seed": number, "length": length} | row for row in rows]


# ------------------------------------------------------------------------------------- what is read


def stretch(number: int, length: int, new: int, encode: Encode) -> Stretch:
    """Return `length` tokens of a test play and the `new` following ones.

    The stretch begins with the first speaker after the middle.

    Raises:
        ValueError: the corpus has fewer plays, or a single one.
    """
    plays = corpus.load_documents(files.project() / "build" / "corpus", "test", "plays")
    if number >= len(plays) or len(plays) < 2:
        raise ValueError(f"plays: {len(plays)} documents: expected {max(2, number + 1)}")
    own, other = (
        _from_middle(plays[n % len(plays)].text, length + new, encode) for n in (number, number + 1)
    )
    return Stretch(own[:length], own[length:], other[:length])


def _from_middle(text: str, tokens: int, encode: Encode) -> Ids:
    start = SPEAKER.search(text, len(text) // 2).start()
    ids = encode(text[start:][: CHARACTERS * tokens])[:tokens]
    if len(ids) < tokens:
        raise ValueError(
            f"a play of {len(text)} characters: expected {tokens} tokens after its middle"
        )
    return tuple(ids)


def contexts(made: Stretch, windows: Sequence[int]) -> dict[str, Ids]:
    """Return what each arm reads.

    An arm reads the stretch's last tokens, all of it (full), or its last ones after another play's
    (other). What "other" has of the stretch is the smallest window: it differs from "full" in the
    far text alone.

    Raises:
        ValueError: a window as long as the stretch.
    """
    if max(windows) >= len(made.read):
        raise ValueError(
            f"real_windows = {[*windows]}: expected less than real_length = {len(made.read)}"
        )
    return {str(window): made.read[-window:] for window in windows} | {
        "full": made.read,
        "other": made.other[: -min(windows)] + made.read[-min(windows) :],
    }


# ----------------------------------------------------------------------------------- what is scored


@torch.inference_mode()
def scored(model: "PreTrainedModel", context: Ids, follows: Ids) -> tuple[float, "Cache", Tensor]:
    """Return the mean loss (nats) of what follows a context.

    It also returns the context's cache and last logits (1, V), to go on from.
    """
    ids, wanted = (torch.tensor(tokens, device=model.device) for tokens in (context, follows))
    found = model(input_ids=ids[None], use_cache=True, logits_to_keep=1)
    cache, first = found.past_key_values, found.logits[:, -1].float()
    rest = (
        model(input_ids=wanted[None, :-1], past_key_values=cache, use_cache=True).logits[0].float()
    )
    cache.crop(-rest.shape[0])  # What is drawn next must not read what truly follows.
    return float(F.cross_entropy(torch.cat([first, rest]), wanted)), cache, first


@torch.inference_mode()
def continued(
    pretrained: Pretrained,
    cache: "Cache",
    logits: Tensor,
    *,
    new: int,
    sampling: Sampling,
    seed: int,
) -> list[int]:
    """Return `new` tokens drawn after a context.

    The context is given as its cache, which grows, and its last logits (1, V). No token that ends a
    text is drawn: shares of n-grams compare only at one length.
    """
    model, written = pretrained.model, []
    special = torch.tensor(pretrained.tokenizer.all_special_ids, device=model.device)
    draws = torch.Generator(model.device).manual_seed(seed)
    for _ in range(new):
        if written:
            found = model(input_ids=written[-1][None], past_key_values=cache, use_cache=True)
            logits = found.logits[:, -1].float()
        written.append(drawn(logits.index_fill(-1, special, -torch.inf), sampling, draws))
    return torch.cat(written).tolist()


def counts(text: str, before: str) -> dict[str, float]:
    """Return distinct-2 and repetition-4 of words, and names.

    They are those of a continuation. A value is left out where there is nothing to count.

    names: share of its different speakers whose names stand, as whole words, in the text before.
    """
    words, speakers = text.split(), {name.strip().casefold() for name in SPEAKER.findall(text)}
    # \b does not serve: in "_Enter PUCK_" it takes the underline for a letter.
    known = [
        bool(re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z])", before.casefold()))
        for name in speakers
    ]
    found = {
        "distinct_2": metrics.distinct([words], 2),
        "repetition_4": metrics.repetition(words, 4),
    }
    found |= {"names": sum(known) / len(known)} if known else {}
    return {name: value for name, value in found.items() if not math.isnan(value)}
