"""The tokenizer makes exact round trips, and no special token from text.

It learns from the training split only, and its files match their card.
"""

import json
import re
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from farcontext import files
from farcontext.data import tokenizer
from farcontext.data.config import Tokenizer
from farcontext.data.corpus import SPLITS, load_documents
from farcontext.data.documents import Document
from farcontext.files import UserError
from farcontext.schema import BOS, EOS, MASK, PAD, SPECIAL

CONFIG = Tokenizer(vocab_size=310, characters=4000)


def write_corpus(folder: Path, texts: dict[str, dict[str, list[str]]]) -> Path:
    """Write a corpus folder as `build_corpus` does: split → domain → texts."""
    for split in SPLITS:
        rows = [
            {
                "id": f"{split}{domain}{i}",
                "domain": domain,
                "language": "en",
                "title": "",
                "group": "",
                "source": "s",
            }
            | {"licence": "", "text": text}
            for domain, found in texts[split].items()
            for i, text in enumerate(found)
        ]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files.write_atomic(folder / f"{split}.jsonl", "".join(lines))
    files.write_json(folder / "card.json", {"fingerprint": "f"})
    return folder


def texts(test: str = "unseen zebra") -> dict[str, dict[str, list[str]]]:
    english = [f"the king and the queen of chapter {i}\n" * 30 for i in range(3)]
    chinese = ["却说玄德与关公张飞引军来投朱儁。\n" * 40]
    return {
        "train": {"en": english, "zh": chinese},
        "validation": {"en": ["a king\r\n"], "zh": ["玄德"]},
        "test": {"en": [test], "zh": ["关公\u2028"]},
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tokenizer")
    tokenizer.build_tokenizer(CONFIG, write_corpus(base / "corpus", texts()), base / "out")
    return base


@pytest.fixture(scope="module")
def bpe(built: Path) -> tokenizer.BPETokenizer:
    return tokenizer.load_tokenizer(built / "out")


PIECES = st.sampled_from([*SPECIAL, " ", "\u2028", "\x00", "\r\n", "好", "the king"])


@given(st.text(max_size=60) | st.lists(PIECES, max_size=8).map("".join))
@example("[PAD][MASK] [BOS]a[EOS]\ufeff\x85\U0001f600\u0301")
@example("  leading, trailing \n\n ")
@settings(max_examples=300, deadline=None)
def test_decoding_returns_the_text(bpe: tokenizer.BPETokenizer, text: str) -> None:
    ids = bpe.encode(text).ids
    assert bpe.decode(ids) == text
    assert all(i >= len(SPECIAL) for i in ids)
    assert tokenizer.token_bytes(bpe)[ids].sum() == len(text.encode("utf-8"))


SPACES = st.sampled_from(
    [
        " ",
        "\n",
        "\r",
        "\t",
        "\u2028",
        "\x85",
        "\u00a0",
        "\u3000",
        "\x1c",
        "'",
        "s",
        "a",
        "1",
        "好",
        "\u0301",
    ]
)


@given(st.lists(SPACES | st.characters(codec="utf-8"), max_size=30).map("".join))
@example("a  b\n\n c's  \n d \x1c e")
@settings(max_examples=300, deadline=None)
def test_a_text_in_pieces_has_the_ids_of_the_whole(bpe: tokenizer.BPETokenizer, text: str) -> None:
    """Cut wherever it may be cut; twin: cut in the middle of words, the ids are others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "PIECE", 1)
        assert "".join(tokenizer._pieces(text)) == text
        found = np.concatenate(list(tokenizer.encode(bpe, text)))
        assert found.tolist() == [*bpe.encode(text).ids, EOS]
        patch.setattr(tokenizer, "BREAK", re.compile(""))
        assert np.concatenate(list(tokenizer.encode(bpe, "the king"))).tolist() != [
            *bpe.encode("the king").ids,
            EOS,
        ]


def test_a_token_file_is_what_numpy_writes(tmp_path: Path) -> None:
    for length in (0, 7, 10**5):
        np.save(tmp_path / "whole.npy", np.zeros(length, dtype=np.uint16))
        assert (
            tokenizer._header(length) + bytes(2 * length) == (tmp_path / "whole.npy").read_bytes()
        )
    assert len(tokenizer._header(0)) == len(tokenizer._header(10**15))


def peak_of(corpus: Path, out: Path) -> int:
    """Return the most bytes that Python held at once while a corpus was encoded."""
    tracemalloc.start()
    try:
        tokenizer.build_tokenizer(Tokenizer(vocab_size=280, characters=4000), corpus, out)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch) -> None:
    """Memory is counted in bytes that Python holds.

    Twin: with each split's documents read at once, it grows.
    """
    page = "the king and the queen of many a chapter\n" * 2000
    corpora = {}
    for count in (4, 40):
        made = {"train": {"en": [f"{i} {page}" for i in range(count)]}}
        corpora[count] = write_corpus(
            tmp_path / str(count), made | {"validation": {"en": ["a"]}, "test": {"en": ["b"]}}
        )
    peak_of(corpora[4], tmp_path / "warm")
    small, large = (peak_of(corpora[count], tmp_path / "out") for count in (4, 40))
    assert large < 1.2 * small
    monkeypatch.setattr(tokenizer, "each_document", load_documents)
    assert peak_of(corpora[40], tmp_path / "out") > 2 * large


def test_specials_have_the_first_ids(bpe: tokenizer.BPETokenizer) -> None:
    assert (PAD, MASK, BOS, EOS) == (0, 1, 2, 3)
    assert [bpe.id_to_token(i) for i in range(4)] == ["[PAD]", "[MASK]", "[BOS]", "[EOS]"]
    assert bpe.get_vocab_size() == CONFIG.vocab_size
    assert bpe.decode([EOS, *bpe.encode("king").ids, PAD]) == "king"


def test_training_is_deterministic_and_sees_the_training_split_alone(
    built: Path, tmp_path: Path
) -> None:
    other = write_corpus(tmp_path / "corpus", texts(test="something else " * 500))
    tokenizer.build_tokenizer(CONFIG, other, tmp_path / "out")
    wrote = (tmp_path / "out" / "tokenizer.json").read_bytes()
    assert wrote == (built / "out" / "tokenizer.json").read_bytes()
    changed = texts()
    changed["train"]["en"][0] = "something else " * 500
    tokenizer.build_tokenizer(CONFIG, write_corpus(tmp_path / "corpus", changed), tmp_path / "out")
    assert wrote != (tmp_path / "out" / "tokenizer.json").read_bytes()


def test_each_domain_gives_at_most_its_characters() -> None:
    documents = [
        Document("", d, "", "", "", "", "", text)
        for d, text in (("a", "x" * 90), ("b", "y"), ("a", "x" * 90))
    ]
    sample = "".join(tokenizer._sample(documents, 100))
    assert sample.count("x") == 100 and sample.count("y") == 1


def test_files_hold_every_document_and_agree_with_the_card(
    built: Path, bpe: tokenizer.BPETokenizer
) -> None:
    card = files.read_json(built / "out" / "card.json")
    lengths = np.load(built / "out" / "token_bytes.npy", allow_pickle=False)
    assert lengths.dtype == np.int64 and len(lengths) == card["vocab_size"] == 310
    for split, domains in texts().items():
        for domain, found in domains.items():
            tokens = np.load(
                built / "out" / f"{split}-{domain}.npy", mmap_mode="r", allow_pickle=False
            )
            offsets = np.load(built / "out" / f"{split}-{domain}.offsets.npy", allow_pickle=False)
            assert tokens.dtype == np.uint16 and offsets.dtype == np.int64
            pieces = [tokens[a:b] for a, b in pairwise(offsets)]
            assert all(piece[-1] == EOS for piece in pieces) and (tokens == EOS).sum() == len(found)
            assert [bpe.decode(piece.tolist()) for piece in pieces] == found
            size = sum(len(text.encode("utf-8")) for text in found)
            assert lengths[tokens].sum() == size
            counted = card["domains"][domain][split]
            assert counted["tokens"] == len(tokens) and counted["documents"] == len(found)
            assert counted["bytes_per_token"] == pytest.approx(
                size / (len(tokens) - len(found)), abs=1e-4
            )


def test_fingerprint_follows_corpus_and_merges(built: Path, tmp_path: Path) -> None:
    first = files.read_json(built / "out" / "card.json")["fingerprint"]
    same = tokenizer.build_tokenizer(CONFIG, built / "corpus", tmp_path / "a")["fingerprint"]
    smaller = tokenizer.build_tokenizer(
        Tokenizer(vocab_size=300, characters=4000), built / "corpus", tmp_path / "b"
    )["fingerprint"]
    moved = write_corpus(tmp_path / "corpus", texts())
    files.write_json(moved / "card.json", {"fingerprint": "g"})
    other = tokenizer.build_tokenizer(CONFIG, moved, tmp_path / "c")["fingerprint"]
    assert first == same and len({first, smaller, other}) == 3


@pytest.mark.parametrize(
    ("size", "message"), [(70_000, "expected at most 65536"), (5000, "all that this text gives")]
)
def test_a_vocabulary_that_cannot_be_is_one_line(
    size: int, message: str, built: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"vocab_size = {size}: ") as error:
        tokenizer.build_tokenizer(
            Tokenizer(vocab_size=size, characters=4000), built / "corpus", tmp_path / "out"
        )
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_missing_or_damaged_tokenizer_is_one_line(built: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json: expected a file here"):
        tokenizer.load_tokenizer(tmp_path)
    whole = (built / "out" / "tokenizer.json").read_text(encoding="utf-8")
    files.write_atomic(tmp_path / "tokenizer.json", whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"tokenizer\.json: expected a tokenizer") as error:
        tokenizer.load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_real_tokens_are_the_real_text(corpus_folder: Path, tokenizer_folder: Path) -> None:
    card = files.read_json(tokenizer_folder / "card.json")
    assert card["corpus"] == files.read_json(corpus_folder / "card.json")["fingerprint"]
    assert card["vocab_size"] == tokenizer.vocabulary_size(tokenizer_folder)
    bpe = tokenizer.load_tokenizer(tokenizer_folder)
    for domain in card["domains"]:
        documents = load_documents(corpus_folder, "validation", domain)
        encoded = [
            np.concatenate(list(tokenizer.encode(bpe, document.text))) for document in documents
        ]
        tokens, offsets = np.concatenate(encoded), np.cumsum([0, *map(len, encoded)])
        assert [bpe.decode(tokens[a:b].tolist()) for a, b in pairwise(offsets)] == [
            document.text for document in documents
        ]
        stored = np.load(
            tokenizer_folder / f"validation-{domain}.npy", mmap_mode="r", allow_pickle=False
        )
        assert np.array_equal(stored, tokens)
        assert 1.5 < card["domains"][domain]["test"]["bytes_per_token"] < 5
