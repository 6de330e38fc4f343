"""Memory is bounded: for streams without end, for failures without end, for the largest legal answer."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from tests.faults import streams

import voxvec as vv
from voxvec.embedding import job
from voxvec.local.exchange import Reply
from voxvec.testing import FakeOpenAI, Fault


def client(twin, *responder):
    return (streams.client if twin.kind == "sync" else streams.async_client)(*responder)


@pytest.mark.case("M03")
def test_a_large_answer_takes_a_small_multiple_of_its_size(twin):
    texts = [f"text {at}" for at in range(2_048)]
    with FakeOpenAI(tokens=len).client() as honest:
        raw = honest.embeddings.with_raw_response.create(
            model="text-embedding-3-large", input=texts, encoding_format="base64"
        )
        body = raw.content
    answer = Reply(200, {"content-type": "application/json"}, body)
    embedder = twin.embedder("text-embedding-3-large", client=client(twin, lambda _: answer))
    tracemalloc.start()
    try:
        vectors = embedder.embed(texts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert vectors.shape == (2_048, 3_072)
    assert peak <= 3 * vectors.array.nbytes


@pytest.mark.case("M01")
def test_a_stream_gives_every_text_its_vector(twin):
    texts = [f"text {at}" for at in range(5_000)]

    parts = list(twin.embedder(streams.SMALL, client=client(twin), workers=4).stream(iter(texts)))

    assert np.array_equal(np.concatenate([part.array for part in parts]), streams.vectors_of(texts))


@pytest.mark.slow
@pytest.mark.case("M01")
def test_a_million_texts_are_streamed_in_64_mebibytes():
    assert streams.growth(1_000_000) <= 64


@pytest.mark.case("M02")
def test_failures_do_not_pile_up(twin, clock, monkeypatch):
    fake = FakeOpenAI()
    fake.misbehave(Fault(status=400), times=None)
    embedder = twin.embedder(streams.SMALL.replace(max_items=1), client=twin.client(fake))
    jobs, make = weakref.WeakSet(), job.EmbeddingJob.__init__

    def note(self, *args, **kwargs):
        make(self, *args, **kwargs)
        jobs.add(self)

    monkeypatch.setattr(job.EmbeddingJob, "__init__", note)
    for at in range(30):
        failed = embedder.embed([f"text {at} {n}" for n in range(10)], on_error="keep").failed
        assert len(failed) == 10
        with pytest.raises(vv.RefusedError):
            embedder.embed([f"text {at}"])
    gc.collect()

    # Flights and lanes hold nothing of what is over; one job may still be on its way out of a thread.
    assert len(jobs) <= 1
