import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec._pace import Bucket, Felt, Limit, Limits, Pacer, Stated, limits
from voxvec.policy import Pace


def headers(size, left, reset=None, unit="requests"):
    said = {f"x-ratelimit-limit-{unit}": size, f"x-ratelimit-remaining-{unit}": left}
    return {**said, f"x-ratelimit-reset-{unit}": reset} if reset is not None else said


# --- what a server says


@pytest.mark.case("H07")
@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("12ms", 0.012),
        ("1d", 86_400.0),
        ("250us", 0.00025),
        ("2.", 2.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("0s", 0.0),
        (" 3S ", 3.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("-5s", None),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        ("soon", None),
        ("1.2.3s", None),
        ("3x", None),
        ("2026-11-22T12:00:00Z", None),
        ("9" * 60 + "h", 1e12),
    ],
)
def test_the_time_until_a_limit_is_made_good_is_read_in_every_spelling(reset, seconds):
    said = limits(headers("60", "6", reset)).requests

    assert (said.size, said.left) == (60.0, 6.0)
    assert said.full_in == pytest.approx(seconds)


@pytest.mark.case("H07")
@pytest.mark.parametrize(
    "said",
    [
        {},
        headers("-1", "-1"),
        headers("0", "0"),
        headers("0.5", "0"),
        headers("many", "few"),
        headers("60", "-1"),
        headers("60", "nan"),
        headers("inf", "inf"),
        headers("1e13", "5"),
        {"x-ratelimit-limit-requests": "60"},
        {"x-ratelimit-remaining-requests": "60"},
    ],
)
def test_what_is_no_limit_is_passed_over(said):
    assert limits(said) == Limits()


def test_limits_on_tokens_are_read_beside_those_on_requests():
    said = limits({**headers("60", "59", "1s"), **headers("150000", "0", "60s", unit="tokens")})

    assert said == Limits(requests=Limit(60.0, 59.0, 1.0), tokens=Limit(150_000.0, 0.0, 60.0))


def test_more_left_than_there_is_means_all_of_it():
    assert limits(headers("60", "90")).requests == Limit(60.0, 60.0)


@given(st.text(max_size=80), st.text(max_size=80), st.text(alphabet="0123456789.hmsuµnd -", max_size=80))
def test_no_header_can_raise_or_ask_for_an_absurd_pace(size, left, reset):
    said = limits(headers(size, left, reset)).requests

    assert said is None or (1 <= said.size <= 1e12 and 0 <= said.left <= said.size and math.isfinite(said.rate))


@given(st.floats(1, 1e12), st.floats(0, 1), st.none() | st.floats(0, 1e12))
def test_a_rate_fills_its_limit_in_seconds_or_minutes_whatever_is_said(size, share, full_in):
    rate = Limit(size, size * share, full_in).rate

    assert 0.1 * (1 - 1e-9) <= size / rate <= 120.0 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        (Limit(5_000, 4_999, 0.012), 1 / 0.012),  # OpenAI: 5,000 per minute
        (Limit(20, 0, 1.0), 20.0),
        (Limit(60, 0), 1.0),
        (Limit(60, 0, 0.0), 1.0),
        (Limit(60, 60, 0.0), 1.0),
        (Limit(60, 6, 1_732_450_000.0), 1.0),  # a date, not a time
        (Limit(200, 0, 86_400.0), 200 / 60),  # per day, which no pace can keep
        (Limit(1_000, 0, 1e-6), 1_000 / 60),
    ],
)
def test_the_rate_is_what_is_used_over_the_time_it_takes_to_make_it_good(limit, rate):
    assert limit.rate == pytest.approx(rate)


# --- by hand


@given(st.floats(1, 10_000), st.lists(st.tuples(st.floats(0, 5), st.integers(1, 500)), max_size=30))
def test_no_span_of_time_sees_more_than_the_rate_and_what_began_it(rate, wishes):
    bucket, now, taken = Bucket(rate), 0.0, []
    for later, units in wishes:
        now += later
        now += bucket.wait(now)
        bucket.take(units, now)
        taken.append((now, units))

    for at, (start, _) in enumerate(taken):
        for end in range(at + 1, len(taken)):
            used = sum(units for _, units in taken[at:end])
            assert used <= (taken[end][0] - start) * rate / 60 * (1 + 1e-6) + 1e-6


# --- by what the server says


def test_with_plenty_left_nobody_waits():
    stated = Stated()
    assert stated.wait(0.0) == 0.0

    stated.heard(Limit(5_000, 4_000, 12.0), 15, 0.0)

    for _ in range(400):
        assert stated.wait(0.0) == 0.0
        stated.take(0.0)


@pytest.mark.case("F37")
def test_with_a_tenth_left_requests_go_at_95_percent_of_the_rate():
    stated, now, sent = Stated(), 0.0, []
    stated.heard(Limit(20, 2, 0.9), 0, 0.0)
    while len(sent) < 20:
        now += stated.wait(now)
        sent.append(now)
        stated.take(now)

    assert (len(sent) - 1) / (sent[-1] - sent[0]) == pytest.approx(0.95 * 20, rel=1e-3)


def test_what_is_on_its_way_may_not_be_counted_yet():
    stated = Stated()
    stated.heard(Limit(100, 40, 36.0), 20, 0.0)  # 40 - 20 - a tenth of 100

    free = 0
    while stated.wait(0.0) == 0.0:
        stated.take(0.0)
        free += 1
    assert free == 10


def test_an_answer_that_was_overtaken_does_not_raise_what_is_left():
    stated = Stated()
    stated.heard(Limit(20, 4, 0.8), 0, 0.0)
    stated.heard(Limit(20, 19, 0.05), 0, 0.0)

    stated.take(0.0)
    stated.take(0.0)
    assert stated.wait(0.0) > 0


def test_after_a_rest_there_is_room_for_a_burst_again():
    stated = Stated()
    stated.heard(Limit(20, 0, 1.0), 0, 0.0)

    free = 0
    while stated.wait(60.0) == 0.0:
        stated.take(60.0)
        free += 1
    assert free == 18


@given(
    st.floats(1, 1_000),
    st.floats(0.2, 100),
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 16)), min_size=1, max_size=60),
)
def test_a_server_that_is_alone_with_its_client_never_has_to_reject(size, filling, wishes):
    """After its first answer a client that hears every answer at once stays within the server's own bucket."""
    stated, left, now, rate = Stated(), size, 0.0, size / filling
    stated.heard(Limit(size, left, 0.0), 0, now)
    for rest, burst in wishes:
        now, left = now + rest, min(size, left + rest * rate)
        for _ in range(burst):
            wait = stated.wait(now)
            now, left = now + wait, min(size, left + wait * rate)
            stated.take(now)
            assert left >= 0.99
            left -= 1
            stated.heard(Limit(size, max(0.0, left), (size - left) / rate), 0, now)


# --- by what the server rejects


def load(felt, seconds, rate, start=0.0):
    for n in range(int(seconds * rate) + 1):
        felt.take(start + n / rate, alone=False)
        felt.accepted(start + n / rate)


def test_without_a_rejection_there_is_no_rate():
    felt = Felt()
    load(felt, 5.0, 10)

    assert felt.rate(5.0) == math.inf
    assert felt.wait(5.0) == 0.0


def test_a_rejection_leaves_70_percent_of_the_rate_which_then_grows_by_5_percent_a_second():
    felt = Felt()
    load(felt, 5.0, 10)

    felt.rejected(5.0, 6.0, hard=False)

    assert felt.rate(5.0) == felt.rate(6.0) == pytest.approx(7.0)
    assert felt.rate(8.0) == pytest.approx(8.0)
    felt.take(8.0, alone=False)
    assert felt.wait(8.0) == pytest.approx(1 / 8.0)


@pytest.mark.case("H10")
def test_slow_down_leaves_half_of_the_rate_which_grows_by_half_a_minute_at_most():
    felt = Felt()
    load(felt, 5.0, 10)

    felt.rejected(5.0, 5.0, hard=True)

    assert felt.rate(5.0) == pytest.approx(5.0)
    for minute in range(10):
        start = 5.0 + 60 * minute
        assert felt.rate(start + 60.0) <= 1.5 * felt.rate(start) * (1 + 1e-9)
    assert felt.rate(65.0) == pytest.approx(7.5)


def test_the_rate_never_falls_below_one_request_in_two_seconds():
    felt = Felt()
    load(felt, 9.0, 0.5)
    for second in range(10):
        felt.rejected(9.0 + second, 9.0 + second, hard=True)

    assert felt.rate(19.0) >= 0.5


def test_a_rejection_at_the_very_start_says_nothing_about_the_rate():
    felt = Felt()
    felt.rejected(0.0, 1.0, hard=False)
    felt.accepted(1.0)
    felt.rejected(1.0, 2.0, hard=False)

    assert felt.rate(2.0) == math.inf


def test_successes_before_a_rest_say_nothing_about_the_load_after_it():
    felt = Felt()
    for now in (0.0, 4.0):
        felt.take(now, alone=True)
        felt.accepted(now)
    felt.take(8.0, alone=True)

    felt.rejected(8.1, 9.0, hard=False)

    assert felt.rate(9.0) == math.inf


def test_successes_of_long_ago_say_nothing():
    felt = Felt()
    load(felt, 5.0, 10)

    felt.rejected(60.0, 60.0, hard=False)

    assert felt.rate(60.0) == math.inf


# --- together


def test_a_pace_set_by_hand_stays_the_upper_bound():
    pacer = Pacer(Pace(requests=60))
    pacer.heard(Limits(requests=Limit(5_000, 5_000)), 0, 0.0)
    pacer.take(1, 0.0, alone=True)

    assert pacer.wait(0.0) == 1.0


def test_a_stated_limit_counts_where_it_is_slower_than_the_pace_set_by_hand():
    pacer = Pacer(Pace(requests=6_000))
    pacer.heard(Limits(requests=Limit(60, 0, 60.0)), 0, 0.0)
    pacer.take(1, 0.0, alone=True)

    assert pacer.wait(0.0) == pytest.approx(1 / 0.95, rel=1e-3)


def test_limits_on_tokens_alone_change_nothing_yet():
    pacer = Pacer(Pace())
    pacer.heard(Limits(tokens=Limit(60, 0, 60.0)), 0, 0.0)

    assert pacer.wait(0.0) == 0.0
