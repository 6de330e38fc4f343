"""Callers at the same time who want the same texts: one purchase, and nobody is left behind; both twins."""

import random
import threading
from concurrent.futures import CancelledError

import pytest

import voxvec as vv
from voxvec import MemoryCache, _run
from voxvec.testing import FakeOpenAI

SMALL = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=2)


class Held(FakeOpenAI):
    """A server that answers when it is let; the first ``faults`` answers are errors."""

    def __init__(self):
        super().__init__(mutate=self.hold)
        self.let, self.faults, self.status = threading.Event(), 0, 500

    def hold(self, _, reply):
        assert self.let.wait(20)
        self.faults -= 1
        return type(reply)(self.status, {}, b"no") if self.faults >= 0 else reply


class Watched(MemoryCache):
    """A cache that notes how many keys it was asked for: those a call is to buy itself."""

    def __init__(self):
        super().__init__()
        self.looked = []

    def get_many(self, keys, /):
        self.looked.append(len(keys))
        return super().get_many(keys)


@pytest.fixture
def server(clock):
    held = Held()
    yield held
    held.let.set()


@pytest.fixture
def share(twin, server, together, until):
    """Two calls of one client, the second begun while the first one's texts are on their way."""

    def run(texts, others):
        cache = Watched()
        embedder = twin.embedder(SMALL, client=twin.client(server), cache=cache, retry=vv.Retry(attempts=1))

        def second():
            until(lambda: server.asked)
            return embedder.embed(others)

        def gatekeeper():
            until(lambda: len(cache.looked) == 2)
            server.let.set()

        first, second, _ = together(lambda: embedder.embed(texts), second, gatekeeper)
        return first, second, cache.looked

    return run


def test_two_callers_of_the_same_texts_buy_them_once(share, server, vectors_of):
    first, second, looked = share(["ant", "bee", "cat"], ["cat", "bee", "ant"])

    assert looked == [3, 0]
    assert server.billed == 3
    assert first.tolist() == second[::-1].tolist() == vectors_of(["ant", "bee", "cat"], 8)
    assert (first.cached, second.cached) == (0, 3)
    assert second.usage.requests == 0


def test_callers_whose_texts_overlap_each_buy_their_own(share, server, vectors_of):
    first, second, looked = share(["ant", "bee", "cat"], ["bee", "cat", "dog"])

    assert looked == [3, 1]
    assert server.paid_again == 0
    assert first.tolist() == vectors_of(["ant", "bee", "cat"], 8)
    assert second.tolist() == vectors_of(["bee", "cat", "dog"], 8)


def test_when_the_owner_fails_the_other_buys_for_itself(share, server, vectors_of):
    server.faults = 1

    first, second, looked = share(["ant", "bee"], ["bee", "ant"])

    assert isinstance(first, vv.ServerError)
    assert second.tolist() == vectors_of(["bee", "ant"], 8)
    assert looked == [2, 0, 2]


def test_when_both_fail_both_are_told(share, server):
    server.faults = 2

    first, second, _ = share(["ant", "bee"], ["bee", "ant"])

    assert isinstance(first, vv.ServerError)
    assert isinstance(second, vv.ServerError)
    assert first is not second


def test_what_is_refused_for_good_is_not_asked_a_second_time(share, server):
    server.faults, server.status = 1, 400

    first, second, _ = share(["ant", "bee"], ["bee", "bee"])

    assert isinstance(first, vv.RefusedError)
    assert isinstance(second, vv.RefusedError)
    assert (first.positions, second.positions) == ((0, 1), (0, 1))
    assert second is not first
    assert len(server.requests) == 1


def test_a_deadline_bounds_the_wait_for_another_call(twin, server, until, together):
    embedder = twin.embedder(SMALL, client=twin.client(server), deadline=30)

    def late():
        until(lambda: server.asked)
        try:
            return embedder.embed(["ant"])
        finally:
            server.let.set()

    first, second = together(lambda: embedder.embed(["ant"]), late)

    assert isinstance(second, vv.ServiceTimeoutError)
    assert (second.billed, second.pending, list(second.partial.failed)) == ("no", 1, [0])
    assert not isinstance(first, Exception)


def test_when_the_owner_is_cancelled_the_other_buys_for_itself(server, until, together, twin, vectors_of):
    if twin.kind == "sync":
        pytest.skip("threads cannot be cancelled")
    cache = Watched()
    embedder = twin.embedder(SMALL, client=twin.client(server), cache=cache)
    owner = twin.portal.start_task_soon(embedder._client.embed, ["ant", "bee"])
    until(lambda: server.asked)

    def gatekeeper():
        until(lambda: len(cache.looked) == 2)
        owner.cancel()
        server.let.set()

    vectors, _ = together(lambda: embedder.embed(["ant", "bee"]), gatekeeper)

    with pytest.raises(CancelledError):
        owner.result(10)
    assert vectors.tolist() == vectors_of(["ant", "bee"], 8)


def test_callers_who_want_other_dims_do_not_wait_for_each_other(twin, server, together):
    embedder = twin.embedder(SMALL, client=twin.client(server))
    server.let.set()

    results = together(*(lambda dims=dims: embedder.embed(["ant"], dimensions=dims) for dims in (4, 8, 16)))

    assert [vectors.dims for vectors in results] == [4, 8, 16]


def test_a_crowd_buys_each_text_once(twin, server, together, vectors_of):
    server.let.set()
    draw = random.Random(3)  # noqa: S311 -- the same crowd every time
    texts = [f"text {n}" for n in range(20)]
    wishes = [draw.sample(texts, 12) for _ in range(12)]
    embedder = twin.embedder(SMALL, client=twin.client(server), cache=MemoryCache(), workers=4)

    results = together(*(lambda wish=wish: embedder.embed(wish) for wish in wishes))

    assert [vectors.tolist() for vectors in results] == [vectors_of(wish, 8) for wish in wishes]
    assert server.paid_again == 0
    assert server.peak <= 4


def test_after_ctrl_c_the_same_call_waits_for_what_is_on_its_way_instead_of_buying_it_again(clock, until, monkeypatch):
    server = Held()
    embedder = vv.Embedder(SMALL, client=server.client(), cache=MemoryCache())
    texts = [f"text {number}" for number in range(8)]
    real, pressed = _run.in_thread, []

    class Interrupted:
        """What the caller waits for when Ctrl-C is pressed."""

        def result(self):
            until(lambda: len(server.requests) == 4)
            pressed.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(_run, "in_thread", lambda crew: real(crew) and Interrupted())
    with pytest.raises(KeyboardInterrupt):
        embedder.embed(texts)
    monkeypatch.setattr(_run, "in_thread", real)
    threading.Timer(0.05, server.let.set).start()

    vectors = embedder.embed(texts)

    assert pressed
    assert vectors.cached == 8
    assert server.paid_again == 0
    assert server.billed == 8


def test_requests_of_parts_that_were_stopped_are_counted(twin, server, clock):
    server.let.set()
    seen = []

    def spoil(request, reply):
        text = request.json()["input"][0]
        seen.append(text)
        if text == "broken":
            return type(reply)(500, {}, b"no")
        until_broken = [each for each in seen if each == "broken"]
        return type(reply)(501, {}, b"never") if until_broken else reply

    server.mutate = spoil
    embedder = twin.embedder(SMALL.replace(max_items=1), client=twin.client(server), workers=2)

    with pytest.raises(vv.VoxvecError) as caught:
        embedder.embed(["broken", "refused", "never sent"])

    assert caught.value.partial.usage.requests == len(server.requests)
