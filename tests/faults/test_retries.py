"""What is asked again and when, through whole clients; the storms of `tests.faults.figures` hold the numbers."""

import time

import pytest
from tests.faults import figures, virtual

import voxvec as vv
from voxvec import errors
from voxvec.testing import Fault, Limits

SMALL = vv.models.find("text-embedding-3-small", dims=8)
ONE = SMALL.replace(max_items=1)
TEXTS = ["cat", "dog", "eel"]


def texts(n):
    return [f"text {at}" for at in range(n)]


def adds_up(fake, usage, *, batches, maybe_billed=0):
    """Whether a call counted its requests as the server did."""
    return (usage.requests, usage.retries, usage.maybe_billed) == (fake.asked, fake.asked - batches, maybe_billed)


def fails(kind, work):
    with pytest.raises(kind) as caught:
        work()
    assert type(caught.value) is kind
    return caught.value


# --- an account without money


QUOTA = [
    pytest.param("insufficient_quota", marks=pytest.mark.case("F26")),
    *(
        pytest.param(code, marks=pytest.mark.case("F27"))
        for code in (
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
        )
    ),
]


@pytest.mark.parametrize("code", QUOTA)
def test_an_empty_account_is_an_error_at_once_and_nobody_asks_again_for_a_minute(twin, timed, clock, code):
    fake = timed()
    fake.misbehave(Fault(status=429, code=code, retry_after=1.0), times=None)
    embedder = twin.embedder(SMALL, client=twin.client(fake))

    first = fails(errors.QuotaError, lambda: embedder.embed(TEXTS))
    later = fails(errors.QuotaError, lambda: embedder.embed_one("gnu"))

    assert (first.kind, first.code, first.attempts, first.billed) == ("quota", code, 1, "no")
    assert (later.kind, later.attempts) == ("breaker", 0)
    assert 59 <= later.retry_after <= 60
    assert (fake.asked, clock.waits) == (1, [])


@pytest.mark.case("F27")
def test_a_quota_told_by_its_type_alone_is_one(twin, timed):
    fake = timed()
    body = {"error": {"message": "no money", "type": "insufficient_quota", "code": "something_new", "param": None}}
    fake.misbehave(Fault(status=429, body=body), times=None)

    error = fails(errors.QuotaError, lambda: twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS))

    assert (error.code, fake.asked) == ("something_new", 1)


@pytest.mark.case("F26")
@pytest.mark.parametrize("on_error", ["raise", "keep"])
def test_a_call_of_many_requests_stops_at_an_empty_account_and_keeps_what_it_has(twin, timed, vectors_of, on_error):
    fake, cache = timed(), vv.MemoryCache()
    fake.misbehave(Fault(status=429, code="insufficient_quota"), at=range(12, 1_000))
    embedder = twin.embedder(ONE, client=twin.client(fake), cache=cache, workers=4)

    if on_error == "raise":
        error = fails(errors.QuotaError, lambda: embedder.embed(texts(40)))
        bought = error.partial
        assert (error.done, error.done + error.failed + error.pending) == (11, 40)
        assert 1 <= error.failed <= 4
    else:
        bought = embedder.embed(texts(40), on_error="keep")
    asked = fake.asked
    had = [at for at in range(40) if at not in bought.failed]

    assert asked <= 11 + 4
    assert adds_up(fake, bought.usage, batches=asked)
    assert len(had) == fake.billed == 11
    assert bought.array[had].tolist() == vectors_of([f"text {at}" for at in had], dims=8)
    again = twin.embedder(ONE, client=twin.client(fake), cache=cache)
    assert len(again.embed([f"text {at}" for at in had])) == 11
    assert fake.asked == asked


# --- waits that the server asks for


@pytest.mark.case("F28")
def test_a_wait_in_milliseconds_is_kept(twin, timed, clock):
    fake = timed()
    fake.misbehave(Fault(status=429, headers={"retry-after-ms": "250"}))

    vectors = twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS)

    assert adds_up(fake, vectors.usage, batches=1)
    assert (fake.asked, fake.forbidden) == (2, 0)
    assert 0.25 <= sum(clock.waits) <= 0.25 * 1.125


@pytest.mark.case("F29")
def test_a_wait_of_an_hour_is_an_error_at_once_and_stands_on_it(twin, timed, clock):
    fake = timed()
    fake.misbehave(Fault(status=429, retry_after=3_600.0))
    embedder = twin.embedder(SMALL, client=twin.client(fake))

    first = fails(errors.RateLimitError, lambda: embedder.embed(TEXTS))
    later = fails(errors.RateLimitError, lambda: embedder.embed(TEXTS))

    assert (first.retry_after, first.attempts, later.attempts) == (3_600.0, 1, 0)
    assert 3_599 <= later.retry_after <= 4_050
    assert (fake.asked, clock.waits) == (1, [])


@pytest.mark.case("F29")
def test_a_call_of_many_requests_may_choose_to_wait_for_an_hour(twin, timed, clock):
    fake = timed()
    fake.misbehave(Fault(status=429, retry_after=3_600.0))
    retry = vv.Retry(job_patience=7_200.0)

    vectors = twin.embedder(ONE, client=twin.client(fake), retry=retry, workers=1).embed(TEXTS)

    assert adds_up(fake, vectors.usage, batches=3)
    assert (fake.asked, fake.forbidden) == (4, 0)
    assert 3_600.0 <= sum(clock.waits) <= 4_050.0


@pytest.mark.case("F39")
def test_while_one_of_eight_workers_is_told_to_wait_nobody_sends(twin, timed, vectors_of):
    fake = timed()
    fake.misbehave(Fault(status=429, retry_after=1.0), at=20)

    vectors = twin.embedder(ONE, client=twin.client(fake), workers=8).embed(texts(60))

    assert vectors.array.tolist() == vectors_of(texts(60), dims=8)
    assert adds_up(fake, vectors.usage, batches=60)
    assert (fake.asked, fake.forbidden) == (61, 0)


# --- what is final


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(
            Fault(status=500, headers={"x-should-retry": "false"}), errors.ServerError, marks=pytest.mark.case("F30")
        ),
        pytest.param(
            Fault(status=429, headers={"x-should-retry": "false"}), errors.RateLimitError, marks=pytest.mark.case("F30")
        ),
        pytest.param(Fault(status=400), errors.RefusedError, marks=pytest.mark.case("F31")),
        pytest.param(Fault(status=404), errors.RefusedError, marks=pytest.mark.case("F31")),
        pytest.param(Fault(status=422), errors.RefusedError, marks=pytest.mark.case("F31")),
        pytest.param(Fault(status=501), errors.RefusedError, marks=pytest.mark.case("F32")),
        pytest.param(Fault(status=505), errors.RefusedError, marks=pytest.mark.case("F32")),
    ],
)
def test_what_is_final_is_asked_once(twin, timed, clock, fault, kind):
    fake, status = timed(), fault.status
    fake.misbehave(fault, times=None)

    error = fails(kind, lambda: twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS))

    assert (error.status, error.attempts, error.retry_after) == (status, 1, None)
    assert (error.done, error.failed, error.pending) == (0, 3, 0)
    assert adds_up(fake, error.partial.usage, batches=1, maybe_billed=int(status == 500))
    assert (fake.asked, fake.billed, clock.waits) == (1, 0, [])


# --- what is ridden out


@pytest.mark.case("F33")
@pytest.mark.parametrize("status", [503, 500, 502, 504, 408, 409, 425, 520, 524, 529])
def test_three_failures_in_a_row_are_ridden_out(twin, timed, clock, vectors_of, status):
    fake = timed()
    fake.misbehave(Fault(status=status), times=3)

    vectors = twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS)

    assert vectors.array.tolist() == vectors_of(TEXTS, dims=8)
    assert adds_up(fake, vectors.usage, batches=1, maybe_billed=0 if status in {503, 529} else 3)
    assert (fake.asked, len(clock.waits)) == (4, 3)
    assert sum(clock.waits) <= 0.25 + 0.5 + 1.0


@pytest.mark.case("F34")
def test_a_storm_met_by_sixty_callers_ends_with_sixty_answers_and_few_requests(twin, timed, clock, together):
    fake, start = timed(), clock.now()
    fake.misbehave(Fault(status=429), when=lambda asked: asked.arrived < start + 3.0, times=None)
    embedder = twin.embedder(SMALL, client=twin.client(fake))

    answers = together(*[lambda at=at: embedder.embed_one(f"text {at}").shape for at in range(60)])

    assert answers == [(8,)] * 60
    assert (fake.billed, fake.paid_again) == (60, 0)
    assert fake.asked <= 90


@pytest.mark.case("F35")
def test_two_hundred_calls_at_once_stay_within_the_workers(twin, timed, together):
    fake = timed()
    embedder = twin.embedder(SMALL, client=twin.client(fake))

    answers = together(*[lambda at=at: embedder.embed_one(f"text {at}").shape for at in range(200)])

    assert answers == [(8,)] * 200
    assert (fake.asked, fake.billed) == (200, 200)
    assert fake.peak <= 16


@pytest.mark.slow
@pytest.mark.case("F36")
def test_a_job_of_four_hundred_requests_rides_out_a_storm_in_its_middle(twin, timed, clock, vectors_of):
    fake = timed()
    over = []  # when the storm that begins with the 150th request ends

    def storms(asked):
        if asked.number == 150:
            over.append(asked.arrived + 2.0)
        return bool(over) and asked.arrived < over[0]

    fake.misbehave(Fault(status=429), when=storms, times=None)

    vectors = twin.embedder(ONE, client=twin.client(fake), workers=8).embed(texts(400))

    assert vectors.array.tolist() == vectors_of(texts(400), dims=8)
    assert adds_up(fake, vectors.usage, batches=400)
    assert fake.billed == 400
    assert fake.asked <= 440


@pytest.mark.case("F37")
def test_a_stated_limit_is_kept_by_pacing_and_not_by_rejections(twin, timed, clock):
    fake, start = timed(limits=Limits(requests=1_200, burst=1.0)), clock.now()

    vectors = twin.embedder(ONE, client=twin.client(fake)).embed(texts(100))

    assert len(vectors) == fake.billed == 100
    assert adds_up(fake, vectors.usage, batches=100)
    assert fake.asked <= 105
    assert clock.now() - start >= (100 - 20) / 20


@pytest.mark.case("F38")
def test_a_quarter_of_failures_is_ridden_out(twin, timed, vectors_of):
    fake = timed(seed=3)
    fake.misbehave(Fault(status=503), times=None, chance=0.25)

    vectors = twin.embedder(ONE, client=twin.client(fake), workers=8).embed(texts(100))

    assert vectors.array.tolist() == vectors_of(texts(100), dims=8)
    assert adds_up(fake, vectors.usage, batches=100)
    assert fake.billed == 100
    assert fake.asked <= 165


@pytest.mark.case("F40")
def test_a_dead_server_is_left_alone_and_the_error_says_how_far_the_call_came(twin, timed):
    fake, cache = timed(), vv.MemoryCache()
    fake.misbehave(Fault(status=500), at=range(21, 10_000), times=None)
    embedder = twin.embedder(ONE, client=twin.client(fake), cache=cache, workers=8)

    error = fails(errors.ServerError, lambda: embedder.embed(texts(100)))

    assert (error.status, error.done) == (500, 20)
    assert error.done + error.failed + error.pending == 100
    assert error.partial.usage.requests == fake.asked
    assert fake.asked <= 20 + 40
    before = fake.asked
    later = fails(errors.ServerError, lambda: embedder.embed_one("gnu"))
    assert (later.kind, later.attempts, fake.asked) == ("breaker", 0, before)
    assert 0 < later.retry_after <= 60


@pytest.mark.case("F40")
@pytest.mark.parametrize(("outage", "retry"), [(6.0, vv.Retry()), (60.0, vv.Retry(probes=12))], ids=["short", "long"])
def test_a_server_that_comes_back_is_found_by_a_probe_and_the_call_goes_on(twin, timed, clock, outage, retry):
    fake, start = timed(), clock.now()
    fake.misbehave(Fault(status=500), when=lambda asked: asked.arrived < start + outage, times=None)

    vectors = twin.embedder(ONE, client=twin.client(fake), workers=8, retry=retry).embed(texts(50))

    assert len(vectors) == fake.billed == 50
    assert fake.asked <= 50 + 40


@pytest.mark.case("F40")
def test_three_wrong_keys_in_a_row_end_the_asking(twin, timed):
    fake = timed()
    fake.misbehave(Fault(status=401), times=None)
    embedder = twin.embedder(SMALL, client=twin.client(fake))

    kinds = [fails(errors.AuthError, lambda: embedder.embed(TEXTS)).kind for _ in range(5)]

    assert kinds == ["refused"] * 3 + ["breaker"] * 2
    assert fake.asked == 3


# --- money


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        pytest.param(Fault(silent=True), 2, marks=pytest.mark.case("F22")),
        pytest.param(Fault(cut=20), 3, marks=pytest.mark.case("F19")),
        pytest.param(Fault(reset="headers"), 3, marks=pytest.mark.case("F18")),
    ],
)
def test_a_request_whose_answer_is_lost_is_repeated_a_bounded_number_of_times_and_counted(twin, timed, fault, requests):
    fake = timed()
    fake.misbehave(fault, times=None)

    error = fails_somehow(lambda: twin.embedder(SMALL, client=twin.client(fake), timeout=0.2).embed(TEXTS))

    assert (error.attempts, error.billed) == (requests, "maybe")
    assert adds_up(fake, error.partial.usage, batches=1, maybe_billed=requests)
    assert fake.asked == requests
    assert fake.billed <= 3 * requests


@pytest.mark.case("F19")
def test_only_those_requests_count_as_perhaps_billed_that_may_have_been(twin, timed):
    fake = timed()
    fake.misbehave(Fault(status=503), times=2)
    fake.misbehave(Fault(status=429))
    fake.misbehave(Fault(cut=20), times=None)

    error = fails_somehow(lambda: twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS))

    assert (error.attempts, error.maybe_billed) == (6, 3)
    assert adds_up(fake, error.partial.usage, batches=1, maybe_billed=3)


def fails_somehow(work):
    with pytest.raises(errors.ServiceError) as caught:
        work()
    return caught.value


# --- clocks


@pytest.mark.case("X13")
@pytest.mark.parametrize("years", [-10, 10])
def test_a_jump_of_the_wall_clock_changes_no_wait(twin, timed, clock, monkeypatch, years):
    fake, real = timed(), time.time
    fake.misbehave(Fault(status=429, retry_after=2.0))
    fake.misbehave(Fault(status=503))
    monkeypatch.setattr(time, "time", lambda: real() + years * 31_557_600 * len(fake.requests))

    vectors = twin.embedder(SMALL, client=twin.client(fake), deadline=10.0).embed(TEXTS)

    assert adds_up(fake, vectors.usage, batches=1)
    assert fake.forbidden == 0
    assert 2.0 <= sum(clock.waits) <= 2.25 + 0.25 + 0.5


@pytest.mark.case("X14")
def test_a_program_that_was_stopped_for_a_minute_reports_its_deadline_and_sends_no_burst(twin, timed, clock):
    fake = timed()
    stopped = []

    def stop(asked):
        if asked.number == 20 and not stopped:
            stopped.append(asked)
            clock.pass_(clock.now(), 60.0)
        return False

    fake.misbehave(Fault(status=500), when=stop, times=None)

    error = fails(
        errors.ServiceTimeoutError,
        lambda: twin.embedder(ONE, client=twin.client(fake), workers=4, deadline=30.0).embed(texts(100)),
    )

    assert fake.asked <= 20 + 4
    assert error.done + error.failed + error.pending == 100
    assert error.done == fake.billed


@pytest.mark.case("X14")
def test_a_paced_client_that_was_stopped_for_a_minute_makes_up_for_nothing(twin, timed, clock):
    fake = timed()
    woken = []

    def stop(asked):
        if asked.number == 5:
            clock.pass_(clock.now(), 60.0)
            woken.append(clock.now())
        return False

    fake.misbehave(Fault(status=500), when=stop, times=None)

    twin.embedder(ONE, client=twin.client(fake), workers=4, pace=vv.Pace(requests=60)).embed(texts(20))

    assert sum(asked.arrived <= woken[0] for asked in fake.requests) <= 5 + 4


# --- figures


@pytest.mark.slow
@pytest.mark.case("F34", "F36", "F37", "F38", "F39", "F40")
@pytest.mark.parametrize("name", [name for name, one in figures.FIGURES.items() if not one.slow])
def test_the_figures_keep_their_bounds(name):
    one = figures.FIGURES[name]

    assert one.measure() <= one.most


def test_a_figure_that_is_broken_ends_the_command_with_an_error(monkeypatch, capsys):
    monkeypatch.setattr(figures, "FIGURES", {})

    @figures.figure("one", most=1)
    def good():
        return 1

    @figures.figure("one and one", most=1)
    def bad():
        return 2

    @figures.figure("one after a long time", most=0, slow=True)
    def slow():
        return 1

    assert [figures.main([]), figures.main(["good"]), figures.main(["slow"])] == [1, 0, 1]
    said = capsys.readouterr().out.splitlines()
    assert [(line.split()[0], line.split()[4]) for line in said] == [
        ("good", "ok"),
        ("bad", "BROKEN"),
        ("good", "ok"),
        ("slow", "BROKEN"),
    ]


@pytest.mark.case("F39")
def test_a_whole_client_with_slow_answers_sends_nothing_in_an_announced_wait():
    assert virtual.play(figures.forbidden_story, grace=0.1) == 0


@pytest.mark.case("F37")
def test_a_whole_client_with_slow_answers_keeps_a_stated_limit():
    assert virtual.play(figures.limit_story, limits=Limits(requests=1_200, burst=1.0)) == 100
