"""`Transcriber` and `AsyncTranscriber`: the same client, once for threads and once for tasks.

Both are thin. What to ask and what an answer means is decided in `voxvec.transcription.job`, when to ask again in
`voxvec.policy`; here the two meet a cache and a server.

The file is long because both twins stand in it, with what users read about them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from voxvec._client import AsyncClient, Client, Setup
from voxvec._key import hidden
from voxvec._threads import aside
from voxvec.policy import Pace, Retry
from voxvec.transcription.asking import Asking

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType

    import openai

    from voxvec._door import Reply
    from voxvec._run import AsyncLane, Call, Lane
    from voxvec.caches.contract import Cache
    from voxvec.models import TranscriptionModel, TranscriptionModelName
    from voxvec.transcription.audio import Source
    from voxvec.transcription.job import TranscriptionJob, TranscriptionPlan
    from voxvec.transcription.transcript import Transcript
    from voxvec.transcription.wire import Parsed

__all__ = ["AsyncTranscriber", "Transcriber"]

# Long and dear requests: not asked again after a time-out, and once only after a broken connection.
_RETRY = Retry(attempts=4, job_attempts=4, broken=1, late=0)

_LEASE = 900.0  # how long other processes leave to this one what it is buying [s]
_LOOK = 0.25  # how often a call looks for what another process is buying [s]


class _Base:
    """What both twins are besides their waiting."""

    _asking: Asking

    @property
    def model(self) -> TranscriptionModel:
        """What is asked."""
        return self._asking.model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.name!r})"

    def __reduce__(self) -> str:
        raise TypeError(f"{type(self).__name__} holds connections and cannot be pickled; make one in each process")


class Transcriber(_Base):
    """Turns recordings into text.

    What a model would silently ignore or reject is refused before anything is sent: container, size, length, language,
    parameters. The same recording with the same parameters is bought once: callers at the same time share
    one request, a cache keeps what was bought before.

    It may be used from any number of threads, and as a context manager.

    Args:
        model: Name of the model, or its description.
        client: An `openai.OpenAI` (or Azure's) to send through; its retries are switched off, everything else stays
            yours.
        api_key: Key for a client of its own; ``OPENAI_API_KEY`` if None.
        base_url: Root of the API for a client of its own; ``OPENAI_BASE_URL`` or OpenAI's if None.
        allow_insecure: Whether ``base_url`` may be an ``http`` address of another machine; whoever listens on the way
            can then read everything. Where a ``client`` sends to is your own decision.
        timeout: Longest time for one request [s]; None gives 60 s and 2 s for every MiB, at most 600 s.
        cache: Where to keep transcripts: a path for an `SqliteCache`, any `Cache`, or None.
        namespace: Keeps tenants apart who share a cache.
        retry: When to ask again.
        pace: How fast to ask at most.
        deadline: Longest time for one call [s].
        workers: Most requests on their way at a time.

    Raises:
        ConfigError: The settings cannot work.
        CacheError: The cache is somebody else's file.
    """

    def __init__(
        self,
        model: TranscriptionModelName | str | TranscriptionModel = "gpt-transcribe",
        *,
        client: openai.OpenAI | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        allow_insecure: bool = False,
        timeout: float | None = None,
        cache: Cache | str | os.PathLike[str] | None = None,
        namespace: str | None = None,
        retry: Retry = _RETRY,
        pace: Pace = Pace(),  # noqa: B008 -- frozen
        deadline: float | None = None,
        workers: int = 16,
    ) -> None:
        api_key = hidden(api_key)
        self._asking = Asking(model, namespace, timeout)
        self._client = Client(
            client,
            Setup(
                api_key=api_key,
                base_url=base_url,
                allow_insecure=allow_insecure,
                timeout=timeout,
                cache=cache,
                retry=retry,
                pace=pace,
                deadline=deadline,
                workers=workers,
            ),
        )

    def transcribe(
        self,
        audio: Source,
        *,
        language: str | None = None,
        prompt: str | None = None,
        keywords: Sequence[str] = (),
        speakers: bool = False,
        temperature: float | None = None,
    ) -> Transcript:
        """What was said, in the language it was said in.

        Args:
            audio: A path, bytes, or a binary file, which is read once from its current position.
            language: Spoken language as a name, a code or a regional code (``"Korean"``, ``"ko"``, ``"ko-KR"``);
                None lets the model find out.
            prompt: Text to go by, as the model takes it; not more than it reads (`max_prompt_tokens`).
            keywords: Words to listen for.
            speakers: Whether to tell speakers apart.
            temperature: Sampling temperature, in [0, 1].

        Raises:
            AudioError: The recording cannot be sent. Nothing was.
            ConfigError: The model cannot do what is asked. Nothing was sent.
            InputError: A keyword cannot be sent, or the prompt is certainly longer than the model reads.
            ServiceError: The server failed for good.
            ResponseError: The answer was no transcript, twice.
        """
        return self._run(
            self._asking.transcription(
                audio,
                self._client.origin,
                language=language,
                prompt=prompt,
                keywords=keywords,
                speakers=speakers,
                temperature=temperature,
            )
        )

    def translate(self, audio: Source, *, prompt: str | None = None, temperature: float | None = None) -> Transcript:
        """What was said, in English, whatever it was said in.

        Args:
            audio: As in `transcribe`.
            prompt: English text to go by.
            temperature: Sampling temperature, in [0, 1].

        Raises:
            ConfigError: The model does not translate.
            VoxvecError: As in `transcribe`.
        """
        return self._run(self._asking.translation(audio, self._client.origin, prompt=prompt, temperature=temperature))

    def identify_language(self, audio: Source) -> str | None:
        """Code of the language that is spoken, such as ``"ko"``; None if the model could not tell.

        It costs a transcription, which a cache keeps for `transcribe`.

        Raises:
            ConfigError: The model does not say which language it heard.
            VoxvecError: As in `transcribe`.
        """
        self._asking.check_detects()
        return self.transcribe(audio).language

    def plan(
        self,
        audio: Source,
        *,
        language: str | None = None,
        prompt: str | None = None,
        keywords: Sequence[str] = (),
        speakers: bool = False,
        temperature: float | None = None,
    ) -> TranscriptionPlan:
        """What `transcribe` would do: length, bytes, cost, what is sent. Looks into the cache, asks no server."""
        job = self._asking.transcription(
            audio,
            self._client.origin,
            language=language,
            prompt=prompt,
            keywords=keywords,
            speakers=speakers,
            temperature=temperature,
        )
        self._client.cache.discard(job.fill(self._client.cache.get_many([job.name])))
        return job.plan()

    def _run(self, job: TranscriptionJob) -> Transcript:
        call: Call | None = None
        while not job.answered():
            lane = self._client.lane()
            call = call or lane.call(self._client.setup.deadline)
            with lane.claim([job.name]) as claim:
                if claim.mine:
                    self._client.cache.discard(job.fill(self._client.cache.get_many([job.name])))
                    fresh = {} if job.answered() else self._lease(job, call, lane)
                    self._client.cache.set_many(fresh)
                    lane.land(claim, fresh)
            job.fill(lane.wait_for(call, claim))
        return job.result()

    def _lease(self, job: TranscriptionJob, call: Call, lane: Lane) -> dict[bytes, bytes]:
        """Buy it, unless another process is doing that or has done it."""
        leasing = self._client.leasing
        if leasing is None:
            return self._buy(job, call, lane)
        held = leasing.lease([job.name], _LEASE)
        if job.name not in held:
            lane.look_again(call, _LOOK)
            return {}
        try:
            if (row := held[job.name]) is not None:
                job.fill({job.name: row})
            if not job.answered():
                return self._buy(job, call, lane)
        except BaseException:
            leasing.release([job.name])
            raise
        leasing.release([job.name])
        return {}

    def _buy(self, job: TranscriptionJob, call: Call, lane: Lane) -> dict[bytes, bytes]:
        door = self._client.door()

        def send(left: float) -> tuple[Parsed, Reply]:
            reply = door.send(self._asking.request(job), left)
            lane.heard(reply.headers)
            return self._asking.read(job, reply)

        asked = lane.ask(call, send)
        parsed, reply = asked.value
        return job.receive(parsed, reply.body, reply.content_type, asked.attempts, asked.maybe_billed)

    def close(self) -> None:
        """Close the connections and the cache that are ours; what was passed in stays open."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncTranscriber(_Base):
    """`Transcriber` for tasks: the same arguments, the same methods, the same results and the same errors.

    It may be used from any number of tasks, and as an async context manager. ``client`` is an `openai.AsyncOpenAI`.
    """

    def __init__(
        self,
        model: TranscriptionModelName | str | TranscriptionModel = "gpt-transcribe",
        *,
        client: openai.AsyncOpenAI | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        allow_insecure: bool = False,
        timeout: float | None = None,
        cache: Cache | str | os.PathLike[str] | None = None,
        namespace: str | None = None,
        retry: Retry = _RETRY,
        pace: Pace = Pace(),  # noqa: B008 -- frozen
        deadline: float | None = None,
        workers: int = 16,
    ) -> None:
        api_key = hidden(api_key)
        self._asking = Asking(model, namespace, timeout)
        self._client = AsyncClient(
            client,
            Setup(
                api_key=api_key,
                base_url=base_url,
                allow_insecure=allow_insecure,
                timeout=timeout,
                cache=cache,
                retry=retry,
                pace=pace,
                deadline=deadline,
                workers=workers,
            ),
        )

    async def transcribe(
        self,
        audio: Source,
        *,
        language: str | None = None,
        prompt: str | None = None,
        keywords: Sequence[str] = (),
        speakers: bool = False,
        temperature: float | None = None,
    ) -> Transcript:
        """What was said, in the language it was said in; see `Transcriber.transcribe`."""
        make = partial(
            self._asking.transcription,
            audio,
            self._client.origin,
            language=language,
            prompt=prompt,
            keywords=keywords,
            speakers=speakers,
            temperature=temperature,
        )
        return await self._run(await aside(make))

    async def translate(
        self, audio: Source, *, prompt: str | None = None, temperature: float | None = None
    ) -> Transcript:
        """What was said, in English; see `Transcriber.translate`."""
        make = partial(self._asking.translation, audio, self._client.origin, prompt=prompt, temperature=temperature)
        return await self._run(await aside(make))

    async def identify_language(self, audio: Source) -> str | None:
        """Code of the language that is spoken; see `Transcriber.identify_language`."""
        self._asking.check_detects()
        return (await self.transcribe(audio)).language

    async def plan(
        self,
        audio: Source,
        *,
        language: str | None = None,
        prompt: str | None = None,
        keywords: Sequence[str] = (),
        speakers: bool = False,
        temperature: float | None = None,
    ) -> TranscriptionPlan:
        """What `transcribe` would do; see `Transcriber.plan`."""
        make = partial(
            self._asking.transcription,
            audio,
            self._client.origin,
            language=language,
            prompt=prompt,
            keywords=keywords,
            speakers=speakers,
            temperature=temperature,
        )
        job = await aside(make)
        found = await aside(self._client.cache.get_many, [job.name])
        await aside(self._client.cache.discard, job.fill(found))
        return job.plan()

    async def _run(self, job: TranscriptionJob) -> Transcript:
        call: Call | None = None
        while not job.answered():
            lane = self._client.lane()
            call = call or lane.call(self._client.setup.deadline)
            with lane.claim([job.name]) as claim:
                if claim.mine:
                    found = await aside(self._client.cache.get_many, [job.name])
                    await aside(self._client.cache.discard, job.fill(found))
                    fresh = {} if job.answered() else await self._lease(job, call, lane)
                    with lane.kept():
                        await aside(self._client.cache.set_many, fresh)
                    lane.land(claim, fresh)
            job.fill(await lane.wait_for(call, claim))
        return job.result()

    async def _lease(self, job: TranscriptionJob, call: Call, lane: AsyncLane) -> dict[bytes, bytes]:
        leasing = self._client.leasing
        if leasing is None:
            return await self._buy(job, call, lane)
        held = await aside(leasing.lease, [job.name], _LEASE)
        if job.name not in held:
            await lane.look_again(call, _LOOK)
            return {}
        try:
            if (row := held[job.name]) is not None:
                job.fill({job.name: row})
            if not job.answered():
                return await self._buy(job, call, lane)
        except BaseException:
            with lane.kept():
                await aside(leasing.release, [job.name])
            raise
        await aside(leasing.release, [job.name])
        return {}

    async def _buy(self, job: TranscriptionJob, call: Call, lane: AsyncLane) -> dict[bytes, bytes]:
        door = self._client.door()

        async def send(left: float) -> tuple[Parsed, Reply]:
            reply = await door.send(self._asking.request(job), left)
            lane.heard(reply.headers)
            return self._asking.read(job, reply)

        asked = await lane.ask(call, send)
        parsed, reply = asked.value
        return job.receive(parsed, reply.body, reply.content_type, asked.attempts, asked.maybe_billed)

    async def close(self) -> None:
        """Close the connections that are ours; see `Transcriber.close`."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
