"""The probe's answers on a repeated cache are a plain forward's.

What was asked is kept, and bad input is one line.
"""

import json
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from commands import try_all
from observe import one_line
from rows import tiny_model
from transformers import LlamaConfig, LlamaForCausalLM

from farcontext import files
from farcontext.checkpoints import load, probe, questions, report
from farcontext.checkpoints.load import Pretrained
from farcontext.checkpoints.probe import Options
from farcontext.checkpoints.probing import asking, compare, suite, summary
from farcontext.checkpoints.probing import text as probe_text
from farcontext.checkpoints.probing.progress import Progress
from farcontext.data.tokenizer import load_tokenizer
from farcontext.files import UserError
from farcontext.measure.stats import half_width, t_interval
from farcontext.tasks import needles
from farcontext.tasks.sample import Sample

LENGTHS = (256, 320)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A random Llama of one layer with the project's tokenizer, saved by transformers."""
    tokenizer = load.wrapped(load_tokenizer(tokenizer_folder))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        max_position_embeddings=512,
        initializer_range=0.5,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    made = tmp_path_factory.mktemp("checkpoint") / "tiny"
    LlamaForCausalLM(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Pretrained:
    return load.load(folder)


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    """Two texts of the corpus, cut."""
    made = tmp_path_factory.mktemp("prose")
    for number, document in enumerate(
        probe_text.load_documents(corpus_folder, "test", "plays")[:2]
    ):
        (made / f"{number}.txt").write_text(document.text[3000:9000], encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def sample(loaded: Pretrained, prose: Path) -> Sample:
    text = (prose / "0.txt").read_text(encoding="utf-8")
    encode = questions.encoder(loaded.tokenizer)
    return needles.sample(length=200, seed=3, encode=encode, filler=text, keys=4)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FARCONTEXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "probe"


# -------------------------------------------------------------------------------------- one context


def plain(loaded: Pretrained, row: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(input_ids=torch.tensor(row)[None]).logits[0].float().log_softmax(-1)


def test_suffixes_on_a_repeated_cache_score_as_a_plain_forward_of_each_row(
    loaded: Pretrained, sample: Sample
) -> None:
    # of different lengths: some are filled up
    suffixes = [q.question[: 3 + i] for i, q in enumerate(sample.queries)]
    found = questions.suffix_scores(loaded.model, sample.context.tolist(), suffixes)
    for suffix, scores in zip(suffixes, found, strict=True):
        wanted = plain(loaded, np.concatenate([sample.context, suffix]))[-len(suffix) :]
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-4)
    early = plain(loaded, np.concatenate([sample.context[:-20], suffixes[0]]))[-len(suffixes[0]) :]
    assert (found[0] - early).abs().max() > 0.01  # twin: a context that is cut is seen


def test_more_suffixes_than_fit_at_once_do_not_disturb_each_other(
    loaded: Pretrained, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffixes = [q.question for q in sample.queries]
    wanted = questions.suffix_scores(loaded.model, sample.context.tolist(), suffixes)
    monkeypatch.setattr(questions, "TOKENS_AT_ONCE", 1)
    for one, other in zip(
        questions.suffix_scores(loaded.model, sample.context.tolist(), suffixes),
        wanted,
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_an_answer_is_scored_as_in_its_whole_row(loaded: Pretrained, sample: Sample) -> None:
    rows = questions.observe(loaded.model, sample)
    ordered = sorted(sample.queries, key=lambda query: query.depth)
    assert [row["depth"] for row in rows] == [query.depth for query in ordered]
    for row, query in zip(rows, ordered, strict=True):
        losses = {}
        for choice in query.choices:
            whole = np.concatenate([sample.context, query.question, choice])
            scores = plain(loaded, whole)[-len(choice) - 1 : -1]
            losses[choice] = -float(scores[range(len(choice)), list(choice)].sum())
            if choice == query.answer:
                assert row["exact"] == int(scores.argmax(-1).tolist() == [*choice])
        assert row["loss"] == pytest.approx(losses[query.answer], abs=1e-3)
        assert row["choice"] == int(min(losses, key=losses.get) == query.answer)


def test_a_model_that_knows_the_answers_scores_one_and_one_of_another_context_does_not(
    loaded: Pretrained, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def knowing(queries: tuple) -> None:
        def scores(
            model: torch.nn.Module, context: np.ndarray, suffixes: list, part: int
        ) -> list[torch.Tensor]:
            found = []
            for suffix in suffixes:
                (query,) = [q for q in queries if suffix[: len(q.question)] == q.question]
                row = torch.full((len(suffix), len(loaded.tokenizer)), -9.0)
                for i, token in enumerate(query.answer):
                    if len(query.question) - 1 + i < len(suffix):
                        row[len(query.question) - 1 + i, token] = 0.0
                found.append(row)
            return found

        monkeypatch.setattr(questions, "suffix_scores", scores)

    knowing(sample.queries)
    assert all(row["exact"] and row["choice"] for row in questions.observe(loaded.model, sample))
    answers = [q.answer for q in sample.queries]
    turned = zip(sample.queries, [*answers[1:], answers[0]], strict=True)
    knowing(tuple(replace(query, answer=answer) for query, answer in turned))
    assert not any(row["exact"] or row["choice"] for row in questions.observe(loaded.model, sample))


# -------------------------------------------------------------------------------------------- whole


@pytest.fixture
def options() -> Options:
    return Options(lengths=LENGTHS, precision=0.1, max_contexts=12)


def test_a_probe_that_was_stopped_goes_on_and_gives_the_same_rows(
    loaded: Pretrained, prose: Path, cache: Path, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = probe.measure(loaded, options, prose)
    (kept,) = cache.iterdir()
    names = sorted(path.name for path in kept.glob("[!.]*.json"))
    for name in names[::3]:
        (kept / name).unlink()
    asked = []
    real = asking.observe

    def counting(*given: object) -> list:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(given)
        return real(*given)

    monkeypatch.setattr(asking, "observe", counting)
    with pytest.raises(KeyboardInterrupt):
        probe.measure(loaded, options, prose)
    monkeypatch.setattr(asking, "observe", real)
    before = {path.name: path.stat().st_mtime_ns for path in kept.glob("[!.]*.json")}
    again = probe.measure(loaded, options, prose)
    for one, other in ((whole, again), (whole, probe.measure(loaded, options, prose))):
        for part in ("needles", "control", "far", "position"):
            pd.testing.assert_frame_equal(getattr(one, part), getattr(other, part))
    assert {
        name: (kept / name).stat().st_mtime_ns for name in before
    } == before  # nothing was asked twice
    # twin: another seed gives other rows
    other = probe.measure(loaded, replace(options, seed=1), prose)
    assert not np.allclose(other.needles["loss"].iloc[:10], whole.needles["loss"].iloc[:10])


def asked_by(
    loaded: Pretrained, prose: Path, folder: Path, precision: float = 0.07, most: int = 100
) -> asking.Asking:
    text = probe_text.read(loaded, prose)
    return asking.Asking(loaded, text, 4, precision, most, 0, folder, Progress("probe"))


def test_sampling_stops_when_the_interval_is_narrow_enough(
    loaded: Pretrained, prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    monkeypatch.setattr(
        asking,
        "observe",
        lambda *_: [{"exact": int(draw.random() < 0.5)} for _ in range(4)],
    )
    asked = []
    for precision in (0.3, 0.1, 0.01):
        made = asked_by(loaded, prose, tmp_path / f"{precision}", precision, 40)
        rows = pd.DataFrame(made.contexts(256, "needles"))
        scores = list(rows.groupby("context")["exact"].mean())
        assert len(scores) == 40 or half_width(scores) <= precision
        # and not later than that
        assert len(scores) == 12 or half_width(scores[:-1]) > precision
        asked.append(len(scores))
    assert asked[0] == 12 < asked[1] < asked[2] == 40, asked


def test_the_control_holds_no_evidence(loaded: Pretrained, prose: Path, tmp_path: Path) -> None:
    made = asked_by(loaded, prose, tmp_path)
    bare, full = (made.sample(256, 0, part) for part in ("control", "needles"))
    assert needles.oracle(bare, loaded.tokenizer.decode) == [()] * 4
    # twin
    assert needles.oracle(full, loaded.tokenizer.decode) == [query.answer for query in full.queries]
    assert len(made.contexts(256, "control")) == 12 * 4


def test_windows_come_from_different_documents_in_turn() -> None:
    documents = [[number] * 100 for number in range(3)]
    for count in (2, 3):
        pieces = probe_text.windows([*documents[:count], [9] * 20], 30)
        owners = [piece[0] for piece in pieces]
        assert 9 not in owners and all(
            a != b for a, b in zip(owners, [*owners[1:], owners[0]], strict=True)
        )
    assert probe_text.windows(documents, 101) == []
    assert probe_text.far_lengths(2048) == (128, [256, 512, 1024, 2048])
    assert probe_text.far_lengths(1536) == (128, [256, 512, 1024, 1536])


def test_one_document_leaves_foreign_text_out_and_says_so(
    loaded: Pretrained, prose: Path, cache: Path
) -> None:
    found = probe.measure(loaded, Options(lengths=LENGTHS, max_contexts=12), prose / "0.txt")
    assert found.far.empty and len(found.position)
    assert any("two documents" in note for note in found.notes)


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: Options(lengths=(512, 256)),
            "lengths = 512,256: expected numbers of tokens, ascending",
        ),
        (lambda: Options(lengths=(0, 256)), "lengths = 0,256: expected"),
        (lambda: Options(precision=0.0), "precision = 0: expected a half-width from 0.005 to 0.5"),
        (lambda: Options(precision=float("nan")), "precision = nan: expected"),
        (lambda: Options(max_contexts=3), "max-contexts = 3: expected 12 or more"),
        (
            lambda: probe.lengths_of("256;512"),
            "lengths = 256;512: expected numbers of tokens with commas",
        ),
        (lambda: probe.use_threads(0), "threads = 0: expected 1 or more"),
    ],
)
def test_an_option_out_of_its_range_is_one_line(make: object, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        make()
    assert "\n" not in str(error.value)
    assert Options(lengths=probe.lengths_of("256, 512")).lengths == (256, 512)  # twin


def test_lengths_and_text_are_held_against_the_model(
    loaded: Pretrained, prose: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_atomic(tmp_path / "short.txt", "Too short by far.")
    files.write_atomic(tmp_path / "empty.txt", " \n")
    for lengths, text, line in (
        ((256, 513), prose, "lengths = 256,513: expected at most 512, the model's positions"),
        ((16, 32), prose, "lengths = 16: expected room for two needles"),
        (LENGTHS, tmp_path / "none.txt", "none.txt: expected a text file"),
        (LENGTHS, tmp_path / "empty.txt", "empty.txt: expected prose, found no text"),
        (LENGTHS, tmp_path / "short.txt", "short.txt: .* tokens: expected at least 320"),
    ):
        with pytest.raises(UserError, match=line):
            probe.measure(loaded, Options(lengths=lengths), text)
    assert not cache.exists()  # nothing half-done
    monkeypatch.chdir(tiny.make_project(tmp_path / "bare"))
    (tmp_path / "bare" / "build" / "corpus" / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"expected the corpus .* or your own: --text FILE"):
        probe.measure(loaded, Options(), None)


def test_a_changed_checkpoint_has_another_fingerprint(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    files.write_atomic(tmp_path / "a" / "config.json", "{}")
    first = probe.fingerprint(tmp_path / "a")
    assert probe.fingerprint(tmp_path / "a") == first
    files.write_atomic(tmp_path / "a" / "config.json", "{ }")
    assert probe.fingerprint(tmp_path / "a") != first
    assert len(probe.fingerprint(folder / "config.json")) == 16


def test_the_command_line_prints_one_object_or_one_line(
    folder: Path, prose: Path, tmp_path: Path, cache: Path
) -> None:
    files.write_atomic(tmp_path / "dvc.yaml", "stages: {}\n")
    common = ("--text", str(prose), "--threads", "1", "--max-contexts", "12")
    tries = [
        ("probe", str(folder), "--lengths", "256", *common, "--json"),
        ("probe", str(folder), "--rope-only"),
        ("probe", str(tmp_path / "none")),
        ("probe", str(folder), "--lengths", "512,256", *common),
        ("probe", str(folder), "--lengths", "256,1024", *common),
        ("probe", str(folder), "--precision", "0", *common),
        ("probe", str(folder), "--dtype", "float16", *common),
    ]
    (whole, rope, *wrong), _ = try_all(tmp_path, [(list(one), None) for one in tries])
    assert whole.code == 0, whole
    assert json.loads(whole.out)["lengths"][0]["length"] == 256
    assert sorted(path.name for path in (tmp_path / "probe-tiny").iterdir()) == [
        "probe.json",
        "report.html",
        "table.csv",
    ]
    assert rope.code == 0 and all(
        line.startswith(("ok", "FAULT")) for line in rope.out.splitlines()
    )
    for said, part in zip(
        wrong, ("none", "512,256", "at most 512", "precision = 0", "float16"), strict=True
    ):
        assert said.code == 2
        one_line(said.err, part)


# ------------------------------------------------------- beyond, suite, two checkpoints, ids


def changed(folder: Path, out: Path, **keys: object) -> Path:
    """Return a copy of a checkpoint whose configuration has other keys."""
    shutil.copytree(folder, out)
    files.write_json(out / "config.json", files.read_json(folder / "config.json") | keys)
    return out


def test_lengths_beyond_the_window_are_asked_for_and_warned_of(
    loaded: Pretrained, prose: Path, cache: Path
) -> None:
    lengths = (256, 600)
    with pytest.raises(UserError, match=r"at most 512, the model's positions \(--beyond goes on\)"):
        probe.measure(loaded, Options(lengths=lengths, max_contexts=12), prose)
    beyond = Options(lengths=lengths, max_contexts=12, precision=0.5, beyond=True)
    with pytest.warns(UserWarning, match="lengths up to 600: tiny has 512 positions; what lies"):
        found = probe.measure(loaded, beyond, prose)
    assert set(found.needles["length"]) == {256, 600} and found.options["window"] == 512
    page = report.page(found, summary.summarise(found))
    assert "Lengths above 512 tokens lie beyond" in page
    within = replace(found, options=found.options | {"window": 600})
    assert "lie beyond" not in report.page(within, summary.summarise(within))


def test_dynamic_ntk_promises_its_multiple_and_a_table_of_positions_ends(
    folder: Path, loaded: Pretrained, tmp_path: Path
) -> None:
    rope = {"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 4.0}
    dynamic = load.load(changed(folder, tmp_path / "dynamic", rope_parameters=rope))
    assert probe.window(dynamic) == 2048 and probe.window(loaded) == 512
    assert [compare._promised(path) for path in (dynamic.path, loaded.path)] == [2048, 512]
    assert probe._lengths(dynamic, Options()) == (256, 512, 1024, 1536, 2048)
    learned = replace(
        loaded, model=tiny_model({"model_type": "gpt2", "max_position_embeddings": 512})
    )
    with pytest.raises(UserError, match="this model's positions are a table that ends there"):
        probe._lengths(learned, Options(lengths=(256, 600), beyond=True))


def test_a_token_beyond_the_models_rows_is_one_line(
    folder: Path, tmp_path: Path, cache: Path
) -> None:
    """A tokenizer may have more ids than the model has rows, for padding say."""
    wide = shutil.copytree(folder, tmp_path / "wide")
    tokenizer = load.load(folder).tokenizer
    rows = len(tokenizer)
    tokenizer.add_tokens([f"<extra_{n}>" for n in range(60)])
    tokenizer.save_pretrained(wide)
    text = tmp_path / "text.txt"
    files.write_atomic(text, "It was<extra_59> cold day, and nobody saw them go. " * 200)
    line = f"the tokenizer has {rows + 60} ids, vocab_size = {rows}: expected tokens up to"
    with pytest.raises(UserError, match=line) as error:
        probe.measure(load.load(wide), Options(lengths=(256,), max_contexts=12), text)
    assert "\n" not in str(error.value) and not cache.exists()
    files.write_atomic(text, "It was a cold day, and nobody saw them go. " * 200)  # twin
    assert len(probe.measure(load.load(wide), Options((256,), 0.5, 12), text).needles)


def test_minutes_and_memory_are_told_before_it_starts_but_not_again(
    loaded: Pretrained, prose: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(lengths=(256,), precision=0.5, max_contexts=12)
    probe.measure(loaded, options, prose)
    (line,) = capsys.readouterr().err.splitlines()
    told = r"probe of tiny: about \d+\.\d minutes on cpu in float32, and \d+\.\d\d GiB"
    assert re.search(told, line)
    probe.measure(loaded, options, prose)
    assert capsys.readouterr().err == ""  # All is kept, so nothing is left to tell.


def test_the_suite_asks_five_tasks_and_says_what_does_not_fit(
    loaded: Pretrained, prose: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "CONTEXTS", 2)
    options = Options(lengths=(256, 512), precision=0.5, max_contexts=12, suite=True)
    found = probe.measure(loaded, options, prose)
    said = summary.summarise(found)
    asked = {row["task"] for row in said["tasks"]}
    noted = {task for task in suite.TASKS if any(n.startswith(task) for n in said["notes"])}
    assert asked | noted == set(suite.TASKS) and len(asked) >= 4
    assert all(row["choice_low"] <= row["choice"] <= row["choice_high"] for row in said["tasks"])
    lines = "\n".join(summary.lines(said))
    page = report.page(found, said)
    assert all(task in lines and task in page for task in suite.TASKS)
    assert set(report.table(found)["task"].dropna()) == asked
    for task in asked:  # Each context is what its task's own oracle answers.
        made = asked_by(loaded, prose, cache).task(task, 256, 0)
        module = suite.TASKS[task].func if isinstance(suite.TASKS[task], partial) else None
        oracle = sys.modules[(module or suite.TASKS[task]).__module__].oracle
        given = oracle(made) if task == "copying" else oracle(made, loaded.tokenizer.decode)
        assert given == [query.answer for query in made.queries], task
    short = probe.measure(loaded, replace(options, lengths=(64, 256)), prose)
    assert any(note.startswith("counting at 64 tokens: length = 64") for note in short.notes)


def test_two_checkpoints_are_compared_on_the_same_contexts(
    folder: Path, prose: Path, cache: Path, tmp_path: Path
) -> None:
    other = load.load(folder)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(0.9)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    options = Options(lengths=(256,), precision=0.5, max_contexts=12)
    found = compare.compared((folder, tmp_path / "other"), options, prose, "cpu", "float32")
    one, two = (
        probe.measure(load.load(path), options, prose).needles.groupby("context")["loss"].mean()
        for path in (folder, tmp_path / "other")
    )
    (row,) = found["needles"]
    gap = t_interval(two - one)
    assert row["pairs"] == 12 and row["loss"]["difference"] == pytest.approx(gap.estimate)
    assert (row["loss"]["low"], row["loss"]["high"]) == pytest.approx((gap.low, gap.high))
    assert any("minus tiny, on the same contexts" in line for line in compare.lines(found))
    same = compare.compared((folder, folder), options, prose, "cpu", "float32")
    for row in (*same["needles"], *same["position"]):
        assert row["loss"]["difference"] == row["loss"]["low"] == row["loss"]["high"] == 0
    other.tokenizer.add_tokens(["<more>"])
    other.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="its tokenizer is not that of"):
        compare.compared((folder, tmp_path / "other"), options, prose, "cpu", "float32")


def test_the_command_line_compares_two_checkpoints(
    folder: Path, prose: Path, tmp_path: Path, cache: Path
) -> None:
    files.write_atomic(tmp_path / "dvc.yaml", "stages: {}\n")
    common = ["compare-checkpoints", str(folder), str(folder), "--text", str(prose)]
    common += ["--lengths", "256", "--max-contexts", "12", "--precision", "0.5", "--threads", "1"]
    (said, whole, refused), _ = try_all(
        tmp_path,
        [(common, None), ([*common, "--json"], None), ([*common[:2], "none", *common[3:]], None)],
    )
    assert said.code == 0 and said.out.startswith("tiny minus tiny"), said
    assert json.loads(whole.out)["needles"][0]["exact"]["difference"] == 0
    assert refused.code == 2
    assert "none" in refused.err.splitlines()[-1]
