"""What a study leaves to choose is chosen here, once, and recorded.

A run never chooses: two learning rates that tie within rounding would move a study on another CPU.
The trials stand in results/tuning, and what they chose in params.yaml, where a test holds both
together.
"""

import importlib.metadata
import importlib.util
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from farcontext import files
from farcontext.files import UserError
from farcontext.messages import did_you_mean
from farcontext.results import tables
from farcontext.studies.params import STUDIES


def module(study: str) -> ModuleType:
    """Return a study's `tuning` module.

    Raises:
        UserError: no such study, or one that leaves nothing to choose.
    """
    known = [x for x in STUDIES if importlib.util.find_spec(f"farcontext.studies.{x}.tuning")]
    if study not in known:
        raise UserError(
            f"study = {study}: expected one that tunes: {', '.join(known)}"
            f"{did_you_mean(study, known)}"
        )
    return importlib.import_module(f"farcontext.studies.{study}.tuning")


def folder(root: Path, profile: str) -> Path:
    """Return where a profile's trials are recorded."""
    return root / "results" / ("tuning" if profile == "laptop" else f"tuning-{profile}")


def tune(root: Path, study: str, params: Any) -> dict[str, Any]:
    """Run a study's trials, record them, and return the choices.

    They are what its section should hold.

    Args:
        root: the project.
        study: a study with a `tuning` module.
        params: all of a profile's parameters.

    Raises:
        UserError: nothing to try; nothing is written then.
    """
    section, chooser = getattr(params, study), module(study)
    if not getattr(section, "lrs", getattr(section, "tuning_rates", ())):
        raise UserError(f"params.yaml: {study}: tuning_rates = []: expected at least one rate")
    start = time.perf_counter()
    table = chooser.tune(section)
    path = folder(root, params.profile) / f"{study}.csv"
    text = table.to_csv(
        index=False, float_format=f"%.{tables.SIGNIFICANT_DIGITS}g", lineterminator="\n"
    )
    files.write_atomic(path, text)
    card = {
        "study": study,
        "config": section.model_dump(mode="json"),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "torch": importlib.metadata.version("torch"),
    }
    files.write_json(path.with_suffix(".json"), card)
    return chooser.choices(table)
