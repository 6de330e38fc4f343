"""What can go wrong, as a tree.

::

    VoxvecError
    ├── ConfigError          the settings cannot work                 (also a ValueError)
    ├── InputError           a text cannot be sent                    (also a ValueError)
    │   └── AudioError       a recording cannot be sent
    ├── ResponseError        the server answered, and broke the contract
    ├── ServiceError         the server, or the way to it, failed
    │   ├── RateLimitError       asked too much, too fast
    │   ├── QuotaError           the account has no money left
    │   ├── AuthError            the key is missing, wrong or not allowed
    │   ├── RefusedError         the server will never accept this request
    │   ├── ServerError          the server broke
    │   ├── NetworkError         the connection broke
    │   └── ServiceTimeoutError  no complete answer in time           (also a TimeoutError)
    ├── JobError             a bulk job failed
    ├── CacheError           the cache is misconfigured
    └── MissingExtraError    an optional package is not installed     (also an ImportError)

Every error says what happened, what it cost (``billed``) and what to do. Errors carry
plain fields only, never a request, a response or a key, so they can be logged, pickled
and sent to another process.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxvec._pace import Limits
    from voxvec.embedding.vectors import Embeddings

__all__ = [
    "AudioError",
    "AuthError",
    "Billed",
    "CacheError",
    "ConfigError",
    "InputError",
    "JobError",
    "Kind",
    "MissingExtraError",
    "NetworkError",
    "QuotaError",
    "RateLimitError",
    "RefusedError",
    "ResponseError",
    "ServerError",
    "ServiceError",
    "ServiceTimeoutError",
    "VoxvecError",
    "VoxvecWarning",
    "redact",
    "shown",
]

Billed = Literal["no", "maybe", "yes"]
"""Whether the server charged for what failed."""

Kind = Literal["never_sent", "throttled", "transient", "broken", "late", "malformed", "refused", "quota", "breaker"]
"""Classes of failure; the retry policy decides by them.

``never_sent``: the request did not leave. ``throttled``: asked too fast. ``transient``: the server broke.
``broken``: the answer was cut off after the request went out. ``late``: no answer in time.
``malformed``: an answer that breaks the contract. ``refused``, ``quota``: final. ``breaker``: not even tried.
"""


_SECRETS = re.compile(
    r"""
    \b(?:sk|rk|pk|sess|key)-[A-Za-z0-9_\-]{8,}     # OpenAI's and most others' keys
    | (?<=\bBearer\ )[^\s"',;]+
    | (?<=://)[^/\s]+(?=@)                        # user and password in a URL
    | (?<=api[-_]key[=:])\s*[^\s"',;&]+
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LONGEST = 2_000


def redact(text: str, secrets: Sequence[str] = ()) -> str:
    """Make a foreign text fit to be shown: no credentials, no control characters, at most 2,000 characters.

    Args:
        text: What a server, or an exception of another library, said.
        secrets: Credentials that do not look like any; every occurrence is hidden.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[secret]")
    # Cut only now: a cut through a secret would leave a part that nothing recognises.
    return shown(_SECRETS.sub("[secret]", text), _LONGEST)


def shown(text: str, longest: int) -> str:
    """A foreign text on one line: control characters are escaped, and no more is shown than that many characters."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"


class VoxvecWarning(UserWarning):
    """Something works, but not as one might think. Each is said once per process."""


def _rebuild(cls: type[VoxvecError], message: str, fields: dict[str, Any]) -> VoxvecError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(fields)
    return error


class VoxvecError(Exception):
    """Root of every error that voxvec raises.

    Attributes:
        billed: Whether the failed request was charged: ``"no"``, ``"maybe"`` or ``"yes"``.
        positions: Positions in the caller's input that the error is about; empty when it is about none in particular.
        done: Inputs of the call that have their result, cached ones included. None outside ``embed``.
        failed: Inputs of the call that failed. None outside ``embed``.
        pending: Inputs of the call that were not tried. None outside ``embed``.
        partial: What was bought before the failure, with ``failed`` filled for the rest. Not pickled.
    """

    def __init__(self, message: str, *, billed: Billed = "no", positions: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.billed: Billed = billed
        self.positions: tuple[int, ...] = tuple(positions)
        self.done: int | None = None
        self.failed: int | None = None
        self.pending: int | None = None
        self.partial: Embeddings | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), {**self.__dict__, "partial": None})


class ConfigError(VoxvecError, ValueError):
    """The settings cannot work; nothing was sent."""


class InputError(VoxvecError, ValueError):
    """Something in the input cannot be sent; ``positions`` names it, nothing was sent."""


class AudioError(InputError):
    """A recording cannot be sent: missing, empty, damaged, of a kind the model does not take, or too large."""


class CacheError(VoxvecError):
    """The cache is misconfigured: somebody else's file, no right to use it. A merely sick cache raises nothing."""


class JobError(VoxvecError):
    """A bulk job failed as a whole."""


class MissingExtraError(VoxvecError, ImportError):
    """An optional package is needed and not installed.

    Attributes:
        extra: Name of the extra that brings it.
    """

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(f"{what} needs an optional package; install it with: pip install 'voxvec[{extra}]'")
        self.extra = extra


class _AskedError(VoxvecError):
    """What errors know that came after a request was made (or should have been)."""

    def __init__(
        self,
        message: str,
        *,
        kind: Kind,
        billed: Billed = "no",
        positions: Sequence[int] = (),
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        attempts: int = 1,
        should_retry: bool | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(redact(message), billed=billed, positions=positions)
        self.kind: Kind = kind
        self.status = status
        self.code = code
        self.request_id = None if request_id is None else shown(redact(request_id), 200)
        self.retry_after = retry_after
        self.attempts = attempts
        self.maybe_billed = int(billed != "no")
        self.should_retry = should_retry
        self.limits = limits


class ResponseError(_AskedError):
    """The server answered with success, but the answer breaks the contract.

    Nothing of it was returned or cached. It was probably billed.

    Attributes:
        kind: Always ``"malformed"``.
        status: HTTP status.
        code: The server's error code, if it sent one.
        request_id: The server's name for the request.
        retry_after: Always None.
        attempts: How many requests were made for this part of the call.
        maybe_billed: How many of them may have been billed.
        should_retry: Always None.
        limits: Always None.
    """


class ServiceError(_AskedError):
    """The server, or the way to it, failed.

    Attributes:
        kind: Class of failure, see `Kind`.
        status: HTTP status, or None if no answer came.
        code: The server's error code, such as ``"rate_limit_exceeded"``.
        request_id: The server's name for the request.
        retry_after: Seconds the server asked to wait [s], or None.
        attempts: How many requests were made for this part of the call.
        maybe_billed: How many of them may have been billed.
        should_retry: What the server itself said about trying again (``x-should-retry``), or None.
        limits: What the server said about the account's limits (``x-ratelimit-*``), or None if no answer came.
    """


class RateLimitError(ServiceError):
    """Asked too much, too fast, and waiting did not help within the allowed time."""


class QuotaError(ServiceError):
    """The account has no money left, or reached its spending limit; waiting does not help."""


class AuthError(ServiceError):
    """The key is missing, wrong, or not allowed to do this."""


class RefusedError(ServiceError):
    """The server will never accept this request, however often it is sent."""


class ServerError(ServiceError):
    """The server broke, and trying again did not help."""


class NetworkError(ServiceError):
    """The connection could not be made, or broke."""


class ServiceTimeoutError(ServiceError, TimeoutError):
    """No complete answer came in time; it may have been billed all the same."""
