"""What to ask about a recording, and what its answer amounts to.

A job is fed by a shell and never touches the network, the disk or the clock, so the sync and the async client are the
same program. It sends a recording whole: one request, one answer, one transcript.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TypeAlias

from voxvec import rows
from voxvec.errors import ConfigError, InputError, ResponseError
from voxvec.transcription import request, timing
from voxvec.transcription.transcript import Segment, Transcript, Usage
from voxvec.transcription.wire import Parsed, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxvec.models import TranscriptionModel
    from voxvec.transcription.aligning import Stretch
    from voxvec.transcription.audio import Audio

__all__ = ["Settings", "Task", "TranscriptionJob", "TranscriptionPlan"]

Task: TypeAlias = Literal["transcriptions", "translations"]

_KEY_FORMAT = b"voxvec transcript 1"
_CHARACTERS_PER_SECOND = 15.0  # of ordinary speech; only for recordings of unknown length
_NEAR_THE_CAP = 0.975  # of the model's output tokens: the rest was probably cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionPlan:
    """What a call would do; made without asking the server anything.

    Attributes:
        model: Name of the model.
        container: Kind of file.
        bytes: Length of the file [bytes].
        seconds: Length of the recording [s]; None if its header does not say.
        requests: Requests to make: none if the cache knows the answer.
        cached: Whether the cache knows the answer.
        cost: US dollars; None if the price or the length is unknown.
        fields: What is sent beside the file.
    """

    model: str
    container: str
    bytes: int
    seconds: float | None
    requests: int
    cached: bool
    cost: Decimal | None
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides, besides the recording, which transcript comes out.

    Attributes:
        model: The model.
        task: What is asked of it.
        fields: Parameters as the model takes them.
        origin: Root of the server's API.
        namespace: Keeps tenants apart who share a cache.
        language: Code of the language that the caller named, if any.
    """

    model: TranscriptionModel
    task: Task
    fields: request.Fields
    origin: str = ""
    namespace: str | None = None
    language: str | None = None


class TranscriptionJob:
    """Plans the request for one recording and makes a transcript of what comes back.

    Args:
        audio: The recording.
        settings: What is wanted.
        spans: Where somebody speaks in it, in order [s]; None if that is not known.

    Raises:
        AudioError: The model does not take the recording as it is.
        InputError: A parameter cannot be written as UTF-8.
    """

    def __init__(self, audio: Audio, settings: Settings, spans: Sequence[Stretch] | None = None) -> None:
        self.audio, self.settings, self._spans = audio, settings, spans
        self._parsed: Parsed | None = None
        self._cached = False
        self._requests = self._maybe_billed = 0
        request.check_audio(
            settings.model, container=audio.container, size=len(audio.data), seconds=audio.seconds, name=audio.name
        )
        self.name = self._key()

    def _key(self) -> bytes:
        """BLAKE2b-256 over length-prefixed fields: the sound, the server and every parameter; not the file's name."""
        settings = self.settings
        parts = [
            ("the base URL", settings.origin),
            ("namespace", settings.namespace or ""),
            ("the task", settings.task),
            ("the digest", self.audio.sha256),
            ("the container", self.audio.container),
        ]
        for name, value in settings.fields:
            parts += [("a parameter", name), (name.removesuffix("[]"), value)]
        digest = hashlib.blake2b(_KEY_FORMAT, digest_size=rows.KEY_BYTES)
        for what, part in parts:
            digest.update(_framed(part, what))
        return digest.digest()

    @property
    def path(self) -> str:
        """Path below the base URL."""
        return f"/audio/{self.settings.task}"

    def body(self) -> dict[str, object]:
        """Form fields; names that end in ``[]`` are collected into lists."""
        body: dict[str, object] = {}
        lists: dict[str, list[str]] = {}
        for name, value in self.settings.fields:
            if name.endswith("[]"):
                body[name[:-2]] = lists.setdefault(name, [])
                lists[name].append(value)
            else:
                body[name] = value
        return body

    def file(self) -> tuple[str, bytes, str]:
        """Name, content and media type of the upload; the name is ASCII and tells the container."""
        name, media_type = request.file_name(self.audio.container)
        return name, self.audio.data, media_type

    def answered(self) -> bool:
        """Whether there is an answer."""
        return self._parsed is not None

    def fill(self, found: Mapping[bytes, bytes]) -> list[bytes]:
        """Take the answer from a cache, or from a call beside this one.

        Returns:
            The key, if the row is damaged or not what it claims, so that it is thrown out of the cache.
        """
        blob = found.get(self.name)
        if blob is None:
            return []
        row = rows.unpack(self.name, blob)
        if row is None or row.kind is not rows.Kind.DOCUMENT:
            return [self.name]
        try:
            document = json.loads(bytes(row.payload))
            self._parsed = parse(document["body"].encode(), document["content_type"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ResponseError):
            return [self.name]
        self._cached = True
        return []

    def read(self, body: bytes, content_type: str | None) -> Parsed:
        """Read an answer.

        Raises:
            ResponseError: It is no transcript.
        """
        return parse(body, content_type)

    def receive(
        self, parsed: Parsed, body: bytes, content_type: str | None, requests: int, maybe_billed: int = 0
    ) -> dict[bytes, bytes]:
        """Keep an answer that took so many requests, of which so many failed and may have been billed.

        Returns:
            Its row, for the cache and for whoever asks the same at the same time: it was paid for, so it is kept even
            if it is empty or cut off. Whoever finds it there is warned as the buyer was.
        """
        self._parsed, self._requests, self._maybe_billed = parsed, requests, maybe_billed
        document = {"body": body.decode("utf-8", "replace"), "content_type": content_type}
        payload = json.dumps(document).encode()
        row = rows.pack(
            self.name,
            payload,
            kind=rows.Kind.DOCUMENT,
            width=len(payload),
            tokens=None,
            model=self.settings.model.name,
        )
        return {self.name: row}

    def _cut_off(self, parsed: Parsed) -> bool:
        cap, used = self.settings.model.max_output_tokens, parsed.usage.output_tokens
        return cap is not None and used is not None and used >= _NEAR_THE_CAP * cap

    def result(self) -> Transcript:
        """The transcript.

        Raises:
            ConfigError: There is no answer yet.
        """
        if self._parsed is None:
            raise ConfigError("there is no answer yet")
        parsed, model = self._parsed, self.settings.model
        duration = parsed.duration if parsed.duration is not None else self.audio.seconds
        language = parsed.language or self.settings.language
        segments = parsed.segments or self._timed(parsed.text, language, duration)
        usage = (
            Usage() if self._cached else replace(parsed.usage, requests=self._requests, maybe_billed=self._maybe_billed)
        )
        return Transcript(
            text=parsed.text,
            segments=segments,
            words=parsed.words or tuple(word for segment in segments for word in segment.words),
            language=language,
            duration=duration,
            usage=usage,
            cost=Decimal(0) if self._cached else request.cost(model, seconds=duration, usage=usage),
            model=model.name,
            warnings=(*model.remarks, *parsed.warnings, *self._warnings(parsed, segments)),
            complete=not self._cut_off(parsed),
            cached=self._cached,
            audio_sha256=self.audio.sha256,
        )

    def _timed(self, text: str, language: str | None, duration: float | None) -> tuple[Segment, ...]:
        """Segments for a text that came without times: by the speech in the recording, or one around everything."""
        if not text:
            return ()
        if self._spans:
            return timing.spoken(text, language, self._spans)
        end = duration if duration is not None else len(text) / _CHARACTERS_PER_SECOND
        return (Segment(text=text, start=0.0, end=end, timing="estimated"),)

    def _warnings(self, parsed: Parsed, segments: Sequence[Segment]) -> list[str]:
        said: list[str] = []
        name = self.settings.model.name
        if not parsed.text:
            said.append("no speech was recognised")
        elif self._spans == ():
            said.append("the recording is silent, as far as its loudness tells: the text may be made up")
        if parsed.text and not parsed.segments:
            if segments[0].timing == "speech":
                said.append(
                    f"{name} gave no times: segments begin and end with the speech in the recording, "
                    "the words in them are shared out over it"
                )
            else:
                said.append(f"{name} gave no times: the one segment spans the whole recording")
        if self._cut_off(parsed):
            said.append("the text is probably cut off: it is as long as the model's answers can be; cut the recording")
        return said

    def plan(self) -> TranscriptionPlan:
        """What is still to do."""
        model, audio = self.settings.model, self.audio
        cost = Decimal(0) if self.answered() else request.cost(model, seconds=audio.seconds)
        return TranscriptionPlan(
            model=model.name,
            container=audio.container,
            bytes=len(audio.data),
            seconds=audio.seconds,
            requests=int(not self.answered()),
            cached=self.answered(),
            cost=cost,
            fields=self.settings.fields,
        )


def _framed(part: str, what: str) -> bytes:
    raw = _utf8(part)
    if raw is None:
        raise InputError(f"{what} holds half a character (a lone surrogate), which cannot be sent; nothing was sent")
    return len(raw).to_bytes(8, "little") + raw


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:  # it holds the text, so no error of ours may have it as its context
        return None
