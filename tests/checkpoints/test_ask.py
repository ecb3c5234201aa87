"""ask and continue: what is read of a text, what is said below an answer, and what cannot be."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from rows import DYNAMIC, LONGROPE, plain, tiny_model
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
    assert whole.why == ask.WHOLE and [passage.text for passage in whole.read] == ["One.", "Two."]
    part = ask.prompt_of(loaded, file, "Where is the lamp?", 256, 20)
    assert part.why == ask.BEST
    assert part.read[-1].text == part.ranked[0].text == "The lamp is in the mill."
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


def test_the_report_points_to_the_passages_that_the_question_ranks(
    loaded: Pretrained, file: Path
) -> None:
    prompt = ask.prompt_of(loaded, file, "Where is the lamp?", 256, 20)
    # a wrong answer leads nobody to where its own words stand
    lines = ask.report(loaded, file, prompt, "Room 3 is empty, its window is shut")
    last = TEXT.rstrip("\n").count("\n") + 1
    assert lines[1].startswith(f"evidence 1: lines {last}–{last} (")
    assert lines[1].endswith("The lamp is in the mill.")
    assert "with the text" in lines[-2] and "tiny" in lines[-1]


@pytest.mark.parametrize(
    ("text", "question", "sizes", "line"),
    [
        (None, "Who?", (128, 10), "expected a text file here"),
        (" \n", "Who?", (128, 10), "expected some text"),
        ("Text.", " ", (128, 10), "question: expected some words"),
        ("Text.", "Who?", (32, 10), "context = 32: expected 64 or more"),
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


# ------------------------------------------------------------------------- chat, ends, two readings


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<me>"


def with_template(loaded: Pretrained, template: str) -> Pretrained:
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = template
    return replace(loaded, tokenizer=tokenizer)


def test_a_chat_template_frames_the_text_and_the_question(loaded: Pretrained, file: Path) -> None:
    chat = with_template(loaded, TEMPLATE)
    prompt = ask.prompt_of(chat, file, "Where is the lamp?", 256, 20)
    said = chat.tokenizer.decode(prompt.ids)
    assert said.startswith("<user>") and said.endswith("Where is the lamp?</user><me>")
    assert "The lamp is in the mill." in said and len(prompt.ids) + 20 <= 256
    assert "lamp is in the mill" not in chat.tokenizer.decode(prompt.without)
    with pytest.raises(UserError, match="its chat template fails"):
        ask.prompt_of(
            with_template(loaded, "{{ raise_exception('no user') }}"), file, "Who?", 256, 20
        )


def test_a_text_that_fits_is_read_whole_and_by_its_best_passages(
    loaded: Pretrained, tmp_path: Path
) -> None:
    path = tmp_path / "short.txt"
    path.write_text("\n\n".join(TEXT.split("\n\n")[-4:]), encoding="utf-8")
    whole, best = ask.prompts_of(loaded, path, "Where is the lamp?", 256, 20)
    assert (whole.why, best.why) == (ask.WHOLE, ask.BEST)
    assert len(whole.read) == 4 and [p.text for p in best.read] == ["The lamp is in the mill."]
    assert whole.ranked == best.ranked
    (alone,) = ask.prompts_of(loaded, path, "Who has unicorns?", 256, 20)
    assert alone.why == ask.WHOLE and alone.ranked == []


def test_a_context_is_cut_to_the_models_positions(loaded: Pretrained, file: Path) -> None:
    assert ask.limited(loaded, 10_000) == 256 and ask.limited(loaded, 100) == 100
    assert len(ask.prompt_of(loaded, file, "Where is the lamp?", 10_000, 20).ids) + 20 <= 256
    assert len(ask.end_of(loaded, file, 10_000, 20)) == 236


def test_dynamic_ntk_is_asked_as_far_as_its_factor_reaches(loaded: Pretrained, file: Path) -> None:
    keys = {"model_type": "llama", "max_position_embeddings": 64, "rope_parameters": DYNAMIC}
    dynamic = replace(loaded, model=tiny_model(keys))
    reach = int(64 * DYNAMIC["factor"])
    assert ask.limited(dynamic, 10_000) == reach > 64
    assert len(ask.end_of(dynamic, file, 10_000, 20)) == reach - 20


def test_every_token_that_ends_texts_ends_an_answer(loaded: Pretrained) -> None:
    model = copy.deepcopy(loaded.model)
    model.generation_config.eos_token_id = [3, 9]
    model.config.eos_token_id = 11
    some = replace(loaded, model=model)
    eos = loaded.tokenizer.eos_token_id
    assert ask.ends_of(some) == {3, 9, 11} | ({eos} if eos is not None else set())
    ids = [2, 10, 11, 12]
    first = model(torch.tensor([ids])).logits[0, -1].argmax().item()
    assert "".join(ask.write(some, ids, 4))
    model.generation_config.eos_token_id = [3, first]
    assert "".join(ask.write(some, ids, 4)) == ""
    assert ask.spoken(" \n") == ask.NO_ANSWER and ask.spoken(" Anna.") == "Anna."
    assert not any("nats" in line for line in ask.report(some, Path("x"), _prompt(ids), ""))


def _prompt(ids: list[int]) -> ask.Prompt:
    return ask.Prompt(ids, ids, [], ask.WHOLE, [])


def test_a_continuation_copies_no_stretch_of_what_stands_before(loaded: Pretrained) -> None:
    opening = list(range(20, 40))
    assert ask.copying([*opening, 50, *opening[:5]]) == [25]
    assert ask.copying([*opening, 50, *opening[:4]]) == []
    # a model that always goes on as the text began
    model = copy.deepcopy(loaded.model)

    def copier(input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        scores = torch.zeros(1, 1, 264)
        if (token := int(input_ids[0, -1])) in range(20, 39):
            scores[0, 0, token + 1] = 50.0
        return SimpleNamespace(logits=scores, past_key_values=None)

    model.forward = copier
    ids = [*opening, 50, *opening[:2]]
    written = _tokens(replace(loaded, model=model), ids, seed=0)
    whole = [*ids, *written]
    stretches = [tuple(whole[at : at + 6]) for at in range(len(whole) - 5)]
    assert len(set(stretches)) == len(stretches) and written[:3] == opening[2:5]
    # twin: the likeliest tokens are the opening
    assert _tokens(replace(loaded, model=model), ids, seed=None)[:10] == opening[2:12]


def _tokens(loaded: Pretrained, ids: list[int], seed: int | None) -> list[int]:
    kept = []

    class Telling:
        eos_token_id = None

        def decode(self, tokens: list[int], **_: object) -> str:
            kept[:] = tokens
            return "".join(map(chr, tokens))

    for _ in ask.write(replace(loaded, tokenizer=Telling()), ids, 12, seed=seed):
        pass
    return kept


@pytest.mark.parametrize("raw", [DYNAMIC, LONGROPE], ids=["dynamic", "longrope"])
def test_an_answer_turns_as_one_pass_over_all_of_it_does(raw: dict) -> None:
    keys = {"model_type": "llama", "max_position_embeddings": 64, "rope_parameters": raw}
    ids, answer = list(range(10, 110)), [20, 21, 22]
    loaded = Pretrained(tiny_model(keys), None, "tiny", Path("tiny"))
    ask.cost_of(loaded, ids * 2, answer)  # What was read before changes nothing.
    scores = plain(keys, [*ids, *answer])[len(ids) - 1 : -1]
    wanted = -scores[range(3), answer].mean().item()
    assert ask.cost_of(loaded, ids, answer) == pytest.approx(wanted, abs=1e-5)
