"""What openai and the transport below it raise, sorted into our own errors.

Only plain values come in and go out, so that no request, no response and no key is reachable from an error.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, cast

from voxvec._pace import limits
from voxvec.errors import (
    AuthError,
    Billed,
    ConfigError,
    Kind,
    NetworkError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ResponseError,
    ServerError,
    ServiceError,
    ServiceTimeoutError,
    VoxvecError,
    redact,
)
from voxvec.policy import UNKNOWN_HOST, retry_after

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from voxvec._watch import Watch

__all__ = ["Answer", "from_status", "from_transport", "hush", "late"]

_QUOTA = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
    }
)
# How the parser of the transport puts it.
_NO_HTTP = re.compile(r"illegal (status line|header line|request line)|receive buffer too long", re.IGNORECASE)
_TRANSIENT = frozenset({408, 409, 425, 500, 502, 503, 504, 529, *range(520, 525)})
_MAYBE_THROTTLED = frozenset({503, 529})


class Answer(NamedTuple):
    """An answer that says no.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
        body: The error object, or the text where it is no JSON.
        phrase: The status in words.
    """

    status: int
    headers: Mapping[str, str]
    body: object
    phrase: str


def hush(error: ResponseError, secrets: tuple[str, ...]) -> ResponseError:
    """The error without credentials, which was made where none were known, and without frames that hold the answer."""
    error.args = (redact(str(error), secrets),)
    return error.with_traceback(None)


def late(timeout: float, watch: Watch | None = None) -> VoxvecError:
    """No complete answer in that time [s]; what it may have cost depends on how far the request got."""
    if watch is not None and watch.unsent:
        return _too_slow_to_send(timeout, watch)
    return ServiceTimeoutError(
        f"no complete answer within {timeout:g} s; the server may have done and billed the work. "
        "Give it longer with timeout= or deadline=",
        kind="late",
        billed="maybe",
    )


def _too_slow_to_send(timeout: float, watch: Watch) -> VoxvecError:
    if not watch.begun:
        return NetworkError(
            f"no connection to {watch.host} within {timeout:g} s. Nothing was sent", kind="never_sent", billed="no"
        )
    return ServiceTimeoutError(
        f"{watch.host} did not take the whole request within {timeout:g} s, so it cannot have billed it. "
        "Give it longer with timeout= or deadline=",
        kind="late",
        billed="no",
    )


def from_status(answer: Answer, secrets: tuple[str, ...] = ()) -> ServiceError:
    """Sort an HTTP error by its status, its code and its headers."""
    headers = answer.headers
    code, family = _field(answer.body, "code", secrets), _field(answer.body, "type", secrets)
    hint = retry_after(headers, dt.datetime.now(dt.UTC))
    cls, kind, billed = _sort(answer.status, code, family, hinted=hint is not None)
    reason = redact(_reason(answer.body) or answer.phrase, secrets).rstrip(". ")
    return cls(
        f"the server answered {answer.status}{f' ({code})' if code else ''}: {reason}. {_advice(answer.status, kind)}",
        kind=kind,
        billed=billed,
        status=answer.status,
        code=code,
        request_id=redact(headers.get("x-request-id", ""), secrets)[:200] or None,
        retry_after=hint,
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "").lower()),
        limits=limits(headers),
    )


_ADVICE: Mapping[Kind, str] = {
    "quota": "Waiting does not help: look at the account's billing page. This request was not billed",
    "throttled": "Slow down with pace= or workers=, or ask for higher limits. This request was not billed",
    "refused": "Sending it again would not help. It was not billed",
    "transient": "The server is at fault; try again later",
}
_REFUSED: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "Check the key (api_key, or OPENAI_API_KEY in the environment). It was not billed",
    HTTPStatus.FORBIDDEN: "The key may not do this: check its project and the region. It was not billed",
    HTTPStatus.NOT_FOUND: "Check the model's name and the base URL. It was not billed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "It is too large for this server, or a proxy in front of it: send a shorter "
    "or smaller recording, or describe the model with a smaller max_items. It was not billed",
}


def _advice(status: int, kind: Kind) -> str:
    return _REFUSED.get(status, _ADVICE[kind]) if kind == "refused" else _ADVICE[kind]


def _sort(status: int, code: str | None, kind: str | None, *, hinted: bool) -> tuple[type[ServiceError], Kind, Billed]:
    if code in _QUOTA or kind == "insufficient_quota":
        return QuotaError, "quota", "no"
    if status == HTTPStatus.TOO_MANY_REQUESTS or code == "slow_down":
        return RateLimitError, "throttled", "no"
    if status in _MAYBE_THROTTLED and hinted:
        return ServerError, "throttled", "no"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return AuthError, "refused", "no"
    if status in _TRANSIENT:
        return ServerError, "transient", "no" if status in _MAYBE_THROTTLED else "maybe"
    return RefusedError, "refused", "no"


def _field(body: object, name: str, secrets: tuple[str, ...]) -> str | None:
    value = cast("dict[str, object]", body).get(name) if isinstance(body, dict) else None
    return redact(value, secrets)[:100] if isinstance(value, str) and value else None


def _reason(body: object) -> str:
    """The server's own words, wherever it put them: OpenAI, FastAPI, llama.cpp and plain text differ."""
    if not isinstance(body, dict):
        return body if isinstance(body, str) else ""
    fields = cast("dict[str, object]", body)
    for name in ("message", "detail", "error"):
        words = fields.get(name)
        if isinstance(words, str) and words:
            return words
    return json.dumps(fields, default=str)


def from_transport(
    error: Exception, timeout: float, secrets: tuple[str, ...] = (), watch: Watch | None = None
) -> VoxvecError:
    """Sort what went wrong below HTTP, by name: openai may run on `httpx2` or on the user's older `httpx`."""
    # openai puts its own name on top of the transport's, which stands on top of a socket's: both upper ones count.
    cause = error.__cause__ or error
    names = {cls.__name__ for layer in (error, cause) for cls in type(layer).__mro__}
    words = redact(str(cause) or type(cause).__name__, secrets).rstrip(". ")
    if isinstance(error, TimeoutError):
        return late(timeout, watch)
    return (
        _untrusted(error, watch)
        or _unsent(names, words, type(cause).__name__, error)
        or _unanswered(names, words, type(cause).__name__, (timeout, watch))
    )


def _below(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it stands on."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _untrusted(error: Exception, watch: Watch | None) -> VoxvecError | None:
    """Whoever answers there cannot prove to be the server: asking again, or without a proof, would be careless."""
    # By name, as above, and because `ssl` opens sockets.
    for layer in _below(error):
        if type(layer).__name__ == "SSLCertVerificationError":
            reason = redact(str(getattr(layer, "verify_message", "") or "it does not verify")).rstrip(". ")
            return NetworkError(
                f"the certificate of {watch.host if watch else 'the server'} is not to be trusted: {reason}. "
                "If it is your own, name its issuer in SSL_CERT_FILE. Nothing was sent",
                kind="refused",
            )
    return None


def _unsent(names: set[str], words: str, kind: str, error: Exception) -> VoxvecError | None:
    if "PoolTimeout" in names:
        return ServiceTimeoutError(
            "all connections of client= stayed busy with other requests: its pool is full. Allow it more, or "
            "lower workers=. Nothing was sent",
            kind="breaker",
        )
    if names & {"ConnectError", "ConnectTimeout", "ProxyError"}:
        nameless = any(type(layer).__name__ == "gaierror" for layer in _below(error))
        return NetworkError(
            f"no connection to the server: {words}. Nothing was sent",
            kind="never_sent",
            code=UNKNOWN_HOST if nameless else None,
        )
    if names & {"LocalProtocolError", "UnsupportedProtocol", "InvalidURL"}:
        return ConfigError(
            f"the request cannot be sent as it is: {kind}. Look at the key, the headers and the base URL. "
            "Nothing was sent"
        )
    if "RuntimeError" in names and "has been closed" in words:
        return ConfigError("client= was closed; make a new one. Nothing was sent")
    return None


def _unanswered(names: set[str], words: str, kind: str, so_far: tuple[float, Watch | None]) -> VoxvecError:
    timeout, watch = so_far
    if "TimeoutException" in names:
        return late(timeout, watch)
    if "RemoteProtocolError" in names and _NO_HTTP.search(words):
        return ResponseError(
            f"what came back is not HTTP: {words}. The request may have been billed", kind="malformed", billed="maybe"
        )
    if "TransportError" in names and watch is not None and watch.unsent:
        return NetworkError(
            f"the connection broke before the request had left: {words}. It was not billed", kind="never_sent"
        )
    if "TransportError" in names:
        return NetworkError(
            f"the connection broke before the answer was complete: {words}. The request may have been billed",
            kind="broken",
            billed="maybe",
        )
    if "DecodingError" in names:
        return ResponseError(f"the answer cannot be decompressed: {words}", kind="malformed", billed="maybe")
    return ServiceError(
        f"the client raised {kind}: {words}. Whether anything was sent is unknown", kind="refused", billed="maybe"
    )
