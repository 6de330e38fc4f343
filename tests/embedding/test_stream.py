"""Embedding without end: order, bounded look-ahead, and an end when nobody listens any more; both twins."""

import itertools
import threading

import httpx
import pytest

import voxvec as vv
from voxvec import MemoryCache
from voxvec.testing import FakeOpenAI

SMALL = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=4)


def refusal():
    return httpx.Response(400, json={"error": {"message": "no"}})


class Read:
    """Counts what is taken out of an iterable."""

    def __init__(self, texts):
        self.count, self.texts = 0, texts

    def __iter__(self):
        for text in self.texts:
            self.count += 1
            yield text

    async def __aiter__(self):
        for text in self:
            yield text


def test_parts_come_in_order_and_hold_every_text(twin, server, vectors_of):
    texts = [f"text {n % 30}" for n in range(50)]

    parts = list(twin.embedder(SMALL, workers=3).stream(iter(texts)))

    assert [len(part) for part in parts] == [4] * 12 + [2]
    assert [row for part in parts for row in part.tolist()] == vectors_of(texts, 8)


def test_nothing_to_stream_is_nothing_sent(twin, server):
    assert list(twin.embedder(SMALL).stream([])) == []
    assert server.asked == []


@pytest.mark.case("I07")
def test_no_more_is_read_ahead_than_three_requests_a_worker(twin, server):
    endless = Read(f"text {n}" for n in itertools.count())
    stream = twin.embedder(SMALL, workers=3).stream(endless)

    for _, part in zip(range(5), stream, strict=False):
        assert part.shape == (4, 8)
        assert endless.count <= 4 * (5 + 3 * 3)
    stream.close()


def test_leaving_early_stops_further_requests(twin, server):
    endless = Read(f"text {n}" for n in itertools.count())

    for _ in twin.embedder(SMALL, workers=2).stream(endless):
        break

    assert endless.count <= 4 * (1 + 3 * 2)
    assert len(server.asked) <= 1 + 3 * 2


def test_every_part_is_in_the_cache_before_it_is_given_out(twin, server):
    cache = MemoryCache()
    seen = 0

    for part in twin.embedder(SMALL, cache=cache, workers=2).stream(f"text {n}" for n in range(40)):
        seen += len(part)
        assert cache.stats().rows >= seen


def test_a_second_run_buys_nothing(twin, server):
    cache = MemoryCache()
    for _ in range(2):
        parts = list(twin.embedder(SMALL, cache=cache).stream(f"text {n}" for n in range(20)))

    assert len(server.asked) == 5
    assert sum(part.cached for part in parts) == 20


def test_settings_of_a_call_hold_for_every_part(twin, server):
    model = vv.EmbeddingModel(name="tiny", query_prefix="q: ", max_items=2)

    list(twin.embedder(model).stream(["a", "b", "c"], input_type="query"))

    assert sorted(server.texts) == ["q: a", "q: b", "q: c"]


def test_positions_in_errors_count_from_the_start_of_the_stream(twin, server):
    texts = [f"text {n}" for n in range(20)]
    texts[9] = ""

    stream = twin.embedder(SMALL, workers=1).stream(texts)
    bought = [next(stream), next(stream)]
    with pytest.raises(vv.InputError) as caught:
        list(stream)

    assert len(bought) == 2
    assert caught.value.positions == (9,)


def test_a_failing_part_is_raised_as_itself_after_those_before_it(twin, server):
    server.rule = lambda body: refusal() if "text 13" in body["input"] else None
    stream = twin.embedder(SMALL, workers=3).stream(f"text {n}" for n in range(100))

    bought = [len(next(stream)) for _ in range(3)]
    with pytest.raises(vv.RefusedError) as caught:
        next(stream)

    assert bought == [4, 4, 4]
    assert caught.value.positions == (12, 13, 14, 15)


@pytest.mark.parametrize("error", [vv.InputError, TypeError, ZeroDivisionError])
def test_a_source_that_fails_is_raised_as_itself(twin, server, error):
    def source():
        yield from ["ant"] * 4
        raise error("source")

    with pytest.raises(error, match="source"):
        list(twin.embedder(SMALL, workers=2).stream(source()))


def test_one_text_is_refused_with_the_way_out(twin, server):
    with pytest.raises(vv.InputError, match="embed_one"):
        list(twin.embedder(SMALL).stream("ant"))


@pytest.mark.parametrize(("n", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (0, [])])
def test_the_async_twin_takes_async_iterables(twin, server, vectors_of, n, sizes):
    if twin.kind == "sync":
        pytest.skip("threads have no async iterables")
    source = Read([f"text {at}" for at in range(n)])

    parts = list(twin.embedder(SMALL, workers=2).stream(source.__aiter__()))

    assert [len(part) for part in parts] == sizes
    assert [row for part in parts for row in part.tolist()] == vectors_of(source.texts, 8)


def test_leaving_early_stops_requests_that_wait_for_their_turn(until):
    fake = FakeOpenAI()
    embedder = vv.Embedder(SMALL, client=fake.client(), workers=8, pace=vv.Pace(requests=0.001))  # one, then none

    def texts():
        for n in range(64):
            if n == 5:  # or another part than the first might get the one turn
                until(lambda: fake.asked)
            yield f"text {n}"

    stream = embedder.stream(texts())
    next(stream)
    stream.close()

    crew = [thread for thread in threading.enumerate() if thread.name == "voxvec"]
    until(lambda: not any(thread.is_alive() for thread in crew))
    assert fake.asked == 1


def test_parts_keep_to_the_models_tokens_too(twin, server):
    model = SMALL.replace(max_items=100, max_request_tokens=64, tokenizer=None)

    parts = list(twin.embedder(model).stream(["x" * 20] * 10))

    assert all(sum(map(len, body["input"])) <= 64 for body in server.asked)
    assert sum(map(len, parts)) == 10
    assert max(map(len, parts)) < 10


def test_an_error_in_a_stream_names_the_text_by_its_place_in_the_stream(twin, server):
    texts = [f"text {n}" for n in range(9)]
    texts[6] = ""

    with pytest.raises(vv.InputError, match=r"text 6 is empty") as caught:
        list(twin.embedder(SMALL).stream(texts))

    assert caught.value.positions == (6,)
    assert "on_error" not in str(caught.value)


def test_a_text_alone_is_not_told_of_choices_it_does_not_have(twin, server):
    with pytest.raises(vv.InputError, match="text 0 is empty") as caught:
        twin.embedder(SMALL).embed_one("")

    assert "on_error" not in str(caught.value)
