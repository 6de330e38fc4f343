"""A socket on this machine in front of a responder, for programs that make their own client.

Promises HTTP/1.1 with kept-alive connections, one thread each, silence about clients that hang up, and that with
the end of the block nobody is answered any more: connections that clients hold are closed, and threads that
wait on them end. What is to go wrong with a reply goes wrong on the wire itself.
"""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from http.client import HTTPException, parse_headers
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from voxvec.local.clocks import STEADY
from voxvec.local.course import course
from voxvec.local.exchange import Refusal, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import BinaryIO

    from voxvec.local.clocks import Clock
    from voxvec.local.course import Course

__all__ = ["Early", "listen"]

_LAST_WORDS: Final = 0.5  # how long the end of the block waits for threads [s]
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: no time to say good-bye
# Lets the last bytes and the end of the connection travel together, so that a client never has one without the other.
_MORE: Final[int] = getattr(socket, "MSG_MORE", 0)
_LONGEST_LINE: Final = 65_536


class Early(Protocol):
    """Answers some requests before their body has come."""

    def __call__(self, head: Request, /) -> Reply | None:
        """The answer; None to wait for the body."""
        ...


@contextmanager
def listen(
    responder: Callable[[Request], Reply], *, early: Early = lambda _: None, clock: Clock = STEADY
) -> Generator[str]:
    """Listen on a free port of 127.0.0.1 and yield the base URL, until the block ends.

    Args:
        responder: Any callable from `Request` to `Reply`.
        early: Asked first, with a request that has no body yet.
        clock: What lets the time of slow answers pass.
    """
    server = _Server(responder, early, clock)
    try:
        yield f"http://127.0.0.1:{server.port}/v1"
    finally:
        server.close()


class _Server:
    def __init__(self, responder: Callable[[Request], Reply], early: Early, clock: Clock) -> None:
        self._responder, self._early, self._clock = responder, early, clock
        self._door = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._door.getsockname()[1]
        self._lock, self._open = threading.Lock(), dict[socket.socket, threading.Thread]()
        self._closed = False
        self._doorman = threading.Thread(target=self._accept, name="voxvec-listener", daemon=True)
        self._doorman.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._door.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(connection,), name="voxvec-connection", daemon=True)
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._open[connection] = thread
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            _Connection(connection, self._clock).serve(self._responder, self._early)
        except (OSError, HTTPException):
            pass  # that a client hangs up is what many tests are about
        finally:
            with self._lock:
                self._open.pop(connection, None)
                connection.close()

    def close(self) -> None:
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._doorman.join()
        with self._lock:
            self._closed = True
            threads = list(self._open.values())
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + _LAST_WORDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


class _Connection:
    """One client, until one of both has enough."""

    def __init__(self, wire: socket.socket, clock: Clock) -> None:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wire, self._clock = wire, clock
        self._file: BinaryIO = wire.makefile("rb")

    def serve(self, responder: Callable[[Request], Reply], early: Early) -> None:
        with self._file:
            while self._exchange(responder, early):
                pass
            self._file.close()
            self._wire.close()

    def _exchange(self, responder: Callable[[Request], Reply], early: Early) -> bool:
        """One request and its answer; whether there may be another."""
        try:
            head = self._head()
            if head is None:
                return False
            reply = early(head)
            if reply is None:
                reply = responder(Request(head.method, head.path, head.headers, self._body(head.headers)))
        except (ValueError, HTTPException):
            reply = Refusal("This is no HTTP request.").reply()
            head = Request("GET", "/", {"connection": "close"})
        keep = head.headers.get("connection", "").lower() != "close"
        went = course(reply, keep=keep, method=head.method)
        self._send(went, reply.sent)
        return went.ending == "keep"

    # -- in

    def _head(self) -> Request | None:
        line = self._file.readline(_LONGEST_LINE)
        if not line.strip():
            return None
        method, target, _version = line.decode("latin-1").split()
        headers = {name.lower(): value for name, value in parse_headers(self._file).items()}
        return Request(method, unquote(urlsplit(target).path), headers)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            return self._exactly(int(headers.get("content-length") or 0))
        body = io.BytesIO()
        while size := int(self._file.readline(_LONGEST_LINE).partition(b";")[0], 16):
            body.write(self._exactly(size))
            self._file.readline(_LONGEST_LINE)
        while self._file.readline(_LONGEST_LINE).strip():
            pass
        return body.getvalue()

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionAbortedError("the client hung up while it was asking")
        return data

    # -- out

    def _send(self, went: Course, sent: Callable[[bool], None]) -> None:
        told = False
        try:
            if went.delay and not went.data:
                self._wait(went.delay)
            for wait, piece, last in went.pieces():
                if wait:
                    self._wait(wait)
                if last and went.ending != "hold":
                    # Before the client can know, or what it does next would seem to happen at the same time.
                    sent(went.whole)
                    told = True
                self._wire.sendall(piece, _MORE if last and went.ending == "close" else 0)
            self._end(went)
        finally:
            if not told:
                sent(False)

    def _end(self, went: Course) -> None:
        if went.ending == "reset":
            self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif went.ending == "close":
            self._wire.shutdown(socket.SHUT_WR)
        elif went.ending == "hold":
            self._listen_until_gone()
        elif went.ending == "drain":
            self._wire.shutdown(socket.SHUT_WR)
            self._listen_until_gone()

    def _wait(self, seconds: float) -> None:
        """Let time pass, but only for a client that is still there."""
        if self._clock is not STEADY:
            self._clock.sleep(seconds)
            seconds = 0.0
        until = time.monotonic() + seconds
        self._wire.settimeout(seconds)
        try:
            if not self._wire.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError("the client hung up while it waited")
            time.sleep(max(0.0, until - time.monotonic()))  # it has sent its next request already
        except (TimeoutError, BlockingIOError):
            pass
        finally:
            self._wire.settimeout(None)

    def _listen_until_gone(self) -> None:
        while self._wire.recv(65_536):
            pass
