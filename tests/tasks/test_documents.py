"""documents.py asks for what stands once in the stretch.

Behind its beginning stands the answer.
"""

import numpy as np
import pytest
from toys import BYTES, word_toy

from farcontext.tasks import documents
from farcontext.tasks.documents import members, verses
from farcontext.tasks.sample import closed_book, follower

TYPES = ("string", "list", "integer", "boolean")


def manual(seed: int, count: int = 40) -> str:
    draw = np.random.default_rng(seed)
    lines = ["Request:"]
    for number in range(count):
        kind = TYPES[min(3, draw.geometric(0.6) - 1)]
        lines += [f"Member{seed}x{number:02d} ({kind}, required): what it is for."] + [
            "Some prose about it, at length."
        ] * 2
    return "\n".join(lines)


def play(seed: int) -> str:
    draw = np.random.default_rng(seed)
    words = [
        "".join(draw.choice(list("aeiou"), 2)) + end
        for end in ("bell", "moor", "wind", "tale", "song", "frost")
    ]
    return "\n".join(" ".join(draw.choice(words, 6)).capitalize() for _ in range(60))


CASES = {"manual": (manual, members), "play": (play, verses)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("length", [600, 900])
def test_each_answer_stands_behind_the_only_occurrence_of_its_question(
    name: str, length: int
) -> None:
    text, read = CASES[name]
    for seed in range(10):
        toy = BYTES
        made = documents.sample(
            text(seed),
            text(seed + 50),
            length=length,
            encode=toy.encode,
            read=read,
            seed=seed,
            bos=(7,),
        )
        assert made is not None
        assert made.context[0] == 7
        assert made.length <= length
        assert 1 < len(made.queries) <= 8
        for query in made.queries:
            assert follower(made.context, query) == query.answer
            ((start, end),) = query.evidence
            assert toy.decode(made.context[start:end].tolist()).startswith(
                toy.decode(query.question)
            )
        assert toy.decode(made.context[1:].tolist()) == "\n" + text(seed)[: len(made.context) - 2]
        hidden = closed_book(made)
        assert len(hidden.context) == len(made.context)
        assert all(follower(hidden.context, query) == () for query in hidden.queries)


def test_values_take_turns_so_that_the_commonest_is_no_good_guess() -> None:
    shares = []
    for seed in range(20):
        made = documents.sample(
            manual(seed), manual(99), length=1600, encode=BYTES.encode, read=members, seed=seed
        )
        answers = [query.answer for query in made.queries]
        shares.append(max(map(answers.count, answers)) / len(answers))
    assert np.mean(shares) < 0.5  # string is 60 % of the members


def test_a_document_without_two_values_to_ask_for_gives_nothing() -> None:
    toy = word_toy()
    only = "\n".join(f"Member{n} (string): text." for n in range(9))
    assert (
        documents.sample(only, "x. " * 90, length=60, encode=toy.encode, read=members, seed=0)
        is None
    )
    assert (
        documents.sample(
            "Prose alone.\n" * 9, "x. " * 90, length=60, encode=toy.encode, read=members, seed=0
        )
        is None
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("TopicArn (string, required): The ARN.", ("TopicArn (", "string")),
        ("ActionName (list of action): x", ("ActionName (", "list")),
        ("See (above) for more", None),
    ],
)
def test_a_member_is_a_name_and_its_type(line: str, found: tuple[str, str] | None) -> None:
    assert members(line) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Consideration, like an angel came  ", ("Consideration, like an angel", " came")),
        ("As in this king.", None),
        ("And whipp'd the offending adam out of him,", ("And whipp'd the offending", " adam")),
        ("**ELY**", None),
        ("The strawberry grows underneath the nettle", ("The strawberry grows underneath", " the")),
    ],
)
def test_a_verse_is_four_words_and_the_next(line: str, found: tuple[str, str] | None) -> None:
    assert verses(line) == found
