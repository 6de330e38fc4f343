"""Texts with the place they come from: lines of a file, or segments of a recording."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxvec.cli.screen import Json, clock
from voxvec.errors import InputError, RefusedError
from voxvec.transcription import audio

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from voxvec.transcription.transcript import Segment

__all__ = ["Passage", "as_text", "lines_of", "named", "read", "segments_of"]

_MOST_PLACES = 5


@dataclass(frozen=True, slots=True)
class Passage:
    """A text and where it stands.

    Attributes:
        text: The text.
        file: File it is from, as the user wrote it.
        line: Its line, from 1; None in a recording.
        segment: When it was said; None in a text file.
    """

    text: str
    file: str
    line: int | None = None
    segment: Segment | None = None

    @property
    def place(self) -> str:
        """Where it stands, for reading; times that nobody measured carry a tilde."""
        if self.segment is None:
            return f"{self.file}:{self.line}"
        about = "~" if self.segment.timing == "estimated" else ""
        return f"{self.file} {about}{clock(self.segment.start)}-{about}{clock(self.segment.end)}"

    def as_json(self) -> dict[str, Json]:
        """The same for machines."""
        if self.segment is None:
            return {"file": self.file, "line": self.line, "text": self.text}
        segment = self.segment
        times: dict[str, Json] = {"start": segment.start, "end": segment.end, "timing": segment.timing}
        return {"file": self.file, **times, "speaker": segment.speaker, "text": self.text}


def read(path: Path) -> bytes:
    """Everything in a file, or on stdin for ``-``.

    Raises:
        InputError: It cannot be read.
    """
    if str(path) == "-":
        return sys.stdin.buffer.read()
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no regular file; nothing was sent")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; nothing was sent") from None


def as_text(data: bytes, file: str) -> str | None:
    """The text of a file, or None if it is a recording.

    Raises:
        InputError: It is neither.
    """
    # Signatures of recordings are short enough to begin a text by chance, so text is tried first.
    if b"\0" not in data:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    if audio.sniff(data) is None:
        raise InputError(f"{file} is neither text in UTF-8 nor a recording of a known kind; nothing was sent")
    return None


def lines_of(text: str, file: str, *, blank: bool) -> list[Passage]:
    """Every line of a text.

    Args:
        text: The text; its last line may end in a line feed.
        file: Where it is from.
        blank: Whether to keep lines without anything on them.
    """
    lines = text.removesuffix("\n").split("\n") if text else []
    passages = [Passage(line.removesuffix("\r"), file, number) for number, line in enumerate(lines, start=1)]
    return [passage for passage in passages if blank or passage.text.strip()]


def segments_of(segments: Sequence[Segment], file: str) -> list[Passage]:
    """Every segment of a recording that has words in it."""
    return [Passage(segment.text, file, None, segment) for segment in segments if segment.text.strip()]


@contextmanager
def named(passages: Sequence[Passage]) -> Generator[None]:
    """Note the places on an error that counts positions, since nobody counts the lines of several files."""
    try:
        yield
    except (InputError, RefusedError) as error:
        if error.positions:
            error.add_note(_places([passages[at] for at in error.positions]))
        raise


def _places(passages: Sequence[Passage]) -> str:
    more = len(passages) - _MOST_PLACES
    listed = ", ".join(passage.place for passage in passages[:_MOST_PLACES])
    return f"{listed} and {more:,} more" if more > 0 else listed
