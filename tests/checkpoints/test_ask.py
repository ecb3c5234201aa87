"""ask and continue: what is read of a text, what is said below an answer, and what cannot be."""

import math
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from farcontext.checkpoints import ask, load
from farcontext.checkpoints.load import Pretrained
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.measure import retrieval

TEXT = (
    "The house.\n\n"
    + "\n\n".join(f"Room {n} is empty.\nIts window is shut." for n in range(40))
    + "\n\nThe lamp is in the mill.\n"
)


@pytest.fixture(scope="module")
def loaded(tiny_project: Path) -> Pretrained:
    """A Llama of random weights with a real tokenizer, 256 positions."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=tiny.VOCABULARY, max_position_embeddings=256, **sizes, **ids)
    tokenizer = load.wrapped(load_tokenizer(tiny_project / "build" / "tokenizer"))
    return Pretrained(
        AutoModelForCausalLM.from_config(config).eval(), tokenizer, "tiny", Path("tiny")
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "house.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_passages_are_the_paragraphs_with_their_lines() -> None:
    found = retrieval.passages(TEXT)
    lines = TEXT.splitlines()
    assert len(found) == 42
    for passage in found:
        assert "\n".join(lines[passage.first - 1 : passage.last]) == passage.text
    assert [passage.depth for passage in found] == sorted(passage.depth for passage in found)


@pytest.mark.parametrize("end", ["\n", " "])
def test_a_long_paragraph_is_cut_and_nothing_of_it_is_lost(end: str) -> None:
    text = "Start.\n\n" + "".join(f"word{n}{end if n % 9 == 8 else ' '}" for n in range(500))
    found = retrieval.passages(text)
    assert all(len(passage.text.split()) <= retrieval.PASSAGE for passage in found)
    assert " ".join(passage.text for passage in found).split() == text.split()
    assert len(found) < 9
    if end == "\n":
        lines = text.splitlines()
        for passage in found:
            assert "\n".join(lines[passage.first - 1 : passage.last]).strip() == passage.text


def test_a_text_that_fits_is_read_whole_and_of_a_longer_one_the_best_passages(
    loaded: Pretrained, file: Path
) -> None:
    short = file.with_name("short.txt")
    short.write_text("One.\n\nTwo.", encoding="utf-8")
    whole = ask.prompt_of(loaded, short, "What is one?", 256, 20)
    assert whole.why == "all" and [passage.text for passage in whole.read] == ["One.", "Two."]
    part = ask.prompt_of(loaded, file, "Where is the lamp?", 256, 20)
    assert part.why == "the passages that BM25 ranks highest"
    assert part.read[-1].text == "The lamp is in the mill."
    assert len(part.ids) + 20 <= 256
    assert [passage.first for passage in part.read] == sorted(
        passage.first for passage in part.read
    )
    asked = loaded.tokenizer.decode(part.ids)
    assert asked.endswith("\nQuestion: Where is the lamp?\nAnswer:")
    assert "lamp is in the mill" in asked and "lamp is in the mill" not in loaded.tokenizer.decode(
        part.without
    )


@pytest.mark.parametrize("question", ["谁？", "???", "a", "Where are unicorns?"])
def test_a_question_that_shares_no_word_with_the_text_reads_its_beginning(
    loaded: Pretrained, file: Path, question: str
) -> None:
    prompt = ask.prompt_of(loaded, file, question, 256, 20)
    assert prompt.read[:5] == retrieval.passages(TEXT)[:5]
    assert "no passage shares a word" in ask.report(loaded, file, prompt, "")[0]


def test_what_is_written_is_transformers_own_text_and_a_seed_repeats_it(
    loaded: Pretrained, file: Path
) -> None:
    ids = ask.end_of(loaded, file, 128, 12)
    assert len(ids) == 116
    assert TEXT.endswith(loaded.tokenizer.decode(ids, skip_special_tokens=True))
    prompt = torch.tensor([ids])
    expected = loaded.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
    )
    assert "".join(ask.write(loaded, ids, 12)) == loaded.tokenizer.decode(
        expected[0, 116:], skip_special_tokens=True
    )
    first, again, other = ("".join(ask.write(loaded, ids, 12, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_the_cost_of_an_answer_is_the_models_loss(loaded: Pretrained) -> None:
    ids, answer = [2, 10, 11, 12], [20, 21]
    logits = loaded.model(torch.tensor([[*ids, *answer]])).logits[0].log_softmax(-1)
    expected = -(logits[3, 20] + logits[4, 21]) / 2
    assert math.isclose(ask.cost_of(loaded, ids, answer), expected.item(), rel_tol=1e-5)


def test_the_report_points_to_the_passage_that_holds_the_answers_words(
    loaded: Pretrained, file: Path
) -> None:
    prompt = ask.prompt_of(loaded, file, "Where is the lamp?", 256, 20)
    lines = ask.report(loaded, file, prompt, "The lamp, the mill")
    last = TEXT.rstrip("\n").count("\n") + 1
    assert lines[1].startswith(f"lines {last}–{last} (")
    assert "100% of the answer's words" in lines[1]
    assert "the mill" in lines[1]
    assert "with the text" in lines[-2] and "tiny" in lines[-1]


@pytest.mark.parametrize(
    ("text", "question", "sizes", "line"),
    [
        (None, "Who?", (128, 10), "expected a text file here"),
        (" \n", "Who?", (128, 10), "expected some text"),
        ("Text.", " ", (128, 10), "question: expected some words"),
        ("Text.", "Who?", (32, 10), "context = 32: expected 64 to 256"),
        ("Text.", "Who?", (300, 10), "context = 300: expected 64 to 256"),
        ("word " * 100, "Who?", (64, 60), "expected room for a passage"),
    ],
)
def test_what_cannot_be_is_one_line(
    loaded: Pretrained,
    tmp_path: Path,
    text: str | None,
    question: str,
    sizes: tuple[int, int],
    line: str,
) -> None:
    path = tmp_path / "text.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=line):
        ask.prompt_of(loaded, path, question, *sizes)


def test_a_continuation_needs_room_for_itself(loaded: Pretrained, file: Path) -> None:
    with pytest.raises(UserError, match="expected more than the 128 tokens to write"):
        ask.end_of(loaded, file, 128, 128)
