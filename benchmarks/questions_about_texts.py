"""Answers of `ask` to 60 questions about real texts, beside retrieval and lead alone.

    python benchmarks/questions_about_texts.py [--questions 60] [--words 400] [--checkpoint …]

The questions have known answers: half are of manuals (what type a member has: the word in brackets
behind its name), half of plays (who speaks a line: the name in capitals above the verse). A text is
a stretch of a test document of so many words, which fits into 2,048 tokens, with a question
whose evidence stands at a random place. An answer is right if it holds the wanted word and no other
word that some question of its kind wants.

`whole` and `retrieved`: what `ask` answers after the whole text and after its best passages.
`passage`: the passage that BM25 ranks first, as an answer: it is right if the wanted word is the
first of the wanted words in it. `lead`: the same of the text's first passage. `evidence`: whether
the wanted passage is among the three that `ask` shows.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import table
from matplotlib.axes import Axes

from farcontext import files
from farcontext.checkpoints import ask, load
from farcontext.checkpoints.probing import machine
from farcontext.data.corpus import load_documents
from farcontext.measure.stats import wilson

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "build" / "corpus"
CONTEXT, NEW = 2048, 16
MEMBER = re.compile(r"^(\w{6,}) \((string|integer|boolean|list|structure|timestamp|map)\b", re.M)
SPEECH = re.compile(r"^\*\*([A-Z][A-Z ]{2,20})\*\*\s*\n((?:[A-Za-z',;-]+ ){4,}[A-Za-z',;-]+)", re.M)
QUESTIONS = {
    "manuals": "What type is {asked}: string, integer, boolean, list, structure, timestamp or map?",
    "plays": "Who says: “{asked}”?",
}
PATTERNS = {"manuals": MEMBER, "plays": SPEECH}
ARMS = ("whole", "retrieved", "passage", "lead", "evidence")


def asked(domain: str, count: int, size: int) -> Iterator[tuple[str, str, str, str, list[str]]]:
    """Yield (text, thing asked for, question, wanted, what questions of this text may want)."""
    rng = np.random.default_rng(0)
    texts = [document.text for document in load_documents(CORPUS, "test", domain)]
    made = 0
    for text in cycle(texts):
        if made == count:
            return
        words = list(re.finditer(r"\S+\s*", text))
        start = int(rng.integers(max(1, len(words) - size)))
        first = text.find("\n", words[start].start()) + 1
        last = words[min(start + size, len(words) - 1)].start()
        part = text[first:last]
        found = [
            pair
            for pair in (match.groups() for match in PATTERNS[domain].finditer(part))
            if part.count(pair[0 if domain == "manuals" else 1]) == 1
        ]
        others = sorted({pair[1 if domain == "manuals" else 0] for pair in found})
        if len(others) < 2:
            continue  # Some stretches have nothing to ask.
        wanted = others[int(rng.integers(len(others)))]  # Each answer is wanted as often.
        same = [pair for pair in found if wanted == pair[1 if domain == "manuals" else 0]]
        name, value = same[int(rng.integers(len(same)))]
        thing = name if domain == "manuals" else value
        yield part, thing, QUESTIONS[domain].format(asked=thing), wanted, others
        made += 1


def right(said: str, wanted: str, others: Sequence[str]) -> bool:
    """Return whether the first of the words that are known in what is said is the wanted one."""
    places = {word: said.lower().find(word.lower()) for word in others}
    named = [word for word, place in places.items() if place >= 0]
    return bool(named) and min(named, key=lambda word: (places[word], -len(word))) == wanted


def main() -> None:
    """Ask, print a row an arm and kind, and write the table beside the others."""
    parser = table.parser_of(__file__, __doc__)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--words", type=int, default=400)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "build" / "smollm2")
    given = parser.parse_args()
    loaded = machine.loaded(given.checkpoint, "auto", "auto")
    rows = []
    for domain in PATTERNS:
        for number, one in enumerate(asked(domain, given.questions // 2, given.words)):
            found = answers(loaded, *one)
            print(domain, number, *(f"{row['arm']} {row['right']:d}" for row in found), flush=True)
            rows += [{"texts": domain, "question": number} | row for row in found]
    scores = pd.DataFrame(rows)
    shown = []
    for (texts, arm), part in scores.groupby(["texts", "arm"], sort=False):
        share = wilson(int(part["right"].sum()), len(part))
        row = {"texts": texts, "arm": arm, "right": share.estimate}
        shown.append(row | {"low": share.low, "high": share.high, "questions": len(part)})
    table.save(shown, given.out, draw)
    print(pd.DataFrame(shown).to_string(index=False, float_format="%.2f"))


def answers(
    loaded: load.Pretrained,
    text: str,
    thing: str,
    question: str,
    wanted: str,
    others: list[str],
) -> list[dict[str, object]]:
    """Return a row an arm: whether it is right."""
    with tempfile.TemporaryDirectory() as folder:
        path = files.write_atomic(Path(folder) / "text.txt", text)
        prompts = ask.prompts_of(loaded, path, question, CONTEXT, NEW)
    said = {"whole": "", "retrieved": ""}
    for name, prompt in zip(("whole", "retrieved"), prompts, strict=False):
        said[name] = "".join(ask.write(loaded, prompt.ids, NEW, one_line=True))
    ranked = prompts[0].ranked
    said["passage"] = ranked[0].text if ranked else ""
    said["lead"] = min(prompts[0].read, key=lambda passage: passage.first).text
    found = {arm: right(words, wanted, others) for arm, words in said.items()}
    found["evidence"] = any(thing in passage.text for passage in ranked[: ask.SHOWN])
    return [{"arm": arm, "right": found[arm]} for arm in ARMS]


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw the share of right answers, by arm and kind of text."""
    for texts, part in frame.groupby("texts"):
        error = [part["right"] - part["low"], part["high"] - part["right"]]
        axis.errorbar(part["arm"], part["right"], yerr=error, fmt="o", capsize=3, label=texts)
    axis.set(ylabel="share right", ylim=(0, 1))
    axis.legend(frameon=False)


if __name__ == "__main__":
    main()
