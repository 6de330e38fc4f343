"""What can go wrong on the wire, played on real sockets of this machine.

The file is long because its scenes share one server, whose every act is a few lines.
"""

import functools
import gzip
import io
import json
import logging
import re
import socket
import ssl
import struct
import threading
import time
import tracemalloc
import wave
import zlib
from collections import deque
from contextlib import suppress
from pathlib import Path

import httpx2
import openai
import pytest

import voxvec as vv
from voxvec.errors import (
    ConfigError,
    NetworkError,
    RefusedError,
    ResponseError,
    ServerError,
    ServiceError,
    ServiceTimeoutError,
    VoxvecError,
)
from voxvec.local.exchange import Request
from voxvec.testing import FakeOpenAI

KEY = "sk-canary-of-the-tests"
TEXTS = ["cat", "dog", "bird"]


class Line:
    """A server on a real socket: the acts of its script answer one request each, honest answers come after them.

    An act is the bytes to send, or a function of the connection, the body and this that may return bytes; what returns
    or is None leaves the connection without another word. ``greet`` is called with each new connection.
    """

    def __init__(self, *acts, greet=None, scheme="http"):
        self.acts, self.greet = deque(acts), greet or (lambda connection, number: connection)
        self.fake, self.bodies, self.heads, self.connections = FakeOpenAI(), [], [], []
        self.over, self.threads, self.sent = threading.Event(), [], 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{scheme}://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.start(self.listen)

    @property
    def asked(self):
        return len(self.heads)

    def start(self, work, *args):
        self.threads.append(threading.Thread(target=work, args=args, daemon=True))
        self.threads[-1].start()

    def listen(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            self.connections.append(connection)
            self.start(self.serve, connection)

    def serve(self, connection):
        with suppress(OSError), connection, self.greet(connection, len(self.connections)) as stream:
            while self.exchange(stream):
                pass

    def exchange(self, connection):
        head, rest = read_head(connection)
        self.heads.append(head)
        act = self.acts.popleft() if self.acts else self.honest
        if getattr(act, "hasty", False):
            return act(connection, rest, self)
        body = read_body(connection, head, rest)
        self.bodies.append(body)
        reply = act(connection, body, self) if callable(act) else act
        if reply is None:
            return False
        connection.sendall(reply)
        return act == self.honest or b"connection: close" not in reply.lower()

    def honest(self, connection, body, line):
        reply = self.fake(Request("POST", "/v1/embeddings", {"content-type": "application/json"}, body))
        return ok(reply.body)

    def close(self):
        self.over.set()
        for one in [self.listener, *self.connections]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


def read_head(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def read_body(connection, head, rest):
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    size = int(headers[b"content-length"])
    while len(rest) < size:
        rest += receive(connection)
    return rest


def receive(connection):
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError("the client has gone")
    return data


def ok(body, *headers, status="200 OK", length=None):
    lines = [
        f"HTTP/1.1 {status}",
        "content-type: application/json",
        f"content-length: {len(body) if length is None else length}",
    ]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_before(connection, body, line):
    reset(connection)


def closed(connection, body, line):
    """End without a word, as a server does that found the connection idle for too long."""


def cut(connection, body, line):
    connection.sendall(line.honest(connection, body, line)[:-10])


def short_length(connection, body, line):
    reply = line.honest(connection, body, line)
    content = reply.partition(b"\r\n\r\n")[2]
    connection.sendall(ok(content, length=len(content) - 10))


def long_length(connection, body, line):
    content = line.honest(connection, body, line).partition(b"\r\n\r\n")[2]
    connection.sendall(ok(content, length=len(content) + 10))
    line.over.wait(10)


def silence(connection, body, line):
    line.over.wait(10)


def drip(connection, body, line):
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while not line.over.wait(0.02):
        connection.sendall(b"12345")


def drip_headers(connection, body, line):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not line.over.wait(0.02):
        connection.sendall(b"x-more: yes\r\n")


def hints_for_ever(connection, body, line):
    while not line.over.wait(0.02):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")


@functools.cache
def certificates():
    return ssl.create_default_context()


@pytest.fixture(autouse=True)
def read_once(request, monkeypatch):
    """Reading the certificates takes 20 ms for every client; where nothing is encrypted, once is enough."""
    if "trust" not in request.fixturenames:
        context = certificates()
        monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: context)


@pytest.fixture
def line():
    """Makes servers that end with the test."""
    lines = []

    def make(*acts, **settings):
        lines.append(Line(*acts, **settings))
        return lines[-1]

    yield make
    for one in lines:
        one.close()


@pytest.fixture
def ask(twin, clock):
    """Embed the three texts through one client per server; waits between tries take no time."""
    clients = {}

    def run(server, texts=TEXTS, **settings):
        name = server.url, tuple(settings)
        if name not in clients:
            clients[name] = twin.embedder(base_url=server.url, dimensions=8, **settings)
        return clients[name].embed(texts)

    yield run
    for client in clients.values():
        client.close()


@pytest.fixture
def users_client(twin):
    """Makes clients as users do, which end with the test."""
    clients = []

    def make(**settings):
        kind, http = {
            "sync": (openai.OpenAI, httpx2.Client),
            "async": (openai.AsyncOpenAI, httpx2.AsyncClient),
        }[twin.kind]
        if "limits" in settings:
            settings["http_client"] = http(limits=settings.pop("limits"))
        clients.append(kind(**{"api_key": KEY, **settings}))
        return clients[-1]

    yield make
    for client in clients:
        client.close() if twin.kind == "sync" else twin.portal.call(client.close)


@pytest.fixture
def right(vectors_of):
    def check(vectors, texts=TEXTS):
        return vectors.array.tolist() == vectors_of(texts, 8)

    return check


def failure(ask, *args, **settings):
    with pytest.raises(VoxvecError) as caught:
        ask(*args, **settings)
    return caught.value


# --- answers that break off


@pytest.mark.parametrize(
    ("act", "billed"),
    [
        pytest.param(cut, 6, marks=pytest.mark.case("F17"), id="cut"),
        pytest.param(reset_before, 3, marks=pytest.mark.case("F18"), id="reset before the answer"),
        pytest.param(short_length, 6, marks=pytest.mark.case("F20"), id="length too short"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nab\r\n",
            3,
            marks=pytest.mark.case("N09"),
            id="bad chunk",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n",
            3,
            marks=pytest.mark.case("N09"),
            id="no last chunk",
        ),
    ],
)
def test_an_answer_that_breaks_off_once_costs_one_more_request(line, ask, right, act, billed):
    server = line(act)

    vectors = ask(server)

    assert right(vectors)
    assert (server.asked, server.fake.billed, len(server.connections)) == (2, billed, 2)


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(cut, marks=pytest.mark.case("F19")),
        pytest.param(reset_before, marks=pytest.mark.case("N03")),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nab\r\n", marks=pytest.mark.case("N09")
        ),
    ],
    ids=["cut", "reset", "chunk"],
)
def test_an_answer_that_always_breaks_off_is_an_error_after_three_requests(line, ask, act):
    server = line(*[act] * 9)

    error = failure(ask, server)

    assert (type(error), error.kind, error.billed) == (NetworkError, "broken", "maybe")
    assert server.asked == error.attempts == 3


@pytest.mark.case("N03")
def test_connections_that_are_reset_on_accept_are_made_again(line, ask, right):
    def greet(connection, number):
        if number <= 2:
            reset(connection)
            connection.close()
        return connection

    server = line(greet=greet)

    assert right(ask(server))
    assert (server.asked, len(server.connections)) == (1, 3)


# --- connections that died in the pool


@pytest.mark.case("F21", "N19")
@pytest.mark.parametrize("act", [closed, reset_before])
def test_a_connection_that_died_in_the_pool_costs_no_attempt_and_no_wait(line, ask, right, clock, act):
    server = line(None, act)
    server.acts[0] = server.honest
    assert right(ask(server))

    vectors = ask(server, ["owl"])

    assert right(vectors, ["owl"])
    assert (server.asked, len(server.connections), server.fake.billed) == (3, 2, 4)
    assert clock.waits == []


@pytest.mark.case("F21")
def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(line, ask, right, clock, until):
    def last(connection, body, line):
        connection.sendall(line.honest(connection, body, line))

    server = line(last)
    ask(server)
    server.threads[-1].join(10)  # it has closed

    assert right(ask(server, ["owl"]), ["owl"])
    assert (server.asked, server.fake.billed, clock.waits) == (2, 4, [])


@pytest.mark.case("N19")
def test_what_dies_on_a_fresh_connection_too_counts(line, ask, right):
    server = line(None, *[closed] * 9)
    server.acts[0] = server.honest
    ask(server)

    error = failure(ask, server, ["owl"])

    assert (type(error), error.kind) == (NetworkError, "broken")
    assert (error.attempts, server.asked) == (3, 1 + 1 + 3)


@pytest.mark.case("N19")
def test_a_server_that_breaks_all_connections_gets_no_more_than_one_request_for_free(line, ask, together):
    arrived = threading.Barrier(3)

    def wait(connection, body, line):
        arrived.wait(10)
        return line.honest(connection, body, line)

    server = line(None, *[wait] * 3, *[closed] * 9)
    server.acts[0] = server.honest
    ask(server, ["eel"])
    together(*(functools.partial(ask, server, [text]) for text in TEXTS))
    assert len(server.connections) == 3

    error = failure(ask, server, ["owl"])

    assert (error.kind, error.attempts, server.asked) == ("broken", 3, 4 + 1 + 3)


@pytest.mark.case("F21")
def test_a_pooled_connection_that_breaks_within_the_answer_is_no_stale_one(line, ask, right):
    server = line(None, cut)
    server.acts[0] = server.honest
    ask(server)

    vectors = ask(server, ["owl"])

    assert right(vectors, ["owl"])
    assert (server.asked, vectors.usage.maybe_billed) == (3, 1)


# --- answers that do not end


@pytest.mark.parametrize(
    ("act", "requests"),
    [
        pytest.param(silence, 2, marks=pytest.mark.case("F22")),
        pytest.param(drip, 2, marks=pytest.mark.case("F23")),
        pytest.param(drip_headers, 2, marks=pytest.mark.case("N06", "P13")),
        pytest.param(hints_for_ever, 2, marks=pytest.mark.case("N07", "P13")),
        pytest.param(long_length, 2, marks=pytest.mark.case("N10")),
    ],
)
def test_an_answer_that_does_not_end_ends_with_the_time_of_the_attempt(line, ask, act, requests):
    server = line(*[act] * 9)

    start = time.monotonic()
    error = failure(ask, server, timeout=0.2)

    assert time.monotonic() - start < 5
    assert (type(error), error.kind, error.billed) == (ServiceTimeoutError, "late", "maybe")
    assert server.asked == error.attempts == requests


@pytest.mark.case("P13")
def test_a_call_ends_with_its_deadline_though_the_server_drips(line, twin):
    server = line(*[drip] * 9)
    client = twin.embedder(base_url=server.url, deadline=0.3)

    start = time.monotonic()
    with pytest.raises(ServiceTimeoutError):
        client.embed(TEXTS)

    assert time.monotonic() - start < 3
    client.close()


def full(connection, rest, line):
    """Stop reading: the rest of the upload finds no room."""
    line.over.wait(10)
    return False


full.hasty = True


@pytest.mark.case("N13", "P13")
def test_a_server_that_does_not_read_the_upload_is_left_and_cannot_have_billed_it(line, twin):
    server = line(full)
    client = twin.transcriber(base_url=server.url, timeout=0.3)
    recording = io.BytesIO()
    with wave.open(recording, "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(bytes(16 * 2**20))  # more than sockets keep on their way

    with pytest.raises(ServiceTimeoutError, match="did not take the whole request within 0") as caught:
        client.transcribe(recording.getvalue())

    assert (caught.value.kind, caught.value.billed, server.asked) == ("late", "no", 1)
    client.close()


def refuses_early(connection, rest, line):
    said = json.dumps({"error": {"message": "that is more than 1 MB"}}).encode()
    connection.sendall(ok(said, "connection: close", status="413 Too Large"))
    connection.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        while connection.recv(65_536):
            pass
    return False


refuses_early.hasty = True


@pytest.mark.case("N14")
def test_a_refusal_that_comes_before_the_end_of_the_upload_is_heard(line, twin, clock):
    server = line(refuses_early)
    client = twin.embedder(base_url=server.url, dimensions=8)

    with pytest.raises(RefusedError, match="that is more than 1 MB") as caught:
        client.embed_one("x" * 30_000)

    assert (caught.value.status, caught.value.billed, server.asked) == (413, "no", 1)
    assert "too large for this server" in str(caught.value)
    client.close()


# --- answers that are none


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 2, marks=pytest.mark.case("N17"), id="not http"),
        pytest.param(ok(b"{}", "content-length: 3"), 3, marks=pytest.mark.case("N08"), id="two lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            2,
            marks=pytest.mark.case("N08"),
            id="length and chunks",
        ),
        pytest.param(ok(b"abc", "content-encoding: gzip"), 2, marks=pytest.mark.case("N12"), id="corrupt gzip"),
        pytest.param(ok(b"abc", "content-encoding: x-none"), 2, marks=pytest.mark.case("N12"), id="unknown encoding"),
        pytest.param(
            ok(gzip.compress(gzip.compress(b"{}")), "content-encoding: gzip, gzip"),
            2,
            marks=pytest.mark.case("N12", "S12"),
            id="nested",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 2, marks=pytest.mark.case("N18"), id="204"),
        pytest.param(ok(b"", status="201 Created"), 2, marks=pytest.mark.case("N18"), id="201"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\n\r\n", 1, marks=pytest.mark.case("N18"), id="304"),
        pytest.param(ok(b"", status="302 Found"), 1, marks=pytest.mark.case("N18"), id="302 to nowhere"),
    ],
)
def test_what_is_no_answer_is_an_error_of_ours_and_never_a_vector(line, ask, right, answer, requests):
    server = line(*[answer] * 9)

    error = failure(ask, server)

    assert isinstance(error, NetworkError | ResponseError | RefusedError)
    assert server.asked == error.attempts == requests
    server.acts.clear()
    assert right(ask(server))


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        pytest.param(
            lambda content: ok(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content), "transfer-encoding: chunked"),
            "in two ways where it ends",
            marks=pytest.mark.case("N08"),
        ),
        pytest.param(
            lambda content: ok(gzip.compress(gzip.compress(content)), "content-encoding: gzip, gzip"),
            r"packed in a way nobody asked for \(gzip, gzip\)",
            marks=pytest.mark.case("N12", "S12"),
        ),
        pytest.param(
            lambda content: ok(content, "content-encoding: x-none"),
            r"packed in a way nobody asked for \(x-none\)",
            marks=pytest.mark.case("N12"),
        ),
    ],
    ids=["length and chunks", "packed twice", "unknown"],
)
def test_an_honest_answer_in_a_dubious_frame_is_not_read(line, ask, frame, what):
    def framed(connection, body, line):
        return frame(line.honest(connection, body, line).partition(b"\r\n\r\n")[2])

    server = line(*[framed] * 4)

    error = failure(ask, server)

    assert (type(error), error.billed, server.asked) == (ResponseError, "maybe", 2)
    assert re.search(what, str(error))


@pytest.mark.case("N12")
def test_an_answer_that_a_proxy_packed_is_unpacked(line, ask, right):
    def packed(connection, body, line):
        content = line.honest(connection, body, line).partition(b"\r\n\r\n")[2]
        return ok(gzip.compress(content), "content-encoding: gzip")

    assert right(ask(line(packed)))


@pytest.mark.case("N07")
def test_informational_answers_are_passed_over(line, ask, right):
    def hints(connection, body, line):
        return b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + line.honest(connection, body, line)

    server = line(hints)

    assert right(ask(server))
    assert server.asked == 1


@pytest.mark.case("N11", "P1")
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_bytes_after_the_end_of_an_answer_do_not_reach_the_next_one(line, ask, right, chunked):
    def more(connection, body, line):
        reply = line.honest(connection, body, line)
        if chunked:
            content = reply.partition(b"\r\n\r\n")[2]
            head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            reply = head + f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
        # The right form, and somebody else's vector.
        return reply + line.honest(connection, body.replace(b"cat", b"cow"), line)

    server = line(more)

    assert right(ask(server, ["cat"]), ["cat"])
    for text in ("owl", "eel"):
        assert right(ask(server, [text]), [text])
    assert (len(server.connections), server.asked) == (2, 3)


@pytest.mark.case("N11")
def test_bytes_after_the_end_of_a_refusal_do_not_reach_the_next_answer(line, ask, right):
    server = line(lambda connection, body, line: ok(b"{}", status="400 No") + line.honest(connection, body, line))

    assert isinstance(failure(ask, server, ["cat"]), RefusedError)
    assert right(ask(server, ["owl"]), ["owl"])
    assert len(server.connections) == 2


@pytest.mark.case("F25", "P27")
@pytest.mark.parametrize("status", ["301 M", "302 F", "303 O", "307 T", "308 P"])
def test_no_redirect_is_followed(line, ask, status):
    other = line()
    server = line(ok(b"", f"location: {other.url}/embeddings", status=status))

    error = failure(ask, server)

    assert (type(error), error.status, error.attempts) == (RefusedError, int(status[:3]), 1)
    assert (server.asked, other.asked, other.connections) == (1, 0, [])


# --- answers without measure


def bomb(size):
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = bytes(2**20)
    return b"".join([*(packer.compress(block) for _ in range(size)), packer.flush()])


@pytest.mark.case("F24", "P17", "S10")
def test_a_small_body_that_unpacks_to_a_quarter_of_a_gibibyte_is_not_unpacked(line, ask):
    packed = ok(bomb(256), "content-encoding: gzip")
    server = line(*[packed] * 4)

    error, peak = measured(ask, server)

    assert (type(error), error.kind, server.asked) == (ResponseError, "malformed", 2)
    assert peak < 16 * 2**20


def measured(ask, server):
    """What it fails with, and the most memory that took."""
    tracemalloc.start()
    try:
        error = failure(ask, server)
        return error, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def flood(status, head=b""):
    def act(connection, body, line):
        connection.sendall(f"HTTP/1.1 {status} X\r\n".encode() + head)
        for _ in range(1_600):
            connection.sendall(b"x" * 2**16)
            line.sent += 2**16

    return act


@pytest.mark.case("M04", "P17", "F64")
@pytest.mark.parametrize("status", [400, 500])
def test_of_an_error_of_a_hundred_megabytes_64_kib_are_read(line, ask, status):
    server = line(*[flood(status, b"content-length: 104857600\r\nx-request-id: req_7\r\n\r\n")] * 12)

    error, peak = measured(ask, server)

    assert isinstance(error, RefusedError if status == 400 else ServerError)
    assert (error.status, error.request_id) == (status, "req_7")
    assert len(str(error)) <= 2_000
    assert peak < 8 * 2**20
    assert server.sent < server.asked * 8 * 2**20  # the rest fills the buffers of two sockets


@pytest.mark.case("F64")
@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br"])
def test_a_packed_error_is_bounded_too(line, ask, encoding):
    server = line(ok(bomb(64), f"content-encoding: {encoding}", status="400 No"))

    error, peak = measured(ask, server)

    assert (type(error), error.status) == (RefusedError, 400)
    assert peak < 8 * 2**20


@pytest.mark.case("F64")
def test_a_message_of_five_megabytes_is_cut(line, ask):
    said = json.dumps({"error": {"message": "x" * 5_000_000}}).encode()
    error = failure(ask, line(ok(said, status="400 No")))

    assert type(error) is RefusedError
    assert len(str(error)) <= 2_000


@pytest.mark.case("S10")
@pytest.mark.parametrize(
    "body", [b'["a list"]', b"[" * 60_000, b'{"a":' * 10_000, b'{"error":' * 300 + b"1" + b"}" * 300, b"\xff\xfe"]
)
def test_an_error_that_is_hard_to_parse_is_an_error_of_its_status(line, ask, body):
    error = failure(ask, line(ok(body, status="400 No")))

    assert (type(error), error.status) == (RefusedError, 400)


@pytest.mark.case("M04", "P17", "S10")
def test_headers_of_a_hundred_megabytes_are_not_read(line, ask):
    server = line(*[flood(200, b"x-long: ")] * 9)

    error, peak = measured(ask, server)

    assert (type(error), error.kind) == (ResponseError, "malformed")
    assert server.asked == error.attempts == 2
    assert peak < 8 * 2**20


@pytest.mark.case("H09")
@pytest.mark.parametrize("status", ["400 No", "200 OK"])
def test_a_request_id_is_cut_and_cleaned(line, ask, status):
    # A tab and the high half of Latin-1 are all that the transport's parser lets through.
    name = "req\t\x85" + "x" * 10_000
    server = line(
        *[ok(b"{}", status=status).replace(b"\r\n\r\n", f"\r\nx-request-id: {name}\r\n\r\n".encode("latin-1"))] * 2
    )

    error = failure(ask, server)

    assert error.request_id.startswith("req\\t\\x85xxx")
    assert len(error.request_id) == 200
    assert error.request_id.isprintable()


# --- the way to the server


@pytest.mark.case("N01")
def test_a_name_that_does_not_resolve_is_given_up_soon_and_was_not_billed(ask, monkeypatch):
    looked = []

    def unknown(*args, **kwargs):
        looked.append(args)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    class Nowhere:
        url = "https://no-such-host.invalid/v1"

    error = failure(ask, Nowhere)

    assert (type(error), error.kind, error.billed, error.code) == (NetworkError, "never_sent", "no", "unknown_host")
    assert error.attempts == 3
    assert len(looked) == 3


@pytest.mark.case("N02")
def test_a_server_that_comes_up_is_reached_for_the_price_of_three_retries(line, ask, right, monkeypatch):
    server, down = line(), iter(range(5))
    connect = socket.socket.connect
    real = socket.getaddrinfo

    with socket.create_server(("127.0.0.1", 0)) as nobody:
        dead = nobody.getsockname()[1]

    def resolve(host, port, *args, **kwargs):
        # While it is down, the way leads to a port where nobody listens.
        return real(host, dead if next(down, None) is not None else port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    assert right(ask(server))
    assert connect is socket.socket.connect
    assert server.asked == 1


@pytest.mark.case("N15")
def test_waiting_for_a_connection_of_a_full_pool_is_nobodys_failure(line, twin, clock, users_client, until):
    def slow(connection, body, line):
        line.over.wait(10)

    server = line(slow)
    given = users_client(base_url=server.url, limits=httpx2.Limits(max_connections=1))
    patient = twin.embedder(client=given, timeout=5)
    hasty = twin.embedder(client=given, timeout=0.2)

    def first():
        with suppress(VoxvecError):
            patient.embed(["held"])

    thread = threading.Thread(target=first)
    thread.start()
    until(lambda: server.asked == 1)
    with pytest.raises(ServiceTimeoutError, match="its pool is full") as caught:
        hasty.embed(TEXTS)

    assert (caught.value.kind, caught.value.billed, caught.value.attempts) == ("breaker", "no", 0)
    assert (server.asked, clock.waits) == (1, [])
    server.over.set()
    thread.join(20)


# --- encryption


CERTIFICATES = Path(__file__).parents[1] / "data" / "certificates"  # each signed by itself, with its key


def encrypting(name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")

    def greet(connection, number):
        return context.wrap_socket(connection, server_side=True)

    return greet


@pytest.fixture
def trust(monkeypatch):
    return lambda name: monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / f"{name}.pem"))


@pytest.mark.case("N04")
@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [
        ("right", False, "self.signed certificate"),
        ("other", True, "IP address mismatch"),
        ("old", True, "certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_right_ends_the_call_at_once_and_is_named(line, ask, trust, name, trusted, reason):  # noqa: PLR0917 -- one per column of the table
    if trusted:
        trust(name)
    server = line(greet=encrypting(name), scheme="https")

    error = failure(ask, server)

    assert (type(error), error.kind, error.billed, error.attempts) == (NetworkError, "refused", "no", 1)
    assert re.search(rf"the certificate of 127\.0\.0\.1 is not to be trusted: .*{reason}", str(error))
    assert (server.asked, len(server.connections)) == (0, 1)


@pytest.mark.case("N05")
@pytest.mark.parametrize("how", ["closed", "reset", "nonsense"])
def test_a_handshake_that_breaks_is_tried_again(line, ask, right, trust, how):
    trust("right")
    encrypt = encrypting("right")

    def greet(connection, number):
        if number > 2:
            return encrypt(connection, number)
        connection.recv(10_000)
        if how == "nonsense":
            connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")
        if how == "reset":
            reset(connection)
        connection.close()
        return connection

    server = line(greet=greet, scheme="https")

    assert right(ask(server))
    assert (server.asked, len(server.connections)) == (1, 3)


@pytest.mark.case("N05")
def test_a_handshake_that_always_breaks_was_never_billed(line, ask, trust):
    def greet(connection, number):
        connection.close()
        return connection

    error = failure(ask, line(greet=greet, scheme="https"))

    assert (type(error), error.kind, error.billed) == (NetworkError, "never_sent", "no")


# --- what is shown


@pytest.mark.case("N16", "P24")
def test_a_proxys_password_is_in_no_log_and_in_no_error(line, twin, clock, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    proxy = line(None, ok(b"", status="407 No"))
    proxy.acts[0] = proxy.honest
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://me:hunter2-hunter2@").removesuffix("/v1"))
    for name in ("http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    client = twin.embedder(base_url="http://far-away.test/v1", allow_insecure=True, dimensions=8)

    client.embed(TEXTS)
    with pytest.raises(ServiceError) as caught:
        client.embed(["owl"])

    assert b"roxy-" in proxy.heads[0]
    assert b"Basic bWU6aHVudGVyMi1odW50ZXIy" in proxy.heads[0]  # me:hunter2-hunter2
    shown = "".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records) + repr(caught.value)
    for secret in ("hunter2", "bWU6aHVudGVyMi1odW50ZXIy", KEY):
        assert secret not in shown
    client.close()


@pytest.mark.case("N16")
def test_a_proxy_that_refuses_the_tunnel_cost_nothing(line, ask, monkeypatch):
    proxy = Tunnel()
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:hunter2-hunter2@127.0.0.1:{proxy.port}")
    for name in ("https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    class Far:
        url = "https://far-away.test/v1"

    error = failure(ask, Far)
    proxy.close()

    assert (type(error), error.kind, error.billed) == (NetworkError, "never_sent", "no")
    assert "hunter2" not in repr(error)


class Tunnel:
    """A proxy that answers every request for a tunnel in turn: no, and without a word."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        number = 0
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                read_head(connection)
                number += 1
                if number % 2:
                    connection.sendall(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.mark.case("F61")
def test_a_key_with_a_line_break_is_mended(line, twin, clock, caplog):
    caplog.set_level(logging.DEBUG)
    server = line()
    client = twin.embedder(base_url=server.url, api_key=f"{KEY}\n", dimensions=8)

    client.embed(TEXTS)

    assert f"authorization: Bearer {KEY}\r\n".lower() in server.heads[0].decode().lower() + "\r\n"
    assert KEY not in caplog.text
    client.close()


@pytest.mark.case("F61")
def test_a_key_with_a_line_break_inside_is_shown_nowhere(twin):
    with pytest.raises(ConfigError) as caught:
        twin.embedder(api_key="sk-canary\nof-the-tests").embed(TEXTS)

    assert "canary" not in repr(caught.value)


@pytest.mark.case("F63")
@pytest.mark.parametrize("key", ["sk-quoted-by-the-server", "hunter2-hunter2", "s" * 40])
def test_a_key_that_the_server_quotes_is_hidden(line, twin, clock, key):
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {key}.", "code": key, "type": key}}).encode()
    server = line(ok(said, f"x-request-id: {key}", status="401 No"))
    client = twin.embedder(base_url=server.url, api_key=key)

    with pytest.raises(VoxvecError) as caught:
        client.embed(TEXTS)

    assert key not in repr(caught.value)
    assert key not in repr(vars(caught.value))
    assert "[secret]" in str(caught.value)
    client.close()


@pytest.mark.case("F63")
def test_whatever_credentials_a_users_client_sends_are_hidden(line, twin, clock, users_client):
    said = json.dumps({"error": {"message": "neither tenant-pass nor hunter2-hunter2 nor cook13s"}}).encode()
    server = line(ok(said, status="401 No"))
    headers = {"X-Tenant-Token": "tenant-pass", "Authorization": "Basic hunter2-hunter2", "Cookie": "s=cook13s"}
    given = users_client(base_url=server.url, default_headers=headers)

    with pytest.raises(VoxvecError, match="neither") as caught:
        twin.embedder(client=given).embed(TEXTS)

    for secret in ("tenant-pass", "hunter2"):
        assert secret not in str(caught.value)


# --- where requests may go


@pytest.mark.case("F62", "S5")
@pytest.mark.parametrize("kind", [vv.Embedder, vv.AsyncEmbedder, vv.Transcriber, vv.AsyncTranscriber])
def test_only_what_is_encrypted_or_stays_here_is_a_base_url(kind):
    name = "text-embedding-3-small" if "Embed" in kind.__name__ else "gpt-transcribe"
    for good in ("https://far.test", "http://localhost:1/v1", "http://127.9.9.9", "http://[::1]:80/v1"):
        kind(name, api_key=KEY, base_url=good)
    for bad in ("http://far.test", "http://127.0.0.1.far.test", "http://10.0.0.1/v1", "http://localhost.far.test"):
        kind(name, api_key=KEY, base_url=bad, allow_insecure=True)
        with pytest.raises(ConfigError, match=r"unencrypted: use https, or pass allow_insecure=True"):
            kind(name, api_key=KEY, base_url=bad)
    with pytest.raises(ConfigError, match="without a user name") as caught:
        kind(name, api_key=KEY, base_url="https://me:hunter2@far.test", allow_insecure=True)
    assert "hunter2" not in repr(caught.value)
    with pytest.raises(ConfigError, match="allow_insecure must be True or False"):
        kind(name, api_key=KEY, allow_insecure="no")


@pytest.mark.case("F62")
def test_a_users_own_client_is_their_own_decision():
    given = openai.OpenAI(api_key=KEY, base_url="http://far.test/v1")

    assert vv.Embedder("text-embedding-3-small", client=given).model.dims == 1536


@pytest.mark.case("S5", "S16")
def test_a_server_from_the_environment_is_checked_and_said_once(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "voxvec")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere-once.test/secret-path/v1?key=secret")
    for _ in range(2):
        vv.Embedder("text-embedding-3-small", api_key=KEY)
    vv.Embedder("text-embedding-3-small", api_key=KEY, base_url="https://given.test")

    assert [record.getMessage() for record in caplog.records] == [
        "requests go to elsewhere-once.test, as OPENAI_BASE_URL says"
    ]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.test/v1")
    with pytest.raises(ConfigError, match="unencrypted"):
        vv.Embedder("text-embedding-3-small", api_key=KEY)


# --- one layer of retries


@pytest.mark.case("P12")
def test_only_one_layer_tries_again_and_the_users_client_stays_as_it_was(line, twin, clock, users_client):
    busy = ok(b"", status="500 No")
    server = line(*[busy] * 30)
    given = users_client(base_url=server.url, max_retries=5)
    before = dict(vars(given))

    with pytest.raises(ServerError) as caught:
        twin.embedder(client=given).embed(TEXTS)

    assert server.asked == caught.value.attempts == 6
    assert dict(vars(given)) == before
    assert given.max_retries == 5
