import copy
import gc
import heapq
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from voxvec._gate import Gate, Ticket
from voxvec._pace import Limit, Limits
from voxvec.errors import (
    AuthError,
    NetworkError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ResponseError,
    ServerError,
    ServiceError,
    ServiceTimeoutError,
)
from voxvec.policy import Budget, Pace, Retry, Tries

KEEN = Ticket(probe=False)
PROBE = Ticket(probe=True)


def throttled(hint=None):
    return RateLimitError("too fast", kind="throttled", status=429, retry_after=hint)


def broken():
    return ServerError("broke", kind="transient", status=500, billed="maybe")


def no_money():
    return QuotaError("no money", kind="quota", status=429, code="insufficient_quota")


def wrong_key():
    return AuthError("wrong key", kind="refused", status=401)


def gate(workers=4, *, pace=Pace(), budget=Budget(), draw=lambda low, high: high):  # noqa: B008 -- frozen
    return Gate(workers, pace, budget, draw=draw)


def closed(hint=1.0, **settings):
    """A gate that one request has found shut at time 0, with no jitter."""
    shut = gate(draw=lambda low, high: low, **settings)
    shut.settle(shut.admit(0.0), throttled(hint), 0.0)
    return shut


# --- open


def test_as_many_go_as_there_are_workers_and_the_next_waits_for_news():
    door = gate(workers=2)

    assert [door.admit(0.0), door.admit(0.0), door.admit(0.0)] == [KEEN, KEEN, math.inf]

    door.settle(KEEN, "ok", 0.1)
    assert door.admit(0.1) == KEEN
    assert door.in_flight == 2


@pytest.mark.parametrize(
    "outcome",
    [
        "ok",
        "cancelled",
        broken(),
        RefusedError("no", kind="refused", status=400),
        ResponseError("odd", kind="malformed"),
        AuthError("not allowed", kind="refused", status=403),
    ],
    ids=str,
)
def test_an_open_gate_stays_open_after_what_concerns_one_request(outcome):
    door = gate()

    for _ in range(5):
        door.settle(door.admit(0.0), outcome, 0.0)

    assert door.admit(0.0) == KEEN


# --- closed


def test_once_told_to_wait_nobody_goes_before_the_time():
    door = closed(hint=2.0)

    assert door.admit(0.0) == 2.0
    assert door.admit(1.5) == 0.5
    assert door.admit(2.0) == PROBE


@given(st.floats(0, 3_600), st.floats(0, 1))
def test_the_wait_is_at_least_what_was_asked_and_an_eighth_longer_at_most(hint, share):
    door = gate(draw=lambda low, high: low + share * (high - low))
    door.settle(door.admit(0.0), throttled(hint), 0.0)

    asked = max(0.1, hint)
    assert asked <= door.admit(0.0) <= asked * 1.125 * (1 + 1e-12)


@pytest.mark.case("F39")
def test_a_shorter_wait_never_replaces_a_longer_one():
    door = gate(draw=lambda low, high: low)
    first, second = door.admit(0.0), door.admit(0.0)
    door.settle(first, throttled(30.0), 0.0)

    door.settle(second, throttled(1.0), 0.5)

    assert door.admit(1.0) == 29.0


def test_rejections_without_a_hint_wait_longer_from_probe_to_probe():
    door, now, waits = gate(), 0.0, []
    for _ in range(8):
        door.settle(door.admit(now), throttled(), now)
        waits.append(door.admit(now))
        now += waits[-1]

    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


def test_a_whole_crew_that_is_rejected_at_once_counts_as_one_rejection():
    door = gate(workers=16)
    door.settle(door.admit(0.0), "ok", 0.0)
    for ticket in [door.admit(0.0) for _ in range(16)]:
        door.settle(ticket, throttled(), 0.0)

    assert door.admit(0.0) == 0.5


def test_as_long_as_nothing_is_known_four_scouts_go_and_the_others_wait_a_moment():
    door = gate(workers=16)
    scouts = [door.admit(0.0) for _ in range(4)]

    assert scouts == [KEEN] * 4
    assert door.admit(0.1) == pytest.approx(0.2)

    door.settle(scouts[0], "ok", 0.1)
    assert [door.admit(0.1) for _ in range(14)] == [KEEN] * 13 + [math.inf]


def test_scouts_that_take_their_time_hold_nobody_back():
    door = gate(workers=16)
    for _ in range(4):
        door.admit(0.0)

    assert [door.admit(0.3) for _ in range(13)] == [KEEN] * 12 + [math.inf]


def test_scouts_that_are_rejected_keep_the_others_from_going():
    door = gate(workers=16)
    for ticket in [door.admit(0.0) for _ in range(4)]:
        door.settle(ticket, throttled(1.0), 0.1)

    assert door.admit(0.5) > 0.5
    assert [door.admit(1.5), door.admit(1.5)] == [PROBE, math.inf]


def test_exactly_one_probe_passes_and_the_others_wait_for_news():
    door = closed()

    assert [door.admit(1.0), door.admit(1.0), door.admit(99.0)] == [PROBE, math.inf, math.inf]


def test_the_success_of_a_probe_opens_the_gate():
    door = closed()
    door.settle(door.admit(1.0), "ok", 1.1)

    assert [door.admit(1.1) for _ in range(3)] == [KEEN] * 3


def test_the_rejection_of_a_probe_closes_for_longer():
    door = closed()
    door.settle(door.admit(1.0), throttled(5.0), 1.0)

    assert door.admit(1.0) == 5.0


def test_a_final_refusal_of_a_probe_opens_the_gate_because_the_server_is_there():
    door = closed()
    door.settle(door.admit(1.0), RefusedError("no", kind="refused", status=400), 1.0)

    assert door.admit(1.0) == KEEN


def test_a_probe_that_meets_a_fault_lets_the_next_one_through_a_little_later():
    door = closed()
    door.settle(door.admit(1.0), broken(), 1.0)

    assert door.admit(1.0) == 0.25
    assert door.admit(1.25) == PROBE


@pytest.mark.case("X03")
def test_a_cancelled_probe_makes_room_for_another():
    door = closed()
    door.settle(door.admit(1.0), "cancelled", 1.0)

    assert door.admit(1.0) == PROBE


@pytest.mark.case("X12")
def test_the_success_of_what_left_before_the_gate_closed_changes_nothing():
    door = gate(draw=lambda low, high: low)
    early, unlucky = door.admit(0.0), door.admit(0.0)
    door.settle(unlucky, throttled(5.0), 0.0)

    door.settle(early, "ok", 1.0)

    assert door.admit(1.0) == 4.0


@pytest.mark.case("X12")
@pytest.mark.parametrize("outcome", ["ok", broken()], ids=["ok", "fault"])
def test_what_left_before_the_gate_closed_is_no_probe_even_after_the_wait(outcome):
    door = gate(draw=lambda low, high: low)
    early, unlucky = door.admit(0.0), door.admit(0.0)
    door.settle(unlucky, throttled(5.0), 0.0)

    door.settle(early, outcome, 6.0)

    assert [door.admit(6.0), door.admit(6.0)] == [PROBE, math.inf]


@pytest.mark.parametrize("outcome", ["ok", broken()], ids=["ok", "fault"])
def test_a_probe_does_not_undo_a_rejection_that_came_while_it_was_away(outcome):
    door = gate(draw=lambda low, high: low)
    slow, unlucky = door.admit(0.0), door.admit(0.0)
    door.settle(unlucky, throttled(1.0), 0.0)
    probe = door.admit(1.0)

    door.settle(slow, throttled(30.0), 1.5)
    door.settle(probe, outcome, 2.0)

    assert door.admit(2.0) == 29.5


def test_who_has_less_patience_than_the_server_asks_for_fails_at_once():
    door = closed(hint=3_600.0)

    error = door.admit(0.0, patience=60.0)

    assert type(error) is RateLimitError
    assert (error.kind, error.status, error.retry_after, error.attempts, error.billed) == (
        "breaker",
        429,
        3_600.0,
        0,
        "no",
    )
    assert "Nothing was sent" in str(error)
    assert door.admit(0.0, patience=3_600.0) == 3_600.0
    assert door.admit(3_540.0, patience=60.0) == 60.0


@pytest.mark.case("H03")
def test_a_wait_of_years_closes_the_gate_for_a_day():
    door = closed(hint=math.inf)

    assert door.admit(0.0, patience=600.0).retry_after == 86_400.0
    assert door.admit(86_400.0) == PROBE


@pytest.mark.parametrize("kind", ["transient", "broken", "late"])
def test_a_failure_that_names_a_wait_closes_the_gate_for_everybody(kind):
    door = gate(draw=lambda low, high: low)
    other = door.admit(0.0)
    door.settle(door.admit(0.0), ServerError("broke", kind=kind, status=500, retry_after=2.0), 0.0)

    assert door.admit(0.0) == 2.0
    door.settle(other, "ok", 1.0)
    assert [door.admit(1.0), door.admit(2.0), door.admit(2.0)] == [1.0, PROBE, math.inf]


def test_a_dead_server_that_names_waits_is_probed_less_and_less_often_all_the_same():
    door, now, waits = dead(draw=lambda low, high: low), 0.0, []
    for _ in range(5):
        now += door.admit(now)
        door.settle(door.admit(now), ServerError("broke", kind="transient", status=500, retry_after=3.0), now)
        waits.append(door.admit(now))

    assert waits == [3.0, 4.0, 8.0, 16.0, 32.0]


@pytest.mark.case("F37")
def test_every_answer_teaches_the_pace_the_bad_ones_too():
    door = gate(workers=9)
    error = RateLimitError("fast", kind="throttled", retry_after=0.0, limits=Limits(requests=Limit(60, 0, 60.0)))
    door.settle(door.admit(0.0), error, 0.0)
    door.settle(door.admit(1.0), "ok", 1.0)

    assert door.admit(1.0) == pytest.approx(1 / 0.95 - 1, abs=0.01)

    door.heard(Limits(requests=Limit(60, 60)), 1.0)
    assert door.admit(3.0) == KEEN


@pytest.mark.case("H10")
def test_slow_down_halves_the_rate_of_the_whole_client():
    door, now = gate(workers=9), 0.0
    for n in range(101):
        now = n / 10
        door.settle(door.admit(now), "ok", now)
    slow = RateLimitError("slower", kind="throttled", status=429, code="slow_down", retry_after=1.0)
    door.settle(door.admit(now), slow, now)
    now += door.admit(now)
    door.settle(door.admit(now), "ok", now)

    assert door.admit(now) == pytest.approx(1 / 5, rel=0.05)


def test_calls_that_came_now_and_then_do_not_slow_down_a_job_that_is_rejected_once():
    door = gate(workers=9, draw=lambda low, high: low)
    for now in (0.0, 4.0, 8.0):
        door.settle(door.admit(now), "ok", now)
    for ticket in [door.admit(12.0) for _ in range(9)]:
        door.settle(ticket, throttled(1.0), 12.1)
    door.settle(door.admit(13.1), "ok", 13.2)

    assert [door.admit(13.2) for _ in range(9)] == [KEEN] * 9


def test_waits_that_nobody_asked_for_do_not_try_anybodys_patience():
    door = gate()
    door.settle(door.admit(0.0), throttled(), 0.0)

    assert door.admit(0.0, patience=0.0) == 0.5


# --- broken


def test_an_empty_account_is_not_asked_again_for_a_minute():
    door = gate()
    door.settle(door.admit(0.0), no_money(), 0.0)

    error = door.admit(1.0)

    assert type(error) is QuotaError
    assert (error.kind, error.code, error.retry_after, error.attempts) == ("breaker", "insufficient_quota", 59.0, 0)
    assert [door.admit(60.0), type(door.admit(60.0))] == [PROBE, QuotaError]


def test_the_account_being_filled_up_again_is_found_out_by_one_probe():
    door = gate()
    door.settle(door.admit(0.0), no_money(), 0.0)
    door.settle(door.admit(60.0), "ok", 60.0)

    assert [door.admit(60.0), door.admit(60.0)] == [KEEN, KEEN]


def test_a_wrong_key_is_tried_three_times():
    door, answers = gate(), []
    for _ in range(4):
        answers.append(ticket := door.admit(0.0))
        if isinstance(ticket, Ticket):
            door.settle(ticket, wrong_key(), 0.0)

    assert answers[:3] == [KEEN] * 3
    assert type(answers[3]) is AuthError


def test_a_wrong_key_in_between_is_forgiven():
    door = gate()
    for outcome in (wrong_key(), wrong_key(), "ok", wrong_key(), "cancelled", wrong_key(), broken(), wrong_key()):
        door.settle(door.admit(0.0), outcome, 0.0)

    assert door.admit(0.0) == KEEN


def test_a_wrong_key_that_is_still_wrong_after_a_minute_closes_at_once():
    door = gate()
    for _ in range(3):
        door.settle(door.admit(0.0), wrong_key(), 0.0)
    door.settle(door.admit(60.0), wrong_key(), 60.0)

    assert door.admit(60.0).retry_after == 60.0


def dead(budget=Budget(tokens=10), **settings):  # noqa: B008 -- frozen
    """A gate whose purse is empty at time 0."""
    door = gate(budget=budget, **settings)
    door.settle(door.admit(0.0), broken(), 0.0)
    assert door.spend(broken(), 10, 0.0)
    assert not door.spend(broken(), 10, 0.0)
    return door


def test_with_an_empty_purse_calls_fail_at_once_and_jobs_wait():
    door = dead()

    assert type(door.admit(0.0, patient=False)) is ServerError
    assert door.admit(0.0, patient=True) == 1.0


def test_a_dead_server_is_probed_after_1_2_4_up_to_60_seconds():
    door, now, waits = dead(), 0.0, []
    for _ in range(9):
        waits.append(door.admit(now))
        now += waits[-1]
        door.settle(door.admit(now), broken(), now)
        assert not door.spend(broken(), 10, now)

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_a_call_may_be_the_probe_of_a_dead_server_and_bring_it_back():
    door = dead()

    assert door.admit(1.0, patient=False) == PROBE
    assert type(door.admit(1.0, patient=False)) is ServerError

    door.settle(PROBE, "ok", 1.1)
    assert door.admit(1.1, patient=False) == KEEN


def test_jobs_wait_for_12_probes_of_a_dead_server_and_then_fail_at_once_until_the_next():
    door, now, probes = dead(), 0.0, 0
    while isinstance(wait := door.admit(now), float) and probes < 99:
        now += wait
        door.settle(door.admit(now), broken(), now)
        probes += 1

    assert probes == 12
    assert (type(wait), wait.kind, wait.retry_after) == (ServerError, "breaker", 60.0)

    door.settle(door.admit(now + 60.0), "ok", now + 60.0)
    assert door.admit(now + 60.0) == KEEN


def test_an_empty_account_found_by_the_probe_of_a_dead_server_ends_jobs_too():
    door = dead()
    door.settle(door.admit(1.0), no_money(), 1.0)

    assert type(door.admit(1.0, patient=True)) is QuotaError


def test_a_dead_server_that_rejects_is_alive_again():
    door = dead(draw=lambda low, high: low)
    door.settle(door.admit(1.0), throttled(2.0), 1.0)

    assert door.admit(1.0, patient=False) == 2.0


def test_a_broken_gate_keeps_no_request_alive_through_the_traceback_of_its_cause():
    class Batch:
        pass

    def fail(door):
        batch = Batch()
        try:
            raise no_money()
        except QuotaError as error:
            door.settle(door.admit(0.0), error, 0.0)
        del batch

    door = gate()
    fail(door)
    gc.collect()

    assert type(door.admit(0.0)) is QuotaError
    assert not [thing for thing in gc.get_objects() if type(thing) is Batch]
    assert door._cause.__traceback__ is None


# --- purse


def test_a_clean_success_gives_a_little_back_and_a_late_one_what_it_took():
    door = gate(budget=Budget(tokens=100))
    assert door.spend(broken(), 60, 0.0)

    door.settle(door.admit(0.0), "ok", 0.0)
    assert door.purse == 41

    door.settle(door.admit(0.0), "ok", 0.0, spent=30)
    assert door.purse == 71

    door.settle(door.admit(0.0), "ok", 0.0, spent=60)
    assert door.purse == 100


def test_what_costs_nothing_can_always_be_paid():
    door = gate(budget=Budget(tokens=0))

    assert door.spend(throttled(), 0, 0.0)


# --- pace


def test_a_pace_spreads_requests_evenly():
    door, now, sent = gate(workers=99, pace=Pace(requests=120)), 0.0, []
    while len(sent) < 5:
        answer = door.admit(now)
        if isinstance(answer, Ticket):
            sent.append(now)
        else:
            now += answer

    assert sent == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_a_pace_counts_tokens():
    door = gate(pace=Pace(tokens=60, requests=6_000))
    door.admit(0.0, tokens=30)

    assert door.admit(0.0, tokens=1) == 30.0
    assert door.admit(30.0, tokens=1) == KEEN


# --- everything at once


class AnyStory(RuleBasedStateMachine):
    """Whatever happens in whatever order, the gate keeps its promises."""

    WORKERS = 3

    def __init__(self):
        super().__init__()
        chance = random.Random(7)  # noqa: S311 -- a story that repeats itself
        self.gate = Gate(self.WORKERS, Pace(requests=600), Budget(tokens=40), draw=chance.uniform)
        self.now, self.forbidden_until, self.not_before = 0.0, -math.inf, -math.inf
        self.out = []

    def settle(self, at, outcome, **more):
        ticket, shut = self.out.pop(at % len(self.out)), self.gate._not_before > self.now
        was_closed = self.gate._closed
        self.gate.settle(ticket, outcome, self.now, **more)
        if outcome == "ok" and ticket.probe and not shut:
            assert not self.gate._closed
        elif outcome in ("ok", "cancelled"):
            assert self.gate._closed == was_closed

    @rule(patient=st.booleans())
    def admit(self, patient):
        closed = self.gate._closed
        answer = self.gate.admit(self.now, patient=patient, tokens=5, patience=60.0 if patient else 10.0)
        if isinstance(answer, Ticket):
            assert self.now >= self.forbidden_until
            assert self.now >= self.gate._not_before or not closed
            assert answer.probe == closed
            assert not (answer.probe and any(ticket.probe for ticket in self.out))
            self.out.append(answer)
        elif isinstance(answer, ServiceError):
            assert answer.kind == "breaker"
            assert answer.retry_after >= 0
        else:
            assert answer > 0

    @precondition(lambda self: self.out)
    @rule(at=st.integers(0, 9), spent=st.sampled_from([0, 10, 30]))
    def succeed(self, at, spent):
        self.settle(at, "ok", spent=spent)

    @precondition(lambda self: self.out)
    @rule(at=st.integers(0, 9))
    def cancel(self, at):
        self.settle(at, "cancelled")

    @precondition(lambda self: self.out)
    @rule(at=st.integers(0, 9), hint=st.none() | st.floats(0, 90), code=st.sampled_from([None, "slow_down"]))
    def throttle(self, at, hint, code):
        error = RateLimitError("too fast", kind="throttled", status=429, retry_after=hint, code=code)
        self.settle(at, error)
        self.told(hint)

    def told(self, hint):
        if hint is not None:
            self.forbidden_until = max(self.forbidden_until, self.now + max(0.1, hint))

    @precondition(lambda self: self.out)
    @rule(
        at=st.integers(0, 9),
        error=st.sampled_from([no_money, wrong_key, lambda: ResponseError("odd", kind="malformed")]),
    )
    def refuse(self, at, error):
        self.settle(at, error())

    @precondition(lambda self: self.out)
    @rule(
        at=st.integers(0, 9),
        kind=st.sampled_from(["transient", "broken", "late", "never_sent"]),
        hint=st.none() | st.floats(0, 9),
    )
    def fault(self, at, kind, hint):
        error = ServerError("broke", kind=kind, retry_after=hint)
        self.settle(at, error)
        self.told(hint)
        self.gate.spend(error, Budget().cost(kind), self.now)

    @precondition(lambda self: self.out)
    @rule(size=st.integers(1, 100), share=st.floats(0, 1), full_in=st.none() | st.floats(0, 60))
    def hear(self, size, share, full_in):
        self.gate.heard(Limits(requests=Limit(size, size * share, full_in)), self.now)

    @rule(seconds=st.floats(0, 70))
    def pass_time(self, seconds):
        self.now += seconds

    @invariant()
    def what_is_on_its_way_is_counted(self):
        assert self.gate.in_flight == len(self.out) <= self.WORKERS

    @invariant()
    def the_purse_is_neither_overdrawn_nor_overfull(self):
        assert 0 <= self.gate.purse <= 40

    @invariant()
    def the_end_of_a_wait_never_moves_back(self):
        assert self.gate._not_before >= self.not_before
        self.not_before = self.gate._not_before

    @invariant()
    def somebody_is_let_in_after_some_finite_time_if_nothing_is_on_its_way(self):
        if self.out:
            return
        twin, now = copy.deepcopy(self.gate), self.now
        for _ in range(9):
            answer = twin.admit(now)
            if isinstance(answer, Ticket):
                return
            wait = answer.retry_after if isinstance(answer, ServiceError) else answer
            assert wait <= 120 / 0.95 + 1
            now += wait + 1e-9
        raise AssertionError("nobody is ever let in")


AnyStory.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
test_any_story = AnyStory.TestCase


# --- a whole client in virtual time


class World:
    """Callers, a gate and a server in a time that costs nothing.

    A caller is a generator that yields how long it sleeps, or, behind a "news", how long it waits for news [s].
    """

    def __init__(self, server, *, workers=16, seed=1):
        self.now, self.requests, self.answered, self.failures = 0.0, [], 0, []
        self.random = random.Random(seed)  # noqa: S311 -- a story that repeats itself
        self.gate = Gate(workers, Pace(), Budget(), draw=self.random.uniform)
        self.server, self.turns, self.agenda, self.waiting = server, 0, [], {}

    def caller(self, *, job):
        tries = Tries(
            policy=Retry(),
            job=job,
            spend=lambda error, cost: self.gate.spend(error, cost, self.now),
            left=lambda: math.inf,
            draw=self.random.uniform,
        )
        outcome = None
        while outcome != "ok":
            while not isinstance(ticket := self.gate.admit(self.now, patient=job), Ticket):
                if isinstance(ticket, ServiceError):
                    self.failures.append(ticket)
                    return
                yield "news", ticket
            self.requests.append(self.now)
            outcome = self.server(self.now, self.random)
            yield "sleep", self.random.uniform(0.02, 0.08)
            outcome, said = outcome if isinstance(outcome, tuple) else (outcome, None)
            if said is not None:
                self.gate.heard(said, self.now)
            self.gate.settle(ticket, outcome, self.now, spent=tries.spent)
            self.tell()
            if outcome != "ok":
                if not tries.again(outcome):
                    self.failures.append(outcome)
                    return
                yield "sleep", tries.wait
        self.answered += 1

    def crew(self, batches):
        """One worker of a job: takes the next batch until there is none, or one has failed for good."""
        for _ in batches:
            yield from self.caller(job=True)
            if self.failures:
                return

    def plan(self, process, seconds):
        self.turns += 1
        heapq.heappush(self.agenda, (self.now + seconds, self.turns, process))
        return self.turns

    def tell(self):
        for process in list(self.waiting):
            self.waiting[process] = self.plan(process, 0.0)

    def run(self, processes, until=math.inf):
        for process in processes:
            self.plan(process, 0.0)
        while self.agenda:
            now, turn, process = heapq.heappop(self.agenda)
            if self.waiting.get(process, turn) != turn:
                continue
            if now > until:
                return self
            self.now = now
            self.waiting.pop(process, None)
            kind, seconds = next(process, (None, 0.0))
            if kind == "sleep":
                self.plan(process, seconds)
            elif kind == "news":
                self.waiting[process] = self.plan(process, seconds) if seconds < math.inf else -1
        return self


def job(world, batches, workers):
    source = iter(range(batches))
    return world.run([world.crew(source) for _ in range(workers)], until=3_600)


@pytest.mark.case("F34")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hint", [None, 1.0])
def test_a_storm_of_3_s_is_survived_by_60_callers_at_little_extra_load(seed, hint):
    def server(now, chance):
        return throttled(hint) if now < 3.0 else "ok"

    world = World(server, seed=seed)
    world.run([world.caller(job=False) for _ in range(60)])

    assert (world.answered, world.failures) == (60, [])
    assert len(world.requests) <= 1.12 * 60 + 16
    assert world.now < 8.0


@pytest.mark.case("F36")
@pytest.mark.parametrize("seed", range(5))
def test_2_s_of_rejections_in_the_middle_of_a_job_cost_it_next_to_nothing(seed):
    def server(now, chance):
        return throttled() if 0.5 < now < 2.5 else "ok"

    world = job(World(server, workers=8, seed=seed), 400, 8)

    assert (world.answered, world.failures) == (400, [])
    assert len(world.requests) <= 1.03 * 400


@pytest.mark.case("F39")
@pytest.mark.parametrize("seed", range(5))
def test_nobody_moves_in_the_second_for_which_the_server_asked(seed):
    def server(now, chance):
        return throttled(1.0) if now > 0.3 and not told and not told.append(now) else "ok"

    told = []
    world = job(World(server, workers=8, seed=seed), 100, 8)

    heard = told[0] + 0.08
    assert world.answered == 100
    assert not [sent for sent in world.requests if heard < sent < told[0] + 1.0]


@pytest.mark.case("F40")
@pytest.mark.parametrize("seed", range(5))
def test_a_dead_server_is_left_alone_after_28_requests_but_for_single_probes(seed):
    world = World(lambda now, chance: broken(), workers=8, seed=seed)
    source = iter(range(100))
    world.run([world.crew(source) for _ in range(8)], until=15.0)

    assert world.answered == 0
    assert len(world.requests) <= 28 + 4  # the purse's worth, what was on its way, and probes after 1, 2, 4 and 8 s
    assert len([sent for sent in world.requests if sent > 10.0]) <= 1


@pytest.mark.case("F40")
@pytest.mark.parametrize("seed", range(5))
def test_a_job_gives_a_dead_server_up_after_40_requests(seed):
    world = job(World(lambda now, chance: broken(), workers=8, seed=seed), 100, 8)

    assert (world.answered, len(world.failures)) == (0, 8)
    assert len(world.requests) <= 40
    assert world.now < 600


@pytest.mark.parametrize("seed", range(5))
def test_calls_to_a_dead_server_fail_at_once_after_28_requests(seed):
    world = World(lambda now, chance: broken(), workers=8, seed=seed)
    world.run([world.caller(job=False) for _ in range(100)])

    assert len(world.failures) == 100
    assert len(world.requests) <= 36
    before = len(world.requests)
    for _ in range(1_000):
        world.run([world.caller(job=False)])
    assert len(world.requests) - before <= 1


@pytest.mark.case("F38")
@pytest.mark.parametrize("seed", range(5))
def test_a_flaky_server_is_ridden_out(seed):
    def server(now, chance):
        return broken() if chance.random() < 0.25 else "ok"

    world = job(World(server, workers=8, seed=seed), 100, 8)

    assert (world.answered, world.failures) == (100, [])
    assert len(world.requests) <= 165


@pytest.mark.parametrize("seed", range(3))
def test_a_job_outlives_an_outage(seed):
    def server(now, chance):
        return NetworkError("refused", kind="never_sent") if 1.0 < now < 20.0 else "ok"

    world = job(World(server, workers=8, seed=seed), 200, 8)

    assert (world.answered, world.failures) == (200, [])
    assert len(world.requests) <= 200 + 40


class Allowance:
    """A server that allows so many requests per second, so many of them at once."""

    def __init__(self, rate, burst, *, tells=True, hints=False):
        self.rate, self.burst, self.tells, self.hints = rate, burst, tells, hints
        self.left, self.at, self.rejected = float(burst), 0.0, []

    def __call__(self, now, chance):
        self.left, self.at = min(self.burst, self.left + (now - self.at) * self.rate), now
        enough = self.left >= 1
        self.left -= enough
        if not enough:
            self.rejected.append(now)
        missing = (1 - self.left) / self.rate
        limit = Limit(self.burst, float(int(self.left)), (self.burst - self.left) / self.rate)
        said = Limits(requests=limit) if self.tells else None
        return "ok" if enough else throttled(missing if self.hints else None), said


@pytest.mark.case("F37")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [8, 16])
def test_a_stated_limit_is_kept_without_rejections_and_without_waiting_much_longer_than_needed(seed, workers):
    server = Allowance(20, 20)
    world = job(World(server, workers=workers, seed=seed), 100, workers)

    assert (world.answered, world.failures, len(world.requests)) == (100, [], 100)
    assert world.now < 1.25 * (100 - 20) / 20


@pytest.mark.parametrize("seed", range(5))
def test_a_limit_of_minutes_is_kept(seed):
    server = Allowance(500 / 60, 500)
    world = job(World(server, seed=seed), 1_500, 16)

    assert (world.answered, len(server.rejected)) == (1_500, 0)
    assert world.now < 1.15 * 1_000 / (500 / 60)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hints", [True, False])
def test_a_limit_that_is_not_stated_is_felt(seed, hints):
    server = Allowance(20, 20, tells=False, hints=hints)
    world = job(World(server, seed=seed), 600, 16)

    assert (world.answered, world.failures) == (600, [])
    assert len(server.rejected) <= 0.05 * 600
    assert world.now < 1.1 * 600 / 20


def test_time_outs_empty_the_purse_twice_as_fast():
    door = gate(budget=Budget())
    late = ServiceTimeoutError("late", kind="late", billed="maybe")

    assert [door.spend(late, Budget().cost("late"), 0.0) for _ in range(11)] == [True] * 10 + [False]
