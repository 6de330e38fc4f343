"""What the headers of an answer say about trying again, and whether whole clients do it."""

import datetime as dt
import itertools
import math
import pickle
from email.utils import format_datetime

import pytest

import voxvec as vv
from voxvec import errors
from voxvec.testing import Fault, Limits

SMALL = vv.models.find("text-embedding-3-small", dims=8)
ONE = SMALL.replace(max_items=1)
TEXTS = ["cat", "dog", "eel"]
NOW = dt.datetime(2026, 11, 22, 12, 0, 0, tzinfo=dt.UTC)


def date(seconds):
    return format_datetime(NOW + dt.timedelta(seconds=seconds), usegmt=True)


@pytest.fixture
def after(twin, timed, clock):
    """What an embedder does after a fault with such headers: requests, seconds waited, and what it raised."""

    def embed(status=429, **settings):
        fake = timed()
        times, code = settings.pop("times", 1), settings.pop("code", None)
        fake.misbehave(Fault(status=status, code=code, headers=settings), times=times)
        try:
            vectors, error = twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS), None
        except vv.VoxvecError as failure:
            vectors, error = failure.partial, failure
        assert (vectors.usage.requests, vectors.usage.retries) == (fake.asked, fake.asked - 1)
        assert fake.forbidden == 0
        return fake.asked, sum(clock.waits), error

    return embed


@pytest.mark.case("H01")
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
def test_a_wait_of_0_means_a_tenth_of_a_second(after, name):
    requests, waited, error = after(**{name: "0"})

    assert (requests, error) == (2, None)
    assert 0.1 <= waited <= 0.1 * 1.125


@pytest.mark.case("H02")
@pytest.mark.parametrize("value", ["-1", "nan", "abc", "1, 2", date(-1), "", "-inf"])
def test_nonsense_is_passed_over_for_our_own_wait(after, value):
    requests, waited, error = after(**{"retry-after": value, "date": date(0)})

    assert (requests, error) == (2, None)
    assert 0.25 <= waited <= 0.5


@pytest.mark.case("H03")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("inf", math.inf),
        ("1e400", math.inf),
        ("315360000", 315_360_000.0),
        (date(315_360_000), 315_360_000.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_wait_of_years_fails_at_once_and_stands_on_the_error(after, status, value, seconds):
    requests, waited, error = after(status, **{"retry-after": value, "date": date(0)})

    assert (requests, waited) == (1, 0)
    assert (error.retry_after, error.attempts) == (seconds, 1)
    assert pickle.loads(pickle.dumps(error)).retry_after == seconds  # noqa: S301 -- our own


@pytest.mark.case("H04")
def test_milliseconds_count_before_seconds(after):
    requests, waited, error = after(**{"retry-after": "30", "retry-after-ms": "400"})

    assert (requests, error) == (2, None)
    assert 0.4 <= waited <= 0.45


@pytest.mark.case("H05")
@pytest.mark.parametrize("off", [-3_600, 0, 3_600])
def test_a_date_is_read_by_the_servers_own_clock(after, off):
    requests, waited, error = after(**{"retry-after": date(off + 2), "date": date(off)})

    assert (requests, error) == (2, None)
    assert 2.0 <= waited <= 2.25


@pytest.mark.case("H06")
def test_the_server_may_grant_one_more_request(after):
    requests, _, error = after(400, times=9, **{"x-should-retry": "true"})

    assert (requests, type(error), error.attempts) == (2, errors.RefusedError, 2)


@pytest.mark.case("H06")
def test_a_request_that_was_granted_and_succeeds_is_right(after):
    assert after(409, times=1, **{"x-should-retry": "true"})[::2] == (2, None)
    assert after(400, times=1, **{"x-should-retry": "true"})[::2] == (2, None)


@pytest.mark.case("H06")
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, None, errors.AuthError),
        (403, None, errors.AuthError),
        (429, "insufficient_quota", errors.QuotaError),
    ],
)
def test_no_more_requests_are_granted_to_a_wrong_key_or_an_empty_account(after, status, code, kind):
    requests, waited, error = after(status, times=9, code=code, **{"x-should-retry": "true"})

    assert (requests, waited, type(error), error.attempts) == (1, 0, kind, 1)


@pytest.mark.case("H07")
@pytest.mark.parametrize(
    ("said", "slowest"),
    [
        ({}, 0.0),
        ({"limit": "-1", "remaining": "-1"}, 0.0),
        ({"limit": "0", "remaining": "0"}, 0.0),
        ({"limit": "60", "remaining": "junk", "reset": "1m"}, 0.0),
        ({"limit": "60", "remaining": "60", "reset": "0s"}, 0.0),
        ({"limit": "60", "remaining": "0", "reset": "1m0s"}, 1 / 0.95),
        ({"limit": "60", "remaining": "0", "reset": "60000ms"}, 1 / 0.95),
        ({"limit": "60", "remaining": "0", "reset": "60"}, 1 / 0.95),
        ({"limit": "60", "remaining": "0", "reset": "junk"}, 1 / 0.95),
        ({"limit": "60", "remaining": "0", "reset": "-1"}, 1 / 0.95),
        ({"limit": "60", "remaining": "0"}, 1 / 0.95),
        ({"limit": "60", "remaining": "0", "reset": "6m0s"}, 1 / 0.95),
    ],
)
def test_the_pace_follows_what_the_headers_say_where_they_make_sense(twin, timed, clock, said, slowest):
    fake = timed()
    headers = {f"x-ratelimit-{name}-requests": value for name, value in said.items()}
    fake.misbehave(Fault(headers={"x-other": "1", **headers}), times=None)

    vectors = twin.embedder(ONE, client=twin.client(fake), workers=1).embed([f"text {n}" for n in range(6)])

    assert len(vectors) == fake.asked == 6
    assert clock.waits[1:] == pytest.approx([slowest] * (len(clock.waits) - 1), rel=0.01)
    assert bool(clock.waits) == bool(slowest)


@pytest.mark.case("H07")
def test_a_refusal_teaches_the_pace_as_a_success_does(twin, timed):
    fake = timed()
    told = {f"x-ratelimit-{name}-requests": value for name, value in {"limit": "20", "remaining": "1"}.items()}
    fake.misbehave(Fault(status=400, headers=told))
    with pytest.raises(errors.RefusedError) as caught:
        twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS)

    assert (caught.value.limits.requests.size, caught.value.limits.requests.left) == (20.0, 1.0)
    assert pickle.loads(pickle.dumps(caught.value)).limits == caught.value.limits  # noqa: S301 -- our own


@pytest.mark.case("H08")
def test_an_answer_without_a_content_type_is_read(twin, timed, vectors_of):
    fake = timed()
    fake.misbehave(Fault(headers={"content-type": None}))

    vectors = twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS)

    assert vectors.array.tolist() == vectors_of(TEXTS, dims=8)
    assert fake.asked == 1


@pytest.mark.case("H10")
@pytest.mark.parametrize("status", [429, 503])
def test_slow_down_within_the_limits_halves_the_rate_and_lets_it_come_back_in_steps(twin, timed, clock, status):
    fake, start = timed(limits=Limits(requests=60_000)), clock.now()
    fake.misbehave(Fault(status=status, code="slow_down", retry_after=1.0), at=31)
    pace = vv.Pace(requests=600)  # ten a second, until the server finds it too many

    vectors = twin.embedder(ONE, client=twin.client(fake), workers=1, pace=pace).embed([f"t {n}" for n in range(80)])

    assert len(vectors) == 80
    assert (fake.asked, fake.forbidden) == (81, 0)
    arrived = [asked.arrived for asked in fake.requests]
    before, slow = arrived[:30], arrived[32:]
    assert before[-1] - start == pytest.approx(2.9, abs=0.2)
    gaps = [later - sooner for sooner, later in itertools.pairwise(slow)]
    assert gaps[0] == pytest.approx(1 / 5, rel=0.1)
    assert len(slow) / (slow[-1] - slow[0]) <= 5 * 1.5
    for sooner, later in itertools.pairwise(gaps):
        assert later >= sooner / 1.5


@pytest.mark.case("H11")
def test_an_overloaded_server_that_names_a_wait_is_waited_for_by_everybody(after):
    requests, waited, error = after(503, times=8, code="server_is_overloaded", **{"retry-after": "2"})

    assert (requests, error) == (9, None)  # more than the attempts of a call: rejections are none
    assert 16.0 <= waited <= 18.0


@pytest.mark.case("H11")
def test_an_overloaded_server_that_names_no_wait_is_tried_again_like_a_broken_one(after):
    requests, waited, error = after(503, times=99, code="server_is_overloaded")

    assert (requests, type(error), error.kind, error.attempts) == (6, errors.ServerError, "transient", 6)
    assert waited <= 0.25 + 0.5 + 1 + 2 + 4
