"""What `farcontext realtext` caches: scores of copies, and a checkpoint's losses.

They are of answers, of summaries and of translations.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.questions import encoder, first_tokens
from farcontext.checkpoints.token_losses import token_losses
from farcontext.measure import metrics
from farcontext.measure.retrieval import ranking
from farcontext.schema import Row
from farcontext.studies.real_tier import loaded
from farcontext.studies.realtext.texts import (
    SOURCES,
    Asked,
    Pair,
    read_drcd,
    read_ntrex,
    read_qmsum,
    read_squality,
    read_tatoeba,
    text_of,
)
from farcontext.studies.summarization.real import CHARACTERS, CUE, copied, losses_of

CHECKPOINT = "build/smollm2"

LANGUAGES = {"de": "German", "fr": "French", "zh": "Chinese"}  # References are in these languages.
SENTENCE = re.compile(r"[^。！？；]+[。！？；]?")
ASKS_NUMBER = re.compile(
    r"[幾几]|多少|何時|[哪何]一?[年月日天]"
)  # Then an answer with a digit is expected.


# ------------------------------------------------------------------------------------------ answers


def answer(*, data: str, known: Sequence[str], seed: int, questions: int, asked: int) -> list[Row]:
    """Return the baselines' scores, and the first answers' losses.

    `known` only names text and weights in the cache. The arm other reads what follows in the file
    after the article, as many tokens as the paragraph has.
    """
    pretrained, articles = loaded(CHECKPOINT), read_drcd(text_of(data))
    encode, before, rng = (
        encoder(pretrained.tokenizer),
        first_tokens(pretrained.tokenizer),
        np.random.default_rng(seed),
    )
    rows = []
    for item, number in enumerate(rng.permutation(len(articles))[:questions].tolist()):
        one = articles[number][rng.integers(len(articles[number]))]
        same = {"data": data, "language": "zh", "item": item}
        for arm, said in baselines(one, rng).items():
            rows += [
                same | {"arm": arm, "metric": name, "value": x}
                for name, x in scores(said, one.answers).items()
            ]
        if item >= asked:
            continue
        own = tuple(encode(one.paragraph))
        other = tuple(encode(following(articles, number, 4 * len(one.paragraph)))[: len(own)])
        cue, scored = encode(f"\n問題：{one.question}\n答案："), encode(one.answers[0])
        losses = losses_of(
            pretrained.model, own, other, before=before, cue=tuple(cue), scored=tuple(scored)
        )
        rows += [
            same | {"arm": arm, "metric": "loss", "value": loss} for arm, loss in losses.items()
        ]
    return rows


def following(articles: Sequence[Sequence[Asked]], number: int, characters: int) -> str:
    """Return so many characters of the paragraphs in the following articles.

    They follow the article with that number; after the last one comes the first.
    """
    others = [*articles[number + 1 :], *articles[:number]]
    return "\n".join(dict.fromkeys(one.paragraph for article in others for one in article))[
        :characters
    ]


def baselines(asked: Asked, rng: np.random.Generator) -> dict[str, str]:
    """Return a sentence of the paragraph by arm.

    The arm bm25 ranks by character pairs, first takes the first sentence, and random draws: among
    those with a digit where the question asks for a number and there are such.
    """
    sentences = SENTENCE.findall(asked.paragraph)
    best = ranking(
        [_character_pairs(sentence) for sentence in sentences], _character_pairs(asked.question)
    )
    fitting = (
        [one for one in sentences if re.search(r"\d", one)]
        if ASKS_NUMBER.search(asked.question)
        else []
    )
    drawn = (fitting or sentences)[rng.integers(len(fitting or sentences))]
    return {"bm25": sentences[best[0] if best else 0], "first": sentences[0], "random": drawn}


def _character_pairs(text: str) -> str:
    """Return a text's neighbouring characters as words.

    They are for an index that looks for spaces between words.
    """
    return " ".join(a + b for a, b in pairwise(text))


def normalised(text: str) -> str:
    """Return letters and digits alone, in lower case.

    Full-width forms become usual ones (NFKC).
    """
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


def scores(said: str, answers: Sequence[str]) -> dict[str, float]:
    """Return exact match, F1 of characters and whether the answer is contained.

    Texts are normalised, and the best over the answers counts.
    """
    found, wanted = normalised(said), [normalised(one) for one in answers]
    same = [
        2 * (Counter(found) & Counter(one)).total() / max(1, len(found) + len(one))
        for one in wanted
    ]
    return {
        "exact": float(found in wanted),
        "f1": max(same),
        "contains": float(any(one in found for one in wanted)),
    }


# ---------------------------------------------------------------------------------------- summaries


def summarize(
    *,
    data: str,
    known: Sequence[str],
    seed: int,
    documents: int,
    read: int,
    length: int,
    sentences: int,
) -> list[Row]:
    """Return ROUGE by extract, and the losses of the first summaries.

    `known` is as in `answer`. The first documents have losses. Extracts are of the whole document;
    losses stand after its first `length` tokens, or another's (other), or none. A metric with
    _wrong is against the other document's summaries. Of several summaries the best match counts,
    and the first has its loss.
    """
    pretrained, (source,) = loaded(CHECKPOINT), SOURCES[data]
    encode, before = encoder(pretrained.tokenizer), first_tokens(pretrained.tokenizer)
    texts = {"squality": read_squality, "qmsum": read_qmsum}[data](text_of(source))
    bodies = [(one, tuple(encode(one.text[: CHARACTERS * length])[:length])) for one in texts]
    long = [one for one in bodies if len(one[1]) == length]
    if len(long) < 2:
        raise ValueError(f"{data}: {len(long)} documents of {length} tokens: expected 2 or more")
    chosen = [long[n] for n in np.random.default_rng(seed).permutation(len(long))[:documents]]
    rows = []
    for item, ((own, body), (other, false_body)) in enumerate(pairwise([*chosen, chosen[0]])):
        same = {"data": data, "language": "en", "item": item}
        for arm, said in copied(own.text, sentences, seed + item).items():
            for suffix, references in (("", own.references), ("_wrong", other.references)):
                found = pd.DataFrame([metrics.rouge(said, one) for one in references]).max()
                rows += [
                    same | {"arm": arm, "metric": f"{name}{suffix}", "value": x}
                    for name, x in found.items()
                ]
        if item >= read:
            continue
        cue, scored = tuple(encode(CUE)), tuple(encode(f" {own.references[0]}"))
        losses = losses_of(
            pretrained.model, body, false_body, before=before, cue=cue, scored=scored
        )
        rows += [
            same | {"arm": arm, "metric": "loss", "value": loss} for arm, loss in losses.items()
        ]
    return rows


# ------------------------------------------------------------------------------------- translations


def translate(
    *,
    data: str,
    known: Sequence[str],
    seed: int,
    translated: int,
    contexts: Sequence[int],
    language: str,
) -> list[Row]:
    """Return the losses of true translations, and scores of the sources.

    A loss is by what stands before; BLEU and chrF are those of all sources as they are. The arm
    random has as many pairs of another document (of Tatoeba: other pairs), so as much
    language and layout, but not the same number of tokens. `known` is as in `answer`.
    """
    pretrained, rng = loaded(CHECKPOINT), np.random.default_rng(seed)
    if data == "ntrex":
        texts = read_ntrex(*(text_of(f"ntrex_{part}") for part in ("documents", "en", language)))
        read, pairs = (
            of_documents(texts, translated, max(contexts), rng),
            [pair for text in texts for pair in text],
        )
    else:
        pairs = read_tatoeba(text_of(data))
        read = of_sentences(pairs, 4 * translated, max(contexts), rng)
    rows = [
        {"arm": "copy", "metric": name, "value": x}
        for name, x in copy_scores(pairs, language).items()
    ]
    for item, (last, before) in enumerate(read):
        arms = {
            (arm, count): stood[-count:] for arm, stood in before.items() for count in contexts
        } | {("none", 0): ()}
        for (arm, count), stood in arms.items():
            loss = translation_loss(pretrained, stood, last, LANGUAGES[language])
            rows.append(
                {"arm": arm, "context": count, "item": item, "metric": "loss", "value": loss}
            )
    return [{"data": data, "language": language} | row for row in rows]


# Each item is a pair to translate, and by arm what stands before it.
Read = list[tuple[Pair, dict[str, Sequence[Pair]]]]


def of_documents(
    documents: Sequence[Sequence[Pair]], count: int, most: int, rng: np.random.Generator
) -> Read:
    """Return one pair of each drawn document, and what stands before.

    That is the `most` pairs before it, and as many before that of the next drawn document.
    """
    long = [document for document in documents if len(document) > most]
    chosen = [long[number] for number in rng.permutation(len(long))[:count]]
    ends = [int(rng.integers(most, len(document))) for document in chosen]
    before = [document[end - most : end] for document, end in zip(chosen, ends, strict=True)]
    lasts = [document[end] for document, end in zip(chosen, ends, strict=True)]
    others = [*before[1:], before[0]]
    return [
        (last, {"true": own, "random": other})
        for last, own, other in zip(lasts, before, others, strict=True)
    ]


def of_sentences(pairs: Sequence[Pair], count: int, most: int, rng: np.random.Generator) -> Read:
    """Return drawn pairs, each with `most` others; nothing truly stands before them."""
    drawn = [pairs[number] for number in rng.permutation(len(pairs))[: count + most]]
    return [
        (drawn[number], {"random": drawn[number + 1 :][:most]})
        for number in range(len(drawn) - most)
    ]


def translation_loss(
    pretrained: Pretrained, before: Sequence[Pair], last: Pair, language: str
) -> float:
    """Return the mean loss of a translation, in nats a token.

    It stands after its English sentence and the pairs before.
    """
    encode, layout = encoder(pretrained.tokenizer), f"English: {{}}\n{language}:"
    stood = "".join(f"{layout.format(source)} {target}\n\n" for source, target in before)
    scored = encode(f" {last[1]}")
    row = (
        *first_tokens(pretrained.tokenizer),
        *encode(stood),
        *encode(layout.format(last[0])),
        *scored,
    )
    return float(token_losses(pretrained.model, row, len(scored)).mean())


def copy_scores(pairs: Sequence[Pair], language: str) -> dict[str, float]:
    """Return corpus BLEU and chrF of the English sentences as translations.

    Both are from 0 to 100; BLEU is by characters for Chinese.
    """
    said, references = zip(*pairs, strict=True)
    bleu = metrics.bleu(said, references, tokenize="zh" if language == "zh" else "13a")
    return {"bleu": bleu[0], "chrf": metrics.chrf(said, references)[0]}
