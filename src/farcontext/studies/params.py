"""The schema of params.yaml: one section a study.

Sections have the order of their notebooks. It is importable without torch. A study is a folder here
with a `params` module, so nothing lists the studies by hand, and training never imports this: a new
study makes no trained model stale.
"""

import importlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model

from farcontext.data.config import Corpus, Tokenizer
from farcontext.files import UserError
from farcontext.schema import Frozen, Names, read_yaml, validate
from farcontext.studies.section import Study


def _studies() -> dict[str, type[Study]]:
    names = (path.parent.name for path in Path(__file__).parent.glob("*/params.py"))
    found = {
        name: importlib.import_module(f"farcontext.studies.{name}.params").Params for name in names
    }
    return dict(sorted(found.items(), key=lambda item: item[1].number))


STUDIES = _studies()

Params: type[Frozen] = create_model(
    "Params",
    __base__=Frozen,
    __doc__="All of params.yaml.",
    profile=Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")],  # It names a folder below build/.
    studies=Names,  # Stage `study` runs these.
    corpus=Corpus,
    tokenizer=Tokenizer,
    **STUDIES,
)


def read_params(path: Path | str) -> Any:
    """Read and validate params.yaml.

    Raises:
        UserError: one line; also if `studies` does not name every study once, in order.
    """
    return checked(read_yaml(path), str(path))


def read_profile(root: Path, name: str) -> Any:
    """Read profiles/NAME.yaml over params.yaml.

    What it leaves out stays as it is there.

    Raises:
        UserError: one line; also if the file gives the profile another name than its own.
    """
    path = root / "profiles" / f"{name}.yaml"
    values = read_yaml(root / "params.yaml") | {"profile": name}
    for key, value in read_yaml(path).items():
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        values[key] = values[key] | value if both else value
    if values["profile"] != name:
        raise UserError(
            f"{path}: profile = {values['profile']!r:.80}: expected {name}, or no such key"
        )
    return checked(values, str(path))


def checked(values: dict[str, Any], path: str) -> Any:
    """Validate a whole params.yaml."""
    params = validate(Params, values, path)
    if list(params.studies) != list(STUDIES):
        raise UserError(f"{path}: studies = {list(params.studies)}: expected {list(STUDIES)}")
    return params
