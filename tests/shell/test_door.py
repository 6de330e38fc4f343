import gc
import json
import pickle
import re
import socket
import threading
import time
import tracemalloc
import types
import zlib
from contextlib import suppress
from contextvars import ContextVar

import anyio
import httpx
import httpx2
import openai
import pytest

from voxvec._door import AsyncDoor, Door, Request
from voxvec._endpoint import new_async_client, new_client, origin_of
from voxvec._threads import in_thread
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

KEY = "sk-canary-of-the-door-0123456789"
URL = "https://host.test/v1"
ASK = Request(path="/embeddings", body={"model": "tiny", "input": ["kitten"]})
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Sync:
    """A door for threads, and how to send through it from a test."""

    client, http_client, older = openai.OpenAI, httpx2.Client, httpx.Client

    def send(self, client, request=ASK, timeout=None, *, times=1):
        door = Door(client, own=False)
        return [door.send(request, timeout) for _ in range(times)][-1]


class Async:
    """The same for tasks."""

    client, http_client, older = openai.AsyncOpenAI, httpx2.AsyncClient, httpx.AsyncClient

    def send(self, client, request=ASK, timeout=None, *, times=1):
        async def main():
            door = AsyncDoor(client, own=True)
            try:
                return [await door.send(request, timeout) for _ in range(times)][-1]
            finally:
                await door.close()

        return anyio.run(main)


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def twin(request):
    return request.param()


def client(twin, url=URL, **settings):
    return twin.client(api_key=KEY, base_url=url, **settings)


def failing(twin, url=URL, request=ASK, timeout=None, **settings):
    with pytest.raises((ServiceError, ResponseError, ConfigError)) as caught:
        twin.send(client(twin, url, **settings), request, timeout)
    return caught.value


class Wire:
    """A server on a real socket that plays one scene per connection, the last one for ever."""

    def __init__(self, *scenes):
        self.scenes, self.heard = list(scenes), []
        self.over, self.connections = threading.Event(), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.threads = [threading.Thread(target=self.serve, daemon=True)]
        self.threads[0].start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            scene = self.scenes.pop(0) if len(self.scenes) > 1 else self.scenes[0]
            thread = threading.Thread(target=self.play, args=(connection, scene), daemon=True)
            thread.start()
            self.threads.append(thread)

    def play(self, connection, scene):
        with connection:
            connection.settimeout(5)
            try:
                self.heard.append(read_request(connection))
                scene(connection, self) if callable(scene) else connection.sendall(scene)
            except OSError:
                return

    def close(self):
        self.over.set()
        for one in [self.listener, *self.connections]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
    while len(body) < size:
        body += receive(connection)
    return head, body


def receive(connection):
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError("the client has gone")
    return data


@pytest.fixture
def wire():
    wires = []

    def make(*scenes):
        wires.append(Wire(*scenes))
        return wires[-1]

    yield make
    for one in wires:
        one.close()


def reset(connection, wire):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


SILENCE = 5.0  # far longer than any time-out here, however busy the machine [s]


def silence(connection, wire):
    wire.over.wait(SILENCE)


def stall(connection, wire):
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n12345")
    wire.over.wait(SILENCE)


def trickle(connection, wire, head=b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"):
    connection.sendall(head)
    while not wire.over.wait(0.01):
        connection.sendall(b"12345")


def trickle_of_headers(connection, wire):
    trickle(connection, wire, b"HTTP/1.1 200 OK\r\nx-long: ")


def trickle_of_a_refusal(connection, wire):
    trickle(connection, wire, b"HTTP/1.1 500 No\r\ncontent-length: 1000000\r\n\r\n")


# --- a good answer


def test_an_answer_is_handed_over_unread(twin, httpx2_mock):
    httpx2_mock.post(f"{URL}/embeddings").respond(
        200, content=b"not \xff json", headers={"X-Request-Id": "req_1", "Content-Type": "text/plain"}
    )

    reply = twin.send(client(twin))

    assert (reply.body, reply.status) == (b"not \xff json", 200)
    assert (reply.request_id, reply.content_type) == ("req_1", "text/plain")
    assert "not" not in repr(reply)


def test_a_request_arrives_with_its_fields_and_the_key_of_the_client(twin, httpx2_mock):
    route = httpx2_mock.post(f"{URL}/embeddings").respond(200, content=b"{}")

    twin.send(client(twin))

    sent = route.calls.last.request
    assert json.loads(sent.content) == ASK.body
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["accept-encoding"] == "identity"


def test_the_users_older_http_client_works_too(twin, wire):
    given = client(twin, wire(OK).url, http_client=twin.older())

    assert twin.send(given).body == b"{}"
    if isinstance(twin, Sync):
        given.close()


@pytest.mark.parametrize("scene", [reset, b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"], ids=["reset", "busy"])
def test_failures_of_the_users_older_http_client_are_sorted_alike(wire, scene):
    server = wire(scene)
    with httpx.Client() as old, pytest.raises(ServiceError) as caught:
        Door(openai.OpenAI(api_key=KEY, base_url=server.url, http_client=old), own=False).send(ASK)

    assert caught.value.kind == ("broken" if scene is reset else "transient")


def test_one_attempt_is_one_request_whatever_the_clients_own_retries(twin, httpx2_mock):
    route = httpx2_mock.post(f"{URL}/embeddings").respond(500)
    given = client(twin, max_retries=5)

    with pytest.raises(ServerError):
        twin.send(given)

    assert route.call_count == 1
    assert given.max_retries == 5


def test_an_upload_is_sent_whole_at_every_attempt(twin, wire):
    def answer(connection, wire):
        connection.sendall(OK)
        wire.heard.append(read_request(connection))
        connection.sendall(OK)

    server, audio = wire(answer), bytes(range(256)) * 400
    upload = Request(path="/audio/transcriptions", body={"model": "m"}, file=("audio.wav", audio, "audio/wav"))

    twin.send(client(twin, server.url), upload, times=2)

    assert len(server.heard) == 2
    for head, body in server.heard:
        assert b"multipart/form-data; boundary=" in head
        assert b'name="file"; filename="audio.wav"\r\nContent-Type: audio/wav\r\n' in body
        assert b'name="model"\r\n\r\nm\r\n' in body
        assert audio in body
    assert audio[:20].hex() not in repr(upload)


# --- what passes through the client


@pytest.mark.case("P12")
def test_the_hook_is_where_we_expect_it_in_this_version_of_openai(twin):
    assert callable(twin.client._send_request)


def test_without_the_hook_a_door_still_works_and_sorts_failures(twin, wire, monkeypatch):
    monkeypatch.setattr("voxvec._door._HOOK", "no_such_method")
    said = b'{"error": {"message": "%s is too long", "code": "long"}}' % KEY.encode()
    server = wire(OK, b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said), reset)

    assert twin.send(client(twin, server.url)).body == b"{}"
    assert (type(error := failing(twin, server.url)), error.code) == (RefusedError, "long")
    assert "[secret] is too long" in str(error)
    assert (failing(twin, server.url).kind, failing(twin, server.url).billed) == ("broken", "maybe")


def test_whoever_listened_to_the_transport_before_still_hears_it(twin, wire):
    heard = []

    class Listened(twin.client):
        def _prepare_request(self, request):
            request.extensions["trace"] = listen

    class AsyncListened(twin.client):
        async def _prepare_request(self, request):
            request.extensions["trace"] = alisten

    def listen(step, info):
        heard.append(step)

    async def alisten(step, info):
        heard.append(step)

    kind = AsyncListened if isinstance(twin, Async) else Listened
    twin.send(kind(api_key=KEY, base_url=wire(OK).url))

    assert "connection.connect_tcp.started" in heard
    assert "http11.send_request_body.complete" in heard


def test_the_users_client_is_not_changed(twin):
    given = client(twin)
    before = dict(vars(given))
    (Door if isinstance(twin, Sync) else AsyncDoor)(given, own=False)

    assert dict(vars(given)) == before


# --- an answer that says no


@pytest.mark.parametrize(
    ("status", "body", "headers", "cls", "kind", "billed"),
    [
        (
            429,
            {"error": {"message": "slow", "code": "rate_limit_exceeded"}},
            {"retry-after": "7"},
            RateLimitError,
            "throttled",
            "no",
        ),
        (429, {"error": {"message": "no money", "type": "insufficient_quota"}}, {}, QuotaError, "quota", "no"),
        (401, {"error": {"message": "wrong key"}}, {}, AuthError, "refused", "no"),
        (400, {"error": "a bare string"}, {}, RefusedError, "refused", "no"),
        (422, {"detail": "FastAPI"}, {}, RefusedError, "refused", "no"),
        (500, "plain text", {}, ServerError, "transient", "maybe"),
        (502, "<html>Bad Gateway</html>", {}, ServerError, "transient", "maybe"),
        (503, "", {"retry-after-ms": "50"}, ServerError, "throttled", "no"),
        (501, "", {}, RefusedError, "refused", "no"),
    ],
)
def test_an_answer_that_says_no_is_sorted(twin, httpx2_mock, status, body, headers, cls, kind, billed):  # noqa: PLR0917 -- one per column of the table
    content = json.dumps(body) if isinstance(body, dict) else body
    httpx2_mock.post(f"{URL}/embeddings").respond(status, content=content, headers={**headers, "X-Request-ID": "req_9"})

    error = failing(twin)

    assert type(error) is cls
    assert (error.status, error.kind, error.billed, error.request_id) == (status, kind, billed, "req_9")
    words = body if isinstance(body, str) else next(iter(body.values()))
    assert (words["message"] if isinstance(words, dict) else words) in str(error)
    if "retry-after" in headers:
        assert (error.retry_after, error.code) == (7.0, "rate_limit_exceeded")


def test_a_redirect_to_another_host_is_not_followed(twin, wire):
    other = wire(OK)
    here = wire(f"HTTP/1.1 307 T\r\nlocation: {other.url}/embeddings\r\ncontent-length: 0\r\n\r\n".encode())

    error = failing(twin, here.url)

    assert (type(error), error.status) == (RefusedError, 307)
    assert other.heard == []


# --- the wire


@pytest.mark.parametrize(
    "scene",
    [
        reset,
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ],
    ids=["reset", "closed", "body cut", "chunk cut"],
)
def test_a_connection_that_breaks_after_the_request_left_may_have_cost(twin, wire, scene):
    error = failing(twin, wire(scene).url)

    assert type(error) is NetworkError
    assert (error.kind, error.billed, error.status) == ("broken", "maybe", None)


def test_a_server_that_is_not_there_cost_nothing(twin):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]

    error = failing(twin, f"http://127.0.0.1:{port}/v1")

    assert type(error) is NetworkError
    assert (error.kind, error.billed) == ("never_sent", "no")
    assert "Nothing was sent" in str(error)


@pytest.mark.parametrize("scene", [silence, stall, trickle, trickle_of_headers, trickle_of_a_refusal])
def test_an_answer_that_is_not_complete_in_time_is_late_however_busy_the_line(twin, wire, scene):
    asked = client(twin, wire(scene).url)

    start = time.monotonic()
    with pytest.raises(ServiceTimeoutError) as caught:
        twin.send(asked, timeout=0.3)
    took = time.monotonic() - start

    assert 0.3 <= took < SILENCE / 2
    assert (caught.value.kind, caught.value.billed) == ("late", "maybe")
    assert "within 0.3 s" in str(caught.value)


def test_the_connection_of_a_late_answer_is_closed_though_the_server_goes_on(twin, wire, until):
    server = wire(trickle)
    failing(twin, server.url, timeout=0.5)

    until(lambda: len(server.threads) > 1)
    server.threads[-1].join(20)  # it ends when it can no longer send

    assert not server.threads[-1].is_alive()


def test_an_interrupted_wait_leaves_no_connection_behind(monkeypatch, wire):
    server, reading = wire(trickle), threading.Event()

    class Interrupted:
        """A wait that Ctrl-C ends once the answer has begun."""

        def __init__(self, work, *args):
            self.attempt = in_thread(work, *args)

        def result(self, timeout):
            assert reading.wait(20)
            raise KeyboardInterrupt

    def started(response):
        reading.set()

    monkeypatch.setattr("voxvec._door.in_thread", Interrupted)
    with httpx2.Client(event_hooks={"response": [started]}) as given, pytest.raises(KeyboardInterrupt):
        Door(openai.OpenAI(api_key=KEY, base_url=server.url, http_client=given), own=False).send(ASK)
    server.threads[-1].join(20)

    assert not server.threads[-1].is_alive()


def test_hooks_see_the_context_of_the_caller(twin, httpx2_mock):
    httpx2_mock.post(f"{URL}/embeddings").respond(200, content=b"{}")
    tenant, seen = ContextVar("tenant"), []

    def hook(request):
        seen.append(tenant.get())

    async def ahook(request):
        hook(request)

    hooks = {"request": [ahook if isinstance(twin, Async) else hook]}
    tenant.set("birds")
    twin.send(client(twin, http_client=twin.http_client(event_hooks=hooks)))

    assert seen == ["birds"]


def test_the_time_of_a_request_counts_if_it_is_shorter_than_what_is_left_of_the_call(twin, wire):
    hasty = Request(path="/embeddings", body={}, timeout=0.1)

    assert "within 0.1 s" in str(failing(twin, wire(silence).url, hasty, 30.0))


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_no_time_left_is_a_time_out_and_nothing_odd(twin, wire, left):
    assert failing(twin, wire(silence).url, timeout=left).kind in {"late", "never_sent"}


def test_an_answer_that_is_far_too_large_is_not_read_to_its_end(twin, wire):
    def flood(connection, wire):
        connection.sendall(b"HTTP/1.1 200 OK\r\nx-request-id: req_5\r\n\r\n")
        for _ in range(4_096):
            connection.sendall(b"x" * 65_536)
            wire.sent = getattr(wire, "sent", 0) + 65_536

    server = wire(flood)
    tracemalloc.start()
    error = failing(twin, server.url, Request(path="/embeddings", body={}, max_reply=2**20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert type(error) is ResponseError
    assert (error.kind, error.billed, error.status, error.request_id) == ("malformed", "maybe", 200, "req_5")
    assert peak < 16 * 2**20
    assert server.sent < 64 * 2**20


def test_an_answer_that_unpacks_to_far_too_much_is_not_unpacked_to_its_end(twin, wire):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(packer.compress(bytes(2**20)) for _ in range(128)), packer.flush()])
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n"
    server = wire(head.encode() + bomb)

    tracemalloc.start()
    error = failing(twin, server.url, Request(path="/embeddings", body={}, max_reply=2**20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert type(error) is ResponseError
    assert peak < 16 * 2**20


def test_an_answer_that_does_not_unpack_breaks_the_contract(twin, wire):
    error = failing(twin, wire(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc").url)

    assert (type(error), error.kind) == (ResponseError, "malformed")


def test_what_a_hook_raises_is_an_error_of_ours_too(twin):
    def hook(request):
        raise RuntimeError(f"hooked with {KEY}")

    async def ahook(request):
        hook(request)

    hooks = {"request": [ahook if isinstance(twin, Async) else hook]}
    error = failing(twin, http_client=twin.http_client(event_hooks=hooks))

    assert (type(error), error.kind) == (ServiceError, "refused")
    assert "hooked with [secret]" in str(error)


def test_an_error_of_ours_that_a_transport_raises_stays_itself(twin):
    ours = RefusedError("not here", kind="refused", status=404)

    def refuse(request):
        raise ours

    assert failing(twin, http_client=twin.http_client(transport=httpx2.MockTransport(refuse))) is ours


def test_a_cancelled_request_is_cancelled(wire):
    async def main():
        door = AsyncDoor(openai.AsyncOpenAI(api_key=KEY, base_url=wire(silence).url), own=True)
        with anyio.move_on_after(0.05) as scope:
            await door.send(ASK)
        await door.close()
        return scope.cancelled_caught

    assert anyio.run(main)


# --- secrets


def reachable(root):
    """Everything that hangs on an object, but for the frames of its traceback, classes and modules."""
    seen, rest = {}, [root]
    while rest:
        thing = rest.pop()
        kinds = types.FrameType | types.TracebackType | types.ModuleType | types.FunctionType | type
        if id(thing) in seen or isinstance(thing, kinds):
            continue
        seen[id(thing)] = thing
        rest.extend(gc.get_referents(thing))
    return seen.values()


ECHO = b'{"error":"%s is wrong, \\u001b[31m so"}' % KEY.encode()


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(b"HTTP/1.1 401 No\r\ncontent-length: %d\r\n\r\n%s" % (len(ECHO), ECHO), id="echo"),
        pytest.param(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", id="500"),
        pytest.param(reset, id="reset"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", id="cut"),
        pytest.param(silence, id="silence"),
    ],
)
def test_the_key_and_the_request_cannot_be_reached_from_an_error(twin, wire, scene):
    error = failing(twin, wire(scene).url, timeout=0.2)

    assert KEY not in "".join(map(repr, [error, str(error), error.args, vars(error)]))
    assert KEY.encode() not in pickle.dumps(error)
    assert (error.__cause__, error.__context__) == (None, None)
    things = reachable(error)
    assert not [thing for thing in things if isinstance(thing, httpx2.Request | httpx2.Response | openai.OpenAIError)]
    assert not [thing for thing in things if isinstance(thing, str) and KEY in thing]
    assert "\x1b" not in str(error)
    twins = pickle.loads(pickle.dumps(error))  # noqa: S301 -- made here
    assert (type(twins), str(twins), vars(twins)) == (type(error), str(error), vars(error))


def test_a_key_that_looks_like_none_is_hidden_too(twin, httpx2_mock):
    httpx2_mock.post(f"{URL}/embeddings").respond(400, json={"error": {"message": "who is hunter2-hunter2?"}})
    with pytest.raises(RefusedError, match=re.escape("who is [secret]?")):
        twin.send(twin.client(api_key="hunter2-hunter2", base_url=URL))


def test_a_one_letter_key_is_no_secret(twin, httpx2_mock):
    httpx2_mock.post(f"{URL}/embeddings").respond(400, json={"error": {"message": "x marks the spot"}})
    with pytest.raises(RefusedError, match="x marks the spot"):
        twin.send(twin.client(api_key="x", base_url=URL))


def test_a_key_that_is_fetched_for_each_request_is_hidden_too(twin, httpx2_mock):
    httpx2_mock.post(f"{URL}/embeddings").respond(400, json={"error": {"message": "no hunter3-hunter3 here"}})

    async def provide():
        return "hunter3-hunter3"

    key = provide if isinstance(twin, Async) else (lambda: "hunter3-hunter3")
    with pytest.raises(RefusedError, match=re.escape("no [secret] here")):
        twin.send(twin.client(api_key=key, base_url=URL))


def test_a_header_with_a_line_break_is_a_matter_of_settings(twin, wire):
    error = failing(twin, wire(OK).url, default_headers={"x-tenant": "a\nb"})

    assert type(error) is ConfigError
    assert "Nothing was sent" in str(error)


# --- clients of our own


MAKERS = pytest.mark.parametrize("make", [new_client, new_async_client])


@MAKERS
def test_no_key_names_both_ways_out(make, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*voxvec\.local\.client\(\).*Nothing was sent"):
        make(None, None)
    with pytest.raises(ConfigError, match="there is no key"):
        make(" \n", None)


@MAKERS
def test_the_key_comes_from_the_environment_if_none_is_given(make, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")

    assert make(None, None).api_key == "sk-from-the-environment"
    assert make("sk-given", None).api_key == "sk-given"


@MAKERS
def test_a_line_break_around_a_key_is_no_part_of_it(make):
    made = make(f" {KEY}\r\n", URL)

    assert (made.api_key, made.max_retries) == (KEY, 0)


@MAKERS
@pytest.mark.parametrize("key", ["sk-two words", "sk-line\nbreak", "sk-ünïcode", "sk-\x00null"])
def test_what_cannot_be_a_key_is_refused_without_being_shown(make, key):
    with pytest.raises(ConfigError) as caught:
        make(key, None)

    assert key not in str(caught.value)
    assert key[3:] not in str(caught.value)


@MAKERS
@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@host/v1",
        "https://me@host/v1",
        "https://:hunter2@host/v1",
        "ftp://host/v1",
        "host/v1",
        "https://",
        "https://host:99999/v1",
        "https://host:hunter2/v1",
        "https://[::1/v1",
        "https://host:0/v1",
    ],
)
def test_a_base_url_that_cannot_work_is_refused_without_showing_its_password(make, url):
    with pytest.raises(ConfigError, match="https://host/v1, without a user name") as caught:
        make(KEY, url)

    assert "hunter2" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Host.Test/v1/", "https://host.test/v1"),
        ("HTTPS://host.test:443/v1", "https://host.test/v1"),
        ("http://host.test:80", "http://host.test"),
        ("http://host.test:8000/v1", "http://host.test:8000/v1"),
        ("https://host.test:80/v1?x=1#y", "https://host.test:80/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        (None, "https://api.openai.com/v1"),
    ],
)
def test_one_server_has_one_spelling(url, origin, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    assert origin_of(url) == origin


def test_the_server_may_stand_in_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://local:8000/v1/")

    assert origin_of(None) == "http://local:8000/v1"


def test_a_door_closes_our_own_client_and_never_the_users():
    ours, users = new_client(KEY, URL), openai.OpenAI(api_key=KEY)
    Door(ours, own=True).close()
    Door(users, own=False).close()

    assert (ours.is_closed(), users.is_closed()) == (True, False)
    users.close()


def test_a_door_for_tasks_closes_our_own_client_and_never_the_users():
    async def main():
        ours, users = new_async_client(KEY, URL), openai.AsyncOpenAI(api_key=KEY)
        await AsyncDoor(ours, own=True).close()
        await AsyncDoor(users, own=False).close()
        closed = ours.is_closed(), users.is_closed()
        await users.close()
        return closed

    assert anyio.run(main) == (True, False)
