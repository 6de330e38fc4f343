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

from voxvec.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Cue", "markdown", "parse", "srt", "timestamp", "tsv", "vtt"]

# Several characters end a line somewhere; only one of them does so in a subtitle file.
_LINE_ENDS = re.compile(r"\r\n?|[\n\v\f\x1c-\x1e\x85\u2028\u2029]")
_ARROW = re.compile(r"-{2,}>")
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~]")
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


def tsv(cues: Iterable[Cue]) -> str:
    """A table of start, end (whole milliseconds) and text, tabs between, one cue a line, after a header."""
    rows = ["start\tend\ttext\n"]
    for cue in cues:
        words = " ".join(_lines(cue.text))
        text = f"{' '.join(_lines(cue.speaker))}: {words}" if cue.speaker else words
        rows.append(f"{_milliseconds(cue.start)}\t{_milliseconds(cue.end)}\t{text}\n")
    return "".join(rows)


def markdown(cues: Iterable[Cue]) -> str:
    """Paragraphs, each headed by its time in bold and its speaker; what Markdown would read as markup is escaped."""
    blocks: list[str] = []
    for cue in cues:
        time = _clock(_milliseconds(cue.start), ".")[:-4]
        speaker = f" {_MARKUP.sub(_escaped, ' '.join(_lines(cue.speaker)))}:" if cue.speaker else ""
        blocks.append(f"**{time}**{speaker} {_MARKUP.sub(_escaped, ' '.join(_lines(cue.text)))}\n")
    return "\n".join(blocks)


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


def parse(text: str) -> list[Cue]:
    """Read SubRip or WebVTT back.

    Args:
        text: A file's content; styles, regions, notes and positions of WebVTT are passed over, its voices become
            speakers, its escapes are undone.

    Returns:
        Cues in the order of the file.

    Raises:
        InputError: There is no cue in it though it is not empty, or a time cannot be read.
    """
    lines = _LINE_ENDS.sub("\n", text.removeprefix("\ufeff"))
    web = lines.lstrip().startswith("WEBVTT")
    found: list[Cue] = []
    for block in re.split(r"\n{2,}", lines):
        rows = block.strip("\n").split("\n")
        at = next((at for at, row in enumerate(rows[:2]) if _TIMES.match(row)), None)
        if at is None:
            continue
        start, end = _seconds(rows[at])
        found.append(_read(start, end, "\n".join(rows[at + 1 :]), web=web))
    if not found and "-->" in lines:
        raise InputError("no cue can be read in this: a line like 00:00:01,000 --> 00:00:02,000 must head each")
    return found


_STAMP = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s.*)?$")
_VOICE = re.compile(r"<v(?:\.[^ \t>]*)?[ \t]+([^>]*)>")
_TAG = re.compile(r"</?[^>]*>")
_UNESCAPES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&lrm;": "\u200e", "&rlm;": "\u200f"}
_ESCAPE = re.compile("|".join(_UNESCAPES))


def _seconds(row: str) -> tuple[float, float]:
    match = _TIMES.match(row)
    fields = [] if match is None else [part or "0" for part in match.groups()]
    start, end = (
        ((int(h) * 60 + int(m)) * 60 + int(s)) * 1000 + int(ms.ljust(3, "0"))
        for h, m, s, ms in (fields[:4], fields[4:])
    )
    return start / 1000, end / 1000


def _read(start: float, end: float, text: str, *, web: bool) -> Cue:
    if not web:
        return Cue(start, end, text)
    voice = _VOICE.search(text)
    plain = _ESCAPE.sub(lambda match: _UNESCAPES[match[0]], _TAG.sub("", text))
    speaker = None if voice is None else _ESCAPE.sub(lambda match: _UNESCAPES[match[0]], voice[1]).strip()
    return Cue(start, end, plain, speaker or None)


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
