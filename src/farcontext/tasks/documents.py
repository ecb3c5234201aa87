"""Look-ups in a real document, which the reader continues.

A question begins a line of somebody's document, and the reader goes on as the document does.

    |<-------------------------- length --------------------------->|
    | bos | line | LINE ASKED FOR | line | … | line | its beginning, its value |

Nothing is laid into the text: what is asked for stands where the author put it. The task measures
retrieval, not understanding. A reader may know the document, so studies always ask the same
questions without it too.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from farcontext.tasks.sample import Encode, Ids, Query, Sample, places_of

# A manual's line reads: name (type, …): what it is.
MEMBER = re.compile(r"^(\w+ \()(\w+)[^)\n]*\): ")
# A play's line is read as four words and the next one.
VERSE = re.compile(r"^((?:[A-Za-z',;-]+ ){4})([a-z]{3,})\b")

Split = tuple[str, str]  # A line is split into its beginning and the value that follows.


def members(line: str) -> Split | None:
    """Return a manual's member up to its type, and the type.

    An example is "TopicArn (" and "string".
    """
    found = MEMBER.match(line)
    return found and (found[1], found[2])


def verses(line: str) -> Split | None:
    """Return the first four words of a play's line, and the next.

    The second value is the space and the word that follow.
    """
    found = VERSE.match(line)
    return found and (found[1].rstrip(), f" {found[2]}")


def sample(
    text: str,
    spare: str,
    *,
    length: int,
    encode: Encode,
    read: Callable[[str], Split | None],
    seed: int,
    queries: int = 8,
    bos: Sequence[int] = (),
) -> Sample | None:
    r"""Return a stretch of a document and questions for its lines.

    It returns None if the stretch has fewer than two values to ask for.

    >>> from farcontext.tasks.words import WordTokenizer
    >>> toy = WordTokenizer()
    >>> text = "Request:\nLabel (string): a name.\nRows (integer): how many.\nEnd.\n"
    >>> spare = "Other words. " * 20
    >>> made = sample(text, spare, length=27, encode=toy.encode, read=members, seed=0)
    >>> for query in made.queries:
    ...     said = toy.decode(query.question), toy.decode(query.answer)
    ...     print(*map(repr, said), round(query.depth, 2))
    '\nLabel (' 'string' 0.3
    '\nRows (' 'integer' 0.7

    Only beginnings that the stretch holds once are asked for, each value about as often as the
    others; the choices are the values asked for.

    Args:
        text, spare: the document from where the stretch begins, and another one for the controls.
        length: tokens of stretch, longest question and longest choice together.
        read: a line → its beginning and its value (`members`, `verses`).
        queries: at most.
    """
    rng = np.random.default_rng(seed)
    lines = [line for line in text.splitlines() if line.strip()]
    encoded = [tuple(encode(f"\n{line}")) for line in lines]
    splits = [(number, *found) for number, line in enumerate(lines) if (found := read(line))]
    longest = max((len(encode(f"\n{begin}")) for _, begin, _ in splits), default=length)
    longest += max((len(encode(value)) for _, _, value in splits), default=0)
    context, blocks = list(bos), []
    for line in encoded:
        if len(context) + len(line) > length - longest:
            break
        blocks.append(len(context))
        context.extend(line)
    ends = [*blocks[1:], len(context)]
    asked = _asked(
        rng,
        splits[: sum(number < len(blocks) for number, _, _ in splits)],
        context,
        encode,
        queries,
    )
    if len({answer for _, _, answer in asked}) < 2:
        return None
    choices = tuple(sorted({answer for _, _, answer in asked}))
    found = [
        Query(
            question,
            answer,
            choices,
            ((blocks[n], ends[n]),),
            (blocks[n] + ends[n]) / 2 / len(context),
        )
        for n, question, answer in asked
    ]
    size = len(context) + max(len(q.question) + max(map(len, choices)) for q in found)
    other = np.resize(np.array(encode(spare), dtype=np.int64), length)
    return Sample(np.array(context), tuple(found), 1 / len(choices), size, tuple(blocks), other)


def _asked(
    rng: np.random.Generator,
    splits: Sequence[tuple[int, str, str]],
    context: list[int],
    encode: Encode,
    queries: int,
) -> list[tuple[int, Ids, Ids]]:
    """Return the lines that can be asked for.

    They are (line, question, answer); a line's beginning stands once in the context. The values
    take turns.
    """
    by_value: dict[Ids, list[tuple[int, Ids, Ids]]] = {}
    for number in rng.permutation(len(splits)):
        line, begin, value = splits[number]
        question, answer = tuple(encode(f"\n{begin}")), tuple(encode(value))
        once = (
            len(places_of((*question, *answer), context)) == len(places_of(question, context)) == 1
        )
        if once and not len(places_of(answer, question)):
            by_value.setdefault(answer, []).append((line, question, answer))
    dealt = [some.pop() for _ in range(queries) for some in by_value.values() if some]
    return sorted(dealt[:queries])
