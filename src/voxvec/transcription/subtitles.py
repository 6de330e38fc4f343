"""Subtitle files: timed texts, written so that any player can read them.

Times are whole milliseconds from the first step on, so nothing is ever shown as
60.000 seconds past a minute. A text cannot break out of its cue. Nothing here knows
where the times come from.

Sources:
    WebVTT, https://www.w3.org/TR/webvtt1/, and the customs of SubRip, which has no standard.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Cue", "srt", "timestamp", "vtt"]

# Several characters end a line somewhere; only one of them does so in a subtitle file.
_LINE_ENDS = re.compile(r"\r\n?|[\n\v\f\x1c-\x1e\x85\u2028\u2029]")
_ARROW = re.compile(r"-{2,}>")
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class Cue:
    """A text and when it is shown.

    Attributes:
        start: Begin [s].
        end: End [s].
        text: What is shown, on one or more lines.
        speaker: Who says it.
    """

    start: float
    end: float
    text: str
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class _Shown:
    """A cue made safe: times in milliseconds, ``start < end``, lines that are not empty."""

    start: int
    end: int
    lines: tuple[str, ...]
    speaker: str


def timestamp(seconds: float, *, separator: str = ".") -> str:
    """A time as ``HH:MM:SS.mmm``, rounded to the millisecond; hours grow past 99 as needed.

    Args:
        seconds: Time, not negative [s].
        separator: What stands before the milliseconds; SubRip wants a comma.

    Examples:
        >>> timestamp(59.9996)
        '00:01:00.000'
    """
    return _clock(_milliseconds(seconds), separator)


def srt(cues: Iterable[Cue], *, duration: float | None = None) -> str:
    """A SubRip file: cues in order of time, numbered from 1, speakers as ``Name: ``.

    An arrow within a text becomes ``→``, because SubRip cannot escape it. Of two cues that
    overlap, the earlier one ends where the later begins. A cue without text is left out.

    Args:
        cues: What to show, in any order.
        duration: Length of the recording, which no cue outlasts [s].
    """
    blocks: list[str] = []
    for number, cue in enumerate(_arrange(cues, duration), start=1):
        text = _ARROW.sub("→", f"{cue.speaker}: " * bool(cue.speaker) + "\n".join(cue.lines))
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue], *, duration: float | None = None) -> str:
    """A WebVTT file: cues in order of time, speakers as voices, ``&``, ``<`` and ``>`` escaped.

    Of two cues that overlap, the earlier one ends where the later begins. A cue without text is left out.

    Args:
        cues: What to show, in any order.
        duration: Length of the recording, which no cue outlasts [s].
    """
    blocks = ["WEBVTT\n"]
    for cue in _arrange(cues, duration):
        voice = f"<v {cue.speaker.translate(_VTT_ESCAPES)}>" * bool(cue.speaker)
        text = "\n".join(cue.lines).translate(_VTT_ESCAPES)
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}{text}\n")
    return "\n".join(blocks)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _clock(milliseconds: int, separator: str) -> str:
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{thousandths:03}"


def _arrange(cues: Iterable[Cue], duration: float | None) -> list[_Shown]:
    # A player shows nothing of a cue that ends where it begins, hence the millisecond at least.
    limit = None if duration is None else max(1, _milliseconds(duration))
    shown = [cue for cue in (_clean(cue, limit) for cue in cues) if cue.lines]
    shown.sort(key=lambda cue: (cue.start, cue.end))
    starts = [cue.start for cue in shown]
    return [_cut(cue, starts) for cue in shown]


def _clean(cue: Cue, limit: int | None) -> _Shown:
    start, end = _milliseconds(cue.start), _milliseconds(cue.end)
    if limit is not None:
        start, end = min(start, limit - 1), min(end, limit)
    speaker = " ".join(_lines(cue.speaker or ""))
    return _Shown(start, max(end, start + 1), tuple(_lines(cue.text)), speaker)


def _cut(cue: _Shown, starts: list[int]) -> _Shown:
    # Cues that begin together are shown together; only a later one cuts them short.
    later = bisect_right(starts, cue.start)
    return cue if later == len(starts) else replace(cue, end=min(cue.end, starts[later]))


def _lines(text: str) -> list[str]:
    plain = "".join(map(_visible, _LINE_ENDS.sub("\n", text)))
    return [line for line in (line.strip() for line in plain.split("\n")) if line]


def _visible(char: str) -> str:
    # Format characters stay: joiners and direction marks are part of many scripts.
    if char == "\n":
        return char
    if char == "\ufeff":
        return ""
    match unicodedata.category(char):
        case "Cc":
            return " " if char == "\t" else ""
        case "Cs":
            return "\ufffd"
        case _:
            return char
