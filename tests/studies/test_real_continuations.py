"""The real tier of notebook 11 continues windows of one stretch.

The tests hold its true continuation, its losses, and what is counted in texts.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from farcontext import files
from farcontext.app.profiles import params_of
from farcontext.checkpoints.load import Pretrained, load
from farcontext.checkpoints.questions import encoder
from farcontext.checkpoints.token_losses import token_losses
from farcontext.data import corpus
from farcontext.nn.generation import GREEDY, Sampling
from farcontext.schema import Row
from farcontext.studies.content_creation import real as study
from farcontext.studies.content_creation.params import Params as ContentCreation


@pytest.fixture(scope="module")
def params(root: Path) -> Iterator[ContentCreation]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield params_of(root, "smoke").content_creation


@pytest.fixture(scope="module")
def pretrained(params: ContentCreation) -> Pretrained:
    return load(files.project() / params.checkpoint)


@pytest.fixture(scope="module")
def made(params: ContentCreation, pretrained: Pretrained) -> study.Stretch:
    return study.stretch(0, params.real_length, params.real_new, encoder(pretrained.tokenizer))


@pytest.fixture(scope="module")
def smoke(params: ContentCreation) -> list[Row]:
    return study.run(params)


def test_every_arm_has_its_rows(smoke: list[Row], params: ContentCreation) -> None:
    arms = {*map(str, params.real_windows), "full"}
    found = {(row["arm"], row["metric"], row["seed"]): row["value"] for row in smoke}
    for number in range(params.real_documents):
        assert {
            arm for arm, metric, seed in found if (metric, seed) == ("loss", number)
        } == arms | {"other"}
        counted = {arm for arm, metric, seed in found if (metric, seed) == ("distinct_2", number)}
        assert counted == arms | {"human"}
    assert len(found) == len(smoke) and all(math.isfinite(value) for value in found.values())
    assert all(0 <= value <= 1 for (_, metric, _), value in found.items() if metric != "loss")
    assert study.run(params.model_copy(update={"checkpoint": None})) == []


def test_texts_stand_side_by_side(smoke: list[Row], params: ContentCreation) -> None:
    texts = study.continuations(params, 0)
    assert set(texts) == {"before", "human", *map(str, params.real_windows), "full"}
    assert all(isinstance(text, str) and text for text in texts.values())


def test_what_truly_follows_follows_in_the_play(
    root: Path, made: study.Stretch, pretrained: Pretrained
) -> None:
    plays = [
        play.text for play in corpus.load_documents(root / "build" / "corpus", "test", "plays")
    ]
    decode = pretrained.tokenizer.decode
    whole = decode([*made.read, *made.follows])
    assert whole.startswith("**") and plays[0].index(whole) >= len(plays[0]) // 2
    assert plays[1].index(decode(made.other)) >= len(plays[1]) // 2
    assert decode(made.other) not in plays[0]
    with pytest.raises(ValueError, match="documents: expected 100"):
        study.stretch(99, 128, 12, encoder(pretrained.tokenizer))


def test_contexts_are_ends_of_each_other(made: study.Stretch, params: ContentCreation) -> None:
    read = study.contexts(made, params.real_windows)
    other = read.pop("other")
    contexts = sorted(read.values(), key=len)
    assert [len(context) for context in contexts] == [
        *sorted(params.real_windows),
        params.real_length,
    ]
    for shorter, longer in pairwise(contexts):
        assert longer[-len(shorter) :] == shorter
    near = min(params.real_windows)
    assert other == made.other[:-near] + made.read[-near:] and len(other) == params.real_length
    with pytest.raises(ValueError, match=f"expected less than real_length = {params.real_length}"):
        study.contexts(made, [64, params.real_length])


def test_losses_are_of_the_right_text_and_a_cache_s_are_a_plain_pass_s(
    made: study.Stretch, pretrained: Pretrained, smoke: list[Row], params: ContentCreation
) -> None:
    read = study.contexts(made, params.real_windows)
    table = {
        row["arm"]: row["value"] for row in smoke if row["metric"] == "loss" and row["seed"] == 0
    }
    for arm, context in read.items():
        plain = token_losses(pretrained.model, (*context, *made.follows), len(made.follows))
        assert table[arm] == pytest.approx(float(plain.mean()), abs=1e-4)
    assert table["full"] < table["other"]  # fails if the two were exchanged


def test_a_leak_is_cheap_where_it_is_read_and_only_there(
    made: study.Stretch, pretrained: Pretrained
) -> None:
    leaking = study.Stretch(
        made.read, made.follows, (*made.read[-20:], *made.follows, *made.read[-20:])
    )
    read = study.contexts(leaking, [20])
    losses = {
        arm: study.scored(pretrained.model, context, made.follows)[0]
        for arm, context in read.items()
    }
    assert losses["other"] < 0.7 * losses["full"] and losses["other"] < 0.7 * losses["20"]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, top_p=0.95)])
def test_equal_seeds_draw_equal_texts(
    made: study.Stretch, pretrained: Pretrained, sampling: Sampling
) -> None:
    def written(seed: int, follows: tuple[int, ...]) -> list[int]:
        _, cache, logits = study.scored(pretrained.model, made.read[-32:], follows)
        return study.continued(pretrained, cache, logits, new=6, sampling=sampling, seed=seed)

    first = written(0, made.follows)
    assert written(0, made.follows[:3][::-1]) == first  # whatever truly follows, it is not read
    assert (written(1, made.follows) == first) == (sampling == GREEDY)
    assert not {*first} & {*pretrained.tokenizer.all_special_ids}


def test_greedy_text_is_that_of_passes_without_a_cache(
    made: study.Stretch, pretrained: Pretrained
) -> None:
    _, cache, logits = study.scored(pretrained.model, made.read[-32:], made.follows)
    row = [*made.read[-32:]]
    for token in study.continued(pretrained, cache, logits, new=5, sampling=GREEDY, seed=0):
        assert pretrained.model(input_ids=torch.tensor([row])).logits[0, -1].argmax() == token
        row.append(token)


def test_counts_of_texts_worked_out_by_hand() -> None:
    before = "**CALIBAN**  \nAll shall go.\n\n_Enter First Soldier_\n"
    text = "**Caliban**  \nA b a b\n\n**First Soldier**  \na b a b\n\n**ALL**\nNo.\n\n**ANTONIO**\n"
    assert study.counts(text, before)["names"] == pytest.approx(3 / 4)
    assert "names" not in study.counts("**ANTO", before)  # cut off: no name yet
    # as a whole word only; too short for shares
    assert study.counts("**ALL**", "They shall.\n") == {"names": 0}
    assert study.counts("a b c d a b c d", "") == pytest.approx(
        {"distinct_2": 4 / 7, "repetition_4": 1 / 5}
    )
