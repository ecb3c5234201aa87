"""Questions about somebody's own long text, and its continuation, by a checkpoint.

Both are written token by token as they come. For a question the text is read in two ways: whole,
where it fits, and as the passages that BM25 ranks highest for the question; a continuation reads
the text's end. A checkpoint that was tuned on a chat template is asked in it. A small model
retrieves; what it says is no more than likely words, so an answer comes with where its evidence
should stand, and with what it would have cost the model without having read it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from farcontext.checkpoints.load import Pretrained, embeddings
from farcontext.checkpoints.questions import encoder, first_tokens
from farcontext.checkpoints.rope.sections import reach
from farcontext.checkpoints.token_losses import numbers
from farcontext.checkpoints.turning import turned
from farcontext.data.corpus import read_text
from farcontext.files import UserError
from farcontext.measure.retrieval import Passage, chosen, passages, ranking
from farcontext.nn.generation import GREEDY, Sampling, drawn

SAMPLING = Sampling(temperature=0.8, top_p=0.95)  # Only a continuation is drawn at random.
# Beside the whole text the best passages have so many tokens, and half of its own at most.
RETRIEVED = 300
COPIED = 6  # A continuation repeats no stretch of so many tokens.
SHOWN = 3  # So many passages are shown below an answer.
NO_ANSWER = "no answer"
WHOLE, BEST = "the whole text", "the passages that BM25 ranks highest"
BEGINNING = "its beginning: no passage shares a word with the question"
# Asked in a chat, a model answers in sentences of its own; it should not.
ASKED = "{text}\n\nAnswer in a few words from the text above. Question: {question}"


@dataclass(frozen=True)
class Prompt:
    """A question's prompt with passages, and the same prompt without them.

    `ids` is what the model reads before it answers, `without` the same without the text, and `read`
    the passages in it. `ranked` are the text's passages, the likeliest evidence first: they follow
    from the question alone.
    """

    ids: list[int]
    without: list[int]
    read: list[Passage]
    why: str  # It says in words what was read of the text.
    ranked: list[Passage]


@dataclass(frozen=True)
class _Frame:
    """What stands around the passages of a prompt."""

    before: list[int]
    after: list[int]

    def around(self, ids: Sequence[int]) -> list[int]:
        return [*self.before, *ids, *self.after]


def prompts_of(
    pretrained: Pretrained, path: Path, question: str, context: int, new: int
) -> list[Prompt]:
    """Return the readings of a file for a question.

    They are the whole text, where it fits, and its best passages, where these are not all. None has
    more than `context` − `new` tokens; a context beyond the model's positions is cut to them.

    Raises:
        UserError: a file that cannot be read or is empty, no question, or no room for the
            question and a passage.
    """
    text = _text(path)
    if not question.strip():
        raise UserError("question: expected some words")
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise UserError(f"question = {question!r:.60}: expected UTF-8")
    encode = encoder(pretrained.tokenizer, embeddings(pretrained.model))
    frame = _frame(pretrained, question.strip())
    around = len(frame.around(()))
    context = limited(pretrained, context)
    budget = context - around - new
    if budget <= 0:
        raise UserError(
            f"context = {context}: the question has {around} tokens, the answer up to {new}: "
            "expected room for a passage beside them"
        )
    found = passages(text)
    encoded = [encode(f"{passage.text}\n") for passage in found]
    sizes = [len(ids) for ids in encoded]
    ranked = ranking([passage.text for passage in found], question)
    fits = sum(sizes) <= budget
    readings = [([*range(len(found))], WHOLE)] if fits else []
    room = min(budget, RETRIEVED, sum(sizes) // 2) if fits else budget
    best = chosen(ranked, sizes, room, fill=not ranked)
    if not best and not fits:
        raise UserError(
            f"context = {context}: expected room for a passage of {path} beside question and "
            f"answer: {new} tokens"
        )
    if best and (ranked or not fits) and len(best) < len(found):
        readings.append((best, BEST if ranked else BEGINNING))
    evidence = [found[number] for number in ranked]
    return [
        Prompt(
            frame.around([token for number in numbers for token in encoded[number]]),
            frame.around(()),
            [found[number] for number in numbers],
            why,
            evidence,
        )
        for numbers, why in readings
    ]


def prompt_of(pretrained: Pretrained, path: Path, question: str, context: int, new: int) -> Prompt:
    """Return the first of `prompts_of`.

    It is the whole text where it fits, else its best passages.
    """
    return prompts_of(pretrained, path, question, context, new)[0]


def _frame(pretrained: Pretrained, question: str) -> _Frame:
    """Return what stands around a text.

    That is the chat template's tokens, or plain lines.
    """
    tokenizer = pretrained.tokenizer
    encode = encoder(tokenizer, embeddings(pretrained.model))
    if not getattr(tokenizer, "chat_template", None):
        tail = encode(f"\nQuestion: {question}\nAnswer:")
        return _Frame([*first_tokens(tokenizer)], tail)
    mark = "\x00"  # It stands for the text; no template holds it.
    said = [{"role": "user", "content": ASKED.format(text=mark, question=question)}]
    try:
        whole = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # A template is a program of somebody else's.
        raise UserError(
            f"{pretrained.path}: its chat template fails: {error}: expected one that takes a "
            "question of the user's"
        ) from None
    before, _, after = whole.partition(mark)
    return _Frame(encode(before), encode(after))


def end_of(pretrained: Pretrained, path: Path, context: int, new: int) -> list[int]:
    """Return the last tokens of a file that leave room for more.

    They are so many that `new` more fit into `context`, or into the model where it has fewer.

    Raises:
        UserError: a file that cannot be read or is empty, or no room.
    """
    context = limited(pretrained, context)
    room = context - new
    first = [*first_tokens(pretrained.tokenizer)]
    if room <= len(first):
        raise UserError(f"context = {context}: expected more than the {new} tokens to write")
    ids = encoder(pretrained.tokenizer, embeddings(pretrained.model))(_text(path))
    if not ids:
        raise UserError(f"{path}: expected text of which the tokenizer makes tokens")
    return [*first, *ids[len(first) - room :]]


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: expected a text file here")
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path}: expected some text")
    return text


def limited(pretrained: Pretrained, context: int) -> int:
    """Return the context, cut to what the model is made for.

    With dynamic NTK that is more than max_position_embeddings.

    Raises:
        UserError: fewer than 64 tokens.
    """
    most = reach(pretrained.model.config) or context
    if context < 64:
        raise UserError(f"context = {context}: expected 64 or more tokens")
    return min(context, most)


def ends_of(pretrained: Pretrained) -> set[int]:
    """Return the tokens that end a text.

    They are those of every file that names some.
    """
    model = pretrained.model
    named = [pretrained.tokenizer.eos_token_id, model.config.eos_token_id]
    if model.generation_config is not None:
        named.append(model.generation_config.eos_token_id)
    lists = [some if isinstance(some, list) else [some] for some in named]
    return {token for some in lists for token in some if token is not None}


@torch.inference_mode()
def write(
    pretrained: Pretrained,
    ids: Sequence[int],
    new: int,
    *,
    seed: int | None = None,
    one_line: bool = False,
) -> Iterator[str]:
    """Yield the text that follows a prompt, as it comes.

    The text ends before a token that ends texts. The model turns as it would in one pass over the
    prompt and all new tokens.

    Args:
        ids: the prompt.
        new: tokens at most.
        seed: draw as SAMPLING says, with this seed, and never copy COPIED tokens of what stands
            before; None: always the likeliest token.
        one_line: stop where the line ends.
    """
    model, tokenizer = pretrained.model, pretrained.tokenizer
    sampling = GREEDY if seed is None else SAMPLING
    draws = torch.Generator(model.device).manual_seed(seed or 0)
    rows, cache, written = torch.tensor([[*ids]], device=model.device), None, []
    ends, told, text = ends_of(pretrained), "", ""
    with turned(model, len(ids) + new):
        for _ in range(new):
            found = model(input_ids=rows, past_key_values=cache, use_cache=True, logits_to_keep=1)
            scores, cache = numbers(found.logits[:, -1].float()), found.past_key_values
            if seed is not None:
                scores[:, copying([*ids, *written])] = float("-inf")
            token = drawn(scores, sampling, draws)
            if token.item() in ends:
                break
            rows, written = token[:, None], [*written, token.item()]
            text = tokenizer.decode(written, skip_special_tokens=True)
            if not text.endswith("\ufffd"):  # Else a character of several tokens is not whole yet.
                yield text[len(told) :]
                told = text
            if one_line and "\n" in text.lstrip():
                break
    yield text[len(told) :]


def copying(ids: Sequence[int]) -> list[int]:
    """Return the tokens that would repeat a stretch of COPIED tokens."""
    last = tuple(ids[-COPIED + 1 :])
    starts = range(len(ids) - COPIED + 1)
    return [ids[at + COPIED - 1] for at in starts if tuple(ids[at : at + COPIED - 1]) == last]


@torch.inference_mode()
def cost_of(pretrained: Pretrained, ids: Sequence[int], answer: Sequence[int]) -> float:
    """Return the mean loss of an answer's tokens after a prompt, nats."""
    rows = torch.tensor([[*ids, *answer]], device=pretrained.model.device)
    with turned(pretrained.model, rows.shape[1]):
        logits = pretrained.model(input_ids=rows, logits_to_keep=len(answer) + 1).logits[0, :-1]
    logits = numbers(logits.float())
    return float(torch.nn.functional.cross_entropy(logits, rows[0, -len(answer) :]))


def spoken(answer: str) -> str:
    """Return an answer, or words for none."""
    return answer.strip() or NO_ANSWER


def report(pretrained: Pretrained, path: Path, prompt: Prompt, answer: str) -> list[str]:
    """Return the lines that stand below an answer.

    They say where to look for it, what reading was worth, and how large the model is. The passages
    are ranked by the question: a wrong answer leads nobody to where its own words stand.
    """
    lines = [f"read of {path}: {prompt.why}; {len(prompt.ids)} tokens"]
    for number, passage in enumerate(prompt.ranked[:SHOWN], 1):
        text = " ".join(passage.text.split())
        short = text if len(text) <= 100 else f"{text[:99]}…"
        place = f"lines {passage.first}–{passage.last} ({passage.depth:.0%})"
        lines.append(f"evidence {number}: {place}: {short}")
    if not prompt.ranked:
        lines.append("evidence: none: no passage shares a word with the question")
    ids = encoder(pretrained.tokenizer)(f" {answer.strip()}") if answer.strip() else []
    if ids:
        read, blind = (cost_of(pretrained, before, ids) for before in (prompt.ids, prompt.without))
        lines.append(
            f"the answer costs the model {read:.2f} nats a token with the text, {blind:.2f} "
            "without it"
        )
    size = sum(parameter.numel() for parameter in pretrained.model.parameters())
    lines.append(
        f"{pretrained.name}: {size / 1e6:,.0f} M parameters: it copies and guesses; check what it "
        "says above"
    )
    return lines
