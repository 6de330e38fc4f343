"""How fast to ask: by hand, by what the server says about its limits, and by what it rejects.

A `Pacer` keeps three paces and the slowest counts. It knows no clock and never waits: it is told the time and
says how long to wait. What a server says arrives as `Limits`, read from the headers of any of its answers.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxvec.policy import Pace

__all__ = ["Bucket", "Felt", "Limit", "Limits", "Pacer", "Stated", "limits"]

_SHARE = 0.95  # of a stated limit is used
_RESERVE = 0.1  # of a stated limit that is not used up in a burst
_FILLING = (0.1, 120.0)  # times in which a limit per second or minute is made good; one per day is no pace [s]
_NEARLY = 0.999  # of a unit is taken for a whole one, since times are rounded
_SLOWER, _SLOWEST = 0.7, 0.5  # what a rejection leaves of the rate, and the lowest rate it leaves [1/s]
_FASTER = 0.05  # of the last good rate is added to it per second [1/s]
_HALF = 0.5  # what "slow_down" leaves of the rate, and what it gains of that per minute
_SEEN, _AGO = 256, 10.0  # how many successes tell the rate, and for how long [s]
_IDLE = 1.0  # a pause after which earlier successes tell nothing about the load to come [s]

_PARTS = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:d|h|ms|us|µs|ns|m|s))+", re.ASCII)
_PART = re.compile(r"([0-9.]+)([a-zµ]+)")
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_LONGEST = 64  # characters of a header that may be a number or a duration
_MOST = 1e12  # units or seconds that a server may mean


@dataclass(frozen=True, slots=True)
class Limit:
    """What an answer says about one limit.

    Attributes:
        size: Units that may be used at once after a rest.
        left: Units that may still be used at once.
        full_in: Time after which all of them may be used at once again [s]; None if the server does not say.
    """

    size: float
    left: float
    full_in: float | None = None

    @property
    def rate(self) -> float:
        """Units that are made good per second [1/s]; ``size`` per minute where the server says nothing plausible."""
        used = self.size - self.left
        if self.full_in and used > 0 and _FILLING[0] <= self.size * self.full_in / used <= _FILLING[1]:
            return used / self.full_in
        return self.size / 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer says about the limits of the account.

    Attributes:
        requests: The limit on requests, if the answer tells it.
        tokens: The limit on tokens, if the answer tells it.
    """

    requests: Limit | None = None
    tokens: Limit | None = None


def limits(headers: Mapping[str, str]) -> Limits:
    """Read what OpenAI and its likes say about limits, by lower-case name; what is no limit is passed over."""
    return Limits(_limit(headers, "requests"), _limit(headers, "tokens"))


def _limit(headers: Mapping[str, str], unit: str) -> Limit | None:
    size = _amount(headers.get(f"x-ratelimit-limit-{unit}", ""))
    left = _amount(headers.get(f"x-ratelimit-remaining-{unit}", ""))
    if size is None or size < 1 or left is None:
        return None  # Azure says -1 or 0 where there is no limit
    return Limit(size, min(left, size), _duration(headers.get(f"x-ratelimit-reset-{unit}", "")))


def _amount(text: str) -> float | None:
    try:
        value = float(text[:_LONGEST])
    except ValueError:
        return None
    return value if 0 <= value <= _MOST else None


def _duration(text: str) -> float | None:
    """Seconds, from ``6m0s``, ``1h2m3.5s``, ``12ms`` or a plain number [s]."""
    text = text.strip()[:_LONGEST].lower()
    if _PARTS.fullmatch(text):
        return min(_MOST, sum(float(amount) * _SECONDS[unit] for amount, unit in _PART.findall(text)))
    return _amount(text)


class Bucket:
    """Spreads ``rate`` units per minute evenly; the caller owns the clock and the waiting."""

    def __init__(self, rate: float) -> None:
        self._per_second, self._free_at = rate / 60.0, -math.inf

    def wait(self, now: float) -> float:
        """Seconds until the next unit may be used [s]."""
        return max(0.0, self._free_at - now)

    def take(self, units: float, now: float) -> None:
        """Use units now; whoever comes next waits for them to be made good."""
        self._free_at = max(self._free_at, now) + units / self._per_second


class Stated:
    """Keeps a limit that the server states: a burst as long as there is plenty, then 95 % of what is made good.

    It keeps its own account of what is left, which an answer can only lower: answers overtake each other, and other
    clients may use the same limit. So it rises by the passing of time alone.
    """

    def __init__(self) -> None:
        self._rate = self._left = self._most = math.inf
        self._at = -math.inf

    def heard(self, limit: Limit, uncounted: int, now: float) -> None:
        """Learn from an answer.

        Args:
            limit: What it says.
            uncounted: Units on their way, which it may not have counted.
            now: Any steady clock [s].
        """
        self._left, self._at = self._left_at(now), now
        self._rate, self._most = _SHARE * limit.rate, max(1.0, (1.0 - _RESERVE) * limit.size)
        room = limit.left - uncounted - _RESERVE * limit.size
        self._left = min(self._left, self._most, max(1.0, room))

    def wait(self, now: float) -> float:
        """Seconds until the next unit may be used [s]."""
        left = self._left_at(now)
        return 0.0 if left >= _NEARLY else (1.0 - left) / self._rate

    def take(self, now: float) -> None:
        """Use one unit now."""
        self._left, self._at = self._left_at(now) - 1.0, now

    def _left_at(self, now: float) -> float:
        if math.isinf(self._left):
            return self._left
        return min(self._most, self._left + max(0.0, now - self._at) * self._rate)


class Felt:
    """Finds a rate that the server takes without being told: slower after each rejection, then slowly faster again.

    Source:
        D. M. Chiu and R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer
        Networks" (1989): additive increase, multiplicative decrease.
    """

    def __init__(self) -> None:
        self._rate, self._gain, self._since = math.inf, 0.0, 0.0
        self._last = -math.inf
        self._answers: deque[float] = deque(maxlen=_SEEN)

    def rate(self, now: float) -> float:
        """Requests per second [1/s]; infinite until there was a rejection."""
        return self._rate + self._gain * max(0.0, now - self._since)

    def wait(self, now: float) -> float:
        """Seconds until the next request may go [s]."""
        return max(0.0, self._last + 1.0 / self.rate(now) - now)

    def take(self, now: float, *, alone: bool) -> None:
        """Note that a request goes now, and whether none else was on its way."""
        if alone and self._answers and now - self._answers[-1] > _IDLE:
            self._answers.clear()
        self._last = now

    def accepted(self, now: float) -> None:
        """Note a success."""
        self._answers.append(now)

    def rejected(self, now: float, until: float, *, hard: bool) -> None:
        """Slow down.

        Args:
            now: The same clock [s].
            until: When requests go again [s].
            hard: Whether the server asked for a lower rate in so many words.
        """
        good = min(self._measured(now), self.rate(now))
        if math.isinf(good):
            return  # nothing is known about the load that it takes; the gate alone must do
        self._rate = max(_SLOWEST, (_HALF if hard else _SLOWER) * good)
        self._gain = self._rate * _HALF / 60.0 if hard else _FASTER * good
        self._since = until

    def _measured(self, now: float) -> float:
        while self._answers and now - self._answers[0] > _AGO:
            self._answers.popleft()
        span = now - self._answers[0] if self._answers else 0.0
        return (len(self._answers) - 1) / span if span > 0 and len(self._answers) > 1 else math.inf


class Pacer:
    """All paces of one client; the slowest counts.

    Args:
        pace: Limits set by hand.
    """

    def __init__(self, pace: Pace) -> None:
        self._requests = Bucket(pace.requests) if pace.requests else None
        self._tokens = Bucket(pace.tokens) if pace.tokens else None
        self._stated, self._felt = Stated(), Felt()

    def wait(self, now: float) -> float:
        """Seconds until the next request may go [s]."""
        by_hand = (bucket.wait(now) for bucket in (self._requests, self._tokens) if bucket)
        return max(self._stated.wait(now), self._felt.wait(now), *by_hand)

    def take(self, tokens: int, now: float, *, alone: bool) -> None:
        """Note that a request goes now."""
        if self._requests:
            self._requests.take(1, now)
        if self._tokens:
            self._tokens.take(tokens, now)
        self._stated.take(now)
        self._felt.take(now, alone=alone)

    def heard(self, said: Limits, others: int, now: float) -> None:
        """Learn from what an answer says, while ``others`` are on their way."""
        if said.requests is not None:
            self._stated.heard(said.requests, others, now)

    def accepted(self, now: float) -> None:
        """Note a success."""
        self._felt.accepted(now)

    def rejected(self, now: float, until: float, *, hard: bool) -> None:
        """Slow down after a rejection that nobody foresaw; see `Felt.rejected`."""
        self._felt.rejected(now, until, hard=hard)
