"""The only module that touches the `openai` client: request in, (bytes, headers) out.

Requests go through the user's client, so that keys, Azure routing, proxies, headers and hooks stay theirs, but past its
typed models: a door hands over the bytes of the answer unread. What openai or its transport raise is
sorted into our own errors here, and only here; theirs hold the request, and with it the key.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from voxvec._failures import Answer, from_status, from_transport, late
from voxvec._key import hidden
from voxvec._threads import in_thread
from voxvec.errors import ConfigError, ResponseError, VoxvecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx2
    import openai
    from openai._types import RequestOptions  # the type of a public parameter, itself not public

__all__ = ["AsyncDoor", "Door", "Reply", "Request", "new_async_client", "new_client", "origin_of"]

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
    """

    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    status: int

    @property
    def content_type(self) -> str | None:
        """Media type that the server claims, if any."""
        return self.headers.get("content-type")

    @property
    def request_id(self) -> str | None:
        """The server's name for the request."""
        return self.headers.get("x-request-id")


def _options(request: Request, timeout: float) -> RequestOptions:
    import openai  # noqa: PLC0415 -- costs 400 ms, and a client that is only made needs none

    return {
        "headers": _UNREAD if request.file is None else {**_UNREAD, "Content-Type": "multipart/form-data"},
        "timeout": openai.Timeout(timeout, connect=min(CONNECT, _CONNECTING * timeout), pool=_CONNECTING * timeout),
        "follow_redirects": False,
        "max_retries": 0,
    }


class _Body:
    """Collects an answer under two bounds, its size and its time."""

    def __init__(
        self, response: httpx2.Response, request: Request, timeout: float, is_over: Callable[[], bool]
    ) -> None:
        self._response, self._request, self._timeout, self._is_over = response, request, timeout, is_over
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._request.max_reply:
            raise ResponseError(
                f"the answer is larger than {self._request.max_reply} bytes, which no honest answer to "
                "this request can be; reading it was stopped. It was probably billed",
                kind="malformed",
                billed="maybe",
                status=self._response.status_code,
                request_id=self._response.headers.get("x-request-id"),
            )
        if self._is_over():
            raise late(self._timeout)

    def reply(self) -> Reply:
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        return Reply(b"".join(self._chunks), headers, self._response.status_code)


class _Base:
    """What both doors know about their client."""

    def _failure(self, error: Exception, timeout: float, key: str) -> VoxvecError:
        """Ours for theirs, without a trace of the request."""
        if isinstance(error, VoxvecError):
            return error
        if isinstance(error, TimeoutError):
            return late(timeout)
        import openai  # noqa: PLC0415 -- as above

        secrets = (key,) if len(key) > 3 else ()  # noqa: PLR2004 -- "x" is no secret
        if isinstance(error, openai.APIStatusError):
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            answer = Answer(error.status_code, headers, error.body, error.response.reason_phrase)
            return from_status(answer, secrets)
        return from_transport(error, timeout, secrets)


class Door(_Base):
    """Sends requests through an `openai.OpenAI`; one attempt each, no retries.

    Args:
        client: The user's client (copied without its retries; the connection pool stays shared) or our own.
        own: Whether `close` closes the client's connections.
    """

    def __init__(self, client: openai.OpenAI, *, own: bool) -> None:
        self._client, self._own = client.with_options(max_retries=0), own

    def send(self, request: Request, timeout: float | None = None) -> Reply:
        """Send once and read the whole answer.

        Args:
            request: What to send.
            timeout: Longest time [s]; the request's own if None.

        Raises:
            ServiceError: Of the kind that tells what failed.
            ResponseError: The answer is far too large.
        """
        allowed = request.allowed(timeout)
        try:
            return self._within(allowed, request)
        except Exception as error:  # noqa: BLE001 -- hooks, transports and credential providers may raise anything
            failure = self._failure(error, allowed, self._client.api_key)
        # Raised here and not in the handler: there it would keep the original, with the key, as its context.
        raise failure

    def _within(self, timeout: float, request: Request) -> Reply:
        """Send in a thread beside, and wait for no longer than that [s].

        A socket's own time-out starts anew with every byte, so a server that drips its answer could hold an attempt
        for ever. The thread that is left behind closes its connection at the next piece of the answer, or when none
        has come for as long again.
        """
        given_up = threading.Event()
        attempt = in_thread(self._send, request, timeout, given_up)
        try:
            return attempt.result(timeout)
        finally:
            given_up.set()
            del attempt  # it holds what the thread raised, whose traceback holds this frame and so the request

    def _send(self, request: Request, timeout: float, given_up: threading.Event) -> Reply:
        import httpx2  # noqa: PLC0415 -- as openai

        response = self._client.post(
            request.path,
            body=dict(request.body),
            files=request.files,
            options=_options(request, timeout),
            cast_to=httpx2.Response,
        )
        try:
            body = _Body(response, request, timeout, given_up.is_set)
            for chunk in response.iter_bytes():
                body.add(chunk)
        finally:
            response.close()
        return body.reply()

    def close(self) -> None:
        """Close the connections, if they are ours."""
        if self._own:
            self._client.close()


class AsyncDoor(_Base):
    """The same through an `openai.AsyncOpenAI`."""

    def __init__(self, client: openai.AsyncOpenAI, *, own: bool) -> None:
        self._client, self._own = client.with_options(max_retries=0), own

    async def send(self, request: Request, timeout: float | None = None) -> Reply:  # noqa: ASYNC109 -- bounds an attempt, as in the twin
        """Send once and read the whole answer; see `Door.send`."""
        import anyio  # noqa: PLC0415 -- as openai

        allowed = request.allowed(timeout)
        try:
            with anyio.fail_after(allowed):
                return await self._send(request, allowed)
        except Exception as error:  # noqa: BLE001 -- as in the twin
            failure = self._failure(error, allowed, self._client.api_key)
        raise failure

    async def _send(self, request: Request, timeout: float) -> Reply:  # noqa: ASYNC109 -- as above
        import httpx2  # noqa: PLC0415 -- as openai

        until = time.monotonic() + timeout
        response = await self._client.post(
            request.path,
            body=dict(request.body),
            files=request.files,
            options=_options(request, timeout),
            cast_to=httpx2.Response,
        )
        try:
            body = _Body(response, request, timeout, lambda: time.monotonic() > until)
            async for chunk in response.aiter_bytes():
                body.add(chunk)
        finally:
            await response.aclose()
        return body.reply()

    async def close(self) -> None:
        """Close the connections, if they are ours."""
        if self._own:
            await self._client.close()


def new_client(api_key: str | None, base_url: str | None) -> openai.OpenAI:
    """A client of our own.

    Args:
        api_key: Key; None takes ``OPENAI_API_KEY`` from the environment.
        base_url: Root of the API; None takes ``OPENAI_BASE_URL``, or OpenAI's.

    Raises:
        ConfigError: There is no key, or it or the URL cannot be right.
    """
    import openai  # noqa: PLC0415 -- as above

    return openai.OpenAI(api_key=_checked_key(api_key), base_url=_checked_url(base_url), max_retries=0)


def new_async_client(api_key: str | None, base_url: str | None) -> openai.AsyncOpenAI:
    """A client of our own for tasks; see `new_client`."""
    import openai  # noqa: PLC0415 -- as above

    return openai.AsyncOpenAI(api_key=_checked_key(api_key), base_url=_checked_url(base_url), max_retries=0)


def _checked_key(api_key: str | None) -> str:
    key = hidden((api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")).strip())
    if not key:
        raise ConfigError(
            "there is no key: set OPENAI_API_KEY or pass api_key=, or work offline without one by passing "
            "client=voxvec.local.client(). Nothing was sent"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            "the key holds a blank, a control or a non-ASCII character, so it is not a key; nothing was sent"
        )
    return key


def _checked_url(base_url: str | None) -> str | None:
    origin_of(base_url)
    return base_url


def origin_of(base_url: str | None) -> str:
    """Which server, in one spelling: it is part of every cache key.

    Args:
        base_url: Root of the API; None takes ``OPENAI_BASE_URL`` from the environment, or OpenAI's.

    Raises:
        ConfigError: It is no HTTP address, or holds a user name.
    """
    parts = _split(base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1")
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ConfigError("the base URL must look like https://host/v1, without a user name; nothing was sent")
    port = f":{parts.port}" if parts.port not in {None, 80 if parts.scheme == "http" else 443} else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"


def _split(url: str) -> SplitResult | None:
    """The parts of a URL, or None if its brackets do not match or its port is no number."""
    try:
        parts = urlsplit(url)
        usable = parts.port != 0
    except ValueError:
        return None
    return parts if usable else None
