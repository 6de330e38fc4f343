"""An `httpx2` transport that answers in process: the same client code, a different wire.

Promises that whatever the responder says arrives as if it came over a network, and that what
it raises arrives as it is: neither `httpx2` nor openai wraps what is not theirs. The work of
the async twin runs in a thread, so that it never holds up the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
from anyio import to_thread

from voxvec.local.exchange import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxvec.local.exchange import Reply

__all__ = ["AsyncLocalTransport", "LocalTransport"]


class LocalTransport(httpx2.BaseTransport):
    """Hands every request to a responder.

    Args:
        responder: Any callable from `Request` to `Reply`.
    """

    def __init__(self, responder: Callable[[Request], Reply]) -> None:
        self._responder = responder

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        return _response(self._responder(_request(request, request.read())))


class AsyncLocalTransport(httpx2.AsyncBaseTransport):
    """Does what `LocalTransport` does, for async clients."""

    def __init__(self, responder: Callable[[Request], Reply]) -> None:
        self._responder = responder

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        asked = _request(request, await request.aread())
        return _response(await to_thread.run_sync(self._responder, asked))


def _request(request: httpx2.Request, body: bytes) -> Request:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(request.method, request.url.path, headers, body)


def _response(reply: Reply) -> httpx2.Response:
    return httpx2.Response(reply.status, headers=dict(reply.headers), content=reply.body)
