"""`farcontext realtext` runs on made-up files of each format.

The tests hold what is read and what is scored, and that nothing unverified is.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from commands import call
from observe import one_line, refuses
from transformers import AutoModelForCausalLM, LlamaConfig

from farcontext import files
from farcontext.checkpoints import load
from farcontext.data.tokenizer import load_tokenizer
from farcontext.results import tables
from farcontext.studies.realtext import protocol, texts
from farcontext.studies.realtext import study as realtext
from farcontext.studies.summarization import real

SIZES = {
    "questions": 3,
    "asked": 2,
    "documents": 3,
    "read": 2,
    "length": 24,
    "sentences": 1,
    "translated": 2,
    "contexts": [1, 2],
}


def drcd_article(name: str, year: int) -> dict:
    answer = {"text": f"{year}年", "answer_start": 8}
    asked = [{"question": f"{name}哪一年建成？", "answers": [answer, answer]}]
    return {
        "paragraphs": [
            {"context": f"{name}是一座橋。{name}於{year}年建成；很長。今天仍在使用。", "qas": asked}
        ]
    }


def story(name: str) -> dict:
    text = (
        f"{name}\n \n\n Once there was a  sailor {name}. "
        "He lost a very old ship. Then he found another one."
    )
    first = {
        "responses": [
            {"response_text": f"The sailor {name} loses it."},
            {"response_text": f"{name} finds a ship."},
        ]
    }
    return {"document": text, "questions": [first, {"responses": [{"response_text": "no"}]}]}


def meeting(name: str) -> dict:
    said = [
        {"speaker": name, "content": "We  talk about one remote control today ."},
        {"speaker": "B", "content": "Yes ."},
    ]
    return {
        "meeting_transcripts": said,
        "general_query_list": [{"query": "?", "answer": f"{name} spoke of a control."}],
    }


FILES = {
    "drcd": json.dumps(
        {
            "data": [
                drcd_article("金門橋", 1937),
                drcd_article("倫敦塔橋", 1894),
                drcd_article("錢塘江大橋", 1937),
            ]
        }
    ),
    "squality_dev": "".join(json.dumps(story(name)) + "\n" for name in ("Ann", "Bob", "Cid")),
    "qmsum": "".join(json.dumps(meeting(name)) + "\n" for name in ("Ann", "Bob")),
    "ntrex_documents": "a\na\na\na\nb\nb\nb\n",
    "ntrex_en": "".join(f"Sentence {n}.\n" for n in range(7)),
    "ntrex_de": "".join(
        f"Satz\u2028{n}.\n" for n in range(7)
    ),  # a line of some kind, that ends none here
    "ntrex_fr": "".join(f"Phrase {n}.\n" for n in range(7)),
    "ntrex_zh": "".join(f"句子{n}。\n" for n in range(7)),
    "tatoeba": "\ufeffHi.\t嗨。\tby x\nHi.\t你好。\tby y\n"
    + "".join(f"Run {n}.\t跑{n}。\tby z\n" for n in range(12))
    + "\n",
}


@pytest.fixture
def mirror(tmp_path: Path, tiny_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the files, in a project that names them.

    The working folder is that project; it names the files by hash, and its addresses lead nowhere.
    """
    project, folder = tmp_path / "project", tmp_path / "mirror"
    shutil.copytree(tiny_project, project)
    entry = {"kind": "url", "title": "t", "domain": "d", "language": "en", "licence": "l"}
    entries = {}
    for name, text in FILES.items():
        files.write_atomic(folder / f"{name}.txt", text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        entries[name] = entry | {
            "url": f"https://{name}.invalid/",
            "path": f"{name}.txt",
            "sha256": digest,
        }
    files.write_json(project / "data" / "sources.yaml", entries)
    monkeypatch.chdir(project)
    monkeypatch.setenv("FARCONTEXT_DATA_MIRROR", str(folder))
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def checkpoint(mirror: Path) -> Path:
    """A random Llama in the place of the checkpoint, with the tiny project's tokenizer."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=tiny.VOCABULARY, **sizes))
    model.save_pretrained(protocol.CHECKPOINT)
    load.wrapped(load_tokenizer(Path("build/tokenizer"))).save_pretrained(protocol.CHECKPOINT)
    return Path(protocol.CHECKPOINT)


# -------------------------------------------------------------------------------------------- files


def test_a_question_keeps_its_paragraph_and_answers() -> None:
    (first,), (second,), _ = texts.read_drcd(FILES["drcd"])
    assert first.question == "金門橋哪一年建成？" and first.answers == ("1937年", "1937年")
    assert (
        second.paragraph.startswith("倫敦塔橋是一座橋。") and second.answers[0] in second.paragraph
    )


def test_stories_and_meetings_keep_their_summaries() -> None:
    first = texts.read_squality(FILES["squality_dev"].removesuffix("\n"))[0]
    assert first.text.startswith("Ann Once there was a sailor Ann. He lost")
    assert first.references == ("The sailor Ann loses it.", "Ann finds a ship.")
    first = texts.read_qmsum(FILES["qmsum"].removesuffix("\n"))[0]
    assert first.text == "Ann: We talk about one remote control today .\nB: Yes ."
    assert first.references == ("Ann spoke of a control.",)


def test_pairs_keep_their_documents_and_of_translations_the_first() -> None:
    long, short = texts.read_ntrex("a\na\nb", "One.\nTwo.\nThree.", "Eins.\nZw\u2028ei.\nDrei.")
    assert long == [("One.", "Eins."), ("Two.", "Zw\u2028ei.")] and short == [("Three.", "Drei.")]
    with pytest.raises(ValueError, match="zip"):
        texts.read_ntrex("a\na", "One.", "Eins.\nZwei.")
    assert texts.read_tatoeba("Hi.\t嗨。\tx\nHi.\t你好。\ty\nRun.\t跑。\tz") == [
        ("Hi.", "嗨。"),
        ("Run.", "跑。"),
    ]


def test_a_folder_serves_all_and_what_is_whole_is_not_fetched_again(mirror: Path) -> None:
    texts.fetch()
    assert {name: texts.text_of(name) for name in FILES} == {
        name: text.removeprefix("\ufeff").removesuffix("\n") for name, text in FILES.items()
    }
    assert not Path("build/sources/drcd").exists(), "the corpus's stage would be stale"
    shutil.rmtree(mirror)
    texts.fetch()


def test_what_is_missing_or_damaged_is_one_line_and_code_2(mirror: Path) -> None:
    files.write_atomic(mirror / "qmsum.txt", FILES["qmsum"][:-3])
    found = call(Path.cwd(), "realtext")
    assert found.code == 2
    one_line(
        found.err,
        "qmsum.txt: cannot be fetched",
        hashlib.sha256(FILES["qmsum"].encode()).hexdigest(),
    )
    (mirror / "qmsum.txt").unlink()
    found = call(Path.cwd(), "realtext")
    assert found.code == 2
    one_line(found.err, "qmsum: ", "qmsum.txt: expected a file here")


def test_a_file_that_was_damaged_later_is_not_read_and_is_fetched_again(mirror: Path) -> None:
    texts.fetch()
    path = Path("build/realtext/drcd/drcd.txt")
    files.write_atomic(path, "{}")
    with refuses(
        "drcd.txt: expected a file with sha256 = "
        f"{hashlib.sha256(FILES['drcd'].encode()).hexdigest()}"
    ):
        texts.text_of("drcd")
    texts.fetch()
    assert texts.text_of("drcd") == FILES["drcd"]


def test_the_repository_names_every_source(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for name in (name for names in texts.SOURCES.values() for name in names):
        assert len(texts.file_of(name)[1]) == 64


# ------------------------------------------------------------------------------------------- scores


def test_answers_are_compared_as_letters_and_digits() -> None:
    assert protocol.scores("「１９３７年」", ["1937 年"]) == {
        "exact": 1.0,
        "f1": 1.0,
        "contains": 1.0,
    }
    assert protocol.scores("於1937年", ["1894年", "1937年"]) == {
        "exact": 0.0,
        "f1": 10 / 11,
        "contains": 1.0,
    }
    assert protocol.scores("。", ["1937年"]) == {"exact": 0.0, "f1": 0.0, "contains": 0.0}


def test_baselines_find_what_they_should() -> None:
    ((asked,), *_) = texts.read_drcd(FILES["drcd"])
    for seed in range(5):
        found = protocol.baselines(asked, np.random.default_rng(seed))
        assert found["first"] == "金門橋是一座橋。"
        assert found["bm25"] == found["random"] == "金門橋於1937年建成；", (
            "the only sentence with a digit"
        )


def test_what_stands_before_is_of_the_document_or_of_another() -> None:
    documents = [[(f"{name}{n}", "") for n in range(6)] for name in "abc"]
    for last, before in protocol.of_documents(documents, 3, 2, np.random.default_rng(0)):
        name, number = last[0][0], int(last[0][1])
        assert [one for one, _ in before["true"]] == [f"{name}{number - 2}", f"{name}{number - 1}"]
        assert len(before["random"]) == 2 and name not in {one[0] for one, _ in before["random"]}
    for last, before in protocol.of_sentences(
        [pair for one in documents for pair in one], 4, 2, np.random.default_rng(0)
    ):
        assert len(before["random"]) == 2 and last not in before["random"]


def test_the_source_as_it_is_is_no_translation_into_chinese() -> None:
    assert protocol.copy_scores([("Same words here now", "Same words here now")], "de")[
        "bleu"
    ] == pytest.approx(100)
    assert protocol.copy_scores([("Other words", "句子")], "zh")["chrf"] == 0


# ------------------------------------------------------------------------------------------- tables


def test_every_arm_is_scored_on_the_same_tokens(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last tokens of every row of an item are the same.

    They are as many as are scored, and nothing moves between these and what is read.
    """
    seen: list[tuple[int, ...]] = []

    def watched(model: object, row: tuple[int, ...], last: int) -> torch.Tensor:
        seen.append((len(row), *row[-last:]))
        return torch.ones(last)

    monkeypatch.setattr(protocol, "token_losses", watched)
    monkeypatch.setattr(real, "token_losses", watched)
    texts.fetch()
    same = {"known": [], "seed": 0}
    for function, options, arms in (
        (protocol.answer, {"data": "drcd", "questions": 3, "asked": 2}, 3),
        (
            protocol.summarize,
            {"data": "squality", "documents": 3, "read": 2, "length": 24, "sentences": 1},
            3,
        ),
        (
            protocol.translate,
            {"data": "ntrex", "language": "de", "translated": 2, "contexts": [1, 2]},
            5,
        ),
        (
            protocol.translate,
            {"data": "tatoeba", "language": "zh", "translated": 1, "contexts": [2]},
            2,
        ),
    ):
        seen.clear()
        rows = [row for row in function(**options, **same) if row["metric"] == "loss"]
        assert len(rows) == len(seen) and len(rows) % arms == 0
        for start in range(0, len(seen), arms):
            assert len({scored[1:] for scored in seen[start : start + arms]}) == 1, options
            if arms == 3:
                true, other, none = (scored[0] for scored in seen[start : start + arms])
                assert true == other > none, (
                    "true and other differ in what is read alone, not in how much"
                )


def test_tables_are_written_whole_and_alike_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts.fetch()
    found = realtext.run(**SIZES)
    assert set(found) == {"question_answering", "summarization", "translation"}
    for study, table in found.items():
        path = tables.path_in(files.build("realtext"), study)
        pd.testing.assert_frame_equal(tables.read_table(path), table, check_dtype=False)
        assert table["value"].notna().all() and list(table.columns) == realtext.COLUMNS
    losses = found["translation"].query("metric == 'loss' and data == 'ntrex'")
    assert set(zip(losses["arm"], losses["context"], strict=True)) == {
        ("none", 0), ("true", 1), ("true", 2), ("random", 1), ("random", 2),
    }  # fmt: skip
    assert set(found["summarization"].query("arm == 'lead'")["metric"]) == {
        f"{name}{suffix}" for name in ("rouge1", "rouge2", "rougeL") for suffix in ("", "_wrong")
    }
    said = "\n".join(realtext.lines(found))
    assert all(f"{study}.csv" in said for study in found) and "tatoeba" in said
    before = {path.name: path.read_bytes() for path in files.build("realtext").rglob("*.csv")}
    monkeypatch.setenv("FARCONTEXT_CACHE", str(Path("elsewhere").resolve()))
    realtext.run(**SIZES)
    assert {
        path.name: path.read_bytes() for path in files.build("realtext").rglob("*.csv")
    } == before


def test_sizes_and_a_missing_checkpoint_are_one_line(mirror: Path) -> None:
    with refuses("questoins"):
        realtext.run(questoins=3)
    with refuses("model.safetensors: expected the checkpoint (dvc repro smollm2"):
        realtext.run()


@pytest.mark.parametrize("name", ["claims.yaml", "dvc.yaml"])
def test_no_verdict_and_no_stage_reads_the_tables(root: Path, name: str) -> None:
    assert "realtext" not in (root / name).read_text(encoding="utf-8")
