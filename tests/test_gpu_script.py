"""`make gpu` works as far as a CPU goes.

The tests hold the dry run, what it writes, what it catches, and how FLOP are counted.
"""

import csv
import json
import subprocess
import sys
import time
from functools import partial

import gpu
import gpu_check
import pytest
import torch

from farcontext.nn import attention
from farcontext.nn.config import ModelConfig
from farcontext.nn.masks import Pattern
from farcontext.nn.transformer import Encoder

QUICK = ("reference", "online", "sdpa", "sdpa_local")


def test_a_dry_run_checks_every_pattern_and_says_what_it_ran_on(tmp_path):
    command = [
        sys.executable,
        gpu.__file__,
        "--dry-run",
        "--out",
        tmp_path,
        "--paths",
        *QUICK,
        "xformers",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = list(
        csv.DictReader((tmp_path / "correctness.csv").read_text(encoding="utf-8").splitlines())
    )
    assert tuple(rows[0]) == gpu_check.CHECKED
    assert {row["pattern"] for row in rows} == set(gpu_check.make_cases(24))
    for row in rows:
        if row["backend"] in ("reference", "online", "sdpa"):
            assert row["result"] == "ok" and float(row["error"]) <= float(row["tolerance"])
        elif row["backend"] == "xformers":
            assert (
                row["result"].startswith("cannot: backend = xformers: expected CUDA")
                and row["error"] == ""
            )
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["card"] == "cpu" and card["dry_run"] and card["torch"] == torch.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "correctness.csv"]


def checked(attend: gpu_check.Attend) -> list[gpu_check.Row]:
    return gpu_check.check({"it": attend}, "cpu", 24, 8, (torch.float32, torch.bfloat16), seed=0)


def right(q, k, v, pattern):
    return attention.attend(q, k, v, pattern, backend="sdpa")


def one_key_more(q, k, v, pattern):
    before = None if pattern.before is None else pattern.before + 1
    wrong = Pattern(before, pattern.after, pattern.sinks, pattern.slopes, pattern.relative)
    return right(
        q,
        k,
        v,
        wrong if pattern.documents is None else wrong.within(pattern.documents, pattern.queries),
    )


def no_documents(q, k, v, pattern):
    return right(
        q,
        k,
        v,
        Pattern(pattern.before, pattern.after, pattern.sinks, pattern.slopes, pattern.relative),
    )


def gradient_lost(q, k, v, pattern):
    return right(q, k.detach() + 0 * k, v, pattern)


def nan_where_nothing_is_visible(q, k, v, pattern):
    dead = ~pattern.allowed(q.shape[1], k.shape[1]).any(-1)[:, 0, :, None, None]
    return right(q, k, v, pattern).masked_fill(dead, float("nan"))


@pytest.mark.parametrize(
    ("wrong", "patterns"),
    [
        (one_key_more, {"window", "band", "sinks", "documents, window"}),
        (no_documents, {"documents", "documents, causal", "padding", "across"}),
        (gradient_lost, {"full", "causal", "alibi"}),
        (nan_where_nothing_is_visible, {"causal, more queries", "padding", "across"}),
    ],
)
def test_a_wrong_path_fails_where_it_is_wrong(wrong, patterns):
    failed = {row["pattern"] for row in checked(wrong) if row["result"].startswith("failed")}
    assert patterns <= failed
    assert not any(row["result"].startswith("failed") for row in checked(right))


def test_a_wrong_path_ends_the_run_with_a_table_and_exit_code_1(tmp_path, capsys):
    assert gpu.run({"it": no_documents}, tmp_path, 1.0, True) == 1
    assert "failed: tolerance" in (tmp_path / "correctness.csv").read_text(encoding="utf-8")
    assert "not timed" in capsys.readouterr().err


def test_a_path_that_breaks_is_told_from_one_that_cannot():
    assert gpu_check.refusal(NotImplementedError("no\nkernel")) == "cannot: no kernel"
    assert gpu_check.refusal(RuntimeError("No available kernel. Aborting execution.")).startswith(
        "cannot"
    )
    assert gpu_check.refusal(TypeError("x")) == "failed: TypeError: x"
    with pytest.raises(RuntimeError):
        gpu_check.refusal(RuntimeError("CUDA error: an illegal memory access"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "farcontext: no CUDA device here"),
        (
            ("--dry-run", "--paths", "flash"),
            "farcontext: --paths flash: expected some of reference",
        ),
    ],
)
def test_what_cannot_run_here_says_so_in_one_line(arguments, line, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        gpu.main()
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == ""
    assert said.err.startswith(line) and said.err.count("\n") == 1


class Clock:
    """Stands in for a CUDA event, on the CPU's clock."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: "Clock") -> float:
        return 1000 * (other.at - self.at)


@pytest.fixture
def no_card(monkeypatch):
    """Let the timing code run here, on tiny sizes; what it measures means nothing."""
    for name in (
        "memory_allocated",
        "max_memory_allocated",
        "reset_peak_memory_stats",
        "empty_cache",
    ):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    monkeypatch.setattr(torch.cuda, "Event", Clock)
    for name, value in {
        "DEVICE": "cpu",
        "WIDTH": 128,
        "TOKENS": 256,
        "SPAN": 16,
        "LENGTHS": (6, 5, 7),
        "REPEATS": (1, 1),
    }.items():
        monkeypatch.setattr(gpu, name, value)


def short_of_memory(q, k, v, pattern):
    if q.shape[1] >= 64:
        raise torch.OutOfMemoryError("it would not fit")
    return right(q, k, v, pattern)


@pytest.mark.usefixtures("no_card")
def test_every_cell_has_a_row_and_an_empty_one_says_why(tmp_path):
    paths = {
        "sdpa": right,
        "small": short_of_memory,
        "none": gpu_check.make_paths(False)["xformers"],
    }
    gpu.time_attention(paths, 100.0, time.monotonic() + 60, tmp_path)
    rows = list(
        csv.DictReader((tmp_path / "attention.csv").read_text(encoding="utf-8").splitlines())
    )
    assert tuple(rows[0]) == gpu.TIMED and len(rows) == 3 * 3 * 2 * 4 * 2
    for row in rows:
        notes = {"sdpa": "", "none": "cannot: backend = xformers"}
        notes["small"] = {"32": "", "64": "out of memory", "128": "out of memory at 64"}[
            row["length"]
        ]
        assert row["note"].startswith(notes[row["backend"]]) and bool(row["note"]) == bool(
            notes[row["backend"]]
        )
        if not row["note"]:
            flop = float(row["tflop_per_s"]) * float(row["milliseconds"]) * 1e9
            pairs = gpu.timed_pattern(row["pattern"], int(row["length"]), 1)[1]
            assert flop == pytest.approx(
                gpu.attention_flop(
                    int(row["batch"]),
                    int(row["heads"]),
                    int(row["head_width"]),
                    pairs,
                    row["direction"],
                ),
                rel=1e-4,
            )
            assert float(row["share_of_ceiling"]) == pytest.approx(
                float(row["tflop_per_s"]) / 100, rel=1e-4
            )


@pytest.mark.usefixtures("no_card")
def test_cells_that_come_too_late_or_would_take_too_long_are_left_out(tmp_path):
    gpu.time_attention({"sdpa": right}, 100.0, 0.0, tmp_path)
    rows = list(
        csv.DictReader((tmp_path / "attention.csv").read_text(encoding="utf-8").splitlines())
    )
    assert len(rows) == 48 and {row["note"] for row in rows} == {"skipped: --minutes were over"}
    cell = gpu.Cell(128, 64, "full", "sdpa", "forward")
    row = gpu.time_cell(cell, right, {cell[1:]: (1.0, float("inf"))}, 100.0)  # at 1 FLOP/s
    assert row["note"].startswith("skipped: about ") and "milliseconds" not in row


@pytest.mark.usefixtures("no_card")
def test_a_training_step_is_timed_and_its_backend_named():
    config = ModelConfig(
        kind="encoder", vocab_size=64, width=32, layers=3, heads=2, mlp_width=64, max_length=40
    )
    row = gpu.time_step(Encoder(config), torch.randint(4, 64, (2, 40)))
    assert row["milliseconds"] > 0 and row["backend"] == "sdpa" and set(row) <= set(gpu.TRAINED)


def test_attention_flop_are_those_of_the_flash_papers():
    causal = partial(gpu.attention_flop, 4, 16, 64, 2048**2 / 2)
    assert causal("forward") == 34359738368 and causal("forward_backward") == 120259084288
    pattern, pairs = gpu.timed_pattern("window", 4096, 1)
    assert pairs == pattern.allowed(4096, 4096).sum() and pattern.before + 1 == gpu.SPAN


def test_model_flop_are_six_a_weight_and_twelve_a_channel_and_key():
    config = ModelConfig(
        kind="encoder", vocab_size=64, width=32, layers=3, heads=2, mlp_width=64, max_length=40
    )
    model = Encoder(config)
    every = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert gpu.flop_per_token(model, 40, rate=1.0) == 6 * every + 12 * 3 * 40 * 32
    fewer = gpu.flop_per_token(model, 40, rate=0.5)
    last_mlp = sum(p.numel() for p in model.stack.blocks[-1].mlp.parameters())
    assert gpu.flop_per_token(model, 40, 1.0) - fewer == 3 * (last_mlp + 32 * 32 + 64 * 32)
    # one layer in three sees all
    banded = Encoder(config.model_copy(update={"window": 4, "global_every": 3}))
    keys = 40 + 2 * Pattern.local(3).count(40, 40) / 40
    assert gpu.flop_per_token(banded, 40, 1.0) == pytest.approx(6 * every + 12 * 32 * keys)


def test_a_cards_name_is_a_folders():
    assert gpu.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
