"""Configurations: frozen, strict, consistent, and the YAML reader's refusals."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from commands import try_all
from observe import one_line, refuses, snapshot
from pydantic import ValidationError
from tiny import make_project, task_run, tiny_run

from farcontext.nn.config import ModelConfig
from farcontext.nn.positions import OPTIONS, SCHEMES
from farcontext.schema import parse_yaml, read_yaml, validate
from farcontext.tasks.rows import MADE, VOCABULARY
from farcontext.train.config import OptimizerConfig, RunConfig, Task

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
        (
            {"random_positions": 9, "positions": "none"},
            ("random_positions = 9", "positions = none"),
        ),
        ({"theta": 1}, ("theta = 1: expected a number > 1",)),
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


def extended(scheme: str, **options: Any) -> dict[str, Any]:
    return {"extension": {"scheme": scheme, "trained_length": 64} | options}


FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            extended("yarnn"),
            ("extension.scheme = yarnn: expected one of rope, ", "did you mean yarn?"),
        ),
        (
            extended("linear", beta_fast=2.0),
            ("extension.scheme = linear: beta_fast = 2.0: expected an option of linear",),
        ),
        (extended("yarn", p=0.5), ("scheme = yarn: p = 0.5: expected an option of yarn (beta",)),
        (extended("yarn", beta_fast=0.5), ("scheme = yarn: beta_slow = 1.0", "beta_fast = 0.5")),
        (extended("p_rope"), ("scheme = p_rope: p = None: expected a share",)),
        (extended("longrope"), ("scheme = longrope: short_factor = None: expected 4 positive",)),
        (
            extended("longrope", **FACTORS | {"long_factor": [2.0]}),
            ("scheme = longrope: long_factor = (2.0,): expected 4 positive",),
        ),
        (extended("partial_rotary", p=0.4), ("scheme = partial_rotary: p = 0.4",)),
        (extended("abf", trained_length=6), ("scheme = abf: trained_length = 6",)),
        (extended("longrope", **FACTORS, trained_length=1), ("longrope: trained_length = 1",)),
        (
            extended("yarn") | {"positions": "learned"},
            ("extension.scheme = yarn, positions = learned",),
        ),
        (
            extended("yarn") | {"positions": "alibi"},
            ("extension.scheme = yarn, positions = alibi",),
        ),
    ],
)
def test_a_scheme_that_does_not_exist_or_fit_is_refused_with_its_option(
    changes: dict, said: tuple[str, ...]
) -> None:
    with refuses("expected") as caught:
        validate(ModelConfig, SHAPE | changes, "model")
    assert all(part in str(caught.value) for part in said), caught.value


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_taken_with_the_options_that_it_needs(scheme: str) -> None:
    needed = {name: value for name, value in OPTIONS.get(scheme, {}).items() if value is None}
    options = (FACTORS | {"p": 0.5, "new_theta": 2e4}).items()
    given = {name: value for name, value in options if name in needed}
    assert validate(ModelConfig, SHAPE | extended(scheme, **given), "model")


def tasks(*given: dict[str, Any], **stage: Any) -> dict[str, Any]:
    """Return a batch of one stage; a task without options fits into it."""
    return {"stages": [{"steps": 5, "rows": 4, "length": 32, "tasks": [*given]} | stage]}


def test_the_tasks_of_a_run_file_are_the_generators() -> None:
    """Every task has its number of ids, and every option of one is an option of some generator."""
    assert set(MADE) | {"prepared"} == set(Task.model_fields["name"].annotation.__args__)
    assert set(MADE) == set(VOCABULARY)
    keywords = {
        x.name
        for make in MADE.values()
        for x in inspect.signature(make).parameters.values()
        if x.kind is x.KEYWORD_ONLY
    }
    assert keywords | {"name", "digest"} == set(Task.model_fields)


DIGEST = "a" * 64
IMPOSSIBLE = {
    "a task without its option": (
        {"batch": tasks({"name": "prepared"})},
        ("name = prepared, digest = null",),
    ),
    "another task's option": (
        {"batch": tasks({"name": "recall", "ignores": 0.5})},
        ("name = recall, ignores = 0.5: expected an option of recall (pairs, span, depth)",),
    ),
    "an option beside a digest": (
        {"batch": tasks({"name": "prepared", "digest": DIGEST, "pairs": 2})},
        ("name = prepared, pairs = 2: expected an option of prepared (digest)",),
    ),
    "a digest for a task that is made": (
        {"batch": tasks({"name": "flip_flop", "digest": DIGEST})},
        ("name = flip_flop, digest = aaa",),
    ),
    "more pairs than a row holds": (
        {"batch": tasks({"name": "recall", "pairs": 9})},
        ("length = 32, pairs = 9, span = 14: expected",),
    ),
    "an odd row": (
        {"batch": tasks({"name": "flip_flop"}, length=31)},
        ("length = 31: expected an even number",),
    ),
    "a source as long as the row": (
        {
            "batch": tasks({"name": "prepared", "digest": DIGEST}, source=32),
            "model.kind": "encoder_decoder",
        },
        ("source = 32, length = 32: expected source below length",),
    ),
    "a source of rows without one": (
        {"batch": tasks({"name": "recall"}, source=8), "model.kind": "encoder_decoder"},
        ("source = 8, tasks.name = recall: expected prepared",),
    ),
    "a source for a decoder": (
        {"batch": tasks({"name": "prepared", "digest": DIGEST}, source=8)},
        ("model.kind = decoder, batch.stages.source = 8: expected a source for encoder_decoder",),
    ),
    "no source for an encoder-decoder": (
        {"model.kind": "encoder_decoder"},
        ("model.kind = encoder_decoder, batch.stages.source = null: expected a source",),
    ),
    "fewer ids than the task": (
        {"model.vocab_size": 95},
        ("model.vocab_size = 95", "name = dense_recall: expected at least 96 ids"),
    ),
    "no id for an encoder's mask": (
        {"model.vocab_size": 96, "model.kind": "encoder"},
        ("model.vocab_size = 96, model.kind = encoder", "expected at least 97 ids"),
    ),
    "fewer random positions than tokens": (
        {"model.random_positions": 31},
        ("batch.length = 32, model.random_positions = 31",),
    ),
    "a learned table that ends before the row": (
        {
            "model.positions": "learned",
            "model.extension": {"scheme": "linear", "scale": 1.5, "trained_length": 21},
        },
        ("batch.length = 32, model.extension.trained_length = 21, scale = 1.5", "at most 31"),
    ),
    "a recurrent state in half precision": (
        {"model.kind": "lstm", "dtype": "bfloat16"},
        ("model.kind = lstm, dtype = bfloat16: expected float32",),
    ),
    "three rates of forgetting": (
        {"optimizer.betas": [0.9, 0.99, 0.999]},
        ("optimizer.betas = ", "expected a list of 2, each a number ≥ 0 and < 1"),
    ),
    "a rate of forgetting of 1": (
        {"optimizer.betas": [0.9, 1.0]},
        ("optimizer.betas.1 = 1.0: expected a number ≥ 0 and < 1",),
    ),
} | {
    f"{kind} on a text": (
        {"batch": {"objective": objective, "length": 16, "rows": 4}, "model.kind": kind},
        (f"model.kind = {kind}, batch.objective = {objective}: expected", wanted),
    )
    for kind, objective, wanted in (
        ("encoder", "clm", "expected objective mlm: an encoder sees the token that it predicts"),
        ("encoder_decoder", "clm", "kind encoder or decoder, or objective tasks"),
        ("rnn", "clm", "kind encoder or decoder, or objective tasks"),
        ("lstm", "mlm", "kind encoder or decoder, or objective tasks"),
        ("gru", "clm", "kind encoder or decoder, or objective tasks"),
    )
}


def run_file(changes: dict[str, Any]) -> dict[str, Any]:
    """Return a run that trains, with some values changed, by dotted keys."""
    run = json.loads(task_run().model_dump_json())
    for dotted, value in changes.items():
        *above, key = dotted.split(".")
        section = run
        for name in above:
            section = section[name]
        section[key] = {"objective": "tasks"} | value if key == "batch" else value
    return run


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_run_is_one_line_with_all_keys_that_take_part(name: str) -> None:
    changes, said = IMPOSSIBLE[name]
    with refuses("expected") as caught:
        validate(RunConfig, run_file(changes), "run.yaml")
    assert all(part in str(caught.value) for part in said), caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.kind": "encoder"},
        {"model.kind": "gru"},
        {"model.random_positions": 32},
        {
            "model.kind": "encoder_decoder",
            "batch": tasks({"name": "prepared", "digest": DIGEST}, source=31),
        },
    ],
)
def test_a_run_at_the_edge_of_what_is_possible_is_taken(changes: dict) -> None:
    assert validate(RunConfig, run_file(changes), "run.yaml")


def test_an_impossible_run_file_is_code_2_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself, also on what only the texts and the cache can tell."""
    root = make_project(tmp_path / "project")
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    runs = {name: run_file(changes) for name, (changes, _) in IMPOSSIBLE.items()}
    said = {name: parts for name, (_, parts) in IMPOSSIBLE.items()}
    corpus = json.loads(tiny_run().model_dump_json())
    for name, changes, parts in (
        ("another vocabulary", {"model": corpus["model"] | {"vocab_size": 265}}, ("265", "264")),
        ("no such domain", {"batch": corpus["batch"] | {"domains": ["tale"]}}, ("tale: expected",)),
        ("too little text", {"batch": corpus["batch"] | {"limit": 9}}, ("9 tokens: expected",)),
    ):
        runs[name], said[name] = corpus | changes, parts
    lost = tasks({"name": "prepared", "digest": DIGEST})["stages"]
    runs["lost rows"] = run_file({})
    runs["lost rows"]["batch"]["stages"] = lost + runs["lost rows"]["batch"]["stages"]
    said["lost rows"] = (f"{DIGEST}.npy: expected the rows of this digest",)
    for number, run in enumerate(runs.values()):
        (root / f"{number}.yaml").write_text(json.dumps(run), encoding="utf-8")
    before = snapshot(root)
    found, _ = try_all(root, [(["train", f"{n}.yaml"], None) for n in range(len(runs))])
    for name, answer in zip(runs, found, strict=True):
        assert answer.code == 2, (name, answer.err)
        one_line(answer.err, *said[name])
    assert snapshot(root) == before
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert set(kept) <= {".lock", ".owner.json"}  # They say who held a folder.


def test_weights_of_another_shape_are_one_line(tmp_path: Path, monkeypatch) -> None:
    root = make_project(tmp_path / "project")
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    start = run_file({"steps": 1, "save_every": 1})
    wider = run_file({"start": start, "model.width": 32})
    for name, run in (("start", start), ("wider", wider)):
        (root / f"{name}.yaml").write_text(json.dumps(run), encoding="utf-8")
    answers, _ = try_all(root, [(["train", f"{name}.yaml"], None) for name in ("start", "wider")])
    assert (answers[0].code, answers[1].code) == (0, 2), answers
    one_line(answers[1].err, "expected weights of the model that reads them: size mismatch for ")


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
        (f"a:\n  b: [1, {2**63}]\n", "a.b.1: expected a whole number of at most 64 bits"),
        ("a: " + "9" * 5000 + "\n", "expected YAML"),
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
