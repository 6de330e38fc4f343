"""`Embedder` and `AsyncEmbedder`: the same client, once for threads and once for tasks.

Both are thin. What to ask and what an answer means is decided in `voxvec.embedding.job`, when to ask again in
`voxvec.policy`; here the two meet a cache and a server.

The file is long because both twins stand in it, with what users read about them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

from voxvec._client import AsyncClient, Client, Setup
from voxvec._key import hidden
from voxvec._progress import Progress, Tell, reporter
from voxvec._threads import aside, in_order, in_turn
from voxvec.embedding.asking import LEASE, Asking, OnError, Texts, common, dropped
from voxvec.embedding.texts import as_list, note
from voxvec.errors import RefusedError, ResponseError, ServiceError, VoxvecError
from voxvec.policy import Pace, Retry

if TYPE_CHECKING:
    import os
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt
    import openai

    from voxvec._door import AsyncDoor, Door
    from voxvec._flights import Claim
    from voxvec._run import Asked, AsyncLane, Call, Lane
    from voxvec.caches.contract import Cache
    from voxvec.embedding.job import EmbeddingJob, EmbeddingPlan
    from voxvec.embedding.packing import Batch
    from voxvec.embedding.settings import OnLong
    from voxvec.embedding.vectors import Embeddings
    from voxvec.embedding.wire import Decoded
    from voxvec.models import EmbeddingModel, EmbeddingModelName, InputType

__all__ = ["AsyncEmbedder", "Embedder"]

# Parts of a stream that are held per worker: where three answers in ten take ten times as long, 1 would leave half of
# the workers idle, 2 a quarter, 3 a twentieth.
_HELD = 3


_LOOK = 0.1  # how often a call looks for what another process is buying [s]


class _Base:
    """What both twins are besides their waiting."""

    _asking: Asking

    @property
    def model(self) -> EmbeddingModel:
        """What is asked, with the dims wanted."""
        return self._asking.model

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
        allow_insecure: Whether ``base_url`` may be an ``http`` address of another machine; whoever listens on the way
            can then read everything. Where a ``client`` sends to is your own decision.
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
        allow_insecure: bool = False,
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
        api_key = hidden(api_key)
        self._asking = Asking(
            model, dimensions=dimensions, namespace=namespace, on_long=on_long, strict_model=strict_model
        )
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
        job = self._asking.job(texts, self._client.origin, dimensions, input_type, on_error)
        return self._embed(job, progress=progress)

    def _embed(self, job: EmbeddingJob, *, call: Call | None = None, progress: Progress = False) -> Embeddings:
        try:
            with self._client.keeping():
                self._run(job, call, progress)
        except VoxvecError as error:
            job.explain(error)
            raise
        return self._asking.result(job)

    def _run(self, job: EmbeddingJob, call: Call | None, progress: Progress) -> None:
        tell = reporter(progress, len(job), "texts")
        while names := job.open():
            lane = self._client.lane()
            call = call or lane.call(self._client.setup.deadline)
            with lane.claim(names, lot=job.reply_dims or 0) as claim:
                found = self._client.cache.get_many(list(claim.mine))
                self._client.cache.discard(job.fill(found))
                lane.land(claim, {name: row for name, row in found.items() if job.knows(name)})
                tell(job.done)
                self._buy(job, claim, call, lane, tell=tell)
            job.fill(lane.wait_for(call, claim))
            self._asking.inherit(job, claim)
            tell(job.done)
            if self._client.leasing is not None and job.open() == names:
                lane.look_again(call, _LOOK)

    def _buy(self, job: EmbeddingJob, claim: Claim, call: Call, lane: Lane, *, tell: Tell) -> None:
        batches = job.batches(claim.mine)
        if not batches:
            return
        call.patient = call.patient or len(batches) > 1
        work = partial(self._lease, job, call, (self._client.door(), lane))
        failures: list[Exception] = []

        def take(batch: Batch, asked: Asked[Decoded]) -> None:
            fresh = job.receive(batch, asked.value)
            job.account(asked.attempts, asked.maybe_billed)
            self._client.cache.set_many(fresh)
            lane.land(claim, fresh)
            tell(job.done)

        def fail(batch: Batch, error: Exception) -> Sequence[Batch] | None:
            instead = self._asking.note(job, failures, batch, error)
            lane.land(claim, dict.fromkeys(dropped(batch, instead)), common(error))
            return instead

        def begin(batch: Batch) -> None:
            claim.aloft.update(batch.names)

        lane.send_all(call, batches, work, take=take, fail=fail, begin=begin)
        self._asking.settle(job, call, failures)

    def _lease(self, job: EmbeddingJob, call: Call, way: tuple[Door, Lane], batch: Batch) -> Asked[Decoded]:
        """Ask for what no other process is buying."""
        leasing = self._client.leasing
        if leasing is None:
            return self._ask(job, call, way, batch)
        try:
            self._asking.check_held(job, batch, leasing.lease(batch.names, LEASE))
            return self._ask(job, call, way, batch)
        except BaseException:
            leasing.release(batch.names)
            raise

    def _ask(self, job: EmbeddingJob, call: Call, way: tuple[Door, Lane], batch: Batch) -> Asked[Decoded]:
        door, lane = way

        def send(left: float) -> Decoded:
            reply = door.send(self._asking.request(job, batch, self._client.setup.timeout), left)
            lane.heard(reply.headers)
            return self._asking.read(job, batch, reply)

        floats = self._asking.floats
        try:
            return lane.ask(call, send, tokens=batch.tokens)
        except RefusedError as error:
            if floats or not self._asking.wants_floats(error):
                raise
        try:
            asked = lane.ask(call, send, tokens=batch.tokens)
        except (ServiceError, ResponseError) as error:
            error.attempts += 1
            raise
        return asked._replace(attempts=asked.attempts + 1)

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
        texts, origin = self._asking.one(text), self._client.origin
        job = self._asking.job(texts, origin, dimensions, input_type, "raise", keepable=False)
        return self._embed(job)[0]

    def plan(
        self, texts: Texts, *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> EmbeddingPlan:
        """What `embed` would do: requests, tokens, cost, what is cached, what is refused.

        Looks into the cache, asks no server.
        """
        job = self._asking.job(texts, self._client.origin, dimensions, input_type, "keep")
        self._client.cache.discard(job.fill(self._client.cache.get_many(job.open())))
        return job.plan()

    def stream(
        self, texts: Iterable[str], *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> Iterator[Embeddings]:
        """Embed without end: reads texts as it goes and yields their vectors, in order, in parts of one request's size.

        At most ``3 * workers`` parts are held at a time, so memory stays bounded; each is in the cache before it is
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
        calls: deque[Call] = deque(maxlen=_HELD * self._client.setup.workers)

        def part(window: tuple[int, list[str]]) -> Embeddings:
            start, texts = window
            call = self._client.lane().call(self._client.setup.deadline, patient=True)
            calls.append(call)
            origin = self._client.origin
            job = self._asking.job(texts, origin, dimensions, input_type, "raise", start=start, keepable=False)
            return self._embed(job, call=call)

        try:
            workers = self._client.setup.workers
            yield from in_order(self._asking.windows(texts), part, workers, _HELD * workers)
        finally:
            for call in calls:
                self._client.lane().stop(call)

    def close(self) -> None:
        """Close the connections and the cache that are ours; what was passed in stays open."""
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
        allow_insecure: bool = False,
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
        api_key = hidden(api_key)
        self._asking = Asking(
            model, dimensions=dimensions, namespace=namespace, on_long=on_long, strict_model=strict_model
        )
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
        job = await self._plan_job(texts, dimensions, input_type, on_error)
        return await self._embed(job, progress=progress)

    async def _plan_job(
        self, texts: Texts, dimensions: int | None, role: InputType | None, on_error: OnError
    ) -> EmbeddingJob:
        # Read here, since a source may belong to this thread; measured aside, since a tokenizer takes its time.
        return await aside(self._asking.job, as_list(texts), self._client.origin, dimensions, role, on_error)

    async def _embed(self, job: EmbeddingJob, *, call: Call | None = None, progress: Progress = False) -> Embeddings:
        try:
            with self._client.keeping():
                await self._run(job, call, progress)
        except VoxvecError as error:
            job.explain(error)
            raise
        return self._asking.result(job)

    async def _run(self, job: EmbeddingJob, call: Call | None, progress: Progress) -> None:
        tell = reporter(progress, len(job), "texts")
        while names := job.open():
            lane = self._client.lane()
            call = call or lane.call(self._client.setup.deadline)
            with lane.claim(names, lot=job.reply_dims or 0) as claim:
                found = await aside(self._client.cache.get_many, list(claim.mine))
                await aside(self._client.cache.discard, job.fill(found))
                lane.land(claim, {name: row for name, row in found.items() if job.knows(name)})
                tell(job.done)
                await self._buy(job, claim, call, lane, tell=tell)
            job.fill(await lane.wait_for(call, claim))
            self._asking.inherit(job, claim)
            tell(job.done)
            if self._client.leasing is not None and job.open() == names:
                await lane.look_again(call, _LOOK)

    async def _buy(self, job: EmbeddingJob, claim: Claim, call: Call, lane: AsyncLane, *, tell: Tell) -> None:
        batches = await aside(job.batches, list(claim.mine))
        if not batches:
            return
        call.patient = call.patient or len(batches) > 1
        work = partial(self._lease, job, call, (self._client.door(), lane))
        failures: list[Exception] = []

        async def take(batch: Batch, asked: Asked[Decoded]) -> None:
            fresh = job.receive(batch, asked.value)
            job.account(asked.attempts, asked.maybe_billed)
            await aside(self._client.cache.set_many, fresh)
            lane.land(claim, fresh)
            tell(job.done)

        def fail(batch: Batch, error: Exception) -> Sequence[Batch] | None:
            instead = self._asking.note(job, failures, batch, error)
            lane.land(claim, dict.fromkeys(dropped(batch, instead)), common(error))
            return instead

        def begin(batch: Batch) -> None:
            claim.aloft.update(batch.names)

        def lost(batch: Batch) -> None:
            lane.land(claim, dict.fromkeys(batch.names))

        def worth() -> bool:
            return self._client.keeps or claim.is_wanted()

        await lane.send_all(call, batches, work, take=take, fail=fail, begin=begin, lost=lost, worth=worth)
        self._asking.settle(job, call, failures)

    async def _lease(
        self, job: EmbeddingJob, call: Call, way: tuple[AsyncDoor, AsyncLane], batch: Batch
    ) -> Asked[Decoded]:
        leasing = self._client.leasing
        if leasing is None:
            return await self._ask(job, call, way, batch)
        try:
            self._asking.check_held(job, batch, await aside(leasing.lease, batch.names, LEASE))
            return await self._ask(job, call, way, batch)
        except BaseException:
            with way[1].kept():
                await aside(leasing.release, batch.names)
            raise

    async def _ask(
        self, job: EmbeddingJob, call: Call, way: tuple[AsyncDoor, AsyncLane], batch: Batch
    ) -> Asked[Decoded]:
        door, lane = way

        async def send(left: float) -> Decoded:
            reply = await door.send(self._asking.request(job, batch, self._client.setup.timeout), left)
            lane.heard(reply.headers)
            return self._asking.read(job, batch, reply)

        floats = self._asking.floats
        try:
            return await lane.ask(call, send, tokens=batch.tokens)
        except RefusedError as error:
            if floats or not self._asking.wants_floats(error):
                raise
        try:
            asked = await lane.ask(call, send, tokens=batch.tokens)
        except (ServiceError, ResponseError) as error:
            error.attempts += 1
            raise
        return asked._replace(attempts=asked.attempts + 1)

    async def embed_one(
        self, text: str, *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> npt.NDArray[np.float32]:
        """Embed one text; see `Embedder.embed_one`."""
        texts, origin = self._asking.one(text), self._client.origin
        job = self._asking.job(texts, origin, dimensions, input_type, "raise", keepable=False)
        return (await self._embed(job))[0]

    async def plan(
        self, texts: Texts, *, dimensions: int | None = None, input_type: InputType | None = None
    ) -> EmbeddingPlan:
        """What `embed` would do; see `Embedder.plan`."""
        job = await self._plan_job(texts, dimensions, input_type, "keep")
        found = await aside(self._client.cache.get_many, job.open())
        await aside(self._client.cache.discard, job.fill(found))
        return await aside(job.plan)

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
            call = self._client.lane().call(self._client.setup.deadline, patient=True)
            origin = self._client.origin
            job = self._asking.job(texts, origin, dimensions, input_type, "raise", start=start, keepable=False)
            return await self._embed(job, call=call)

        workers = self._client.setup.workers
        return in_turn(self._async_windows(texts), part, workers, _HELD * workers)

    async def _async_windows(self, texts: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[tuple[int, list[str]]]:
        if not isinstance(texts, AsyncIterable):
            for part in self._asking.windows(texts):
                yield part
            return
        source, failure = aiter(texts), None
        start, window, room = 0, list[str](), self._asking.room()
        while True:
            try:
                text = await anext(source)
            except StopAsyncIteration:
                break
            except Exception as error:  # noqa: BLE001 -- the source's own, raised below after what came before it
                failure = error
                note(error, start + len(window))
                break
            if window and room.is_full(window, text):
                yield start, window
                start, window, room = start + len(window), [], self._asking.room()
            window.append(text)
            room.add(text)
        if window:
            yield start, window
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """Close the connections that are ours; see `Embedder.close`."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
