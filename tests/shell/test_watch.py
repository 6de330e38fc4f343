import types

import pytest

from voxvec._watch import Watch

POST, CONNECT = (types.SimpleNamespace(method=method) for method in (b"POST", b"CONNECT"))


def watch(*steps, host="host.test"):
    """A watch that was told these steps, one per tenth of a second from 10 s on."""
    watch = Watch()
    watch.begin({}, host)
    for number, step in enumerate(steps):
        name, request = step if isinstance(step, tuple) else (step, POST)
        watch.note(name, {"request": request} if name.endswith("started") else {}, 10 + number / 10)
    return watch


HEAD, SENT, HEARD = (
    "http11.send_request_headers.started",
    "http11.send_request_body.complete",
    "http11.receive_response_headers.complete",
)
MADE = "connection.connect_tcp.started"


@pytest.mark.parametrize(
    ("steps", "unsent", "stale"),
    [
        pytest.param([], False, False, id="a transport that tells nothing"),
        pytest.param([MADE], True, False, id="connecting"),
        pytest.param([MADE, HEAD], True, False, id="sending"),
        pytest.param([MADE, HEAD, SENT], False, False, id="sent"),
        pytest.param([MADE, HEAD, SENT, HEARD], False, False, id="answered"),
        pytest.param([HEAD], True, True, id="sending on an old connection"),
        pytest.param([HEAD, SENT], False, True, id="sent on an old connection"),
        pytest.param([HEAD, SENT, HEARD], False, False, id="answered on an old connection"),
        pytest.param([MADE, (HEAD, CONNECT), SENT, HEARD], True, False, id="asking a proxy for a tunnel"),
        pytest.param([MADE, (HEAD, CONNECT), SENT, HEARD, HEAD, SENT], False, False, id="sent through a tunnel"),
        pytest.param(
            ["http2.send_request_headers.started", "http2.send_request_body.complete"], False, True, id="http2"
        ),
        pytest.param(["connection.close.started"], True, False, id="something else"),
    ],
)
def test_what_the_transport_tells_is_what_is_known_of_the_request(steps, unsent, stale):
    seen = watch(*steps)

    assert (seen.unsent, seen.is_stale(10.5)) == (unsent, stale)


def test_a_connection_that_breaks_long_after_the_request_was_not_stale():
    seen = watch(HEAD, SENT)

    assert seen.is_stale(11.0)
    assert not seen.is_stale(11.2)


def test_a_second_sending_starts_anew_but_keeps_what_is_secret():
    seen = watch(MADE, HEAD, SENT, HEARD)
    seen.hide("hunter2")
    seen.begin({"authorization": "Bearer tok-12345", "x-count": "4"}, "other.test")

    assert (seen.host, seen.told, seen.unsent) == ("other.test", False, False)
    assert seen.secrets == ("Bearer tok-12345", "tok-12345", "hunter2")


@pytest.mark.parametrize(
    "name",
    ["Authorization", "api-key", "X-API-Key", "Cookie", "X-Tenant-Token", "Proxy-Authorization", "client-secret"],
)
def test_a_header_that_is_named_like_a_credential_holds_one(name):
    seen = Watch()
    seen.begin({name: "hunter2", "accept": "everything"}, "host.test")

    assert seen.secrets == ("hunter2",)


def test_what_is_too_short_to_be_a_secret_is_none():
    seen = Watch()
    seen.hide("x")
    seen.hide("abc")

    assert seen.secrets == ()
