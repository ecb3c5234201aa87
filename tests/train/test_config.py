"""Configurations: frozen, strict, consistent, and the YAML reader's refusals."""

from pathlib import Path

import pytest
from observe import refuses
from pydantic import ValidationError
from tiny import tiny_run

from farcontext.nn.config import ModelConfig
from farcontext.schema import parse_yaml, read_yaml, validate
from farcontext.train.config import OptimizerConfig, RunConfig

SHAPE = {
    "kind": "encoder",
    "vocab_size": 300,
    "width": 32,
    "layers": 2,
    "heads": 4,
    "mlp_width": 64,
    "max_length": 128,
}


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"heads": 5}, ("width = 32", "heads = 5")),
        ({"kv_heads": 3}, ("heads = 4", "kv_heads = 3")),
        ({"width": 36, "heads": 4}, ("width = 36", "heads = 4", "positions = rope")),
        ({"window": 129}, ("window = 129", "max_length = 128")),
    ],
)
def test_an_impossible_shape_names_every_key_that_takes_part(
    changes: dict, keys: tuple[str, ...]
) -> None:
    with refuses("expected") as caught:
        validate(ModelConfig, SHAPE | changes, "model")
    assert all(key in str(caught.value) for key in keys)


def test_an_odd_head_width_is_fine_without_rope() -> None:
    assert (
        validate(ModelConfig, SHAPE | {"width": 36, "positions": "learned"}, "model").head_width
        == 9
    )


def test_a_row_longer_than_the_model_and_an_uneven_accumulation_are_refused() -> None:
    run = tiny_run().model_dump()
    with refuses("batch.length = 17, model.max_length = 16"):
        validate(RunConfig, run | {"batch": run["batch"] | {"length": 17}}, "run")
    with refuses("batch.rows = 4, optimizer.accumulation = 3"):
        validate(RunConfig, run | {"optimizer": run["optimizer"] | {"accumulation": 3}}, "run")


def test_a_configuration_is_frozen_hashable_and_round_trips() -> None:
    run = tiny_run()
    with pytest.raises(ValidationError, match="frozen"):
        run.steps = 3
    again = validate(RunConfig, run.model_dump(mode="json"), "run")
    assert again == run and hash(again) == hash(run)
    assert hash(tiny_run(seed=1)) != hash(run)


def test_types_are_strict() -> None:
    for changes in (
        {"width": "32"},
        {"width": 32.0},
        {"tied": 1},
        {"kind": "Encoder"},
        {"init_std": float("nan")},
    ):
        with refuses(next(iter(changes))):
            validate(ModelConfig, SHAPE | changes, "model")
    assert validate(OptimizerConfig, {"lr": 1}, "optimizer").lr == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "a: lines 1 and 3: expected each key once"),
        ("s:\n  a: 1\n  b: 2\n  a: 3\nt:\n  a: 1\n", "a: lines 2 and 4: expected each key once"),
        ("- 1\n", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: [1\n", "expected YAML"),
        ("a: !!python/object/apply:os.system ['touch canary']\n", "no tag"),
        ("a: &x [1]\nb: *x\n", "no alias"),
        ("a: " + "[" * 60 + "]" * 60 + "\n", "levels of nesting"),
        ("\n".join(" " * i + "a:" for i in range(100)), "levels of nesting"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_in_one_line(text: str, message: str) -> None:
    with refuses(message) as caught:
        parse_yaml(text, "f.yaml")
    assert str(caught.value).startswith("f.yaml:") and "\n" not in str(caught.value)


def test_a_file_that_is_missing_huge_or_not_utf_8_is_refused(tmp_path: Path) -> None:
    with refuses("expected a file here"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff\n")
    with refuses("byte 3: expected UTF-8"):
        read_yaml(tmp_path / "bytes.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"a: 1\n" + b"#" * (1 << 20))
    with refuses("expected at most"):
        read_yaml(tmp_path / "huge.yaml")
