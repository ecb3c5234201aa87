"""Notebook 03's assertions hold, and each can fail.

Each fails when what it asserts is taken away (the planted-error twins).
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from farcontext import files
from farcontext.app import notebooks
from farcontext.app.profiles import params_of
from farcontext.checkpoints import convert
from farcontext.files import UserError
from farcontext.nn.transformer import Decoder, num_parameters
from farcontext.results import plotting
from farcontext.results.claims import read_claims
from farcontext.results.verdicts import judge
from farcontext.studies.model_anatomy import closed_form, exact, figures, listing, study


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As a sweep does: two threads collapse on a busy machine, and give other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def params(root: Path) -> study.Params:
    """The smoke profile's, so that the notebook and these tests train once between them."""
    return params_of(root, "smoke").model_anatomy


@pytest.fixture(scope="module")
def table(params: study.Params, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("model_anatomy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "build", lambda *parts: folder.joinpath("build", *parts))
        return study.run(params)


@pytest.fixture(scope="module")
def assertion(root: Path, params: study.Params) -> Callable[[str, pd.DataFrame], None]:
    """Run one of the notebook's own assertion cells, by its tag.

    The cells that name what it reads run too.
    """
    cells = notebooks.read(root / "notebooks" / "03_model_anatomy.ipynb").cells
    sources = {tag: cell.source for cell in cells for tag in cell.metadata.get("tags", [])}
    names = ("missing = ", "probes = ", "curves = ")
    before = [cell.source for name in names for cell in cells if cell.source.startswith(name)]
    assert len(before) == len(names)

    def run(which: str, table: pd.DataFrame) -> None:
        runs = table[table["metric"] == "runs"].set_index("arm")
        known = {
            "pd": pd,
            "study": study,
            "listing": listing,
            "params": params,
            "table": table,
        }
        known |= {"runs": runs, "plotting": plotting, "figures": figures}
        for source in before:
            exec(source, known)
        exec(sources[f"assertion:{which}"], known)

    return run


ASSERTIONS = ("listing", "probes", "defects", "counts", "parity")


@pytest.mark.parametrize("which", ASSERTIONS)
def test_every_assertion_holds(which: str, assertion: Callable, table: pd.DataFrame) -> None:
    assertion(which, table)


def test_the_listing_is_refuted_and_parity_supported(table: pd.DataFrame, root: Path) -> None:
    claims = read_claims(root / "claims.yaml").claims
    verdicts = {name: judge(name, claims[name], table).verdict for name in ("X1", "X2")}
    assert verdicts == {"X1": "refuted", "X2": "supported"}


# ----------------------------------------------------------------------------------- planted errors


def _set(table: pd.DataFrame, value: float, **where: str) -> pd.DataFrame:
    rows = pd.Series(True, table.index)
    for column, wanted in where.items():
        rows &= table[column] == wanted
    assert rows.any(), where
    return table.assign(value=table["value"].mask(rows, value))


@pytest.mark.parametrize(
    "change",
    [
        {"part": "listing", "metric": "runs", "value": 1},
        {"part": "mended", "metric": "runs", "arm": "arguments by name", "value": 1},
        {"part": "mended", "metric": "runs", "arm": "argmax over the vocabulary", "value": 0},
        {"part": "mended", "metric": "printed_accuracy", "value": 100},
        {"part": "accuracy", "arm": "argmax(dim=-1), hits a sequence", "value": 100},
        {"part": "accuracy", "arm": "argmax(dim=1), hits a sequence: as printed", "value": 100},
    ],
)
def test_a_listing_that_runs_or_counts_otherwise_fails(
    change: dict, assertion: Callable, table: pd.DataFrame
) -> None:
    with pytest.raises(AssertionError):
        assertion("listing", _set(table, **change))


def _as(table: pd.DataFrame, arm: str, other: str) -> pd.DataFrame:
    """Return what the study would measure had `arm` been like `other`.

    The runs differ in nothing but the defects.
    """
    swapped = table[(table["arm"] == other) & table["part"].isin(["probe", "defect"])].assign(
        arm=arm
    )
    kept = table[(table["arm"] != arm) | ~table["part"].isin(["probe", "defect"])]
    return pd.concat([kept, swapped], ignore_index=True)


@pytest.mark.parametrize("which", ["probes", "defects"])
@pytest.mark.parametrize("arm", listing.ARMS)
def test_an_arm_without_its_defect_fails(
    arm: str, which: str, assertion: Callable, table: pd.DataFrame
) -> None:
    other = "no shift" if arm == "repaired" else "repaired"
    with pytest.raises(AssertionError):
        assertion(which, _as(table, arm, other))


def test_a_removed_defect_is_the_repaired_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(listing.ARMS, "no causal mask", ())
    rows = [listing.train_arm(arm, 1, 4, 5)[:-1] for arm in ("no causal mask", "repaired")]
    assert rows[0] == rows[1]  # to the bit; the last row, seconds, left out


def test_a_wrong_count_fails(assertion: Callable, table: pd.DataFrame) -> None:
    for metric in ("parameters", "closed_form", "hugging_face"):
        with pytest.raises(AssertionError):
            assertion("counts", _set(table, 1, part="size", arm="Llama-2-7B", metric=metric))


@pytest.mark.parametrize(
    ("arm", "error"),
    [
        ("encoder vs ModernBERT", {"theta": 10_000.0}),
        ("encoder vs ModernBERT", {"pairing": "interleaved"}),
        ("decoder vs Llama", {"theta": 20_000.0}),
        ("decoder vs Llama", {"norm_eps": 1e-3}),
        ("encoder-decoder vs nn.Transformer", {"mlp": "relu"}),
    ],
)
def test_parity_notices_a_planted_error(
    arm: str,
    error: dict,
    assertion: Callable,
    table: pd.DataFrame,
    params: study.Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("from_hf", "from_torch"):
        sound = getattr(convert, name)
        monkeypatch.setattr(
            convert, name, lambda *a, sound=sound: study.planted(sound(*a), **error)
        )
    seed = params.seeds[0]
    rows = study.parity(arm, seed, 3)[:-1]
    by_metric = {row["metric"]: row["value"] for row in rows if row["part"] == "parity"}
    for metric in ("max_logit_difference", "max_loss_difference"):
        assert by_metric[metric] > 1e-5
        with pytest.raises(AssertionError):
            assertion("parity", _set(table, by_metric[metric], arm=arm, metric=metric))


def test_parity_that_notices_nothing_fails(assertion: Callable, table: pd.DataFrame) -> None:
    for change in (
        {"part": "planted", "value": 1e-6},
        {"metric": "fp64_loss_difference", "value": 1e-6},
    ):
        with pytest.raises(AssertionError):
            assertion("parity", _set(table, **change))


def test_the_loss_curves_notice_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_norms(seed: int) -> study.Pair:
        pair = study.decoder_pair(seed)
        pair.ours.stack.norm.weight.requires_grad_(False)
        return pair

    monkeypatch.setitem(
        study.PAIRS, "decoder vs Llama", (without_norms, {"pairing": "interleaved"})
    )
    found = {row["metric"]: row["value"] for row in study.parity("decoder vs Llama", 1, 5)[:-1]}
    assert found["max_logit_difference"] < 1e-5 < found["max_loss_difference"]


# ---------------------------------------------------------------------------------------- the parts


def test_the_quotation_is_held_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing.listing().startswith("import torch\n")
    changed = tmp_path / "listing.txt"
    changed.write_text(listing.LISTING.read_text().replace("dim=1", "dim=-1"))
    monkeypatch.setattr(listing, "LISTING", changed)
    with pytest.raises(UserError, match="unmodified"):
        listing.listing()


def test_programs_are_reported_as_they_end() -> None:
    good = "print('Epoch 1, Loss: 0.5')\nprint('Test Accuracy: 200.0%')"
    ended, failed = listing.run_programs([good, "raise ValueError('no')"])
    assert ended == {
        "outcome": "ran to its end",
        "runs": 1,
        "printed_loss": 0.5,
        "printed_accuracy": 200,
    }
    assert failed == {"outcome": "ValueError: no", "runs": 0}


def test_the_task_needs_order_and_nothing_else() -> None:
    source, answer = listing.draw(64, 6, torch.Generator().manual_seed(1))
    assert (answer[:, :6].sort(1).values == torch.arange(3, 9)).all() and (answer[:, 6] == 0).all()
    reversed_rows = source[:, 0] == 2
    assert 0 < reversed_rows.sum() < 64
    tokens = torch.where(reversed_rows[:, None], source[:, 1:].flip(1), source[:, 1:])
    assert (tokens == answer[:, :6]).all()
    fed = listing.fed(answer, ())
    assert (fed[:, 0] == 0).all() and (fed[:, 1:] == answer[:, :-1]).all()
    assert listing.fed(answer, ("no shift",)) is answer


def test_the_ceiling_without_order_is_what_counting_gives() -> None:
    told, own = (row["value"] for row in exact.ceiling_rows(3))
    assert told == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert own == pytest.approx(1 / 3)


def test_shipped_counts_are_those_of_the_goldens(root: Path) -> None:
    models = json.loads((root / "tests" / "goldens" / "parameter_counts.json").read_text())[
        "models"
    ]
    known = {model["parameters"] for model in models}
    assert {count for _, count in study.SHIPPED.values()} <= known


def test_a_bias_would_show_in_the_count() -> None:
    model = Decoder(study.DECODER)
    assert num_parameters(model) == closed_form.closed_form(study.DECODER)["model"]
    model.stack.blocks[0].mlp.out.bias = torch.nn.Parameter(torch.zeros(study.DECODER.width))
    assert num_parameters(model) != closed_form.closed_form(study.DECODER)["model"]


def test_the_same_seed_gives_the_same_rows() -> None:
    first, second = (study.parity("decoder vs Llama", 2, 3)[:-1] for _ in range(2))
    assert first == second
