"""What a server lets through per minute, counted in buckets that refill all the time.

Pure arithmetic under a lock; the caller owns the clock.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voxvec.local import orders
from voxvec.local.exchange import Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Bucket", "Buckets", "Limits", "duration"]

_SHORT: Final = {"requests": "RPM", "tokens": "TPM"}
_HAIR: Final = 1e-9  # of a unit: what adding up fractions may lose


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a fake server takes before it answers 429.

    A bucket holds ``burst`` seconds' worth, starts full and refills all the time. What it holds, what is left and
    when it is full again stand in the ``x-ratelimit-*`` headers of every answer.

    Attributes:
        requests: Requests per minute; None for no limit.
        tokens: Tokens per minute, as the server counts those of texts; None for no limit.
        burst: Size of a bucket, in seconds of its rate [s]; a minute of it is OpenAI's.

    Raises:
        TypeError: One of them is no number.
        ValueError: One of them is not above 0.
    """

    requests: float | None = None
    tokens: float | None = None
    burst: float = 60.0

    def __post_init__(self) -> None:
        for name in ("requests", "tokens"):
            orders.check_rate(getattr(self, name), f"Limits.{name}")
        orders.check_rate(self.burst, "Limits.burst", optional=False)

    def buckets(self) -> Buckets:
        """These limits with nothing taken yet."""
        rates = {"requests": self.requests, "tokens": self.tokens}
        return Buckets(
            {name: Bucket(rate / 60.0, self.burst * rate / 60.0) for name, rate in rates.items() if rate is not None}
        )


class Bucket:
    """Holds up to ``size`` units, at least one, and gains ``rate`` of them a second.

    Args:
        rate: Units a second.
        size: The most it holds, and what it starts with.
    """

    def __init__(self, rate: float, size: float) -> None:
        self.rate, self.size = rate, max(1.0, size)
        self._level, self._at = self.size, -math.inf

    def level(self, now: float) -> float:
        """What it holds at a time."""
        gained = (now - self._at) * self.rate if self._at > -math.inf else 0.0
        return min(self.size, self._level + max(0.0, gained))

    def wait(self, cost: float, now: float) -> float:
        """How long until it holds that much [s]; infinite if it never does."""
        if cost > self.size:
            return math.inf
        missing = cost - self.level(now)
        return missing / self.rate if missing > _HAIR else 0.0

    def take(self, cost: float, now: float) -> None:
        """Take out what it holds."""
        self._level, self._at = max(0.0, self.level(now) - cost), now

    def full(self, now: float) -> float:
        """How long until it is full [s]."""
        return (self.size - self.level(now)) / self.rate


class Buckets:
    """The buckets of one server, by name; any thread may take out of them.

    Attributes:
        of_tokens: Whether tokens are limited.
    """

    def __init__(self, buckets: Mapping[str, Bucket]) -> None:
        self.of_tokens = "tokens" in buckets
        self._buckets, self._lock = buckets, threading.Lock()

    def take(self, tokens: float, now: float) -> tuple[Reply | None, dict[str, str]]:
        """Take one request with some tokens, or nothing at all.

        Returns:
            The refusal, if there is not enough, and the headers that tell how much is left.
        """
        costs = {"requests": 1.0, "tokens": tokens}
        with self._lock:
            waits = {name: bucket.wait(costs[name], now) for name, bucket in self._buckets.items()}
            scarce = max(waits, key=waits.__getitem__, default=None)
            if scarce is None or waits[scarce] == 0:
                for name, bucket in self._buckets.items():
                    bucket.take(costs[name], now)
                return None, self._headers(now)
            headers = self._headers(now)
            refusal = _refusal(scarce, waits[scarce], self._buckets[scarce], costs[scarce])
            return Reply(refusal.status, {**refusal.headers, **headers}, refusal.body), headers

    def _headers(self, now: float) -> dict[str, str]:
        headers: dict[str, str] = {}
        for name, bucket in self._buckets.items():
            headers[f"x-ratelimit-limit-{name}"] = f"{math.floor(bucket.size)}"
            headers[f"x-ratelimit-remaining-{name}"] = f"{math.floor(bucket.level(now) + _HAIR)}"
            headers[f"x-ratelimit-reset-{name}"] = duration(bucket.full(now))
        return headers


def _refusal(name: str, wait: float, bucket: Bucket, cost: float) -> Reply:
    what = f"on {name} per min ({_SHORT[name]}): Limit {bucket.rate * 60:g}"
    if math.isinf(wait):
        message = f"Request too large {what}, Requested {cost:g}. The input must be reduced in order to run."
    else:
        message = f"Rate limit reached {what}, Requested {cost:g}. Please try again in {duration(wait)}."
    error = {"message": message, "type": name, "param": None, "code": "rate_limit_exceeded"}
    reply = json_reply({"error": error}, status=429)
    if math.isinf(wait):
        return reply
    hints = {"retry-after-ms": f"{math.ceil(wait * 1000)}", "retry-after": f"{math.ceil(wait)}"}
    return Reply(reply.status, {**reply.headers, **hints}, reply.body)


def duration(seconds: float) -> str:
    """A length of time as OpenAI writes it: ``"6m0s"``, ``"1.5s"``, ``"12ms"``; rounded up to milliseconds.

    Examples:
        >>> [duration(seconds) for seconds in (0, 0.012, 1.5, 360, 3723.5)]
        ['0s', '12ms', '1.5s', '6m0s', '1h2m3.5s']

    Source:
        https://platform.openai.com/docs/guides/rate-limits, the headers' examples.
    """
    thousandths = math.ceil(round(seconds * 1000, 6))
    if 0 < thousandths < 1000:  # noqa: PLR2004 -- a second
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths, 60_000)
    hours, minute = divmod(minutes, 60)
    second = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{f'{hours}h' if hours else ''}{f'{minute}m' if minutes else ''}{second}s"
