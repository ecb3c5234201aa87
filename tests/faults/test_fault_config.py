"""params.yaml may hold a misspelt key, or a repeated one.

It may hold a value that two readers could read differently, or a wrong value.
"""

import json
import math
import random
import re
import string
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import pytest
from commands import call, imports, try_all
from dvc.utils.serialize import parse_yaml as dvc_parse_yaml
from observe import one_line, snapshot

from farcontext.files import UserError
from farcontext.schema import parse_yaml, read_yaml, validate
from farcontext.studies import params as schema

ROOT = Path(__file__).parents[2]
PARAMS = read_yaml(ROOT / "params.yaml")
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
COMMAND = ["study", "attention_derivation"]


def keys(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key, at each depth."""
    for key, value in tree.items():
        yield (*above, key)
        if (
            isinstance(value, dict) and not above
        ):  # a section; a mapping within it has keys that are data
            yield from keys(value, (*above, key))


KEYS = list(keys(PARAMS))
FIELDS = [path for path in KEYS if len(path) > 1 or not isinstance(PARAMS[path[0]], dict)]


def misspelt(word: str, edits: int, rng: random.Random) -> str:
    """Return a word at an edit distance of at most `edits`.

    Letters are dropped, added, replaced or swapped.
    """
    letters = list(word)
    for _ in range(edits):
        place = rng.randrange(len(letters))
        match rng.choice(("drop", "add", "replace", "swap")):
            case "drop":
                del letters[place]
            case "add":
                letters.insert(place, rng.choice(string.ascii_lowercase))
            case "replace":
                letters[place] = rng.choice(string.ascii_lowercase)
            case "swap" if place + 1 < len(letters):
                letters[place : place + 2] = reversed(letters[place : place + 2])
    return "".join(letters)


def renamed(tree: dict[str, Any], path: tuple[str, ...], name: str) -> dict[str, Any]:
    """Return a copy of a tree in which the key at a path has another name, at the same place."""
    head, *rest = path
    if rest:
        return tree | {head: renamed(tree[head], tuple(rest), name)}
    return {(name if key == head else key): value for key, value in tree.items()}


def refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        validate(schema.Params, tree, "params.yaml")
    return str(caught.value)


def test_fault_51_every_misspelt_key_is_named_with_the_right_suggestion(rng: random.Random) -> None:
    """Each key at each depth is misspelt 20 times.

    The edit distance is 1 and 2 (of a key of three letters, 1).
    """
    tried = 0
    for path in KEYS:
        for trial in range(20):
            name = misspelt(path[-1], 1 + trial % 2 * (len(path[-1]) > 3), rng)
            if name in {other[-1] for other in KEYS if other[:-1] == path[:-1]}:
                continue
            where = ".".join((*path[:-1], name))
            message = refusal(renamed(PARAMS, path, name))
            assert message.startswith(f"params.yaml: {where} = "), message
            assert f"did you mean {path[-1]}?" in message, f"{where}: {message}"
            tried += 1
    assert tried > 15 * len(KEYS)


def test_fault_51_a_foreign_key_gets_no_suggestion() -> None:
    """The twin: a suggestion is not given whatever the key."""
    message = refusal(PARAMS | {"qqqqqqqqqqqqqqq": 1})
    assert "qqqqqqqqqqqqqqq = 1: expected one of profile, studies, corpus" in message
    assert "did you mean" not in message


def test_fault_51_to_54_the_command_line_says_one_line_before_torch(
    tmp_path: Path, rng: random.Random
) -> None:
    """Each key is misspelt, each key repeated, each field wrong.

    The command line answers with code 2 and one line, and nothing is changed on disk.
    """
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    tries, wanted = [], []
    for path in KEYS:
        line = next(
            n
            for n, text in enumerate(TEXT.splitlines())
            if text.lstrip().startswith(f"{path[-1]}:")
        )
        lines = TEXT.splitlines()
        name = misspelt(path[-1], 1, rng)
        if name not in {other[-1] for other in KEYS}:
            lines[line] = lines[line].replace(path[-1], name, 1)
            tries.append("\n".join(lines))
            wanted.append((name, f"did you mean {path[-1]}?"))
    for path in FIELDS:
        tree = deepcopy(PARAMS)
        (tree if len(path) == 1 else tree[path[0]])[path[-1]] = {"odd": 1}
        tries.append(as_yaml(tree))
        wanted.append((".".join(path), " = ", "expected "))
    before = snapshot(tmp_path)
    said, torch_imported = try_all(tmp_path, [(COMMAND, text) for text in tries])
    for found, parts in zip(said, wanted, strict=True):
        assert found.code == 2, found.err
        one_line(found.err, "params.yaml: ", *parts)
    assert not torch_imported
    after = snapshot(tmp_path)
    assert {k: v for k, v in after.items() if k != "params.yaml"} == before


def as_yaml(tree: dict[str, Any]) -> str:
    """Write a tree with flow values (what JSON writes is YAML too)."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += [
                f"{key}:",
                *(f"  {name}: {json.dumps(inner)}" for name, inner in value.items()),
            ]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


HEAVY = {
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "matplotlib",
    "seaborn",
    "transformers",
    "IPython",
    "papermill",
    "dvc",
}


def test_fault_54_a_config_error_is_found_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """Half a second depends on this.

    The seconds themselves are `benchmarks/start_up.py`'s, as a ratio.
    """
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text(
        TEXT.replace("profile: laptop", "profile: 7"), encoding="utf-8"
    )
    said = call(tmp_path, *COMMAND)
    assert said.code == 2
    one_line(said.err, str(tmp_path / "params.yaml"), "profile = 7", "expected text")
    found = imports(tmp_path, *COMMAND)
    assert "farcontext" in found and not found & HEAVY


def test_a_heavy_import_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text(TEXT, encoding="utf-8")
    assert {"numpy", "pandas", "papermill"} <= imports(tmp_path, "code")


def test_fault_52_a_repeated_key_is_named_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    lines = TEXT.splitlines()
    tries, wanted = [], []
    for path in KEYS:
        if len(path) == 1 and isinstance(PARAMS[path[0]], dict):
            text = [*lines, f"{path[0]}: {{}}"]
            first, second = lines.index(f"{path[0]}:") + 1, len(lines) + 1
        else:
            section = lines.index(f"{path[0]}:") if len(path) > 1 else 0
            first = (
                next(
                    n
                    for n in range(section, len(lines))
                    if lines[n].lstrip().startswith(f"{path[-1]}:")
                )
                + 1
            )
            second = first + 1
            text = [*lines[:first], lines[first - 1], *lines[first:]]
        tries.append("\n".join(text))
        wanted.append((f"{path[-1]}: lines {first} and {second}: expected each key once",))
    said, torch_imported = try_all(tmp_path, [(COMMAND, text) for text in tries])
    for found, parts in zip(said, wanted, strict=True):
        assert found.code == 2
        one_line(found.err, "params.yaml: ", *parts)
    assert not torch_imported


SCALARS = """
    1e-3 on off yes no y n 010 0o10 0x1f 0b11 12:30 1:2 190:20:30 1_000 .5 5. -.5 1e3 1E+3 +1 -0
    ~ null Null NULL true True TRUE false .inf -.INF .nan 2026-11-24 '1' "1" 1.5e 0. é 三国 a#b ''
    1e999 0o9 08 00 - -1 1.2.3 = [1,on] {a:1}
""".split()  # noqa: SIM905


def reading(parse, text: str) -> str:
    """Return what a reader makes of `key: text`, types and all; every refusal is the same word."""
    try:
        return repr(parse(f"key: {text}\n", "f.yaml"))
    except Exception:
        return "refused"


@pytest.mark.parametrize("text", SCALARS)
def test_fault_53_a_scalar_means_to_us_what_it_means_to_dvc(text: str) -> None:
    assert reading(parse_yaml, text) == reading(dvc_parse_yaml, text)


def test_fault_53_the_famous_four_have_their_yaml_1_2_meaning() -> None:
    values = parse_yaml("a: 1e-3\nb: on\nc: 010\nd: 12:30\n", "f.yaml")
    assert values == {"a": 0.001, "b": "on", "c": 10, "d": "12:30"}


def test_fault_53_random_scalars_mean_the_same_to_dvc(rng: random.Random) -> None:
    """600 strings are drawn over the characters that readers quarrel about.

    Tags and aliases we refuse on purpose.
    """
    refused = 0
    for _ in range(600):
        text = "".join(
            rng.choices("0123456789.+-_:eExobnyNf~ truTlasi'\"[],", k=rng.randint(1, 7))
        ).strip()
        ours = reading(parse_yaml, text)
        assert ours == reading(dvc_parse_yaml, text), repr(text)
        refused += ours == "refused"
    assert refused < 400, "nearly all were refused: nothing was compared"


ALWAYS_BAD: tuple[object, ...] = ({}, [], math.nan, math.inf, [None], [[]])
BAD: dict[type, tuple[object, ...]] = {  # by the type that params.yaml holds
    bool: ("true", 0, 0.5),
    int: ("1", True, 0.5, 0, -1),
    float: ("0.5", True, -1),
    str: (True, 0, 0.5),
    list: ("text", True, 0, 0.5),
    dict: ("text", True, 0, 0.5, {"odd": 1.0}, {"odd": "text"}),
    type(None): (True, 0.5, -1),
}
BAD_ITEMS: dict[type, tuple[object, ...]] = {
    int: ("1", True, 0.5, -1),
    float: ("0.5", True, -1),
    str: (True, 0, 0.5),
}


def given(path: tuple[str, ...]) -> Any:
    value: Any = PARAMS
    for key in path:
        value = value[key]
    return value


def nullable(path: tuple[str, ...]) -> bool:
    fields = schema.Params.model_fields
    for key in path[:-1]:
        fields = fields[key].annotation.model_fields
    return type(None) in get_args(fields[path[-1]].annotation)


def may_be_empty(path: tuple[str, ...]) -> bool:
    """Whether a list may be left empty: what its own model says of `[]`."""
    tree = deepcopy(PARAMS)
    (tree if len(path) == 1 else tree[path[0]])[path[-1]] = []
    try:
        return bool(schema.Params.model_validate(tree))
    except ValueError:
        return False


MAY_BE_EMPTY = {
    ("recurrence", "flip_flop_tuning_rates"),
    ("recurrence", "tuning_rates"),
    ("recurrence", "tuning_seeds"),
    ("depth_width", "adamw_tuning_rates"),
    ("depth_width", "tuning_rates"),
    ("depth_width", "tuning_seeds"),
    ("context_extension", "tuned_arms"),
    ("context_extension", "encoder_arms"),
    ("context_extension", "second_arms"),
    ("context_extension", "second_seeds"),
    ("context_extension", "second_doses"),
    ("context_extension", "apart_arms"),
    ("context_extension", "longer_arms"),
    ("context_extension", "longer_seeds"),
}


def test_only_these_lists_may_be_empty() -> None:
    assert {path for path in FIELDS if may_be_empty(path)} == MAY_BE_EMPTY


def bad_values(path: tuple[str, ...]) -> list[object]:
    now = given(path)
    items = [[value] for value in BAD_ITEMS[type(now[0])]] if isinstance(now, list) and now else []
    always = [value for value in ALWAYS_BAD if value != [] or path not in MAY_BE_EMPTY]
    return [*always, *BAD[type(now)], *items, *([] if nullable(path) else [None])]


def test_fault_54_every_field_refuses_every_bad_value_with_key_value_and_range() -> None:
    """Every field is given 9 or more bad values.

    They are of a wrong type, out of range, zero, negative, NaN, bool for int, empty or nested.
    """
    for path in FIELDS:
        values = bad_values(path)
        assert len(values) >= 9
        for value in values:
            tree = deepcopy(PARAMS)
            (tree if len(path) == 1 else tree[path[0]])[path[-1]] = value
            message = refusal(tree)
            # of a field, of a section
            places = (
                f"params.yaml: {'.'.join(path)}",
                f"params.yaml: {': '.join(path)} = ",
            )
            assert message.startswith(places), f"{path} = {value!r}: {message}"
            # of a mapping that may stand here, a key may be missing: it has no value to show
            missing = value == {} and re.search(
                r": expected this key( \(and \d+ more\))?$", message
            )
            assert (" = " in message and ": expected " in message) or missing, message
            assert "\n" not in message and len(message) < 300, message


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("steps", 0, "model_anatomy.steps = 0: expected an integer ≥ 1"),
        ("steps", True, "model_anatomy.steps = True: expected an integer ≥ 1"),
        ("seeds", [3, 3], "model_anatomy: seeds = [3, 3]: expected each seed once"),
        ("seeds", [1, -2], "model_anatomy.seeds.1 = -2: expected an integer ≥ 0"),
        (
            "seeds",
            [],
            "model_anatomy.seeds = []: expected a list of 1 or more, each an integer ≥ 0",
        ),
    ],
)
def test_fault_54_the_line_says_what_would_be_right(
    field: str, value: object, expected: str
) -> None:
    tree = deepcopy(PARAMS)
    tree["model_anatomy"][field] = value
    assert refusal(tree) == f"params.yaml: {expected}"


@pytest.mark.parametrize(
    "section", [key for key, value in PARAMS.items() if isinstance(value, dict)]
)
def test_fault_54_a_section_that_is_no_mapping_is_named(section: str) -> None:
    assert (
        refusal(PARAMS | {section: 3})
        == f"params.yaml: {section} = 3: expected a mapping of keys to values"
    )
