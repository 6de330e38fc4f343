"""What both transcription clients do without waiting; `voxvec.transcription.transcriber` does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxvec import models
from voxvec._failures import hush
from voxvec.errors import AudioError, ConfigError, MissingExtraError, ResponseError
from voxvec.models import TranscriptionModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxvec._door import Reply, Request
    from voxvec.models import TranscriptionModelName
    from voxvec.transcription.aligning import Stretch
    from voxvec.transcription.audio import Audio, Source
    from voxvec.transcription.job import Settings, Task, TranscriptionJob
    from voxvec.transcription.wire import Parsed

__all__ = ["Asking"]

_LEAST, _PER_MEBIBYTE, _MOST = 60.0, 2.0, 600.0  # time for one request [s], [s/MiB], [s]


class Asking:
    """What both twins know, and what they do without waiting: recording to job, job to request, reply to answer."""

    def __init__(
        self, model: TranscriptionModelName | str | TranscriptionModel, namespace: str | None, timeout: float | None
    ) -> None:
        known = models.find(model, kind="transcription") if isinstance(model, str) else model
        if not isinstance(known, TranscriptionModel):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
            raise ConfigError(
                f"model must be the name of a transcription model or a TranscriptionModel, not {known!r:.80}"
            )
        self.model = known
        if namespace is not None and not isinstance(namespace, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
            raise ConfigError(f"namespace must be a text or None, not {namespace!r:.80}")
        models.warn_if_deprecated(self.model)
        self._namespace, self._timeout = namespace, timeout

    def transcription(
        self,
        audio: Source,
        origin: str,
        *,
        language: str | None = None,
        prompt: str | None = None,
        keywords: Sequence[str] = (),
        speakers: bool = False,
        temperature: float | None = None,
    ) -> TranscriptionJob:
        """What to do to know what was said; refuses what the model does not do."""
        from voxvec.transcription import languages, request  # noqa: PLC0415 -- a client that is only made needs neither

        fields = request.fields(
            self.model,
            language=language,
            prompt=prompt,
            keywords=keywords,
            speakers=speakers,
            temperature=temperature,
        )
        # Not normalize: a model may list a code that nobody else knows.
        named = None if language is None else languages.lookup(language)
        return self._job(audio, origin, "transcriptions", fields, named)

    def translation(
        self, audio: Source, origin: str, *, prompt: str | None, temperature: float | None
    ) -> TranscriptionJob:
        """What to do to know what was said in English."""
        from voxvec.transcription import request  # noqa: PLC0415 -- as above

        fields = request.translation_fields(self.model, prompt=prompt, temperature=temperature)
        return self._job(audio, origin, "translations", fields, "en")

    def _job(
        self, audio: Source, origin: str, task: Task, fields: tuple[tuple[str, str], ...], language: str | None
    ) -> TranscriptionJob:
        from voxvec.transcription.audio import read  # noqa: PLC0415 -- as above
        from voxvec.transcription.job import Settings, TranscriptionJob  # noqa: PLC0415 -- as above

        settings = Settings(
            model=self.model, task=task, fields=fields, origin=origin, namespace=self._namespace, language=language
        )
        recording = read(audio) if self.model.max_bytes is None else read(audio, max_bytes=self.model.max_bytes)
        return TranscriptionJob(recording, settings, _spans(recording) if _is_timeless(settings) else None)

    def check_detects(self) -> None:
        """Refuse to identify a language with a model that does not say which one it heard."""
        if self.model.detects_language is False:
            raise ConfigError(
                f"{self.model.name} does not say which language it heard; nothing was sent. Use a model that does, "
                "such as gpt-transcribe"
            )

    def request(self, job: TranscriptionJob) -> Request:
        """The request for a recording; the larger it is, the longer it may take."""
        from voxvec._door import Request  # noqa: PLC0415 -- as above

        mebibytes = len(job.audio.data) / 2**20
        timeout = self._timeout or min(_MOST, _LEAST + _PER_MEBIBYTE * mebibytes)
        return Request(path=job.path, body=job.body(), file=job.file(), timeout=timeout)

    def read(self, job: TranscriptionJob, reply: Reply) -> tuple[Parsed, Reply]:
        """A reply, and what it says."""
        try:
            return job.read(reply.body, reply.content_type), reply
        except ResponseError as error:
            error.request_id = reply.request_id
            raise hush(error, reply.secrets) from None


def _is_timeless(settings: Settings) -> bool:
    """Whether the answer will tell no times, so that they must come from the recording."""
    return ("response_format", "verbose_json") not in settings.fields and (
        "response_format",
        "diarized_json",
    ) not in settings.fields


def _spans(recording: Audio) -> tuple[Stretch, ...] | None:
    """Where somebody speaks [s]; None if the recording cannot be decoded here, which the server may do all the same."""
    from voxvec.transcription import samples, speech  # noqa: PLC0415 -- NumPy, and a client that is only made needs none

    try:
        sound = samples.read(recording.data)
    except (AudioError, MissingExtraError):
        return None
    return tuple(
        (span.start / samples.RATE, span.stop / samples.RATE) for span in speech.speech_spans(sound, samples.RATE)
    )
