"""Payloads in every slot of what comes from elsewhere: none runs, and nothing outside is touched.

A slot is a place whose content can name code or a path: a key of a configuration, an index of
shards, a file of weights, a member of a wheel, an entry of data/sources.yaml, a source or a split.
"""

import contextlib
import os
import pickle
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch
from observe import snapshot
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from farcontext import files
from farcontext.checkpoints import extend, load
from farcontext.data import sources
from farcontext.data.corpus import build_corpus, load_documents
from farcontext.data.tokenizer import build_tokenizer, load_tokenizer
from farcontext.files import UserError
from farcontext.schema import validate

PATHS = (
    "../outside/secret",
    "../../outside/secret",
    "sub/../../outside/secret",
    "/etc/passwd",
    "/dev/zero",
    "..\\outside\\secret",
    "C:\\outside\\secret",
    "C:secret",
    "\\\\host\\share\\secret",
    "se\0cret",
    "..",
    "",
)
SHARDS = "model.safetensors.index.json"


class Payload:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, tiny_project: Path) -> Path:
    """A small sound checkpoint."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    made = tmp_path_factory.mktemp("sound") / "model"
    config = LlamaConfig(vocab_size=tiny.VOCABULARY, num_hidden_layers=1, **sizes)
    LlamaForCausalLM(config).save_pretrained(made)
    load.wrapped(load_tokenizer(tiny_project / "build" / "tokenizer")).save_pretrained(made)
    load.load(made)
    return made


OPENED: list[str] = []
WATCHING: list[Path] = []


def _watch(event: str, arguments: tuple) -> None:
    if WATCHING and event == "open" and isinstance(arguments[0], str | Path):
        OPENED.append(os.path.realpath(arguments[0]))
    if WATCHING and event in ("os.system", "subprocess.Popen", "pickle.find_class"):
        OPENED.append(event)


sys.addaudithook(_watch)


@pytest.fixture
def place(tmp_path: Path, sound: Path) -> Iterator[Path]:
    """A copy of the checkpoint; after the test nothing outside it may be read or changed."""
    outside = tmp_path / "outside"
    files.write_atomic(outside / "secret", "mine")
    files.write_atomic(outside / "secret.safetensors", (sound / "model.safetensors").read_bytes())
    files.write_atomic(outside / "secret.json", (sound / "tokenizer.json").read_bytes())
    shutil.copytree(sound, tmp_path / "in" / "model")
    files.write_atomic(
        tmp_path / "in" / "model" / "own.py", f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n"
    )
    before = snapshot(outside)
    OPENED.clear()
    WATCHING.append(outside)
    yield tmp_path / "in" / "model"
    WATCHING.clear()
    assert not (tmp_path / "mark").exists(), "the payload ran"
    assert snapshot(outside) == before and not (tmp_path / "victim").exists()
    opened = [path for path in OPENED if path.startswith((str(outside), "/etc/passwd", "os.sys"))]
    assert opened == [] and "subprocess.Popen" not in OPENED and "pickle.find_class" not in OPENED


def change(path: Path, **values: object) -> None:
    files.write_json(path, files.read_json(path) | values)


def refused(call: Callable[[], object]) -> None:
    """The call ends in one line."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------- pickles


@pytest.mark.parametrize(
    "name",
    [
        *("pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "model.ckpt"),
        *("adapter_model.bin", "model.safetensors", "training_args.bin", "optimizer.pt"),
        *("tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"),
        *("special_tokens_map.json", "added_tokens.json", "vocab.json", "tokenizer.model"),
        *("model.gguf", "chat_template.jinja", SHARDS),
    ],
)
def test_a_pickle_in_any_slot_never_runs(place: Path, name: str) -> None:
    files.write_atomic(place / name, pickle.dumps(Payload(place.parent.parent / "mark")))
    if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")):
        load.load(place)  # beside sound weights it is not looked at
        (place / "model.safetensors").unlink()
        refused(lambda: load.load(place))
    elif name in ("vocab.json", "tokenizer.model"):
        (place / "tokenizer.json").unlink()
        refused(lambda: load.load(place))
    else:
        if name == "model.gguf":
            (place / "config.json").unlink()
        # transformers 5 has its own places for the tokens, and does not ask for the older files
        try:
            load.load(place)
        except UserError as error:
            assert "\n" not in str(error)


def test_a_pickle_that_is_read_as_one_does_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").is_dir()


# ---------------------------------------------------------------------------- names in a checkpoint


@pytest.mark.parametrize("name", PATHS)
def test_a_shard_is_a_file_of_the_folder(place: Path, name: str) -> None:
    weights = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    save_file({"x": torch.zeros(1)}, place / "decoy.safetensors")
    shard = f"{name}.safetensors" if name.endswith("secret") else name
    files.write_json(place / SHARDS, {"weight_map": dict.fromkeys(weights, shard)})
    refused(lambda: load.load(place))
    refused(lambda: extend.extend(place, place.parent / "out", scheme="yarn", factor=2, measure=0))
    assert not (place.parent / "out").exists()


@pytest.mark.parametrize("name", PATHS[:-1])
def test_chosen_weights_are_a_file_of_the_folder(place: Path, name: str) -> None:
    chosen = f"{name}.safetensors" if name.endswith("secret") else name
    change(place / "config.json", transformers_weights=chosen)
    refused(lambda: load.load(place))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("key", ["tokenizer_file", "vocab_file", "fast_tokenizer_files"])
def test_files_of_a_tokenizer_are_files_of_the_folder(place: Path, key: str, name: str) -> None:
    value = [f"{name}.json"] if key.endswith("files") else f"{name}.json"
    change(place / "tokenizer_config.json", **{key: value})
    if name == "..":
        value = [name] if key.endswith("files") else name
        change(place / "tokenizer_config.json", **{key: value})
    try:
        load.load(place)
        assert name == ""  # ".json" is the name of a file, which is not there
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("key", ["_name_or_path", "name_or_path", "special_tokens_map_file"])
@pytest.mark.parametrize("name", PATHS[:4])
def test_a_name_that_is_only_told_is_never_opened(place: Path, key: str, name: str) -> None:
    change(place / "config.json", **{key: name})
    change(place / "tokenizer_config.json", **{key: name})
    load.load(place)


OWN = {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own", "AutoTokenizer": ["own.Own"]}


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "values",
    [
        {"inner": {"auto_map": OWN}},
        {"inner": {"auto_map": {"AutoConfig": "../outside/secret.Own"}}},
        {"inner": [{"custom_pipelines": {"own": {"impl": "own.Own"}}}]},
        {"_attn_implementation": "someone/kernel"},
        {"attn_implementation": {"": "../outside/secret"}},
        {"experts_implementation_internal": "someone/kernel"},
    ],
    ids=str,
)
def test_code_that_a_configuration_names_is_never_run(
    place: Path, file: str, values: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a prompt would be answered
    change(place / file, **values)
    refused(lambda: load.load(place))


@pytest.mark.filterwarnings("ignore:.*auto_map is not read")
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("named", ["own.Own", "../outside/secret.Own", "someone/repo--own.Own"])
def test_classes_that_a_configuration_names_are_never_run(
    place: Path, file: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a prompt would be answered
    change(place / file, auto_map={"AutoConfig": named, "AutoModelForCausalLM": named})
    load.load(place)  # The family is transformers' own: the place itself is what is watched.
    change(place / file, auto_map={"AutoTokenizer": [named, named]})
    with contextlib.suppress(UserError):
        load.load(place)
    change(place / "config.json", model_type="own")
    refused(lambda: load.load(place))


@pytest.mark.parametrize(
    "name", ["LlamaForCausalLM", "Trainer", "AutoModel", "pipeline", "own.Own"]
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_tokenizer_is_never_of_another_class(place: Path, file: str, name: str) -> None:
    change(place / file, tokenizer_class=name)
    refused(lambda: load.load(place))


# -------------------------------------------------------------------------------- members of wheels


def wheel_of(path: Path, *names: str, link: bool = False, method: int = 8) -> Path:
    """A wheel with a sound member, and members whose names are set afterwards."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("toy/a.md", "a")
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(f"{number}" + "x" * (len(name.encode()) - 1))
            info.external_attr = 0o120777 << 16 if link else 0
            archive.writestr(info, "../outside/secret", compress_type=method)
    data = path.read_bytes()
    for number, name in enumerate(names):  # a zip file of any tool but Python's
        placeholder = f"{number}" + "x" * (len(name.encode()) - 1)
        data = data.replace(placeholder.encode(), name.encode())
    path.write_bytes(data)
    return path


def unpack(wheel: Path, folder: Path) -> None:
    with files.folder_atomic(folder) as inside:
        sources._unpack(wheel, ["*"], inside, "s.yaml: toy")


@pytest.mark.parametrize("name", [*PATHS[:-1], "toy/a.md", "toy/a.md\0", "/", "./../victim", "."])
def test_a_member_never_leads_outside(place: Path, name: str) -> None:
    refused(lambda: unpack(wheel_of(place / "w.whl", name), place.parent / "out"))
    assert not (place.parent / "out").exists()


@pytest.mark.parametrize("change", ["link", "bzip2", "lzma", "encrypted", "method 99"])
def test_a_member_is_a_plain_file(place: Path, change: str) -> None:
    method = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}.get(change, 8)
    wheel = wheel_of(place / "w.whl", "toy/b.md", link=change == "link", method=method)
    if change in ("encrypted", "method 99"):
        data = bytearray(wheel.read_bytes())
        at = data.rindex(b"PK\x01\x02")
        data[at + (8 if change == "encrypted" else 10)] = 1 if change == "encrypted" else 99
        wheel.write_bytes(data)
    refused(lambda: unpack(wheel, place.parent / "out"))
    assert not (place.parent / "out").exists()


def test_folders_of_a_wheel_are_passed_over(place: Path) -> None:
    with zipfile.ZipFile(place / "w.whl", "w") as archive:
        archive.mkdir("toy")
        archive.writestr("toy/a.md", "a")
    unpack(place / "w.whl", place.parent / "out")
    assert (place.parent / "out" / "toy" / "a.md").read_text(encoding="utf-8") == "a"


def test_many_members_have_one_limit(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(place / "w.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(30):
            archive.writestr(f"t/{number}.md", b"\0" * 1000)
    monkeypatch.setattr(sources, "MAX_BYTES", 29_999)
    refused(lambda: unpack(place / "w.whl", place.parent / "out"))
    monkeypatch.setattr(sources, "MAX_BYTES", 30_000)  # twin: so many are unpacked
    unpack(place / "w.whl", place.parent / "out")


def test_a_damaged_wheel_is_one_line(place: Path, tmp_path: Path) -> None:
    draws, sound = random.Random(0), wheel_of(place / "w.whl", "toy/b.md").read_bytes()
    for _ in range(200):
        data = bytearray(sound)
        data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        files.write_atomic(place / "w.whl", data[: draws.choice([len(data), draws.randrange(400)])])
        try:
            unpack(place / "w.whl", place.parent / "out")
        except UserError as error:
            assert "\n" not in str(error)


# ------------------------------------------------------------------------------- names of our files

ENTRY = {"kind": "wheel", "package": "toy", "version": "1.0", "members": ["*"], "sha256": "1" * 64}
ENTRY |= {"title": "t", "domain": "d", "language": "en", "licence": "l"}
PAGE = {"kind": "url", "url": "https://x.invalid/", "path": "a.txt", "sha256": "1" * 64}
PAGE |= {"title": "t", "domain": "d", "language": "en", "licence": "l"}


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        *((PAGE, {"path": name}) for name in (*PATHS, "source.json", ".")),
        *((PAGE, {"domain": name}) for name in PATHS),
        *(
            (PAGE, {"url": url})
            for url in ("file:///etc/passwd", "ftp://x/", "-o x", "/etc/passwd")
        ),
        *(
            (ENTRY, {"package": name})
            for name in (
                "../evil",
                "./evil",
                "-r evil",
                "--index-url=http://x",
                "x @ file:///e",
                "",
            )
        ),
        *((ENTRY, {"version": name}) for name in ("1.0 --pre", "1.0; x", "../1", "")),
    ],
    ids=str,
)
def test_an_entry_of_sources_yaml_names_nothing_outside(
    place: Path, entry: dict, values: dict
) -> None:
    validate(sources.Source, entry, "toy")  # twin: sound before
    refused(lambda: validate(sources.Source, entry | values, "toy"))


@pytest.mark.parametrize("name", [name for name in PATHS if name])
def test_a_name_of_a_source_is_a_folder_of_ours(place: Path, name: str) -> None:
    entries = files.write_json(place / "s.yaml", {name: PAGE})
    refused(lambda: sources.fetch(name, entries, place / "build" / "x"))
    values = {"sources": [name], "manuals": 1, "test_share": 0.2, "validation_share": 0.2}
    with pytest.raises(UserError, match="sources"):
        validate(tiny.Corpus, values | {"near_duplicate": 0.8}, "params.yaml")


@pytest.mark.parametrize("name", PATHS)
def test_a_domain_of_a_source_or_a_split_names_no_file_outside(
    place: Path, tiny_project: Path, name: str
) -> None:
    folder = Path(shutil.copytree(tiny_project / "build", place / "build"))
    change(folder / "sources" / "tales" / "source.json", domain=name)
    corpus = tiny.Corpus(
        sources=("tales",), manuals=1, test_share=0.2, validation_share=0.2, near_duplicate=0.8
    )
    refused(lambda: build_corpus(corpus, folder / "sources", folder / "out"))
    split = folder / "corpus" / "train.jsonl"
    line = split.read_text(encoding="utf-8").replace('"domain": "tales"', f'"domain": "{name}"')
    split.write_text(line.replace("\0", "\\u0000").replace("\\", "\\\\"), encoding="utf-8")
    refused(lambda: load_documents(folder / "corpus", "train"))
    config = tiny.Tokenizer(vocab_size=tiny.VOCABULARY, characters=100_000)
    refused(lambda: build_tokenizer(config, folder / "corpus", folder / "tokens"))
    assert not (folder / "out").exists() and not (folder / "tokens").exists()
