"""What goes in: refused before anything is sent, or sent as it is; and two different requests never share a key."""

import hashlib
import io
import os
import re
import socket
import time
import wave
from pathlib import Path

import anyio
import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import voxvec as vv
from voxvec import AudioError, ConfigError, InputError, MemoryCache, models
from voxvec._client import _origin_of_client
from voxvec.embedding.packing import Packer
from voxvec.embedding.settings import Keys, Settings
from voxvec.models import EmbeddingModel
from voxvec.testing import FakeOpenAI, Fault
from voxvec.transcription import audio as recordings
from voxvec.transcription import job as speech

DIMS = 8
MEBIBYTE = 2**20


def recording(seconds=1.0, sound=b"\0"):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(sound * int(16000 * seconds))
    return buffer.getvalue()


@pytest.fixture
def fake():
    return FakeOpenAI()


@pytest.fixture
def embedder(twin, fake):
    return twin.embedder(dimensions=DIMS, client=twin.client(fake))


@pytest.fixture
def transcriber(twin, fake):
    return twin.transcriber(client=twin.client(fake))


# Texts


@pytest.mark.case("I01")
@pytest.mark.parametrize("text", ["text", "", b"text"])
def test_a_single_text_is_never_gone_through(embedder, fake, text):
    for work in (embedder.embed, lambda text: list(embedder.stream(text))):
        with pytest.raises(InputError, match=r"for one, use embed_one"):
            work(text)

    assert fake.asked == 0


@pytest.mark.case("I02", "F51", "F52")
@pytest.mark.parametrize("text", ["a\ud800", "", None, float("nan"), b"ant", 7, [5, 6]])
def test_a_text_that_cannot_be_sent_is_named_by_its_position_before_any_request(embedder, fake, text):
    for work in (embedder.embed, lambda texts: list(embedder.stream(texts))):
        with pytest.raises(InputError) as caught:
            work(["ant", text, "bee"])

        assert caught.value.positions == (1,)
        assert caught.value.billed == "no"
    assert fake.asked == 0


@pytest.mark.case("I03")
@pytest.mark.parametrize("text", [" ", "\n\t", "\u3000", "\u200b"])
def test_blanks_are_sent_and_the_server_decides(embedder, fake, vectors_of, text):
    assert embedder.embed([text]).tolist() == vectors_of([text], DIMS)
    assert fake.requests[0].inputs == (text,)


@pytest.mark.case("F53")
def test_a_text_more_than_a_request_takes_makes_two(embedder, fake):
    texts = [f"text {n}" for n in range(2049)]

    vectors = embedder.embed(texts)

    assert (fake.asked, fake.billed, len(vectors)) == (2, 2049, 2049)


@pytest.mark.case("F54")
@pytest.mark.parametrize("nothing", [[], (), iter(()), {}])
def test_no_texts_are_no_request(embedder, fake, nothing):
    assert embedder.embed(nothing).shape == (0, DIMS)
    assert fake.asked == 0


@pytest.mark.case("I04")
def test_a_token_too_many_is_refused_before_paying(embedder, fake):
    pytest.importorskip("tiktoken")

    assert embedder.embed([" the" * 8192]).shape == (1, DIMS)
    with pytest.raises(InputError, match=r"text 1 has 8193 tokens, text-embedding-3-small takes 8192") as caught:
        embedder.embed(["ant", " the" * 8193])

    assert (caught.value.positions, fake.asked) == ((1,), 1)


@pytest.mark.case("I04")
def test_without_the_tokenizer_the_servers_refusal_is_of_that_text_alone(twin, fake):
    fake.misbehave(Fault(status=400), when=lambda asked: any(len(text) > 8192 for text in asked.inputs), times=None)
    model = models.find("text-embedding-3-small").replace(tokenizer=None)
    embedder = twin.embedder(model, dimensions=DIMS, client=twin.client(fake))

    vectors = embedder.embed(["ant", "the " * 2100, "bee"], on_error="keep")

    assert list(vectors.failed) == [1]
    assert fake.billed == 2


@pytest.mark.case("I05")
def test_more_tokens_than_a_request_takes_are_split(embedder, fake, vectors_of):
    pytest.importorskip("tiktoken")
    texts = [f"{n} " + " the" * 7000 for n in range(50)]

    vectors = embedder.embed(texts)

    assert vectors.tolist() == vectors_of(texts, DIMS)
    assert fake.asked == 2


def failing(at):
    for n in range(at):
        yield f"text {n}"
    raise ZeroDivisionError("the source broke")


NOTE = "voxvec: raised by the iterable of texts, instead of text 5000"


@pytest.mark.case("I06")
def test_a_source_that_raises_loses_nothing_that_came_before_it_in_a_stream(twin, fake):
    cache, parts = MemoryCache(), []
    embedder = twin.embedder(dimensions=DIMS, client=twin.client(fake), cache=cache)

    with pytest.raises(ZeroDivisionError, match="the source broke") as caught:
        parts.extend(map(len, embedder.stream(failing(5000))))

    assert caught.value.__notes__ == [NOTE]
    assert parts == [2048, 2048, 904]
    assert (fake.billed, cache.stats().stored) == (5000, 5000)


@pytest.mark.case("I06")
def test_nor_does_an_async_source(fake, vectors_of):
    rows = []

    async def source():
        for text in failing(5):
            yield text

    async def collect():
        embedder = vv.AsyncEmbedder("text-embedding-3-small", dimensions=DIMS, client=fake.async_client())
        async for part in embedder.stream(source()):
            rows.extend(part.tolist())

    with pytest.raises(ZeroDivisionError) as caught:
        anyio.run(collect)

    assert caught.value.__notes__ == [NOTE.replace("5000", "5")]
    assert rows == vectors_of([f"text {n}" for n in range(5)], DIMS)


@pytest.mark.case("I06")
def test_a_source_that_raises_costs_nothing_in_a_call_and_is_raised_as_itself(embedder, fake):
    with pytest.raises(ZeroDivisionError) as caught:
        embedder.embed(failing(5000))

    assert caught.value.__notes__ == [NOTE]
    assert fake.asked == 0


@pytest.mark.case("I07")
def test_a_slow_consumer_is_not_run_away_from(twin, fake):
    read = 0

    def source():
        nonlocal read
        while True:
            read += 1
            yield f"text {read}"

    model = models.find("text-embedding-3-small").replace(max_items=4)
    parts = twin.embedder(model, dimensions=DIMS, client=twin.client(fake), workers=2).stream(source())
    next(parts)

    assert read <= 4 * (2 + 2)
    parts.close()


class Frame:
    """As pandas' and polars' tables."""

    columns = ("question", "answer")

    def __repr__(self):
        return "Frame()"

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.case("I08")
@pytest.mark.parametrize("texts", [Frame(), [[1, 2], [3]], [("a", 1)], 7, None], ids=repr)
def test_what_could_only_be_guessed_at_is_refused(embedder, fake, texts):
    for work in (embedder.embed, lambda texts: list(embedder.stream(texts))):
        with pytest.raises(InputError, match=r"one column|tokens are not taken, give the text|iterable of str"):
            work(texts)

    assert fake.asked == 0


class Heavy(str):
    """A text that counts how often it is encoded."""

    __slots__ = ()
    encoded = 0

    def encode(self, *args):
        type(self).encoded += 1
        return super().encode(*args)


@pytest.mark.case("I09")
@pytest.mark.parametrize("tokenizer", ["cl100k_base", "wordpiece", None])
def test_a_text_of_a_hundred_megabytes_is_refused_by_its_size(tokenizer):
    packer = Packer(EmbeddingModel(name="x", max_tokens=8192, tokenizer=tokenizer), "error")
    text = Heavy("é" * 10**8)

    with pytest.raises(InputError, match=r"100,000,000 characters, more than the 8192 tokens that x takes can hold"):
        packer.fit(text)

    assert Heavy.encoded == 0


@pytest.mark.case("I09")
def test_so_it_is_by_the_client_and_where_the_limit_is_unknown(twin, embedder, fake):
    text = "a" * 10**8

    with pytest.raises(InputError, match=r"text 1 has 100,000,000 characters, more than") as caught:
        embedder.embed(["ant", text])
    with pytest.raises(InputError, match=r"more than any model takes"):
        twin.embedder(EmbeddingModel(name="x"), client=twin.client(fake)).embed([text])

    assert (caught.value.positions, fake.asked) == ((1,), 0)


@pytest.mark.case("I09")
def test_of_such_a_text_the_beginning_is_enough_to_truncate():
    pytest.importorskip("tiktoken")
    packer = Packer(EmbeddingModel(name="x", max_tokens=4, tokenizer="cl100k_base"), "truncate")

    assert packer.fit("word " * 10**6) == packer.fit("word " * 100)


@pytest.mark.case("I10")
@pytest.mark.parametrize("dims", [0, -1, 10**9, True, 1.5, "8", float("nan")])
def test_dims_that_cannot_be_are_refused(twin, embedder, fake, dims):
    with pytest.raises(ConfigError, match="dimensions"):
        embedder.embed(["ant"], dimensions=dims)
    with pytest.raises(ConfigError, match="dimensions"):
        twin.embedder(dimensions=dims, client=twin.client(fake))

    assert fake.asked == 0


# Recordings


class Loop:
    """An endless source of zeros that counts what is read of it."""

    taken = 0

    def read(self, size):
        self.taken += size
        return bytes(size)


@pytest.mark.case("I11")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no such files")
def test_what_is_no_file_is_refused_within_a_second(transcriber, fake, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    start = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for name in ("missing", ".", "pipe", "socket", "link", "/dev/zero", "x" * 5000, "a\0b"):
            with pytest.raises(AudioError, match="nothing was sent"):
                transcriber.transcribe(tmp_path / name)

    assert time.perf_counter() - start < 8
    assert fake.asked == 0


@pytest.mark.case("I11")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no such files")
def test_a_file_that_becomes_a_pipe_meanwhile_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(recording())
    looked_at = Path(tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: looked_at)

    with pytest.raises(AudioError, match="is a pipe, not a file"):
        recordings.read(str(tmp_path / "pipe"))


@pytest.mark.case("I11")
def test_no_more_is_read_than_the_model_takes_and_a_byte(transcriber, fake):
    endless = Loop()

    with pytest.raises(AudioError, match="more than 25,165,824 bytes"):
        transcriber.transcribe(endless)

    assert endless.taken == 24 * MEBIBYTE + 1
    assert fake.asked == 0


@pytest.mark.case("F59", "F60")
@pytest.mark.parametrize("size", [25 * MEBIBYTE + 1, 0])
def test_a_recording_too_large_or_empty_is_refused_before_any_upload(transcriber, fake, tmp_path, size):
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.truncate(size)

    for source in (path, path.read_bytes()):
        with pytest.raises(AudioError, match="nothing was sent") as caught:
            transcriber.transcribe(source)
        assert caught.value.billed == "no"

    assert fake.asked == 0


@pytest.mark.case("F55", "I12")
def test_a_busy_server_gets_the_same_bytes_again_though_the_file_changed(twin, clock, fake, tmp_path):
    path, sound = tmp_path / "a.wav", recording(sound=b"\1")
    path.write_bytes(sound)

    def change(asked):
        path.write_bytes(recording(2.0))
        return True

    fake.misbehave(Fault(status=503), when=change)
    transcript = twin.transcriber(client=twin.client(fake)).transcribe(path)

    digest = hashlib.sha256(sound).hexdigest()
    assert [asked.inputs for asked in fake.requests] == [(digest,), (digest,)]
    assert (transcript.audio_sha256, fake.billed) == (digest, 1)
    assert vv.Transcript.from_json(transcript.to_json()).audio_sha256 == digest


class Unseekable(io.RawIOBase):
    """A stream that can be read once."""

    def __init__(self, data):
        self._rest = data

    def readable(self):
        return True

    def read(self, size=-1):
        piece, self._rest = self._rest[:1000], self._rest[1000:]
        return piece


@pytest.mark.case("F56")
def test_so_does_one_that_got_a_stream_which_cannot_be_rewound(twin, clock, fake):
    fake.misbehave(Fault(status=503))

    transcript = twin.transcriber(client=twin.client(fake)).transcribe(Unseekable(recording()))

    assert {asked.inputs for asked in fake.requests} == {(transcript.audio_sha256,)}
    assert (fake.asked, fake.billed) == (2, 1)


NAMES = ['a"b.wav', "a\r\nX-Evil: 1.wav", "회의.wav", "a" * 200 + ".wav", "a;b=c.wav", "\x07\x1b[31m.wav", "..wav"]


@pytest.mark.case("F65", "I13")
@pytest.mark.parametrize("name", NAMES)
def test_no_file_name_reaches_the_server(twin, name, tmp_path):
    bodies = []

    def note(request, reply):
        bodies.append(request.body)
        return reply

    fake = FakeOpenAI(mutate=note)
    (tmp_path / name).write_bytes(recording())

    twin.transcriber(client=twin.client(fake)).transcribe(tmp_path / name)

    assert re.findall(rb'filename="?([^"\r\n]*)', bodies[0]) == [b"audio.wav"]
    head = bodies[0].split(b"RIFF")[0].rsplit(b"\r\n--", 1)[-1]
    assert len([line for line in head.split(b"\r\n")[1:] if line]) == 2  # a single part with its two headers


@pytest.mark.case("I13")
@pytest.mark.parametrize("name", ["../../etc/passwd", "x" * 10_000, "a\0b", "\ud800.wav", "/", 7, None])
def test_nor_does_the_name_that_an_open_file_claims(twin, fake, name):
    file = io.BytesIO(recording())
    file.name = name

    assert twin.transcriber(client=twin.client(fake)).transcribe(file).audio_sha256
    assert fake.asked == 1


@pytest.mark.case("I14")
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.wav",
        "https://x.example/a.wav",
        "file:///etc/passwd",
        "s3://b/k",
        "data:audio/wav;base64,UklG",
    ],
)
def test_a_url_is_refused_and_nothing_is_fetched(transcriber, fake, monkeypatch, url):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it connects"))

    with pytest.raises(AudioError, match="is a URL, which is not fetched"):
        transcriber.transcribe(url)

    assert fake.asked == 0


# Keys

names = st.text(max_size=4)
asks = st.fixed_dictionaries(
    {
        "origin": names,
        "namespace": st.none() | st.text(min_size=1, max_size=4),
        "model": st.text(min_size=1, max_size=4),
        "role": st.sampled_from([None, "query", "document"]),
        "dims": st.sampled_from([None, 2, 22]),
        "text": st.text(min_size=1, max_size=6),
    }
)


def vector_key(ask):
    model = EmbeddingModel(name=ask["model"], input_type_parameter="input_type").with_dims(ask["dims"])
    settings = Settings(model=model, origin=ask["origin"], namespace=ask["namespace"], input_type=ask["role"])
    return Keys(settings).of(ask["text"].encode())


def ask(text="b", **changes):
    return {"origin": "o", "namespace": None, "model": "m", "role": None, "dims": None, "text": text, **changes}


@pytest.mark.case("C20", "C21")
@given(asks, asks)
@example(ask("ab"), ask("a"))
@example(ask("b", model="xa"), ask("ab", model="x"))
@example(ask("b", namespace="a"), ask("ab"))
@example(ask("b", origin="o", namespace="n"), ask("b", origin="on"))
@example(ask("e\u0301"), ask("\xe9"))
@example(ask("a"), ask("a\n"))
@example(ask("a"), ask("\ufeffa"))
@example(ask("a"), ask("a\u200b"))
@example(ask("a", dims=2), ask("a", dims=22))
@example(ask("2a", dims=2), ask("a", dims=22))
@example(ask("a", role="query"), ask("a", role="document"))
@example(ask("querya"), ask("a", role="query"))
@settings(max_examples=300)
def test_two_texts_that_are_asked_for_differently_have_two_keys(one, other):
    assert (vector_key(one) == vector_key(other)) == (one == other)


@pytest.mark.case("C20")
def test_texts_do_not_run_into_each_other():
    keys = Keys(Settings(model=EmbeddingModel(name="m")))
    together = ["a", "b", "ab", "a-b", "a, b", '["a","b"]', "a\0b"]

    assert len({keys.of(text.encode()) for text in together}) == len(together)


fields = st.lists(st.tuples(names, names), max_size=3).map(tuple)
sounds = st.fixed_dictionaries(
    {
        "origin": names,
        "namespace": st.none() | st.text(min_size=1, max_size=4),
        "task": st.sampled_from(["transcriptions", "translations"]),
        "fields": fields,
        "sound": st.sampled_from([recording(), recording(sound=b"\1"), recording(2.0)]),
    }
)


def speech_key(ask):
    known = models.find("gpt-transcribe")
    rest = {name: value for name, value in ask.items() if name != "sound"}
    return speech.TranscriptionJob(recordings.read(ask["sound"]), speech.Settings(model=known, **rest)).name


def say(*sent, **changes):
    plain = {"origin": "o", "namespace": None, "task": "transcriptions", "fields": sent, "sound": recording()}
    return {**plain, **changes}


@pytest.mark.case("C20")
@given(sounds, sounds)
@example(say(("prompt", "ab")), say(("prompta", "b")))
@example(say(("a", "b"), ("c", "d")), say(("a", "bc"), ("", "d")))
@example(say(("keywords[]", "a"), ("keywords[]", "b")), say(("keywords[]", "a b")))
@example(say(("keywords[]", "a"), ("keywords[]", "b")), say(("keywords[]", "b"), ("keywords[]", "a")))
@example(say(), say(task="translations"))
@example(say(origin="on"), say(namespace="n"))
@settings(max_examples=200)
def test_two_recordings_that_are_asked_about_differently_have_two_keys(one, other):
    assert (speech_key(one) == speech_key(other)) == (one == other)


@given(asks, sounds)
@settings(max_examples=50)
def test_a_vector_and_a_transcript_never_share_a_key(one, other):
    assert vector_key(one) != speech_key(other)


@pytest.mark.case("I15")
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, True),
        ({}, {"variant": "b"}, False),
        ({"variant": "a"}, {"variant": "b"}, False),
        ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, True),
        ({"a": "1&b=2"}, {"a": "1", "b": "2"}, False),
        ({"api-version": "2024-01-01"}, {"api-version": "2025-01-01"}, True),
    ],
)
def test_what_a_users_own_client_adds_to_the_address_is_part_of_the_key(one, other, same):
    origins = [
        _origin_of_client(openai.OpenAI(api_key="x", base_url="https://x.example/v1", default_query=query))
        for query in (one, other)
    ]

    assert (origins[0] == origins[1]) is same


@pytest.mark.case("I15")
def test_so_another_address_is_bought_anew(twin, fake):
    cache = MemoryCache()
    for query in ({}, {"variant": "b"}, {"variant": "b"}):
        client = twin.client(fake).with_options(default_query=query)
        twin.embedder(dimensions=DIMS, client=client, cache=cache).embed(["ant"])

    assert fake.asked == 2
