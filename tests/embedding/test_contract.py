"""What a reply must be, before anybody sees a number of it; seen from outside, through both twins."""

import base64
import json
import struct

import httpx
import numpy as np
import pytest

import voxvec as vv
from voxvec import EmbeddingModel, MemoryCache, ResponseError
from voxvec.embedding.wire import largest_reply

TEXTS = ["ant", "bee", "cat"]
DIMS = 8


def encoded(values, form="<f"):
    return base64.b64encode(b"".join(struct.pack(form, value) for value in values)).decode()


def with_item(at, **fields):
    """Spoil one item of a reply; a field of None is taken out."""

    def spoil(reply):
        item = {**reply["data"][at], **fields}
        reply["data"][at] = {name: value for name, value in item.items() if value != "absent"}
        return reply

    return spoil


def with_indexes(*indexes):
    def spoil(reply):
        for item, index in zip(reply["data"], indexes, strict=True):
            item["index"] = index
        return reply

    return spoil


def with_data(change):
    return lambda reply: {**reply, "data": change(reply["data"])}


def raw(content, content_type="application/json"):
    return lambda _: httpx.Response(200, content=content, headers={"content-type": content_type})


BROKEN = [
    pytest.param(with_indexes(0, 1, 1), "indexes", id="duplicate-index"),
    pytest.param(with_indexes(0, 1, 3), "indexes", id="index-out-of-range"),
    pytest.param(with_indexes(0, 1, -1), "indexes", id="negative-index"),
    pytest.param(with_indexes(False, True, 2), "indexes", id="bool-index"),
    pytest.param(with_indexes(0.0, 1.0, 2.0), "indexes", id="float-index"),
    pytest.param(with_item(1, index="absent"), "indexes", id="one-index-missing"),
    pytest.param(with_data(lambda data: data[:2]), "2 vectors in it for 3 texts", id="short"),
    pytest.param(with_data(lambda data: [*data, data[0]]), "4 vectors in it for 3 texts", id="long"),
    pytest.param(with_data(lambda _: []), "0 vectors in it for 3 texts", id="empty-data"),
    pytest.param(with_data(lambda _: None), "no list of vectors", id="null-data"),
    pytest.param(with_data(lambda _: {"0": [1.0]}), "no list of vectors", id="data-is-an-object"),
    pytest.param(with_data(lambda data: [*data[:2], None]), "no list of vectors", id="null-item"),
    pytest.param(lambda _: {"error": {"message": "overloaded"}}, "overloaded", id="error-in-a-200"),
    pytest.param(raw(b"<html>hello</html>", "text/html"), "text/html", id="html"),
    pytest.param(raw(b'{"data": [{"ind'), "no JSON object", id="half-json"),
    pytest.param(raw(b""), "no JSON object", id="nothing"),
    pytest.param(raw(b"[1]"), "no JSON object", id="json-but-no-object"),
    pytest.param(with_item(1, embedding=None), "vector 1 is neither", id="null-vector"),
    pytest.param(with_item(1, embedding=[1.0, True] * 4), "vector 1 is neither", id="bool-in-a-vector"),
    pytest.param(with_item(1, embedding=["1"] * DIMS), "vector 1 is neither", id="texts-in-a-vector"),
    pytest.param(with_item(1, embedding=[]), "0 dimensions instead of 8", id="empty-vector"),
    pytest.param(with_item(1, embedding=encoded([0.0] * DIMS)), "vector 1 is zero", id="zero"),
    pytest.param(with_item(1, embedding=encoded([float("nan")] * DIMS)), "not finite", id="nan"),
    pytest.param(with_item(1, embedding=encoded([float("-inf")] * DIMS)), "not finite", id="infinite"),
    pytest.param(with_item(1, embedding=[1e39] * DIMS), "not finite", id="beyond-float32"),
    pytest.param(with_item(1, embedding=[10**400] * DIMS), "holds a number", id="beyond-float64"),
    pytest.param(with_item(1, embedding=encoded([1.0] * 7)), "7 dimensions instead of 8", id="too-narrow"),
    pytest.param(with_item(1, embedding=encoded([1.0] * 9)), "9 dimensions instead of 8", id="too-wide"),
    pytest.param(with_item(1, embedding=encoded([1.0] * DIMS, "<e")), "4 dimensions", id="float16"),
    pytest.param(with_item(1, embedding=encoded([1.0] * DIMS, "<d")), "16 dimensions", id="float64"),
    pytest.param(with_item(1, embedding="not base64!"), "no valid base64", id="garbled-base64"),
    pytest.param(with_item(1, embedding="é" * 8), "no valid base64", id="non-ascii-base64"),
    pytest.param(with_item(1, embedding=encoded([1.0] * DIMS).rstrip("=")), "no valid base64", id="bad-padding"),
    pytest.param(with_item(1, embedding=base64.b64encode(b"12345").decode()), "5 bytes", id="not-whole-floats"),
]


@pytest.mark.parametrize(("spoil", "reason"), BROKEN)
def test_a_broken_reply_is_asked_again_once_and_then_an_error_and_never_cached(twin, server, spoil, reason):
    cache = MemoryCache()
    server.script.extend([spoil] * 10)

    with pytest.raises(ResponseError, match=reason) as caught:
        twin.embedder(dimensions=DIMS, cache=cache).embed(TEXTS)

    assert len(server.asked) == 2
    assert caught.value.kind == "malformed"
    assert caught.value.attempts == 2
    assert caught.value.billed == "maybe"
    assert cache.stats().stored == 0
    assert (caught.value.done, caught.value.failed, caught.value.pending) == (0, 3, 0)
    assert np.isnan(caught.value.partial.array).all()


@pytest.mark.parametrize(("spoil", "reason"), BROKEN)
def test_a_reply_that_is_broken_once_does_no_harm(twin, server, vectors_of, spoil, reason):
    server.script.append(spoil)

    vectors = twin.embedder(dimensions=DIMS).embed(TEXTS)

    assert vectors.tolist() == vectors_of(TEXTS, DIMS)
    assert (vectors.usage.requests, vectors.usage.retries, vectors.usage.maybe_billed) == (2, 1, 1)


def test_a_broken_vector_is_named_by_the_position_of_its_text(twin, server):
    server.script.extend([with_item(1, embedding=None)] * 2)

    with pytest.raises(ResponseError) as caught:
        twin.embedder(dimensions=DIMS).embed(["ant", "ant", "bee", "cat", "bee"])

    assert caught.value.positions == (2, 4)
    assert caught.value.request_id is None or caught.value.request_id.startswith("req_")


def test_a_reply_out_of_order_is_placed_by_index(twin, server, vectors_of):
    server.script.append(with_data(lambda data: data[::-1]))

    assert twin.embedder(dimensions=DIMS).embed(TEXTS).tolist() == vectors_of(TEXTS, DIMS)


@pytest.mark.case("F01")
def test_a_reply_without_any_index_is_taken_in_its_order(twin, server, vectors_of):
    server.script.append(with_indexes(None, None, None))

    assert twin.embedder(dimensions=DIMS).embed(TEXTS).tolist() == vectors_of(TEXTS, DIMS)


def test_plain_numbers_instead_of_base64_are_taken(twin, server, vectors_of):
    wanted = vectors_of(TEXTS, DIMS)
    server.script.append(lambda reply: {**reply, "data": [{"embedding": row} for row in wanted]})

    assert twin.embedder(dimensions=DIMS).embed(TEXTS).tolist() == wanted


def test_a_server_that_ignores_the_dims_is_found_out(twin, server):
    server.script.extend([with_item(at, embedding=encoded([1.0] * 1536)) for at in (0, 0)])

    with pytest.raises(ResponseError, match="1536 dimensions instead of 8"):
        twin.embedder(dimensions=DIMS).embed(["ant"])


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0}, {"prompt_tokens": True}, "many"])
def test_missing_usage_is_estimated_and_marked(twin, server, usage):
    server.script.append(lambda reply: {**reply, "usage": usage})

    took = twin.embedder(dimensions=DIMS).embed(["ant", "bee"]).usage

    assert took.estimated
    assert took.tokens == 6  # bytes: never too few


def test_usage_and_cost_are_the_servers(twin, server):
    server.script.append(lambda reply: {**reply, "usage": {"prompt_tokens": 100}})

    vectors = twin.embedder("text-embedding-3-large", dimensions=DIMS).embed(TEXTS)

    assert vectors.usage == vv.embedding.Usage(tokens=100, requests=1)
    assert str(vectors.cost) == "0.000013"


def test_a_reply_on_many_lines_is_as_good_as_one_on_one_line(twin, server):
    # What is longest in JSON: 24 characters a number, four blanks a level, a line each.
    rows = [
        [-1.2345678901234567e-100, *[1.2345678901234567e-12] * 1534, 1.2345678901234567e-12 * n] for n in range(200)
    ]
    texts = [f"text {n}" for n in range(200)]
    reply = {
        "object": "list",
        "data": [{"object": "embedding", "index": n, "embedding": r} for n, r in enumerate(rows)],
    }
    body = json.dumps({**reply, "model": "x", "usage": {"prompt_tokens": 1}}, indent=4).encode()
    server.script.append(raw(body))

    vectors = twin.embedder("text-embedding-3-small").embed(texts)

    assert vectors.shape == (200, 1536)
    assert vectors.usage.requests == 1
    assert 0.5 < len(body) / largest_reply(200, 1536) < 1


@pytest.mark.parametrize("dims", [1, 512, 4096, None])
def test_no_layout_of_honest_numbers_is_too_large(dims):
    row = [-1.7976931348623157e308] * (dims or 8192)
    body = json.dumps({"data": [{"object": "embedding", "index": 2047, "embedding": row}] * 30}, indent=4)

    assert len(body) < largest_reply(30, dims)


class TestAServerNobodyKnows:
    MODEL = EmbeddingModel(name="tiny", max_items=2)

    def test_it_is_asked_for_the_dims_wanted_and_its_answer_is_taken(self, twin, server, vectors_of):
        vectors = twin.embedder(self.MODEL, dimensions=4).embed(["ant"])

        assert [body["dimensions"] for body in server.asked] == [4]
        assert vectors.tolist() == vectors_of(["ant"], 4, model="tiny")

    def test_it_is_asked_for_no_dims_where_none_are_wanted(self, twin, server):
        twin.embedder(self.MODEL).embed(["ant"])

        assert "dimensions" not in server.asked[0]

    def test_dims_that_can_be_neither_asked_for_nor_cut_are_refused_before_anything_is_sent(self, twin, server):
        with pytest.raises(vv.ConfigError, match=r"tiny gives 8 dimensions, not 4 .*nothing was sent") as caught:
            twin.embedder(self.MODEL.replace(native_dims=8, dims_parameter=None), dimensions=4)

        assert (caught.value.billed, server.asked) == ("no", [])

    def test_garbled_base64_makes_it_ask_for_numbers_and_remember(self, twin, server, vectors_of):
        embedder = twin.embedder(self.MODEL)
        server.script.append(with_item(0, embedding="?"))

        vectors = embedder.embed(["ant"])
        embedder.embed(["bee"])

        assert vectors.tolist() == vectors_of(["ant"], model="tiny")
        assert [body["encoding_format"] for body in server.asked] == ["base64", "float", "float"]

    def test_a_refusal_of_base64_makes_it_ask_for_numbers_at_once(self, twin, server, vectors_of):
        server.script.append(refusal("unknown encoding_format"))

        vectors = twin.embedder(self.MODEL).embed(["ant"])

        assert vectors.tolist() == vectors_of(["ant"], model="tiny")
        assert vectors.usage.requests == 2

    def test_all_requests_on_their_way_survive_the_refusal(self, twin, server, vectors_of):
        texts = [f"text {n}" for n in range(8)]
        server.rule = lambda body: refusal("encoding_format?") if body["encoding_format"] == "base64" else None

        assert twin.embedder(self.MODEL, workers=4).embed(texts).tolist() == vectors_of(texts, model="tiny")

    def test_a_refusal_of_numbers_too_is_the_users_to_see(self, twin, server):
        server.script.extend([refusal("unknown encoding_format")] * 9)
        embedder = twin.embedder(self.MODEL)

        for requests in (2, 3):
            with pytest.raises(vv.RefusedError):
                embedder.embed(["ant"])
            assert len(server.asked) == requests

    def test_another_refusal_is_no_reason_to_ask_for_numbers(self, twin, server):
        server.script.append(refusal("no such model"))

        with pytest.raises(vv.RefusedError, match="no such model"):
            twin.embedder(self.MODEL).embed(["ant"])

        assert len(server.asked) == 1

    def test_vectors_of_another_length_than_earlier_ones_are_refused(self, twin, server):
        server.script.extend([None, *[with_item(0, embedding=[1.0] * 4)] * 2])

        with pytest.raises(ResponseError, match="4 dimensions") as caught:
            twin.embedder(self.MODEL, workers=1).embed(["ant", "bee", "cat"])

        assert caught.value.done == 2
        assert caught.value.positions == (2,)

    def test_empty_vectors_are_refused(self, twin, server):
        server.script.extend([with_item(0, embedding=[])] * 2)

        with pytest.raises(ResponseError, match="empty"):
            twin.embedder(self.MODEL).embed(["ant"])


def refusal(message):
    return httpx.Response(400, json={"error": {"message": message, "type": "invalid_request_error"}})


class TestStrictModel:
    def served(self, name):
        return lambda reply: {**reply, "model": name}

    @pytest.mark.parametrize("name", ["text-embedding-3-small", "text-embedding-3-small-v2", None, 7])
    def test_the_model_itself_a_version_of_it_and_silence_pass(self, twin, server, name):
        server.script.append(self.served(name))

        assert len(twin.embedder(dimensions=DIMS, strict_model=True).embed(["ant"])) == 1

    @pytest.mark.parametrize("name", ["text-embedding-3-large", "text-embedding-3-smaller"])
    def test_another_model_is_an_error(self, twin, server, name):
        server.script.extend([self.served(name)] * 2)

        with pytest.raises(ResponseError, match=f"{name} answered instead") as caught:
            twin.embedder(dimensions=DIMS, strict_model=True).embed(["ant"])

        assert caught.value.billed == "yes"

    def test_a_deployment_may_give_the_name_of_its_family(self, twin, server):
        model = vv.models.find("text-embedding-3-small").replace(name="tiny", dims=8, family="text-embedding-3-small")
        server.script.append(self.served("text-embedding-3-small"))

        assert len(twin.embedder(model, dimensions=DIMS, strict_model=True).embed(["ant"])) == 1

    def test_without_it_the_model_as_served_is_told(self, twin, server):
        server.script.append(self.served("somebody/else"))

        assert twin.embedder(dimensions=DIMS).embed(["ant"]).model == "somebody/else"
