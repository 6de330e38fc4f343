"""What is known about one attempt on the wire: whether it got a connection, left, and began to be answered.

A transport tells of its steps through the ``trace`` extension of a request. What they mean is sorted here, without a
clock and without a socket; where a transport tells nothing, nothing is concluded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Watch"]

_PROMPT = 1.0  # a connection that was dead before the request came says so within about a round trip [s]
_TELLING = ("auth", "cookie", "key", "secret", "token")  # in the name of a header whose value is nobody's business
_SHORT = 3  # "x" is no secret, and to hide it would hide much else [characters]


class Watch:
    """What an attempt's transport told.

    Attributes:
        host: Who was asked.
        told: Whether the transport tells anything.
        fresh: Whether a connection was made for this attempt, instead of one that was there.
        begun: Whether any of the request was handed to a connection.
        written_at: When the last of the request had been handed over, on any steady clock [s]; None if it was not.
        answered: Whether the head of an answer came.
    """

    __slots__ = ("_secrets", "_tunnel", "answered", "begun", "fresh", "host", "told", "written_at")

    def __init__(self) -> None:
        self._secrets = set[str]()
        self._forget("the server")

    def _forget(self, host: str) -> None:
        self.host = host
        self.told = self.fresh = self.begun = self.answered = self._tunnel = False
        self.written_at: float | None = None

    def begin(self, headers: Mapping[str, str], host: str) -> None:
        """Note who is asked, and what must not be shown; what was known of a sending before is forgotten."""
        self._forget(host)
        for name, value in headers.items():
            if any(word in name.lower() for word in _TELLING):
                self.hide(value)
                self.hide(value.rpartition(" ")[2])  # without "Bearer"

    def hide(self, secret: str) -> None:
        """Note what must not be shown."""
        if len(secret) > _SHORT:
            self._secrets.add(secret)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Credentials of the request, the longest first: one may be part of another."""
        return tuple(sorted(self._secrets, key=len, reverse=True))

    def note(self, step: str, info: Mapping[str, object], now: float) -> None:
        """Note a step of the transport.

        Args:
            step: Such as ``"http11.send_request_body.complete"``.
            info: What the transport says about it.
            now: Any steady clock [s].
        """
        self.told = True
        _, _, step = step.partition(".")
        if step.startswith("connect_"):
            self.fresh = True
        elif step == "send_request_headers.started":
            # A proxy is first asked for a tunnel, which is nothing of the request.
            self._tunnel = getattr(info.get("request"), "method", None) == b"CONNECT"
            self.begun = self.begun or not self._tunnel
        elif self._tunnel:
            return
        elif step == "send_request_body.complete":
            self.written_at = now
        elif step == "receive_response_headers.complete":
            self.answered = True

    @property
    def unsent(self) -> bool:
        """Whether the request certainly never left as a whole, so that nobody can have done the work."""
        return self.told and self.written_at is None

    def is_stale(self, now: float) -> bool:
        """Whether a connection that just broke had died while it lay idle, before this request came.

        Args:
            now: The clock of `note` [s].
        """
        prompt = self.written_at is None or now - self.written_at < _PROMPT
        return self.told and self.begun and not self.fresh and not self.answered and prompt
