"""Who may send, and when: what all requests of one client share.

A `Gate` knows no clock, no thread and no task. It is told the time, says who goes, and is told how it went; the shell
in `voxvec._run` does the waiting. So a storm of rejections can be replayed in a test within milliseconds.

The gate has three conditions. *Open*: up to ``workers`` requests are on their way; as long as nothing is known about
the server, four scouts, and the rest when one of them succeeds or is slow. *Closed*: the server asked
for patience, everybody waits. *Broken*: asking is pointless (no money, a wrong key, a dead server), so
calls fail at once. From both of the latter the way back leads through a single probe.
"""

from __future__ import annotations

import copy
import math
import random
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from voxvec._pace import Pacer
from voxvec.errors import AuthError, ResponseError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxvec._pace import Limits
    from voxvec.policy import Budget, Pace

__all__ = ["Gate", "Outcome", "Ticket"]

Outcome: TypeAlias = ServiceError | ResponseError | Literal["ok", "cancelled"]
"""How a request went: well, wrong, or nobody waits for it any more."""

_FIRST, _LONGEST = 0.5, 20.0  # bounds of the wait after a rejection that names none [s]
_FLOOR = 0.1  # least wait after a rejection that names one [s]
_DAY = 86_400.0  # longest wait that closes the gate, whatever is asked for: no limit is counted for longer [s]
_PROBES = 60.0  # longest pause between two probes of a dead server, and the pause after quota and key errors [s]
_SCOUTS = 4  # requests that may go before anything is known about the server, so that a refusal costs four and not all
_SILENCE = 0.3  # how long the others wait for news of the scouts [s]
_WRONG_KEYS = 3  # refusals of the key in a row before asking is pointless
_DEAD = frozenset({"never_sent", "transient", "broken", "late"})  # failures that say nothing but "not there"


class Ticket(NamedTuple):
    """Leave to send one request.

    Attributes:
        probe: Whether this is the one request by which a closed gate finds out how things are.
    """

    probe: bool


class Gate:
    """Admits requests; see the module's docstring.

    Args:
        workers: Most requests on their way at a time.
        pace: Limits set by hand.
        budget: What retries may cost.
        probes: How often a dead server is probed before those who would rather wait for it fail too.
        draw: Uniform random number between two bounds.
    """

    def __init__(
        self,
        workers: int,
        pace: Pace,
        budget: Budget,
        *,
        probes: int = 12,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._workers, self._budget, self._probes, self._draw = workers, budget, probes, draw
        self._pacer = Pacer(pace)
        self._purse = budget.tokens
        self._in_flight = 0
        self._known, self._began = False, math.inf
        self._closed = False
        self._not_before = self._asked_until = -math.inf
        self._probing = False
        self._rejection: ServiceError | None = None
        self._cause: ServiceError | None = None
        self._rejections = self._outages = self._wrong_keys = 0

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return self._in_flight

    @property
    def purse(self) -> float:
        """What is left for retries, in tokens of the budget."""
        return self._purse

    def admit(
        self, now: float, *, tokens: int = 0, patient: bool = True, patience: float = math.inf
    ) -> Ticket | float | ServiceError:
        """Ask to send one request.

        Args:
            now: Any steady clock [s].
            tokens: Size of the request, for the pace [tokens].
            patient: Whether the caller would rather wait for a dead server than fail.
            patience: Longest wait asked for by the server that the caller obeys [s].

        Returns:
            A ticket, to be handed back to `settle`; or the seconds to wait before asking again, infinite if
            only another request's outcome can help [s]; or why asking is pointless.
        """
        if self._closed:
            wait = math.inf if self._probing else self._not_before - now
            if wait > 0 and self._cause and not (patient and 0 < self._outages <= self._probes):
                return self._refusal(self._cause, now)
            if self._rejection and self._asked_until - now > patience:
                return self._refusal(self._rejection, now)
            if wait > 0:
                return wait
        crowded = self._crowded(now)
        if crowded > 0:
            return crowded
        wait = self._pacer.wait(now)
        if wait > 0:
            return wait
        return self._let_in(now, tokens)

    def _crowded(self, now: float) -> float:
        """How long to wait for others to come back [s]; 0 if there is room."""
        if self._in_flight >= self._workers:
            return math.inf
        if self._known or self._in_flight < _SCOUTS:
            return 0.0
        # A slow server is no reason to go on waiting.
        self._known = now >= self._began + _SILENCE
        return 0.0 if self._known else self._began + _SILENCE - now

    def _let_in(self, now: float, tokens: int) -> Ticket:
        self._pacer.take(tokens, now, alone=not self._in_flight and not self._closed)
        self._in_flight += 1
        self._began = min(self._began, now)
        ticket = Ticket(probe=self._closed)
        self._probing = self._probing or ticket.probe
        return ticket

    def _refusal(self, cause: ServiceError, now: float) -> ServiceError:
        seconds = max(0.0, self._not_before - now)
        message = (
            f"not asked, because the last answers were: {str(cause).removesuffix('.')}; "
            f"the next request is let through in {seconds:.0f} s. Nothing was sent or billed"
        )
        return type(cause)(
            message, kind="breaker", status=cause.status, code=cause.code, retry_after=seconds, attempts=0
        )

    def heard(self, said: Limits, now: float) -> None:
        """Learn how fast to ask from what an answer says, before its ticket is handed back; errors bring it along."""
        self._pacer.heard(said, self._in_flight - 1, now)

    def settle(self, ticket: Ticket, outcome: Outcome, now: float, *, spent: float = 0.0) -> None:
        """Hand a ticket back.

        Args:
            ticket: What `admit` gave.
            outcome: How it went.
            now: The same clock [s].
            spent: Tokens that this request's retries took from the budget; a success gives them back.
        """
        if isinstance(outcome, ServiceError) and outcome.limits is not None:
            self.heard(outcome.limits, now)
        self._in_flight -= 1
        if ticket.probe:
            self._probing = False
        if outcome == "cancelled" or (isinstance(outcome, ServiceError) and outcome.kind == "breaker"):
            return  # nothing was sent, so nothing is known
        if outcome == "ok":
            self._known = True
            self._purse = min(self._budget.tokens, self._purse + (spent or self._budget.success))
            self._pacer.accepted(now)
        wrong_key = isinstance(outcome, AuthError) and outcome.status == 401  # noqa: PLR2004 -- HTTP
        self._wrong_keys = self._wrong_keys + 1 if wrong_key else 0
        if isinstance(outcome, ServiceError) and outcome.kind == "throttled":
            self._reject(outcome, now, ticket)
            return
        if isinstance(outcome, ServiceError) and outcome.kind in _DEAD and outcome.retry_after is not None:
            self._hold(outcome, outcome.retry_after, now)
        if isinstance(outcome, ServiceError) and (outcome.kind == "quota" or self._wrong_keys >= _WRONG_KEYS):
            self._outages = 0
            self._break(outcome, now + _PROBES)
        elif ticket.probe:
            self._probed(outcome, now)

    def _reject(self, error: ServiceError, now: float, ticket: Ticket) -> None:
        # What was on its way when the gate closed is the same rejection once more, not a second one.
        first = not self._closed
        self._rejections += ticket.probe or first
        if ticket.probe:  # whoever rejects is alive, has money left and knows the key
            self._cause, self._outages = None, 0
        if error.retry_after is None:
            wait = self._draw(0.5, 1.0) * min(_LONGEST, _FIRST * 2.0 ** min(self._rejections - 1, 64))
            self._closed, self._rejection = True, copy.copy(error)
            self._not_before = max(self._not_before, now + wait)
        else:
            self._hold(error, error.retry_after, now)
        if first:
            self._pacer.rejected(now, self._not_before, hard=error.code == "slow_down")

    def _hold(self, error: ServiceError, hint: float, now: float) -> None:
        # A little later than asked, each time by another little, so that a fleet does not wake as one.
        hint = min(_DAY, max(_FLOOR, hint))
        self._closed, self._rejection = True, copy.copy(error)
        self._asked_until = max(self._asked_until, now + hint)
        self._not_before = max(self._not_before, now + hint + self._draw(0.0, hint / 8))

    def _break(self, cause: ServiceError, until: float) -> None:
        # A copy: the original keeps its traceback, and that the requests.
        self._closed, self._cause = True, copy.copy(cause)
        self._not_before = max(self._not_before, until)

    def _probed(self, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, ServiceError) and outcome.kind in _DEAD:
            if self._outages:
                self._outages += 1
                self._break(outcome, now + self._pause())
            else:
                self._not_before = max(self._not_before, now + self._draw(0.5, 1.0) * _FIRST)
        elif self._not_before <= now:  # else it is closed again since the probe left, and the probe is no news
            self._closed, self._cause, self._rejection = False, None, None
            self._rejections = self._outages = 0

    def _pause(self) -> float:
        return min(_PROBES, 2.0 ** min(self._outages - 1, 64))

    def spend(self, error: ServiceError, cost: float, now: float) -> bool:
        """Pay for a retry.

        Returns:
            Whether the purse could pay. If not, the server counts as dead: the gate lets one probe through after
            1, 2, 4 … 60 s.
        """
        if cost <= self._purse:
            self._purse -= cost
            return True
        if not self._outages:
            self._outages = 1
            self._break(error, now + self._pause())
        return False
