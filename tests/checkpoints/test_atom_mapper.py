"""The atom mapper's network: read without running anything, and refused when it is another."""

import io
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from farcontext import files
from farcontext.checkpoints import atom_mapper
from farcontext.files import UserError

SMALL = {
    "vocab_size": 8,
    "embedding_size": 4,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 16,
}
WORDS = ("[PAD]", "[CLS]", "[SEP]", "C", "O", ">>", "N", ".")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Return an unpacked wheel with a small network."""
    from transformers import AlbertConfig, AlbertForMaskedLM  # noqa: PLC0415

    folder = tmp_path / "wheel" / "models"
    folder.mkdir(parents=True)
    files.write_json(folder / "config.json", SMALL)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    torch.manual_seed(1)
    state = AlbertForMaskedLM(AlbertConfig(**SMALL)).state_dict()
    torch.save(state | {"albert.pooler.weight": torch.zeros(8, 8)}, folder / "pytorch_model.bin")
    return tmp_path / "wheel"


def test_the_network_is_kept_without_its_pickle(wheel: Path, tmp_path: Path) -> None:
    out = tmp_path / "mapper"
    atom_mapper.convert(wheel, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    mapper = atom_mapper.load(out)
    state = torch.load(wheel / "models" / "pytorch_model.bin", weights_only=True)
    for name, tensor in mapper.model.state_dict().items():
        assert torch.equal(tensor, state[name])
    weights = mapper.attention(("C", ">>", "O"))
    assert weights.shape == (2, 2, 3, 3) and bool((weights.sum(-1) < 1).all())
    drawn = atom_mapper.load(out, random_seed=0).attention(("C", ">>", "O"))
    assert not torch.allclose(drawn, weights)
    with pytest.raises(ValueError, match="token = Xe"):
        mapper.attention(("Xe",))


def test_it_is_made_once(
    wheel: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    fetched: list[str] = []

    def fetch(name: str, _: Path, destination: Path) -> None:
        fetched.append(name)
        wheel.rename(destination)

    monkeypatch.setattr(atom_mapper.sources, "fetch", fetch)
    first = atom_mapper.prepare(tmp_path / "mapper").read_bytes()
    assert atom_mapper.prepare(tmp_path / "mapper").read_bytes() == first
    assert fetched == [atom_mapper.SOURCE]


class Planted:
    """What a pickle could hold: a call."""

    def __reduce__(self) -> tuple:
        return print, ("run",)


def test_code_in_the_pickle_is_refused(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    pickle.dump({"weight": Planted()}, buffer)
    (wheel / "models" / "pytorch_model.bin").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="its weights cannot be read"):
        atom_mapper.convert(wheel, tmp_path / "mapper")
    assert "run" not in capsys.readouterr().out and not (tmp_path / "mapper").exists()


def test_another_network_s_weights_are_refused(wheel: Path, tmp_path: Path) -> None:
    out = tmp_path / "mapper"
    atom_mapper.convert(wheel, out)
    state = safetensors.torch.load((out / "model.safetensors").read_bytes())
    state.pop("predictions.bias")
    files.write_atomic(out / "model.safetensors", safetensors.torch.save(state))
    with pytest.raises(UserError, match="expected just this model's weights"):
        atom_mapper.load(out)
