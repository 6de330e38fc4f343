"""What is bought and what is not: duplicates, caches, widths, keys; both twins."""

import base64

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import voxvec as vv
from voxvec import EmbeddingModel, MemoryCache
from voxvec.testing import FakeOpenAI

SMALL = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=2)
TEXTS = [f"text {n}" for n in range(10)]


def test_nothing_asked_is_nothing_sent(twin, server):
    vectors = twin.embedder(dimensions=8).embed([])

    assert vectors.shape == (0, 8)
    assert server.asked == []


def test_each_distinct_text_is_bought_once(twin, server, vectors_of):
    texts = ["ant", "bee", "ant", "ant", "cat", "bee"]

    vectors = twin.embedder(dimensions=8).embed(texts)

    assert server.texts == ["ant", "bee", "cat"]
    assert vectors.tolist() == vectors_of(texts, 8)
    assert vectors.cached == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(known=st.sets(st.integers(0, 7)), wanted=st.lists(st.integers(0, 7), max_size=12), per_request=st.integers(1, 4))
def test_hits_and_misses_in_any_pattern_give_the_vectors_of_each_text(twin, vectors_of, known, wanted, per_request):
    fake, cache = FakeOpenAI(), MemoryCache()
    embedder = twin.embedder(SMALL.replace(max_items=per_request), client=twin.client(fake), cache=cache, workers=3)
    embedder.embed([f"text {n}" for n in sorted(known)])
    texts = [f"text {n}" for n in wanted]

    vectors = embedder.embed(texts)

    assert vectors.array.shape == (len(texts), 8)
    assert vectors.tolist() == vectors_of(texts, 8)
    assert vectors.cached == sum(n in known for n in wanted)
    assert fake.billed == len(known | set(wanted))


def refused(_):
    return httpx.Response(501, json={"error": {"message": "no"}})


@pytest.mark.parametrize("k", range(5))
@pytest.mark.parametrize("on_error", ["raise", "keep"])
def test_after_a_failure_in_one_part_a_second_call_buys_only_what_is_missing(twin, server, vectors_of, k, on_error):
    embedder = twin.embedder(SMALL, cache=MemoryCache(), workers=1)
    server.script.extend([None] * k + [refused])
    try:
        vectors = embedder.embed(TEXTS, on_error=on_error)
        bought = [text for text, row in zip(TEXTS, vectors, strict=True) if not np.isnan(row).any()]
    except vv.RefusedError as error:
        bought = TEXTS[: error.done]
    server.asked.clear()

    vectors = embedder.embed(TEXTS)

    assert len(bought) == (2 * k if on_error == "raise" else 8)
    assert server.texts == [text for text in TEXTS if text not in bought]
    assert vectors.tolist() == vectors_of(TEXTS, 8)
    assert vectors.cached == len(bought)


def test_rows_are_in_the_cache_before_the_call_is_over(twin, server):
    cache, seen = MemoryCache(), []

    twin.embedder(SMALL, cache=cache, workers=1).embed(TEXTS, progress=lambda *_: seen.append(cache.stats().rows))

    assert seen == [0, 2, 4, 6, 8, 10]


def test_progress_counts_texts_up_to_all_of_them(twin, server):
    told = []

    twin.embedder(SMALL, workers=1).embed([*TEXTS, *TEXTS], progress=lambda *both: told.append(both))

    assert told == sorted(told)
    assert told[0] == (0, 20)
    assert told[-1] == (20, 20)


def test_progress_can_be_a_line_on_standard_error(twin, server, capsys):
    twin.embedder(SMALL, workers=1).embed(TEXTS, progress=True)

    assert "10 of 10 texts (100%)" in capsys.readouterr().err


class TestWidths:
    def embed(self, twin, cache, dims, model="text-embedding-3-small"):
        return twin.embedder(model, cache=cache).embed(["ant", "bee"], dimensions=dims)

    def test_a_wider_row_serves_a_narrower_request(self, twin, server, vectors_of):
        cache = MemoryCache()
        self.embed(twin, cache, None)

        vectors = self.embed(twin, cache, 256)

        assert len(server.asked) == 1
        assert vectors.shape == (2, 256)
        np.testing.assert_allclose(vectors.array, vectors_of(["ant", "bee"], 256), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(vectors.array, axis=1), 1, atol=1e-6)

    def test_a_narrower_row_serves_no_wider_request_and_gives_way_to_it(self, twin, server):
        cache = MemoryCache()
        for dims in (256, 1536, 256, 1536):
            assert self.embed(twin, cache, dims).dims == dims

        assert [body.get("dimensions") for body in server.asked] == [256, None]

    def test_a_model_that_cannot_be_shortened_is_not(self, twin, server):
        with pytest.raises(vv.ConfigError, match="1536 dimensions, not 256"):
            self.embed(twin, MemoryCache(), 256, "text-embedding-ada-002")

        assert server.asked == []

    def test_a_layer_normalised_row_that_was_cut_is_not_cut_again(self, twin, server):
        model = vv.models.find("nomic-ai/nomic-embed-text-v1.5")
        cache = MemoryCache()
        for dims in (256, 128, 768, 64):
            assert self.embed(twin, cache, dims, model).dims == dims

        assert [body.get("dimensions") for body in server.asked] == [256, 128, None]

    def test_where_the_server_cannot_cut_we_do(self, twin, server, vectors_of):
        model = vv.models.find("text-embedding-3-small").replace(dims_parameter=None)

        vectors = twin.embedder(model, dimensions=64).embed(["ant", "bee", "ant"])

        assert "dimensions" not in server.asked[0]
        np.testing.assert_allclose(vectors.array, vectors_of(["ant", "bee", "ant"], 64), atol=1e-6)

    def test_a_server_that_names_the_field_otherwise_is_asked_in_its_words(self, twin, server):
        model = vv.models.find("text-embedding-3-small").replace(dims_parameter="output_dimension")

        with pytest.raises(vv.ResponseError, match="1536 dimensions instead of 64"):  # this server does not know it
            twin.embedder(model, dimensions=64).embed(["ant"])

        assert server.asked[0]["output_dimension"] == 64


class TestKeys:
    """Settings that make other vectors share no rows; all others do."""

    def bought(self, twin, server, *variants):
        cache = MemoryCache()
        for settings_, call in variants:
            twin.embedder(**{"model": SMALL, "cache": cache, **settings_}).embed(["ant"], **call)
        return len(server.asked)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            pytest.param(({"namespace": "a"}, {}), ({"namespace": "b"}, {}), id="namespace"),
            pytest.param(({}, {}), ({"namespace": "b"}, {}), id="no-namespace"),
            pytest.param(({}, {}), ({"base_url": "https://other.example/v1"}, {}), id="server"),
            pytest.param(({}, {}), ({"model": SMALL.replace(name="text-embedding-3-large")}, {}), id="model"),
        ],
    )
    def test_what_makes_other_vectors_is_bought_by_itself(self, twin, server, one, other):
        server.rule = lambda body: httpx.Response(200, json={"data": [{"embedding": [1.0] * 8}]})

        assert self.bought(twin, server, one, other) == 2

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(({"api_key": "sk-another-key"}, {}), id="key"),
            pytest.param(({"workers": 1, "timeout": 3}, {}), id="manners"),
            pytest.param(({"on_long": "chunk"}, {}), id="policy-for-other-texts"),
            pytest.param(({"base_url": "https://API.openai.com:443/v1/"}, {}), id="same-server"),
            pytest.param(({}, {"input_type": "query"}), id="role-without-a-prefix"),
        ],
    )
    def test_what_makes_the_same_vectors_is_bought_once(self, twin, server, other):
        assert self.bought(twin, server, ({}, {}), other) == 1

    def test_a_prefix_is_part_of_what_is_bought(self, twin, server, vectors_of):
        model = EmbeddingModel(name="tiny", query_prefix="find: ", document_prefix="text: ")
        embedder = twin.embedder(model, cache=MemoryCache())

        query = embedder.embed_one("ant", input_type="query")
        document = embedder.embed_one("ant", input_type="document")
        same = embedder.embed_one("find: ant")

        assert server.texts == ["find: ant", "text: ant"]
        assert [query.tolist(), document.tolist()] == vectors_of(server.texts, model="tiny")
        assert (same == query).all()

    def test_a_role_is_sent_in_its_field_and_part_of_the_key(self, twin, server):
        model = EmbeddingModel(name="tiny", input_type_parameter="input_type", query_input_type="search")
        embedder = twin.embedder(model, cache=MemoryCache())

        for role in ("query", "document", None, "query"):
            embedder.embed(["ant"], input_type=role)

        assert [body.get("input_type") for body in server.asked] == ["search", "document", None]


class Odd(MemoryCache):
    """A cache that gives what nobody asked for, and damages what it gives."""

    def get_many(self, keys, /):
        found = super().get_many(keys)
        return {bytes(32): b"?", **{key: row[:-1] + bytes([row[-1] ^ 1]) for key, row in found.items()}}


def test_damaged_rows_are_thrown_out_and_bought_again(twin, server, vectors_of):
    cache = Odd()

    for _ in range(2):
        assert twin.embedder(SMALL, cache=cache).embed(TEXTS).tolist() == vectors_of(TEXTS, 8)

    assert len(server.texts) == 20
    assert cache.stats().damaged == 10


def test_a_returned_array_is_not_the_caches(twin, server, vectors_of):
    embedder = twin.embedder(SMALL, cache=MemoryCache())
    array = np.array(embedder.embed(["ant"]))
    array[:] = 0

    assert embedder.embed(["ant"]).tolist() == vectors_of(["ant"], 8)


def test_one_vector_is_one_dimensional_and_read_only(twin, server, vectors_of):
    vector = twin.embedder(dimensions=8).embed_one("ant")

    assert vector.tolist() == vectors_of(["ant"], 8)[0]
    assert (vector.dtype, vector.shape) == (np.float32, (8,))
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


class TestPlan:
    def test_asks_no_server_and_tells_what_a_call_would_do(self, twin, server):
        embedder = twin.embedder(SMALL, cache=MemoryCache())
        embedder.embed(TEXTS[:3])
        server.asked.clear()

        plan = embedder.plan([*TEXTS, *TEXTS[:5], "", None])

        assert server.asked == []
        assert (plan.texts, plan.distinct, plan.cached, plan.requests) == (17, 10, 3, 4)
        assert list(plan.refused) == [15, 16]

    def test_counts_exactly_where_it_can(self, twin):
        pytest.importorskip("tiktoken")

        plan = twin.embedder(SMALL).plan(["hello world"] * 3)

        assert (plan.tokens, plan.exact) == (2, True)
        assert plan.cost == SMALL.price * 2 / 1_000_000
        assert plan.batch_cost == SMALL.batch_price * 2 / 1_000_000

    def test_gives_a_bound_where_it_cannot(self, twin):
        plan = twin.embedder(SMALL.replace(tokenizer=None, price=None)).plan(["hello world"])

        assert plan.tokens >= 11
        assert (plan.exact, plan.cost) == (False, None)

    def test_needs_no_key(self, twin, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)

        assert twin.embedder(SMALL, api_key=None).plan(TEXTS).requests == 5


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"on_error": "ignore"}, "on_error"),
        ({"input_type": "question"}, "input_type"),
        ({"dimensions": 0}, "1 to 1536"),
        ({"dimensions": 1537}, "1 to 1536"),
        ({"dimensions": True}, "dimensions"),
        ({"dimensions": 8.0}, "whole number"),
    ],
)
def test_what_a_call_cannot_be_is_refused_before_anything_is_sent(twin, server, call, reason):
    with pytest.raises(vv.ConfigError, match=reason):
        twin.embedder().embed(["ant"], **call)

    assert server.asked == []


def test_an_unknown_policy_for_long_texts_is_refused(twin):
    with pytest.raises(vv.ConfigError, match="on_long"):
        twin.embedder(on_long="shorten")


class TestIsolation:
    """One text that the server refuses does not cost the others that were sent with it."""

    @pytest.mark.parametrize("poison", [0, 5, 9])
    def test_with_keep_only_the_text_at_fault_fails(self, twin, server, vectors_of, poison):
        server.rule = lambda body: httpx.Response(400) if TEXTS[poison] in body["input"] else None
        embedder = twin.embedder(SMALL.replace(max_items=2048), workers=1)

        vectors = embedder.embed(TEXTS, on_error="keep")

        assert list(vectors.failed) == [poison]
        assert vectors.failed[poison].positions == (poison,)
        rest = [text for text in TEXTS if text != TEXTS[poison]]
        assert np.delete(vectors.array, poison, 0).tolist() == vectors_of(rest, 8)
        assert vectors.usage.requests == len(server.asked) <= 1 + 2 * 4

    def test_several_texts_at_fault_are_all_found(self, twin, server):
        bad = {TEXTS[1], TEXTS[2], TEXTS[8]}
        server.rule = lambda body: httpx.Response(422) if bad & set(body["input"]) else None

        vectors = twin.embedder(SMALL.replace(max_items=2048)).embed(TEXTS, on_error="keep")

        assert list(vectors.failed) == [1, 2, 8]

    def test_looking_for_a_text_at_fault_ends_when_all_are_refused(self, twin, server):
        server.rule = lambda body: httpx.Response(400)
        texts = [f"text {number}" for number in range(1000)]

        vectors = twin.embedder(SMALL.replace(max_items=2048), workers=1).embed(texts, on_error="keep")

        assert len(vectors.failed) == 1000
        assert len(server.asked) < 50

    def test_when_every_request_would_end_the_same_way_no_other_is_made(self, twin, server):
        server.rule = lambda body: httpx.Response(403)

        vectors = twin.embedder(SMALL, workers=1).embed(TEXTS, on_error="keep")

        assert list(vectors.failed) == list(range(10))
        assert len(server.asked) == 1


def test_a_short_vector_has_unit_length_whether_it_was_served_short_or_cut_here(twin, server):
    model = vv.models.find("text-embedding-3-small").replace(unit_length="native")

    def halve(reply):
        for item in reply["data"]:
            raw = np.frombuffer(base64.b64decode(item["embedding"]), "<f4") / 2
            item["embedding"] = base64.b64encode(raw.tobytes()).decode()
        return reply

    embedder = twin.embedder(model, cache=MemoryCache())
    embedder.embed(["wide"])
    server.script.append(halve)

    vectors = embedder.embed(["wide", "narrow"], dimensions=4)

    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1])
    assert embedder.embed(["narrow"], dimensions=4).tolist() == vectors[1:].tolist()
