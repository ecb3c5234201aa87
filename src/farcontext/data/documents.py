"""Documents, their near-duplicates and their splits.

Near-duplicates are removed, and documents are split by work, so that nothing leaks.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farcontext import files
from farcontext.data.config import Corpus
from farcontext.files import UserError

SHINGLE = 5  # A shingle has so many words.
PERMUTATIONS = 128  # MinHash takes so many permutations.


@dataclass(frozen=True)
class Document:
    """One text with its provenance."""

    id: str  # It is the sha256 of the text.
    domain: str
    language: str
    title: str
    group: str  # It is the work that the text belongs to: no group lies in two splits.
    source: str
    licence: str
    text: str


def shingles(text: str) -> np.ndarray:
    """Return the distinct hashes of runs of SHINGLE words, uint32.

    A Chinese character is a word.
    """
    words = re.findall(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+", text.lower())
    codes = {
        word: int.from_bytes(hashlib.sha256(word.encode("utf-8")).digest()[:8], "little")
        for word in set(words)
    }
    hashes = np.array([codes[word] for word in words], dtype=np.uint64)
    width = min(SHINGLE, len(hashes))
    mixed = np.zeros(max(0, len(hashes) - width + 1), dtype=np.uint64)
    for k in range(width):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + hashes[k : k + len(mixed)]
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def remove_duplicates(
    documents: Sequence[Document], threshold: float
) -> tuple[list[Document], Counter]:
    """Return the documents without near-duplicates, and the counts of those removed.

    No two documents that stay are equal or have Jaccard similarity above the threshold. They are
    taken in order of id, so the same ones stay whatever order they came in. MinHash proposes the
    pairs (Broder 1997); the similarity of a proposed pair is then computed exactly, on all its
    shingles.
    """
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(
        threshold=min(0.95, max(0.1, threshold - 0.1)), num_perm=PERMUTATIONS, weights=(0.1, 0.9)
    )
    kept: dict[str, Document] = {}
    seen: dict[str, np.ndarray] = {}
    ordered = sorted(documents, key=lambda d: (d.id, d.group, d.title, d.source), reverse=True)
    # The first by name of equal documents stays.
    different = {document.id: document for document in ordered}
    removed = Counter(exact=len(documents) - len(different), near=0)
    for document in sorted(different.values(), key=lambda d: d.id):
        mine = shingles(document.text)
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)
        for start in range(0, len(mine), 1 << 15):
            sketch.update_batch(mine[start : start + (1 << 15)].tolist())
        shared = [
            (len(np.intersect1d(mine, seen[k], assume_unique=True)), len(seen[k]))
            for k in lsh.query(sketch)
        ]
        if any(both > threshold * (len(mine) + size - both) for both, size in shared):
            removed["near"] += 1
            continue
        kept[document.id] = document
        if len(mine):
            seen[document.id] = mine
            lsh.insert(document.id, sketch)
    return list(kept.values()), removed


def group_hash(documents: Sequence[Document]) -> str:
    """Return the sha256 over the sorted ids of a group's documents."""
    return files.sha256_json(sorted(document.id for document in documents))


def split_of(documents: Sequence[Document], config: Corpus) -> dict[str, str]:
    """Return document id → split, for one domain.

    The groups in order of their hash: the first round(share · groups), at least one, are the test
    split, the next ones validation, the rest train. By rank, not by a threshold on the hash: so no
    split is empty and the shares hold even for twelve groups. A new document changes its own group;
    of the others it moves at most one across each of the two boundaries.

    Raises:
        UserError: too few groups for three splits.
    """
    groups: dict[str, list[Document]] = {}
    for document in documents:
        groups.setdefault(document.group, []).append(document)
    ordered = sorted(groups.values(), key=group_hash)
    test = max(1, round(config.test_share * len(ordered)))
    validation = max(1, round(config.validation_share * len(ordered)))
    if test + validation >= len(ordered):
        raise UserError(
            f"corpus: domain {documents[0].domain}: {len(ordered)} independent works, test_share = "
            f"{config.test_share}, validation_share = {config.validation_share}: "
            "expected at least one for each split"
        )
    names = (
        ["test"] * test
        + ["validation"] * validation
        + ["train"] * (len(ordered) - test - validation)
    )
    return {d.id: name for name, group in zip(names, ordered, strict=True) for d in group}
