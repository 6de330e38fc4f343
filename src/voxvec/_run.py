"""Where the package waits: threads and tasks that send side by side under one gate.

A *lane* is what all calls of one client share: the gate, and which texts are being bought at this moment. `Lane` serves
threads, `AsyncLane` the tasks of one event loop; both do the same things in the same order, and all
decisions are taken elsewhere, in `voxvec.policy` and `voxvec._gate`.

The file is long because both twins stand in it, one below the other, so that they can be read side by side.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from voxvec._flights import Claim, Flights
from voxvec._gate import Gate, Outcome, Ticket
from voxvec._pace import limits
from voxvec._threads import Apart, in_thread
from voxvec.errors import ResponseError, ServiceError, ServiceTimeoutError
from voxvec.policy import Tries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence

    import anyio

    from voxvec.errors import VoxvecError
    from voxvec.policy import Pace, Retry

__all__ = ["Asked", "AsyncLane", "Call", "Clock", "Lane", "StoppedError"]

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 -- an item of work
R = TypeVar("R")


_MOMENT = 0.1  # longest wait of a caller who pressed Ctrl-C for a cache that is being written [s]


class Clock:
    """The time and how to let it pass; tests bring one in which waiting takes no time."""

    def now(self) -> float:
        """Seconds on a steady clock that wall-clock changes do not move [s]."""
        return time.monotonic()

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        """Give up the lock until something changed, or the time is over [s]."""
        changed.wait(None if math.isinf(seconds) else seconds)

    async def await_(self, changed: anyio.Event, seconds: float) -> None:
        """The same for a task."""
        import anyio  # noqa: PLC0415 -- comes with openai, and a client that is only made needs none

        with anyio.move_on_after(None if math.isinf(seconds) else seconds):
            await changed.wait()


class StoppedError(Exception):
    """Another part of the same call failed for good, or nobody wants its result; this part is not sent any more.

    Attributes:
        attempts: Requests made for this part before.
        maybe_billed: How many of them may have been billed.
    """

    def __init__(self, attempts: int = 0, maybe_billed: int = 0) -> None:
        super().__init__(attempts, maybe_billed)
        self.attempts, self.maybe_billed = attempts, maybe_billed


@dataclass(slots=True, eq=False)
class Call:
    """One call of the user: several requests that succeed or stop together.

    Attributes:
        patient: Whether it is a job, which would rather wait for a dead server than fail.
        until: When it must be over, on the lane's clock [s].
        stopped: Whether nothing more is to be sent.
    """

    patient: bool = False
    until: float = math.inf
    stopped: bool = False


class Asked(NamedTuple, Generic[T]):
    """An answer and what it took.

    Attributes:
        value: The answer, read and checked.
        attempts: Requests made for it.
        maybe_billed: How many of the failed ones may have been billed.
    """

    value: T
    attempts: int
    maybe_billed: int


class _Shared:
    """What both lanes do alike."""

    def __init__(self, retry: Retry, pace: Pace, workers: int, clock: Clock | None = None) -> None:
        self.workers = workers
        self.clock = clock or Clock()
        self._retry = retry
        self._gate = Gate(workers, pace, retry.budget, probes=retry.probes)
        self._flights = Flights()

    def call(self, deadline: float | None, *, patient: bool = False) -> Call:
        """Begin a call that must be over within ``deadline`` seconds [s]."""
        return Call(patient=patient, until=math.inf if deadline is None else self.clock.now() + deadline)

    def _spend(self, error: ServiceError, cost: float) -> bool:
        return self._gate.spend(error, cost, self.clock.now())

    def _tries(self, call: Call) -> Tries:
        return Tries(policy=self._retry, job=call.patient, spend=self._spend, left=lambda: self._time(call))

    def _time(self, call: Call) -> float:
        return call.until - self.clock.now()

    def _knock(self, call: Call, tokens: int) -> Ticket | float:
        """A ticket, or how long to wait for a change [s]."""
        if call.stopped:
            raise StoppedError
        left = self._left(call)
        patience = self._retry.job_patience if call.patient else self._retry.patience
        answer = self._gate.admit(self.clock.now(), tokens=tokens, patient=call.patient, patience=patience)
        if isinstance(answer, ServiceError):
            raise answer
        if isinstance(answer, Ticket):
            return answer
        # No wait is begun that would end after the deadline, unless other requests may end it sooner.
        if left <= answer < math.inf:
            raise _too_late()
        return min(answer, left)

    def _left(self, call: Call) -> float:
        left = self._time(call)
        if left <= 0:
            raise _too_late()
        return left


def _too_late() -> ServiceTimeoutError:
    return ServiceTimeoutError(
        "the deadline= of the call comes before its turn to send; this request was not sent and not billed",
        kind="breaker",
        attempts=0,
    )


class _Rest(Generic[I]):
    """What is left to do of a call."""

    def __init__(self, call: Call, items: Iterable[I]) -> None:
        self._call, self._items = call, deque(items)
        self.lock = threading.Lock()

    def next(self, begin: Callable[[I], None]) -> I | None:
        """The next item, which ``begin`` is told of before anybody can stop the call; None if there is none."""
        with self.lock:
            if self._call.stopped or not self._items:
                return None
            item = self._items.popleft()
            begin(item)
            return item

    def stop(self) -> None:
        """Let nothing more begin; an answer that is being put away has a moment for it."""
        held = self.lock.acquire(timeout=_MOMENT)
        self._call.stopped = True
        if held:
            self.lock.release()

    def replace(self, instead: Sequence[I] | None) -> None:
        """Put these in the place of one that failed; None stops the call."""
        if instead is None:
            self._call.stopped = True
        else:
            self._items.extendleft(reversed(instead))


class Lane(_Shared):
    """What all calls of a client share, for threads.

    Args:
        retry: When to ask again.
        pace: Limits set by hand.
        workers: Most requests on their way at a time.
        clock: The time; for tests.
    """

    def __init__(self, retry: Retry, pace: Pace, workers: int, clock: Clock | None = None) -> None:
        super().__init__(retry, pace, workers, clock)
        self._changed = threading.Condition()

    def ask(self, call: Call, send: Callable[[float], T], *, tokens: int = 0) -> Asked[T]:
        """Make one request, again and again as the policy says.

        Args:
            call: What it belongs to.
            send: Sends and checks; told how much time is left [s].
            tokens: Size of the request, for the pace [tokens].
        """
        tries = self._tries(call)

        def attempt() -> T:
            try:
                ticket = self._enter(call, tokens)
            except ServiceError as error:
                raise tries.last_word(error) from None
            except StoppedError:
                raise StoppedError(len(tries.failures), tries.maybe_billed) from None
            outcome: Outcome = "cancelled"
            try:
                value = send(self._time(call))
                outcome = "ok"
            except (ServiceError, ResponseError) as error:
                outcome = error
                raise
            finally:
                self._leave(ticket, outcome, tries.spent)
            return value

        value = self._retry.waiting(tries, partial(self._pause, call))(attempt)
        return Asked(value, len(tries.failures) + 1, tries.maybe_billed)

    def _enter(self, call: Call, tokens: int) -> Ticket:
        with self._changed:
            while True:
                answer = self._knock(call, tokens)
                if isinstance(answer, Ticket):
                    return answer
                self.clock.wait(self._changed, answer)

    def _leave(self, ticket: Ticket, outcome: Outcome, spent: float) -> None:
        with self._changed:
            self._gate.settle(ticket, outcome, self.clock.now(), spent=spent)
            self._changed.notify_all()

    def _spend(self, error: ServiceError, cost: float) -> bool:
        with self._changed:
            return super()._spend(error, cost)

    def heard(self, headers: Mapping[str, str]) -> None:
        """Learn how fast to ask from the headers of a good answer, by lower-case name; a bad one's are on its error."""
        said = limits(headers)
        with self._changed:
            self._gate.heard(said, self.clock.now())

    def _pause(self, call: Call, seconds: float) -> None:
        """Let time pass before the next try, unless the call is stopped."""
        until = self.clock.now() + seconds
        with self._changed:
            while not call.stopped and (rest := until - self.clock.now()) > 0:
                self.clock.wait(self._changed, rest)

    def look_again(self, call: Call, seconds: float) -> None:
        """Let others get on with what this call waits for [s]."""
        self._pause(call, min(seconds, self._left(call)))
        if call.stopped:
            raise StoppedError

    def send_all(
        self,
        call: Call,
        items: Sequence[I],
        work: Callable[[I], R],
        *,
        take: Callable[[I, R], None],
        fail: Callable[[I, Exception], Sequence[I] | None],
        begin: Callable[[I], None],
    ) -> None:
        """Work on all items side by side.

        Args:
            call: What they belong to.
            items: What to work on, in this order.
            work: Sends one; called from several threads.
            take: Keeps its result before its thread goes on; one at a time.
            fail: Notes a failure; returns what to work on instead, perhaps nothing, or None to stop.
            begin: Told of an item that will be finished even if the caller is interrupted.
        """
        rest = _Rest(call, items)

        def crew() -> None:
            while (item := rest.next(begin)) is not None:
                try:
                    result = work(item)
                    with rest.lock:
                        take(item, result)
                except Exception as error:  # noqa: BLE001 -- handed to the caller, who raises it
                    with rest.lock:
                        rest.replace(fail(item, error))
                    self._wake()

        # A single item has a thread too: on Ctrl-C its answer is kept like any other.
        try:
            for future in [in_thread(crew) for _ in range(min(self.workers, len(items)))]:
                future.result()
        except BaseException:  # Ctrl-C: what is on its way is still kept, nothing more is sent
            rest.stop()
            self._wake()
            raise

    def stop(self, call: Call) -> None:
        """Send nothing more for a call whose result nobody wants."""
        call.stopped = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def claim(self, names: Iterable[bytes], lot: int = 0) -> Generator[Claim]:
        """Take on what nobody is buying; on leaving, give up what has not landed."""
        with self._changed:
            claim = self._flights.claim(names, lot)
        try:
            yield claim
        finally:
            self.land(claim, dict.fromkeys(claim.rest()))

    def land(self, claim: Claim, rows: Mapping[bytes, bytes | None], error: VoxvecError | None = None) -> None:
        """Hand rows to whoever waits for them.

        Args:
            claim: Of the call that bought them.
            rows: By name; None means that there is none.
            error: Why not, if everybody would be told the same; else whoever waits looks after themselves.
        """
        with self._changed:
            self._flights.land(claim, rows, error)
            self._changed.notify_all()

    def wait_for(self, call: Call, claim: Claim) -> dict[bytes, bytes]:
        """Wait until nothing of theirs is in the air, and return what landed."""
        with self._changed:
            while not claim.landed():
                self.clock.wait(self._changed, self._left(call))
        return claim.rows()


class AsyncLane(_Shared):
    """What all calls of a client share, for the tasks of one event loop; see `Lane`."""

    def __init__(self, retry: Retry, pace: Pace, workers: int, clock: Clock | None = None) -> None:
        super().__init__(retry, pace, workers, clock)
        self._waiting: set[anyio.Event] = set()

    async def ask(self, call: Call, send: Callable[[float], Awaitable[T]], *, tokens: int = 0) -> Asked[T]:
        """Make one request, again and again as the policy says; see `Lane.ask`."""
        tries = self._tries(call)

        async def attempt() -> T:
            try:
                ticket = await self._enter(call, tokens)
            except ServiceError as error:
                raise tries.last_word(error) from None
            except StoppedError:
                raise StoppedError(len(tries.failures), tries.maybe_billed) from None
            outcome: Outcome = "cancelled"
            try:
                value = await send(self._time(call))
                outcome = "ok"
            except (ServiceError, ResponseError) as error:
                outcome = error
                raise
            finally:
                self._gate.settle(ticket, outcome, self.clock.now(), spent=tries.spent)
                self._wake()
            return value

        value: T = await self._retry.awaiting(tries, partial(self._pause, call))(attempt)
        return Asked(value, len(tries.failures) + 1, tries.maybe_billed)

    def heard(self, headers: Mapping[str, str]) -> None:
        """Learn how fast to ask from the headers of an answer; see `Lane.heard`."""
        self._gate.heard(limits(headers), self.clock.now())

    async def _enter(self, call: Call, tokens: int) -> Ticket:
        while True:
            answer = self._knock(call, tokens)
            if isinstance(answer, Ticket):
                return answer
            await self._news(answer)

    async def _news(self, seconds: float) -> None:
        import anyio  # noqa: PLC0415 -- as above

        event = anyio.Event()
        self._waiting.add(event)
        try:
            await self.clock.await_(event, seconds)
        finally:
            self._waiting.discard(event)

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def _pause(self, call: Call, seconds: float) -> None:
        until = self.clock.now() + seconds
        while not call.stopped and (rest := until - self.clock.now()) > 0:
            await self._news(rest)

    async def look_again(self, call: Call, seconds: float) -> None:
        """Let others get on with what this call waits for [s]."""
        await self._pause(call, min(seconds, self._left(call)))
        if call.stopped:
            raise StoppedError

    async def send_all(
        self,
        call: Call,
        items: Sequence[I],
        work: Callable[[I], Awaitable[R]],
        *,
        take: Callable[[I, R], Awaitable[None]],
        fail: Callable[[I, Exception], Sequence[I] | None],
        begin: Callable[[I], None],
        lost: Callable[[I], None],
        worth: Callable[[], bool],
    ) -> None:
        """Work on all items side by side; see `Lane.send_all`.

        Args:
            call: What they belong to.
            items: What to work on, in this order.
            work: Sends one.
            take: Keeps its result; one at a time.
            fail: Notes a failure; as in `Lane.send_all`.
            begin: Told of an item that is worked on.
            lost: Told of such an item that will not be finished.
            worth: Whether what is on its way is to be finished and kept although the caller was cancelled.
        """
        import anyio  # noqa: PLC0415 -- as above

        rest, one_at_a_time = _Rest(call, items), anyio.Lock()

        async def crew() -> None:
            while (item := rest.next(begin)) is not None:
                try:
                    result = await work(item)
                    with self.kept():
                        async with one_at_a_time:
                            await take(item, result)
                except Exception as error:  # noqa: BLE001 -- handed to the caller, who raises it
                    rest.replace(fail(item, error))
                    self._wake()
                except BaseException:
                    lost(item)
                    raise

        crews = [Apart(crew) for _ in range(min(self.workers, len(items)))]
        try:
            for each in crews:
                await each.result()
        except BaseException:  # cancelled: nothing more is sent
            self.stop(call)
            if not worth():
                for each in crews:
                    await each.end()
            raise

    def stop(self, call: Call) -> None:
        """Send nothing more for a call whose result nobody wants."""
        call.stopped = True
        self._wake()

    @contextmanager
    def kept(self) -> Generator[None]:
        """While something that is paid for is put away, a cancellation waits."""
        import anyio  # noqa: PLC0415 -- as above

        with anyio.CancelScope(shield=True):
            yield

    @contextmanager
    def claim(self, names: Iterable[bytes], lot: int = 0) -> Generator[Claim]:
        """Take on what nobody is buying; see `Lane.claim`."""
        claim = self._flights.claim(names, lot)
        try:
            yield claim
        finally:
            self.land(claim, dict.fromkeys(claim.rest()))

    def land(self, claim: Claim, rows: Mapping[bytes, bytes | None], error: VoxvecError | None = None) -> None:
        """Hand rows to whoever waits for them; see `Lane.land`."""
        self._flights.land(claim, rows, error)
        self._wake()

    async def wait_for(self, call: Call, claim: Claim) -> dict[bytes, bytes]:
        """Wait until nothing of theirs is in the air, and return what landed."""
        while not claim.landed():
            await self._news(self._left(call))
        return claim.rows()
