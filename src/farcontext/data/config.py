"""Which texts become a corpus, and how a tokenizer is made, as configuration. Importable without torch."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from farcontext.schema import Count, Frozen, Share


class Dataset(Frozen):
    """A Hugging Face data set, streamed: the first documents up to both limits, in the data set's own order."""

    path: str  # a name on the hub, a folder, or a format with `files`: parquet, json, text, …
    name: str | None = None  # the data set's configuration
    files: Annotated[tuple[str, ...], Field(strict=False)] = ()  # patterns, for a format
    split: str = "train"
    column: str = "text"
    revision: str | None = None  # a commit of the hub: the same text tomorrow
    documents: Count = 100_000
    characters: Count = 100_000_000


class Corpus(Frozen):
    """Stage `corpus`: which sources become documents, and how they are split."""

    sources: Annotated[tuple[str, ...], Field(strict=False)]  # may be empty when one of the next two is given
    folder: str | None = None  # your own .txt, .md, .jsonl and .parquet files, added as one more source
    dataset: Dataset | None = None  # one more source
    manuals: Count  # characters of API manuals kept (whole documents, by hash order)
    test_share: Share
    validation_share: Share
    near_duplicate: Share  # Jaccard similarity above which two documents count as one
    skip_bad: bool = False  # skip a file that is not UTF-8 instead of stopping

    @model_validator(mode="after")
    def _some_text(self) -> Self:
        if not self.sources and self.folder is None and self.dataset is None:
            raise ValueError("sources = [], folder = null: expected at least one source, a folder or a dataset")
        return self


class Tokenizer(Frozen):
    """Stage `tokenizer`: byte-level BPE on the training split."""

    vocab_size: Annotated[int, Field(ge=261)]
    characters: Count  # of each domain's training text that the merges are learned from
