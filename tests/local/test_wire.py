"""The same faults in process and on a socket, to a sync and to an async client: one outcome."""

import asyncio
import functools
import socket
import threading
import time
from contextlib import contextmanager

import anyio
import httpx2
import pytest

from voxvec.local import listener
from voxvec.testing import FakeOpenAI, Fault

BODY = {"model": "tiny", "input": ["a", "b"], "encoding_format": "base64"}
PATIENCE = 0.15


class Clock:
    """Time that only passes when somebody sleeps."""

    def __init__(self):
        self.seconds, self.slept = 0.0, []

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds


def outcome(response):
    return response.status_code, response.content


def failure(error):
    words = str(error) if isinstance(error, httpx2.ProtocolError) else ""  # anyio says nothing else
    return type(error).__name__, words


def ask(way, fake, patience, times=1):
    """What a client sees of some requests, one after the other."""
    seen = []

    def sync(client, url):
        for _ in range(times):
            try:
                seen.append(outcome(client.post(f"{url}/embeddings", json=BODY)))
            except httpx2.HTTPError as error:
                seen.append(failure(error))

    async def twin(make, url):
        async with make() as client:
            for _ in range(times):
                try:
                    seen.append(outcome(await client.post(f"{url}/embeddings", json=BODY)))
                except httpx2.HTTPError as error:
                    seen.append(failure(error))

    settings = {"timeout": patience, "trust_env": False}
    if way == "in process":
        with httpx2.Client(transport=fake.transport(), **settings) as client:
            sync(client, "http://fake/v1")
    elif way == "in process, async":
        make = functools.partial(httpx2.AsyncClient, transport=fake.async_transport(), **settings)
        anyio.run(twin, make, "http://fake/v1")
    elif way == "socket":
        with fake.serve() as url, httpx2.Client(**settings) as client:
            sync(client, url)
    else:
        with fake.serve() as url:
            anyio.run(twin, functools.partial(httpx2.AsyncClient, **settings), url)
    return seen


WAYS = ["in process", "in process, async", "socket", "socket, async"]
HONEST = ask("in process", FakeOpenAI(models={"tiny": 8}), None)[0]
SIZE = len(HONEST[1])
SHORT = "peer closed connection without sending complete message body (received {} bytes, expected {})"
GONE = "Server disconnected without sending a response."


def broken(words):
    return ("RemoteProtocolError", words)


RESET = ("ReadError", "")
LATE = ("ReadTimeout", "")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("fault", "seen", "billed", "delivered"),
    [
        pytest.param(Fault(delay=0.01), HONEST, 2, 2, id="late"),
        pytest.param(Fault(trickle=(150, 0.001)), HONEST, 2, 2, id="in-drops"),
        pytest.param(Fault(interim=(100, 103, 102)), HONEST, 2, 2, id="interim"),
        pytest.param(Fault(close=True), HONEST, 2, 2, id="closed-behind"),
        pytest.param(Fault(spoil="one-line"), (200, HONEST[1].translate(None, b" \n")), 2, 2, id="benign"),
        pytest.param(Fault(spoil="null"), (200, b"null"), 2, 0, id="spoilt"),
        pytest.param(Fault(spoil=lambda _: b"\xff"), (200, b"\xff"), 2, 0, id="spoilt-by-hand"),
        pytest.param(Fault(status=503, body="full"), (503, b"full"), 0, 0, id="error"),
        pytest.param(Fault(status=503, body={}, close=True), (503, b"{}\n"), 0, 0, id="error-and-closed"),
        pytest.param(Fault(status=204), (204, b""), 0, 0, id="no-content"),
        pytest.param(Fault(status=413, body=b"big", before_body=True), (413, b"big"), 0, 0, id="before-body"),
        pytest.param(Fault(cut=0), broken(SHORT.format(0, SIZE)), 2, 0, id="no-body"),
        pytest.param(Fault(cut=20), broken(SHORT.format(20, SIZE)), 2, 0, id="cut"),
        pytest.param(Fault(cut=-1), broken(SHORT.format(SIZE - 1, SIZE)), 2, 0, id="cut-one-short"),
        pytest.param(Fault(cut=10**6), broken(SHORT.format(SIZE - 1, SIZE)), 2, 0, id="cut-beyond-the-end"),
        pytest.param(Fault(cut=-(10**6)), broken(SHORT.format(0, SIZE)), 2, 0, id="cut-beyond-the-start"),
        pytest.param(
            Fault(content_length=10, close=True), broken(SHORT.format(SIZE, SIZE + 10)), 2, 0, id="long-and-closed"
        ),
        pytest.param(Fault(content_length=-10), (200, HONEST[1][:-10]), 2, 0, id="short-length"),
        pytest.param(Fault(content_length=10), LATE, 2, 0, id="long-length"),
        pytest.param(Fault(reset="before"), RESET, 0, 0, id="reset-before"),
        pytest.param(Fault(reset="headers"), RESET, 2, 0, id="reset-headers"),
        pytest.param(Fault(reset="body"), RESET, 2, 0, id="reset-body"),
        pytest.param(Fault(silent=True), LATE, 2, 0, id="silent"),
        pytest.param(Fault(silent=True, before_body=True), LATE, 0, 0, id="never-reads"),
        pytest.param(Fault(delay=9), LATE, 2, 0, id="too-late"),
        pytest.param(Fault(trickle=(150, 9)), LATE, 2, 0, id="too-slow"),
        pytest.param(Fault(raw=b""), broken(GONE), 2, 0, id="closes"),
        pytest.param(
            Fault(raw=b"hello\r\n\r\n"), broken("illegal status line: bytearray(b'hello')"), 2, 0, id="no-http"
        ),
        pytest.param(
            Fault(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            broken("conflicting Content-Length headers"),
            2,
            0,
            id="two-lengths",
        ),
        pytest.param(
            Fault(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n"),
            broken("peer closed connection without sending complete message body (incomplete chunked read)"),
            2,
            0,
            id="no-last-chunk",
        ),
        pytest.param(Fault(raw=b"HTTP/1.0 200 OK\r\n\r\nuntil the end"), (200, b"until the end"), 2, 0, id="http-1.0"),
        pytest.param(Fault(headers={"content-encoding": "gzip"}), ("DecodingError", ""), 2, 0, id="gzip-that-is-none"),
    ],
)
def test_a_fault_looks_the_same_in_process_and_on_a_socket(way, fault, seen, billed, delivered):
    fake = FakeOpenAI(models={"tiny": 8}, **({} if "socket" in way else {"clock": Clock()}))
    fake.misbehave(fault)

    assert ask(way, fake, PATIENCE) == [seen]
    assert (fake.asked, fake.billed, fake.delivered, fake.peak) == (1, billed, delivered, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fault", [Fault(reset="body"), Fault(cut=5), Fault(close=True), Fault(silent=True), Fault(raw=b"x")], ids=repr
)
def test_after_a_fault_the_next_request_is_answered(way, fault):
    fake = FakeOpenAI(models={"tiny": 8}, **({} if "socket" in way else {"clock": Clock()}))
    fake.misbehave(fault)

    assert ask(way, fake, PATIENCE, times=2)[1] == HONEST
    assert fake.paid_again == 2


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize(
    ("fault", "slept"),
    [
        (Fault(delay=3), [3]),
        (Fault(delay=30), [5]),
        (Fault(silent=True), [5]),
        (Fault(silent=True, delay=2), [2, 3]),
        (Fault(content_length=1), [5]),
        (Fault(status=500, body=b"x" * 30, trickle=(100, 2)), [2]),
    ],
    ids=repr,
)
def test_in_process_time_passes_by_the_clock_and_a_client_waits_as_long_as_it_said(way, fault, slept):
    clock = Clock()
    fake = FakeOpenAI(models={"tiny": 8}, clock=clock)
    fake.misbehave(fault)

    ask(way, fake, 5)

    assert [seconds for seconds in clock.slept if seconds] == slept


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_client_without_patience_of_its_own_waits_for_ten_minutes(way):
    clock = Clock()
    fake = FakeOpenAI(models={"tiny": 8}, clock=clock)
    fake.misbehave(Fault(silent=True))

    assert ask(way, fake, None) == [LATE]
    assert clock.seconds == 600


def test_an_answer_that_nobody_reads_to_its_end_is_not_delivered():
    fake = FakeOpenAI(models={"tiny": 8})
    fake.misbehave(Fault(trickle=(300, 0)), times=2)

    async def twin():
        async with (
            httpx2.AsyncClient(transport=fake.async_transport()) as client,
            client.stream("POST", "http://fake/v1/embeddings", json=BODY),
        ):
            pass

    with (
        httpx2.Client(transport=fake.transport()) as client,
        client.stream("POST", "http://fake/v1/embeddings", json=BODY),
    ):
        pass
    anyio.run(twin)

    assert (fake.billed, fake.delivered) == (4, 0)


def test_a_task_that_is_cancelled_while_it_waits_holds_up_nobody_and_leaves_nothing():
    fake = FakeOpenAI(models={"tiny": 8})
    fake.misbehave(Fault(silent=True))
    ticks = []

    async def cancelled():
        async with httpx2.AsyncClient(transport=fake.async_transport(), timeout=60) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(functools.partial(client.post, "http://fake/v1/embeddings", json=BODY))
                while not fake.billed:
                    ticks.append(1)
                    await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()
            return await client.post("http://fake/v1/embeddings", json=BODY)

    assert outcome(anyio.run(cancelled)) == HONEST
    assert ticks
    assert (fake.peak, fake._ledger.busy) == (1, 0)


def test_an_answer_that_is_made_after_its_task_was_cancelled_is_dropped(until):
    fake = FakeOpenAI(models={"tiny": 8})
    free = threading.Event()
    fake.mutate = lambda _, reply: (free.wait(20), reply)[1]

    async def cancelled():
        async with httpx2.AsyncClient(transport=fake.async_transport(), timeout=60) as client:
            task = asyncio.create_task(client.post("http://fake/v1/embeddings", json=BODY))
            await asyncio.to_thread(until, lambda: fake.billed)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            free.set()

    asyncio.run(cancelled())

    until(lambda: fake._ledger.busy == 0)
    assert (fake.billed, fake.delivered) == (2, 0)


# -- the socket itself


@contextmanager
def dialled(url):
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as wire:
        yield wire


def post(body=b'{"model": "tiny", "input": "a"}', headers=""):
    return b"POST /v1/embeddings HTTP/1.1\r\n%s\r\nContent-Length: %d\r\n\r\n%s" % (
        headers.encode() or b"Host: x",
        len(body),
        body,
    )


def drain(wire):
    data = b""
    while part := wire.recv(65_536):
        data += part
    return data


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("voxvec-")]


@pytest.fixture
def fake():
    return FakeOpenAI(models={"tiny": 8})


@pytest.mark.parametrize("fault", [Fault(silent=True), Fault(delay=60), Fault(content_length=9)], ids=repr)
def test_the_end_of_the_block_ends_every_wait(fake, fault, until):
    fake.misbehave(fault, times=None)
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(post())
        until(lambda: fake.billed)
        assert len(threads()) == 2
        started = time.monotonic()
    until(lambda: not threads())
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("fault", [Fault(silent=True), Fault(delay=60), Fault(trickle=(1, 60))], ids=repr)
def test_a_client_that_hangs_up_ends_the_wait(fake, fault, until):
    fake.misbehave(fault)
    with fake.serve() as url:
        with dialled(url) as wire:
            wire.sendall(post())
            until(lambda: fake.billed)
        until(lambda: len(threads()) == 1)
        assert fake._ledger.busy == 0


def test_the_end_of_the_block_does_not_wait_for_work_that_hangs(fake, monkeypatch):
    monkeypatch.setattr(listener, "_LAST_WORDS", 0.01)
    reached, free = threading.Event(), threading.Event()
    fake.mutate = lambda _, reply: (reached.set(), free.wait(20), reply)[2]
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(post())
        assert reached.wait(10)
    assert threads()
    free.set()


def test_an_answer_before_the_body_arrives_although_the_body_never_does(fake):
    fake.misbehave(Fault(status=413, body=b"too big", before_body=True))
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(post()[:-20])
        answer = drain(wire)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"\r\nconnection: close\r\ncontent-length: 7\r\n\r\ntoo big")
    assert [asked.inputs for asked in fake.requests] == [()]


def test_only_what_needs_no_body_is_decided_before_it(fake):
    fake.misbehave(Fault(status=418, before_body=True), when=lambda asked: "x-tea" in asked.headers)
    fake.misbehave(Fault(status=400), when=lambda asked: "a" in asked.inputs)
    with fake.serve() as url, dialled(url) as wire:
        answers = wire.makefile("rb")
        for request, status in [(post(), b"400"), (post(), b"200"), (post(headers="X-Tea: 1"), b"418")]:
            wire.sendall(request)
            assert answers.readline().split()[1] == status
            length = 0
            while (line := answers.readline()) != b"\r\n":
                name, _, value = line.partition(b": ")
                length = int(value) if name == b"content-length" else length
            answers.read(length)

    assert [asked.number for asked in fake.requests] == [1, 2, 3]


def test_a_reset_is_a_reset(fake):
    fake.misbehave(Fault(reset="before"))
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(post())
        with pytest.raises(ConnectionResetError):
            wire.recv(1)


def test_a_head_in_drops_is_sent_in_drops(fake):
    fake.misbehave(Fault(status=500, body=b"x", trickle=(1, 0.0)))
    with fake.serve() as url, dialled(url) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        wire.sendall(post(headers="Connection: close"))
        assert drain(wire).endswith(b"\r\n\r\nx")


def test_a_body_in_chunks_is_taken(fake):
    with fake.serve() as url:

        def parts():
            yield b'{"model": "tiny",'
            yield b'"input": "a"}'

        reply = httpx2.post(f"{url}/embeddings", content=parts(), trust_env=False)

    assert reply.json()["usage"]["total_tokens"] == 1


def test_chunks_may_have_remarks_and_a_trailer(fake):
    body = b'5;x=y\r\n{"inp\r\n19\r\nut":"a", "model": "tiny"}\r\n0\r\nX-Sum: 1\r\n\r\n'
    head = b"POST /v1/embeddings HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(head + body)
        assert drain(wire).startswith(b"HTTP/1.1 200 OK\r\n")

    assert fake.requests[0].inputs == ("a",)


@pytest.mark.parametrize("fault", [Fault(delay=3), Fault(trickle=(300, 3)), Fault(silent=True, delay=3)], ids=repr)
def test_on_a_socket_too_time_passes_by_the_clock(fault):
    clock = Clock()
    fake = FakeOpenAI(models={"tiny": 8}, clock=clock)
    fake.misbehave(fault)
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(post(headers="Connection: close"))
        if fault.silent:
            wire.shutdown(socket.SHUT_WR)
        assert drain(wire).startswith(b"" if fault.silent else b"HTTP/1.1 200 OK\r\n")

    assert set(clock.slept) == {3}


@pytest.mark.parametrize(
    "request_",
    [b"hello\r\n\r\n", b"GET /\r\n\r\n", post().replace(b"Length: ", b"Length: x"), b"\x16\x03\x01 x y z\r\n\r\n"],
)
def test_what_is_no_request_is_refused_and_not_counted(fake, request_):
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(request_)
        answer = drain(wire)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert fake.asked == 0


@pytest.mark.parametrize("part", [b"", b"\r\n", post()[:-1]])
def test_who_hangs_up_in_the_middle_of_a_request_is_not_counted(fake, capfd, part):
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(part)
        wire.shutdown(socket.SHUT_WR)
        assert drain(wire) == b""

    assert fake.asked == 0
    assert capfd.readouterr() == ("", "")


def test_a_client_that_asks_for_it_is_let_go_after_the_answer_and_head_has_no_body(fake):
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(post(headers="Connection: close").replace(b"POST", b"HEAD"))
        head, _, body = drain(wire).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert body == b""


def test_requests_sent_before_the_answer_are_answered_in_order(fake):
    fake.misbehave(Fault(delay=0.02))
    with fake.serve() as url, dialled(url) as wire:
        wire.sendall(post() + post(headers="Connection: close"))
        assert drain(wire).count(b"HTTP/1.1 200 OK") == 2
