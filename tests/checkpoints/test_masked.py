"""The probe of a masked model: its families load, and its losses are those of single masks."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import try_all
from observe import one_line, refuses
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from farcontext import files
from farcontext.checkpoints import encoders, load
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.probing import masked
from farcontext.data.tokenizer import load_tokenizer

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
}
KEYS = {
    "bert": {"max_position_embeddings": 256},
    "roberta": {"max_position_embeddings": 257},
    "albert": {"max_position_embeddings": 256, "embedding_size": 16},
    "modernbert": {"max_position_embeddings": 256, "local_attention": 32},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_project: Path) -> dict[str, Path]:
    """A random masked model of each family, with a real tokenizer that has a mask."""
    tokenizer = load.wrapped(load_tokenizer(tiny_project / "build" / "tokenizer"))
    names = {
        "mask_token": "[MASK]",
        "cls_token": "[BOS]",
        "sep_token": "[EOS]",
        "pad_token": "[PAD]",
    }
    tokenizer.add_special_tokens(names)
    root, made = tmp_path_factory.mktemp("encoders"), {}
    for family, keys in KEYS.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **SIZES, **keys)
        model = AutoModelForMaskedLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(float(parameter.ndim == 1), 0.2)
        model.save_pretrained(root / family)
        tokenizer.save_pretrained(root / family)
        made[family] = root / family
    return made


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory, tiny_project: Path) -> Path:
    made = tmp_path_factory.mktemp("prose")
    for number in range(3):
        text = (tiny_project / "build" / "sources" / "tales" / f"{number}.txt").read_text("utf-8")
        files.write_atomic(made / f"{number}.txt", text)
    return made


@pytest.mark.parametrize("family", KEYS)
def test_a_masked_token_costs_what_a_row_with_its_masks_says(
    family: str, folders: dict[str, Path]
) -> None:
    loaded = encoders.load(folders[family])
    assert encoders.window(loaded) == 256
    tokenizer, (before, near) = loaded.tokenizer, (list(range(20, 60)), list(range(70, 70 + 12)))
    found = masked.masked_losses(loaded, before, near)
    fresh = AutoModelForMaskedLM.from_pretrained(folders[family]).eval()
    for target in (0, 5, 11):
        row = [tokenizer.cls_token_id, *before, *near, tokenizer.sep_token_id]
        for at in range(target % masked.EVERY, len(near), masked.EVERY):
            row[1 + len(before) + at] = tokenizer.mask_token_id
        with torch.inference_mode():
            scores = fresh(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
        wanted = -scores[1 + len(before) + target, near[target]].item()
        assert found[target].item() == pytest.approx(wanted, abs=1e-4)
    other = masked.masked_losses(loaded, before[::-1], near)
    assert (found - other).abs().max() > 1e-4  # twin: what stands before is read


def test_rows_have_own_other_and_no_text_of_the_same_targets(
    folders: dict[str, Path], prose: Path
) -> None:
    loaded = encoders.load(folders["roberta"])
    rows = masked.measured(loaded, prose)
    assert sorted(rows["length"].unique()) == [64, 128, 256]
    assert set(rows["far"]) == {"own", "other", "none"}
    assert not rows.duplicated(["window", "length", "far"]).any()
    alone = rows[rows["far"] == "none"].groupby("window")["loss"].nunique()
    assert (alone == 1).all()
    own, other = (rows[rows["far"] == kind]["loss"].to_numpy() for kind in ("own", "other"))
    assert abs(own - other).max() > 1e-4
    said = masked.lines(masked.summarised(loaded, rows))
    assert len(said) == 7 and all("\n" not in line for line in said)


def table(losses: dict[int, float]) -> pd.DataFrame:
    """Return rows of eight windows whose own text costs this much at these lengths."""
    rows = [
        {"window": window, "length": length, "far": far, "loss": loss + 0.01 * window * (1 + turn)}
        for window in range(8)
        for turn, (length, own) in enumerate(losses.items())
        for far, loss in (("own", own), ("other", 3.0), ("none", 3.2))
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("losses", "helps"),
    [
        ({64: 2.8, 128: 2.5, 256: 2.2}, 256),
        ({64: 2.8, 128: 2.5, 256: 2.5}, 128),
        ({64: 3.3, 128: 3.3, 256: 2.0}, None),
    ],
    ids=["to the end", "half of it", "not from the start"],
)
def test_more_text_helps_as_far_as_it_makes_targets_cheaper(
    losses: dict[int, float], helps: int | None, folders: dict[str, Path]
) -> None:
    summary = masked.summarised(encoders.load(folders["bert"]), table(losses))
    assert summary["helps"] == helps
    assert (f"{helps}" if helps else "no length") in masked.lines(summary)[0]


def test_what_is_no_masked_model_is_one_line(
    folders: dict[str, Path], prose: Path, tmp_path: Path
) -> None:
    loaded = encoders.load(folders["bert"])
    with refuses("length = 300: expected 128 to 256, the model's tokens"):
        masked.lengths_of(loaded, 300)
    with refuses("1 documents of 256 tokens: expected two"):
        masked.measured(loaded, prose / "0.txt")
    config = AutoConfig.for_model("llama", vocab_size=99, **SIZES)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "llama")
    with refuses("model_type = 'llama': expected bert"):
        encoders.load(tmp_path / "llama")
    assert not encoders.is_encoder(tmp_path / "llama") and not encoders.is_encoder(prose)
    # a base checkpoint has no head that predicts masked tokens
    base = tmp_path / "base"
    loaded.model.bert.save_pretrained(base)
    loaded.tokenizer.save_pretrained(base)
    with refuses("missing_keys"):
        encoders.load(base)


def test_the_command_line_probes_a_masked_model(
    folders: dict[str, Path], prose: Path, tmp_path: Path
) -> None:
    files.write_atomic(tmp_path / "dvc.yaml", "stages: {}\n")
    common = ["probe", str(folders["albert"]), "--text", str(prose), "--dtype", "float32"]
    (said, refused), _ = try_all(tmp_path, [(common, None), ([*common, "--lengths", "999"], None)])
    assert said.code == 0 and said.out.startswith("albert (masked): "), said
    assert sorted(path.name for path in (tmp_path / "probe-albert").iterdir()) == [
        "probe.json",
        "table.csv",
    ]
    assert refused.code == 2
    one_line(refused.err, "length = 999: expected 128 to 256")


def test_a_pretrained_is_the_loaders_own(folders: dict[str, Path]) -> None:
    loaded = encoders.load(folders["modernbert"], dtype="bfloat16")
    assert isinstance(loaded, Pretrained) and loaded.model.dtype == torch.bfloat16
    rotating = [b for n, b in loaded.model.named_buffers() if "inv_freq" in n]
    assert rotating and all(b.dtype == torch.float32 for b in rotating)
