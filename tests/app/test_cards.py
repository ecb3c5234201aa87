"""Cards hold what is published, and what they say of a choice turns where a verdict turns."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from observe import refuses

from farcontext.app import cards, forest, pages
from farcontext.app.cards import Card
from farcontext.app.literature import Literature, read_literature
from farcontext.results import verdicts
from farcontext.results.claims import Effect, read_claims
from farcontext.schema import read_yaml, validate

NAMES = r"BM25|F1"  # The digits that a sentence without numbers may hold.


@pytest.fixture(scope="module")
def known(root: Path) -> list[Card]:
    return cards.cards(root)


def effect(**given: object) -> Effect:
    return Effect(name="e", where={"metric": "m"}, **given)


def row(low: float, estimate: float, high: float, **more: object) -> dict[str, object]:
    said = {"effect": "e", "decision": "supported", "n": 5}
    return said | {"low": low, "estimate": estimate, "high": high} | more


def card(one: Effect, *rows: dict[str, object]) -> Card:
    """Return a card of one effect, as its table has it."""
    claim = read_claims(Path(__file__).parents[2] / "claims.yaml").claims["A1"]
    claim = claim.model_copy(update={"effects": (one,)})
    told = {"verdict": "supported", "effect": "e", "tries": 1}
    return Card("X", claim, "", told, list(rows), (), "", "", "", [])


# ------------------------------------------------------------------------------- what must be there


def test_every_quotation_has_an_english_rendering(root: Path) -> None:
    quoted = {claim.words for claim in read_claims(root / "claims.yaml").claims.values()}
    assert quoted <= set(read_yaml(cards.WORDS))


def test_every_verdict_that_a_claim_can_have_says_what_to_do(root: Path) -> None:
    choices = read_yaml(cards.CHOICES)
    known = read_claims(root / "claims.yaml").claims
    assert set(choices["claims"]) == set(known)
    for name, claim in known.items():
        many = len(claim.effects) > 1 or claim.effects[0].each
        mixed = {"mixed"} if claim.decides == "each" and many else set()
        assert {"supported", "refuted"} | mixed <= set(choices["claims"][name]), name
    judge = Path(verdicts.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'"(undecided(?: \([^)]*\))?)"', judge)) == set(choices["undecided"])


def test_a_sentence_of_choice_holds_no_number() -> None:
    choices = read_yaml(cards.CHOICES)
    said = [x for one in choices["claims"].values() for x in one.values()]
    for sentence in (*said, *choices["undecided"].values()):
        assert not re.search(r"\d", re.sub(rf"{NAMES}|notebook \d\d", "", sentence)), sentence
        assert sentence.endswith(".") and len(sentence) <= 200


def test_every_claim_has_literature_with_its_place(root: Path) -> None:
    literature = read_literature(root)
    claims = set(read_claims(root / "claims.yaml").claims)
    assert {name for one in literature.found for name in one.claims} == claims
    assert {one.source for one in literature.found} == set(literature.sources)


def test_literature_without_a_place_is_refused() -> None:
    source = {"cited": "A 2020", "title": "T", "url": "https://example.org"}
    found = {"claims": ["A1"], "source": "a", "where": "table 1", "measured": "m", "differs": "d"}
    values = {"sources": {"a": source}, "found": [found]}
    assert validate(Literature, values, "x").of("A1")[0][1].number is None
    for key in ("where", "measured", "differs"):
        with refuses(key):
            validate(Literature, values | {"found": [found | {key: ""}]}, "x")


# ---------------------------------------------------------------------------------------- the cards


def test_cards_are_the_claims_in_their_order(known: list[Card], root: Path) -> None:
    assert [one.id for one in known] == list(read_claims(root / "claims.yaml").claims)
    assert sum(cards.tally(known).values()) == len(known)
    study = known[0].claim.study
    assert {one.claim.study for one in cards.chosen(known, study)} == {study}
    kind = known[0].kind
    assert {one.kind for one in cards.chosen(known, verdict=kind)} == {kind}
    assert cards.chosen(known) == known


def test_what_a_card_says_turns_with_its_verdict() -> None:
    choices = read_yaml(cards.CHOICES)
    said = [cards._means("S1", verdict, choices) for verdict in ("supported", "refuted", "mixed")]
    assert len(set(said)) == 3 and all(said)
    undecided = {cards._means(name, "undecided (budget)", choices) for name in ("S1", "W1")}
    assert len(undecided) == 1
    assert cards._means("S1", cards.PENDING, choices) == ""


def test_a_page_of_cards_can_be_linked_and_has_whole_tables(known: list[Card]) -> None:
    text = pages.cards_block(known)
    for one in known:
        assert f"\n### {one.id}\n" in f"\n{text}" and one.means in text
        for _, found in one.literature:
            assert found.where.replace("|", "\\|") in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_each_answer_names_cards_that_exist(known: list[Card], root: Path) -> None:
    told = cards.answers((root / "README.md").read_text(encoding="utf-8")).splitlines()
    assert [line[:2] for line in told] == ["1.", "2.", "3.", "4.", "5."]
    linked = {name for line in told for name in re.findall(r"\]\(#([^)]+)\)", line)}
    assert linked and linked <= {one.id for one in known}


def test_a_cell_belongs_to_its_effect_and_tells_its_dose() -> None:
    cell = effect(each=("dose", "layout"), at_least=0.0)
    one = card(cell, row(0, 1, 2, effect="e: layout far, dose 20"), row(0, 1, 2, effect="other"))
    assert one.doses == ["layout: far", "dose: 20"]
    assert cards.effect_of(one.effects[0], one.claim) == cell
    assert cards.effect_of(one.effects[1], one.claim) is None
    slope = card(effect(slope="pairs", at_least=0.0))
    assert slope.doses == ["pairs, by doublings"]


def test_a_claim_that_changed_since_its_verdict_says_so() -> None:
    same = card(effect(at_least=1.0), row(1, 2, 3))
    assert not same.changed
    assert card(effect(at_least=1.0), row(1, 2, 3)).row["effect"] == "e"
    other = replace(same, row=same.row | {"effect": "what it was"})
    assert other.changed


def test_a_level_that_is_never_reached_is_told_so() -> None:
    crossing = effect(crossing={"on": "level", "at": 5.0}, at_most=12)
    never = row(1.5, math.nan, math.nan)
    assert cards.shown(never, crossing) == {"estimate": "never", "low": "1.5", "high": "never"}
    assert cards.shown(never, effect(at_most=12))["estimate"] == "–"


# --------------------------------------------------------------------------------------- the forest


@pytest.mark.parametrize(
    ("given", "ends", "unit", "expected"),
    [
        ({"at_least": 2.0}, (3, 4, 5), forest.THRESHOLDS, (0.5, 1.0, 1.5)),
        ({"at_most": 2.0}, (3, 4, 5), forest.THRESHOLDS, (-1.5, -1.0, -0.5)),
        ({"at_most": -0.5}, (-2, -1.5, -1), forest.THRESHOLDS, (1.0, 2.0, 3.0)),
        ({"at_least": 0.0}, (1, 3, 5), forest.WIDTHS, (0.5, 1.5, 2.5)),
        ({"at_most": -1e-6}, (1, 3, 5), forest.WIDTHS, (-2.5, -1.5, -0.5)),
        ({"at_most": 0.0}, (0, 0, 0), forest.THRESHOLDS, (0.0, 0.0, 0.0)),
        ({"between": (-2.0, 2.0)}, (-1, 0, 1), forest.THRESHOLDS, (0.5, 1.0, 1.0)),
        ({"between": (-2.0, 2.0)}, (1, 2, 3), forest.THRESHOLDS, (-0.5, 0.0, 0.5)),
    ],
)
def test_a_distance_is_towards_the_claim_in_its_unit(
    given: dict[str, object], ends: tuple[float, ...], unit: str, expected: tuple[float, ...]
) -> None:
    (found,) = forest.distances([card(effect(**given), row(*ends))]).to_dict("records")
    assert found["unit"] == unit and found["deciding"]
    got = tuple(found[x] for x in forest.ENDS)
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_never_lies_at_the_far_end_and_the_unknown_is_left_out() -> None:
    crossing = effect(crossing={"on": "level", "at": 5.0}, at_most=12)
    never = forest.distances([card(crossing, row(math.nan, math.nan, math.nan))])
    assert list(never["estimate"]) == [-math.inf]
    unknown = card(effect(at_least=1.0), row(math.nan, 2.0, math.nan))
    gone = card(effect(at_least=1.0), row(1, 2, 3, effect="what it was"))
    assert forest.distances([unknown, gone]).empty


def test_every_published_decision_stands_on_its_side(known: list[Card]) -> None:
    found = forest.distances(known)
    assert (found[found["decision"] == "supported"]["low"] >= 0).all()
    assert (found[found["decision"] == "refuted"]["high"] < 0).all()
    judged = {one.id for one in known if one.row}
    assert {one.id for one in known if one.row and not one.changed} <= set(found["claim"]) <= judged


def test_a_planted_side_is_noticed() -> None:
    """The notebook's assertion sees an effect whose sides were swapped."""
    swapped = forest.distances([card(effect(at_most=2.0), row(3, 4, 5))])
    assert not (swapped[swapped["decision"] == "supported"]["low"] >= 0).all()


def test_the_forest_has_a_row_a_claim_below_its_question(known: list[Card]) -> None:
    found = forest.distances(known)
    questions = {one.claim.study: f"about {one.claim.study}" for one in known}
    figure = forest.forest(found, questions)
    labels = [x.get_text() for axis in figure.axes for x in axis.get_yticklabels()]
    assert set(labels) == set(found["claim"])
    assert [axis.get_xlabel().split(" in ")[1].split(" ·")[0] for axis in figure.axes] == [
        forest.THRESHOLDS,
        forest.WIDTHS,
    ]
