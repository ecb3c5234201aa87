"""What config.json alone says of a checkpoint's positions: picture, table, runtimes, vectors.

F frequencies; a pair's wavelength is the tokens of one whole turn. No weights and no tokenizer are
read. Vectors of cos and sin are for those who write engines.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig
from transformers.utils import logging

from farcontext import files
from farcontext.checkpoints import hub
from farcontext.checkpoints.headers import reading
from farcontext.checkpoints.rope.finding import Finding, lines
from farcontext.checkpoints.rope.outline import outline
from farcontext.checkpoints.rope.sections import head_width
from farcontext.checkpoints.rope_config import configuration_findings
from farcontext.checkpoints.unloaded import agreement, places, runtimes
from farcontext.checkpoints.unloaded.counts import expect_counts
from farcontext.checkpoints.unloaded.rotation import GROWING, Rotation
from farcontext.nn.positions import inverse_frequencies
from farcontext.nn.rotation import rotation_table

if TYPE_CHECKING:  # The name is for annotations alone.
    from farcontext.checkpoints.rope.outline import Outline

ROWS, COLUMNS = 16, 56  # The picture has so many pairs and so many places on its scale.
NAMES = {"rope": "plain RoPE", "dynamic_ntk_hf": "dynamic NTK", "p_rope": "proportional"}


@dataclass(frozen=True)
class View:
    """All that a configuration says of positions."""

    name: str
    family: str
    head: int
    meant: runtimes.Reading
    runtimes: tuple[agreement.Compared, ...]
    findings: tuple[Finding, ...]


def view(path: Path | str) -> View:
    """Read a checkpoint's configuration, and what runtimes make of it.

    The findings are those of its keys; `rope_check.check_configuration` tries the
    modules too, whose import takes seconds.

    Args:
        path: a checkpoint's folder, or a config.json.

    Raises:
        UserError: no configuration, or one that is no model of transformers.
    """
    logging.set_verbosity_error()
    where = places.config_file(path)
    raw = places.text_config(where)
    expect_counts(where, raw)
    config = settings_of(json.loads(json.dumps(raw)), where)  # transformers tidies what it gets.
    longest = _tokenizer_length(where.parent)
    with reading(where, "its rotations cannot be computed"):
        meant = runtimes.meant(config)
        found = runtimes.read_all(raw, config, longest)
        compared = tuple(agreement.compared(one, meant, raw) for one in found)
        findings = configuration_findings(config, raw, longest)
    head = head_width(config) if meant.rotations else 0
    name = hub.name_of(where.parent) if where.name == "config.json" else where.stem
    return View(name, config.model_type, head, meant, compared, tuple(findings))


def settings_of(raw: dict[str, Any], where: Path) -> "Outline":
    """Return what transformers makes of a configuration.

    For a plain family it does without its class.
    """
    config = outline(raw, where)
    if not isinstance(config, PreTrainedConfig):  # What transformers' functions ask of a class.
        config.head_dim = head_width(config)
        config.standardize_rope_params = lambda: None
    return config


def _tokenizer_length(folder: Path) -> float | None:
    path = folder / "tokenizer_config.json"
    given = files.read_json(path) if path.is_file() else {}
    longest = given.get("model_max_length") if isinstance(given, dict) else None
    return longest if isinstance(longest, int | float) and 0 < longest < 1e12 else None


# ------------------------------------------------------------------------------------- for a reader


def shown(found: View) -> list[str]:
    """Return a view as it is printed."""
    said = [f"{found.name} · {found.family} · window {found.meant.window:,} tokens"]
    if not found.meant.rotations:
        said.append("no rotary positions: learned ones, ALiBi or none, so there is nothing to draw")
    for kind, rotation in found.meant.rotations.items():
        said += ["", *_drawn(rotation, kind, found)]
    said += ["", "what runtimes make of this file (versions read; --json names the files)"]
    for one in found.runtimes:
        runtime = one.reading.runtime
        label = f"{runtime.removesuffix(' 5').removesuffix(' 4')} {runtimes.VERSIONS[runtime]}"
        said.append(f"  {label:<20}  {'; '.join(one.differs) or 'as it is meant'}")
        said += [f"{'':<24}({note})" for note in one.reading.notes]
        if one.keys and not any("{" in flag for flag in one.flags):
            said.append(f"{'':<24}→ in config.json: {_short(one.keys)}")
        said += [f"{'':<24}→ {_short(flag)}" for flag in one.flags]
    told = [finding for finding in found.findings if finding.grade != "ok"]
    return [*said, "", *(lines(told) or [f"ok    all {len(found.findings)} findings"])]


def _short(value: object) -> str:
    """Return a text in which lists of numbers are cut.

    --json has them whole.
    """
    text = value if isinstance(value, str) else json.dumps(value)
    start, end = text.find("[1"), text.rfind("]")
    return text if end - start < 200 or start < 0 else f"{text[: start + 24]} … {text[end:]}"


def _drawn(rotation: Rotation, kind: str, found: View) -> list[str]:
    """Return the picture and table of one kind of layer.

    There is a row a pair, and a log scale of tokens.
    """
    window, trained = found.meant.window, rotation.trained
    name = NAMES.get(rotation.scheme, rotation.scheme)
    stretch = f" × {rotation.scale:g} from {trained:,} tokens" if rotation.scheme != "rope" else ""
    said = [
        f"{kind + ': ' if kind else ''}{name}{stretch} · base {rotation.theta:,.6g} · "
        f"{rotation.width} of {found.head} channels turn · amplitude {rotation.amplitude:.4f}"
    ]
    wave_F = (2 * math.pi / rotation.frequencies(window)).tolist()
    plain_F = inverse_frequencies(
        "rope", head_dim=rotation.width, theta=rotation.theta, trained_length=trained
    )
    plain_F = (2 * math.pi / plain_F).tolist()
    finite = [w for w in (*wave_F, *plain_F) if math.isfinite(w)]
    top = math.log2(max(*finite, window, trained))

    def place(tokens: float) -> int:
        at = math.log2(max(tokens, 2.0)) / top if math.isfinite(tokens) else 1.0
        return min(COLUMNS - 1, round(at * (COLUMNS - 1)))

    said.append(f"{'pair':>5} {'wavelength':>14}  {'turns in ' + f'{trained:,}':>16}")
    count = len(wave_F)
    rows = sorted({round(i * (count - 1) / max(1, min(ROWS, count) - 1)) for i in range(ROWS)})
    for pair in (row for row in rows if row < count):
        drawn = [" "] * COLUMNS
        drawn[place(trained)], drawn[place(window)] = "│", "┃"
        drawn[place(plain_F[pair])], drawn[place(wave_F[pair])] = "·", "●"
        turns = trained / wave_F[pair]
        said.append(f"{pair:>5} {wave_F[pair]:>14,.1f}  {turns:>16,.3f}  {''.join(drawn)}")
    slow = sum(wave > trained for wave in wave_F)
    said.append(
        f"      ● wavelength  · of plain RoPE  │ {trained:,}, trained  ┃ {window:,}, the window; "
        f"{slow} of {count} pairs turn less than once in the trained length"
    )
    if rotation.scheme in GROWING:
        said.append(f"      the frequencies change with the length; drawn are those at {window:,}")
    return said


# ------------------------------------------------------------------------------------ for an engine


def as_json(found: View) -> str:
    """Return a view as one JSON object.

    It has vectors of cos and sin. `vectors` has, for each kind of layer and length of text, the
    frequencies in radians a token and cos and sin, amplitude in, at a few positions. They are
    computed in fp64.
    """
    vectors = [
        _vectors(kind, rotation, length, found.meant.window)
        for kind, rotation in found.meant.rotations.items()
        for length in _lengths(rotation, found.meant.window)
    ]
    told = [
        {
            "runtime": one.reading.runtime,
            "source": runtimes.SOURCES[one.reading.runtime],
            "window": one.reading.window,
            "agrees": not one.differs,
            "differs": list(one.differs),
            "keys": dict(one.keys),
            "flags": list(one.flags),
            "notes": list(one.reading.notes),
            "amplitude": {kind: r.amplitude for kind, r in one.reading.rotations.items()},
        }
        for one in found.runtimes
    ]
    findings = [
        {"grade": f.grade, "name": f.name, "found": f.found, "expected": f.expected, "says": f.says}
        for f in found.findings
    ]
    whole = {"name": found.name, "model_type": found.family, "window": found.meant.window}
    return json.dumps(whole | {"runtimes": told, "findings": findings, "vectors": vectors})


def _lengths(rotation: Rotation, window: int) -> list[int]:
    """Return the lengths of text whose frequencies differ."""
    if rotation.scheme not in GROWING:
        return [window]
    return sorted({min(rotation.trained, window), window, 2 * rotation.trained})


def _vectors(kind: str, rotation: Rotation, length: int, window: int) -> dict[str, Any]:
    freq_F = rotation.frequencies(length)
    ends = (rotation.trained - 1, length - 1, window - 1)
    positions = sorted({0, 1, 2, *(end for end in ends if end < length)})
    tables = []
    for position in positions:
        cos, sin = rotation_table(freq_F, freq_F.new_tensor(float(position)), freq_F.dtype)
        both = ((table * rotation.amplitude).tolist() for table in (cos, sin))
        tables.append(dict(zip(("cos", "sin"), both, strict=True)) | {"position": position})
    return {
        "layers": kind or "all",
        "length": length,
        "scheme": rotation.scheme,
        "theta": rotation.theta,
        "amplitude": rotation.amplitude,
        "rotated_channels": rotation.width,
        "inverse_frequencies": freq_F.tolist(),
        "at": tables,
    }
