"""Token buckets against plain arithmetic, and lengths of time against their own reading."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.local.buckets import Bucket, duration
from voxvec.testing import Limits

UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}


def seconds(text):
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", text)
    assert "".join(map("".join, parts)) == text
    return sum(float(number) * UNITS[unit] for number, unit in parts)


@given(st.floats(0, 1e6))
def test_a_length_of_time_is_written_to_the_millisecond_and_never_too_short(length):
    assert -1e-6 < seconds(duration(length)) - length < 0.001 + 1e-6


@pytest.mark.parametrize(
    ("length", "text"),
    [(0, "0s"), (1e-4, "1ms"), (0.012, "12ms"), (0.9999, "1s"), (59.9999, "1m0s"), (360, "6m0s"), (3600, "1h0m0s")],
)
def test_a_length_of_time_is_written_as_openai_does(length, text):
    assert duration(length) == text


@given(
    st.floats(0.1, 1000),
    st.floats(1, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2000)), max_size=30),
)
def test_a_bucket_never_gives_more_than_it_held_and_gained_and_never_waits_in_vain(rate, size, steps):
    bucket, now, taken = Bucket(rate, size), 0.0, 0.0
    for pause, cost in steps:
        now += pause
        wait = bucket.wait(cost, now)
        if cost > size:
            assert math.isinf(wait)
            continue
        assert bucket.wait(cost, now + wait) < 1e-6
        now += wait
        bucket.take(cost, now)
        taken += cost
        assert taken <= size + rate * now + 1e-3
        assert 0 <= bucket.level(now) <= size
        assert bucket.level(now + bucket.full(now)) == pytest.approx(size)


def test_what_is_taken_stands_in_the_headers_and_comes_back():
    buckets = Limits(requests=120, tokens=6000, burst=5).buckets()

    refusal, first = buckets.take(tokens=100, now=0)
    _, later = buckets.take(tokens=0, now=0.25)

    assert refusal is None
    assert first == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "500ms",
        "x-ratelimit-limit-tokens": "500",
        "x-ratelimit-remaining-tokens": "400",
        "x-ratelimit-reset-tokens": "1s",
    }
    assert (later["x-ratelimit-remaining-tokens"], later["x-ratelimit-reset-tokens"]) == ("425", "750ms")


@pytest.mark.parametrize(
    ("limits", "kind", "message"),
    [
        (Limits(requests=60, burst=2), "requests", r"requests per min \(RPM\): Limit 60, Requested 1\. .* in 1s\."),
        (Limits(tokens=600, burst=2), "tokens", r"tokens per min \(TPM\): Limit 600, Requested 10\. .* in 1s\."),
    ],
)
def test_an_empty_bucket_is_told_with_the_time_until_there_is_enough(limits, kind, message):
    buckets = limits.buckets()
    assert [buckets.take(10, 0)[0] for _ in range(2)] == [None, None]

    refusal, told = buckets.take(10, 0)

    error = json.loads(refusal.body)["error"]
    assert (refusal.status, error["type"], error["code"]) == (429, kind, "rate_limit_exceeded")
    assert re.search(message, error["message"])
    assert (refusal.headers["retry-after-ms"], refusal.headers["retry-after"]) == ("1000", "1")
    assert told.items() <= refusal.headers.items()
    assert buckets.take(10, 0.99)[0] is not None
    assert buckets.take(10, 1.0)[0] is None


def test_a_refused_request_takes_nothing_out_of_any_bucket():
    buckets = Limits(requests=60, tokens=60, burst=2).buckets()
    buckets.take(2, 0)

    for _ in range(5):
        assert buckets.take(1, 0)[0] is not None

    assert buckets.take(0, 0)[0] is None


def test_a_request_that_no_bucket_can_hold_is_told_so_without_a_time():
    refusal, _ = Limits(tokens=60, burst=2).buckets().take(3, 0)

    assert "Request too large" in refusal.body.decode()
    assert not {"retry-after", "retry-after-ms"} & refusal.headers.keys()


def test_without_limits_nothing_is_refused_and_nothing_told():
    assert Limits().buckets().take(1e9, 0) == (None, {})


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"requests": 0}, ValueError, "Limits.requests must be above 0, not 0"),
        ({"tokens": float("inf")}, ValueError, "Limits.tokens must be above 0, not inf"),
        ({"requests": "60"}, TypeError, "Limits.requests must be a number, not str"),
        ({"tokens": True}, TypeError, "Limits.tokens must be a number, not bool"),
        ({"burst": None}, TypeError, "Limits.burst must be a number, not NoneType"),
        ({"burst": -1}, ValueError, "Limits.burst must be above 0, not -1"),
    ],
)
def test_limits_that_cannot_be_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        Limits(**settings)
