"""Who asked for what, what was charged, and what went out whole; every change under one lock."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from voxvec.local.exchange import Reply

__all__ = ["Asked", "Ledger"]

_SLIP: Final = 1e-3  # a client that wakes up as late as it was told is never blamed for a rounding [s]
_ERRORS: Final = 400


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came in.

    Attributes:
        method: ``"POST"`` and the like.
        path: Path of the URL.
        endpoint: ``"embeddings"``, ``"audio/transcriptions"`` and so on; None for a path the API does not have.
        fields: JSON body, or form fields by name, each with the list of its values; empty for what is neither.
        inputs: Texts, or the digest of the recording.
        headers: By lower-case name.
        number: The how-manieth request it is, from 1.
        arrived: When it came in, on the server's clock [s].
    """

    method: str
    path: str
    endpoint: str | None
    fields: Mapping[str, Any]
    inputs: tuple[str, ...]
    headers: Mapping[str, str]
    number: int = 0
    arrived: float = 0.0

    @property
    def model(self) -> str | None:
        """Name of the model."""
        name = self.fields.get("model")
        first = cast("list[object]", name)[0] if isinstance(name, list) else name
        return first if isinstance(first, str) else None


class Ledger:
    """The books of one server; any thread may read and write them.

    Args:
        grace: How long after sending a ``Retry-After`` a request still counts as one that was under way [s].

    Attributes:
        requests: All of them, in the order they came in.
        billed: Inputs charged for.
        delivered: Inputs whose results went out whole and right.
        paid_again: Inputs charged for that had been charged for before.
        paid_again_after_delivery: Inputs charged for whose results had gone out before.
        busy: Requests being answered.
        peak: The most of them at a time.
        rejected: Requests answered with an error.
        forbidden: Requests that came in before the end of a ``Retry-After``.
    """

    def __init__(self, grace: float) -> None:
        # One thread may ask for a count while a request of its own is being written in.
        self.lock = threading.RLock()
        self.requests: list[Asked] = []
        self.billed = self.delivered = self.paid_again = self.paid_again_after_delivery = 0
        self.busy = self.peak = self.rejected = self.forbidden = 0
        self._grace = grace
        self._charged, self._known = set[tuple[str | None, str]](), set[tuple[str | None, str]]()
        self._quiet: list[tuple[float, float]] = []

    def arrive(self, asked: Asked, now: float, wanted: Callable[[Asked], bool] | None = None) -> Asked | None:
        """Give a request its number, or forget it if it is not wanted."""
        with self.lock:
            asked = replace(asked, number=len(self.requests) + 1, arrived=now)
            if wanted is not None and not wanted(asked):
                return None
            self.requests.append(asked)
            self.busy += 1
            self.peak = max(self.peak, self.busy)
            self.forbidden += any(start < now < end for start, end in self._quiet)
            return asked

    def charge(self, asked: Asked) -> None:
        """The work was done."""
        with self.lock:
            for item in asked.inputs:
                key = (asked.model, item)
                self.paid_again += key in self._charged
                self.paid_again_after_delivery += key in self._known
                self.billed += 1
                self._charged.add(key)

    def leave(self, asked: Asked, reply: Reply | None, now: float, *, delivered: bool) -> None:
        """The answer went out, or the request ended without one."""
        with self.lock:
            self.busy -= 1
            if delivered:
                self.delivered += len(asked.inputs)
                self._known.update((asked.model, item) for item in asked.inputs)
            if reply is None or reply.status < _ERRORS:
                return
            self.rejected += 1
            wait = _hint(reply.headers)
            if wait > 0:
                self._quiet = [part for part in self._quiet if part[1] > now]
                self._quiet.append((now + self._grace, now + wait - _SLIP))


def _hint(headers: Mapping[str, str]) -> float:
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        return wait if math.isfinite(wait) else 0.0
    return 0.0
