"""What notebook 05 caches of filling blanks.

A rule chooses the blanks, before any model is asked: of each domain the words that its validation
text has most often, each where it first stands in the test text.
"""

import numpy as np
import torch

from farcontext.data.tokenizer import BPETokenizer, load_tokenizer
from farcontext.nn.transformer import Encoder
from farcontext.schema import MASK, Row
from farcontext.train.batches import Stream
from farcontext.train.keys import device, tokens_folder

SIDE = 64  # The encoder reads so many tokens on either side of a blank.
SHOWN = 12  # A table shows so many of them.
LETTERS, SIGNS = 4, 2  # A word has so many letters, or Chinese signs, or more.


def is_word(token: str) -> bool:
    """Return whether a token is a word by itself: " lord", 孔明."""
    word = token.removeprefix(" ")
    if word.isascii():
        return word != token and word.isalpha() and len(word) >= LETTERS
    return len(word) >= SIGNS and all("\u4e00" <= sign <= "\u9fff" for sign in word)


def common_words(domain: str, count: int, tokenizer: BPETokenizer) -> list[int]:
    """Return the ids of the words that validation text has most often."""
    stream = Stream.load(tokens_folder(), "validation", (domain,))
    often = np.bincount(stream.all_tokens(), minlength=stream.vocab_size)
    known = [i for i in np.argsort(-often, kind="stable") if is_word(tokenizer.decode([int(i)]))]
    return [int(i) for i in known[:count]]


def first_places(domain: str, words: list[int]) -> dict[int, int]:
    """Return where each word first stands in the test text.

    That is SIDE tokens or more from the ends of its document.
    """
    stream = Stream.load(tokens_folder(), "test", (domain,))
    found = {}
    for word in words:
        places = np.flatnonzero(stream.tokens[domain] == word)
        document = stream.document_of(domain, places)
        starts, ends = stream.offsets[domain][document], stream.offsets[domain][document + 1]
        inside = places[(places - SIDE >= starts) & (places + SIDE < ends)]
        if inside.size:
            found[word] = int(inside[0])
    return found


def fill_in(model: Encoder, *, domain: str, count: int) -> list[Row]:
    """Return what a model puts into each blank.

    p is the probability of the true token, unigram its share of the training text, and best the
    three likeliest tokens.
    """
    tokenizer = load_tokenizer(tokens_folder())
    trained = Stream.load(tokens_folder(), "train", (domain,)).all_tokens()
    text = Stream.load(tokens_folder(), "test", (domain,)).tokens[domain]
    found = []
    for word, place in first_places(domain, common_words(domain, count, tokenizer)).items():
        row = np.array(text[place - SIDE : place + SIDE + 1], dtype=np.int64)
        before, behind = (tokenizer.decode(list(part)) for part in (row[:SIDE], row[SIDE + 1 :]))
        row[SIDE] = MASK
        p_V = model(torch.from_numpy(row[None]).to(device()))[0, SIDE].softmax(-1)
        best = [tokenizer.decode([int(token)]) for token in p_V.topk(3).indices]
        shown = (before[-SHOWN * 2 :] + "＿" + behind[: SHOWN * 2]).replace("\n", " ")
        found.append(
            {"domain": domain, "text": shown, "true": tokenizer.decode([word])}
            | {"p": float(p_V[word]), "unigram": float((trained == word).mean())}
            | {"best": " · ".join(best), "right": bool(p_V.argmax() == word)}
        )
    return found
