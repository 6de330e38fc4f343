"""The pure core: whatever the batches and whatever the order of replies, every text gets its own vector, once."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxvec as vv
from voxvec import EmbeddingModel, ResponseError, rows
from voxvec.embedding.job import EmbeddingJob
from voxvec.embedding.packing import Packer
from voxvec.embedding.settings import Keys, Settings
from voxvec.embedding.wire import Decoded, decode, largest_reply

DIMS = 3
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
MODELS = st.builds(
    EmbeddingModel,
    name=st.just("m"),
    dims=st.sampled_from([None, DIMS]),
    max_items=st.integers(1, 7),
    max_tokens=st.none() | st.integers(6, 30),
    max_request_tokens=st.none() | st.integers(30, 60),
)


def vector(text):
    return [float(len(text)), float(sum(map(ord, text)) + 1), 1.0]


def reply_to(batch, order=None, **fields):
    """A server's answer, its items in any order."""
    items = [{"index": at, "embedding": vector(text)} for at, text in enumerate(batch.texts)]
    items = items if order is None else [items[at] for at in order]
    return json.dumps({"data": items, "model": "m-served", "usage": {"prompt_tokens": 1}, **fields}).encode()


def receive(job, batch, body):
    return job.receive(batch, decode(body, len(batch), job.reply_dims, out=job.room(batch)))


def rows_of(texts):
    return np.array([vector(text) for text in texts], np.float32).reshape(len(texts), DIMS)


@given(st.lists(TEXTS, max_size=40), MODELS, st.randoms(use_true_random=False))
def test_any_batching_in_any_reply_order_gives_the_same_rows(texts, model, draw):
    job = EmbeddingJob(texts, Settings(model=model))
    batches = job.batches(job.open())
    draw.shuffle(batches)

    for batch in batches:
        receive(job, batch, reply_to(batch, draw.sample(range(len(batch)), len(batch))))

    assert job.open() == []
    if texts:
        assert np.array_equal(rows_of(texts), job.result().array)
    assert job.done() == len(texts)


@given(st.lists(TEXTS, max_size=40), MODELS)
def test_requests_hold_every_distinct_text_once_within_the_limits(texts, model):
    job = EmbeddingJob(texts, Settings(model=model))
    batches = job.batches(job.open())
    packer = Packer(model, "error")

    assert sorted(text for batch in batches for text in batch.texts) == sorted(set(texts))
    for batch in batches:
        sizes = [packer.slot(0, text).size for text in batch.texts]
        assert batch.tokens == sum(sizes)
        assert 1 <= len(batch) <= model.max_items
        assert len(batch) == 1 or sum(sizes) <= (model.max_request_tokens or sum(sizes))


@given(st.lists(TEXTS, min_size=1, max_size=20), st.integers(1, 4), st.data())
def test_what_one_job_bought_another_takes_from_a_cache(texts, per_request, data):
    settings = Settings(model=EmbeddingModel(name="m", dims=DIMS, max_items=per_request))
    first = EmbeddingJob(texts, settings)
    bought = {}
    for batch in first.batches(first.open()):
        bought |= receive(first, batch, reply_to(batch))
    known = data.draw(st.sets(st.sampled_from(sorted(bought))))

    second = EmbeddingJob(texts, settings)
    assert second.fill({name: bought[name] for name in known}) == []
    for batch in second.batches(second.open()):
        assert not set(batch.names) & known
        receive(second, batch, reply_to(batch))

    assert np.array_equal(first.result().array, second.result().array)
    assert second.result().cached == sum(Keys(settings).of(text.encode()) in known for text in texts)


class TestReceiving:
    def job(self, texts=("a", "b"), **facts):
        job = EmbeddingJob(texts, Settings(model=EmbeddingModel(name="m", **facts)))
        return job, job.batches(job.open())

    def test_rows_carry_what_the_server_said(self):
        job, (batch,) = self.job(["abc"])

        ((name, blob),) = receive(job, batch, reply_to(batch)).items()

        row = rows.unpack(name, blob)
        assert (row.kind, row.width, row.tokens, row.model) == (rows.Kind.VECTOR, DIMS, 1, "m-served")

    def test_tokens_of_a_row_are_unknown_where_the_server_gave_only_the_sum(self):
        job, (batch,) = self.job(["abc", "d"])

        assert {rows.unpack(*item).tokens for item in receive(job, batch, reply_to(batch)).items()} == {None}

    def test_a_row_that_is_no_vector_is_damaged(self):
        job, (batch,) = self.job(["abc"])
        (name,) = batch.names
        document = rows.pack(name, b"{}", kind=rows.Kind.DOCUMENT, width=2, tokens=None, model="m")

        assert job.fill({name: document}) == [name]
        assert not job.knows(name)

    def test_a_row_nobody_asked_for_is_left_alone(self):
        job, _ = self.job()

        assert job.fill({bytes(32): b"?"}) == []
        assert not job.knows(bytes(32))

    def test_another_length_than_before_is_refused(self):
        job, (first, second) = self.job(max_items=1)
        receive(job, first, reply_to(first))

        with pytest.raises(ResponseError, match="2 dimensions, earlier ones 3"):
            job.receive(second, Decoded(np.ones((1, 2), np.float32), 1, None))

    def test_what_was_not_tried_is_nan(self):
        job, (first, _) = self.job(max_items=1, dims=DIMS)
        job._matrix[:] = 7
        receive(job, first, reply_to(first))

        result = job.result()

        assert result[0].tolist() == vector("a")
        assert np.isnan(result[1]).all()

    def test_a_job_that_was_never_answered_has_no_width_to_tell(self):
        job, _ = self.job()

        assert job.result().shape == (2, 0)


class TestKeys:
    FIELDS = st.fixed_dictionaries(
        {
            "origin": st.text(max_size=3),
            "namespace": st.text(min_size=1, max_size=3),
            "name": st.text(min_size=1, max_size=3),
            "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
            "dims": st.integers(1, 3),
            "role": st.sampled_from(["query", "document"]),
        }
    )

    def key(self, fields, matryoshka="none"):
        model = EmbeddingModel(
            name=fields["name"],
            native_dims=fields["dims"],
            matryoshka=matryoshka,
            input_type_parameter="input_type",
        )
        settings = Settings(
            model=model, origin=fields["origin"], namespace=fields["namespace"], input_type=fields["role"]
        )
        return Keys(settings).of(fields["text"].encode())

    @given(FIELDS, FIELDS)
    def test_two_requests_share_a_key_only_if_they_are_the_same(self, one, other):
        assert (self.key(one) == self.key(other)) == (one == other)

    @given(FIELDS, st.integers(1, 5))
    def test_fields_do_not_run_into_each_other(self, fields, cut):
        joined = fields["namespace"] + fields["name"]
        if cut >= len(joined):
            return
        other = {**fields, "namespace": joined[:cut], "name": joined[cut:]}

        assert (self.key(fields) == self.key(other)) == (fields == other)

    @given(FIELDS, st.integers(1, 3))
    def test_dims_do_not_count_where_one_row_serves_them_all(self, fields, dims):
        other = {**fields, "dims": dims}

        assert self.key(fields, "prefix") == self.key(other, "prefix")

    def test_a_key_is_the_same_in_every_process_and_version(self):
        settings = Settings(model=vv.models.find("text-embedding-3-small"), origin="https://api.openai.com/v1")

        digest = Keys(settings).of(b"ant").hex()

        assert digest == "a33fee4caf24155a6966caff98ad3566cb8e3b57553b1b1a921b354185f5e1ee"


class TestWire:
    @given(st.binary(max_size=200), st.integers(1, 3), st.none() | st.integers(1, 4))
    def test_no_bytes_at_all_raise_anything_but_a_response_error(self, body, n, dims):
        with pytest.raises(ResponseError):
            decode(body, n, dims)

    JSON = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )

    @given(
        st.lists(st.fixed_dictionaries({}, optional={"index": JSON, "embedding": JSON}) | JSON, max_size=3) | JSON,
        JSON,
        JSON,
    )
    def test_no_json_at_all_raises_anything_but_a_response_error(self, data, usage, model):
        body = json.dumps({"data": data, "usage": usage, "model": model}).encode()
        try:
            vectors = decode(body, 2, None).vectors
        except ResponseError as error:
            broken = error
        else:
            broken = None

        assert broken is None or (broken.billed == "maybe" and set(broken.positions) <= {0, 1})
        assert broken or (np.isfinite(vectors).all() and vectors.any(axis=1).all())

    NUMBERS = st.floats(2.0**-30, 2.0**30, width=32).flatmap(lambda number: st.sampled_from([number, -number, 0.0]))

    @given(st.lists(st.lists(NUMBERS, min_size=2, max_size=2).filter(any), min_size=1))
    def test_numbers_arrive_as_they_were_sent(self, vectors):
        body = json.dumps({"data": [{"embedding": row} for row in vectors]}).encode()

        assert decode(body, len(vectors), 2).vectors.tolist() == vectors

    def test_an_honest_reply_is_never_too_large(self):
        body = reply_to(type("Batch", (), {"texts": ["a"] * 50, "__len__": lambda _: 50})())

        assert len(body) < largest_reply(50, DIMS)
        assert largest_reply(2048, 3072) < largest_reply(2048, None) < 2**30

    def test_the_start_of_what_came_is_shown_without_secrets(self):
        with pytest.raises(ResponseError, match=r"text/html\): '<p>\[secret\]"):
            decode(b"<p>sk-abcdefghijkl</p>", 1, None, content_type="text/html")


def test_a_row_that_proves_nothing_leaves_its_text_to_be_bought():
    job = EmbeddingJob(["a", "b"], Settings(model=vv.models.find("text-embedding-3-small", dims=8)))
    (batch,) = job.batches(job.open())

    assert job.rest(batch, dict.fromkeys(batch.names, b"garbage")) is batch
    assert job.rest(batch, {}) is None


def test_a_row_that_comes_twice_counts_once():
    buyer = EmbeddingJob(["ant", "bee"], Settings(model=EmbeddingModel(name="m", dims=DIMS)))
    (batch,) = buyer.batches(buyer.open())
    fresh = buyer.receive(batch, decode(reply_to(batch), 2, DIMS))

    buyer.fill(fresh)

    assert buyer.done() == 2
    assert buyer.result().tolist() == [vector("ant"), vector("bee")]
