"""The only module that touches the `openai` client: request in, (bytes, headers) out.

Requests go through the user's client, so that keys, Azure routing, proxies, headers and hooks stay theirs, but past its
typed models: a door hands over the bytes of the answer unread. What openai or its transport raise is
sorted into our own errors here, and only here; theirs hold the request, and with it the key.
"""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from voxvec._failures import Answer, from_status, from_transport
from voxvec._reading import Body, Excerpt, check_head, has_surplus, headers_of
from voxvec._threads import in_thread
from voxvec._watch import Watch
from voxvec.errors import VoxvecError, redact, shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx2
    import openai
    from openai._types import RequestOptions  # the type of a public parameter, itself not public

__all__ = ["AsyncDoor", "Door", "Reply", "Request"]

CONNECT = 5.0  # longest wait for a connection [s]
# The share of an attempt in which it must get its connection. Below 1: without a connection it is known to have cost
# nothing, and that must come out before the whole attempt counts as late.
_CONNECTING = 0.9
_SHORTEST = 0.001  # least time for an attempt [s]
# Read by openai to leave the body of an answer unread, so that we can bound its size and its time.
_UNREAD = {"X-Stainless-Raw-Response": "stream", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, ready to be sent any number of times.

    Attributes:
        path: Path below the base URL, such as ``/embeddings``.
        body: JSON fields, or form fields if there is a file.
        file: Name, content and media type of an upload.
        max_reply: Largest answer that is read [bytes].
        timeout: Longest time for one attempt, from connecting to the last byte [s].
    """

    path: str
    body: Mapping[str, object] = field(repr=False)
    file: tuple[str, bytes, str] | None = field(default=None, repr=False)
    max_reply: int = 64 * 2**20
    timeout: float = 60.0

    def allowed(self, left: float | None) -> float:
        """Time for one attempt if so much is left of the call [s]; never 0, which a socket takes for "do not wait"."""
        return self.timeout if left is None else max(_SHORTEST, min(left, self.timeout))

    @property
    def files(self) -> list[tuple[str, tuple[str, bytes, str]]] | None:
        """The upload as openai takes it."""
        return None if self.file is None else [("file", self.file)]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that came with success, unparsed.

    Attributes:
        body: Content.
        headers: By lower-case name.
        status: HTTP status.
        secrets: Credentials of the request, which an answer may quote; no error about it may.
    """

    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    status: int
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def content_type(self) -> str | None:
        """Media type that the server claims, if any."""
        return self.headers.get("content-type")

    @property
    def request_id(self) -> str | None:
        """The server's name for the request, fit to be shown."""
        name = self.headers.get("x-request-id")
        return None if name is None else shown(redact(name, self.secrets), 200)


def _options(request: Request, timeout: float) -> RequestOptions:
    import openai  # noqa: PLC0415 -- costs 400 ms, and a client that is only made needs none

    return {
        "headers": _UNREAD if request.file is None else {**_UNREAD, "Content-Type": "multipart/form-data"},
        "timeout": openai.Timeout(timeout, connect=min(CONNECT, _CONNECTING * timeout), pool=_CONNECTING * timeout),
        "follow_redirects": False,
        "max_retries": 0,
    }


class _Attempt:
    """One attempt, as the hook in the client has to know it.

    Args:
        is_over: Whether its time has passed, or nobody waits for it any more.
        watch: What is known about it.
    """

    __slots__ = ("_answer", "is_over", "watch")

    def __init__(self, is_over: Callable[[], bool], watch: Watch) -> None:
        self.is_over, self.watch = is_over, watch
        self._answer: weakref.ref[httpx2.Response] | None = None  # weak: it holds the request, and that us

    def listens(self, request: httpx2.Request) -> Callable[..., object] | None:
        """Begin to listen to the transport; who listened before, if anybody."""
        self.watch.begin(request.headers, request.url.host)
        self._answer = None
        before: Callable[..., object] | None = request.extensions.get("trace")
        return before

    def gets(self, response: httpx2.Response) -> None:
        """Note who answers."""
        self._answer = weakref.ref(response)

    def hears(self, step: str, info: Mapping[str, object]) -> Any:
        """Note a step of the transport; the stream of a connection that must not be used again, if it is about one."""
        self.watch.note(step, info, time.monotonic())
        response = self._answer() if self._answer is not None and step == _RELEASED else None
        return None if response is None or not has_surplus(response) else response.extensions.get("network_stream")

    def is_stale(self, error: Exception) -> bool:
        """Whether the request met a connection that had died in the pool, and so never reached the server."""
        cause = error.__cause__ or error
        name = type(cause).__name__
        gone = name in {"ReadError", "WriteError"} or (name == "RemoteProtocolError" and "disconnected" in str(cause))
        return gone and self.watch.is_stale(time.monotonic()) and not self.is_over()


# What every request of a client passes through, in all versions of openai 3. It is wrapped on our copy of the client
# only. Without it a door does its work, but reads the bodies of refusals whole and knows less about failures.
_HOOK = "_send_request"
_RELEASED = "http11.response_closed.started"  # before the transport puts a connection back into its pool
_attempt: ContextVar[_Attempt] = ContextVar("voxvec_attempt")


def _guard(client: openai.OpenAI) -> openai.OpenAI:
    """Let the client tell what goes over the wire, and read no more of a refusal than is needed."""
    send: Callable[..., httpx2.Response] | None = getattr(client, _HOOK, None)
    if send is None:
        return client

    def guarded(request: httpx2.Request, **settings: object) -> httpx2.Response:
        attempt = _attempt.get()
        before = attempt.listens(request)

        def trace(step: str, info: Mapping[str, object]) -> None:
            soiled = attempt.hears(step, info)
            if soiled is not None:
                soiled.close()
            if before is not None:
                before(step, info)

        request.extensions["trace"] = trace
        response = send(request, **settings)
        attempt.gets(response)
        if response.is_success:
            return response
        refusal = Excerpt(response, attempt.is_over)
        with suppress(Exception):  # the status is known, and says more than whatever is wrong with the body
            for chunk in response.iter_bytes() if refusal.wanted else ():
                if not refusal.add(chunk):
                    break
        response.close()
        raise refusal.failure(attempt.watch.secrets)

    setattr(client, _HOOK, guarded)
    return client


def _aguard(client: openai.AsyncOpenAI) -> openai.AsyncOpenAI:
    """The same for tasks."""
    send: Callable[..., Awaitable[httpx2.Response]] | None = getattr(client, _HOOK, None)
    if send is None:
        return client

    async def guarded(request: httpx2.Request, **settings: object) -> httpx2.Response:
        attempt = _attempt.get()
        before = attempt.listens(request)

        async def trace(step: str, info: Mapping[str, object]) -> None:
            soiled = attempt.hears(step, info)
            if soiled is not None:
                await soiled.aclose()
            if before is not None:
                await cast("Awaitable[object]", before(step, info))

        request.extensions["trace"] = trace
        response = await send(request, **settings)
        attempt.gets(response)
        if response.is_success:
            return response
        refusal = Excerpt(response, attempt.is_over)
        try:
            with suppress(Exception):  # as in the twin
                if refusal.wanted:
                    async for chunk in response.aiter_bytes():
                        if not refusal.add(chunk):
                            break
        finally:
            await response.aclose()
        raise refusal.failure(attempt.watch.secrets)

    setattr(client, _HOOK, guarded)
    return client


class _Base:
    """What both doors do alike."""

    def __init__(self) -> None:
        # Whether connections that died in the pool are made good for free. One that does so again on a fresh
        # connection did not die of idleness, and from then on costs what it costs, until a request succeeds.
        self._lenient = True

    def _failure(self, error: Exception, timeout: float, watch: Watch) -> VoxvecError:
        """Ours for theirs, without a trace of the request."""
        if isinstance(error, VoxvecError):
            # What it passed through on its way here holds the request, and with it the key.
            error.__context__ = None
            return error.with_traceback(None)
        import openai  # noqa: PLC0415 -- as above

        if isinstance(error, openai.APIStatusError):  # of a client without the hook
            answer = Answer(error.status_code, headers_of(error.response), error.body, error.response.reason_phrase)
            return from_status(answer, watch.secrets)
        return from_transport(error, timeout, watch.secrets, watch)


class Door(_Base):
    """Sends requests through an `openai.OpenAI`; one attempt each, no retries.

    Args:
        client: The user's client (copied without its retries; the connection pool stays shared) or our own.
        own: Whether `close` closes the client's connections.
    """

    def __init__(self, client: openai.OpenAI, *, own: bool) -> None:
        super().__init__()
        self._client, self._own = _guard(client.with_options(max_retries=0)), own

    def send(self, request: Request, timeout: float | None = None) -> Reply:
        """Send once and read the whole answer.

        A connection that died while it lay idle in the pool does not count: the request is sent again, on another.

        Args:
            request: What to send.
            timeout: Longest time [s]; the request's own if None.

        Raises:
            ServiceError: Of the kind that tells what failed.
            ResponseError: The answer is far too large, or its head is not that of an answer.
        """
        allowed, watch = request.allowed(timeout), Watch()
        try:
            return self._within(allowed, request, watch)
        except Exception as error:  # noqa: BLE001 -- hooks, transports and credential providers may raise anything
            watch.hide(self._client.api_key)
            failure = self._failure(error, allowed, watch)
        # Raised here and not in the handler: there it would keep the original, with the key, as its context.
        raise failure

    def _within(self, timeout: float, request: Request, watch: Watch) -> Reply:
        """Send in a thread beside, and wait for no longer than that [s].

        A socket's own time-out starts anew with every byte, so a server that drips its answer could hold an attempt
        for ever. The thread that is left behind closes its connection at the next piece of the answer, or when none
        has come for as long again.
        """
        given_up = threading.Event()
        attempt = in_thread(self._send, request, timeout, _Attempt(given_up.is_set, watch))
        try:
            return attempt.result(timeout)
        finally:
            given_up.set()
            del attempt  # it holds what the thread raised, whose traceback holds this frame and so the request

    def _send(self, request: Request, timeout: float, attempt: _Attempt) -> Reply:
        _attempt.set(attempt)  # in this thread's own context
        try:
            reply = self._once(request, timeout, attempt)
        except Exception as error:
            if not (self._lenient and attempt.is_stale(error)):
                raise
            self._lenient = False
            reply = self._once(request, timeout, attempt)
        self._lenient = True
        return reply

    def _once(self, request: Request, timeout: float, attempt: _Attempt) -> Reply:
        import httpx2  # noqa: PLC0415 -- as openai

        response = self._client.post(
            request.path,
            body=dict(request.body),
            files=request.files,
            options=_options(request, timeout),
            cast_to=httpx2.Response,
        )
        try:
            check_head(response)
            body = Body(response, request.max_reply, timeout, attempt.is_over)
            for chunk in response.iter_bytes():
                body.add(chunk)
        finally:
            response.close()
        return Reply(body.content(), headers_of(response), response.status_code, attempt.watch.secrets)

    def close(self) -> None:
        """Close the connections, if they are ours."""
        if self._own:
            self._client.close()


class AsyncDoor(_Base):
    """The same through an `openai.AsyncOpenAI`."""

    def __init__(self, client: openai.AsyncOpenAI, *, own: bool) -> None:
        super().__init__()
        self._client, self._own = _aguard(client.with_options(max_retries=0)), own

    async def send(self, request: Request, timeout: float | None = None) -> Reply:  # noqa: ASYNC109 -- bounds an attempt, as in the twin
        """Send once and read the whole answer; see `Door.send`."""
        import anyio  # noqa: PLC0415 -- as openai

        allowed, watch = request.allowed(timeout), Watch()
        until = time.monotonic() + allowed
        attempt = _Attempt(lambda: time.monotonic() > until, watch)
        before = _attempt.set(attempt)
        try:
            with anyio.fail_after(allowed):
                return await self._send(request, allowed, attempt)
        except Exception as error:  # noqa: BLE001 -- as in the twin
            watch.hide(self._client.api_key)
            failure = self._failure(error, allowed, watch)
        finally:
            _attempt.reset(before)
        raise failure

    async def _send(self, request: Request, timeout: float, attempt: _Attempt) -> Reply:  # noqa: ASYNC109 -- as above
        try:
            reply = await self._once(request, timeout, attempt)
        except Exception as error:
            if not (self._lenient and attempt.is_stale(error)):
                raise
            self._lenient = False
            reply = await self._once(request, timeout, attempt)
        self._lenient = True
        return reply

    async def _once(self, request: Request, timeout: float, attempt: _Attempt) -> Reply:  # noqa: ASYNC109 -- as above
        import anyio  # noqa: PLC0415 -- as openai
        import httpx2  # noqa: PLC0415 -- as openai

        response = await self._client.post(
            request.path,
            body=dict(request.body),
            files=request.files,
            options=_options(request, timeout),
            cast_to=httpx2.Response,
        )
        try:
            check_head(response)
            body = Body(response, request.max_reply, timeout, attempt.is_over)
            async for chunk in response.aiter_bytes():
                body.add(chunk)
        finally:
            # A cancellation that comes now must not take an answer away that is all here, nor leave a connection open.
            with anyio.CancelScope(shield=True):
                await response.aclose()
        return Reply(body.content(), headers_of(response), response.status_code, attempt.watch.secrets)

    async def close(self) -> None:
        """Close the connections, if they are ours."""
        if self._own:
            await self._client.close()
