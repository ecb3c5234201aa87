"""The configuration of a corpus and of its tokenizer.

It says which texts become a corpus, and how a tokenizer is made. This module can be imported
without torch.
"""

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from farcontext.schema import Count, Frozen, Share

# The name of a source or a domain becomes that of a folder or a file.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Dataset(Frozen):
    """A streamed Hugging Face data set and its limits.

    The first documents up to both limits are read, in the data set's own order.
    """

    # It is a name on the hub, a folder, or a format with `files` (parquet, json, text, …).
    path: str
    name: str | None = None  # It names the data set's configuration.
    # The files of a format match these patterns.
    files: Annotated[tuple[str, ...], Field(strict=False)] = ()
    split: str = "train"
    column: str = "text"
    revision: str | None = None  # A commit of the hub gives the same text tomorrow.
    documents: Count = 100_000
    characters: Count = 100_000_000


class Corpus(Frozen):
    """Stage `corpus`: which sources become documents, and how they are split."""

    # The list may be empty when one of the next two is given.
    sources: Annotated[
        tuple[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], ...], Field(strict=False)
    ]
    # Your own .txt, .md, .jsonl and .parquet files are added as one more source.
    folder: str | None = None
    dataset: Dataset | None = None  # It is one more source.
    manuals: Count  # So many characters of API manuals are kept (whole documents, by hash order).
    test_share: Share
    validation_share: Share
    near_duplicate: Share  # Above this Jaccard similarity two documents count as one.
    # If true, a file that is not UTF-8 is skipped, and the stage does not stop.
    skip_bad: bool = False

    @model_validator(mode="after")
    def _some_text(self) -> Self:
        if not self.sources and self.folder is None and self.dataset is None:
            raise ValueError(
                "sources = [], folder = null: expected at least one source, a folder or a dataset"
            )
        return self


class Tokenizer(Frozen):
    """Stage `tokenizer`: byte-level BPE on the training split."""

    vocab_size: Annotated[int, Field(ge=261)]
    # The merges are learned from so many characters of each domain's training text.
    characters: Count
