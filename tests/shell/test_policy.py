import datetime as dt
import math
from dataclasses import replace
from email.utils import format_datetime

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from voxvec.errors import (
    AuthError,
    ConfigError,
    NetworkError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ResponseError,
    ServerError,
    ServiceTimeoutError,
)
from voxvec.policy import Budget, Pace, Retry, Tries, retry_after

NOW = dt.datetime(2026, 11, 22, 12, 0, 0, tzinfo=dt.UTC)
SERVER = "Sun, 22 Nov 2026 10:00:00 GMT"  # two hours slow


def highest(low, high):
    return high


def tries(policy=Retry(), *, job=False, left=math.inf, spend=lambda error, cost: True):  # noqa: B008 -- frozen
    return Tries(policy=policy, job=job, spend=spend, left=lambda: left, draw=highest)


def failure(kind, **fields):
    cls, billed = {
        "never_sent": (NetworkError, "no"),
        "throttled": (RateLimitError, "no"),
        "transient": (ServerError, "maybe"),
        "broken": (NetworkError, "maybe"),
        "late": (ServiceTimeoutError, "maybe"),
        "malformed": (ResponseError, "yes"),
        "refused": (RefusedError, "no"),
        "quota": (QuotaError, "no"),
        "breaker": (ServerError, "no"),
    }[kind]
    return cls(kind, kind=kind, **{"billed": billed, **fields})


def retries(kind, **settings):
    """How often a request that fails for ever in one way is sent again."""
    state, n = tries(**settings), 0
    while state.again(failure(kind)):
        n += 1
        assert n < 100
    return n


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 2 "}, 2.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, math.inf),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e400"}, math.inf),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "5, 10"}, None),
        ({"retry-after-ms": "50"}, 0.05),
        ({"retry-after-ms": "50", "retry-after": "9"}, 0.05),
        ({"retry-after-ms": "0", "retry-after": "9"}, 0.0),
        ({"retry-after-ms": "junk", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-5", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": SERVER}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:59:59 GMT", "date": SERVER}, None),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:05 GMT"}, 5.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:05 GMT", "date": "junk"}, 5.0),
        ({"retry-after": "Sunday, 22-Nov-26 12:00:05 GMT"}, 5.0),
        ({"retry-after": "Sun Nov 22 12:00:05 2026"}, 5.0),
        ({"retry-after": "Sun, 22 Nov 2026 14:00:05 +0200"}, 5.0),
        ({"retry-after": "Sun, 99 Nov 2026 12:00:05 GMT"}, None),
    ],
)
def test_the_wait_a_server_asks_for_is_read_from_its_headers(headers, seconds):
    assert retry_after(headers, NOW) == seconds


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_header_can_raise_or_ask_for_an_absurd_wait(hint, milliseconds, date):
    seconds = retry_after({"retry-after": hint, "retry-after-ms": milliseconds, "date": date}, NOW)

    assert seconds is None or seconds >= 0


@given(st.text(alphabet="0123456789 :,-+GMTJanFebSu.()\\<>@\"'[]", max_size=40))
def test_what_looks_nearly_like_a_date_raises_nothing(hint):
    seconds = retry_after({"retry-after": hint}, NOW)

    assert seconds is None or seconds >= 0


@given(st.integers(0, 10**6), st.integers(0, 4 * 10**9))
def test_a_date_is_measured_by_the_clock_of_the_server(seconds, sent):
    sent = dt.datetime.fromtimestamp(sent, dt.UTC)
    until = sent + dt.timedelta(seconds=seconds)
    headers = {"date": format_datetime(sent, usegmt=True), "retry-after": format_datetime(until, usegmt=True)}

    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("kind", "call", "job"),
    [
        ("never_sent", 5, 11),
        ("transient", 5, 11),
        ("throttled", 12, 12),
        ("broken", 2, 2),
        ("late", 1, 1),
        ("malformed", 1, 1),
        ("refused", 0, 0),
        ("quota", 0, 0),
        ("breaker", 0, 0),
    ],
)
def test_each_kind_of_failure_is_asked_again_as_often_as_its_class_allows(kind, call, job):
    assert retries(kind) == call
    assert retries(kind, job=True) == job


@pytest.mark.parametrize("kind", ["never_sent", "transient", "throttled", "broken", "late", "malformed"])
def test_one_attempt_means_no_retry_whatever_happens(kind):
    assert retries(kind, policy=Retry(attempts=1)) == 0
    assert retries(kind, policy=Retry(job_attempts=1), job=True) == 0


def test_rejections_do_not_count_as_attempts():
    state = tries(Retry(attempts=2))

    for _ in range(5):
        assert state.again(failure("throttled"))
    assert state.again(failure("transient"))
    assert not state.again(failure("transient"))


def test_different_faults_share_the_attempts():
    state = tries(Retry(attempts=4))

    assert [state.again(failure(kind)) for kind in ("transient", "broken", "never_sent", "late")] == [True] * 3 + [
        False
    ]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), ConfigError("x"), MemoryError()])
def test_what_is_no_failure_of_a_request_is_final_and_not_noted(error):
    state = tries()

    assert not state.again(error)
    assert state.failures == []


@pytest.mark.parametrize("kind", ["transient", "throttled", "never_sent", "refused"])
def test_a_server_that_says_not_to_retry_is_obeyed(kind):
    assert not tries().again(failure(kind, should_retry=False))


def test_a_server_that_says_to_retry_a_refusal_is_obeyed_once():
    state = tries()

    assert state.again(failure("refused", status=409, should_retry=True))
    assert not state.again(failure("refused", status=409, should_retry=True))


@pytest.mark.parametrize(
    "error",
    [
        AuthError("wrong key", kind="refused", status=401, should_retry=True),
        AuthError("not allowed", kind="refused", status=403, should_retry=True),
        QuotaError("no money", kind="quota", status=429, should_retry=True),
    ],
)
def test_a_wrong_key_and_an_empty_account_are_final_even_if_the_server_says_to_retry(error):
    assert not tries().again(error)


def test_a_refusal_is_final_with_retrying_switched_off_even_if_the_server_says_to_retry():
    assert not tries(Retry(attempts=1)).again(failure("refused", should_retry=True))


def test_a_granted_retry_of_a_refusal_waits_as_long_as_asked():
    state = tries()

    assert state.again(failure("refused", should_retry=True, retry_after=3.0))
    assert state.wait == 3.0


@pytest.mark.parametrize("kind", ["throttled", "transient", "never_sent"])
def test_a_longer_wait_than_the_patience_is_an_error_that_carries_it(kind):
    error = failure(kind, retry_after=60.5)

    assert not tries().again(error)
    assert error.retry_after == 60.5
    assert tries(job=True).again(failure(kind, retry_after=60.5))
    assert not tries(job=True).again(failure(kind, retry_after=601.0))


def test_a_fault_waits_with_jitter_that_doubles_up_to_its_bound():
    state, waits = tries(Retry(attempts=9)), []

    while state.again(failure("transient")):
        waits.append(state.wait)

    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_fault_with_a_hint_waits_at_least_as_long_as_asked():
    state = tries()

    assert state.again(failure("transient", retry_after=5.0))
    assert state.wait == 5.0


def test_a_rejection_waits_at_the_gate_and_not_here():
    state = tries()

    assert state.again(failure("throttled", retry_after=5.0))
    assert state.wait == 0.0


def test_no_wait_is_begun_that_would_pass_the_deadline():
    assert tries(left=0.26).again(failure("transient"))
    assert not tries(left=0.25).again(failure("transient"))
    assert not tries(left=5.0).again(failure("throttled", retry_after=5.0))
    assert not tries(left=0.0).again(failure("malformed"))


def test_every_retry_of_a_fault_is_paid_for_and_remembered():
    paid = []

    def spend(error, cost):
        paid.append((error.kind, cost))
        return True

    state = tries(spend=spend)
    for kind in ("transient", "broken", "late", "never_sent", "throttled", "malformed"):
        assert state.again(failure(kind))

    assert paid == [("transient", 10), ("broken", 10), ("late", 20), ("never_sent", 10), ("throttled", 0)]
    assert state.spent == 50


def test_an_empty_purse_ends_a_call_and_lets_a_job_go_on_unpaid():
    call, job = (tries(job=job, spend=lambda error, cost: False) for job in (False, True))

    assert not call.again(failure("transient"))
    assert job.again(failure("transient"))
    assert job.spent == 0


def test_the_last_error_says_how_many_attempts_there_were_and_what_all_may_have_cost():
    state, last = tries(), failure("refused")
    for kind in ("throttled", "broken", "malformed"):
        state.again(failure(kind))

    state.again(last)

    assert (last.attempts, last.billed, state.maybe_billed) == (4, "yes", 2)


@pytest.mark.parametrize(
    ("kinds", "billed"),
    [(["throttled", "refused"], "no"), (["broken", "refused"], "maybe"), (["malformed", "late"], "yes")],
)
def test_the_dearest_try_decides_what_the_last_error_says_about_billing(kinds, billed):
    state, errors = tries(), [failure(kind) for kind in kinds]

    for error in errors:
        state.again(error)

    assert errors[-1].billed == billed


def test_a_request_that_was_not_even_tried_is_no_attempt():
    state, refused = tries(), failure("breaker")

    state.again(refused)

    assert refused.attempts == 0


@given(st.integers(0, 10_000), st.floats(0, 1e6), st.floats(0, 1e6))
def test_jitter_stays_between_zero_and_its_bounds(n, first, longest):
    low_high = []

    def draw(low, high):
        low_high.append((low, high))
        return high

    wait = Retry(first=first, longest=longest).jitter(n, draw)

    assert 0 <= wait <= longest
    assert wait <= first * 2.0 ** min(n, 64)
    assert low_high == [(0.0, wait)]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Retry(attempts=0), "Retry.attempts must be a number of at least 1, not 0"),
        (lambda: Retry(job_attempts=0), "Retry.job_attempts"),
        (lambda: Retry(rejections=-1), "Retry.rejections must be a number of at least 0, not -1"),
        (lambda: Retry(broken=-1), "Retry.broken"),
        (lambda: Retry(late=-1), "Retry.late"),
        (lambda: Retry(malformed=-1), "Retry.malformed"),
        (lambda: Retry(first=math.nan), "Retry.first must be a number of at least 0, not nan"),
        (lambda: Retry(longest=math.inf), "Retry.longest"),
        (lambda: Retry(patience=-0.1), "Retry.patience"),
        (lambda: Retry(job_patience=-0.1), "Retry.job_patience"),
        (lambda: Budget(tokens=-1), "Budget.tokens"),
        (lambda: Budget(retry=math.inf), "Budget.retry"),
        (lambda: Budget(late=math.nan), "Budget.late"),
        (lambda: Budget(success=-1), "Budget.success"),
        (lambda: Pace(requests=0), "Pace.requests must be a number above 0 or None, not 0"),
        (lambda: Pace(tokens=-1), "Pace.tokens"),
        (lambda: Pace(tokens=math.inf), "Pace.tokens"),
        (lambda: Pace(requests=math.nan), "Pace.requests"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_with_its_name_and_value(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_policies_are_values():
    assert Retry() == Retry()
    assert Retry(attempts=2) == replace(Retry(), attempts=2)
    assert hash(Pace(requests=5)) == hash(Pace(requests=5))
    assert "attempts=6" in repr(Retry())


def test_tenacity_asks_again_after_the_wait_of_the_policy():
    slept, answers = [], [failure("transient"), failure("transient"), "answer"]

    def send():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    state = tries()

    assert Retry().waiting(state, slept.append)(send) == "answer"
    assert slept == [0.25, 0.5]
    assert len(state.failures) == 2


def test_tenacity_raises_the_last_failure_as_itself():
    last = failure("refused")

    def send():
        raise last

    with pytest.raises(RefusedError) as caught:
        Retry().waiting(tries(), lambda seconds: None)(send)

    assert caught.value is last
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_each_request_gets_its_own_tenacity_object():
    policy = Retry()

    assert policy.awaiting(tries(), lambda seconds: None) is not policy.awaiting(tries(), lambda seconds: None)
    assert isinstance(policy.awaiting(tries(), lambda seconds: None), tenacity.AsyncRetrying)


@pytest.mark.case("N02")
def test_the_budget_pays_three_retries_of_a_request_that_never_left():
    paid = []
    asked = tries(job=True, spend=lambda error, cost: paid.append(cost) or True)

    assert all(asked.again(failure("never_sent")) for _ in range(6))
    assert paid == [10, 10, 10, 0, 0, 0]
    assert asked.spent == 30


@pytest.mark.case("N01")
@pytest.mark.parametrize("job", [False, True])
def test_a_name_that_is_not_known_is_looked_up_three_times(job):
    asked = tries(job=job)

    assert [asked.again(failure("never_sent", code="unknown_host")) for _ in range(3)] == [True, True, False]
