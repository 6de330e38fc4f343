"""`Embedder` and `AsyncEmbedder`: the same client, once for threads and once for tasks.

Both are thin. What to ask and what an answer means is decided in `voxvec.embedding.job`, when to ask again in
`voxvec.policy`; here the two meet a cache and a server.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias, get_args

from voxvec import models
from voxvec._client import AsyncClient, Client, Setup
from voxvec._progress import Progress, Tell, reporter
from voxvec._run import aside, in_order, in_rounds
from voxvec.embedding.settings import OnLong, Settings
from voxvec.errors import ConfigError, InputError, RefusedError, ResponseError, VoxvecError
from voxvec.policy import Pace, Retry

if TYPE_CHECKING:
    import os
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt
    import openai

    from voxvec._door import AsyncDoor, Door, Reply, Request
    from voxvec._flights import Claim
    from voxvec._run import Asked, AsyncLane, Call, Lane
    from voxvec.caches.contract import Cache
    from voxvec.embedding.job import EmbeddingJob, EmbeddingPlan
    from voxvec.embedding.packing import Batch
    from voxvec.embedding.vectors import Embeddings
    from voxvec.embedding.wire import Decoded
    from voxvec.models import EmbeddingModel, EmbeddingModelName, InputType

__all__ = ["AsyncEmbedder", "Embedder", "Texts"]

OnError: TypeAlias = Literal["raise", "keep"]


class _Column(Protocol):
    """A collection of texts that is no text itself: one may ask a column for anything, a `str` only for a `str`."""

    def __contains__(self, item: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...


Texts: TypeAlias = _Column | Iterator[str]
"""Many texts: a list, a generator, a column of pandas, polars, Arrow or NumPy; a single `str` is none."""


class _Base:
    """What both twins know, and what they do without waiting."""

    def __init__(
        self,
        model: EmbeddingModelName | str | EmbeddingModel,
        *,
        dimensions: int | None,
        namespace: str | None,
        on_long: OnLong,
        strict_model: bool,
    ) -> None:
        known = models.find(model, kind="embedding") if isinstance(model, str) else model
        models.warn_if_deprecated(known)
        self._on_long: OnLong = on_long
        if on_long not in get_args(OnLong):
            raise ConfigError(f"on_long must be 'error', 'truncate' or 'chunk', not {on_long!r}")
        self.model = known.with_dims(dimensions)
        self._namespace, self._strict_model = namespace, strict_model
        self._floats = known.base64 is False

    def _job(
        self, texts: Texts, origin: str, dimensions: int | None, role: InputType | None, on_error: OnError
    ) -> EmbeddingJob:
        from voxvec.embedding.job import EmbeddingJob  # noqa: PLC0415 -- imports NumPy, and a client that is only made needs none

        if on_error not in get_args(OnError):
            raise ConfigError(f"on_error must be 'raise' or 'keep', not {on_error!r}")
        if role not in {None, "query", "document"}:
            raise ConfigError(f"input_type must be 'query', 'document' or None, not {role!r}")
        settings = Settings(
            model=self.model.with_dims(dimensions),
            origin=origin,
            namespace=self._namespace,
            input_type=role,
            on_long=self._on_long,
        )
        return EmbeddingJob(texts, settings, keep=on_error == "keep")

    def _request(self, job: EmbeddingJob, batch: Batch, timeout: float | None) -> Request:
        from voxvec._door import Request  # noqa: PLC0415 -- as above
        from voxvec.embedding.wire import largest_reply  # noqa: PLC0415 -- as above

        encoding = "float" if self._floats else "base64"
        return Request(
            path="/embeddings",
            body={**job.settings.fields(), "input": list(batch.texts), "encoding_format": encoding},
            max_reply=largest_reply(len(batch), job.reply_dims),
            timeout=timeout or 60.0,
        )

    def _read(self, job: EmbeddingJob, batch: Batch, reply: Reply) -> Decoded:
        from voxvec.embedding.wire import decode  # noqa: PLC0415 -- as above

        try:
            decoded = decode(
                reply.body, len(batch), job.reply_dims, out=job.room(batch), content_type=reply.content_type
            )
            self._check_model(decoded.model)
        except ResponseError as error:
            # A server nobody knows may garble base64: the second request asks for plain numbers.
            self._floats = self._floats or self.model.base64 is None
            names = [batch.names[at] for at in error.positions] or batch.names
            error.positions, error.request_id = tuple(job.positions(names)), reply.request_id
            raise
        return decoded

    def _check_model(self, served: str | None) -> None:
        asked = self.model.name
        # Behind a deployment's name the server gives that of the family; versions are written behind a hyphen.
        if self._strict_model and served and not f"{served}-".startswith((f"{asked}-", f"{self.model.family}-")):
            raise ResponseError(
                f"{served} answered instead of {asked}, which strict_model=True forbids; the answer was billed",
                kind="malformed",
                billed="yes",
            )

    def _wants_floats(self, error: RefusedError) -> bool:
        """Whether a refusal means that the server does not know base64, which only trying can tell."""
        refuses = self.model.base64 is None and "encoding_format" in str(error)
        self._floats = self._floats or refuses
        return refuses

    def _note(
        self, job: EmbeddingJob, failures: list[Exception], batch: Batch, error: Exception, *, keep: bool
    ) -> bool:
        """Note a failure; whether to go on with the rest."""
        if isinstance(error, VoxvecError):
            job.fail(batch, error)
            if keep:
                return True
        failures.append(error)
        return False

    def _windows(self, texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Parts of one request's size, each with the position of its first text."""
        if isinstance(texts, str):
            raise InputError("stream() takes many texts; for one, use embed_one(text). Nothing was sent")
        source, start = iter(texts), 0
        while window := list(islice(source, self.model.max_items)):
            yield start, window
            start += len(window)

    def _one(self, text: str) -> list[str]:
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
            raise InputError(
                f"embed_one() takes one str, not {type(text).__name__}; for many, use embed(). Nothing was sent",
                positions=[0],
            )
        return [text]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.name!r}, dimensions={self.model.dims})"

    def __reduce__(self) -> str:
        raise TypeError(f"{type(self).__name__} holds connections and cannot be pickled; make one in each process")


class Embedder(_Base):
    """Turns texts into vectors.

    Every distinct text is bought once: duplicates within a call are merged, callers at the same time share one
    request, a cache keeps what was bought before. Requests are packed to the model's limits and sent side by
    side; answers are checked before they are used, failures asked again as `Retry` says.

    It may be used from any number of threads, and as a context manager.

    Args:
        model: Name of the model, or its description.
        dimensions: Length of the vectors; None for the model's own.
        client: An `openai.OpenAI` (or Azure's) to send through; its retries are switched off, everything else stays
            yours.
        api_key: Key for a client of its own; ``OPENAI_API_KEY`` if None.
        base_url: Root of the API for a client of its own; ``OPENAI_BASE_URL`` or OpenAI's if None.
        timeout: Longest time for one request, from connecting to the last byte [s].
        cache: Where to keep vectors: a path for an `SqliteCache`, any `Cache`, or None.
        namespace: Keeps tenants apart who share a cache.
        retry: When to ask again.
        pace: How fast to ask at most.
        deadline: Longest time for one call [s].
        workers: Most requests on their way at a time.
        on_long: What to do with a text that is longer than the model takes: ``"error"`` refuses it,
            ``"truncate"`` embeds its beginning, ``"chunk"`` takes the mean of its parts, weighted by tokens.
        strict_model: Whether an answer of another model than the one asked for is an error.

    Raises:
        ConfigError: The settings cannot work.
        CacheError: The cache is somebody else's file.
    """

    def __init__(
        self,
        model: EmbeddingModelName | str | EmbeddingModel,
        *,
        dimensions: int | None = None,
        client: openai.OpenAI | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 60.0,
        cache: Cache | str | os.PathLike[str] | None = None,
        namespace: str | None = None,
        retry: Retry = Retry(),  # noqa: B008 -- frozen
        pace: Pace = Pace(),  # noqa: B008 -- frozen
        deadline: float | None = None,
        workers: int = 16,
        on_long: OnLong = "error",
        strict_model: bool = False,
    ) -> None:
        super().__init__(model, dimensions=dimensions, namespace=namespace, on_long=on_long, strict_model=strict_model)
        self._client = Client(
            client,
            Setup(
                api_key=api_key,
                base_url=base_url,
                timeout=timeout,
                cache=cache,
                retry=retry,
                pace=pace,
                deadline=deadline,
                workers=workers,
            ),
        )

    def embed(
        self,
        texts: Texts,
        *,
        dimensions: int | None = None,
        input_type: InputType | None = None,
        on_error: OnError = "raise",
        progress: Progress = False,
    ) -> Embeddings:
        """Embed many texts.

        Args:
            texts: Any iterable of str, or a column of pandas, polars, Arrow or NumPy.
            dimensions: Length of the vectors for this call; the client's if None.
            input_type: Role of the texts, for models that embed queries and documents differently.
            on_error: ``"raise"`` stops at the first failure, ``"keep"`` goes on and returns failures in
                `Embeddings.failed`.
            progress: True for a line on standard error, or a function of texts done and texts in all.

        Returns:
            The vectors in the order of the texts, shape ``(n, dims)``; none give ``(0, dims)`` and no request.

        Raises:
            InputError: Some texts cannot be sent; ``positions`` names them. Nothing was sent.
            ServiceError: The server failed for good; ``partial`` holds what was bought, and with a cache a second
                call buys only the rest.
            ResponseError: An answer broke the contract twice.
        """
        job = self._job(texts, self._client.origin, dimensions, input_type, on_error)
        try:
            self._run(job, keep=on_error == "keep", progress=progress)
        except VoxvecError as error:
            job.explain(error)
            raise
        return job.result()

    def _run(self, job: EmbeddingJob, *, keep: bool, progress: Progress) -> None:
        tell = reporter(progress, len(job), "texts")
        call: Call | None = None
        while names := job.open():
            door, lane = self._client.open()
            call = call or lane.call(self._client.setup.deadline)
            with lane.claim(names, lot=job.reply_dims or 0) as claim:
                found = self._client.cache.get_many(list(claim.mine))
                self._client.cache.discard(job.fill(found))
                lane.land(claim, {name: row for name, row in found.items() if job.knows(name)})
                tell(job.done)
                self._buy(job, claim, call, (door, lane), keep=keep, tell=tell)
            job.fill(lane.wait_for(call, claim))
            tell(job.done)

    def _buy(
        self, job: EmbeddingJob, claim: Claim, call: Call, way: tuple[Door, Lane], *, keep: bool, tell: Tell
    ) -> None:
        _, lane = way
        failures: list[Exception] = []

        def take(batch: Batch, asked: Asked[Decoded]) -> None:
            fresh = job.receive(batch, asked.value)
            job.account(asked.attempts, asked.maybe_billed)
            self._client.cache.set_many(fresh)
            lane.land(claim, fresh)
            tell(job.done)

        batches = job.batches(claim.mine)
        call.patient = len(batches) > 1
        work = partial(self._ask, job, call, way)
        lane.send_all(call, batches, work, take, partial(self._note, job, failures, keep=keep))
        if failures:
            raise failures[0]

    def _ask(self, job: EmbeddingJob, call: Call, way: tuple[Door, Lane], batch: Batch) -> Asked[Decoded]:
        door, lane = way

        def send(left: float) -> Decoded:
            reply = door.send(self._request(job, batch, self._client.setup.timeout), left)
            return self._read(job, batch, reply)

        floats = self._floats
        try:
            return lane.ask(call, send, tokens=batch.tokens)
        except RefusedError as error:
            if floats or not self._wants_floats(error):
                raise
        asked = lane.ask(call, send, tokens=batch.tokens)
        return replace(asked, attempts=asked.attempts + 1)

    def embed_one(
        self, text: str, *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> npt.NDArray[np.float32]:
        """Embed one text.

        Returns:
            The vector, shape ``(dims,)``, float32, read-only.

        Raises:
            InputError: The text cannot be sent.
            ServiceError: The server failed for good.
            ResponseError: The answer broke the contract twice.
        """
        return self.embed(self._one(text), dimensions=dimensions, input_type=input_type)[0]

    def plan(
        self, texts: Texts, *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> EmbeddingPlan:
        """What `embed` would do: requests, tokens, cost, what is cached, what is refused.

        Looks into the cache, asks no server.
        """
        job = self._job(texts, self._client.origin, dimensions, input_type, "keep")
        self._client.cache.discard(job.fill(self._client.cache.get_many(job.open())))
        return job.plan()

    def stream(
        self, texts: Iterable[str], *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> Iterator[Embeddings]:
        """Embed without end: reads texts as it goes and yields their vectors, in order, in parts of one request's size.

        At most ``workers`` parts are held at a time, so memory stays bounded; each is in the cache before it is
        yielded. Leaving the loop early stops further requests.

        Args:
            texts: Any iterable of str, however long.
            dimensions: As in `embed`.
            input_type: As in `embed`.

        Raises:
            InputError: A text cannot be sent; ``positions`` count from the first text of the stream.
            ServiceError: As in `embed`.
            ResponseError: As in `embed`.
        """

        def part(window: tuple[int, list[str]]) -> Embeddings:
            start, texts = window
            try:
                return self.embed(texts, dimensions=dimensions, input_type=input_type)
            except VoxvecError as error:
                raise _moved(error, start) from None

        return in_order(self._windows(texts), part, self._client.setup.workers)

    def close(self) -> None:
        """Close the connections that are ours; a client that was passed in stays open."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncEmbedder(_Base):
    """`Embedder` for tasks: the same arguments, the same methods, the same results and the same errors.

    It may be used from any number of tasks, and as an async context manager. ``client`` is an `openai.AsyncOpenAI`.
    """

    def __init__(
        self,
        model: EmbeddingModelName | str | EmbeddingModel,
        *,
        dimensions: int | None = None,
        client: openai.AsyncOpenAI | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 60.0,
        cache: Cache | str | os.PathLike[str] | None = None,
        namespace: str | None = None,
        retry: Retry = Retry(),  # noqa: B008 -- frozen
        pace: Pace = Pace(),  # noqa: B008 -- frozen
        deadline: float | None = None,
        workers: int = 16,
        on_long: OnLong = "error",
        strict_model: bool = False,
    ) -> None:
        super().__init__(model, dimensions=dimensions, namespace=namespace, on_long=on_long, strict_model=strict_model)
        self._client = AsyncClient(
            client,
            Setup(
                api_key=api_key,
                base_url=base_url,
                timeout=timeout,
                cache=cache,
                retry=retry,
                pace=pace,
                deadline=deadline,
                workers=workers,
            ),
        )

    async def embed(
        self,
        texts: Texts,
        *,
        dimensions: int | None = None,
        input_type: InputType | None = None,
        on_error: OnError = "raise",
        progress: Progress = False,
    ) -> Embeddings:
        """Embed many texts; see `Embedder.embed`."""
        job = self._job(texts, self._client.origin, dimensions, input_type, on_error)
        try:
            await self._run(job, keep=on_error == "keep", progress=progress)
        except VoxvecError as error:
            job.explain(error)
            raise
        return job.result()

    async def _run(self, job: EmbeddingJob, *, keep: bool, progress: Progress) -> None:
        tell = reporter(progress, len(job), "texts")
        call: Call | None = None
        while names := job.open():
            door, lane = self._client.open()
            call = call or lane.call(self._client.setup.deadline)
            with lane.claim(names, lot=job.reply_dims or 0) as claim:
                found = await aside(self._client.cache.get_many, list(claim.mine))
                await aside(self._client.cache.discard, job.fill(found))
                lane.land(claim, {name: row for name, row in found.items() if job.knows(name)})
                tell(job.done)
                await self._buy(job, claim, call, (door, lane), keep=keep, tell=tell)
            job.fill(await lane.wait_for(call, claim))
            tell(job.done)

    async def _buy(
        self, job: EmbeddingJob, claim: Claim, call: Call, way: tuple[AsyncDoor, AsyncLane], *, keep: bool, tell: Tell
    ) -> None:
        _, lane = way
        failures: list[Exception] = []

        async def take(batch: Batch, asked: Asked[Decoded]) -> None:
            fresh = job.receive(batch, asked.value)
            job.account(asked.attempts, asked.maybe_billed)
            await aside(self._client.cache.set_many, fresh)
            lane.land(claim, fresh)
            tell(job.done)

        batches = job.batches(claim.mine)
        call.patient = len(batches) > 1
        work = partial(self._ask, job, call, way)
        await lane.send_all(call, batches, work, take, partial(self._note, job, failures, keep=keep))
        if failures:
            raise failures[0]

    async def _ask(
        self, job: EmbeddingJob, call: Call, way: tuple[AsyncDoor, AsyncLane], batch: Batch
    ) -> Asked[Decoded]:
        door, lane = way

        async def send(left: float) -> Decoded:
            reply = await door.send(self._request(job, batch, self._client.setup.timeout), left)
            return self._read(job, batch, reply)

        floats = self._floats
        try:
            return await lane.ask(call, send, tokens=batch.tokens)
        except RefusedError as error:
            if floats or not self._wants_floats(error):
                raise
        asked = await lane.ask(call, send, tokens=batch.tokens)
        return replace(asked, attempts=asked.attempts + 1)

    async def embed_one(
        self, text: str, *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> npt.NDArray[np.float32]:
        """Embed one text; see `Embedder.embed_one`."""
        return (await self.embed(self._one(text), dimensions=dimensions, input_type=input_type))[0]

    async def plan(
        self, texts: Texts, *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> EmbeddingPlan:
        """What `embed` would do; see `Embedder.plan`."""
        job = self._job(texts, self._client.origin, dimensions, input_type, "keep")
        found = await aside(self._client.cache.get_many, job.open())
        await aside(self._client.cache.discard, job.fill(found))
        return job.plan()

    def stream(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        dimensions: int | None = None,
        input_type: InputType | None = None,
    ) -> AsyncIterator[Embeddings]:
        """Embed without end; see `Embedder.stream`. Takes async iterables too."""

        async def part(window: tuple[int, list[str]]) -> Embeddings:
            start, texts = window
            try:
                return await self.embed(texts, dimensions=dimensions, input_type=input_type)
            except VoxvecError as error:
                raise _moved(error, start) from None

        return in_rounds(self._async_windows(texts), part, self._client.setup.workers)

    async def _async_windows(self, texts: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[tuple[int, list[str]]]:
        if not isinstance(texts, AsyncIterable):
            for part in self._windows(texts):
                yield part
            return
        start = 0
        window: list[str] = []
        async for text in texts:
            window.append(text)
            if len(window) == self.model.max_items:
                yield start, window
                start, window = start + len(window), []
        if window:
            yield start, window

    async def close(self) -> None:
        """Close the connections that are ours; see `Embedder.close`."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _moved(error: VoxvecError, start: int) -> VoxvecError:
    """The error with positions that count from the first text of a stream."""
    error.positions = tuple(position + start for position in error.positions)
    return error
