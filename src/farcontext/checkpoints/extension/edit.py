"""The edit of a Hugging Face folder's configuration that extends its context.

Nothing is loaded: neither weights nor the libraries that run them. `extend.extend` adds what needs
weights: other formats, tuning, and the losses before and after.
"""

import importlib.metadata
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farcontext import files
from farcontext.checkpoints import refusals
from farcontext.checkpoints.extension.folder import fill
from farcontext.checkpoints.extension.plan import REPORT, Plan, expect_applied, origin_of, plan
from farcontext.checkpoints.rope.outline import outline
from farcontext.checkpoints.rope.readers import for_every_reader, write_window
from farcontext.files import UserError
from farcontext.messages import did_you_mean
from farcontext.nn.positions import SCHEME_NOTES
from farcontext.schema import validate

if TYPE_CHECKING:  # The name is for annotations alone.
    from farcontext.checkpoints.rope.outline import Outline

MEASURED = 10**9  # Of more parameters nothing is loaded to be measured, unless told to.

# transformers can load these schemes (with advice); the others of `positions` are refused.
ADVICE = {
    "yarn": (
        "try first, untuned and tuned; text within the trained length is turned and scaled "
        "differently too"
    ),
    "dynamic_ntk_hf": (
        "untuned; changes nothing within the trained length; keys in a cache keep the base of "
        "their time"
    ),
    "ntk": (
        "untuned; written as a larger rope_theta, which any reader can load; choose s above the "
        "length wanted"
    ),
    "llama3": "tune; yarn's idea with another ramp and no attention factor",
    "abf": "tune; written as a larger rope_theta, which any reader can load",
    "linear": (
        "tune; untuned it brings neighbours s times closer than any seen, also within the "
        "trained length"
    ),
}
REFUSED = {
    "rope": "extends nothing",
    "longrope": (
        "needs short_factor and long_factor, a list of searched factors each, which no factor "
        "implies"
    ),
    "dynamic_ntk": "transformers has dynamic_ntk_hf instead",
    "yarn_untruncated": "use yarn, which transformers rounds",
    "yarn_rotations": "transformers has yarn instead, with its ramp over the pair index",
    "p_rope": "has to be there from the start of training",
    "partial_rotary": "has to be there from the start of training",
}


@dataclass(frozen=True)
class Request:
    """What is asked of an extension; `extend.extend` says what the values mean."""

    scheme: str
    factor: float
    theta: float | None = None
    trained_length: int | None = None


@dataclass(frozen=True)
class Source:
    """What is extended: a path, its configuration, and the JSON of it."""

    path: Path
    config: "Outline"
    raw: dict[str, Any]

    def planned(self, request: Request) -> Plan:
        """Return the new settings; raises UserError as `plan` does."""
        expect_applied(self.path, self.raw)
        origin = origin_of(self.path, self.config, request.trained_length)
        how = (request.scheme, request.factor, request.theta)
        return plan(self.path, self.config, origin, *how)


def scheme_lines() -> list[str]:
    """Return the lines that `farcontext extend --list` prints.

    They say what each scheme does, and whether and when to choose it.
    """
    lines = ["Schemes that transformers loads (s: --factor, L: the trained length):"]
    lines += [
        f"  {name:<15}{SCHEME_NOTES[name]}\n{'':<17}→ {advice}" for name, advice in ADVICE.items()
    ]
    lines += ["Not here:"]
    return lines + [f"  {name:<17}{why}" for name, why in REFUSED.items()]


def edit(checkpoint: Path, out: Path, request: Request) -> dict[str, Any]:
    """Write a Hugging Face folder with an edited configuration.

    The function returns the report.

    Raises:
        UserError: as `extend.extend`, or another format than a Hugging Face folder.
    """
    expect_sound(out, request)
    source = source_of(checkpoint)
    if source is None:
        raise UserError(f"{checkpoint}: expected a folder with a config.json that has model_type")
    planned = source.planned(request)
    with files.folder_atomic(out) as folder:
        fill(source.path, folder)
        rewrite(folder, planned)
        report = report_of(source.path, planned, request)
        files.write_json(folder / REPORT, report)
    return report


def source_of(path: Path) -> Source | None:
    """Read a Hugging Face folder's configuration; None: another format.

    Raises:
        UserError: what `load.load` refuses, but for what only weights can show.
    """
    where = path / "config.json"
    raw = refusals.configuration(path) if where.is_file() else {}
    if "model_type" not in raw:
        return None
    refusals.expect_family(where, raw["model_type"])
    validate(refusals.Configuration, raw, str(where))
    refusals.weights_of(path, raw)
    return Source(path, outline(raw, where), raw)


def is_enough(checkpoint: Path, measure: int | None) -> bool:
    """Return whether `edit` does all.

    It does for a Hugging Face folder, if nothing is to be measured.
    """
    if measure is not None and measure > 0:
        return False
    source = source_of(checkpoint)
    return source is not None and (measure == 0 or parameters(source.config) > MEASURED)


def rewrite(folder: Path, planned: Plan) -> None:
    """Write the new settings into a filled folder, for every reader."""
    kept = files.read_json(folder / "config.json")
    stored = for_every_reader(kept, planned.section, planned.limit)
    files.write_json(folder / "config.json", stored)
    write_window(folder, planned.window)


def expect_sound(out: Path, request: Request) -> None:
    """Refuse what can be refused before anything is read.

    Raises:
        UserError: an option and its value, or a folder that is there.
    """
    scheme, factor, theta = request.scheme, request.factor, request.theta
    if scheme not in ADVICE:
        why = REFUSED.get("rope" if scheme == "none" else scheme)
        hint = "" if why else did_you_mean(scheme, ADVICE)
        expected = f"expected one of {', '.join(ADVICE)}{hint} (farcontext extend --list)"
        raise UserError(
            f"scheme = {scheme}: {why}: {expected}" if why else f"scheme = {scheme}: {expected}"
        )
    if not (math.isfinite(factor) and factor > 1):
        raise UserError(f"factor = {factor}: expected a number above 1")
    if theta is not None and not (scheme == "abf" and math.isfinite(theta) and theta > 1):
        raise UserError(
            f"theta = {theta}, scheme = {scheme}: expected a base above 1, with scheme abf alone"
        )
    if request.trained_length is not None and request.trained_length < 2:
        raise UserError(f"trained_length = {request.trained_length}: expected 2 tokens or more")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists: expected a folder that is not there yet")


def parameters(config: "Outline") -> int:
    """Return about how many numbers a model of this shape has."""
    width, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * width
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    return layers * width * (3 * width + 3 * inner * (experts or 1)) + config.vocab_size * width


def report_of(
    path: Path, planned: Plan, request: Request, tuning: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what is kept of an extension.

    A later one counts from `origin`.
    """
    origin = planned.origin
    known = {"rope_theta": origin.theta, "factor": planned.factor, "tuned": bool(tuning)}
    known["tuned"] |= bool(origin.fixed)
    return {
        "scheme": request.scheme,
        "factor": request.factor,
        "checkpoint": path.resolve().name.removesuffix(".gguf"),
        "trained_length": origin.length,
        "window": planned.window,
        "origin": known,
        "rope_parameters": planned.section,
        "max_position_embeddings": planned.limit,
        "warnings": list(planned.warnings),
        "versions": _versions(),
        "tuning": tuning,
        "loss": [],
    }


def _versions() -> dict[str, str]:
    names = ("farcontext", "torch", "transformers")
    return {name: importlib.metadata.version(name) for name in names}


def lines(report: dict[str, Any], out: Path) -> list[str]:
    """Return what is said of an extended folder.

    That is its window, from where, and warnings.
    """
    window, limit = report["window"], report["max_position_embeddings"]
    grows = "" if limit == window else f"; with this scheme texts may have {window} tokens"
    said = [f"{out}: max_position_embeddings = {limit}{grows}"]
    said += [f"counted from the trained length, {report['trained_length']} tokens"]
    if not report["loss"]:
        said += ["loss before and after: not measured (--measure N loads the weights)"]
    return said + [f"warning: {text}" for text in report["warnings"]]
