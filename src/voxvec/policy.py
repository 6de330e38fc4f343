"""How often, how long, how fast: policies as values.

A policy computes waits and never waits: it knows no clock, no thread and no client, so every
rule can be read, compared, printed and tested as arithmetic. `voxvec._gate` keeps the state
that a client shares, `voxvec._run` does the waiting.
"""

from __future__ import annotations

import copy
import datetime as dt
import math
import random
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from voxvec.errors import AuthError, ConfigError, ResponseError, ServiceError, ServiceTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import tenacity

    from voxvec.errors import Billed, Kind

__all__ = ["UNKNOWN_HOST", "Budget", "Pace", "Retry", "Tries", "retry_after"]

Failure: TypeAlias = ServiceError | ResponseError

UNKNOWN_HOST = "unknown_host"
"""The ``code`` of an error for a server whose name is not known."""

_NAMELESS = 2  # how often to look a name up again; one that is not known rarely becomes so
_UNSENT = 3  # how many retries of one request that never left the budget pays; the others did no harm
_FAULTS: tuple[Kind, ...] = ("never_sent", "transient", "broken", "late")  # of the server or the way to it


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(name: str, value: float, least: float = 0.0) -> None:
    if not _is_number(value) or value < least:
        raise ConfigError(f"{name} must be a number of at least {least:g}, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many futile retries a client may make in all.

    Every retry takes tokens, every success gives some back, so a flaky service is ridden out
    and a dead one is left alone after ``tokens / retry`` requests.

    Attributes:
        tokens: What a client starts with, and the most it can hold.
        retry: Cost of asking again after a fault of the server or the connection.
        late: Cost of asking again after a time-out.
        success: What a request that succeeds at once gives back; one that needed retries gives back their cost.

    Source:
        Google, *Site Reliability Engineering* (2016), chapter 21: retries at most 10 % of requests.
    """

    tokens: float = 200
    retry: float = 10
    late: float = 20
    success: float = 1

    def __post_init__(self) -> None:
        for name in ("tokens", "retry", "late", "success"):
            _positive(f"Budget.{name}", getattr(self, name))

    def cost(self, kind: Kind) -> float:
        """Tokens that a retry after this kind of failure takes."""
        if kind == "late":
            return self.late
        return self.retry if kind in {"never_sent", "transient", "broken"} else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a client may ask, set by hand. Requests are spread evenly, because a burst is what a server counts.

    Attributes:
        requests: Most requests per minute; None for no limit.
        tokens: Most tokens per minute; None for no limit.
    """

    requests: float | None = None
    tokens: float | None = None

    def __post_init__(self) -> None:
        for name in ("requests", "tokens"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ConfigError(f"Pace.{name} must be a number above 0 or None, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When to ask again, per request, by what went wrong.

    A *call* is one request that somebody waits for (`embed_one`, a short recording); a *job* is a
    call of several requests, which is given more patience. What the whole client shares (the gate after a
    rejection, the budget) comes on top.

    Attributes:
        attempts: Requests in all for one part of a call while the server or the way to it is broken; 1 switches
            retrying off.
        job_attempts: The same in a job.
        rejections: How often "too fast" (429) is taken for an answer to one part; does not count as an attempt.
        broken: How often to ask again after a connection broke with the request sent; it may be billed twice.
        late: How often to ask again after a time-out; it may be billed twice.
        malformed: How often to ask again after an answer that breaks the contract; it was probably billed.
        first: Upper bound of the first wait [s]; it doubles from try to try, with full jitter.
        longest: Upper bound of any such wait [s].
        patience: Longest wait asked for by the server that a call obeys [s]; above it the error is raised at once.
        job_patience: The same in a job [s].
        probes: How often a server that seems dead is asked again, after 1, 2, 4 … 60 s, before a job gives up.
        budget: What all retries of the client may cost together.
    """

    attempts: int = 6
    job_attempts: int = 12
    rejections: int = 12
    broken: int = 2
    late: int = 1
    malformed: int = 1
    first: float = 0.25
    longest: float = 8.0
    patience: float = 60.0
    job_patience: float = 600.0
    probes: int = 4
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        for name in ("attempts", "job_attempts"):
            _positive(f"Retry.{name}", getattr(self, name), 1)
        for name in (
            "rejections",
            "broken",
            "late",
            "malformed",
            "first",
            "longest",
            "patience",
            "job_patience",
            "probes",
        ):
            _positive(f"Retry.{name}", getattr(self, name))

    def jitter(self, n: int, draw: Callable[[float, float], float]) -> float:
        """Wait before try ``n + 2`` [s]: uniform between 0 and ``first * 2**n``, at most ``longest``."""
        return draw(0.0, min(self.longest, self.first * 2.0 ** min(n, 64)))

    def waiting(self, tries: Tries, sleep: Callable[[float], None]) -> tenacity.Retrying:
        """The tenacity object that asks again as ``tries`` says; one use."""
        import tenacity  # noqa: PLC0415 -- costs 20 ms, and a client that is only made needs none

        return tenacity.Retrying(sleep=sleep, **_tenacity(tries))

    def awaiting(self, tries: Tries, sleep: Callable[[float], Any]) -> tenacity.AsyncRetrying:
        """The same for tasks. A new object per request: one shared by two tasks mixes up their failures."""
        import tenacity  # noqa: PLC0415 -- as above

        return tenacity.AsyncRetrying(sleep=sleep, **_tenacity(tries))


def _tenacity(tries: Tries) -> dict[str, Any]:
    import tenacity  # noqa: PLC0415 -- as above

    def wait(_: tenacity.RetryCallState) -> float:
        return tries.wait

    return {
        "retry": tenacity.retry_if_exception(tries.again),
        "wait": wait,
        "stop": tenacity.stop_never,
        "reraise": True,
    }


@dataclass(slots=True, eq=False, kw_only=True)
class Tries:
    """What one request has been through, and whether and when to ask again.

    Attributes:
        policy: The rules.
        job: Whether the request is one of several.
        spend: Asks the client's purse for the price of a retry; False means there is nothing left.
        left: Seconds until the deadline of the call [s].
        draw: Uniform random number between two bounds.
        failures: What went wrong so far, oldest first.
        wait: Seconds to wait before the next try [s].
        spent: Tokens that the retries have taken from the budget.
        maybe_billed: Failed requests that may have been billed all the same.
    """

    policy: Retry
    job: bool
    spend: Callable[[ServiceError, float], bool]
    left: Callable[[], float]
    draw: Callable[[float, float], float] = random.uniform
    failures: list[Failure] = field(default_factory=list[Failure])
    wait: float = 0.0
    spent: float = 0.0
    maybe_billed: int = 0
    _over: bool = False

    def last_word(self, why: ServiceError) -> Failure:
        """What to raise if there is no other try, because of ``why``: the last thing that really went wrong, if any."""
        if not self.failures:
            return why
        self._over = True
        last = copy.copy(self.failures[-1])
        late = isinstance(why, ServiceTimeoutError)
        because = "the deadline= of the call comes first" if late else "the client has stopped asking for a while"
        last.args = (f"{str(last).rstrip('.')}. It was not tried again: {because}",)
        return last

    def again(self, error: BaseException) -> bool:
        """Note a failure and decide; `wait` holds the pause. Whatever is not a failure of ours is final."""
        if self._over or not isinstance(error, ServiceError | ResponseError):
            return False
        self.failures.append(error)
        self.maybe_billed += error.billed != "no"
        error.attempts = len(self.failures) - self._count("breaker")
        error.maybe_billed = self.maybe_billed
        self._sum_up(error)
        return self._worth_it(error) and self._in_time(error) and self._affordable(error)

    def _sum_up(self, error: Failure) -> None:
        """Let the last error say what all tries together may have cost."""
        billed: set[Billed] = {failure.billed for failure in self.failures}
        error.billed = "yes" if "yes" in billed else "maybe" if "maybe" in billed else "no"

    def _count(self, *kinds: Kind) -> int:
        return sum(failure.kind in kinds for failure in self.failures)

    def _worth_it(self, error: Failure) -> bool:
        rule = self.policy
        attempts = rule.job_attempts if self.job else rule.attempts
        if error.should_retry is False or attempts <= 1:
            return False
        granted = error.should_retry is True and not isinstance(error, AuthError)
        limits: Mapping[Kind, float] = {
            "throttled": rule.rejections,
            "broken": rule.broken,
            "late": rule.late,
            "malformed": rule.malformed,
            "refused": 1 if granted else 0,
            "quota": 0,
            "breaker": 0,
        }
        if self._count(error.kind) > limits.get(error.kind, attempts):
            return False
        if sum(failure.code == UNKNOWN_HOST for failure in self.failures) > _NAMELESS:
            return False
        return error.kind not in _FAULTS or self._count(*_FAULTS) < attempts

    def _in_time(self, error: Failure) -> bool:
        hint = error.retry_after or 0.0
        if hint > (self.policy.job_patience if self.job else self.policy.patience):
            return False
        fault = error.kind in _FAULTS
        jitter = self.policy.jitter(self._count(*_FAULTS) - 1, self.draw) if fault else 0.0
        # A rejection is waited out at the gate, by everybody; anything else by this request alone.
        self.wait = 0.0 if error.kind == "throttled" else max(jitter, hint)
        return max(self.wait, hint) < self.left()

    def _affordable(self, error: Failure) -> bool:
        if isinstance(error, ResponseError):
            return True  # `Retry.malformed` is its only limit
        free = error.kind == "never_sent" and self._count("never_sent") > _UNSENT
        cost = 0.0 if free else self.policy.budget.cost(error.kind)
        if not self.spend(error, cost):
            return self.job  # a job goes on at the pace of single probes, a call fails
        self.spent += cost
        return True


def retry_after(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """How long the server asks to wait [s], from 0 to infinity; None if it does not say, or says nonsense.

    ``retry-after-ms`` counts before ``retry-after``, which holds seconds or a date. A date is compared with the
    answer's own ``date``, so that a wrong clock on our side does no harm, and with ``now`` where there is none;
    one that has passed says nothing.

    Source:
        RFC 9110, section 10.2.3; the header in milliseconds is OpenAI's.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    until, since = _date(text), _date(headers.get("date", "")) or now
    wait = -1.0 if until is None else (until - since).total_seconds()
    return wait if wait >= 0 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value >= 0 else None


def _date(text: str) -> dt.datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=dt.UTC)  # the form without a zone means it too
