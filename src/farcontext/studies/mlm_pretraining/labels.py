"""What notebook 05 caches of learning from labels.

A learner gets the same labelled passages: the pretrained encoder, the same encoder with fresh
weights, and TF-IDF with logistic regression. N passages in a batch, T tokens, K labels.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farcontext import files
from farcontext.data.corpus import each_document
from farcontext.data.tokenizer import load_tokenizer
from farcontext.nn.transformer import Encoder, padding_of
from farcontext.schema import MASK, PAD, Row
from farcontext.tasks import passages
from farcontext.tasks.passages import Labelled, Passage
from farcontext.train.keys import device, tokens_folder
from farcontext.train.loop import build_model

TASKS = {  # What is asked, of which domain.
    "family": "manuals",
    "play": "plays",
    "name": "sanguo",
    "type": "manuals",
}
# Pretraining has read the documents of one split, and none of the others.
READ, HELD = ("train",), ("validation", "test")
CLASSES = 6
CHARACTERS = {
    "family": 160,
    "play": 160,
    "name": 64,
    "type": 160,
}  # Of a passage: about 70 tokens each.
AT_ONCE = 32  # So many passages are read at once where nothing is learned.
SHARE = 0.35  # This share of a work is tested.
# The commonest types of an API's members.
TYPES = ("string", "list", "integer", "timestamp", "boolean", "map")
# People who are told of in many chapters; those that both splits name most are asked for.
PEOPLE = (
    *("曹操", "孔明", "玄德", "关公", "张飞", "赵云", "吕布", "周瑜", "孙权", "司马懿", "姜维"),
    *("邓艾", "魏延", "钟会", "司马昭", "后主", "曹真", "马岱", "王平", "张郃", "关兴", "张苞"),
)


# ------------------------------------------------------------------------------------ the passages


@cache
def documents(domain: str, splits: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the texts of each work, in order of its name."""
    found: dict[str, list[str]] = {}
    for split in splits:
        for one in each_document(files.project() / "build" / "corpus", split):
            if one.domain == domain:
                work = one.title if domain == "plays" else one.group
                found.setdefault(work, []).append(one.text)
    return {work: tuple(found[work]) for work in sorted(found)}


def classes(task: str) -> list[str]:
    """Return the labels of a task, in order.

    Works are those with most text of the held-out splits, names those that both splits have most.
    """
    domain = TASKS[task]
    match task:
        case "type":
            return list(TYPES)
        case "name":
            return passages.most_named(
                PEOPLE, (_texts(domain, READ), _texts(domain, HELD)), CLASSES
            )
    held = documents(domain, HELD)
    return sorted(held, key=lambda work: -sum(map(len, held[work])))[:CLASSES]


def _texts(domain: str, splits: tuple[str, ...]) -> list[str]:
    return [text for texts in documents(domain, splits).values() for text in texts]


def labelled(task: str, items: int, labels: int, tests: int) -> Labelled:
    """Return a task's passages, drawn by `items`.

    There are `labels` to learn from and `tests` to be asked.

    Fewer labels of the same items are the first of more labels. What is tested, pretraining has
    never read. Works give both from the held-out splits; where the label is blanked, the labelled
    passages are from the training split.
    """
    rng = np.random.default_rng([items, list(TASKS).index(task)])
    domain, kinds, size = TASKS[task], classes(task), CHARACTERS[task]
    if task in ("family", "play"):
        whole = ["\n\n".join(documents(domain, HELD)[work]) for work in kinds]
        found = passages.works(whole, rng, characters=size, share=SHARE)
    else:
        blanked = passages.names if task == "name" else passages.types
        found = blanked(_texts(domain, READ), _texts(domain, HELD), kinds, characters=size)
    return Labelled(
        passages.drawn(found.train, rng, labels), passages.drawn(found.test, rng, tests)
    )


def encoded(texts: Sequence[str]) -> Tensor:
    """Return passages as ids (N, T).

    They are filled up with PAD, and BLANK becomes [MASK].
    """
    tokenizer = load_tokenizer(tokens_folder())
    rows = []
    for text in texts:
        first, *rest = (tokenizer.encode(part).ids for part in text.split(passages.BLANK))
        rows.append([*first, *(token for part in rest for token in (MASK, *part))])
    tokens = np.full((len(rows), max(map(len, rows))), PAD)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(tokens).to(device())


# ------------------------------------------------------------------------------------ the learners


class Classifier(nn.Module):
    """An encoder with a linear layer over its mean states.

    The means are over all tokens, and over the [MASK]s where there are any. Their channels are
    standardised once, before fine-tuning: a pretrained encoder's means differ little beside what
    they have in common, and would be learned from slowly.
    """

    def __init__(self, encoder: Encoder, labels: int, tokens_NT: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.output = nn.Linear(2 * encoder.config.width, labels)
        nn.init.zeros_(self.output.weight)
        with torch.no_grad():
            means_ND = torch.cat([self.pooled(part) for part in tokens_NT.split(AT_ONCE)])
        self.middle, self.spread = means_ND.mean(0), means_ND.std(0) + 1e-5

    def pooled(self, tokens_NT: Tensor) -> Tensor:
        """Return the means of the last hidden states, (N, 2D)."""
        tokens_NT = tokens_NT[:, (tokens_NT != PAD).any(0)]
        hidden_NTD = self.encoder.hidden(tokens_NT, padding_of(tokens_NT))
        whole_NT, masked_NT = tokens_NT != PAD, tokens_NT == MASK
        masked_NT = torch.where(masked_NT.any(1, keepdim=True), masked_NT, whole_NT)
        shares = (one_NT / one_NT.sum(1, keepdim=True) for one_NT in (whole_NT, masked_NT))
        return torch.cat([torch.einsum("nt,ntd->nd", share, hidden_NTD) for share in shares], 1)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        """Return the scores of all labels, (N, K)."""
        return self.output((self.pooled(tokens_NT) - self.middle) / self.spread)


def fine_tuned(
    model: Encoder,
    *,
    task: str,
    items: int,
    labels: Sequence[int],
    tests: int,
    pretrained: bool,
    rates: Sequence[float],
    steps: int,
    rows: int,
) -> list[Row]:
    """Return the accuracy on tested passages by number of labels.

    Args:
        model: the encoder; all its weights are fine-tuned, in a copy.
        task, items: which passages, as in `labelled`.
        labels: numbers of labelled passages, each learned from anew.
        tests: the number of tested ones.
        pretrained: False starts from fresh weights of the same shape, drawn by `items`.
        rates: the peak rate of AdamW, for each number of labels.
        steps: of fine-tuning.
        rows: passages in a step.
    """
    learn, asked = labelled(task, items, max(labels), tests)
    tokens, truth = encoded([x.text for x in learn]), _labels(learn)
    with torch.inference_mode(False):
        found = []
        for count, lr in zip(labels, rates, strict=True):
            torch.manual_seed(items)
            encoder = build_model(model.config)
            if pretrained:
                encoder.load_state_dict(model.state_dict())
            own_tokens, own_truth = tokens[:count].clone(), truth[:count].clone()
            classifier = Classifier(encoder.to(device()), CLASSES, own_tokens).to(device())
            _learn(classifier, own_tokens, own_truth, lr, steps, rows)
            found.append({"labels": count, "accuracy": _accuracy(classifier, asked)})
    return found


def _labels(chosen: Sequence[Passage]) -> Tensor:
    return torch.tensor([x.label for x in chosen], device=device())


def _learn(
    classifier: Classifier, tokens: Tensor, truth: Tensor, lr: float, steps: int, rows: int
) -> None:
    """Minimise the cross-entropy.

    The rate rises for a tenth of the steps, then falls to 0.
    """
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=0.01)
    generator = torch.Generator().manual_seed(len(truth))
    waiting = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        while len(waiting) < min(rows, len(truth)):  # Each passage comes once an epoch.
            waiting = torch.cat([waiting, torch.randperm(len(truth), generator=generator)])
        chosen, waiting = waiting[:rows], waiting[rows:]
        share = min((step + 1) / max(1, steps // 10), (steps - step) / steps)
        for group in optimizer.param_groups:
            group["lr"] = lr * share
        optimizer.zero_grad()
        F.cross_entropy(classifier(tokens[chosen]), truth[chosen]).backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def _accuracy(classifier: Classifier, asked: Sequence[Passage]) -> float:
    tokens, truth = encoded([x.text for x in asked]), _labels(asked)
    best = torch.cat([classifier(part).argmax(-1) for part in tokens.split(AT_ONCE)])
    return float((best == truth).float().mean())


def tf_idf(
    *, task: str, items: int, labels: Sequence[int], tests: int, rates: Sequence[float]
) -> list[Row]:
    """Return what `fine_tuned` returns, for TF-IDF with logistic regression.

    Words and pairs of words count in English, characters and pairs of them in Chinese.

    Args:
        task, items, labels, tests: as in `fine_tuned`.
        rates: C, the inverse of the regularisation, for each number of labels.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    learn, asked = labelled(task, items, max(labels), tests)
    unit: Mapping[str, Any] = {"analyzer": "char" if task == "name" else "word"}
    found = []
    for count, strength in zip(labels, rates, strict=True):
        model = make_pipeline(
            TfidfVectorizer(**unit, ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=strength, max_iter=1000),
        )
        model.fit([x.text for x in learn[:count]], [x.label for x in learn[:count]])
        right = model.predict([x.text for x in asked]) == [x.label for x in asked]
        found.append({"labels": count, "accuracy": float(np.mean(right))})
    return found
