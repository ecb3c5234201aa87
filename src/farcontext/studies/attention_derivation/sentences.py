"""Real sentences for notebook 01: their tokens, and attention that matches them."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from farcontext.nn import attention
from farcontext.nn.masks import Pattern
from farcontext.studies.attention_derivation.study import generator, normal

FEATURES = 64  # A token's made-up feature in `match_weights` has so many channels.
SOUNDS = ("hua", "shuo", "tian", "xia", "da", "shi", "fen", "jiu", "bi", "he", ",")
PINYIN = dict(zip("话说天下大势分久必合，", SOUNDS, strict=True))


def tokenised(tokenizer: Tokenizer, sentence: str) -> pd.DataFrame:
    """Return a sentence's tokens: id, text and an ASCII label for figures.

    The text is what of the sentence the token stands for. A character that the vocabulary lacks is
    several tokens of some bytes each: they are numbered, as in hua/1, hua/2.
    """
    encoding = tokenizer.encode(sentence)
    frame = pd.DataFrame({"id": encoding.ids, "span": encoding.offsets})
    frame["token"] = [sentence[start:end] for start, end in frame["span"]]
    labels = frame["token"].map(
        lambda text: "".join(PINYIN.get(c, c) for c in text).replace(" ", "_")
    )
    same = frame.groupby("span")["id"]
    number = "/" + (same.cumcount() + 1).astype(str)
    frame["label"] = labels.where(same.transform("size") == 1, labels + number)
    return frame[["id", "token", "label"]]


def match_weights(ids: Int[np.ndarray, " T"], seed: int, offset: int) -> Float[np.ndarray, "T T"]:
    """Return attention that matches tokens to the token `offset` before each key.

    A query is a token's own feature, a key that of the token `offset` before. Nothing is learned:
    each token id has a random direction of length √H, so that equal ids score exactly √H and others
    about 0 ± 1. offset 0 asks "where do I stand?" (full mask), 1 "what followed me?" (causal).
    """
    random = generator(seed)
    feature_VH = F.normalize(normal(random, int(ids.max()) + 2, FEATURES), dim=-1) * FEATURES**0.5
    # Before the first token stands one that never occurs.
    before = np.concatenate([np.full(offset, ids.max() + 1), ids])[: len(ids)]
    q, k = (feature_VH[torch.tensor(i, dtype=torch.long)][None, :, None] for i in (ids, before))
    return attention.weights(q, k, Pattern() if offset == 0 else Pattern.causal())[0, 0].numpy()
