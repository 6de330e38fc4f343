"""A reply as it goes over a wire, right or wrong: which bytes, after which waits, and how it ends.

Pure; the listener plays it on a socket, the transport in process, so both misbehave alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from voxvec.local.exchange import Reply

__all__ = ["Course", "Ending", "course"]

Ending: TypeAlias = Literal["keep", "close", "reset", "hold", "drain"]

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_BODILESS: Final = frozenset({204, 304, *range(100, 200)})


@dataclass(frozen=True, slots=True)
class Course:
    """What happens on the wire.

    Attributes:
        delay: Before the first byte [s].
        data: All bytes.
        trickle: How many of them at a time, and the pause after each portion [s].
        ending: Keep the connection for the next request, close it, reset it, hold it open without another byte,
            or close it once the client has sent what it wants to send.
        whole: Whether a client gets all that the server has to say.
    """

    delay: float
    data: bytes
    trickle: tuple[int, float] | None
    ending: Ending
    whole: bool

    def pieces(self) -> Iterator[tuple[float, bytes, bool]]:
        """Seconds to wait, bytes to send then, and whether they are the last."""
        size, pause = self.trickle or (len(self.data), 0.0)
        wait = self.delay
        for at in range(0, len(self.data), max(1, size)):
            yield wait, self.data[at : at + size], at + size >= len(self.data)
            wait = pause


def course(reply: Reply, *, keep: bool = True, method: str = "POST") -> Course:
    """How a reply goes out.

    Args:
        reply: With its fault, if there is one.
        keep: Whether the client wants the connection kept after an honest answer.
        method: Of the request; the answer to HEAD has no body.
    """
    kept: Ending = "keep" if keep else "close"
    fault = reply.fault
    if fault is None:
        return Course(0.0, _message(reply, method=method), None, kept, whole=True)
    if fault.close:
        kept = "close"
    if fault.before_body:
        kept = "drain"
    if fault.silent:
        return Course(fault.delay, b"", None, "hold", whole=False)
    if fault.raw is not None:
        return Course(fault.delay, fault.raw, fault.trickle, "drain" if fault.before_body else "close", whole=False)
    head = b"".join(map(_interim, fault.interim)) + _head(reply, more=fault.content_length or 0)
    body = b"" if method == "HEAD" else reply.body
    ending, whole = kept, True
    if fault.cut is not None:
        body = body[: _up_to(fault.cut, len(body))]
        ending, whole = "close", False
    elif fault.reset is not None:
        head, body = {
            "before": (b"", b""),
            "headers": (head[: len(head) // 2], b""),
            "body": (head, body[: len(body) // 2]),
        }[fault.reset]
        ending, whole = "reset", False
    elif fault.content_length is not None:
        ending, whole = "hold" if fault.content_length > 0 and kept == "keep" else kept, False
    return Course(fault.delay, head + body, fault.trickle, ending, whole)


def _up_to(cut: int, size: int) -> int:
    # A body that is shorter than the cut still breaks off: a fault that was ordered happens.
    return max(0, min(cut if cut >= 0 else size + cut, size - 1))


def _message(reply: Reply, *, method: str) -> bytes:
    return _head(reply) + (b"" if method == "HEAD" or reply.status in _BODILESS else reply.body)


def _head(reply: Reply, *, more: int = 0) -> bytes:
    headers: Mapping[str, str] = reply.headers
    if reply.status not in _BODILESS and not {"content-length", "transfer-encoding"} & headers.keys():
        headers = {**headers, "content-length": f"{max(0, len(reply.body) + more)}"}
    lines = [_status_line(reply.status), *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1", "replace")


def _interim(status: int) -> bytes:
    return f"{_status_line(status)}\r\n\r\n".encode("ascii")


def _status_line(status: int) -> str:
    phrase = _PHRASES.get(status, "Unknown")
    return f"HTTP/1.1 {status} {phrase}"
