"""Texts with the place they come from: lines of a file, or segments of a recording."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from voxvec.cli.screen import Json, clock
from voxvec.errors import InputError, RefusedError
from voxvec.transcription import audio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from voxvec.embedding.embedder import Embedder
    from voxvec.embedding.vectors import Embeddings
    from voxvec.transcription.transcript import Segment

__all__ = ["Passage", "as_text", "check", "embed", "lines_of", "read", "recording", "refusal", "segments_of"]

_MOST_PLACES = 5
_RECORDINGS: Final = re.compile(
    r"\.(aac|aif[cf]?|amr|caf|flac|m4[ab]|mk[av]|mov|mp[34]|mpe?ga?|og[ag]|opus|wav|webm|wma)", re.IGNORECASE
)
"""What the names of recordings end in: an empty or broken one is still no text."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text and where it stands.

    Attributes:
        text: The text.
        file: File it is from, as the user wrote it, or what it is if it is from none.
        line: Its line, from 1; None in a recording, and of what is from no file.
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
            return self.file if self.line is None else f"{self.file}:{self.line}"
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
    try:
        if str(path) != "-":
            return path.read_bytes()
        if sys.stdin is None:
            raise InputError("stdin is closed, so nothing can be read from it; nothing was sent")
        return sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its path. Nothing was sent") from None


def recording(path: Path, data: bytes | None = None) -> Path | bytes:
    """What to give a transcriber: the path of a file, or all that comes from stdin or a pipe.

    Args:
        path: What the user named.
        data: What was read of it already, since a pipe can be read only once.

    Raises:
        InputError: It cannot be read.
    """
    if str(path) != "-" and (path.is_file() or not path.exists()):
        return path
    return read(path) if data is None else data


def as_text(data: bytes, file: str) -> str | None:
    """The text of a file, or None if it is a recording.

    Raises:
        InputError: It is neither.
    """
    if _RECORDINGS.fullmatch(Path(file).suffix):
        return None
    # Signatures of recordings are short enough to begin a text by chance, so text is tried first.
    if b"\0" not in data:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    if audio.sniff(data) is None:
        raise InputError(f"{file} is neither text in UTF-8 nor a recording of a known kind; nothing was sent")
    return None


def lines_of(text: str, file: str, *, skip_blank: bool) -> list[Passage]:
    """Every line of a text.

    Args:
        text: The text; its last line may end in a line feed.
        file: Where it is from.
        skip_blank: Whether to leave lines out that have nothing on them. Who counts lines must not lose any unasked.

    Raises:
        InputError: Some lines are blank and not to be left out.
    """
    lines = text.removesuffix("\n").split("\n") if text else []
    passages = [Passage(line.removesuffix("\r"), file, number) for number, line in enumerate(lines, start=1)]
    blank = [passage for passage in passages if not passage.text.strip()]
    if blank and not skip_blank:
        are, them = ("is", "it") if len(blank) == 1 else ("are", "them")
        raise InputError(
            f"{_places(blank)} {are} blank; remove {them}, or pass --skip-blank to leave such lines out. "
            "Nothing was sent"
        )
    return [passage for passage in passages if passage.text.strip()]


def segments_of(segments: Sequence[Segment], file: str) -> list[Passage]:
    """Every segment of a recording that has words in it."""
    return [Passage(segment.text, file, None, segment) for segment in segments if segment.text.strip()]


def check(question: str) -> None:
    """See whether anything is asked.

    Raises:
        InputError: Nothing is.
    """
    if not question.strip():
        raise InputError("the question is empty; say what to look for. Nothing was sent")


def embed(
    client: Embedder,
    passages: Sequence[Passage],
    role: Literal["query", "document"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Embed passages; an error names their places, since nobody counts the lines of several files.

    Raises:
        VoxvecError: As `Embedder.embed`.
    """
    texts = [passage.text for passage in passages]
    try:
        return client.embed(texts, input_type=role, progress=progress or False)
    except InputError as error:
        if error.positions:
            raise refusal(passages, client.plan(texts, input_type=role).refused) from None
        raise
    except RefusedError as error:
        if error.positions:
            error.add_note(_places([passages[at] for at in error.positions]))
        raise


def refusal(passages: Sequence[Passage], reasons: Mapping[int, str]) -> InputError:
    """The error that names places, and what is wrong there.

    Args:
        passages: What was to be embedded.
        reasons: Why some cannot be, by position.
    """
    # Positions, and what a program could pass, say nothing to who gave a file.
    short = {at: reason.removeprefix(f"text {at} ").partition(", or pass ")[0] for at, reason in reasons.items()}
    faults = [f"{passages[at].place} {reason}" for at, reason in short.items()]
    return InputError(f"{_listed(faults, '; ')}. Nothing was sent", positions=sorted(reasons))


def _places(passages: Sequence[Passage]) -> str:
    return _listed([passage.place for passage in passages], ", ")


def _listed(items: Sequence[str], separator: str) -> str:
    more = len(items) - _MOST_PLACES
    listed = separator.join(items[:_MOST_PLACES])
    return f"{listed} and {more:,} more" if more > 0 else listed
