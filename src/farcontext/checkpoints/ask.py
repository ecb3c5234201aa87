"""Questions about somebody's own long text, and its continuation, by a checkpoint.

Both are written token by token as they come. A text that does not fit is not read whole: for a
question the passages that BM25 ranks highest are read, for a continuation its end. A small model
retrieves; what it says is no more than likely words, so an answer comes with where its evidence
should stand, and with what it would have cost the model without having read it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from farcontext.checkpoints.load import Pretrained, embeddings
from farcontext.checkpoints.questions import encoder, first_tokens
from farcontext.checkpoints.token_losses import numbers
from farcontext.data.corpus import read_text
from farcontext.files import UserError
from farcontext.measure.retrieval import UNSPACED, Passage, chosen, passages, ranking, spaced
from farcontext.nn.generation import GREEDY, Sampling, drawn

SAMPLING = Sampling(temperature=0.8, top_p=0.95)  # Only a continuation is drawn at random.


@dataclass(frozen=True)
class Prompt:
    """A question's prompt with passages, and the same prompt without them.

    `ids` is what the model reads before it answers, `without` the same without the text, and `read`
    the passages in it.
    """

    ids: list[int]
    without: list[int]
    read: list[Passage]
    why: str  # It says in words what was read of the text.


def prompt_of(pretrained: Pretrained, path: Path, question: str, context: int, new: int) -> Prompt:
    """Lay passages of a file and a question into one prompt.

    The prompt has at most `context` − `new` tokens.

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
    tail = encode(f"\nQuestion: {question.strip()}\nAnswer:")
    first = [*first_tokens(pretrained.tokenizer)]
    budget = _limit(pretrained, context) - len(first) - len(tail) - new
    if budget <= 0:
        raise UserError(
            f"context = {context}: the question has {len(tail)} tokens, the answer up to {new}: "
            "expected room for a passage beside them"
        )
    found = passages(text)
    encoded = [encode(f"{passage.text}\n") for passage in found]
    ranked = ranking([passage.text for passage in found], question)
    numbers = chosen(ranked, [len(ids) for ids in encoded], budget)
    if not numbers:
        raise UserError(
            f"context = {context}: expected room for a passage of {path} beside question and "
            f"answer: {new} tokens"
        )
    read = [token for number in numbers for token in encoded[number]]
    why = (
        "the passages that BM25 ranks highest"
        if ranked
        else "its beginning: no passage shares a word with the question"
    )
    why = "all" if len(numbers) == len(found) else why
    return Prompt([*first, *read, *tail], [*first, *tail], [found[n] for n in numbers], why)


def end_of(pretrained: Pretrained, path: Path, context: int, new: int) -> list[int]:
    """Return the last tokens of a file that leave room for more.

    They are so many that `new` more fit into `context`.

    Raises:
        UserError: a file that cannot be read or is empty, or no room.
    """
    room = _limit(pretrained, context) - new
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


def _limit(pretrained: Pretrained, context: int) -> int:
    most = getattr(pretrained.model.config, "max_position_embeddings", context)
    if not 64 <= context <= most:
        raise UserError(
            f"context = {context}: expected 64 to {most}, the positions that {pretrained.name} "
            "was trained for"
        )
    return context


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

    The text ends before a token that ends texts.

    Args:
        ids: the prompt.
        new: tokens at most.
        seed: draw as SAMPLING says, with this seed; None: always the likeliest token.
        one_line: stop where the line ends.
    """
    model, tokenizer = pretrained.model, pretrained.tokenizer
    sampling = GREEDY if seed is None else SAMPLING
    draws = torch.Generator(model.device).manual_seed(seed or 0)
    rows, cache, written = torch.tensor([[*ids]], device=model.device), None, []
    told = text = ""
    for _ in range(new):
        found = model(input_ids=rows, past_key_values=cache, use_cache=True, logits_to_keep=1)
        scores, cache = numbers(found.logits[:, -1].float()), found.past_key_values
        token = drawn(scores, sampling, draws)
        if token.item() == tokenizer.eos_token_id:
            break
        rows, written = token[:, None], [*written, token.item()]
        text = tokenizer.decode(written, skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # Else a character of several tokens is not whole yet.
            yield text[len(told) :]
            told = text
        if one_line and "\n" in text.lstrip():
            break
    yield text[len(told) :]


def _words(text: str) -> set[str]:
    """Return the words of three letters or more, or of two where a script has no spaces."""
    return {word.lower() for word in re.findall(rf"[{UNSPACED}]{{2}}|\w{{3,}}", spaced(text))}


@torch.inference_mode()
def cost_of(pretrained: Pretrained, ids: Sequence[int], answer: Sequence[int]) -> float:
    """Return the mean loss of an answer's tokens after a prompt, nats."""
    rows = torch.tensor([[*ids, *answer]], device=pretrained.model.device)
    logits = pretrained.model(input_ids=rows, logits_to_keep=len(answer) + 1).logits[0, :-1]
    logits = numbers(logits.float())
    return float(torch.nn.functional.cross_entropy(logits, rows[0, -len(answer) :]))


def report(pretrained: Pretrained, path: Path, prompt: Prompt, answer: str) -> list[str]:
    """Return the lines that stand below an answer.

    They say where to look for it, what reading was worth, and how large the model is.
    """
    words = _words(answer)

    def share(passage: Passage) -> float:
        return len(words & _words(passage.text)) / max(1, len(words))

    where = sorted(prompt.read, key=lambda passage: -share(passage))[:3]
    lines = [f"read of {path}: {prompt.why}; {len(prompt.ids)} tokens"]
    for passage in where:
        text = " ".join(passage.text.split())
        short = text if len(text) <= 100 else f"{text[:99]}…"
        place = f"lines {passage.first}–{passage.last} ({passage.depth:.0%})"
        lines.append(f"{place}, {share(passage):.0%} of the answer's words: {short}")
    ids = encoder(pretrained.tokenizer)(f" {answer.strip()}")
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
