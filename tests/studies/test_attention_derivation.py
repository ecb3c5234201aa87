"""Notebook 01's assertions hold, and each can fail.

Each fails when what it asserts is taken away (the planted-error twins).
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from farcontext import files
from farcontext.app import notebooks
from farcontext.data.tokenizer import load_tokenizer
from farcontext.nn.masks import Pattern
from farcontext.results.claims import read_claims
from farcontext.results.verdicts import judge
from farcontext.studies.attention_derivation import by_hand, sentences, study

SMALL = study.Params(
    seeds=(1, 2), samples=60_000, head_widths=(16, 64), length=11, window=3, layers=(1, 2, 3)
)


@pytest.fixture(autouse=True)
def _own_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "build", lambda *parts: tmp_path.joinpath("build", *parts))


@pytest.fixture(scope="module")
def assertion(root: Path) -> Callable[..., None]:
    """Run one of the notebook's own assertion cells, by its tag, on names of ours."""
    cells = notebooks.read(root / "notebooks" / "01_attention_derivation.ipynb").cells
    sources = {tag: cell.source for cell in cells for tag in cell.metadata.get("tags", [])}

    def run(which: str, **names: object) -> None:
        exec(
            sources[f"assertion:{which}"],
            {"np": np, "pd": pd, "study": study, "params": SMALL, **names},
        )

    return run


def _scaling_names(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    rows = table.dropna(subset=["head_width"]).astype({"head_width": int})
    return {
        "table": table,
        "by_width": rows.pivot_table(index="head_width", columns="metric", values="value"),
    }


def test_every_assertion_holds_and_the_verdicts_are_supported(
    assertion: Callable, root: Path
) -> None:
    table = study.run(SMALL)
    assertion("identities", table=table)
    assertion("reach", table=table)
    assertion("scaling", **_scaling_names(table))
    claims = read_claims(root / "claims.yaml").claims
    assert {judge(name, claims[name], table).verdict for name in ("A1", "A2")} == {"supported"}


def test_the_same_parameters_give_the_same_table() -> None:
    pd.testing.assert_frame_equal(study.run(SMALL), study.run(SMALL), check_exact=True)


# ----------------------------------------------------------------------------------- planted errors


def _without_scale(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pattern: Pattern
) -> torch.Tensor:
    return _REFERENCE(q * math.sqrt(q.shape[-1]), k, v, pattern)


_REFERENCE = study.attention.reference


def _without_the_sum(q, k, v, d_out, allowed):
    """dS = P ∘ dP, the Jacobian's second term forgotten."""
    c = 1 / math.sqrt(q.shape[-1])
    p = (c * q @ k.mT).masked_fill(~allowed, -math.inf).softmax(-1)
    d_scores = p * (d_out @ v.mT)
    return c * d_scores @ k, c * d_scores.mT @ q, p.mT @ d_out


def _without_rescaling(a: by_hand.Partial, b: by_hand.Partial) -> by_hand.Partial:
    return by_hand.Partial(torch.maximum(a.m, b.m), a.l + b.l, a.o + b.o)


def _one_key_less(
    embedding_VD: torch.Tensor, tokens: list[int], *projections_DH: torch.Tensor
) -> torch.Tensor:
    q, k, v = (embedding_VD[tokens] @ w for w in projections_DH)
    return torch.softmax(q @ k[1:].T / math.sqrt(q.shape[1]), -1) @ v[1:]


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (study.attention, "reference", _without_scale),
        (study, "hand_gradients", _without_the_sum),
        (study, "merge", _without_rescaling),
        (study, "three_steps", _one_key_less),
        (study, "softmax_jacobian", torch.diag),
    ],
)
def test_a_wrong_formula_is_seen(
    where: object,
    name: str,
    wrong: Callable,
    assertion: Callable,
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
) -> None:
    monkeypatch.setattr(where, name, wrong)
    table = study.run(SMALL)
    with pytest.raises(AssertionError):
        assertion("identities", table=table)
    assert judge("A1", read_claims(root / "claims.yaml").claims["A1"], table).verdict == "refuted"


def test_scores_that_are_not_divided_are_seen(
    assertion: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = study.run(SMALL)
    plain = table[table["metric"].str.startswith("unscaled")]
    plain = plain.assign(metric=plain["metric"].str.replace("unscaled", "scaled"))
    planted = pd.concat([table[~table["metric"].str.startswith("scaled")], plain])
    with pytest.raises(AssertionError, match="is not 1"):
        assertion("scaling", **_scaling_names(planted))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("window", Pattern.window(SMALL.window + 1)),  # L·w, as papers round it
        ("window", Pattern.window(SMALL.window - 1)),
        ("causal", Pattern()),  # the future leaks
        ("full", Pattern.causal()),
        ("local", Pattern.window(2 * (SMALL.window // 2) + 1)),  # as many keys, on one side
    ],
)
def test_a_wrong_mask_is_seen(
    name: str, wrong: Pattern, assertion: Callable, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    right = study.patterns(SMALL.window)
    monkeypatch.setattr(study, "patterns", lambda window: {**right, name: wrong})
    table = study.run(SMALL)
    for which in ("reach", "identities"):
        with pytest.raises(AssertionError):
            assertion(which, table=table)
    assert judge("A2", read_claims(root / "claims.yaml").claims["A2"], table).verdict == "refuted"


def _maps(tokens: list[pd.DataFrame], mistake: int) -> dict[str, object]:
    """The notebook's names; `mistake` is added to the offset of the second view."""
    views = {"where do I stand?": 0, "what followed me before?": 1 + mistake}
    maps = [
        {t: sentences.match_weights(w["id"].to_numpy(), 0, o) for t, o in views.items()}
        for w in tokens
    ]
    return dict(zip(("sanguo", "macbeth", "chinese", "english"), (*tokens, *maps), strict=True))


def test_sentences_find_their_repetitions_and_a_wrong_offset_does_not(assertion: Callable) -> None:
    tokens = [
        pd.DataFrame({"id": ids})
        for ids in ([7, 1, 2, 3, 4, 0, 4, 2, 3, 1], [5, 6, 8, 9, 6, 8, 9, 6, 8])
    ]
    assertion("sentences", **_maps(tokens, mistake=0))
    with pytest.raises(AssertionError):
        assertion("sentences", **_maps(tokens, mistake=1))


# ---------------------------------------------------------------------------------------- its parts


@pytest.mark.parametrize("layers", [1, 2, 3, 9])
@pytest.mark.parametrize("name", ["full", "causal", "window", "local"])
def test_prediction_is_the_mask_applied_layer_by_layer(name: str, layers: int) -> None:
    step = study.patterns(SMALL.window)[name].allowed(SMALL.length, SMALL.length)[0, 0].long()
    walked = torch.linalg.matrix_power(step, layers) > 0
    assert torch.equal(study.predicted(name, SMALL.length, SMALL.window, layers), walked)


def test_jacobian_is_what_autograd_gives_one_output_at_a_time() -> None:
    T, pattern = 5, Pattern.window(2)
    model = study.random_decoder(3, 2, T)
    x_TD = model.embedding(torch.arange(T)[None], None)[0]
    whole = torch.autograd.functional.jacobian(
        lambda x: model.stack(x[None], None, pattern)[0], x_TD
    )
    np.testing.assert_allclose(
        study.jacobian_norms(3, 2, T, pattern), whole.norm(dim=(1, 3)).numpy(), rtol=1e-12
    )


def test_merge_starts_from_nothing_and_never_overflows() -> None:
    z, v = torch.tensor([700.0, 900.0, -900.0]).double(), torch.arange(3.0)[:, None].double()
    nothing = by_hand.Partial(
        torch.tensor(-torch.inf).double(), torch.tensor(0.0).double(), torch.zeros(1).double()
    )
    merged = by_hand.merge(
        by_hand.merge(nothing, by_hand.partial(z[:1], v[:1])), by_hand.partial(z[1:], v[1:])
    )
    assert merged.o / merged.l == pytest.approx(1.0)


def test_tokens_of_a_split_character_are_numbered(root: Path) -> None:
    folder = root / "build" / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("no tokenizer: `dvc repro tokenizer` makes it")
    frame = sentences.tokenised(load_tokenizer(folder), "话说天下，to be")
    assert "".join(frame["token"].drop_duplicates()) == "话说天下，to be"
    assert frame["label"].is_unique
    assert frame["label"].str.isascii().all()
