"""What a fake OpenAI does wrong is done to the requests it was ordered for, and every one of them is counted."""

import contextlib
import io
import threading
import wave

import anyio
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxvec import testing
from voxvec.local.exchange import Reply, Request
from voxvec.testing import MUTATIONS, FakeOpenAI, Fault, Limits

ONE = Request("POST", "/v1/embeddings", {}, b'{"model": "tiny", "input": "a"}')


class Clock:
    """Time that passes when somebody sleeps, or the test says so."""

    def __init__(self):
        self.seconds = 0.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fake(clock):
    return FakeOpenAI(models={"tiny": 8}, clock=clock)


def status(fake, *texts, model="tiny"):
    """Ask once; the status, or the name of what went wrong."""
    with fake.client() as client:
        try:
            reply = client.embeddings.with_raw_response.create(model=model, input=list(texts or "a"))
        except openai.APIStatusError as error:
            return error.status_code
        except openai.APIConnectionError as error:
            return type(error).__name__
        return reply.status_code


def statuses(fake, count, *texts):
    return [status(fake, *texts) for _ in range(count)]


# -- which requests


def test_without_conditions_the_next_request_is_meant_and_orders_queue_up(fake):
    fake.misbehave(Fault(status=500))
    fake.misbehave(Fault(status=429), times=2)
    fake.misbehave(Fault(reset="before"))

    assert statuses(fake, 5) == [500, 429, 429, "APIConnectionError", 200]


def test_a_request_can_be_named_by_its_number(fake):
    fake.misbehave(Fault(status=400), at=2)
    fake.misbehave(Fault(status=500), at=range(3, 6))
    fake.misbehave(Fault(status=501), at=[3, 7])

    assert statuses(fake, 7) == [200, 400, 500, 500, 500, 200, 501]


def test_a_request_can_be_named_by_what_it_asks(fake):
    fake.misbehave(Fault(status=400), when=lambda asked: "poison" in asked.inputs, times=None)
    fake.misbehave(Fault(status=404), when=lambda asked: asked.model == "text-embedding-3-small")

    assert [status(fake, *texts) for texts in (["a", "poison"], ["a"], ["poison"])] == [400, 200, 400]
    assert [status(fake, model="text-embedding-3-small") for _ in range(2)] == [404, 200]


def test_a_condition_may_look_at_the_books_and_knows_the_number_and_the_time(fake, clock):
    seen = []
    fake.misbehave(Fault(status=400), when=lambda asked: seen.append((asked.number, asked.arrived, fake.asked)), at=2)

    status(fake)
    clock.seconds = 7
    status(fake)

    assert seen == [(2, 7, 2)]


def test_the_first_order_that_applies_is_taken_and_only_it_is_used_up(fake):
    fake.misbehave(Fault(status=400), when=lambda asked: "x" in asked.inputs)
    fake.misbehave(Fault(status=500), times=2)

    assert [status(fake, text) for text in "axaxx"] == [500, 400, 500, 200, 200]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10), st.floats(0.1, 0.9))
def test_chance_is_the_same_for_the_same_seed_and_comes_to_what_was_ordered(seed, chance):
    def run():
        fake = FakeOpenAI(models={"tiny": 8}, seed=seed, tokens=len)
        fake.misbehave(Fault(status=500), chance=chance, times=None)
        fake.misbehave(Fault(status=501), chance=chance, times=None)
        return [fake(ONE).status for _ in range(400)]

    once = run()

    assert once == run()
    assert abs(once.count(500) / 400 - chance) < 0.15
    assert abs(once.count(501) / (400 - once.count(500)) - chance) < 0.35


def test_a_fault_that_is_no_certainty_is_used_up_only_when_it_happens(fake):
    fake.misbehave(Fault(status=500), chance=0.2, times=3)

    assert statuses(fake, 80).count(500) == 3


def test_what_has_not_happened_yet_is_told(fake):
    fake.misbehave(Fault(status=500), times=2)
    fake.misbehave(Fault(status=501), at=[3, 5])
    fake.misbehave(Fault(status=502), times=None, when=lambda asked: asked.number > 3)

    pending = []
    for _ in range(6):
        pending.append([fault.status for fault in fake.pending])
        status(fake)

    assert pending == [[500, 501, 502], [500, 501, 502], [501, 502], [501, 502], [501], []]


def test_a_storm_begins_with_the_first_request_and_ends(fake, clock):
    clock.seconds = 50
    fake.storm(3, retry_after=2)

    seen = []
    for seconds in (60, 62.9, 63, 64):
        clock.seconds = seconds
        seen.append(status(fake))

    assert seen == [429, 429, 200, 200]
    assert fake.rejected == 2


def test_a_storm_can_begin_later_and_with_another_status(fake, clock):
    fake.storm(2, 503, start=1)

    seen = []
    for seconds in (10, 10.9, 11, 12.9, 13):
        clock.seconds = seconds
        seen.append(status(fake))

    assert seen == [200, 200, 503, 503, 200]


# -- what happens


def test_an_error_has_the_headers_and_the_words_it_was_given(fake):
    headers = {"X-Request-Id": "mine", "x-should-retry": "false", "Content-Type": None}
    fake.misbehave(Fault(status=429, retry_after=1.5, code="insufficient_quota", headers=headers))

    with fake.client() as client, pytest.raises(openai.RateLimitError) as caught:
        client.embeddings.create(model="tiny", input="a")

    got = caught.value.response.headers
    assert (got["retry-after"], got["x-request-id"], got["x-should-retry"]) == ("1.5", "mine", "false")
    assert "content-type" not in got
    assert caught.value.code == "insufficient_quota"


def test_an_honest_answer_can_have_other_headers(fake):
    fake.misbehave(Fault(headers={"Content-Type": None, "X-Request-ID": "x" * 10_000}))

    with fake.client() as client:
        reply = client.embeddings.with_raw_response.create(model="tiny", input="a")

    assert "content-type" not in reply.headers
    assert len(reply.headers["x-request-id"]) == 10_000
    assert fake.delivered == 1


def test_a_spoilt_answer_can_be_made_by_hand(fake):
    fake.misbehave(Fault(spoil=lambda reply: {**reply, "data": reply["data"][::-1]}))
    fake.misbehave(Fault(spoil=lambda _: "no JSON"))
    fake.misbehave(Fault(spoil=lambda _: Reply(201, {"content-type": "text/plain"}, b"made")))

    with fake.client() as client:
        replies = [client.embeddings.with_raw_response.create(model="tiny", input=["a", "b"]) for _ in range(3)]

    assert [item["index"] for item in replies[0].http_response.json()["data"]] == [1, 0]
    assert replies[1].content == b"no JSON"
    assert (replies[2].status_code, replies[2].content) == (201, b"made")
    assert (fake.billed, fake.delivered) == (6, 0)


def test_what_is_refused_is_not_spoilt_and_not_billed(fake):
    fake.misbehave(Fault(spoil="empty"))

    assert status(fake, model="nobody") == 404
    assert (fake.billed, fake.rejected) == (0, 1)


def test_a_transcript_can_be_spoilt(fake):
    fake.say("hello")
    fake.misbehave(Fault(spoil="text-null"))
    recording = io.BytesIO()
    with wave.open(recording, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(16_000))

    with fake.client() as client:
        texts = [
            client.audio.transcriptions.create(model="gpt-transcribe", file=("a.wav", recording.getvalue())).text
            for _ in range(2)
        ]

    assert texts == [None, "hello"]
    assert (fake.billed, fake.delivered, fake.paid_again, fake.paid_again_after_delivery) == (2, 1, 1, 0)


def test_what_the_spoiler_raises_is_raised_and_nobody_counts_as_busy(fake):
    def fail(_):
        raise LookupError("not like this")

    fake.misbehave(Fault(spoil=fail))
    fake.misbehave(Fault(spoil="text-null"))

    with pytest.raises(LookupError, match="not like this"):
        status(fake)
    with pytest.raises(ValueError, match="'text-null' spoils speech"):
        status(fake)
    status(fake)

    assert fake.peak == 1


def test_called_by_hand_it_says_what_would_go_wrong(fake):
    fake.misbehave(Fault(cut=3))

    reply = fake(ONE)

    assert reply.fault == Fault(cut=3)
    assert reply.json()["data"]
    assert (fake.billed, fake.delivered) == (1, 0)
    assert fake(ONE).fault is None


# -- limits


def test_limits_are_kept_and_told_and_room_comes_back(clock):
    fake = FakeOpenAI(models={"tiny": 8}, tokens=len, clock=clock, limits=Limits(requests=120, tokens=1200, burst=1))

    with fake.client() as client:
        first = client.embeddings.with_raw_response.create(model="tiny", input="a" * 5)
        assert status(fake, "a") == 200
        with pytest.raises(openai.RateLimitError) as full:
            client.embeddings.create(model="tiny", input="a")
        clock.seconds += int(full.value.response.headers["retry-after-ms"]) / 1000
        with pytest.raises(openai.RateLimitError, match="Request too large on tokens per min"):
            client.embeddings.create(model="tiny", input="a" * 21)
        assert status(fake, "a") == 200

    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-tokens"] == "15"
    assert first.headers["x-ratelimit-reset-tokens"] == "250ms"
    assert full.value.response.headers["retry-after-ms"] == "500"
    assert full.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert (fake.asked, fake.rejected, fake.billed) == (5, 2, 3)


def test_what_does_no_work_takes_no_room_and_what_finds_no_room_does_not_use_up_an_order(clock):
    fake = FakeOpenAI(models={"tiny": 8}, clock=clock, limits=Limits(requests=60, burst=1))
    fake.misbehave(Fault(status=500))
    assert statuses(fake, 2) == [500, 200]
    fake.misbehave(Fault(spoil="one-line"))

    assert status(fake) == 429
    clock.seconds = 1

    with fake.client() as client:
        assert b"\n" not in client.embeddings.with_raw_response.create(model="tiny", input="a").content


# -- the books


def test_what_was_delivered_and_is_paid_again_is_told_from_what_was_lost(fake):
    fake.misbehave(Fault(reset="body"), at=1)
    fake.misbehave(Fault(spoil="nan"), at=2)

    for texts in (["a", "b"], ["a"], ["a", "c"], ["a", "b"]):
        status(fake, *texts)

    assert (fake.billed, fake.delivered, fake.paid_again, fake.paid_again_after_delivery) == (7, 4, 4, 1)


def test_a_benign_mutation_is_delivered_and_another_is_not(fake):
    fake.misbehave(Fault(spoil="shuffled"))
    fake.misbehave(Fault(spoil="missing"))

    status(fake, "a", "b")
    status(fake, "c", "d")

    assert (fake.billed, fake.delivered) == (4, 2)


@pytest.mark.parametrize(
    ("headers", "until"),
    [({"retry-after": "2"}, 2), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5), ({"retry-after": "nan"}, 0)],
)
def test_who_asks_before_a_retry_after_is_over_is_counted(fake, clock, headers, until):
    fake.misbehave(Fault(status=429, headers=headers))
    for seconds in (0, 0, 0.04, until / 2, until - 0.01, until, until + 5):
        clock.seconds = seconds
        status(fake)

    assert fake.forbidden == (2 if until else 0)


def test_a_shorter_hint_does_not_end_a_longer_one(fake, clock):
    fake.fail_next(429, retry_after=10)
    fake.fail_next(503, retry_after=0.1)
    for seconds in (0, 0, 5, 10):
        clock.seconds = seconds
        status(fake)

    assert fake.forbidden == 1


def test_a_request_under_way_before_the_hint_went_out_is_none_that_was_forbidden(until):
    fake = FakeOpenAI(models={"tiny": 8}, grace=0)
    meet = threading.Barrier(2)
    fake.misbehave(Fault(status=429, retry_after=60), when=lambda asked: "no" in asked.inputs)
    fake.mutate = lambda _, reply: (meet.wait(10), reply)[1]
    early = threading.Thread(target=status, args=(fake, "a"))
    early.start()
    until(lambda: fake.billed)
    assert status(fake, "no") == 429
    meet.wait(10)
    early.join(10)
    fake.mutate = None

    assert fake.forbidden == 0
    assert status(fake, "a") == 200
    assert fake.forbidden == 1


def crowd(client, workers=8, each=10):
    """Ask from many threads at a time."""

    def some(worker):
        for number in range(each):
            with contextlib.suppress(openai.InternalServerError):
                client.embeddings.create(model="tiny", input=f"{worker} {number}")

    threads = [threading.Thread(target=some, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


async def async_crowd(client, workers=8, each=10):
    async def some(worker):
        for number in range(each):
            with contextlib.suppress(openai.InternalServerError):
                await client.embeddings.create(model="tiny", input=f"{worker} {number}")

    async with client, anyio.create_task_group() as tasks:
        for worker in range(workers):
            tasks.start_soon(some, worker)


@pytest.mark.parametrize("way", ["in process", "in process, async", "socket"])
def test_threads_and_tasks_are_counted_right(way):
    fake = FakeOpenAI(models={"tiny": 8}, tokens=len)
    fake.misbehave(Fault(status=503), at=range(1, 200, 4))
    fake.misbehave(Fault(delay=0.001), times=None, chance=0.5)

    if way == "in process":
        crowd(fake.client())
    elif way == "socket":
        with fake.serve() as url, openai.OpenAI(base_url=url, api_key="sk-x", max_retries=0) as client:
            crowd(client)
    else:
        anyio.run(async_crowd, fake.async_client())

    assert (fake.asked, fake.billed, fake.delivered, fake.rejected, fake.paid_again) == (80, 60, 60, 20, 0)
    assert 1 <= fake.peak <= 8
    assert [asked.number for asked in fake.requests] == list(range(1, 81))


# -- orders that cannot be


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({}, ValueError, "a fault needs at least one thing that goes wrong"),
        ({"status": 99}, ValueError, "status must be 200 to 599, not 99"),
        ({"status": "429"}, TypeError, "status must be an int, not str"),
        ({"retry_after": 1}, ValueError, "retry_after, code and body belong to an answer with a status"),
        ({"body": b""}, ValueError, "set status"),
        ({"status": 429, "retry_after": -1}, ValueError, "retry_after must be 0 s or more, not -1"),
        ({"delay": "1"}, TypeError, "delay must be a number of seconds, not str"),
        ({"spoil": "nam"}, ValueError, r"spoil must be a name in MUTATIONS or a function, not 'nam'; near: \['nan'"),
        ({"spoil": 7}, TypeError, "spoil must be a name in MUTATIONS or a function, not int"),
        ({"trickle": 5}, TypeError, "trickle must be a tuple of bytes and seconds, not 5"),
        ({"trickle": (0, 1)}, ValueError, "the bytes of trickle must be at least 1, not 0"),
        ({"trickle": (1, -1)}, ValueError, "the pause of trickle must be 0 s or more, not -1"),
        ({"cut": 1.5}, TypeError, "cut must be an int, not float"),
        ({"content_length": 0}, ValueError, "content_length is how much too much the header says"),
        ({"reset": "after"}, ValueError, "reset must be one of 'before', 'headers', 'body', not 'after'"),
        ({"raw": "text"}, TypeError, "raw must be bytes, not str"),
        ({"interim": (101,)}, ValueError, r"interim must be statuses from 100 to 199 without 101, not \(101,\)"),
        ({"status": 500, "spoil": "nan"}, ValueError, "status and spoil are different answers"),
        ({"raw": b"", "silent": True}, ValueError, "raw and silent are different answers"),
        ({"cut": 1, "reset": "body"}, ValueError, "cut and reset cannot both happen"),
        ({"raw": b"", "content_length": 1}, ValueError, "raw and content_length cannot both happen"),
        ({"before_body": True}, ValueError, "before_body needs an answer that does not depend on the body"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(fields, kind, message):
    with pytest.raises(kind, match=message):
        Fault(**fields)


@pytest.mark.parametrize(
    ("order", "kind", "message"),
    [
        ({"fault": 500}, TypeError, "fault must be a Fault, not int"),
        ({"at": 0}, ValueError, "at must be at least 1, not 0"),
        ({"at": [5, "6"]}, TypeError, "at must be an int, not str"),
        ({"at": 1}, ValueError, "request 1 is over: 1 have been asked already"),
        ({"times": 0}, ValueError, "times must be at least 1, not 0"),
        ({"times": 2.0}, TypeError, "times must be an int, not float"),
        ({"chance": 0}, ValueError, "chance must be above 0 and at most 1, not 0"),
        ({"chance": 1.5}, ValueError, "chance must be above 0 and at most 1, not 1.5"),
        ({"chance": "0.5"}, TypeError, "chance must be a number, not str"),
        ({"when": "always"}, TypeError, "when must be a function, not str"),
    ],
)
def test_an_order_that_cannot_be_is_refused_and_nothing_goes_wrong(fake, order, kind, message):
    status(fake)

    with pytest.raises(kind, match=message):
        fake.misbehave(**{"fault": Fault(status=500), **order})

    assert status(fake) == 200


@pytest.mark.parametrize(
    ("storm", "kind", "message"),
    [
        ({"seconds": -1}, ValueError, "seconds must be 0 s or more, not -1"),
        ({"seconds": 1, "start": "0"}, TypeError, "start must be a number of seconds, not str"),
        ({"seconds": 1, "status": 200}, ValueError, "status must be that of an error, 400 to 599, not 200"),
        ({"seconds": 1, "retry_after": -1}, ValueError, "retry_after must be 0 s or more"),
    ],
)
def test_a_storm_that_cannot_be_is_refused(fake, storm, kind, message):
    with pytest.raises(kind, match=message):
        fake.storm(**storm)


def test_a_server_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="grace must be 0 s or more, not -1"):
        FakeOpenAI(grace=-1)


def test_a_fault_says_only_what_goes_wrong_and_is_a_value():
    assert repr(Fault(status=429, retry_after=1.0)) == "Fault(status=429, retry_after=1.0)"
    assert Fault(spoil="nan") == Fault(spoil="nan") != Fault(spoil="zero")
    with pytest.raises(AttributeError):
        Fault(delay=1).delay = 2


def test_what_is_public_stands_in_all():
    assert set(testing.__all__) == {"MUTATIONS", "Asked", "FakeOpenAI", "Fault", "Limits", "Mutation"}
    assert all(isinstance(mutation, testing.Mutation) for mutation in MUTATIONS.values())
