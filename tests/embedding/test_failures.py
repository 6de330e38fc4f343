"""What the server and the way to it can do to a call, and what the call makes of it; both twins."""

import logging
import pickle
from decimal import Decimal

import httpx
import httpx2
import numpy as np
import pytest

import voxvec as vv
from voxvec import AuthError, NetworkError, QuotaError, RateLimitError, Retry, ServerError

DIMS = 8
TEXTS = [f"text {n}" for n in range(10)]
SMALL = vv.models.find("text-embedding-3-small", dims=DIMS).replace(max_items=2)
QUOTA_CODES = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
]


def says(status, code=None, message="no", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"error": {"message": message, "code": code}}, headers=names)


@pytest.mark.parametrize(
    ("faults", "retries"),
    [
        pytest.param([says(429)], 1, id="busy"),
        pytest.param([says(429, retry_after="7")] * 3, 3, id="busy-with-a-hint"),
        pytest.param([says(500), says(502), says(503), says(504), says(408)], 5, id="broken-server"),
        pytest.param([httpx2.ConnectError("refused")] * 4, 4, id="no-connection"),
        pytest.param([httpx2.ReadTimeout("late"), says(429)], 2, id="late-then-busy"),
        pytest.param([httpx2.ReadError("reset"), httpx2.RemoteProtocolError("cut")], 2, id="broken-connection"),
    ],
)
def test_transient_faults_are_ridden_out(twin, server, vectors_of, faults, retries):
    server.script.extend(faults)

    vectors = twin.embedder(dimensions=DIMS).embed(["hi"])

    assert vectors.tolist() == vectors_of(["hi"], DIMS)
    assert vectors.usage.requests == len(server.asked) == retries + 1
    assert vectors.usage.retries == retries


def test_a_hint_of_the_server_is_obeyed(twin, server, clock):
    server.script.append(says(429, retry_after="7"))
    start = clock.seconds

    twin.embedder(dimensions=DIMS).embed(["hi"])

    assert 7 <= clock.seconds - start < 9


@pytest.mark.parametrize(
    ("fault", "error", "requests"),
    [
        pytest.param(says(401, "invalid_api_key"), AuthError, 1, id="wrong-key"),
        pytest.param(says(403), AuthError, 1, id="forbidden"),
        pytest.param(says(400), vv.RefusedError, 1, id="refused"),
        pytest.param(says(404, "model_not_found"), vv.RefusedError, 1, id="unknown-model"),
        *(pytest.param(says(429, code), QuotaError, 1, id=code) for code in QUOTA_CODES),
        pytest.param(says(429, retry_after="3600"), RateLimitError, 1, id="longer-than-patience"),
        pytest.param(says(500), ServerError, 6, id="broken-for-good"),
        pytest.param(httpx2.ConnectError("refused"), NetworkError, 6, id="unreachable"),
        pytest.param(httpx2.ReadTimeout("late"), vv.ServiceTimeoutError, 2, id="late-for-good"),
        pytest.param(httpx2.ReadError("reset"), NetworkError, 3, id="cut-for-good"),
    ],
)
def test_what_does_not_pass_is_raised_as_itself(twin, server, fault, error, requests):
    server.script.extend([fault] * 20)

    with pytest.raises(error) as caught:
        twin.embedder(dimensions=DIMS).embed(["hi"])

    assert type(caught.value) is error
    assert caught.value.__cause__ is None
    assert len(server.asked) == caught.value.attempts == requests
    assert caught.value.positions == (0,)
    assert (caught.value.done, caught.value.failed, caught.value.pending) == (0, 1, 0)


@pytest.mark.parametrize("code", QUOTA_CODES)
def test_without_money_a_job_sends_one_request_and_the_next_call_none(twin, server, code):
    server.script.append(says(429, code))
    embedder = twin.embedder(SMALL, workers=1)

    for pending in (8, 0):
        with pytest.raises(QuotaError) as caught:
            embedder.embed(TEXTS if pending else ["hi"])
        assert caught.value.pending == pending

    assert len(server.asked) == 1
    assert caught.value.kind == "breaker"
    assert caught.value.billed == "no"


def test_switched_off_retries_ask_once(twin, server):
    for fault in (says(500), says(429), lambda reply: {}):
        server.script.append(fault)
        with pytest.raises(vv.VoxvecError):
            twin.embedder(dimensions=DIMS, retry=Retry(attempts=1)).embed(["hi"])

    assert len(server.asked) == 3


class TestDeadline:
    def test_no_wait_is_begun_that_ends_after_it(self, twin, server, clock):
        server.script.extend([says(429, retry_after="30")] * 9)
        start = clock.seconds

        with pytest.raises(RateLimitError):
            twin.embedder(dimensions=DIMS, deadline=20).embed(["hi"])

        assert len(server.asked) == 1
        assert clock.seconds - start < 20

    def test_it_bounds_all_parts_of_a_call_together(self, twin, server, clock):
        server.script.extend([None, None, says(500, retry_after="8"), says(500, retry_after="8")])

        with pytest.raises(ServerError) as caught:
            twin.embedder(SMALL, deadline=15, workers=1).embed(TEXTS)

        assert (caught.value.done, caught.value.failed, caught.value.pending) == (4, 2, 4)

    def test_a_part_whose_turn_comes_too_late_is_not_sent(self, twin, server, clock):
        def slow(reply):
            clock.seconds += 100
            return reply

        server.script.append(slow)

        with pytest.raises(vv.ServiceTimeoutError) as caught:
            twin.embedder(SMALL, deadline=50, workers=1).embed(TEXTS)

        assert len(server.asked) == 1
        assert caught.value.billed == "no"
        assert caught.value.done == 2
        assert isinstance(caught.value, TimeoutError)


def test_the_time_for_one_request_is_the_users(twin, server):
    twin.embedder(dimensions=DIMS, timeout=7.5).embed(["hi"])

    assert float(server.headers[0]["x-stainless-read-timeout"]) == 7.5


@pytest.mark.parametrize("kwargs", [{"timeout": 0}, {"deadline": -1}, {"workers": 0}])
def test_settings_that_cannot_work_are_refused(twin, kwargs):
    with pytest.raises(vv.ConfigError, match=next(iter(kwargs))):
        twin.embedder(**kwargs)


def test_a_request_that_cannot_be_sent_as_it_is_counts_as_none(twin, server):
    server.script.append(httpx2.LocalProtocolError("illegal header"))

    vectors = twin.embedder(dimensions=DIMS).embed(["hi"], on_error="keep")

    assert isinstance(vectors.failed[0], vv.ConfigError)
    assert vectors.usage.requests == 0


class TestWhatAnErrorKnows:
    def failing(self, twin, server, cache=None):
        server.script.extend([None, None, says(400, "bad", "not this one")])
        with pytest.raises(vv.RefusedError) as caught:
            twin.embedder(SMALL, workers=1, cache=cache).embed(TEXTS)
        return caught.value

    def test_how_far_the_call_came(self, twin, server):
        error = self.failing(twin, server)

        assert (error.done, error.failed, error.pending) == (4, 2, 4)
        assert error.positions == (4, 5)
        assert (error.status, error.code, error.kind) == (400, "bad", "refused")

    def test_what_was_bought(self, twin, server, vectors_of):
        partial = self.failing(twin, server).partial

        assert partial[:4].tolist() == vectors_of(TEXTS[:4], DIMS)
        assert np.isnan(partial[4:]).all()
        assert list(partial.failed) == [4, 5, 6, 7, 8, 9]
        assert partial.usage.requests == 3
        assert partial.shrink(4).shape == (10, 4)

    def test_it_survives_pickling_without_the_vectors(self, twin, server):
        error = self.failing(twin, server)

        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- made here

        assert copy.partial is None
        assert {**vars(copy), "partial": None} == {**vars(error), "partial": None}
        assert (type(copy), str(copy)) == (type(error), str(error))


class TestKeep:
    def test_goes_on_and_says_what_failed(self, twin, server, vectors_of):
        server.script.extend([None, says(501), None])

        vectors = twin.embedder(SMALL, workers=1).embed([*TEXTS[:4], "", *TEXTS[4:]], on_error="keep")

        assert list(vectors.failed) == [2, 3, 4]
        assert isinstance(vectors.failed[2], vv.RefusedError)
        assert isinstance(vectors.failed[4], vv.InputError)
        assert np.isnan(vectors[2:5]).all()
        assert [*vectors[:2].tolist(), *vectors[5:].tolist()] == vectors_of([*TEXTS[:2], *TEXTS[4:]], DIMS)

    def test_counts_requests_that_failed(self, twin, server):
        server.script.extend([says(500)] * 12)

        usage = twin.embedder(SMALL, workers=1).embed(TEXTS[:4], on_error="keep").usage

        assert usage.requests == len(server.asked) == 13
        assert usage.maybe_billed == 12

    def test_a_text_of_which_one_part_failed_has_failed(self, twin, server):
        model = SMALL.replace(max_tokens=6, tokenizer=None, max_items=1)
        server.script.extend([None, says(501)])

        vectors = twin.embedder(model, workers=1, on_long="chunk").embed(["abcdefgh", "ab"], on_error="keep")

        assert list(vectors.failed) == [0]
        assert np.isnan(vectors[0]).all()
        assert not np.isnan(vectors[1]).any()

    def test_only_refused_texts_make_no_request(self, twin, server):
        vectors = twin.embedder(SMALL).embed(["", None], on_error="keep")

        assert vectors.shape == (2, DIMS)
        assert list(vectors.failed) == [0, 1]
        assert server.asked == []


def test_one_failure_stops_what_has_not_been_sent(twin, server):
    server.script.extend([says(400)] * 2)  # one for each worker: while the first is told, the other may go on

    with pytest.raises(vv.RefusedError) as caught:
        twin.embedder(SMALL, workers=2).embed([f"text {n}" for n in range(100)])

    assert len(server.asked) <= 2
    assert caught.value.pending >= 92


@pytest.mark.case("X18")
def test_a_progress_function_that_fails_is_warned_of_once_and_does_not_touch_the_call(twin, server, vectors_of):
    def broken(done, total):
        raise RuntimeError("screen gone")

    with pytest.warns(vv.VoxvecWarning, match="progress raised RuntimeError") as said:
        vectors = twin.embedder(SMALL, workers=2).embed(TEXTS, progress=broken)

    assert vectors.tolist() == vectors_of(TEXTS, DIMS)
    assert len(said) == 1


def test_the_price_of_what_is_not_known_is_not_known(twin, server):
    model = SMALL.replace(price=None)

    assert twin.embedder(model).embed(["hi"]).cost is None
    assert twin.embedder(SMALL).embed([]).cost == Decimal(0)


class TestTheKeyIsASecret:
    KEY = "sk-canary-that-must-not-sing"

    def test_it_is_in_no_repr_error_log_pickle_or_cache(self, twin, server, tmp_path, caplog):
        caplog.set_level(logging.DEBUG)
        path = tmp_path / "vectors.db"
        embedder = twin.embedder(SMALL, api_key=self.KEY, cache=path, workers=1)
        server.script.extend(
            [None, says(401, "invalid_api_key", f"Incorrect key: {self.KEY}"), httpx2.ConnectError(f"for {self.KEY}")]
        )
        seen = [repr(embedder), repr(embedder.embed(TEXTS[:2]))]

        for retry in (Retry(), Retry(attempts=1)):
            with pytest.raises(vv.ServiceError) as caught:
                twin.embedder(SMALL, api_key=self.KEY, cache=path, retry=retry).embed(TEXTS[2:4])
            error = caught.value
            seen += [repr(error), str(error), str(vars(error)), repr(error.args), repr(error.__context__)]
            seen.append(pickle.dumps(error).decode("latin-1"))
        seen += [caplog.text, repr(embedder)]
        seen += [file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file()]

        assert server.headers[0]["authorization"] == f"Bearer {self.KEY}"
        assert not [text for text in seen if self.KEY in text]


def test_a_deadline_does_not_hide_what_went_wrong_before(twin, server):
    server.script.extend([says(500, message="the disk is full")] * 9)
    embedder = twin.embedder(SMALL, deadline=0.5, pace=vv.Pace(requests=60), retry=vv.Retry(first=0.001))

    with pytest.raises(vv.ServerError, match=r"the disk is full.*deadline= of the call comes first") as caught:
        embedder.embed(["ant"])

    assert caught.value.billed == "maybe"
    assert caught.value.attempts == len(server.asked)
