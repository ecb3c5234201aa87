"""Drawings of a story as its readers get it.

They show what is told, and what each arm reads of it.
"""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from farcontext.results.plotting import grid
from farcontext.studies.story_reader import vocabulary
from farcontext.studies.story_writer import Span, Told, spans_of
from farcontext.tasks import world

COLORS = {"prose": "0.87", "told, and so at the end": "C0", "told, and overruled later": "C3"}


def telling(told: Told) -> dict[Span, bool]:
    """Return which sentences tell an event.

    The flag says whether a fact rests on it in the end.
    """
    sample, decode = told.sample, vocabulary().decode
    holds = {span for query in sample.queries for span in query.evidence}
    texts = {span: decode(sample.context[slice(*span)].tolist()) for span in spans_of(sample)}
    return {span: span in holds for span, text in texts.items() if world.read(text)}


def reading(told: Told, read: Mapping[str, Sequence[Span]]) -> Figure:
    """Draw what each arm reads of a story's context.

    Args:
        told: a tested story.
        read: the arms' names, and the spans that each reads at once.
    """
    events = telling(told)
    figure, (axis,) = grid(1, height=0.55 + 0.32 * len(read))
    prose, so, overruled = COLORS.values()
    for place, spans in enumerate(read.values()):
        bar = (place - 0.36, 0.72)
        axis.broken_barh([(a, b - a) for a, b in spans], bar, facecolor=prose)
        for (start, end), holds in events.items():
            if any(a <= start and end <= b for a, b in spans):
                axis.broken_barh([(start, end - start)], bar, facecolor=so if holds else overruled)
        # White gaps part what is read at once.
        axis.vlines([a for a, _ in spans[1:]], bar[0], bar[0] + bar[1], color="white", lw=3)
    axis.set(xlim=(0, len(told.sample.context)), xlabel="token of the context")
    axis.set_yticks(range(len(read)), list(read))
    axis.invert_yaxis()
    axis.grid(visible=False)
    patches = [Patch(color=color, label=words) for words, color in COLORS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)
    return figure
