"""reports.py makes rows of reports and statements; what is scored follows from what is told."""

import numpy as np
import pytest
from toys import BYTES, FILLER

from farcontext.tasks import reports, world
from farcontext.tasks.events import THINGS, Event, Fact
from farcontext.tasks.reports import Slot, facts_of, joined, lines_in, merged, report, worded
from farcontext.tasks.storybook import STATEMENTS, SUMMARY, Vocabulary, sentences_of

WORDS = Vocabulary(BYTES.encode, BYTES.decode, 256)
SENTENCES = sentences_of(FILLER[:20_000], WORDS.encode)
SIZES = {"people": 4, "things": 3, "changes": 6}
ALL = reports.ONE_SENTENCE + reports.TWO_SENTENCES


def made(task: str, count: int = 60, length: int = 1_200) -> list[tuple[str, str]]:
    """Return the text of rows, and that of their scored tokens alone."""
    same = {"vocabulary": WORDS, "filler": SENTENCES, "bos": (7,)} | SIZES
    tokens, scored = reports.rows(np.random.default_rng(0), count, length=length, task=task, **same)
    assert tokens.shape == scored.shape == (count, length) and (tokens[:, 0] == 7).all()
    return [
        (WORDS.decode(row[1:]), WORDS.decode(row[marks]))
        for row, marks in zip(tokens, scored, strict=True)
    ]


def test_a_report_says_what_is_so_in_the_end() -> None:
    events = [
        Event("go", "Anna Baker", "mill"),
        Event("take", "Anna Baker", "lamp"),
        Event("take", "Boris Carter", "key"),
        Event("go", "Anna Baker", "tower"),
    ]
    said = "".join(map(worded, report(events)))
    assert said == (
        " Anna Baker is in the tower. The key is with Boris Carter."
        " The lamp is with Anna Baker, in the tower."
    )
    assert lines_in(said) == report(events)
    assert report([]) == lines_in("Nothing of it, The end is with us.") == []


def test_lines_are_read_as_they_are_worded() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        lines = report(world.simulate(rng, **SIZES).events)
        assert lines_in("".join(map(worded, lines))) == lines
        assert len(facts_of(lines, ALL)) == 10


def test_perfect_reports_of_parts_join_to_that_of_the_whole() -> None:
    """So chunk and merge can win: nothing that it needs is denied to it."""
    rng, missing = np.random.default_rng(2), 0
    for _ in range(60):
        story = world.simulate(rng, **SIZES)
        cuts = np.sort(rng.integers(len(story.events) + 1, size=4))
        parts = [
            report([story.events[n] for n in part])
            for part in np.split(np.arange(len(story.events)), cuts)
        ]
        whole, latest = report(story.events), merged(parts)
        assert joined(latest) == whole
        kinds = reports.ONE_SENTENCE
        assert facts_of(latest, kinds) == facts_of(whole, kinds)
        missing += latest != whole
    assert missing > 40  # What joins two sentences, the last line about a subject does not tell.


def test_the_last_line_about_a_subject_wins_with_all_that_it_says() -> None:
    first = lines_in(" The lamp is with Anna Baker, in the mill. Anna Baker is in the mill.")
    second = lines_in(" The lamp is with Boris Carter.")
    assert merged([first, second]) == [
        (Fact("place", "Anna Baker", "mill"),),
        (Fact("holder", "lamp", "Boris Carter"),),
    ]
    assert merged([second, first]) == [first[1], first[0]]
    assert merged([[], []]) == []


@pytest.mark.parametrize("task", ["whole", "chunk"])
def test_a_report_states_what_its_row_tells_and_nothing_else(task: str) -> None:
    sizes = []
    for text, scored in made(task):
        context, _, after = text.partition(SUMMARY)
        events = world.read(context)
        assert scored == after and lines_in(after) == report(events)
        sizes.append(len(events))
    assert min(sizes) == (7 if task == "whole" else 0) and max(sizes) <= (
        13 if task == "whole" else 7
    )


def test_statements_abstain_where_the_row_does_not_tell() -> None:
    vague, total = 0, 0
    for text, scored in made("statements"):
        context, _, after = text.partition("\nAbout ")
        named, _, after = after.partition(STATEMENTS)
        known = reports.values_of(world.read(context))
        cast = [one.removeprefix("the ") for one in named.strip(" .").split(", ")]
        assert len(set(cast)) == 9 and sum(one in THINGS for one in cast) == 4
        slots = [Slot.about(one) for one in cast]
        said = [slot.after(known.get(one)) for slot, one in zip(slots, cast, strict=True)]
        assert after == "".join(slot.begin + x for slot, x in zip(slots, said, strict=True))
        assert scored == "".join(said)
        vague += sum(one not in known for one in cast)
        total += len(cast)
    assert 0.4 < vague / total < 0.6  # It abstains about as often as it states.


def test_strangers_are_of_no_story_and_share_nobody_s_first_name() -> None:
    rng = np.random.default_rng(3)
    for split in ("train", "test"):
        for _ in range(20):
            story = world.simulate(rng, split=split, **SIZES)
            cast = reports.cast_of(story, rng, split)
            strangers = set(cast) - {*story.people, *story.things}
            (who,), (what,) = (
                [one for one in strangers if (one in THINGS) == thing] for thing in (False, True)
            )
            assert who.split()[0] not in {name.split()[0] for name in story.people}
            assert not any(word in sentence for word in (who, what) for sentence in story.sentences)


def test_statements_are_worded_as_facts_are() -> None:
    person, thing = Slot.about("Anna Baker"), Slot.about("lamp")
    assert person.begin + person.after("mill") == Fact("place", "Anna Baker", "mill").sentence
    assert thing.begin + thing.after("Anna Baker") == Fact("holder", "lamp", "Anna Baker").sentence
    assert person.begin + person.after(None) == " Anna Baker is somewhere."
    assert thing.begin + thing.after(None) == " The lamp is with somebody."


def test_a_row_that_is_too_short_says_what_would_do() -> None:
    with pytest.raises(ValueError, match="expected at least"):
        made("whole", length=60)
    assert made("chunk", 5) == made("chunk", 5)
