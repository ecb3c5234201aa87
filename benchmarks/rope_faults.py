"""How many planted RoPE faults does the configuration check find?

The second question is how often it cries wolf.

Faults are planted in a saved folder's config.json or in the loaded model, never through our own
code: 20 of each of four kinds. Beside them stand 100 sound configurations of every family and
scheme; both are tried on small saved models and on configurations of real size without weights. A
fault counts as found when a line that `farcontext probe --rope-only` prints is a FAULT.
With a real checkpoint (--checkpoint) the base is also changed where only the loss can tell, and
asked for on real text (--text).
"""

import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import table
import torch
from matplotlib.axes import Axes
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from farcontext.checkpoints import load, rope_check, rope_loss
from farcontext.checkpoints.rope import sections

Save = Callable[[Path, str, str, random.Random], Path]
FAMILIES = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "mistral": MistralConfig,
    "gpt_neox": GPTNeoXConfig,
}
SCHEMES = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
WITH_ORIGINAL = ("yarn", "llama3", "longrope")


def scheme_of(rope_type: str, draw: random.Random, pairs: int) -> tuple[dict, int]:
    """Return sound `rope_parameters` and the longest position that goes with them."""
    trained = draw.choice([256, 2048, 4096, 8192, 32768])
    rope = {"rope_type": rope_type, "rope_theta": draw.choice([5e4, 1e5, 5e5, 1e6])}
    if trained < 8192 and draw.random() < 0.4:
        rope["rope_theta"] = 1e4
    factor = draw.choice([2.0, 4.0, 8.0])
    if rope_type != "default":
        rope["factor"] = factor
    if rope_type in WITH_ORIGINAL:
        rope["original_max_position_embeddings"] = trained
    if rope_type == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if rope_type == "longrope":
        rope["short_factor"] = [1 + 0.1 * draw.random() for _ in range(pairs)]
        rope["long_factor"] = [1 + factor * draw.random() for _ in range(pairs)]
    if rope_type == "yarn" and draw.random() < 0.3:
        rope["attention_factor"] = 0.1 * math.log(factor) + 1
    return rope, trained if rope_type in ("default", "dynamic") else int(trained * factor)


def save_sound(folder: Path, family: str, rope_type: str, draw: random.Random) -> Path:
    """Save a small model of random weights with a sound configuration.

    Its hidden size is 64; transformers alone writes it.
    """
    options = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(draw.randrange(1 << 30))
    if family == "gpt2":
        config = GPT2Config(n_embd=64, n_layer=1, n_head=2, n_positions=256, **options)
    else:
        heads = draw.choice([1, 2, 4])
        sizes = {
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": heads,
            "intermediate_size": 64,
        }
        share = draw.choice([0.25, 0.5, 1.0]) if family == "gpt_neox" and heads < 4 else 1.0
        head_dim = 64 // heads
        if family != "gpt_neox":
            sizes |= {"num_key_value_heads": 1, "head_dim": head_dim}
        rope, limit = scheme_of(rope_type, draw, int(head_dim * share) // 2)
        if family == "gpt_neox":
            rope["partial_rotary_factor"] = share
        config = FAMILIES[family](
            max_position_embeddings=limit, rope_parameters=rope, **sizes, **options
        )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    return folder


def write_real(folder: Path, family: str, rope_type: str, draw: random.Random) -> Path:
    """Write a sound configuration of the size of real models, without weights."""
    heads = draw.choice([16, 32, 64])
    share = draw.choice([0.25, 0.5, 1.0]) if family == "gpt_neox" else 1.0
    rope, limit = scheme_of(rope_type, draw, int(128 * share) // 2)
    sizes = {
        "hidden_size": 128 * heads,
        "num_hidden_layers": draw.choice([24, 32, 80]),
        "num_attention_heads": heads,
        "intermediate_size": 512 * heads,
        "vocab_size": draw.choice([32_000, 128_256, 151_936]),
    }
    if family == "gpt_neox":
        rope["partial_rotary_factor"] = share
    else:
        sizes |= {"num_key_value_heads": 8, "head_dim": 128}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    FAMILIES[family](
        max_position_embeddings=limit, rope_parameters=rope, **sizes, **ids
    ).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    return folder


def loaded_from(folder: Path) -> load.Pretrained:
    """Load a folder; without weights, its rotary modules alone are real."""
    if (folder / "model.safetensors").is_file():
        return load.load(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    limit = SimpleNamespace(model_max_length=settings.get("model_max_length", 1e30))
    config, _ = sections.read(folder)
    return load.Pretrained(rope_check.skeleton(config), limit, folder.name, folder)


def edit(folder: Path, change: Callable[[dict], None], name: str = "config.json") -> None:
    """Change a JSON file of a folder in place."""
    path = folder / name
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")


def said(loaded: load.Pretrained) -> list[str]:
    """Return the lines that report a fault."""
    return [line for line in rope_check.lines(rope_check.check(loaded)) if line.startswith("FAULT")]


def rotary(loaded: load.Pretrained) -> torch.nn.Module:
    """Return the model's rotary module."""
    return next(module for module in loaded.model.modules() if hasattr(module, "inv_freq"))


# ------------------------------------------------------------------------------------------- faults


def theta_dropped(
    folder: Path, trial: int, draw: random.Random, save: Save = save_sound
) -> list[str]:
    """Plant a wrong base, and return the reported faults.

    The base is gone from config.json, is 10,000 there, or is 10,000 in the loaded model alone.

    Attention is full: Mistral 7B v0.1 itself has 10,000 beside its sliding window, which only the
    loss could question.
    """
    save(folder, draw.choice(list(FAMILIES)), "default", draw)

    def change(config: dict) -> None:
        config["rope_parameters"] |= {"rope_theta": draw.choice([1e5, 5e5, 1e6])}
        config["max_position_embeddings"] = draw.choice([8192, 32768])
        config |= {"sliding_window": None} if "sliding_window" in config else {}

    edit(folder, change)
    match trial % 3:
        case 0:
            edit(folder, lambda config: config["rope_parameters"].pop("rope_theta"))
        case 1:
            edit(folder, lambda config: config["rope_parameters"].update(rope_theta=10_000.0))
    loaded = loaded_from(folder)
    if trial % 3 == 2:
        module = rotary(loaded)
        pairs = len(module.inv_freq)
        module.inv_freq.copy_(10_000.0 ** -(torch.arange(pairs) / pairs))
    return said(loaded)


def original_wrong(
    folder: Path, trial: int, draw: random.Random, save: Save = save_sound
) -> list[str]:
    """Plant a wrong trained length, and return the reported faults.

    The trained length is the longest position, another, or gone; or the loaded frequencies come
    from another.
    """
    scheme = WITH_ORIGINAL[trial % 3]
    save(folder, draw.choice(list(FAMILIES)), scheme, draw)
    key = "original_max_position_embeddings"

    def change(config: dict) -> None:
        rope = config["rope_parameters"]
        match trial % 4:
            case 0:
                rope[key] = config["max_position_embeddings"]
            case 1:
                rope[key] = rope[key] * 8
            case 2:
                del rope[key]

    edit(folder, change)
    loaded = loaded_from(folder)
    if trial % 4 == 3:
        module = rotary(loaded)
        config = type(loaded.model.config).from_dict(loaded.model.config.to_dict())
        config.rope_parameters[key] //= 4
        wrong = ROPE_INIT_FUNCTIONS[scheme](config)
        module.inv_freq.copy_(wrong[0])
        if scheme == "longrope":  # The length does not set its frequencies, but when they change.
            module.config = config
            module.attention_scaling = wrong[1]
    return said(loaded)


def dynamic_constant(
    folder: Path, trial: int, draw: random.Random, save: Save = save_sound
) -> list[str]:
    """Plant a dynamic NTK that never grows; return the reported faults.

    The fault is in the loaded module, or in config.json: it has no factor, or the extended length.

    The extended length shows by the trained one, which stands beside it or in the tokenizer's
    configuration.
    """
    save(folder, draw.choice(list(FAMILIES)), "dynamic", draw)

    def change(config: dict) -> None:
        rope, trained = config["rope_parameters"], config["max_position_embeddings"]
        match trial % 5:
            case 2:
                rope["original_max_position_embeddings"] = trained
                config["max_position_embeddings"] = int(trained * rope["factor"])
            case 3:
                rope["factor"] = 0.0
            case 4:
                edit(
                    folder,
                    lambda other: other.update(model_max_length=trained),
                    "tokenizer_config.json",
                )
                config["max_position_embeddings"] = int(trained * rope["factor"])

    edit(folder, change)
    loaded = loaded_from(folder)
    match trial % 5:
        case 0:
            rotary(loaded).max_seq_len_cached = 1 << 40
        case 1:
            rotary(loaded).rope_type = "default"
    return said(loaded)


def attention_factor_lost(
    folder: Path, trial: int, draw: random.Random, save: Save = save_sound
) -> list[str]:
    """Plant a wrong attention factor, and return the reported faults.

    The attention factor is 1 or squared, in config.json or in the loaded model; or the logits get
    it once more.
    """
    scheme = ("yarn", "longrope")[trial % 2]
    save(folder, draw.choice(["llama", "qwen2", "qwen3", "mistral"]), scheme, draw)
    factor = rotary(loaded_from(folder)).attention_scaling
    kind = trial // 2 % 5
    if kind < 2:
        edit(
            folder,
            lambda config: config["rope_parameters"].update(
                attention_factor=(1.0, factor**2)[kind]
            ),
        )
    loaded = loaded_from(folder)
    if kind in (2, 3):
        rotary(loaded).attention_scaling = (1.0, factor**2)[kind - 2]
    if kind == 4:
        for module in loaded.model.modules():
            if hasattr(module, "scaling"):
                module.scaling *= factor**2
    return said(loaded)


FAULTS = {
    "theta dropped": theta_dropped,
    "original length wrong": original_wrong,
    "dynamic NTK constant": dynamic_constant,
    "attention factor": attention_factor_lost,
}


# -------------------------------------------------------------------------- a real one, by its loss


def by_loss(checkpoint: Path, text: Path, folder: Path, length: int) -> dict[float, str]:
    """Return what the loss says of the base and of others.

    The base is as it is, or one of three others in config.json; weights come by a link.
    """
    found = {}
    for theta in (None, 1e4, 5e5, 1e6):
        copied = folder / f"{theta}"
        copied.mkdir()
        for path in checkpoint.iterdir():
            if path.suffix == ".safetensors":
                (copied / path.name).symlink_to(path.resolve())
            else:
                shutil.copy(path, copied / path.name)
        if theta is not None:
            edit(
                copied,
                lambda config, theta=theta: config["rope_parameters"].update(rope_theta=theta),
            )
        loaded = load.load(copied)
        ids = loaded.tokenizer(text.read_text(encoding="utf-8")[2_000:40_000]).input_ids[
            : 2 * length
        ]
        rows = rope_loss.confirm(loaded, torch.tensor(ids).view(2, length))
        finding = rope_loss.confirmed(rows, loaded.model.config.rope_parameters["rope_theta"])
        found[theta] = rope_check.lines([finding])[0]
    return found


def draw(frame: pd.DataFrame, axis: Axes) -> None:
    """Draw the share of folders with a reported fault."""
    named = frame["size"] + ": " + frame["planted"]
    axis.barh(named, frame["reported"] / frame["folders"])
    axis.set(xlabel="share of folders with a fault reported", xlim=(0, 1))


SIZES: dict[str, Save] = {"small": save_sound, "real": write_real}


def count(folder: Path, size: str, save: Save, trials: int, sound: int) -> list[dict]:
    """Plant faults in configurations of a size, and check sound ones; print and return counts."""
    rows = []
    for name, plant in FAULTS.items():
        lines = [
            plant(folder / f"{name}-{i}", i, random.Random(1000 + i), save) for i in range(trials)
        ]
        found, missed = sum(map(bool, lines)), [i for i, line in enumerate(lines) if not line]
        rows.append({"size": size, "planted": name, "folders": len(lines), "reported": found})
        print(f"{size}: {name}: found {found} of {len(lines)}, missed {missed}")
    false = []
    kinds = [(family, scheme) for family in FAMILIES for scheme in SCHEMES]
    kinds = [("gpt2", "none"), *kinds] if save is save_sound else kinds
    for i in range(sound):
        family, scheme = kinds[i % len(kinds)]
        path = save(folder / f"sound-{i}", family, scheme, random.Random(i))
        false += [(i, family, scheme, line) for line in said(loaded_from(path))]
    print(f"{size}: sound: {len(false)} false alarms in {sound} configurations")
    for alarm in false[:10]:
        print(*alarm[1:])
    alarms = len({alarm[0] for alarm in false})
    return [*rows, {"size": size, "planted": "nothing", "folders": sound, "reported": alarms}]


def main() -> None:
    """Plant, count, print and write."""
    parser, rows = table.parser_of(__file__, __doc__), []
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--sound", type=int, default=100)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--length", type=int, default=1024)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for size, save in SIZES.items():
            folder = Path(scratch) / size
            rows += count(folder, size, save, arguments.trials, arguments.sound)
        if arguments.checkpoint:
            for theta, line in by_loss(
                arguments.checkpoint, arguments.text, Path(scratch), arguments.length
            ).items():
                print(f"base {theta or 'as it is'}: {line}")
    table.save(rows, arguments.out, draw)


if __name__ == "__main__":
    main()
