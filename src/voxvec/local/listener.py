"""A socket on this machine in front of a responder, for programs that make their own client.

Promises HTTP/1.1 with kept-alive connections, one thread each, silence on stderr, and that with
the end of the block nobody is answered any more: connections that clients hold are closed.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from voxvec.local.exchange import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from voxvec.local.exchange import Reply

__all__ = ["listen"]


@contextmanager
def listen(responder: Callable[[Request], Reply]) -> Generator[str]:
    """Listen on a free port of 127.0.0.1 and yield the base URL, until the block ends."""
    handler = type("Handler", (_Handler,), {"respond": staticmethod(responder)})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Keep in mind who is connected."""
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Forget who is gone."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close the door, and then every connection: a thread that waits for its next request would answer it."""
        super().server_close()
        for connection in self._connections.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: that a client hangs up is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    respond: Callable[[Request], Reply]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.respond(Request(self.command, unquote(urlsplit(self.path).path), headers, body))
        self.send_response(reply.status)
        for name, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815 -- the names http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name http.server calls
        """Say nothing on stderr."""
