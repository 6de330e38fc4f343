"""How much goes into one request, and what becomes of texts that are too long; both twins."""

import json
import random
import sys

import numpy as np
import pytest

import voxvec as vv
from voxvec import MemoryCache, MissingExtraError, tokens
from voxvec.embedding import packing
from voxvec.testing import FakeOpenAI

WORDS = ("cat", "harbour", "Straßenbahn", "東京", "naïve", "🙂", "rain", "of", "the", "antidisestablishmentarianism")
SMALL = vv.models.find("text-embedding-3-small", dims=8)


@pytest.fixture
def cl100k():
    tokenizer = tokens.exact("cl100k_base")
    if tokenizer is None:
        pytest.skip("needs tiktoken")
    return tokenizer


def mixed(n):
    """Texts of 1 to some 2,000 words, mostly short, one in six of them twice."""
    draw = random.Random(7)  # noqa: S311 -- the same texts every time
    sentence = [" ".join(draw.choices(WORDS, k=50)) for _ in range(40)]
    long = [" ".join(draw.choices(sentence, k=40)) for _ in range(20)]
    pick = [draw.choice(long if draw.random() < 0.05 else sentence) for _ in range(n)]
    texts = [f"{at} {text[: draw.randint(1, 9_000)]}" for at, text in enumerate(pick)]
    return [draw.choice(texts) if draw.random() < 0.17 else text for text in texts]


def turned(_, reply):
    """Answer in another order than asked."""
    if reply.status != 200:
        return reply
    body = reply.json()
    random.Random(len(body["data"])).shuffle(body["data"])  # noqa: S311 -- any order will do
    return type(reply)(200, reply.headers, json.dumps(body).encode())


def test_five_thousand_texts_fit_the_limits_and_are_bought_once_each(twin, cl100k, vectors_of):
    texts = mixed(5_000)
    sizes = {text: cl100k.count(text) for text in set(texts)}
    fake = FakeOpenAI(tokens=sizes.__getitem__, mutate=turned)

    vectors = twin.embedder(client=twin.client(fake), dimensions=8).embed(texts)

    asked = [request.inputs for request in fake.requests]
    assert sum(sizes.values()) > 600_000  # several requests by tokens as well as by items
    assert max(map(len, asked)) <= 2_048
    assert max(sum(sizes[text] for text in inputs) for inputs in asked) <= 300_000
    assert sorted(text for inputs in asked for text in inputs) == sorted(sizes)
    assert vectors.tolist() == vectors_of(texts, 8)
    assert vectors.usage.requests == len(asked) <= sum(sizes.values()) // 250_000 + 3


@pytest.mark.case("F53")
@pytest.mark.parametrize(("texts", "requests"), [(2_048, 1), (2_049, 2), (4_096, 2)])
def test_requests_are_full_but_not_fuller(twin, texts, requests):
    fake = FakeOpenAI()

    twin.embedder(client=twin.client(fake), dimensions=1).embed([f"{n}" for n in range(texts)])

    assert fake.asked == requests


@pytest.mark.case("I05")
@pytest.mark.parametrize(("total", "requests"), [(30, 1), (31, 2)])
def test_tokens_of_a_request_are_counted_to_the_last(twin, server, cl100k, total, requests):
    model = SMALL.replace(max_request_tokens=30)
    texts = [" the" * 10 + "." * n for n in range(2)] + [" cat" * (total - 21)]
    assert sum(map(cl100k.count, texts)) == total

    twin.embedder(model).embed(texts)

    assert len(server.asked) == requests


def test_without_a_tokenizer_bytes_bound_the_tokens(twin, server):
    model = SMALL.replace(max_request_tokens=30, tokenizer=None)

    twin.embedder(model).embed(["東" * 4, "京" * 3, "ab", "cd"])

    for body in server.asked:
        assert sum(len(text.encode()) for text in body["input"]) <= 30
    assert len(server.asked) == 2


class TestOnLong:
    LIMIT = 12
    TEXT = " ".join(f"word{n}" for n in range(40))

    @pytest.fixture
    def exact(self, cl100k):
        return SMALL.replace(max_tokens=self.LIMIT)

    @pytest.fixture
    def bounded(self):
        return SMALL.replace(max_tokens=self.LIMIT, tokenizer=None)

    def test_error_names_every_text_that_is_too_long_before_anything_is_sent(self, twin, server, exact):
        with pytest.raises(vv.InputError, match=r"text 1 has \d+ tokens, text-embedding-3-small takes 12") as caught:
            twin.embedder(exact).embed(["cat", self.TEXT, "dog", self.TEXT])

        assert caught.value.positions == (1, 3)
        assert server.asked == []

    @pytest.mark.case("I04")
    def test_error_counts_exactly_at_the_limit(self, twin, server, exact, cl100k):
        fits, over = " the" * 12, " the" * 13
        assert (cl100k.count(fits), cl100k.count(over)) == (12, 13)

        twin.embedder(exact).embed([fits])

        with pytest.raises(vv.InputError):
            twin.embedder(exact).embed([over])

    def test_special_tokens_in_a_text_are_text(self, twin, server, exact):
        twin.embedder(exact).embed(["<|endoftext|>"])

        with pytest.raises(vv.InputError):
            twin.embedder(exact).embed(["<|endoftext|>" * 10])

    @pytest.mark.case("I04")
    def test_without_a_tokenizer_the_server_decides_about_each_such_text_alone(self, twin, server, bounded):
        twin.embedder(bounded, workers=1).embed(["cat", self.TEXT, "dog"])

        assert sorted(body["input"] for body in server.asked) == [["cat", "dog"], [self.TEXT]]

    def test_truncate_embeds_the_beginning(self, twin, server, exact, cl100k, vectors_of):
        vectors = twin.embedder(exact, on_long="truncate").embed(["cat", self.TEXT])

        _, sent = server.texts
        assert self.TEXT.startswith(sent)
        assert 0 < cl100k.count(sent) <= self.LIMIT
        assert vectors.tolist() == vectors_of(["cat", sent], 8)

    def test_truncate_without_the_tokenizer_says_what_to_install(self, twin, server, exact, monkeypatch):
        monkeypatch.setitem(sys.modules, "tiktoken", None)

        with pytest.raises(MissingExtraError, match=r"voxvec\[tokens\]"):
            twin.embedder(exact, on_long="truncate").embed([self.TEXT])

        assert server.asked == []

    def test_truncate_with_a_tokenizer_nobody_has_names_the_ways_out(self, twin, server, bounded):
        with pytest.raises(vv.ConfigError, match=r"on_long='chunk'.*tokens\.provide\(\).*Nothing was sent"):
            twin.embedder(bounded, on_long="truncate").embed([self.TEXT])

        assert server.asked == []

    @pytest.mark.parametrize("kind", ["exact", "bounded"])
    def test_chunk_takes_the_mean_weighted_by_tokens_or_their_bound(self, twin, server, kind, request, vectors_of):
        model = request.getfixturevalue(kind)
        exact = tokens.exact(model.tokenizer)

        def count(text):
            return exact.count(text) if exact else tokens.bound(None, len(text.encode()))

        vectors = twin.embedder(model, on_long="chunk").embed(["cat", self.TEXT])

        pieces = server.texts[1:]
        assert "".join(pieces) == self.TEXT
        assert max(map(count, pieces)) <= self.LIMIT
        mean = np.average(vectors_of(pieces, 8), axis=0, weights=[count(piece) for piece in pieces])
        np.testing.assert_allclose(vectors[1], mean / np.linalg.norm(mean), atol=1e-6)
        np.testing.assert_array_equal(vectors[0], vectors_of(["cat"], 8)[0])

    def test_parts_of_chunks_are_weighed_alike_whatever_their_size(self, twin, server, exact, cl100k, vectors_of):
        text = "the cat sat on the mat and ate all of it up"  # the last piece fits by its bytes, the first does not

        vectors = twin.embedder(exact.replace(max_tokens=11), on_long="chunk").embed([text])

        assert len(server.texts) == 2
        mean = np.average(vectors_of(server.texts, 8), axis=0, weights=list(map(cl100k.count, server.texts)))
        np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-6)

    def test_a_piece_that_comes_again_is_bought_once_and_weighs_twice(self, twin, server, bounded, vectors_of):
        text = "ant " * 5 + "bee"

        vectors = twin.embedder(bounded.replace(max_tokens=6), on_long="chunk").embed([text])

        assert len(server.texts) < len(tokens.cut_by_bound(text, 6, None))
        pieces = tokens.cut_by_bound(text, 6, None)
        sizes = [tokens.bound(None, len(piece.encode())) for piece in pieces]
        mean = np.average(vectors_of(pieces, 8), axis=0, weights=sizes)
        np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-6)

    def test_a_prefix_stands_before_every_piece_and_counts(self, twin, server, bounded):
        model = bounded.replace(query_prefix="q: ", max_tokens=30)

        twin.embedder(model, on_long="chunk").embed([self.TEXT], input_type="query")

        assert all(text.startswith("q: ") and len(text) <= 28 for text in server.texts)
        assert "".join(text[3:] for text in server.texts) == self.TEXT

    def test_policies_do_not_share_what_differs(self, twin, server, exact):
        cache = MemoryCache()
        rows = [
            twin.embedder(exact, on_long=policy, cache=cache).embed([self.TEXT]).tolist()
            for policy in ("truncate", "chunk", "truncate", "chunk")
        ]

        assert rows[:2] == rows[2:]
        assert rows[0] != rows[1]
        assert len(server.asked) == 2


class TestPacker:
    """The pure part, where no client is needed."""

    def slots(self, packer, texts):
        return [(bytes([at]) * 32, packer.slot(at, text)) for at, text in enumerate(texts)]

    def test_a_text_over_the_limit_of_a_request_by_the_bound_goes_alone(self):
        packer = packing.Packer(SMALL.replace(max_request_tokens=10, max_tokens=None, tokenizer=None), "error")

        batches = list(packer.pack(self.slots(packer, ["a", "b" * 50, "c"])))

        assert [batch.texts for batch in batches] == [("a",), ("b" * 50,), ("c",)]

    def test_a_model_without_limits_takes_everything_in_one_piece(self):
        packer = packing.Packer(vv.EmbeddingModel(name="tiny"), "chunk")

        assert packer.fit("x" * 100_000, "q: ") == ["q: " + "x" * 100_000]
