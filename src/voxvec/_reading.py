"""How much of an answer is read, and for how long.

What a server sends is bounded in every direction before any of it is kept: the body of a success by what the request
can bring, that of a refusal by what a person would read. Both twins of the door read through this.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from voxvec._failures import Answer, from_status, late
from voxvec.errors import ResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx2

    from voxvec.errors import ServiceError

__all__ = ["ERROR_BODY", "Body", "Excerpt", "check_head", "has_surplus", "headers_of"]

ERROR_BODY = 64 * 2**10  # most of a refusal's body that is read, packed or not [bytes]
# We ask for bodies as they are; these two come unasked from some proxies, and are unpacked in small pieces.
_ENCODINGS: tuple[list[str], ...] = ([], ["gzip"], ["deflate"])


def headers_of(response: httpx2.Response) -> dict[str, str]:
    """The headers of an answer by lower-case name."""
    return {name.lower(): value for name, value in response.headers.items()}


def _encodings(headers: Mapping[str, str]) -> list[str]:
    names = [name.strip().lower() for name in headers.get("content-encoding", "").split(",")]
    return [name for name in names if name not in {"", "identity"}]


def check_head(response: httpx2.Response) -> None:
    """Refuse an answer whose body has no clear end, or would have to be unpacked in a way that nobody asked for.

    Raises:
        ResponseError: It is one of these.
    """
    headers = headers_of(response)
    encodings = _encodings(headers)
    if encodings not in _ENCODINGS:
        raise _malformed(response, f"the answer is packed in a way nobody asked for ({', '.join(encodings):.80})")
    if "transfer-encoding" in headers and "content-length" in headers:
        raise _malformed(response, "the answer says in two ways where it ends, as forged ones do")


def _malformed(response: httpx2.Response, what: str) -> ResponseError:
    return ResponseError(
        f"{what}; it was not read. It was probably billed",
        kind="malformed",
        billed="maybe",
        status=response.status_code,
        request_id=response.headers.get("x-request-id"),
    )


# Where the parser of an HTTP/1.1 connection stands below an answer, in httpx2 and httpx alike.
_PARSER = ("stream", "_stream", "_httpcore_stream", "_stream", "_connection", "_h11_state")


def has_surplus(response: httpx2.Response) -> bool:
    """Whether more was received than the answer; False where it cannot be told.

    The transport keeps such bytes and takes them for the answer to the next request on the connection: from then on
    everybody would get the answer to somebody else's question.
    """
    below: object = response
    for name in _PARSER:
        below = getattr(below, name, None)
    rest, _ = getattr(below, "trailing_data", (b"", False))
    return bool(rest)


class Body:
    """Collects the body of a success under two bounds, its size and its time.

    Args:
        response: The answer.
        largest: Most that is read [bytes].
        timeout: How long there is, for the message [s].
        is_over: Whether that time has passed.
    """

    def __init__(self, response: httpx2.Response, largest: int, timeout: float, is_over: Callable[[], bool]) -> None:
        self._response, self._largest, self._timeout, self._is_over = response, largest, timeout, is_over
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Take the next piece.

        Raises:
            ResponseError: It is too much.
            ServiceTimeoutError: It is too late.
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._largest:
            raise _malformed(
                self._response, f"the answer is larger than {self._largest} bytes, which no honest one can be"
            )
        if self._is_over():
            raise late(self._timeout)

    def content(self) -> bytes:
        """All of it."""
        return b"".join(self._chunks)


class Excerpt:
    """Collects the beginning of a refusal's body; what is wrong with the rest of it changes nothing.

    Args:
        response: The answer.
        is_over: Whether the time for it has passed.
    """

    def __init__(self, response: httpx2.Response, is_over: Callable[[], bool]) -> None:
        self._response, self._is_over = response, is_over
        self._content = b""

    @property
    def wanted(self) -> bool:
        """Whether the body can be read at all."""
        return _encodings(headers_of(self._response)) in _ENCODINGS

    def add(self, chunk: bytes) -> bool:
        """Take the next piece; whether more is wanted."""
        self._content += chunk[: ERROR_BODY - len(self._content)]
        return len(self._content) < ERROR_BODY and not self._is_over()

    def failure(self, secrets: tuple[str, ...]) -> ServiceError | TimeoutError:
        """Our error for what the server said, if it said so in time."""
        if self._is_over():
            return TimeoutError()
        response = self._response
        answer = Answer(response.status_code, headers_of(response), self._said(), response.reason_phrase)
        return from_status(answer, secrets)

    def _said(self) -> object:
        text = self._content.decode("utf-8", "replace").strip()
        try:
            said: object = json.loads(text)
        except (ValueError, RecursionError):
            return text
        # OpenAI's error object stands in an envelope, other servers' do not.
        if not isinstance(said, dict):
            return text
        fields = cast("dict[str, object]", said)
        return fields.get("error", fields)
