import httpcore2
import httpx
import httpx2
import openai
import pytest

from voxvec._failures import Answer, from_status, from_transport, late
from voxvec._watch import Watch
from voxvec.errors import (
    AuthError,
    ConfigError,
    NetworkError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ResponseError,
    ServerError,
    ServiceError,
    ServiceTimeoutError,
)

REQUEST = httpx2.Request("POST", "https://host/v1/embeddings", headers={"authorization": "Bearer sk-canary-12345678"})


def answer(status, body=None, **headers):
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, "in words")


@pytest.mark.parametrize(
    ("given", "cls", "kind", "billed"),
    [
        *(
            (answer(status), RefusedError, "refused", "no")
            for status in (307, 400, 402, 404, 405, 413, 415, 422, 501, 505)
        ),
        *((answer(status), AuthError, "refused", "no") for status in (401, 403)),
        *((answer(status), ServerError, "transient", "maybe") for status in (408, 409, 425, 500, 502, 504, 520, 524)),
        *((answer(status), ServerError, "transient", "no") for status in (503, 529)),
        *((answer(status, retry_after="2"), ServerError, "throttled", "no") for status in (503, 529)),
        (answer(500, retry_after="2"), ServerError, "transient", "maybe"),
        (answer(429), RateLimitError, "throttled", "no"),
        (answer(503, {"code": "slow_down"}), RateLimitError, "throttled", "no"),
        (answer(429, {"type": "insufficient_quota"}), QuotaError, "quota", "no"),
        *(
            (answer(status, {"code": code}), QuotaError, "quota", "no")
            for status in (429, 403)
            for code in (
                "insufficient_quota",
                "credit_balance_exhausted",
                "organization_spend_limit_exceeded",
                "project_spend_limit_exceeded",
                "organization_usage_limit_exceeded",
                "billing_hard_limit_reached",
            )
        ),
    ],
    ids=lambda value: f"{value.status}-{value.body}" if isinstance(value, Answer) else "",
)
def test_an_answer_that_says_no_is_sorted_by_its_status_its_code_and_its_headers(given, cls, kind, billed):
    error = from_status(given)

    assert type(error) is cls
    assert (error.kind, error.billed, error.status) == (kind, billed, given.status)


def test_an_error_carries_what_the_server_said_as_plain_fields():
    error = from_status(
        answer(
            429,
            {"message": "Slow down, please.", "code": "rate_limit_exceeded"},
            retry_after_ms="1500",
            x_request_id="req_7",
            x_should_retry="TRUE",
        )
    )

    assert (error.code, error.request_id, error.retry_after, error.should_retry) == (
        "rate_limit_exceeded",
        "req_7",
        1.5,
        True,
    )
    assert str(error) == (
        "the server answered 429 (rate_limit_exceeded): Slow down, please. "
        "Slow down with pace= or workers=, or ask for higher limits. This request was not billed"
    )


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "Sending it again would not help"),
        (401, "Check the key (api_key, or OPENAI_API_KEY in the environment)"),
        (403, "The key may not do this: check its project and the region"),
        (404, "Check the model's name and the base URL"),
    ],
)
def test_a_refusal_says_what_to_look_at_and_that_it_cost_nothing(status, advice):
    assert str(from_status(answer(status, "No"))) == f"the server answered {status}: No. {advice}. It was not billed"


def test_a_spent_quota_is_a_matter_of_the_account_whatever_the_status():
    assert "billing page" in str(from_status(answer(403, {"message": "No", "code": "insufficient_quota"})))


@pytest.mark.parametrize(("value", "means"), [("true", True), ("false", False), ("maybe", None), ("", None)])
def test_what_the_server_says_about_retrying_is_read(value, means):
    assert from_status(answer(500, x_should_retry=value)).should_retry is means


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "m", "detail": "d"}, "m"),
        ({"detail": "d"}, "d"),
        ({"error": "e"}, "e"),
        ("plain text", "plain text"),
        ("<html><b>504</b></html>", "<html><b>504</b></html>"),
        ({"detail": [{"loc": ["body"], "msg": "required"}]}, '{"detail": [{"loc": ["body"], "msg": "required"}]}'),
        ({"message": None, "detail": ""}, '{"message": null, "detail": ""}'),
        (["a", "list"], "in words"),
        (None, "in words"),
        ("", "in words"),
        ({"message": "line\nand \x1b[31mred"}, "line\\nand \\x1b[31mred"),
    ],
)
def test_the_server_is_quoted_wherever_it_put_its_words(body, words):
    assert str(from_status(answer(500, body))).startswith(f"the server answered 500: {words}. ")


@pytest.mark.parametrize("code", [429, None, "", ["x"]])
def test_a_code_that_is_no_word_is_none(code):
    assert from_status(answer(400, {"code": code})).code is None


def test_a_key_that_the_server_quotes_is_hidden_wherever_it_stands():
    error = from_status(answer(401, {"message": "hunter2 is wrong", "code": "sk-canary-12345678"}), ("hunter2",))

    assert "hunter2" not in str(error)
    assert error.code == "[secret]"
    assert "canary" not in str(error)


def test_a_long_message_is_cut():
    assert len(str(from_status(answer(400, {"message": "x" * 5_000_000})))) <= 2_000


def wrapped(cause):
    """As openai raises it."""
    name = openai.APITimeoutError if isinstance(cause, httpx2.TimeoutException) else openai.APIConnectionError
    error = name(request=REQUEST)
    error.__cause__ = cause
    return error


def mapped(error, below):
    """As the transport raises it while a body is read: on top of a lower layer's error."""
    error.__cause__ = below
    return error


@pytest.mark.parametrize(
    ("error", "cls", "kind", "billed"),
    [
        (wrapped(httpx2.ConnectError("refused")), NetworkError, "never_sent", "no"),
        (wrapped(httpx2.ConnectTimeout("slow")), NetworkError, "never_sent", "no"),
        (wrapped(httpx2.PoolTimeout("full")), ServiceTimeoutError, "breaker", "no"),
        (wrapped(httpx2.ProxyError("no way")), NetworkError, "never_sent", "no"),
        (wrapped(httpx2.ReadTimeout("late")), ServiceTimeoutError, "late", "maybe"),
        (wrapped(httpx2.WriteTimeout("late")), ServiceTimeoutError, "late", "maybe"),
        (wrapped(httpx2.ReadError("reset")), NetworkError, "broken", "maybe"),
        (wrapped(httpx2.WriteError("reset")), NetworkError, "broken", "maybe"),
        (wrapped(httpx2.RemoteProtocolError("odd")), NetworkError, "broken", "maybe"),
        (wrapped(httpx2.RemoteProtocolError("illegal status line: x")), ResponseError, "malformed", "maybe"),
        (mapped(httpx2.ReadError("cut"), httpcore2.ReadError()), NetworkError, "broken", "maybe"),
        (mapped(httpx2.RemoteProtocolError("cut"), httpcore2.RemoteProtocolError()), NetworkError, "broken", "maybe"),
        (mapped(httpx2.ReadTimeout("late"), httpcore2.ReadTimeout()), ServiceTimeoutError, "late", "maybe"),
        (mapped(httpx2.DecodingError("bad"), OSError()), ResponseError, "malformed", "maybe"),
        (httpx.ConnectError("refused"), NetworkError, "never_sent", "no"),
        (httpx.ReadTimeout("late"), ServiceTimeoutError, "late", "maybe"),
        (httpx.ReadError("cut"), NetworkError, "broken", "maybe"),
        (RuntimeError("a hook"), ServiceError, "refused", "maybe"),
        (RuntimeError(), ServiceError, "refused", "maybe"),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else "",
)
def test_what_breaks_below_http_is_sorted_by_whether_the_request_left(error, cls, kind, billed):
    failure = from_transport(error, 60.0)

    assert type(failure) is cls
    assert (failure.kind, failure.billed, failure.status) == (kind, billed, None)


@pytest.mark.parametrize(
    "error", [httpx2.LocalProtocolError("bad header"), httpx2.UnsupportedProtocol("ftp"), httpx2.InvalidURL("bad")]
)
def test_a_request_that_cannot_be_written_down_is_a_matter_of_settings(error):
    assert type(from_transport(wrapped(error), 60.0)) is ConfigError


def test_the_words_of_the_transport_are_redacted():
    error = from_transport(wrapped(httpx2.ConnectError("http://me:hunter2@proxy and sk-canary-12345678")), 60.0)

    assert "hunter2" not in str(error)
    assert "canary" not in str(error)


def test_a_time_out_says_how_long_was_waited_and_that_it_may_cost():
    error = late(1.5)

    assert "within 1.5 s" in str(error)
    assert error.billed == "maybe"


def test_a_client_that_was_closed_sent_nothing():
    error = from_transport(RuntimeError("Cannot send a request, as the client has been closed."), 60.0)

    assert type(error) is ConfigError
    assert "Nothing was sent" in str(error)


def on_its_way(*steps):
    watch = Watch()
    watch.begin({}, "host.test")
    for step in steps:
        watch.note(step, {}, 0.0)
    return watch


@pytest.mark.parametrize(
    ("steps", "cls", "kind", "billed", "words"),
    [
        ((), ServiceTimeoutError, "late", "maybe", "no complete answer within 2 s"),
        (
            ("connection.connect_tcp.started",),
            NetworkError,
            "never_sent",
            "no",
            "no connection to host.test within 2 s",
        ),
        (
            ("http11.send_request_headers.started",),
            ServiceTimeoutError,
            "late",
            "no",
            "host.test did not take the whole request within 2 s",
        ),
        (
            ("http11.send_request_headers.started", "http11.send_request_body.complete"),
            ServiceTimeoutError,
            "late",
            "maybe",
            "no complete answer within 2 s",
        ),
    ],
)
def test_how_far_a_late_request_got_decides_what_it_may_have_cost(steps, cls, kind, billed, words):
    error = from_transport(TimeoutError(), 2.0, (), on_its_way(*steps))

    assert (type(error), error.kind, error.billed) == (cls, kind, billed)
    assert words in str(error)


def test_a_connection_that_breaks_before_the_request_had_left_cost_nothing():
    watch = on_its_way("connection.connect_tcp.started", "http11.send_request_headers.started")
    error = from_transport(wrapped(httpx2.ReadError("reset")), 2.0, (), watch)

    assert (type(error), error.kind, error.billed) == (NetworkError, "never_sent", "no")


def test_errors_that_stand_on_each_other_without_end_are_sorted_by_the_upper_ones():
    below = OSError("at the bottom")
    for _ in range(20):
        below = mapped(OSError("in between"), below)

    assert from_transport(wrapped(mapped(httpx2.ConnectError("refused"), below)), 2.0).kind == "never_sent"
