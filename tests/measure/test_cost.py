"""Costs by formula agree with golden values and with what is counted.

The tests count pairs and build models; they hold the fit, and what `farcontext cost` says.
"""

import json
import math
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from observe import one_line, refuses

from farcontext import files
from farcontext.app import cli
from farcontext.measure import cost, formulas
from farcontext.nn.config import ModelConfig
from farcontext.nn.masks import Pattern
from farcontext.nn.transformer import Decoder, Encoder, num_parameters
from farcontext.results import tables

GOLDENS = Path(__file__).parent.parent / "goldens"
SHAPE = {"layers": 3, "width": 16, "heads": 4, "kv_heads": 2, "mlp_width": 24, "vocab_size": 64}
UNIT = {"memory": cost.memory_terms, "time": cost.time_terms}


def golden(name: str) -> list[dict]:
    return json.loads((GOLDENS / "costs.json").read_text(encoding="utf-8"))[name]


def ones() -> cost.Coefficients:
    """Coefficients 1 for every term there is."""
    config = cost.shape("test", **SHAPE)
    kinds = product(("memory", "time"), ("training", "inference"))
    return {(q, kind): dict.fromkeys(UNIT[q](config, cost.Work(kind, 8)), 1.0) for q, kind in kinds}


# ---------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize(
    "case", golden("attention"), ids=lambda case: f"T={case['T']},S={case['S']}"
)
def test_attention_costs_what_the_convention_says(case: dict) -> None:
    B, N, T, S, H, b = (case[name] for name in ("B", "N", "T", "S", "H", "bytes_per_element"))
    forward = formulas.attention_flop(B, N, H, formulas.convention_pairs(T, S, case["causal"]))
    assert forward == case["forward_flop"]
    assert formulas.BACKWARD * forward == case["backward_flop"]
    assert (
        formulas.training_flop({"attention": forward, "layers": 0, "output": 0})
        == case["forward_plus_backward_flop"]
    )
    least, scores = formulas.attention_bytes(B, N, H, T, S, b), formulas.score_bytes(B, N, T, S, b)
    assert (least, scores) == (case["io_bytes_flash_minimum"], case["score_matrix_bytes"])
    assert least + 4 * scores == case["io_bytes_materialised"]
    assert forward / least == case["intensity_flash"]
    assert forward / (least + 4 * scores) == case["intensity_materialised"]


def test_a_halved_count_without_a_causal_mask_is_noticed() -> None:
    (case,) = [c for c in golden("attention") if c["T"] == 16_384 and not c["causal"]]
    assert (
        formulas.convention_pairs(16_384, 16_384, causal=True) * 4 * 16 * 128
        != case["forward_flop"]
    )


@pytest.mark.parametrize("case", golden("kv_cache"), ids=lambda case: f"T={case['T']}")
def test_the_cache_holds_keys_and_values_of_every_layer(case: dict) -> None:
    shape = {
        "layers": case["layers"],
        "width": 32 * case["H"],
        "heads": 32,
        "kv_heads": case["G"],
        "vocab_size": 2,
    }
    config = cost.shape("test", **shape)
    assert (
        formulas.kv_cache_bytes(config, case["T"], case["B"], case["bytes_per_element"])
        == case["kv_cache_bytes"]
    )


# ------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_numbers_are_counted_without_memory(kind: str) -> None:
    config = cost.shape("test", kind=kind, **SHAPE).model_copy(update={"max_length": 32})
    built = (Encoder if kind == "encoder" else Decoder)(config)
    assert formulas.size_of(config).parameters == num_parameters(built)
    matrices = [p for name, p in built.named_parameters() if "blocks" in name and p.ndim == 2]
    assert formulas.size_of(config).matrices == sum(p.numel() for p in matrices)


def test_published_models_have_their_published_sizes() -> None:
    models = json.loads((GOLDENS / "parameter_counts.json").read_text(encoding="utf-8"))["models"]
    counts = {model["name"]: model["parameters"] for model in models}
    seven = cost.shape(
        "test", layers=32, width=4096, heads=32, mlp_width=11_008, vocab_size=32_000, tied=False
    )
    assert formulas.size_of(seven).parameters == counts["Llama-2-7B shape"]


@pytest.mark.parametrize(
    ("kind", "window", "every"), list(product(("encoder", "decoder"), (None, 3), (0, 1, 2)))
)
def test_flops_count_the_pairs_that_are_visible(kind: str, window: int | None, every: int) -> None:
    T, rows = 12, 2
    config = cost.shape("test", kind=kind, window=window, global_every=every, **SHAPE)
    whole = Pattern.causal() if kind == "decoder" else Pattern()
    band = Pattern.window(3, causal=kind == "decoder")
    wide = [window is None or (every > 0 and layer % every == 0) for layer in range(3)]
    pairs = sum(int((whole if w else band).allowed(T, T).sum()) for w in wide)
    found = formulas.flop(config, T, rows, scored=5)
    assert found["attention"] == 4 * rows * 16 * pairs
    assert found["layers"] == 2 * formulas.size_of(config).matrices * rows * T
    assert found["output"] == 2 * 64 * 16 * 5


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_at_break_even_attention_is_half_of_the_work(kind: str) -> None:
    config = cost.shape("test", kind=kind, **SHAPE | {"vocab_size": 4096})
    T = round(formulas.break_even(config))
    found = formulas.flop(config, T)
    assert found["attention"] / sum(found.values()) == pytest.approx(0.5, abs=0.01)
    longer = formulas.flop(config, 2 * T)
    assert longer["attention"] / sum(longer.values()) > 0.6


def test_what_grows_with_the_square_is_the_plain_path_and_a_dense_mask() -> None:
    for backend, window, square in (
        ("reference", None, True),
        ("sdpa", 4, True),
        ("sdpa", None, False),
        ("auto", 4, False),
    ):
        config = cost.shape("test", window=window, global_every=0 if window else 1, **SHAPE)
        short, long = (
            sum(cost.memory_terms(config, cost.Work("inference", T, backend=backend)).values())
            for T in (2**14, 2**15)
        )
        assert (long / short > 3.5) is square, (backend, window)
        assert long / short < 4.1


def test_training_holds_every_layer_and_inference_one() -> None:
    config = cost.shape("test", **SHAPE)
    training, inference = (
        cost.memory_terms(config, cost.Work(kind, 256)) for kind in ("training", "inference")
    )
    assert training["layers"] == 3 * inference["layer"] and inference["layers"] == 0
    assert (
        training["weights"] == 4 * inference["weights"] == 16 * formulas.size_of(config).parameters
    )


# ---------------------------------------------------------------------------------------------- fit


def test_a_fit_finds_the_coefficients_that_made_the_numbers() -> None:
    shapes = [
        cost.shape("test", **SHAPE | {"layers": n, "width": w})
        for n, w in product((1, 2, 5), (16, 32, 64))
    ]
    terms = [
        cost.memory_terms(shape, cost.Work("training", T, 2)) for shape in shapes for T in (64, 256)
    ]
    true = dict.fromkeys(terms[0], 0.0) | {
        "constant": 2.0,
        "weights": 0.75,
        "layers": 1.25,
        "logits": 3.0,
    }
    found = cost.fit(terms, [cost.predict(true, row) for row in terms])
    assert all(
        found[name] == pytest.approx(value, abs=1e-6) for name, value in true.items() if value
    )
    assert all(value >= 0 for value in found.values())


def test_a_term_left_out_is_noticed_by_the_error() -> None:
    config = cost.shape("test", **SHAPE)
    terms = [
        cost.memory_terms(config, cost.Work("training", T, 2, "reference"))
        for T in (64, 128, 512, 1024)
    ]
    held = [sum(row.values()) for row in terms]
    blind = [
        {name: value for name, value in row.items() if name not in ("score", "scores")}
        for row in terms
    ]
    errors = [
        abs(cost.predict(cost.fit(blind, held), row) / true - 1)
        for row, true in zip(blind, held, strict=True)
    ]
    assert max(errors) > 0.15
    errors = [
        abs(cost.predict(cost.fit(terms, held), row) / true - 1)
        for row, true in zip(terms, held, strict=True)
    ]
    assert max(errors) < 1e-6


def test_coefficients_survive_being_written() -> None:
    written = cost.as_frame(ones())
    assert cost.from_frame(written) == ones()
    assert set(written["kind"]) == {"training", "inference"}


# ---------------------------------------------------------------------------------------- estimates


def test_an_estimate_by_rate_is_flops_over_rate() -> None:
    config = cost.shape("test", **SHAPE)
    found = cost.estimate(config, [64, 128], ones(), rows=2, rate=1e9).set_index("length")
    forward = formulas.flop(config, 128, 2)
    assert found["training_seconds"][128] == pytest.approx(formulas.training_flop(forward) / 1e9)
    assert found["kv_cache_bytes"][128] == 2 * 3 * 2 * 4 * 128 * 2 * 4
    assert 0 < found["attention_share"][64] < found["attention_share"][128] < 1


def test_bf16_halves_activations_and_says_nothing_of_unmeasured_time() -> None:
    config = cost.shape("test", **SHAPE)
    full, half = (
        cost.estimate(config, [4096], ones(), dtype=d).iloc[0] for d in ("float32", "bfloat16")
    )
    assert half["training_bytes"] < 0.6 * full["training_bytes"]
    assert math.isnan(half["training_seconds"]) and not math.isnan(full["training_seconds"])
    said = "\n".join(cost.lines(config, pd.DataFrame([half])))
    assert "nan" not in said and "–" in said
    assert (
        json.loads(cost.as_json(config, pd.DataFrame([half])))["lengths"][0]["training_seconds"]
        is None
    )


def test_bad_values_are_one_line() -> None:
    config = cost.shape("test", **SHAPE)
    with refuses("width = 15, heads = 4: expected heads to divide width"):
        cost.shape("test", **SHAPE | {"width": 15})
    with refuses("layers = 0: expected an integer ≥ 1"):
        cost.shape("test", **SHAPE | {"layers": 0})
    with refuses("backend = flash, dtype = float32: expected auto, sdpa, reference"):
        cost.estimate(config, [8], ones(), backend="flash")
    with refuses("batch = 0: expected at least 1"):
        cost.estimate(config, [8], ones(), rows=0)
    with refuses("lengths = 8,x: expected tokens, as 1024,8192"):
        cost.lengths_of("8,x")
    with refuses("kind = lstm: expected encoder or decoder"):
        formulas.size_of(cost.shape("test", kind="lstm", **SHAPE))


def test_without_a_fitted_model_what_formulas_know_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cost.published() is not None  # It is that of the checkout the package stands in.
    monkeypatch.setattr(cost, "CHECKOUT", tmp_path)
    assert cost.published() is None
    code, out, _ = said(monkeypatch, capsys, "1024", "--layers", "2", "--width", "64")
    assert code == 0 and "nan" not in out and "KV cache" in out
    assert out.splitlines()[-1].startswith("– : not known here")
    config = cost.shape("test", **SHAPE)
    row = cost.estimate(config, [64], None, rate=1e9).iloc[0]
    assert math.isnan(row["inference_bytes"]) and row["inference_seconds"] > 0


def test_weights_count_in_the_dtype_that_they_are_stored_in() -> None:
    config = cost.shape("test", **SHAPE)
    full, four = (
        cost.memory_terms(config, cost.Work("inference", 8, stored=b))["weights"] for b in (4, 0.5)
    )
    assert full == 8 * four == 4 * formulas.size_of(config).parameters
    assert "GiB in int4" in cost.lines(config, cost.estimate(config, [8], ones()), "int4")[0]
    half, four = (cost.estimate(config, [8], ones(), dtype=d) for d in ("bfloat16", "int4"))
    assert half["kv_cache_bytes"][0] == four["kv_cache_bytes"][0]
    assert half["inference_bytes"][0] - four["inference_bytes"][0] == pytest.approx(
        1.5 * formulas.size_of(config).parameters
    )


def test_a_shape_by_hand_has_mlp_width_and_an_untied_output(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    eight = ("--layers", "32", "--width", "4096", "--heads", "32", "--kv-heads", "8")
    eight += ("--vocabulary", "128256", "--mlp-width", "14336", "--untied", "--dtype", "bfloat16")
    code, out, _ = said(monkeypatch, capsys, "8192", *eight)
    assert code == 0 and "8,030.3 M parameters, 14.96 GiB in bfloat16" in out


def test_the_usual_width_of_the_mlp_is_eight_thirds() -> None:
    shape = cost.shape("test", layers=1, width=768, heads=12, vocab_size=8)
    assert isinstance(shape, ModelConfig) and shape.mlp_width == 2048


# ------------------------------------------------------------------------------------- command line


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a published cost model whose every coefficient is 1."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = tables.path_in(tables.published_folder(), cost.STUDY, cost.TABLE)
    files.write_atomic(path, cost.as_frame(ones()).to_csv(index=False))
    return tmp_path


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: str
) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of `farcontext cost …`.

    It runs in this process, which has torch already.
    """
    monkeypatch.setattr("sys.argv", ["farcontext", "cost", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def test_the_command_prints_a_line_a_length_marked_as_computed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    small = (
        "--layers",
        "2",
        "--width",
        "64",
        "--heads",
        "4",
        "--kv-heads",
        "2",
        "--vocabulary",
        "100",
    )
    code, out, _ = said(monkeypatch, capsys, "1024,4096", *small, "--window", "32", "--batch", "2")
    assert code == 0 and len(out.splitlines()) == 4 and out.startswith("computed, not measured: 0.")
    code, out, _ = said(
        monkeypatch, capsys, "1024", *small, "--dtype", "bfloat16", "--tflops", "100", "--json"
    )
    found = json.loads(out)
    assert code == 0 and found["computed"] is True
    assert found["lengths"][0]["kv_cache_bytes"] == 2 * 2 * 2 * 16 * 1024 * 2
    assert found["lengths"][0]["training_seconds"] == pytest.approx(
        found["lengths"][0]["training_flop"] / 1e14
    )


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("1024", "--width", "100", "--heads", "3"), "expected heads to divide width"),
        (("1024", "--layers", "0"), "layers = 0: expected an integer ≥ 1"),
        (("1024", "--backend", "flash"), "expected auto, sdpa, reference"),
        (("1024", "--dtype", "int3"), "float32, bfloat16"),
        (("1024", "--kind", "lstm"), "expected encoder or decoder"),
        (("1k",), "lengths = 1k: expected tokens"),
        (("1024", "--batch", "0"), "batch = 0: expected at least 1"),
        (("1024", "--heads", "two"), "'--heads'"),
        (("1024", "--heads", "0"), "heads = 0: expected an integer ≥ 1"),
        (
            ("1024", "--layers", "1000000000"),
            "layers = 1000000000: expected at least 1 and at most",
        ),
        (("1024", "--width", "1" + "0" * 24, "--heads", "1"), "expected at least 1 and at most"),
        (("1024", "--tflops", "0"), "rate = 0.0: expected at least 1"),
        (("1024", "--tflops", "nan"), "rate = nan: expected at least 1"),
        (("1024", "--tflops", "inf"), "rate = inf: expected at least 1"),
        (("1024", "--batch", "9" * 30), "batch = 9"),
        (("9" * 5000,), "lengths = 9"),
        (("9" * 15,), "expected at least 1 and at most"),
        (("١٢",), "expected tokens"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_command_refuses_bad_values_in_one_line(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: tuple[str, ...],
    wanted: str,
) -> None:
    code, out, err = said(monkeypatch, capsys, *arguments)
    assert code == 2 and not out
    one_line(err, wanted)
