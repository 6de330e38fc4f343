"""Times for the words of a text: borrowed from somebody who measured them, or shared out over the speech.

`borrow` takes the times of the same words in another transcript of the same sound. `spread` has nothing to go by but
where somebody speaks: it gives every piece of text its share of that, and never a moment of a pause. Pure.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, TypeAlias

from voxvec.transcription.scripts import Piece, letters, strength

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxvec.transcription.transcript import Word

__all__ = ["Stretch", "borrow", "spread"]

Stretch: TypeAlias = tuple[float, float]
"""Begin and end [s]."""

_SNAP, _FAR = 0.2, 10.0  # how far the end of a sentence is moved to meet a pause: a share of so many seconds at most
_REACH = (0.1, 0.3, 1.0, 1.0)  # as a share of that, by the strength of the cut


def spread(pieces: Sequence[Piece], spans: Sequence[Stretch]) -> list[Stretch]:
    """Share out the speech among the pieces of a text by how much there is to say, ends of sentences at pauses.

    Args:
        pieces: The text.
        spans: Where somebody speaks, in order [s]; the first piece begins with the first, the last ends with the last.

    Returns:
        Begin and end of each piece, in order. None reaches across a pause.
    """
    if not pieces or not spans:
        return []
    weights = [max(1, letters(piece.text)) for piece in pieces]
    ends = list(accumulate(stop - start for start, stop in spans))
    if ends[-1] <= 0:
        return [spans[0]] * len(pieces)
    scale = ends[-1] / sum(weights)
    bounds = _snapped(pieces, [0.0, *(total * scale for total in accumulate(weights))], ends)
    return [_placed(spans, ends, a, b) for a, b in pairwise(bounds)]


def _snapped(pieces: Sequence[Piece], bounds: list[float], ends: Sequence[float]) -> list[float]:
    """Cuts between pieces moved to a pause nearby: each pause goes to the best cut around it.

    What lies between two pauses is stretched to fit.
    """
    reach = _SNAP * min(ends[-1], _FAR)
    anchors = [(0, 0.0)]
    for pause in ends[:-1]:
        cuts = [
            (strength(pieces[at - 1].text, pieces[at]), -abs(bounds[at] - pause), at)
            for at in range(anchors[-1][0] + 1, len(pieces))
            if abs(bounds[at] - pause) <= reach
        ]
        # The weaker the cut, the nearer it must be: a word ends everywhere, a sentence does not.
        cuts = [cut for cut in cuts if -cut[1] <= reach * _REACH[cut[0]]]
        if cuts:
            anchors.append((max(cuts)[2], pause))
    anchors.append((len(pieces), ends[-1]))
    moved = list(bounds)
    for (left, begin), (right, end) in pairwise(anchors):
        scale = (end - begin) / (bounds[right] - bounds[left])
        moved[left : right + 1] = [begin + (bound - bounds[left]) * scale for bound in bounds[left : right + 1]]
    return moved


def _placed(spans: Sequence[Stretch], ends: Sequence[float], a: float, b: float) -> Stretch:
    """From speech time to the recording's; what would reach across a pause stays on the side where more of it lies."""
    first = min(bisect_right(ends, a), len(ends) - 1)
    last = first
    while last + 1 < len(ends) and b > ends[last] + 1e-9:
        last += 1
    if last > first:
        shares = [(min(b, ends[at]) - max(a, ends[at - 1] if at else 0.0), -at) for at in range(first, last + 1)]
        home = -max(shares)[1]
        a, b = max(a, ends[home - 1] if home else 0.0), min(b, ends[home])
        first = home
    shift = spans[first][1] - ends[first]
    return a + shift, b + shift


def borrow(
    pieces: Sequence[Piece], words: Sequence[Word], *, start: float, end: float
) -> list[tuple[float, float, bool]]:
    """Take over the times of the same words in another transcript.

    Args:
        pieces: The text that is to get times.
        words: Words with times, in order, of the same sound; they may be spelt otherwise, and some may differ.
        start: Begin of the sound [s].
        end: Its end [s].

    Returns:
        Begin, end and whether they were found; what was not is shared out between its neighbours.
    """
    theirs = [_bare(word.text) for word in words]
    mine = [_bare(piece.text) for piece in pieces]
    times: list[tuple[float, float] | None] = [None] * len(pieces)
    for a, b, size in SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks():
        for at in range(size):
            if mine[a + at]:
                times[a + at] = (words[b + at].start, words[b + at].end)
    found: list[tuple[float, float, bool]] = []
    at = 0
    while at < len(times):
        known = times[at]
        if known is not None:
            found.append((*known, True))
            at += 1
            continue
        stop = next((later for later in range(at, len(times)) if times[later] is not None), len(times))
        begin = found[-1][1] if found else start
        following = times[stop] if stop < len(times) else None
        until = max(begin, following[0] if following else end)
        found += [(a, b, False) for a, b in spread(pieces[at:stop], [(begin, until)])]
        at = stop
    return found


def _bare(text: str) -> str:
    """A word as it sounds: no case, no punctuation, one way to write each character."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LNM")
