"""benchmarks/: what its scripts share, and what `make bench` runs."""

import subprocess
from pathlib import Path

import pandas as pd
import pipeline
import pytest
import questions_about_texts
import table

ROOT = Path(__file__).parent.parent


def test_a_table_is_written_with_its_figure(tmp_path: Path) -> None:
    rows = [
        {"length": length, "arm": arm, "ratio": 1.23456}
        for length in (256, 1024)
        for arm in ("a", "b")
    ]
    out = tmp_path / "made" / "x.csv"
    table.save(
        rows,
        out,
        lambda f, axis: table.ratio_bars(f, axis, x="length", y="ratio", hue="arm", label="ratio"),
    )
    assert pd.read_csv(out).to_dict("records") == [row | {"ratio": 1.2346} for row in rows]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_stages_are_summed_and_compared_where_both_sides_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for study, seconds in (("new", (1.0,)), ("old", (2.0, 4.0))):
        text = "arm,seconds\n" + "".join(f"x,{s}\n" for s in seconds)
        path = tmp_path / study / "tables" / f"{study}.cost.csv"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(
        pipeline, "published", lambda _, study: "seconds\n8\n4\n" if study == "old" else None
    )
    new, old, total = pipeline.rows_of(tmp_path, "HEAD")
    assert new["core_seconds"] == 1 and new["ratio"] is None
    assert old["core_seconds"] == 6 and old["jobs"] == 2 and old["ratio"] == 0.5
    # not the study that only one side has
    assert total["core_seconds"] == 6 and total["ratio"] == 0.5


def test_make_bench_runs_scripts_alone() -> None:
    done = subprocess.run(
        ["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stdout.splitlines() if "for script in" in line)
    listed = subprocess.run(
        line.replace("python $script", "echo $script"),
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    scripts = {Path(name).stem for name in listed.stdout.split()}
    assert {"generation", "training_step", "attention_backends", "pipeline"} <= scripts
    assert not scripts & {"table", "gpu", "gpu_check"}


def test_an_answer_is_right_by_the_first_known_word_that_it_names() -> None:
    others = ["list", "string"]
    assert questions_about_texts.right(" It is a string, not a list.", "string", others)
    assert not questions_about_texts.right(" It is a list of string.", "string", others)
    assert not questions_about_texts.right("", "string", others)


@pytest.mark.parametrize("domain", ["manuals", "plays"])
def test_every_question_about_a_text_has_its_answer_there(domain: str, corpus_folder: Path) -> None:
    made = list(questions_about_texts.asked(domain, 6, 400))
    assert len(made) == 6
    for text, thing, question, wanted, others in made:
        assert text.count(thing) == 1 and thing in question and wanted in others
        assert wanted in text and len(others) > 1
