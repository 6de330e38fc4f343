"""Nothing is paid for twice: within a call, across calls, across callers, across runs."""

import os
import random
import signal
import threading

import pytest

import voxvec as vv
from voxvec._flights import Flights
from voxvec.testing import FakeOpenAI, Fault

SMALL = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=5)


@pytest.fixture
def fake():
    return FakeOpenAI()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "vectors.db"


def texts(n):
    return [f"text {at}" for at in range(n)]


@pytest.mark.case("F41")
def test_one_bad_batch_costs_nothing_but_itself_now_and_in_the_next_run(twin, fake, cache, clock, vectors_of):
    many = [*texts(50), "poison"]
    fake.misbehave(Fault(status=400), when=lambda asked: "poison" in asked.inputs, times=None)

    with pytest.raises(vv.RefusedError) as caught:
        twin.embedder(SMALL, client=twin.client(fake), cache=cache).embed(many)
    vectors = twin.embedder(SMALL, client=twin.client(fake), cache=cache).embed(many[:-1])

    assert caught.value.positions == (50,)
    assert vectors.tolist() == vectors_of(many[:-1], 8)
    assert (fake.billed, fake.paid_again) == (50, 0)


@pytest.mark.case("F43")
def test_the_same_text_in_three_calls_is_bought_once(twin, fake, cache):
    embedder = twin.embedder(SMALL, client=twin.client(fake), cache=cache)

    found = [embedder.embed(texts(3)).tolist() for _ in range(3)]

    assert found[0] == found[1] == found[2]
    assert (fake.asked, fake.billed) == (1, 3)


@pytest.mark.case("F44")
def test_duplicates_within_a_call_are_bought_once(twin, fake, vectors_of):
    listed = ["ant", "bee", "ant", "ant", "bee"]

    vectors = twin.embedder(SMALL, client=twin.client(fake)).embed(listed)

    assert vectors.tolist() == vectors_of(listed, 8)
    assert (fake.asked, fake.billed) == (1, 2)


@pytest.mark.case("F45")
def test_ten_callers_of_one_text_share_one_request(twin, fake, together, until, monkeypatch):
    waiting, claim = [], Flights.claim

    def spy(flights, *args):
        made = claim(flights, *args)
        waiting.extend(made.theirs)
        return made

    monkeypatch.setattr(Flights, "claim", spy)
    # The answer is held back until nine others wait for it.
    fake.mutate = lambda _, reply: (until(lambda: len(waiting) == 9), reply)[1]
    embedder = twin.embedder(SMALL, client=twin.client(fake))

    answers = together(*[lambda: embedder.embed_one("ant").tolist()] * 10)

    assert answers == [answers[0]] * 10
    assert (fake.asked, fake.billed) == (1, 1)


@pytest.mark.case("F67")
def test_a_known_text_between_two_new_ones_is_not_bought_again(twin, fake, cache, vectors_of):
    embedder = twin.embedder(SMALL, client=twin.client(fake), cache=cache)
    embedder.embed(["bee"])

    vectors = embedder.embed(["ant", "bee", "cat"])

    assert vectors.tolist() == vectors_of(["ant", "bee", "cat"], 8)
    assert (fake.billed, fake.paid_again, vectors.cached) == (3, 0, 1)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def killed(twin, base_url, cache, many):
    """Embed in a child that somebody kills; what became of it. Forked, so that no interpreter has to start."""
    child = os.fork()
    if child == 0:
        try:
            twin_of_the_child = vv.Embedder if twin == "sync" else vv.AsyncEmbedder
            embedder = twin_of_the_child(SMALL, api_key="sk-canary-x", base_url=base_url, cache=cache, workers=8)
            if twin == "sync":
                embedder.embed(many)
            else:
                import anyio  # noqa: PLC0415 -- only the child of this twin needs it

                anyio.run(embedder.embed, many)
        finally:
            os._exit(0)
    return child


@needs_fork
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.case("F42", "J01")
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("at", [3, 20, 37])
def test_after_a_kill_nothing_delivered_is_bought_again(kind, at, cache, monkeypatch, vectors_of):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    many, children = texts(200), []

    def kill(_, reply):
        if fake.asked >= at and children:
            os.kill(children.pop(), signal.SIGKILL)
        return reply

    fake = FakeOpenAI(mutate=kill)
    with fake.serve() as base_url:
        child = killed(kind, base_url, str(cache), many)
        children.append(child)
        _, status = os.waitpid(child, 0)
        children.clear()
        with vv.Embedder(SMALL, api_key="sk-canary-x", base_url=base_url, cache=cache) as embedder:
            vectors = embedder.embed(many)

    assert os.WTERMSIG(status) == signal.SIGKILL
    assert vectors.tolist() == vectors_of(many, 8)
    assert fake.paid_again <= 8 * 5  # eight requests of five texts were in flight


@needs_fork
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.case("F42", "J01")
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_again_and_again_a_job_ends_with_all_texts_and_buys_again_what_was_in_flight(
    kind, kills, cache, monkeypatch, vectors_of
):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    many, draw = texts(40 * kills), random.Random(kills)  # noqa: S311 -- the same moments every time
    fake, after, lock, victims = FakeOpenAI(), [0], threading.Lock(), []

    def kill(_, reply):
        with lock:
            after[0] -= 1
            if after[0] <= 0 and victims:
                os.kill(victims.pop(), signal.SIGKILL)
        return reply

    fake.mutate = kill
    died = 0
    with fake.serve() as base_url:
        for _ in range(kills):
            after[0] = draw.randrange(1, 12)
            child = killed(kind, base_url, str(cache), many)
            with lock:
                victims.append(child)
            _, status = os.waitpid(child, 0)
            with lock:
                victims.clear()
            died += os.WIFSIGNALED(status)
        with vv.Embedder(SMALL, api_key="sk-canary-x", base_url=base_url, cache=cache) as embedder:
            vectors = embedder.embed(many)

    assert died >= kills // 2
    assert vectors.tolist() == vectors_of(many, 8)
    assert fake.paid_again <= 8 * 5 * died  # eight requests of five texts were in flight
