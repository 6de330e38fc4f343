"""What was said, when, and how well that is known.

A transcript is a value: it can be compared, pickled and written down, and it never
shows an estimated time as a measured one. It knows no server and no request;
`Transcript.save` alone touches the disk.
"""

from __future__ import annotations

import math
import os
import secrets
from dataclasses import dataclass
from decimal import Decimal  # noqa: TC003 -- pydantic reads the annotation when a transcript is loaded
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from voxvec.errors import ConfigError, InputError
from voxvec.transcription import cues, subtitles
from voxvec.transcription.aligning import borrow, spread
from voxvec.transcription.cues import Style  # noqa: TC001 -- part of the public signatures
from voxvec.transcription.scripts import pieces

__all__ = ["Segment", "Timing", "Transcript", "Usage", "Word"]

Timing: TypeAlias = Literal["server", "speech", "estimated", "aligned"]
"""Where a time comes from.

``server``: the server measured it. ``speech``: the edges of a span with speech in the recording.
``estimated``: shared out over the recording, not measured. ``aligned``: text and sound were matched afterwards.
"""


@dataclass(frozen=True, slots=True)
class Word:
    """A word and when it was said.

    Attributes:
        text: The word, without space around it; with or without punctuation, as the server gave it.
        start: Begin, from the start of the recording [s].
        end: End, not before ``start`` [s].
        timing: Where the two times come from.
        probability: How sure the model is of it, in [0, 1], if it says so.
        speaker: Who said it, if that is known.
    """

    text: str
    start: float
    end: float
    timing: Timing
    probability: float | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech, about a sentence long.

    Attributes:
        text: What was said.
        start: Begin, from the start of the recording [s].
        end: End, not before ``start`` [s].
        timing: Where the two times come from.
        speaker: Who said it, if that is known.
        words: Its words, if their times are known.
        avg_logprob: Mean natural-log probability of its tokens, if the model says so.
        no_speech_prob: How sure the model is that nobody spoke, in [0, 1], if it says so.
        compression_ratio: How well its text compresses; above 2.4 it probably repeats itself.
    """

    text: str
    start: float
    end: float
    timing: Timing
    speaker: str | None = None
    words: tuple[Word, ...] = ()
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the server counted; None is what it did not say.

    Attributes:
        seconds: Length of the recordings charged [s].
        input_tokens: Tokens taken in, sound and text.
        output_tokens: Tokens of the answers.
        audio_tokens: Those of ``input_tokens`` that are sound.
        text_tokens: Those of ``input_tokens`` that are text.
        requests: Requests made, failed ones included.
        maybe_billed: How many failed requests may have been billed all the same; nothing else here holds them.
    """

    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    audio_tokens: int | None = None
    text_tokens: int | None = None
    requests: int = 0
    maybe_billed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The text of a recording.

    ``str(transcript)`` is the text.

    Attributes:
        text: Everything that was said.
        segments: The text in stretches, in order of time.
        words: Every word with its times, in order; empty if none are known.
        language: Canonical code of the spoken language, as `voxvec.transcription.languages` has it, if known.
        duration: Length of the recording [s], if known.
        usage: What the server counted.
        cost: Price in US dollars; None if it cannot be told, zero if nothing was bought.
        model: Name of the model that was asked.
        warnings: What a reader must know.
        complete: Whether all of the recording is in it.
        cached: Whether it came out of the cache.
        audio_sha256: Digest of the recording as it was read, once, and sent, in hexadecimal; None if unknown.
    """

    text: str
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    language: str | None = None
    duration: float | None = None
    usage: Usage = Usage()
    cost: Decimal | None = None
    model: str
    warnings: tuple[str, ...] = ()
    complete: bool = True
    cached: bool = False
    audio_sha256: str | None = None

    def __str__(self) -> str:
        return self.text

    def between(self, a: float, b: float) -> tuple[Segment, ...]:
        """Segments of which any part falls between two times.

        Args:
            a: From this time on [s].
            b: Up to this time, exclusive [s].

        Raises:
            ConfigError: ``b`` is before ``a``.
        """
        if b < a:
            raise ConfigError(f"between({a:g}, {b:g}) ends before it begins; give the earlier time first")
        return tuple(part for part in self.segments if _overlap(part, a, b))

    def cues(self, style: Style | None = None, *, allow_estimated: bool = False) -> list[subtitles.Cue]:
        """The text in portions that a person can read while they are shown.

        Long segments are cut where the words allow it, by the times of their words if those are known, else by their
        share of the segment. Nothing is shown across a pause of half a second that the times tell of.

        Args:
            style: How subtitles are to look; the custom of the language if None.
            allow_estimated: Whether segments whose times nobody measured will do.

        Raises:
            ConfigError: Times are missing, or estimated and that is not allowed.
        """
        if self.text and not self.segments:
            raise ConfigError("this transcript has no segments, so there are no times to make subtitles of")
        if not allow_estimated and any(part.timing == "estimated" for part in self.segments):
            raise ConfigError(
                f"{self.model} gave no times, those of this transcript are estimated and subtitles would be off; "
                "pass allow_estimated=True if that will do, or transcribe with a model that measures times"
            )
        timed = [piece for part in self.segments for piece in _timed(part, self.language)]
        until = math.inf if self.duration is None else self.duration
        return cues.compose(timed, style or cues.style_for(self.language), until=until)

    def to_srt(self, style: Style | None = None, *, allow_estimated: bool = False) -> str:
        """SubRip subtitles.

        Args:
            style: As in `cues`.
            allow_estimated: As in `cues`.

        Raises:
            ConfigError: As in `cues`.
        """
        return subtitles.srt(self.cues(style, allow_estimated=allow_estimated), duration=self.duration)

    def to_vtt(self, style: Style | None = None, *, allow_estimated: bool = False) -> str:
        """WebVTT subtitles, speakers as voices.

        Args:
            style: As in `cues`.
            allow_estimated: As in `cues`.

        Raises:
            ConfigError: As in `cues`.
        """
        return subtitles.vtt(self.cues(style, allow_estimated=allow_estimated), duration=self.duration)

    def to_tsv(self) -> str:
        """The segments as a table: start and end in whole milliseconds and the text, with tabs between, after a header.

        Tabs and line ends in a text become spaces.
        """
        return subtitles.tsv(subtitles.Cue(part.start, part.end, part.text, part.speaker) for part in self.segments)

    def to_md(self) -> str:
        """The text as Markdown: a paragraph for every segment, headed by its time and its speaker."""
        return subtitles.markdown(
            subtitles.Cue(part.start, part.end, part.text, part.speaker) for part in self.segments
        )

    def to_txt(self) -> str:
        """The text, ending in a newline; one line per segment, with its speaker, if speakers are known."""
        if not any(part.speaker for part in self.segments):
            return f"{self.text}\n"
        return "".join(f"{part.speaker}: {part.text}\n" if part.speaker else f"{part.text}\n" for part in self.segments)

    def to_json(self) -> str:
        """Everything there is, as a JSON object that `from_json` reads; unknowns are left out."""
        return _adapter().dump_json(self, indent=2, exclude_none=True).decode() + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Transcript:
        """The transcript that `to_json` wrote.

        Raises:
            InputError: It is something else; the message names the first thing amiss.
        """
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(
                f"this is no transcript as to_json() writes it: {where or 'JSON'}: {first['msg']}"
            ) from None

    def save(self, path: str | os.PathLike[str], *, allow_estimated: bool = False) -> None:
        """Write a file, all of it or nothing, as UTF-8.

        Args:
            path: Where to; the suffix decides what is written: ``.srt``, ``.vtt``, ``.tsv``, ``.md``, ``.txt`` or
                ``.json``.
            allow_estimated: Whether times that nobody measured will do for subtitles.

        Raises:
            ConfigError: The suffix is another, or `to_srt` or `to_vtt` refuses.
            OSError: The file cannot be written; what was there before is unharmed.
        """
        target = Path(path)
        match target.suffix.lower():
            case ".srt":
                _replace(target, self.to_srt(allow_estimated=allow_estimated))
            case ".vtt":
                _replace(target, self.to_vtt(allow_estimated=allow_estimated))
            case ".tsv":
                _replace(target, self.to_tsv())
            case ".md":
                _replace(target, self.to_md())
            case ".txt":
                _replace(target, self.to_txt())
            case ".json":
                _replace(target, self.to_json())
            case suffix:
                raise ConfigError(
                    f"cannot tell from {suffix!r} what to write; end the name in .srt, .vtt, .tsv, .md, .txt or .json"
                )


def _timed(part: Segment, language: str | None) -> list[cues.Timed]:
    """The pieces of a segment, each with its time."""
    found = pieces(part.text, language)
    if part.words:
        times = [time[:2] for time in borrow(found, part.words, start=part.start, end=part.end)]
    else:
        times = spread(found, [(part.start, part.end)])
    return [
        cues.Timed(piece.text, *time, spaced=piece.spaced or at == 0, speaker=part.speaker, closes=at + 1 == len(found))
        for at, (piece, time) in enumerate(zip(found, times, strict=True))
    ]


def _overlap(part: Segment, a: float, b: float) -> bool:
    return max(part.start, a) < min(part.end, b) or a <= part.start == part.end < b


@cache
def _adapter() -> TypeAdapter[Transcript]:
    return TypeAdapter(Transcript)


def _replace(target: Path, text: str) -> None:
    # Not tempfile: its files are private, and a subtitle file should get the usual rights.
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("xb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
