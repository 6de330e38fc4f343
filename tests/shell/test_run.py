import asyncio
import contextvars
import math
import random
import threading
from contextlib import ExitStack, suppress

import anyio
import pytest

from voxvec._run import AsyncLane, Call, Clock, Lane, StoppedError
from voxvec._threads import PerLoop, aside, in_order, in_thread, in_turn
from voxvec.errors import (
    AuthError,
    NetworkError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ServerError,
    ServiceTimeoutError,
)
from voxvec.policy import Budget, Pace, Retry

PATIENCE = 5.0  # longest time that a test waits for another thread before it fails [s]


class VirtualClock(Clock):
    """Time in which waiting takes next to none; whatever happens meanwhile still wakes the waiter."""

    def __init__(self):
        self.seconds, self.waits, self._lock = 1_000.0, [], threading.Lock()

    def now(self):
        return self.seconds

    def _pass(self, start, seconds):
        with self._lock:
            self.waits.append(seconds)
            self.seconds = max(self.seconds, start + seconds)

    def wait(self, changed, seconds):
        start = self.seconds
        if not changed.wait(PATIENCE if math.isinf(seconds) else 0.002):
            assert math.isfinite(seconds), "nobody woke the waiter"
            self._pass(start, seconds)

    async def await_(self, changed, seconds):
        start = self.seconds
        with anyio.move_on_after(PATIENCE if math.isinf(seconds) else 0.002):
            await changed.wait()
            return
        assert math.isfinite(seconds), "nobody woke the waiter"
        self._pass(start, seconds)


def verdict(fail, skipped):
    """The lane's question "what instead?" put to a test's "go on?"; parts that were stopped are noted by themselves."""

    def instead(item, error):
        if isinstance(error, StoppedError):
            skipped.append(error)
            return None
        return [] if fail(item, error) else None

    return instead


# What `AsyncLane.send_all` is told besides.
ROUTINE = {"begin": lambda item: None, "lost": lambda item: None, "worth": lambda: False}


class Threads:
    """A `Lane` and how to use it from a test."""

    def __init__(self, retry=Retry(), pace=Pace(), workers=4):  # noqa: B008 -- frozen
        self.clock, self.skipped = VirtualClock(), []
        self.lane = Lane(retry, pace, workers, self.clock)

    def ask(self, call, send, **more):
        return self.lane.ask(call, send, **more)

    def send_all(self, call, items, send, take, fail):
        def work(item):
            return self.lane.ask(call, lambda left: send(item)).value

        fail = verdict(fail, self.skipped)
        self.lane.send_all(call, list(items), work, take=take, fail=fail, begin=lambda item: None)

    def wait_for(self, call, claim):
        return self.lane.wait_for(call, claim)


class Tasks:
    """The same for an `AsyncLane`."""

    def __init__(self, retry=Retry(), pace=Pace(), workers=4):  # noqa: B008 -- frozen
        self.clock, self.skipped = VirtualClock(), []
        self.lane = AsyncLane(retry, pace, workers, self.clock)

    def ask(self, call, send, **more):
        async def asend(left):
            await anyio.lowlevel.checkpoint()
            return send(left)

        async def main():
            return await self.lane.ask(call, asend, **more)

        return anyio.run(main)

    def send_all(self, call, items, send, take, fail):
        async def work(item):
            async def asend(left):
                await anyio.lowlevel.checkpoint()
                return send(item)

            return (await self.lane.ask(call, asend)).value

        async def atake(item, result):
            await anyio.lowlevel.checkpoint()
            take(item, result)

        async def main():
            await self.lane.send_all(call, list(items), work, take=atake, fail=verdict(fail, self.skipped), **ROUTINE)

        anyio.run(main)

    def wait_for(self, call, claim):
        async def main():
            return await self.lane.wait_for(call, claim)

        return anyio.run(main)


@pytest.fixture(params=[Threads, Tasks], ids=["sync", "async"])
def twin(request):
    return request.param


def script(*outcomes):
    """A send that does one thing after another, and then answers."""
    left_of, outcomes = [], list(outcomes)

    def send(left):
        left_of.append(left)
        if outcomes:
            raise outcomes.pop(0)
        return "answer"

    send.left_of = left_of
    return send


def broken():
    return ServerError("broke", kind="transient", status=500, billed="maybe")


def throttled(hint=None):
    return RateLimitError("too fast", kind="throttled", status=429, retry_after=hint)


def at_rest(side):
    return side.lane._gate.in_flight == 0 and not getattr(side.lane, "_waiting", ())


# --- one request


def test_an_answer_says_how_many_requests_it_took(twin):
    side = twin()

    asked = side.ask(Call(), script(broken(), throttled(2.0), broken()))

    assert (asked.value, asked.attempts, asked.maybe_billed) == ("answer", 4, 2)
    assert side.clock.now() >= 1_002.0
    assert at_rest(side)


def test_a_fault_that_stays_is_raised_as_itself_with_what_it_took(twin):
    side, errors = twin(Retry(attempts=3)), [broken(), broken(), broken()]

    with pytest.raises(ServerError) as caught:
        side.ask(Call(), script(*errors))

    assert caught.value is errors[-1]
    assert (caught.value.attempts, caught.value.billed) == (3, "maybe")
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert at_rest(side)


@pytest.mark.parametrize("error", [ValueError("theirs"), MemoryError(), OSError("disk")], ids=repr)
def test_what_is_no_failure_of_the_service_passes_through_and_frees_the_place(twin, error):
    side = twin(workers=1)

    with pytest.raises(type(error)) as caught:
        side.ask(Call(), script(error))

    assert caught.value is error
    assert at_rest(side)


def test_ctrl_c_passes_through_and_frees_the_place():
    side = Threads(workers=1)

    with pytest.raises(KeyboardInterrupt):
        side.ask(Call(), script(KeyboardInterrupt()))

    assert at_rest(side)


def test_a_request_knows_how_much_time_the_call_has_left(twin):
    side, send = twin(), script(throttled(4.0))

    side.ask(side.lane.call(10.0), send)

    assert send.left_of[0] == 10.0
    assert 5.0 < send.left_of[1] <= 6.0


def test_without_a_deadline_there_is_no_end(twin):
    side, send = twin(), script()

    side.ask(side.lane.call(None), send)

    assert send.left_of == [math.inf]


def test_a_deadline_that_has_passed_stops_a_request_before_it_is_sent(twin):
    side, send = twin(), script()
    call = side.lane.call(1.0)
    side.clock.seconds += 1.0

    with pytest.raises(ServiceTimeoutError) as caught:
        side.ask(call, send)

    assert (caught.value.billed, caught.value.attempts, caught.value.kind) == ("no", 0, "breaker")
    assert send.left_of == []
    assert at_rest(side)


def test_no_wait_at_the_gate_is_begun_that_would_pass_the_deadline(twin):
    side = twin(pace=Pace(requests=6))
    side.ask(Call(), script())
    call, send = side.lane.call(9.0), script()

    with pytest.raises(ServiceTimeoutError) as caught:
        side.ask(call, send)

    assert send.left_of == side.clock.waits == []
    assert caught.value.attempts == 0
    assert side.lane._gate.purse == Budget().tokens


def test_a_rejection_that_asks_for_more_than_is_left_is_raised_as_itself(twin):
    side, error = twin(), throttled(5.0)

    with pytest.raises(RateLimitError) as caught:
        side.ask(side.lane.call(5.0), script(error))

    assert caught.value is error
    assert side.clock.waits == []


def test_a_time_out_at_the_gate_remembers_what_earlier_tries_may_have_cost(twin):
    side = twin()
    side.lane._gate._draw = lambda low, high: high  # the gate closes for a little longer than was asked

    with pytest.raises(RateLimitError, match=r"too fast.*deadline= of the call comes first") as caught:
        side.ask(side.lane.call(8.5), script(NetworkError("cut", kind="broken", billed="maybe"), throttled(8.0)))

    assert (caught.value.billed, caught.value.attempts) == ("maybe", 2)


def test_a_second_caller_does_not_wait_longer_than_its_patience(twin):
    side = twin()
    with pytest.raises(RateLimitError):
        side.ask(Call(), script(throttled(3_600.0)))
    send = script()

    with pytest.raises(RateLimitError) as caught:
        side.ask(Call(), send)

    assert caught.value.kind == "breaker"
    assert caught.value.retry_after > 3_500
    assert send.left_of == side.clock.waits == []


def test_an_empty_account_is_not_asked_again(twin):
    side = twin()
    with pytest.raises(QuotaError):
        side.ask(Call(), script(QuotaError("no money", kind="quota")))
    send = script()

    for patient in (False, True):
        with pytest.raises(QuotaError, match="not asked"):
            side.ask(Call(patient=patient), send)
    assert send.left_of == []


def test_a_flaky_start_gives_the_purse_back(twin):
    side = twin()

    side.ask(Call(), script(broken(), broken()))

    assert side.lane._gate.purse == Budget().tokens


def test_a_stopped_call_sends_nothing(twin):
    side, send = twin(), script()

    with pytest.raises(StoppedError):
        side.ask(Call(stopped=True), send)
    assert send.left_of == []


def test_tokens_count_for_the_pace(twin):
    side = twin(pace=Pace(tokens=60))

    side.ask(Call(), script(), tokens=30)
    side.ask(Call(), script(), tokens=1)

    assert side.clock.now() == pytest.approx(1_030.0)


# --- many requests


def test_all_items_are_sent_and_taken_one_at_a_time(twin):
    side, taken, busy = twin(), {}, threading.Lock()

    def take(item, result):
        assert busy.acquire(blocking=False)
        taken[item] = result
        busy.release()

    side.send_all(Call(), range(50), lambda item: item * item, take, never)

    assert taken == {item: item * item for item in range(50)}
    assert at_rest(side)


def never(item, error):
    raise AssertionError(f"{item} failed: {error}")


@pytest.mark.parametrize("items", [[], [7]])
@pytest.mark.parametrize("workers", [1, 4])
def test_none_and_one_need_no_crew(twin, items, workers):
    side, taken = twin(workers=workers), {}

    side.send_all(Call(), items, str, taken.__setitem__, never)

    assert taken == {item: str(item) for item in items}


def test_the_first_failure_for_good_stops_what_has_not_started(twin):
    side, call, sent, failed = twin(workers=2), Call(patient=True), [], []

    def send(item):
        sent.append(item)
        if item == 3:
            raise RefusedError("no", kind="refused", status=400)
        return item

    def fail(item, error):
        failed.append((item, error))
        return False

    side.send_all(call, range(100), send, lambda item, result: None, fail)

    assert call.stopped
    assert [(item, type(error)) for item, error in failed] == [(3, RefusedError)]
    assert len(sent) < 100
    assert at_rest(side)


def test_failures_that_are_kept_stop_nothing(twin):
    side, failed, taken = twin(), {}, {}

    def send(item):
        if item % 2:
            raise RefusedError("no", kind="refused", status=400)
        return item

    def fail(item, error):
        failed[item] = error
        return True

    side.send_all(Call(patient=True), range(10), send, taken.__setitem__, fail)

    assert sorted(failed) == [1, 3, 5, 7, 9]
    assert sorted(taken) == [0, 2, 4, 6, 8]


def test_a_failure_to_keep_a_result_is_a_failure_too(twin):
    side, failed = twin(workers=1), []

    def take(item, result):
        raise OSError("disk full")

    def fail(item, error):
        failed.append(error)
        return False

    side.send_all(Call(), range(5), str, take, fail)

    assert [str(error) for error in failed] == ["disk full"]


def test_a_result_is_taken_before_its_worker_goes_on(twin):
    side, story = twin(workers=1), []

    def send(item):
        story.append(("sent", item))
        return item

    side.send_all(Call(), range(3), send, lambda item, result: story.append(("taken", item)), never)

    assert story == [(what, item) for item in range(3) for what in ("sent", "taken")]


@pytest.mark.parametrize(
    "reason",
    [throttled(500.0), ServerError("broke", kind="transient", retry_after=500.0)],
    ids=["at-the-gate", "backing-off"],
)
def test_who_waits_is_released_when_another_part_fails_for_good(twin, reason):
    side, sent = twin(workers=2), []
    call = Call(patient=True)

    class Standing(VirtualClock):
        """A clock that stands still: nobody is released by time."""

        def wait(self, changed, seconds):
            waiting.set()
            assert changed.wait(PATIENCE), "nobody woke the waiter"

        async def await_(self, changed, seconds):
            waiting.set()
            with anyio.fail_after(PATIENCE):
                await changed.wait()

    waiting, both = threading.Event(), threading.Event()
    side.lane.clock = Standing()

    def send(item):
        sent.append(item)
        if item == "waits":
            assert both.wait(PATIENCE if twin is Threads else 0) or twin is Tasks
            raise reason
        both.set()
        assert waiting.wait(PATIENCE if twin is Threads else 0) or twin is Tasks
        raise AuthError("no", kind="refused", status=403)

    failed = []
    side.send_all(
        call, ["waits", "fails", "later"], send, lambda *_: None, lambda item, error: failed.append(item) or False
    )

    assert failed == ["fails"]
    assert sorted(sent) == ["fails", "waits"]
    assert [(skipped.attempts, skipped.maybe_billed) for skipped in side.skipped] in ([(1, 0)], [])
    assert waiting.is_set()
    assert at_rest(side)


def test_ctrl_c_keeps_what_is_on_its_way_and_sends_nothing_more(monkeypatch):
    side, call = Threads(workers=2), Call()
    sent, taken, begun, go = [], [], [], threading.Event()
    started, kept = threading.Semaphore(0), threading.Semaphore(0)

    def work(item):
        sent.append(item)
        started.release()
        assert go.wait(PATIENCE)
        return item

    def take(item, result):
        taken.append(item)
        kept.release()

    class Interrupted:
        """What a caller waits for when Ctrl-C is pressed."""

        def result(self):
            assert all(started.acquire(timeout=PATIENCE) for _ in range(2))
            raise KeyboardInterrupt

    crews = []
    monkeypatch.setattr("voxvec._run.in_thread", lambda crew: crews.append(in_thread(crew)) or Interrupted())
    with pytest.raises(KeyboardInterrupt):
        side.lane.send_all(call, range(50), work, take=take, fail=never, begin=begun.append)
    go.set()

    assert all(kept.acquire(timeout=PATIENCE) for _ in range(2))
    for crew in crews:
        crew.result(PATIENCE)
    assert sorted(begun) == sorted(sent) == sorted(taken) == [0, 1]


def test_context_variables_reach_the_crew():
    side, var, seen = Threads(), contextvars.ContextVar("var"), []
    var.set("mine")

    side.send_all(Call(), range(8), lambda item: var.get(), lambda item, result: seen.append(result), never)

    assert seen == ["mine"] * 8


def test_64_threads_share_one_lane_and_never_send_more_than_its_workers():
    side, lock = Threads(workers=5), threading.Lock()
    out, peak = 0, 0

    def send(left):
        nonlocal out, peak
        with lock:
            out += 1
            peak = max(peak, out)
        with lock:
            out -= 1
        return "answer"

    futures = [in_thread(lambda: side.ask(Call(), send)) for _ in range(64)]

    assert [future.result(PATIENCE).value for future in futures] == ["answer"] * 64
    assert peak <= 5
    assert at_rest(side)


def test_the_purse_is_not_overdrawn_by_threads_that_fail_at_once():
    side = Threads(Retry(attempts=2, budget=Budget(tokens=200, retry=10)), workers=32)
    start = threading.Barrier(32)

    def ask():
        start.wait(PATIENCE)
        with pytest.raises(ServerError):
            side.ask(Call(), script(*[broken() for _ in range(9)]))

    for future in [in_thread(ask) for _ in range(32)]:
        future.result(PATIENCE)

    assert 0 <= side.lane._gate.purse <= 200
    assert at_rest(side)


# --- cancelling


@pytest.mark.case("X03")
def test_cancelling_at_any_point_leaves_nothing_behind():
    chance = random.Random(5)  # noqa: S311 -- a story that repeats itself

    async def send(left):
        await asyncio.sleep(0)
        if chance.random() < 0.3:
            raise throttled(0.1)
        if chance.random() < 0.2:
            raise broken()
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        return "answer"

    async def cancel_after(task, turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    async def main():
        lane = AsyncLane(Retry(budget=Budget(tokens=1e9)), Pace(), 3, VirtualClock())
        for _ in range(100):
            tasks = [asyncio.create_task(lane.ask(Call(patient=True), send)) for _ in range(10)]
            await asyncio.gather(*(cancel_after(task, chance.randrange(30)) for task in tasks))
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) or one.value == "answer" for one in outcomes)
            assert lane._gate.in_flight == 0
            assert not lane._gate._probing
            assert not lane._waiting
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_cancelled_call_is_cancelled_and_not_a_group_of_errors():
    async def main():
        lane = AsyncLane(Retry(), Pace(), 4, VirtualClock())
        sending = asyncio.Event()

        async def work(item):
            sending.set()
            await asyncio.sleep(60)

        async def take(item, result):
            raise AssertionError

        task = asyncio.create_task(lane.send_all(Call(), range(9), work, take=take, fail=never, **ROUTINE))
        await sending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_what_was_paid_for_is_taken_even_if_the_call_is_cancelled_meanwhile():
    taken = []

    async def main():
        lane = AsyncLane(Retry(), Pace(), 4, VirtualClock())
        taking = asyncio.Event()

        async def work(item):
            return item

        async def take(item, result):
            taking.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            taken.append(item)

        task = asyncio.create_task(lane.send_all(Call(), [1], work, take=take, fail=never, **ROUTINE))
        await taking.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert taken == [1]


# --- flights


def test_a_second_thread_waits_for_what_the_first_buys():
    side = Threads()
    with side.lane.claim([b"a", b"b"]) as mine, side.lane.claim([b"a"]) as theirs:
        assert theirs.mine == {}
        waiter = in_thread(side.wait_for, Call(), theirs)
        side.lane.land(mine, {b"a": b"row"})

        assert waiter.result(PATIENCE) == {b"a": b"row"}


def test_a_second_task_waits_for_what_the_first_buys():
    async def main():
        lane, rows = AsyncLane(Retry(), Pace(), 4, VirtualClock()), []

        async def wait():
            with lane.claim([b"a"]) as theirs:
                rows.append(await lane.wait_for(Call(), theirs))

        with lane.claim([b"a"]) as mine:
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                lane.land(mine, {b"a": b"row"})
        assert not lane._waiting
        return rows

    assert anyio.run(main) == [{b"a": b"row"}]


def test_a_buyer_that_fails_hands_over(twin):
    side = twin()

    with ExitStack() as calls:
        with suppress(ZeroDivisionError), side.lane.claim([b"a"]):
            theirs = calls.enter_context(side.lane.claim([b"a"]))
            raise ZeroDivisionError

        assert side.wait_for(Call(), theirs) == {}
        with side.lane.claim([b"a"]) as again:
            assert list(again.mine) == [b"a"]


def test_waiting_for_another_call_ends_at_the_deadline(twin):
    side = twin()
    with side.lane.claim([b"a"]), side.lane.claim([b"a"]) as theirs, pytest.raises(ServiceTimeoutError) as caught:
        side.wait_for(side.lane.call(3.0), theirs)

    assert (caught.value.billed, caught.value.attempts) == ("no", 0)
    assert side.clock.now() == 1_003.0


# --- streams


async def each(items):
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


def stream(twin, items, work, ahead, take=math.inf):
    """The results of `in_order` or `in_turn`, at most ``take`` of them, and how the stream ended."""
    results = []

    def drain():
        source = (item if not isinstance(item, Exception) else throw(item) for item in items)
        for result in in_order(source, work, ahead):
            results.append(result)
            if len(results) == take:
                return

    async def adrain():
        async def awork(item):
            await anyio.lowlevel.checkpoint()
            return work(item)

        async for result in in_turn(each(items), awork, ahead):
            results.append(result)
            if len(results) == take:
                return

    try:
        drain() if twin is Threads else anyio.run(adrain)
    except Exception as error:  # noqa: BLE001 -- looked at by the test
        return results, error
    return results, None


def throw(error):
    raise error


@pytest.mark.parametrize("ahead", [1, 3, 50])
@pytest.mark.parametrize("n", [0, 1, 3, 10])
def test_a_stream_keeps_the_order(twin, n, ahead):
    assert stream(twin, range(n), lambda item: item * 2, ahead) == ([item * 2 for item in range(n)], None)


def test_a_stream_is_never_further_ahead_than_allowed(twin):
    seen = []

    def items():
        for item in range(100):
            seen.append(item)
            yield item

    results, _ = stream(twin, items(), lambda item: item, ahead=4, take=5)

    assert results == [0, 1, 2, 3, 4]
    assert len(seen) <= 5 + 4


def test_a_stream_raises_a_failure_as_itself_after_what_came_before_it(twin):
    failure = RefusedError("no", kind="refused")

    results, error = stream(twin, range(6), lambda item: throw(failure) if item == 2 else item, ahead=3)

    assert results == [0, 1]
    assert error is failure


def test_a_source_that_fails_is_raised_as_itself_after_what_came_before_it(twin):
    failure = ValueError("the file is damaged")

    results, error = stream(twin, [0, 1, 2, 3, failure], lambda item: item, ahead=3)

    assert results == [0, 1, 2, 3]
    assert error is failure


def test_the_error_of_a_thread_is_raised_where_its_result_is_asked_for():
    failure = ValueError("x")

    with pytest.raises(ValueError, match="x") as caught:
        in_thread(throw, failure).result(PATIENCE)
    assert caught.value is failure


def test_a_thread_does_not_keep_a_program_from_ending():
    assert in_thread(lambda: threading.current_thread().daemon).result(PATIENCE)


def test_what_blocks_is_run_beside_the_event_loop():
    async def main():
        return await aside(threading.get_ident), threading.get_ident()

    beside, here = anyio.run(main)
    assert beside != here


# --- loops and the real clock


def test_each_event_loop_gets_its_own():
    made = []
    own = PerLoop(lambda: made.append(object()) or made[-1])

    async def main():
        assert own.drop() is None
        first = own.get()
        assert own.get() is first
        return first

    assert anyio.run(main) is not anyio.run(main)
    assert len(made) == 2


def test_the_real_clock_goes_on_and_waits_until_news_or_time():
    clock, changed = Clock(), threading.Condition()
    start = clock.now()
    with changed:
        clock.wait(changed, 0.001)

    async def main():
        event = anyio.Event()
        await clock.await_(event, 0.001)
        event.set()
        await clock.await_(event, math.inf)

    anyio.run(main)
    assert 0.001 < clock.now() - start < PATIENCE


def test_news_end_a_wait_of_the_real_clock_that_has_no_end():
    clock, changed = Clock(), threading.Condition()

    def tell():
        with changed:
            changed.notify_all()

    with changed:
        teller = in_thread(tell)
        clock.wait(changed, math.inf)
    teller.result(PATIENCE)
