"""Timed pieces of text → cues that a person can read.

Where to cut is decided for a whole stretch of speech at once, by dynamic programming over the pieces: few cues, ends at
the ends of sentences and clauses, no line too wide, none too fast to read, and nothing shown across a pause. Pure.

Sources:
    Netflix, *Timed Text Style Guides*, "General Requirements" and the pages of the languages: 42 columns and two lines
    for Latin scripts, 16 characters for Korean and Chinese, 13 for Japanese; 5/6 s to 7 s; two frames between cues.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from voxvec.errors import ConfigError
from voxvec.transcription.scripts import Piece, columns, strength
from voxvec.transcription.subtitles import Cue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Style", "Timed", "compose", "style_for"]


_SENTENCE, _CLAUSE = 3, 2  # of strength()
# What a cut costs by its strength, and what it costs that a cue holds the end of one sentence and the beginning of
# another; one more cue costs 1.
_TORN = (2.5, 1.6, 0.4, 0.0)
_MIXED = 0.6
_ACROSS = 1.5  # what it costs to go on across the end of a segment: more than another cue, if that is not too brief
_BREATH = 0.25  # a pause that is heard [s]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How subtitles look.

    Attributes:
        width: Most columns of a line; East Asian characters take two.
        lines: Most lines of a cue.
        speed: Fastest comfortable reading [columns/s]; faster speech is shown all the same.
        shortest: Least time to show a cue [s], where the next one leaves room for it.
        longest: Most time to show a cue [s].
        pause: A silence longer than this is not covered by a cue [s].
        linger: How long a cue may stay after its last word [s].
        gap: Least time between two cues, where there is a pause anyway [s].

    Raises:
        ConfigError: A number is out of range.
    """

    width: int = 42
    lines: int = 2
    speed: float = 20.0
    shortest: float = 5 / 6
    longest: float = 7.0
    pause: float = 0.5
    linger: float = 0.25
    gap: float = 1 / 12

    def __post_init__(self) -> None:
        for name in ("width", "lines", "speed", "longest"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Style.{name} must be above 0, not {getattr(self, name)}")
        for name in ("shortest", "pause", "linger", "gap"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"Style.{name} must be 0 or more, not {getattr(self, name)}")


_STYLES: Mapping[str, Style] = {
    "ja": Style(width=26, speed=16.0),
    "ko": Style(width=32, speed=24.0),
    "th": Style(width=35, speed=17.0),
    "yue": Style(width=32, speed=18.0),
    "zh": Style(width=32, speed=18.0),
}


def style_for(language: str | None) -> Style:
    """The custom of a language; that of Latin scripts where there is no other."""
    return _STYLES.get((language or "").partition("-")[0], Style())


class Timed(NamedTuple):
    """A piece of text and when it was said.

    Attributes:
        text: Without space around it; see `voxvec.transcription.scripts.pieces`.
        start: Begin [s].
        end: End, not before ``start`` [s].
        spaced: Whether a space stands before it.
        speaker: Who says it, if that is known.
        closes: Whether whoever measured the times ended a segment here.
    """

    text: str
    start: float
    end: float
    spaced: bool = True
    speaker: str | None = None
    closes: bool = False


def compose(timed: Sequence[Timed], style: Style, *, until: float = math.inf) -> list[Cue]:
    """Cues for pieces of text.

    Args:
        timed: In order of time.
        style: How they are to look.
        until: End of the recording, which no cue outlasts [s].

    Returns:
        In order, without overlaps; every piece is in exactly one of them. A single piece wider than a line has a line
        of its own.
    """
    made: list[Cue] = []
    for first, last in _stretches(timed, style):
        made += [_cue(timed[a:b], style) for a, b in _cuts(timed[first:last], style, offset=first)]
    return _linger(made, style, until)


def _stretches(timed: Sequence[Timed], style: Style) -> list[tuple[int, int]]:
    """What one cue may not reach across: a pause, another speaker."""
    edges = [
        at
        for at in range(1, len(timed))
        if timed[at].start - timed[at - 1].end > style.pause or timed[at].speaker != timed[at - 1].speaker
    ]
    return list(zip([0, *edges], [*edges, len(timed)], strict=True)) if timed else []


def _cuts(timed: Sequence[Timed], style: Style, *, offset: int) -> list[tuple[int, int]]:
    """The cheapest way to cut a stretch into cues."""
    n = len(timed)
    widths = [columns(piece.text) for piece in timed]
    ends = [_strength(timed, at) for at in range(n)]
    cost, came_from = [0.0] + [math.inf] * n, [0] * (n + 1)
    for first in range(n):
        lines, used, total, sentences, segments = 1, 0, 0, 0, 0
        for last in range(first, n):
            space = int(timed[last].spaced and used > 0)
            if used + space + widths[last] > style.width and used:
                lines, used, space = lines + 1, 0, 0
            used += space + widths[last]
            total += space + widths[last]
            seconds = timed[last].end - timed[first].start
            if last > first and (lines > style.lines or seconds > style.longest):
                break
            price = cost[first] + _TORN[ends[last]] + _price(seconds, total, style) + 0.3 * (lines > 1)
            if sentences and ends[last] < _SENTENCE:
                price += _MIXED
            price += _ACROSS * segments
            sentences += ends[last] == _SENTENCE
            segments += timed[last].closes
            if price < cost[last + 1]:
                cost[last + 1], came_from[last + 1] = price, first
    cuts: list[tuple[int, int]] = []
    while n:
        cuts.append((offset + came_from[n], offset + n))
        n = came_from[n]
    return cuts[::-1]


def _strength(timed: Sequence[Timed], at: int) -> int:
    """How well a cut behind a piece is placed; a pause or the end of a segment is as good as a comma."""
    if at + 1 == len(timed):
        return _SENTENCE
    following = timed[at + 1]
    found = strength(timed[at].text, Piece(following.text, following.spaced))
    paused = timed[at].closes or following.start - timed[at].end >= _BREATH
    return max(found, _CLAUSE) if paused else found


def _price(seconds: float, width: int, style: Style) -> float:
    """What is wrong with a cue, in cues: one more cue costs 1."""
    shown = max(seconds, 0.001) + style.linger
    hurried = max(0.0, width / shown / style.speed - 1)
    brief = max(0.0, 1 - shown / style.shortest) if style.shortest else 0.0
    return 1.0 + 2 * hurried + 2 * brief


def _cue(pieces: Sequence[Timed], style: Style) -> Cue:
    text = "\n".join(_lines(pieces, style))
    return Cue(pieces[0].start, max(piece.end for piece in pieces), text, pieces[0].speaker)


def _lines(pieces: Sequence[Timed], style: Style) -> list[str]:
    """The pieces on as few lines as they fit, about equally long, broken behind a clause where there is one."""
    whole = _join(pieces)
    if columns(whole) <= style.width or len(pieces) == 1:
        return [whole]
    best, cut = math.inf, 1
    for at in range(1, len(pieces)):
        left, right = columns(_join(pieces[:at])), columns(_join(pieces[at:]))
        over = max(0, left - style.width) + max(0, math.ceil(right / max(1, style.lines - 1)) - style.width)
        price = (
            100 * over
            + abs(left - right / max(1, style.lines - 1)) / style.width
            + _TORN[_strength(pieces, at - 1)] / 4
        )
        if price < best:
            best, cut = price, at
    rest = replace(style, lines=max(1, style.lines - 1))
    return [_join(pieces[:cut]), *(_lines(pieces[cut:], rest) if style.lines > 2 else [_join(pieces[cut:])])]  # noqa: PLR2004


def _join(pieces: Sequence[Timed]) -> str:
    return "".join(" " * (piece.spaced and at > 0) + piece.text for at, piece in enumerate(pieces))


def _linger(cues: list[Cue], style: Style, until: float) -> list[Cue]:
    """Let cues stay a little where nothing follows at once, so that they can be read."""
    stays: list[Cue] = []
    for at, cue in enumerate(cues):
        following = cues[at + 1].start if at + 1 < len(cues) else math.inf
        room = min(until, cue.end + style.linger, max(cue.end, following - style.gap))
        wanted = max(cue.end, cue.start + style.shortest, cue.start + columns(cue.text) / style.speed)
        end = max(cue.start, min(wanted, max(room, cue.end), following, max(until, cue.start)))
        stays.append(replace(cue, end=end))
    return stays
