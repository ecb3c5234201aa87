"""The readers of stories that the applications share.

Here stand what they are trained on and how they are asked. All start from one pre-training, on
short rows that state what is so after a story in which up to `changes` things changed. Readers
of questions go on from there in notebook 08, writers (`story_writer`) in 10 and 11.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import numpy as np
import torch

from farcontext import files
from farcontext.data import corpus
from farcontext.data.tokenizer import load_tokenizer
from farcontext.nn.config import ModelConfig
from farcontext.nn.generation import GREEDY, Reader, Sampling, generate
from farcontext.nn.layers import Cache
from farcontext.nn.masks import Pattern
from farcontext.nn.transformer import Decoder
from farcontext.schema import BOS, Row
from farcontext.studies.stories import StoryReader as Params
from farcontext.studies.trainings import training
from farcontext.tasks import storybook, world
from farcontext.tasks.sample import Ids, Sample
from farcontext.tasks.storybook import Tail, Vocabulary, sentences_of
from farcontext.train.config import Curriculum, RunConfig, Stage, Task
from farcontext.train.curriculum import keep_rows
from farcontext.train.keys import tokens_folder
from farcontext.train.runs import EvalConfig, costs, prepared_task

DOMAIN = "plays"  # Its prose stands between the sentences of a story.
PROSE = 400_000  # At most so many characters of it serve.
LAYOUTS = {
    "spread": None,
    "near": 1.0,
}  # A story's sentences stand at even depths, or all right before what follows.
ROWS_SEED = 0  # It draws the training rows, which all seeds share.
ITEMS = 100_000  # A seed has so many tested items at most.


# ------------------------------------------------------------------------------- words, prose, rows


@functools.cache
def vocabulary() -> Vocabulary:
    """Return the project's tokenizer, and the world's words as ids."""
    tokenizer = load_tokenizer(tokens_folder())
    return Vocabulary(
        lambda text: tokenizer.encode(text).ids, tokenizer.decode, tokenizer.get_vocab_size()
    )


@functools.cache
def prose(split: str) -> str:
    """Return the beginning of a split's plays."""
    documents = corpus.load_documents(files.project() / "build" / "corpus", split, DOMAIN)
    return "\n".join(document.text for document in documents)[:PROSE]


def make_rows(
    *, length: int, tails: Sequence[str], rows: int, people: int, things: int, changes: int
) -> list[Row]:
    """Keep rows for training and return their digest."""
    words = vocabulary()
    made = storybook.rows(
        np.random.default_rng(
            (ROWS_SEED, length, *map(get_args(Tail).index, tails))
        ),  # Each tail has stories of its own.
        rows,
        length=length,
        vocabulary=words,
        filler=sentences_of(prose("train"), words.encode),
        tails=tails,
        bos=(BOS,),
        people=people,
        things=things,
        changes=changes,
    )
    return [{"digest": keep_rows(*made)}]


def rows_of(params: Params, length: int, tails: Sequence[str]) -> Task:
    """Return the task that draws from rows of one length, made once."""
    sizes = {"people": params.people, "things": params.things, "changes": params.changes}
    job = EvalConfig(
        make_rows, None, {"length": length, "tails": list(tails), "rows": params.rows} | sizes
    )
    return prepared_task(job, length)


# ---------------------------------------------------------------------------------------- trainings


def model_of(params: Params) -> ModelConfig:
    """Return the reader: a decoder without position encodings.

    Its embeddings take up the tokens before them.
    """
    return ModelConfig(
        kind="decoder",
        vocab_size=vocabulary().size,
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        mlp_width=2 * params.width,
        max_length=params.long_length,
        positions="none",
        short_conv=params.short_conv,
        init_std=0.1,
        embedding_std=1.0,
    )


def base_of(params: Params, seed: int) -> RunConfig:
    """Return the first pre-training, which all readers and writers start from.

    It is on short rows that state what is so after a story.
    """
    return phase(params, ("cloze",), (params.short_steps, 0), seed, params.lr)


def phases_of(run: RunConfig) -> list[RunConfig]:
    """Return a run after all the runs that it started from."""
    return [*(phases_of(run.start) if run.start else []), run]


def cost_of(run: RunConfig) -> dict[str, float]:
    """Return the cost of a run and all that it started from.

    It has the seconds, steps and tokens of all, and the largest memory and size.
    """
    each = costs({phase: {} for phase in phases_of(run)})
    return (
        each[["seconds", "steps", "tokens"]].sum().to_dict()
        | each[["peak_bytes", "parameters"]].max().to_dict()
    )


def phase(
    params: Params,
    tails: Sequence[str],
    steps: tuple[int, int],
    seed: int,
    lr: float,
    start: RunConfig | None = None,
    *,
    more: Callable[[int], tuple[Task, ...]] = lambda length: (),
) -> RunConfig:
    """Return a training on short rows, and then on long ones.

    Args:
        params: the readers' section.
        tails: what follows the stories; their rows are dealt in turn.
        steps: on rows of the short and of the long length; 0 for none.
        seed: draws weights and rows.
        lr: the peak learning rate.
        start: the run whose weights it starts from.
        more: length → tasks whose rows are mixed with the stories', each as many.
    """
    lengths = (params.short_length, params.long_length)
    stages = tuple(
        Stage(
            steps=n,
            rows=params.step_tokens // length,
            length=length,
            tasks=(rows_of(params, length, tails), *more(length)),
        )
        for n, length in zip(steps, lengths, strict=True)
        if n
    )
    batch = Curriculum(stages=stages)
    return training(model_of(params), batch, lr=lr, warmup=params.warmup, seed=seed, start=start)


# ------------------------------------------------------------------------------------------ reading


def sizes_of(params: Params, changes: int = 0) -> dict[str, int]:
    """Return tested stories' sizes: as trained, with so many changes."""
    return {"people": params.people, "things": params.things, "changes": changes}


def stories(
    sizes: Mapping[str, int], *, length: int, count: int, depth: float | None, seed: int
) -> list[Sample]:
    """Return stories of test people in test prose, with all questions.

    They are others for each seed of a study. Their contexts fill `length`.
    """
    return [_story(item(seed, number), length, depth, **sizes) for number in range(count)]


def story_of(sizes: Mapping[str, int], number: int, seed: int) -> world.Story:
    """Return a seed's story of that number, without prose."""
    return world.story_of(item(seed, number), **sizes)


def item(seed: int, number: int) -> int:
    """Return what draws a tested item of a study's seed.

    It is another one for each seed and number.

    Raises:
        ValueError: a number that would be another seed's item.
    """
    if not 0 <= number < ITEMS:
        raise ValueError(f"number = {number}: expected one below {ITEMS}")
    return ITEMS * (seed + 1) + number


@functools.lru_cache(4096)  # Every arm is asked about the same ones.
def _story(
    number: int, length: int, depth: float | None, *, people: int, things: int, changes: int
) -> Sample:
    return world.sample(
        length=length,
        seed=number,
        encode=vocabulary().encode,
        filler=prose("test"),
        people=people,
        things=things,
        changes=changes,
        depth=depth,
        bos=(BOS,),
    )


@torch.inference_mode()
def likeliest(
    model: Decoder, context: np.ndarray, asked: Sequence[tuple[Ids, Ids]]
) -> list[torch.Tensor]:
    """Return the logits at each answer's tokens, (answer, V) each.

    The context is read once; what is asked after it, and the true answer before, stand in rows of
    their own, filled up on the right, where a causal model does not look.
    """
    reader = Reader(model, 1, len(context))
    reader.read(torch.tensor(context)[None])
    rows = [[*question, *answer] for question, answer in asked]
    size, places = max(map(len, rows)), []
    tokens = torch.zeros(len(rows), size, dtype=torch.long)
    for number, (row, (_, answer)) in enumerate(zip(rows, asked, strict=True)):
        tokens[number, : len(row)] = torch.tensor(row)
        places += range(number * size + len(row) - len(answer) - 1, number * size + len(row) - 1)
    caches = [_repeated(cache, model, len(rows), size) for cache in reader.caches]
    before = reader.before.expand(len(rows), -1)
    hidden = model.hidden(tokens, None, None, torch.tensor(places), caches, before)
    return list(model.logits(hidden).split([len(answer) for _, answer in asked]))


def _repeated(cache: Cache, model: Decoder, rows: int, more: int) -> Cache:
    """Return one row's cache in many rows, with room for more."""
    keys_BSGH, values_BSGH = (
        x[:, :, : cache.length].transpose(1, 2).expand(rows, -1, -1, -1)
        for x in (cache.keys_BGCH, cache.values_BGCH)
    )
    made = Cache(rows, cache.length + more, model.config, keys_BSGH)
    made.extend(keys_BSGH, values_BSGH, Pattern())
    return made


@torch.inference_mode()
def written(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    new: int,
    *,
    stop: int | None = None,
    sampling: Sampling = GREEDY,
    seed: int = 0,
) -> list[str]:
    """Return the text that follows each prompt, up to `stop`.

    It has at most `new` tokens; prompts of a length go together.
    """
    by_length: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(number)
    words, draws, texts = vocabulary(), torch.Generator().manual_seed(seed), {}
    for numbers in by_length.values():
        rows = torch.tensor(np.array([prompts[number] for number in numbers]))
        made = generate(model, rows, new, stop=stop, sampling=sampling, generator=draws)
        for number, ids in zip(numbers, made.tolist(), strict=True):
            texts[number] = words.decode(ids[: ids.index(stop)] if stop in ids else ids)
    return [texts[number] for number in range(len(prompts))]
