"""Any answer to a transcription request → one shape.

Reads ``json``, ``verbose_json``, ``diarized_json`` and plain text, as OpenAI sends them and as
vLLM, whisper.cpp, LocalAI and speaches do. It takes any bytes: what comes out is a
`Parsed` that holds together, or a `ResponseError`. It knows nothing of what was asked.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from voxvec.errors import ResponseError, redact
from voxvec.transcription import languages
from voxvec.transcription.transcript import Segment, Timing, Usage, Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Parsed", "parse"]

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_TEXT_TYPES = {"", "text/plain", "text/html", "application/octet-stream"}
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SUBTITLES = re.compile(r"WEBVTT\b|\d+\s+(\d\d:)?\d\d:\d\d[,.]\d{3}\s+-->")
_HALF = re.compile("[\ud800-\udfff]")

# Written without spaces between words.
_UNSPACED = {"bo", "ja", "km", "lo", "my", "th", "yue", "zh"}

# No recording is as long as a century, and no clock ticks in whole numbers of 10 million seconds,
# but LocalAI once wrote times in nanoseconds, of which these are 10 ms.
_CENTURY = 3.2e9
_NANOSECONDS_FROM = 10_000_000

# Servers round times to hundredths and Whisper pads its last window; that is not worth a word.
_SLIP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a server answered, put in order.

    Attributes:
        text: The text, without space around it; empty if nothing was said.
        segments: Segments the server gave times for, in order: ``0 <= start <= end <= duration``.
            If it gave times for words only, there is one segment around them.
        words: Words the server gave times for, likewise; also within their segments.
        language: Canonical code of the language the server names, if it is a known one.
        duration: Length of the recording [s], if the server says so.
        usage: What the server counted.
        warnings: What had to be put right.
    """

    text: str
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    language: str | None = None
    duration: float | None = None
    usage: Usage = field(default_factory=lambda: Usage(requests=1))
    warnings: tuple[str, ...] = ()


def parse(body: bytes, content_type: str | None) -> Parsed:
    """Read the body of a successful answer.

    Args:
        body: All of it.
        content_type: Value of its ``Content-Type`` header, if there was one.

    Raises:
        ResponseError: It is no transcript: empty, cut off, a web page, an error in disguise.
    """
    if not body:
        raise _refusal("an empty body", body, content_type)
    media_type = (content_type or "").partition(";")[0].strip().lower()
    try:
        if "json" in media_type or body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
            return _from_object(_load(body))
        return Parsed(text=_plain(body, media_type))
    except _NoTranscriptError as error:
        reason, code = str(error), error.code
    # Not in the handler: there the error would keep, as its context, the decoder's, and with it the text.
    raise _refusal(reason, body, content_type, code)


class _NoTranscriptError(ValueError):
    """Why an answer cannot be read, and the server's code for it."""

    def __init__(self, why: str, code: str | None = None) -> None:
        super().__init__(why)
        self.code = code


def _refusal(reason: str, body: bytes, content_type: str | None, code: str | None = None) -> ResponseError:
    start = _one_line(body[:400].decode("utf-8-sig", "replace"))[:80]
    # A web page tells who sent it. Anything else may be what somebody said into a microphone.
    shown = f", begins with {start!r}" if start.startswith("<") else f", {len(body):,} bytes"
    return ResponseError(
        f"the server reported success but sent no transcript: {reason} (content type "
        f"{_one_line(content_type or '')[:80] or 'missing'}{shown}); nothing of it was kept, "
        "though it may have been billed; check that base_url leads to a transcription server",
        kind="malformed",
        billed="maybe",
        status=200,
        code=code,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _load(body: bytes) -> dict[str, Json]:
    # whisper.cpp cuts words into tokens, and tokens into bytes that are no UTF-8 by themselves.
    try:
        data: Json = json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        raise _NoTranscriptError("JSON that is damaged or cut off") from None
    if not isinstance(data, dict):
        raise _NoTranscriptError("JSON that is no object")
    if error := data.get("error"):
        said = error.get("message") if isinstance(error, dict) else error
        code = error.get("code") if isinstance(error, dict) else None
        raise _NoTranscriptError(
            f"an error instead, {_one_line(said)[:300] if isinstance(said, str) else 'unnamed'!r}",
            redact(code)[:100] if isinstance(code, str) else None,
        )
    return data


def _plain(body: bytes, media_type: str) -> str:
    if media_type not in _TEXT_TYPES:
        raise _NoTranscriptError("neither JSON nor plain text")
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise _NoTranscriptError("bytes that are no text") from None
    if _BINARY.search(text):
        raise _NoTranscriptError("bytes that are no text")
    if text[:15].lower().startswith(("<!doctype", "<html", "<head", "<?xml")):
        raise _NoTranscriptError("a web page")
    if _SUBTITLES.match(text):
        raise _NoTranscriptError("subtitles, which were not asked for")
    return text


def _from_object(data: dict[str, Json]) -> Parsed:
    language = _language(data)
    seconds = _number(data.get("duration"))
    duration = seconds if seconds is not None and 0 < seconds < _CENTURY else None
    listed = _objects(data.get("segments"))
    spoken = _spans(_objects(data.get("words"))) or [
        word for part in listed for word in _join_pieces(_spans(_objects(part.get("words"))), language)
    ]
    parts = _spans(listed)
    text = _text(data.get("text"), parts, language)
    _to_seconds([*parts, *spoken])
    placed_parts, moved_parts = _place(parts, duration)
    placed_words, moved_words = _place(spoken, duration)
    words = [_word(span) for span in placed_words]
    segments = _nest([_segment(span) for span in placed_parts] or _around(text, words), words)
    return Parsed(
        text=text,
        segments=tuple(segments),
        words=tuple(words),
        language=language,
        duration=duration,
        usage=_usage(data.get("usage")),
        warnings=_warnings(moved_parts + moved_words, text),
    )


def _warnings(moved: int, text: str) -> tuple[str, ...]:
    found: list[str] = []
    if moved:
        found.append(f"{moved} of the server's times were out of order or outside the recording, and were put right")
    if "\ufffd" in text:
        found.append("some characters of the text arrived damaged and stand as \ufffd")
    return tuple(found)


def _objects(value: Json) -> list[dict[str, Json]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(value: Json) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 else None


def _clean(value: Json) -> str:
    """A text that can be written as UTF-8; JSON may hold halves of characters."""
    text = value if isinstance(value, str) else ""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _HALF.search(text) else text


def _label(value: Json) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _clean(value)
    return text.strip() or None


def _language(data: dict[str, Json]) -> str | None:
    heard = data.get("languages")
    first = heard[0] if isinstance(heard, list) and heard else None
    named = first.get("code") if isinstance(first, dict) else first
    for value in (data.get("language"), named, data.get("detected_language")):
        if isinstance(value, str) and (code := languages.lookup(value)):
            return code
    return None


def _usage(value: Json) -> Usage:
    counts = value if isinstance(value, dict) else {}
    details = counts.get("input_token_details")
    split = details if isinstance(details, dict) else {}
    seconds = _number(counts.get("seconds"))
    return Usage(
        seconds=seconds if seconds is not None and seconds >= 0 else None,
        input_tokens=_count(counts.get("input_tokens")),
        output_tokens=_count(counts.get("output_tokens")),
        audio_tokens=_count(split.get("audio_tokens")),
        text_tokens=_count(split.get("text_tokens")),
        requests=1,
    )


def _text(value: Json, parts: Sequence[_Span], language: str | None) -> str:
    if isinstance(value, str):
        return _clean(value).strip()
    if value is not None or not parts:
        raise _NoTranscriptError("JSON without a text")
    spaced = language not in _UNSPACED and not any(part.text[:1].isspace() for part in parts[1:])
    return (" " if spaced else "").join(part.text for part in parts).strip()


@dataclass(slots=True)
class _Span:
    """A segment or a word as it came: times may be missing, wrong or in nanoseconds."""

    text: str
    start: float | None
    end: float | None
    about: dict[str, Json]
    measured: bool = True


def _spans(items: Iterable[dict[str, Json]]) -> list[_Span]:
    spans = [
        _Span(_clean(item.get("word") or item.get("text")), _number(item.get("start")), _number(item.get("end")), item)
        for item in items
    ]
    return [span for span in spans if span.text.strip()]


def _join_pieces(pieces: list[_Span], language: str | None) -> list[_Span]:
    """Words out of a segment's tokens: a piece that follows no space belongs to the piece before it."""
    if language in _UNSPACED or not any(piece.text[0].isspace() for piece in pieces[1:]):
        return pieces
    words = pieces[:1]
    for piece in pieces[1:]:
        if piece.text[0].isspace():
            words.append(piece)
        else:
            words[-1] = _joined(words[-1], piece)
    return words


def _joined(word: _Span, piece: _Span) -> _Span:
    # A word is as sure as the least sure of its pieces.
    sure = [
        p for p in (_number(word.about.get("probability")), _number(piece.about.get("probability"))) if p is not None
    ]
    about: dict[str, Json] = {**word.about, "probability": min(sure, default=None)}
    return _Span(word.text + piece.text, word.start, word.end if piece.end is None else piece.end, about)


def _to_seconds(spans: Sequence[_Span]) -> None:
    times = [time for span in spans for time in (span.start, span.end) if time is not None]
    scale = 1e-9 if all(time.is_integer() for time in times) and max(times, default=0) >= _NANOSECONDS_FROM else 1
    for span in spans:
        span.start, span.end = _sane(span.start, scale), _sane(span.end, scale)


def _sane(time: float | None, scale: float) -> float | None:
    return time * scale if time is not None and abs(time * scale) < _CENTURY else None


def _place(spans: Sequence[_Span], duration: float | None) -> tuple[list[_Span], int]:
    """The spans in order, within the recording, and how many times had to be moved to get there.

    Returns:
        Nothing if the server gave no time at all. A time missing between others comes from
        its neighbours; its span is no longer called measured.
    """
    if all(span.start is None and span.end is None for span in spans):
        return [], 0
    filled = _fill(spans, duration)
    within = [_clamp(span, duration) for span in filled]
    moved = [
        abs(old - new)
        for a, b in zip(filled, within, strict=True)
        for old, new in zip(_bounds(a), _bounds(b), strict=True)
    ]
    jumps = [_bounds(a)[0] - _bounds(b)[0] for a, b in pairwise(within)]
    return sorted(within, key=_bounds), sum(by > _SLIP for by in moved + jumps)


def _bounds(span: _Span) -> tuple[float, float]:
    return span.start or 0.0, span.end or 0.0


def _fill(spans: Sequence[_Span], duration: float | None) -> list[_Span]:
    following: list[float | None] = [duration]
    for span in reversed(spans[1:]):
        following.append(following[-1] if span.start is None else span.start)
    filled: list[_Span] = []
    before = 0.0
    for span, after in zip(spans, reversed(following), strict=True):
        start = before if span.start is None else span.start
        end = span.end if span.end is not None else (start if after is None else after)
        filled.append(_Span(span.text, start, end, span.about, None not in (span.start, span.end)))
        before = end
    return filled


def _clamp(span: _Span, duration: float | None) -> _Span:
    start, end = _bounds(span)
    limit = math.inf if duration is None else duration
    first = min(max(0.0, start), limit)
    last = min(max(first, end), limit)
    # An end before the start says nothing about when it ended.
    return _Span(span.text, first, last, span.about, span.measured and end >= start - _SLIP)


def _word(span: _Span) -> Word:
    start, end = _bounds(span)
    return Word(
        span.text.strip(),
        start,
        end,
        "server" if span.measured else "estimated",
        _number(span.about.get("probability")),
        _label(span.about.get("speaker")),
    )


def _segment(span: _Span) -> Segment:
    start, end = _bounds(span)
    return Segment(
        span.text.strip(),
        start,
        end,
        "server" if span.measured else "estimated",
        _label(span.about.get("speaker")),
        avg_logprob=_number(span.about.get("avg_logprob")),
        no_speech_prob=_number(span.about.get("no_speech_prob")),
        compression_ratio=_number(span.about.get("compression_ratio")),
    )


def _around(text: str, words: Sequence[Word]) -> list[Segment]:
    if not words:
        return []
    timing: Timing = "server" if all(word.timing == "server" for word in (words[0], words[-1])) else "estimated"
    return [Segment(text, words[0].start, max(word.end for word in words), timing)]


def _nest(segments: Sequence[Segment], words: Sequence[Word]) -> list[Segment]:
    """The segments with their words: each word goes to the last segment that began by the word's middle."""
    if not words:
        return list(segments)
    starts = [segment.start for segment in segments]
    homes: list[list[Word]] = [[] for _ in segments]
    for word in words:
        homes[max(0, bisect_right(starts, (word.start + word.end) / 2) - 1)].append(word)
    return [replace(segment, words=tuple(home)) for segment, home in zip(segments, homes, strict=True)]
