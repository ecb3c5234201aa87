"""A folder from elsewhere never runs its own code.

No pickle runs, and no module that a configuration names.
"""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from farcontext import files
from farcontext.checkpoints import load, refusals
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError


class Payload:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def folder(tmp_path: Path, tiny_project: Path) -> Path:
    """A sound checkpoint, with a module that leaves a mark where it is imported."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    made = tmp_path / "model"
    LlamaForCausalLM(LlamaConfig(vocab_size=264, **sizes)).save_pretrained(made)
    load.wrapped(load_tokenizer(tiny_project / "build" / "tokenizer")).save_pretrained(made)
    files.write_atomic(
        made / "modeling_own.py", f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n"
    )
    load.load(made)
    return made


def refused(folder: Path, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        load.load(folder)
    assert "\n" not in str(error.value)
    assert not (folder.parent / "mark").exists()


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.safetensors"]
)
def test_fault_76_a_pickle_with_a_payload_is_never_read(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    payload = pickle.dumps(Payload(folder.parent / "mark"))
    files.write_atomic(folder / name, payload)
    refused(
        folder,
        r"model\.safetensors: expected safetensors"
        if name == "model.safetensors"
        else rf"{name} is a pickle, .*expected model\.saf",
    )
    pickle.loads(payload)
    assert (folder.parent / "mark").is_dir()  # twin: read as a pickle, it does run


OWN = {
    "AutoModelForCausalLM": "modeling_own.Own",
    "AutoConfig": "modeling_own.Own",
    "AutoTokenizer": ["modeling_own.Own"],
}


@pytest.mark.parametrize(
    ("name", "change", "key"),
    [
        ("config.json", {"model_type": "own", "auto_map": OWN}, "auto_map"),
        ("config.json", {"text_config": {"auto_map": OWN}}, "auto_map"),
        (
            "config.json",
            {"custom_pipelines": {"own": {"impl": "modeling_own.Own"}}},
            "custom_pipelines",
        ),
        ("tokenizer_config.json", {"inner": {"auto_map": OWN}}, "auto_map"),
        ("generation_config.json", {"inner": [{"auto_map": OWN}]}, "auto_map"),
        (
            "config.json",
            {"_attn_implementation_internal": "someone/kernel"},
            "_attn_implementation_internal",
        ),
        ("config.json", {"attn_implementation": {"": "someone/kernel"}}, "attn_implementation"),
    ],
)
def test_fault_77_code_of_the_folder_is_refused_by_file_and_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: dict, key: str
) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull, encoding="utf-8"))  # noqa: PTH123, SIM115
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a prompt would be answered
    before = files.read_json(folder / name)
    files.write_json(folder / name, before | change)
    refused(folder, rf"{name}: {key}.*: names code")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_fault_77_code_beside_a_class_of_transformers_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a prompt would be answered
    files.write_json(folder / name, files.read_json(folder / name) | {"auto_map": OWN})
    with pytest.warns(UserWarning, match=rf"{name}: auto_map is not read"):
        load.load(folder)
    assert not (folder.parent / "mark").exists()


@pytest.mark.filterwarnings("ignore:.*auto_map is not read")
def test_fault_77_a_tokenizer_of_its_own_is_not_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    path = folder / "tokenizer_config.json"
    files.write_json(path, files.read_json(path) | {"auto_map": OWN, "tokenizer_class": None})
    refused(folder, "its tokenizer cannot be loaded")


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(refusals, "_refuse_code", lambda *_: None)


def test_fault_77_behind_the_refusal_the_flag_still_forbids_it(
    folder: Path, unguarded: Callable[[], None]
) -> None:
    files.write_json(
        folder / "config.json", files.read_json(folder / "config.json") | {"auto_map": OWN}
    )
    unguarded()
    load.load(folder)  # the family is transformers' own, so its class is taken
    assert not (folder.parent / "mark").exists()


def sharded(folder: Path, shard: str) -> None:
    """Replace the weights by an index that maps each to `shard`.

    A decoy of the right ending stands beside it.
    """
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({"x": torch.zeros(1)}, folder / "decoy.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, shard)}
    files.write_json(folder / "model.safetensors.index.json", index)


@pytest.mark.parametrize(
    "shard",
    ["w.bin", "../w.safetensors", "sub/w.safetensors", "/w.safetensors", "gone.safetensors"],
)
def test_an_index_that_names_a_pickle_or_another_folder_is_refused(
    folder: Path, shard: str
) -> None:
    for name in ("w.bin", "sub/w.safetensors", "../w.safetensors"):
        files.write_atomic(folder / name, pickle.dumps(Payload(folder.parent / "mark")))
    sharded(folder, shard)
    refused(
        folder,
        rf"model\.safetensors\.index\.json: .*{shard}.*"
        r"expected a \.safetensors file in the same folder",
    )


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {"x": 3}}'])
def test_an_index_of_another_shape_is_refused(folder: Path, content: str) -> None:
    files.write_atomic(folder / "model.safetensors.index.json", content)
    refused(folder, r"model\.safetensors\.index\.json: .*expected")


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "../w.safetensors", "sub/model.safetensors.index.json"]
)
def test_weights_that_the_configuration_chooses_are_of_the_folder(folder: Path, name: str) -> None:
    files.write_atomic(folder / name, pickle.dumps(Payload(folder.parent / "mark")))
    before = files.read_json(folder / "config.json")
    files.write_json(folder / "config.json", before | {"transformers_weights": name})
    refused(folder, r"config\.json: 'transformers_weights' = .*expected a \.safetensors file")
    files.write_json(folder / "config.json", before | {"transformers_weights": "model.safetensors"})
    load.load(folder)


def test_sound_shards_load(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    sharded(folder, "w.safetensors")
    save_file(weights, folder / "w.safetensors", metadata={"format": "pt"})
    # nobody reads it
    files.write_json(folder / "pytorch_model.bin.index.json", {"weight_map": {"x": "w.bin"}})
    load.load(folder)
