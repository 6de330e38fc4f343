"""An `httpx2` transport that answers in process: the same client code, a different wire.

Promises that whatever the responder says arrives as if it came over a network, faults included: they raise what
a socket would make `httpx2` raise, after the time it would take. What the responder raises arrives as it is:
neither `httpx2` nor openai wraps what is not theirs. The work of the async twin runs in a thread, so
that it never holds up the event loop.
"""

from __future__ import annotations

import threading
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import anyio
import h11
import httpx2
from anyio import to_thread

from voxvec.local.clocks import STEADY
from voxvec.local.course import course
from voxvec.local.exchange import Request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator

    from voxvec.local.clocks import Clock
    from voxvec.local.course import Course
    from voxvec.local.exchange import Reply

__all__ = ["AsyncLocalTransport", "LocalTransport"]

_PATIENCE: Final = 600.0  # of a client that sets no time-out; openai's own default [s]
_LONGEST_HEAD: Final = 100 * 1024  # as httpcore2 has it [bytes]

# What comes off the wire, besides seconds to wait: the head of the answer, then its body in pieces.
_Part: TypeAlias = h11.Response | bytes


class LocalTransport(httpx2.BaseTransport):
    """Hands every request to a responder.

    Args:
        responder: Any callable from `Request` to `Reply`.
        clock: What lets the time of slow answers pass.
    """

    def __init__(self, responder: Callable[[Request], Reply], clock: Clock = STEADY) -> None:
        self._responder, self._clock = responder, clock

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        reply = self._responder(_request(request, request.read()))
        if reply.fault is None:
            return _response(reply)
        parts = self._played(_arriving(reply, request))
        return _begun(next(parts), _Stream(parts))

    def _played(self, steps: Generator[float | _Part]) -> Generator[_Part]:
        try:
            for step in steps:
                if isinstance(step, (int, float)):
                    self._clock.sleep(step)
                else:
                    yield step
        finally:
            steps.close()


class AsyncLocalTransport(httpx2.AsyncBaseTransport):
    """Does what `LocalTransport` does, for async clients."""

    def __init__(self, responder: Callable[[Request], Reply], clock: Clock = STEADY) -> None:
        self._responder, self._clock = responder, clock

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        asked = _request(request, await request.aread())
        reply = await _Handover(self._responder, asked).reply()
        if reply.fault is None:
            return _response(reply)
        parts = self._played(_arriving(reply, request))
        return _begun(await anext(parts), _AsyncStream(parts))

    async def _played(self, steps: Generator[float | _Part]) -> AsyncGenerator[_Part]:
        try:
            for step in steps:
                if isinstance(step, (int, float)):
                    await self._sleep(step)
                else:
                    yield step
        finally:
            steps.close()

    async def _sleep(self, seconds: float) -> None:
        if self._clock is STEADY:
            await anyio.sleep(seconds)
        else:
            await to_thread.run_sync(self._clock.sleep, seconds, abandon_on_cancel=True)


class _Handover:
    """An answer on its way out of the thread that made it; if its task is cancelled meanwhile, nobody takes it."""

    def __init__(self, responder: Callable[[Request], Reply], asked: Request) -> None:
        self._responder, self._asked = responder, asked
        self._lock, self._left = threading.Lock(), False
        self._made: list[Reply] = []

    async def reply(self) -> Reply:
        try:
            return await to_thread.run_sync(self._work)
        except BaseException:
            with self._lock:
                self._left = True
                self._drop(self._made)
            raise

    def _work(self) -> Reply:
        reply = self._responder(self._asked)
        with self._lock:
            self._made.append(reply)
            if self._left:
                self._drop(self._made)
        return reply

    @staticmethod
    def _drop(replies: list[Reply]) -> None:
        for reply in replies:
            reply.sent(False)


class _Stream(httpx2.SyncByteStream):
    def __init__(self, parts: Generator[_Part]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            yield cast("bytes", part)

    def close(self) -> None:
        self._parts.close()


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, parts: AsyncGenerator[_Part]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(self._parts):
            async for part in self._parts:
                yield cast("bytes", part)

    async def aclose(self) -> None:
        await self._parts.aclose()


def _request(request: httpx2.Request, body: bytes) -> Request:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(request.method, request.url.path, headers, body)


def _response(reply: Reply) -> httpx2.Response:
    reply.sent(True)
    return httpx2.Response(reply.status, headers=dict(reply.headers), content=reply.body)


def _begun(head: _Part, stream: _Stream | _AsyncStream) -> httpx2.Response:
    head = cast("h11.Response", head)  # it comes first, or an exception
    return httpx2.Response(head.status_code, headers=head.headers.raw_items(), stream=stream)


def _arriving(reply: Reply, request: httpx2.Request) -> Generator[float | _Part]:
    """What a client sees of a reply that has a fault."""
    went = course(reply, method=request.method)
    whole = False
    try:
        yield from _read(went, request.method, request.extensions.get("timeout", {}).get("read"))
        whole = went.whole
    finally:
        reply.sent(whole)


def _read(went: Course, method: str, patience: float | None) -> Generator[float | _Part]:
    """Read as httpcore2 does, from bytes that come when they come.

    Raises:
        httpx2.TransportError: As it would be raised for a socket.
    """
    patience = _PATIENCE if patience is None else patience
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
    client.send(h11.Request(method=method, target="/", headers=[("host", "fake.voxvec")]))
    client.send(h11.EndOfMessage())
    if went.delay and not went.data:
        yield min(went.delay, patience)
    for wait, piece, _ in went.pieces():
        if wait:
            yield min(wait, patience)
        if wait > patience:
            raise httpx2.ReadTimeout("timed out")
        with _as_httpx2():
            client.receive_data(piece)
        yield from _understood(client)
        if client.their_state not in {h11.SEND_RESPONSE, h11.SEND_BODY}:
            return
    if went.ending == "reset":
        raise httpx2.ReadError("[Errno 104] Connection reset by peer")
    if went.ending in {"keep", "hold"}:
        yield max(0.0, patience - (0.0 if went.data else went.delay))
        raise httpx2.ReadTimeout("timed out")
    if client.their_state is h11.SEND_RESPONSE:
        raise httpx2.RemoteProtocolError("Server disconnected without sending a response.")
    with _as_httpx2():
        client.receive_data(b"")
    yield from _understood(client)


def _understood(client: h11.Connection) -> Generator[float | _Part]:
    while True:
        with _as_httpx2():
            event = client.next_event()
        if isinstance(event, h11.Response):
            yield event
        elif isinstance(event, h11.Data):
            yield bytes(event.data)
        elif not isinstance(event, h11.InformationalResponse):
            return


@contextmanager
def _as_httpx2() -> Generator[None]:
    try:
        yield
    except h11.RemoteProtocolError as error:
        raise httpx2.RemoteProtocolError(str(error)) from error
