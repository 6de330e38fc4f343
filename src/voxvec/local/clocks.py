"""The time that a fake server lives in, and how to let it pass."""

from __future__ import annotations

import time
from typing import Final, Protocol

__all__ = ["STEADY", "Clock"]


class Clock(Protocol):
    """A steady clock; both methods are called from any thread."""

    def now(self) -> float:
        """Seconds since any moment that never changes [s]."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Return when that much time has passed [s]."""
        ...


class _Steady:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds)


STEADY: Final[Clock] = _Steady()
