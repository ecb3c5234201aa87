"""The text that a probe hides needles in and measures losses on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farcontext import files
from farcontext.checkpoints.load import Pretrained, embeddings
from farcontext.checkpoints.questions import encoder
from farcontext.data.corpus import EXTENSIONS, load_documents, read_text
from farcontext.files import UserError

WINDOWS = 4  # So many pieces of text give the losses.
TARGETS = 128  # So many tokens are scored after true and after foreign text.


@dataclass(frozen=True)
class Text:
    """Documents to hide needles in and to predict.

    They are the texts, their ids, and words for where they come from.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    source: str


def read(pretrained: Pretrained, path: Path | None) -> Text:
    """Return the documents of a file or a folder's files.

    Without a path, they are the plays of the corpus's test split.

    Raises:
        UserError: nothing there to read.
    """
    if path is None:
        folder = files.project() / "build" / "corpus"
        if not (folder / "test.jsonl").is_file():
            raise UserError(
                f"{folder}: expected the corpus (`dvc repro corpus` makes it), or your own: "
                "--text FILE"
            )
        texts, source = (
            [d.text for d in load_documents(folder, "test", "plays")],
            "plays of the test split",
        )
    else:
        kinds = EXTENSIONS[:2]
        if not path.exists():
            raise UserError(
                f"{path}: expected a text file, or a folder of {', '.join(kinds)} files"
            )
        inside = (
            sorted(p for p in path.rglob("*") if p.suffix in kinds and p.is_file())
            if path.is_dir()
            else [path]
        )
        texts, source = [read_text(p) for p in inside], str(path)
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UserError(f"{source}: expected prose, found no text")
    encode = encoder(pretrained.tokenizer, embeddings(pretrained.model))
    return Text(tuple(texts), tuple(tuple(encode(text)) for text in texts), source)


def windows(documents: Sequence[Sequence[int]], length: int) -> list[tuple[int, ...]]:
    """Return about WINDOWS pieces of `length` ids from long documents.

    They come evenly from the documents that are long enough, round after round, so that each one's
    next (the last one's: the first) is of another document if there are two.
    """
    fitting = [ids for ids in documents if len(ids) >= length][:WINDOWS]
    rounds = WINDOWS // len(fitting) if fitting else 0
    starts = [
        (ids, round((turn + 0.5) / rounds * (len(ids) - length)))
        for turn in range(rounds)
        for ids in fitting
    ]
    return [tuple(ids[start : start + length]) for ids, start in starts]


def far_lengths(longest: int) -> tuple[int, list[int]]:
    """Return how many tokens are scored, and lengths doubling to the longest."""
    targets = min(TARGETS, longest // 4)
    doubled = [targets * 2**k for k in range(1, 20) if targets * 2**k < longest]
    return targets, [*doubled, longest]
