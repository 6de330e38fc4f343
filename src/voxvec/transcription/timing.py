"""Times for the text of a model that gives none: what was said between two pauses, and when.

The edges of a segment are those of the speech in the recording; the words in it are shared out over that speech, and
say that they are estimated. Pure.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from voxvec.transcription.aligning import spread
from voxvec.transcription.scripts import Piece, pieces
from voxvec.transcription.transcript import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxvec.transcription.aligning import Stretch

__all__ = ["join", "spoken"]

_PAUSE = 0.5  # a longer silence ends a segment [s]


def spoken(text: str, language: str | None, spans: Sequence[Stretch]) -> tuple[Segment, ...]:
    """Segments for a text of which only the sound is known.

    Args:
        text: What was said.
        language: Code of its language, if known.
        spans: Where somebody speaks, in order [s].

    Returns:
        A segment for every stretch of speech between two pauses of half a second or more, with ``timing="speech"``; the
        words in it are estimated. None if nobody speaks.
    """
    found = pieces(text, language)
    times = spread(found, spans)
    runs = _runs(spans)
    segments: list[Segment] = []
    for at, (start, end) in enumerate(runs):
        until = runs[at + 1][0] if at + 1 < len(runs) else float("inf")
        inside = [at for at, time in enumerate(times) if start - 1e-6 <= time[0] < until - 1e-6]
        if inside:
            words = tuple(Word(found[at].text, *times[at], "estimated") for at in inside)
            segments.append(Segment(join([found[at] for at in inside]), start, end, "speech", words=words))
    return tuple(segments)


def join(run: Sequence[Piece]) -> str:
    """The text of some pieces."""
    return "".join(" " * (piece.spaced and at > 0) + piece.text for at, piece in enumerate(run))


def _runs(spans: Sequence[Stretch]) -> list[Stretch]:
    """Speech between two pauses."""
    breaks = [at for at, (a, b) in enumerate(pairwise(spans), 1) if b[0] - a[1] > _PAUSE]
    return [(spans[a][0], spans[b - 1][1]) for a, b in pairwise([0, *breaks, len(spans)])] if spans else []
