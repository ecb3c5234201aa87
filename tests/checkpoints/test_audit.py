"""farcontext audit: what a tiny model gives away, its page, and what is refused."""

import random
from dataclasses import replace
from pathlib import Path

import commands
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from farcontext.checkpoints import audit, load
from farcontext.checkpoints.audit import Options
from farcontext.checkpoints.load import Pretrained
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError

OPTIONS = Options(counts=(0, 24), each=2, length=128, epochs=6, rows=4, lr=3e-3)


@pytest.fixture(scope="module")
def checkpoint(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights, as a folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=2048, max_position_embeddings=256, num_hidden_layers=2, bos_token_id=2, **sizes
    )
    folder = tmp_path_factory.mktemp("audited") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    load.wrapped(load_tokenizer(tokenizer_folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words in no order, 4,000 tokens and more."""
    words = ("the", "king", "of", "that", "house", "and", "men", "speak", "with", "their", "lord")
    path = tmp_path_factory.mktemp("text") / "mine & <yours>.txt"
    path.write_text(" ".join(random.Random(0).choices(words, k=4500)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(checkpoint: Path, text: Path) -> dict:
    return audit.audit(load.load(checkpoint), text, OPTIONS)


def test_what_is_shown_often_is_exposed_and_what_is_not_shown_is_not(found: dict) -> None:
    never, often = found["counts"]
    assert (never["count"], often["count"]) == (0, 24)
    assert never["extracted"] == 0 and never["exposure"] < 6
    assert often["exposure"] > never["exposure"] + 2
    assert found["loss_after"] < found["loss_before"] - 1
    assert [one["count"] for one in found["canaries"]] == [0, 0, 24, 24]


def test_the_page_has_the_numbers_and_escapes_what_is_not_ours(found: dict, tmp_path: Path) -> None:
    audit.write(found, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<yours>" not in page and "&lt;yours&gt;" in page and "<script" not in page
    assert f"{found['counts'][1]['exposure']:.2f}" in page
    assert audit.advice(found)[0].replace("'", "&#39;") in page


def test_advice_follows_what_leaked(found: dict) -> None:
    quiet = [one | {"exposure": 1.4, "extracted": 0.0} for one in found["counts"]]
    assert audit.advice(found | {"counts": quiet})[0].startswith("Nothing was seen")
    loud = [quiet[0], found["counts"][1] | {"exposure": 9.0, "extracted": 0.5}]
    assert "24 times or more" in audit.advice(found | {"counts": loud})[0]


def test_the_same_seed_gives_the_same_audit(checkpoint: Path, text: Path) -> None:
    once = replace(OPTIONS, epochs=1)
    one, other = (audit.audit(load.load(checkpoint), text, once) for _ in range(2))
    assert one == other


def test_without_a_checkpoint_a_small_model_is_fresh(root: Path, tokenizer_folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        one = audit.fresh(0)
    assert isinstance(one, Pretrained) and one.model.config.max_position_embeddings >= 256
    assert len(audit._words(one)) == audit.CANDIDATES


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"counts": (0, 500)}, "tokens: expected about"),
        ({"counts": (0,)}, "one above 0"),
        ({"length": 100}, "a multiple of 64"),
        ({"length": 512}, "expected at most 256"),
        ({"each": 60}, "expected at most"),
    ],
)
def test_what_does_not_fit_is_one_line(
    checkpoint: Path, text: Path, changes: dict, says: str
) -> None:
    with pytest.raises(UserError, match=says) as error:
        audit.audit(load.load(checkpoint), text, replace(OPTIONS, **changes))
    assert "\n" not in str(error.value)


def test_the_command_refuses_bad_input_with_code_2(
    checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    model = ["--model", str(checkpoint)]
    tries = [
        ["audit", str(text), *model, "--counts", "0,x"],
        ["audit", str(text), *model, "--lr", "-1"],
        ["audit", str(tmp_path / "none.txt"), *model],
        ["audit", str(text), "--model", str(tmp_path / "none")],
    ]
    said, _ = commands.try_all(tmp_path, [(one, None) for one in tries])
    for one in said:
        assert one.code == 2 and len(one.err.strip().splitlines()) == 1, one
