"""Answers that are not what they should be: every kind of them, through both twins, against the same four numbers."""

import base64
import io
import json
import pickle
import re
import warnings
import wave

import numpy as np
import pytest

import voxvec as vv
from voxvec import MemoryCache, ResponseError, VoxvecWarning, rows
from voxvec.embedding import copies
from voxvec.embedding.asking import Asking
from voxvec.embedding.job import EmbeddingJob
from voxvec.embedding.settings import Settings
from voxvec.embedding.wire import decode
from voxvec.testing import MUTATIONS, FakeOpenAI, Fault

TEXTS = ["ant", "bee", "cat", "dog"]
DIMS = 8
# What the matrix calls some of them.
CASES = {
    "shuffled": "F01",
    "missing": "F02",
    "missing-renumbered": "F02",
    "duplicated": "F03",
    "copied": "F04",
    "nan": "F05",
    "infinite": "F05",
    "narrow": "F06",
    "wide": "F06",
    "all-narrow": "F06",
    "all-wide": "F06",
    "zero": "F07",
    "index-beyond": "F08",
    "base64-cut": "F09",
    "base64-short": "F09",
    "no-vectors": "F10",
    "error": "F11",
    "html": "F12",
    "half-json": "F13",
    "no-usage": "F14",
    "usage-null": "F14",
    "floats": "F15",
    "other-model": "F16",
    "deep": "B02",
    "deep-object": "B02",
    "beyond-int": "B02",
    "trailing": "B02",
    "nan-literal": "B03",
    "infinite-literal": "B03",
    "usage-text": "B05",
    "usage-negative": "B05",
    "usage-huge": "B05",
    "usage-strings": "B05",
    "usage-infinite": "B05",
    "text-null": "F58",
    "text-missing": "F58",
    "nan-times": "B08",
    "reversed-times": "B08",
}


def kinds(of, *, benign):
    return [
        pytest.param(name, marks=pytest.mark.case("B01", *filter(None, [CASES.get(name)])))
        for name, mutation in MUTATIONS.items()
        if of in mutation.of and mutation.benign is benign
    ]


def recording(seconds=1.0):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(int(16000 * seconds)))
    return buffer.getvalue()


class Ask:
    """One embedder in front of one fake, and what came of it."""

    def __init__(self, twin, encoding, *faults, times=None, model="text-embedding-3-small", **settings):
        self.fake, self.cache = FakeOpenAI(), MemoryCache()
        for fault in faults:
            self.fake.misbehave(fault, times=times)
        known = vv.models.find(model).replace(base64=encoding == "base64")
        self.embedder = twin.embedder(
            known, dimensions=DIMS, client=twin.client(self.fake), cache=self.cache, **settings
        )

    def embed(self, texts=TEXTS):
        return self.embedder.embed(texts)


encodings = pytest.mark.parametrize("encoding", ["base64", "float"])


@encodings
@pytest.mark.parametrize("name", kinds("embeddings", benign=False))
def test_what_is_no_answer_is_asked_for_once_more_and_never_returned_or_kept(twin, clock, encoding, name):
    ask = Ask(twin, encoding, Fault(spoil=name), times=2)

    with pytest.raises(ResponseError) as caught:
        ask.embed()

    assert (ask.fake.asked, ask.fake.billed, ask.cache.stats().stored) == (2, 8, 0)
    assert (caught.value.attempts, caught.value.billed, caught.value.kind) == (2, "maybe", "malformed")
    assert set(caught.value.positions) <= set(range(4))
    assert np.isnan(caught.value.partial.array).all()
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 -- made here
    assert vars(again) == {**vars(caught.value), "partial": None}


@pytest.mark.parametrize(
    "name", [name for name, kind in MUTATIONS.items() if "embeddings" in kind.of and not kind.benign]
)
@pytest.mark.case("F66")
def test_the_right_answer_wins_after_a_wrong_one(twin, clock, vectors_of, name):
    ask = Ask(twin, "base64", Fault(spoil=name), times=2)
    with pytest.raises(ResponseError):
        ask.embed()

    assert ask.embed().tolist() == ask.embed().tolist() == vectors_of(TEXTS, DIMS)
    assert (ask.fake.asked, ask.cache.stats().stored) == (3, 4)


@encodings
@pytest.mark.parametrize("name", kinds("embeddings", benign=True))
def test_what_is_only_odd_is_taken_with_one_request(twin, clock, vectors_of, encoding, name):
    ask = Ask(twin, encoding, Fault(spoil=name))

    vectors = ask.embed()

    assert vectors.tolist() == vectors_of(TEXTS, DIMS)
    assert (ask.fake.asked, ask.cache.stats().stored) == (1, 4)


@pytest.mark.filterwarnings("ignore:whisper-1 is shut down")
@pytest.mark.parametrize("name", kinds("speech", benign=False))
def test_what_is_no_transcript_is_asked_for_once_more_and_never_returned_or_kept(twin, clock, name):
    fake, cache = FakeOpenAI(), MemoryCache()
    fake.misbehave(Fault(spoil=name), times=None)

    with pytest.raises(ResponseError) as caught:
        twin.transcriber("whisper-1", client=twin.client(fake), cache=cache).transcribe(recording())

    assert (fake.asked, cache.stats().stored) == (2, 0)
    assert (caught.value.attempts, caught.value.billed) == (2, "maybe")


@pytest.mark.filterwarnings("ignore:whisper-1 is shut down")
@pytest.mark.parametrize("name", kinds("speech", benign=True))
def test_a_transcript_that_is_only_odd_is_taken_with_one_request(twin, clock, name):
    fake = FakeOpenAI()
    fake.say("Hello there.")
    fake.misbehave(Fault(spoil=name), times=None)

    transcript = twin.transcriber("whisper-1", client=twin.client(fake)).transcribe(recording())

    assert transcript.text == "Hello there."
    assert fake.asked == 1


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        pytest.param("no-vectors", (0, 1, 2, 3)),
        pytest.param("duplicated", None),
        pytest.param("zero", None),
        pytest.param("nan", None),
        pytest.param("copied", (3,)),
    ],
)
def test_the_positions_at_fault_are_named(twin, clock, name, positions):
    with pytest.raises(ResponseError) as caught:
        Ask(twin, "base64", Fault(spoil=name)).embed()

    if positions is None:
        assert 1 <= len(caught.value.positions) <= 2
    else:
        assert caught.value.positions == positions


@pytest.mark.case("F02")
def test_a_missing_row_is_named_by_the_index_that_is_not_there(twin, clock):
    def drop(reply):
        del reply["data"][1]
        return reply

    with pytest.raises(ResponseError, match=r"3 vectors in it for 4 texts; missing: \[1\]") as caught:
        Ask(twin, "base64", Fault(spoil=drop)).embed()

    assert caught.value.positions == (1,)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("html", r"text/html.*<html", marks=pytest.mark.case("F12")),
        pytest.param("half-json", r"application/json.*\{", marks=pytest.mark.case("F13")),
    ],
)
def test_the_message_shows_the_type_and_how_it_begins(twin, clock, name, words):
    with pytest.raises(ResponseError, match=re.compile(words, re.IGNORECASE)) as caught:
        Ask(twin, "base64", Fault(spoil=name)).embed()

    assert len(str(caught.value)) < 400


@pytest.mark.case("F11")
def test_an_error_in_disguise_carries_the_servers_words_and_its_code(twin, clock):
    error = {"message": "The engine is overloaded.", "type": "server_error", "code": "engine_overloaded"}
    ask = Ask(twin, "base64", Fault(spoil=lambda _: {"error": error}))

    with pytest.raises(ResponseError, match=r"The engine is overloaded\.") as caught:
        ask.embed()

    assert (caught.value.code, caught.value.status) == ("engine_overloaded", 200)
    assert caught.value.request_id


def with_usage(usage):
    return Fault(spoil=lambda reply: {**reply, "usage": usage})


@pytest.mark.case("B05", "F14")
@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (None, (0, 0)),
        ({}, (0, 0)),
        ({"prompt_tokens": 0, "total_tokens": None}, (0, 0)),
        ({"prompt_tokens": 3}, (0, 1)),  # for four texts
        ({"prompt_tokens": -1, "total_tokens": -1}, (0, 1)),
        ({"prompt_tokens": 10**6}, (0, 1)),
        ({"prompt_tokens": "12"}, (0, 1)),
        ("many", (0, 1)),
        ([12], (0, 1)),
        ({"prompt_tokens": -1, "total_tokens": 8}, (8, 0)),
        ({"prompt_tokens": 4}, (4, 0)),
        ({"prompt_tokens": 12 + 4 * 64}, (12 + 4 * 64, 0)),
        ({"prompt_tokens": 13 + 4 * 64}, (0, 1)),
    ],
)
def test_a_count_that_cannot_be_is_passed_over_and_said_so(twin, clock, vectors_of, usage, counted):
    tokens, miscounted = counted
    vectors = Ask(twin, "base64", with_usage(usage)).embed()

    assert vectors.tolist() == vectors_of(TEXTS, DIMS)
    assert vectors.usage.estimated is (not tokens)
    assert vectors.usage.miscounted == miscounted
    assert vectors.usage.tokens == tokens or 4 <= vectors.usage.tokens <= 12 + 4 * 64


# One vector for two texts


def copied(reply):
    reply["data"][2]["embedding"] = reply["data"][0]["embedding"]
    return reply


@pytest.mark.case("F04")
@pytest.mark.parametrize("model", ["text-embedding-3-small", "tiny"])
def test_one_vector_for_two_texts_that_any_model_tells_apart_is_no_answer(twin, server, model):
    server.script.extend([copied] * 9)
    known = vv.models.find(model) if model != "tiny" else vv.EmbeddingModel(name="tiny")

    with pytest.raises(ResponseError, match="vectors 0 and 2 are the same, and their texts are not") as caught:
        twin.embedder(known, dimensions=DIMS).embed(["first text", "second text", "third text"])

    assert caught.value.positions == (0, 2)
    assert len(server.asked) == 2


@pytest.mark.case("F04")
@pytest.mark.parametrize(
    ("a", "b", "tokenizer"),
    [
        ("Cat", "cat ", None),
        ("naïve", "naive", None),
        ("soft\u00adhyphen", "softhyphen", None),
        ("the cat, sat", "sat the cat!", None),
        ("🙂", "🎉", None),
        ("x" * 101, "y" * 200, "wordpiece"),
        ("서울", "부산", "wordpiece"),
        ("head " * 60 + "one", "head " * 60 + "other", None),
    ],
)
def test_a_model_that_may_read_both_texts_alike_may_give_both_one_vector(twin, server, a, b, tokenizer):
    server.script.extend([copied] * 9)
    model = vv.EmbeddingModel(name="tiny", tokenizer=tokenizer)

    vectors = twin.embedder(model, dimensions=DIMS).embed([a, "between", b])

    assert vectors[0].tolist() == vectors[2].tolist()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("a", "b", "model", "alike"),
    [
        ("Cat", "cat", vv.models.find("text-embedding-3-small"), False),  # byte by byte
        ("cat", "dog", vv.EmbeddingModel(name="x", tells_apart=False), True),
        ("Cat", "cat", vv.EmbeddingModel(name="x", tells_apart=True), False),
        ("line\none", "lineone", vv.EmbeddingModel(name="x"), False),
        ("서울", "부산", vv.EmbeddingModel(name="x"), False),
        ("cat" * 60, "cat" * 61, vv.EmbeddingModel(name="x"), False),
    ],
)
def test_which_texts_are_alike_is_a_question_of_the_model(a, b, model, alike):
    vectors = np.ones((2, DIMS), np.float32)

    assert (copies.find(vectors, [a, b], model) is None) == alike


def test_few_dims_may_coincide_and_rows_that_only_begin_alike_differ():
    model = vv.EmbeddingModel(name="x")
    begin_alike = np.ones((40, DIMS), np.float32)
    begin_alike[:, -1] = np.arange(40)

    assert copies.find(np.ones((2, DIMS - 1), np.float32), ["a", "b"], model) is None
    assert copies.find(begin_alike, [f"text {n}" for n in range(40)], model) is None
    begin_alike[39] = begin_alike[7]
    assert copies.find(begin_alike, [f"text {n}" for n in range(40)], model) == (7, 39)


# Lengths


def big_endian(reply):
    for item in reply["data"]:
        numbers = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
        item["embedding"] = base64.b64encode(numbers.astype(">f4").tobytes()).decode()
    return reply


def scaled(factor):
    def change(reply):
        for item in reply["data"]:
            numbers = np.frombuffer(base64.b64decode(item["embedding"]), "<f4") * np.float32(factor)
            item["embedding"] = base64.b64encode(numbers.astype("<f4").tobytes()).decode()
        return reply

    return change


@pytest.mark.case("B04")
@pytest.mark.parametrize("model", ["text-embedding-3-small", "tiny"])
def test_bytes_in_the_wrong_order_are_no_answer_of_any_model(twin, server, model):
    server.script.extend([big_endian] * 9)
    known = vv.models.find(model) if model != "tiny" else vv.EmbeddingModel(name="tiny", base64=True)

    with pytest.raises(ResponseError, match=r"wrong order|length that no model|not finite|is zero"):
        twin.embedder(known, dimensions=DIMS).embed(TEXTS)

    assert len(server.asked) == 2


@pytest.mark.case("B04")
def test_so_are_those_that_make_numbers_of_a_sane_size():
    swapped = bytes.fromhex("3e800040") * 16  # 0.25 sixteen times, or 2.0 when read the wrong way round
    body = json.dumps({"data": [{"embedding": base64.b64encode(swapped).decode()}]}).encode()

    with pytest.raises(ResponseError, match=r"bytes of vector 0 are in the wrong order \(big-endian\)"):
        decode(body, 1, 16)


@pytest.mark.case("B04")
@pytest.mark.parametrize(("factor", "right"), [(0.985, True), (1.015, True), (0.97, False), (1.03, False), (30, False)])
def test_a_model_known_to_give_unit_vectors_gives_no_others(twin, server, factor, right):
    server.script.extend([scaled(factor)] * 9)
    embedder = twin.embedder(vv.EmbeddingModel(name="tiny", unit_length="yes", base64=True), dimensions=DIMS)

    if right:
        assert np.linalg.norm(embedder.embed(TEXTS).array, axis=1) == pytest.approx(factor, abs=1e-5)
        return
    with pytest.raises(ResponseError, match=r"vector 0 has length .*unit_length='unknown'"):
        embedder.embed(TEXTS)
    assert len(server.asked) == 2


@pytest.mark.case("B04")
def test_other_models_may_give_vectors_of_any_sane_length(twin, server):
    server.script.append(scaled(1234.5))

    vectors = twin.embedder(vv.EmbeddingModel(name="tiny"), dimensions=DIMS).embed(TEXTS)

    assert np.linalg.norm(vectors.array, axis=1) == pytest.approx(1234.5, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-13, 1e13])
def test_no_model_gives_vectors_of_such_a_length(factor):
    body = json.dumps({"data": [{"embedding": [factor, 0.0]}]}).encode()

    with pytest.raises(ResponseError, match="length that no model gives"):
        decode(body, 1, 2)


def test_what_is_known_of_a_models_lengths():
    gemini = vv.models.find("gemini-embedding-001")

    assert vv.models.find("all-MiniLM-L6-v2").is_unit_length
    assert gemini.is_unit_length
    assert not gemini.with_dims(768).is_unit_length
    assert not vv.models.find("text-embedding-3-small").is_unit_length  # only widely repeated
    assert not vv.EmbeddingModel(name="x").is_unit_length


# Widths and models over several answers


def narrow(reply):
    return {**reply, "data": [{**item, "embedding": [1.0, *[0.5] * 3]} for item in reply["data"]]}


@pytest.mark.case("F06", "B07")
def test_where_nobody_knows_the_width_the_first_answer_sets_it_for_the_client(twin, server):
    embedder = twin.embedder(vv.EmbeddingModel(name="tiny"))
    assert embedder.embed(["ant"]).dims == 8
    server.script.extend([narrow] * 2)

    with pytest.raises(ResponseError, match="4 dimensions instead of 8"):
        embedder.embed(["bee"])

    assert len(server.asked) == 3


@pytest.mark.case("B07")
def test_a_width_that_changes_within_a_job_is_refused_for_the_later_batch(twin, server):
    cache = MemoryCache()
    embedder = twin.embedder(vv.EmbeddingModel(name="tiny", max_items=2), workers=1, cache=cache)
    server.rule = lambda body: narrow if "cat" in body["input"] else None

    with pytest.raises(ResponseError) as caught:
        embedder.embed(TEXTS)

    assert caught.value.positions == (2,)
    assert (caught.value.done, cache.stats().stored, len(server.asked)) == (2, 2, 3)


@pytest.mark.case("B07")
def test_of_answers_that_come_together_one_is_the_first(twin, server):
    embedder = twin.embedder(vv.EmbeddingModel(name="tiny", max_items=1), workers=4)
    server.rule = lambda body: narrow if body["input"] < ["c"] else None

    with pytest.raises(ResponseError, match="dimensions"):
        embedder.embed(TEXTS)


def named(name):
    return lambda reply: {**reply, "model": name}


@pytest.mark.case("F16", "B06")
def test_another_model_is_recorded_in_the_result_and_in_each_row(twin, server):
    cache = MemoryCache()
    server.script.append(named("somebody/else"))

    first = twin.embedder(dimensions=DIMS, cache=cache).embed(TEXTS)
    again = twin.embedder(dimensions=DIMS, cache=cache).embed(TEXTS)

    assert (first.model, again.model, again.cached) == ("somebody/else", "somebody/else", 4)


@pytest.mark.case("B06")
def test_a_model_that_changes_within_a_job_is_worth_a_warning(twin, server):
    model = vv.models.find("text-embedding-3-small").replace(max_items=1)
    embedder = twin.embedder(model, dimensions=DIMS, workers=1)
    server.script.extend([named("text-embedding-3-small"), named("text-embedding-3-small"), named("another")])

    with pytest.warns(VoxvecWarning, match="answered by 'another', earlier by 'text-embedding-3-small'"):
        assert embedder.embed(["ant", "bee", "cat"]).model == "another"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder.embed(["dog"])  # and not a second time


@pytest.mark.case("B06")
def test_a_model_that_changes_stops_who_insists_on_one(twin, server):
    embedder = twin.embedder(dimensions=DIMS, strict_model=True)
    server.script.extend([named("text-embedding-3-small-v1"), *[named("text-embedding-3-small-v2")] * 2])
    embedder.embed(["ant"])

    with pytest.raises(ResponseError, match="-v2 answered instead of text-embedding-3-small-v1"):
        embedder.embed(["bee"])

    assert len(server.asked) == 3


@pytest.mark.case("F16")
def test_rows_of_another_model_are_none_to_who_insists_on_one(twin, server):
    cache = MemoryCache()
    server.script.append(named("somebody/else"))
    twin.embedder(dimensions=DIMS, cache=cache).embed(TEXTS)

    vectors = twin.embedder(dimensions=DIMS, cache=cache, strict_model=True).embed(TEXTS)

    assert (vectors.model, vectors.cached, len(server.asked)) == ("text-embedding-3-small", 0, 2)


def test_the_same_bytes_with_a_mark_in_front_are_the_same_answer():
    body = json.dumps({"data": [{"embedding": [1.0, 2.0]}]}).encode()

    assert decode(b"\xef\xbb\xbf" + body, 1, 2).vectors.tolist() == [[1.0, 2.0]]


@pytest.mark.case("B07")
def test_the_first_width_stays_the_first():
    asking = Asking(
        vv.EmbeddingModel(name="tiny"), dimensions=None, namespace=None, on_long="error", strict_model=False
    )
    asking._check_width(8)
    asking._check_width(8)

    with pytest.raises(ResponseError, match="the vectors have 4 dimensions, earlier ones 8"):
        asking._check_width(4)


@pytest.mark.case("C28")
@pytest.mark.parametrize("payload", [[float("nan"), 1.0], [float("inf"), 1.0], [0.0, 0.0], [1e30, 1.0]])
def test_a_row_that_holds_no_vector_is_bought_again_however_well_it_is_sealed(payload):
    job = EmbeddingJob(["ant"], Settings(model=vv.EmbeddingModel(name="tiny", dims=2)))
    [name] = job.open()
    numbers = np.array(payload, "<f4").tobytes()
    row = rows.pack(name, numbers, kind=rows.Kind.VECTOR, width=2, tokens=None, model="")

    assert job.fill({name: row}) == [name]
    assert job.open() == [name]


def test_a_row_that_names_no_model_serves_the_one_asked_for():
    job = EmbeddingJob(["ant"], Settings(model=vv.EmbeddingModel(name="tiny", dims=2), strict=True))
    [name] = job.open()
    numbers = np.array([0.6, 0.8], "<f4").tobytes()

    assert job.fill({name: rows.pack(name, numbers, kind=rows.Kind.VECTOR, width=2, tokens=None, model="")}) == []
    assert (job.result().model, job.open()) == ("tiny", [])
