import io
import os
import socket
import subprocess
import sys
import threading
import wave
from contextlib import ExitStack
from http.client import HTTPConnection

import anyio
import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec import models, testing, tokens
from voxvec.local.exchange import Reply
from voxvec.testing import FakeOpenAI


@pytest.fixture
def fake():
    return FakeOpenAI(models={"tiny": 8})


@pytest.fixture
def client(fake):
    with fake.client() as client:
        yield client


def vectors(client, texts, model="tiny", **wishes):
    reply = client.embeddings.create(model=model, input=texts, **wishes)
    return np.array([item.embedding for item in reply.data], dtype=np.float32)


def silence(seconds=1.0):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(int(seconds * 8000) * 2))
    return file.getvalue()


def transcribe(client, data, **wishes):
    return client.audio.transcriptions.create(**{"model": "gpt-transcribe", "file": ("a.wav", data), **wishes})


# -- vectors


@given(st.text(min_size=1, max_size=20), st.integers(1, 8))
def test_a_vector_depends_on_the_text_alone_and_a_shorter_one_is_its_beginning(text, dims):
    with FakeOpenAI(models={"tiny": 8}, tokens=len).client() as client:
        [full, _], [short] = vectors(client, [text, "other"]), vectors(client, text, dimensions=dims)

    assert np.linalg.norm(full) == pytest.approx(1, abs=1e-6)
    assert np.abs(short - full[:dims] / np.linalg.norm(full[:dims])).max() < 1e-6


def test_vectors_are_the_same_in_every_version(client):
    [row] = vectors(client, "cat", model="text-embedding-3-small", dimensions=3)

    assert row == pytest.approx([0.72160274, 0.4511556, 0.52511722], abs=1e-7)


@pytest.mark.parametrize("name", ["text-embedding-3-large", "text-embedding-3-small", "text-embedding-ada-002"])
def test_openai_s_models_have_their_own_dims_and_vectors(client, name):
    assert vectors(client, ["a"], name).shape == (1, models.find(name).dims)
    assert abs(float(vectors(client, ["a"], name)[0] @ vectors(client, ["b"], name)[0])) < 0.2


def test_a_length_of_text_can_be_counted_by_the_caller():
    counted = FakeOpenAI(models={"tiny": 8}, tokens=lambda text: 7).client()

    assert counted.embeddings.create(model="tiny", input=["a", "b"]).usage.total_tokens == 14


@pytest.fixture
def uncounted():
    """Nothing was counted before."""
    testing._tokenizer.cache_clear()
    yield
    testing._tokenizer.cache_clear()


def test_tokens_are_those_of_cl100k_where_tiktoken_is(uncounted, client):
    pytest.importorskip("tiktoken")

    assert client.embeddings.create(model="tiny", input="antidisestablishmentarianism!").usage.total_tokens == 7


def test_tokens_are_a_quarter_of_the_bytes_where_tiktoken_is_not(uncounted, client, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)

    assert client.embeddings.create(model="tiny", input=["cats!", "a" * 8]).usage.total_tokens == 2 + 2


def test_no_tokenizer_is_looked_for_before_a_text_is_counted(uncounted, monkeypatch):
    def refuse(_):
        raise AssertionError("it was looked for")

    monkeypatch.setattr(tokens, "exact", refuse)

    with FakeOpenAI(tokens=len).client() as client:
        assert client.embeddings.create(model="text-embedding-3-small", input="cats").usage.total_tokens == 4


@pytest.mark.parametrize(
    ("given_models", "kind", "message"),
    [
        (["tiny"], TypeError, r"models must be a mapping from names to dims, such as \{'tiny': 8\}, not list"),
        ("tiny", TypeError, "not str"),
        ({7: 8}, TypeError, "the name of a model must be a str, not int"),
        ({"tiny": "8"}, TypeError, "the dims of 'tiny' must be an int, not str"),
        ({"tiny": True}, TypeError, "the dims of 'tiny' must be an int, not bool"),
        ({"tiny": 0}, ValueError, "the dims of 'tiny' must be at least 1, not 0"),
    ],
)
def test_models_that_cannot_be_are_refused(given_models, kind, message):
    with pytest.raises(kind, match=message):
        FakeOpenAI(models=given_models)


# -- speech


def test_what_is_said_is_heard_everywhere_or_in_one_recording(fake, client, tmp_path):
    other = tmp_path / "other.wav"
    other.write_bytes(silence(2))
    fake.say("everywhere")
    fake.say("only there", for_audio=other)
    fake.say("only in these bytes", for_audio=silence(3))

    assert transcribe(client, silence(1)).text == "everywhere"
    assert transcribe(client, silence(2)).text == "only there"
    assert transcribe(client, silence(3)).text == "only in these bytes"


def test_segments_have_the_times_and_speakers_they_were_given(fake, client):
    fake.say("hi there", segments=[("hi", 0.0, 0.4), ("there", 0.6, 1.0, "B")], language="korean", code="ko")

    diarized = transcribe(client, silence(), model="gpt-4o-transcribe-diarize", response_format="diarized_json")
    verbose = transcribe(client, silence(), model="whisper-1", response_format="verbose_json")

    assert [(s.text, s.start, s.end, s.speaker) for s in diarized.segments] == [
        ("hi", 0, 0.4, "A"),
        ("there", 0.6, 1, "B"),
    ]
    assert verbose.language == "korean"
    assert transcribe(client, silence()).languages[0].code == "ko"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_translation_can_differ_from_the_transcript(fake, client):
    fake.say("안녕", translation="hello")

    assert client.audio.translations.create(model="whisper-1", file=("a.wav", silence())).text == "hello"
    assert transcribe(client, silence()).text == "안녕"


def test_recordings_nobody_spoke_for_differ_and_stay_the_same(client):
    one, two = transcribe(client, silence(9)).text, transcribe(client, silence(8)).text

    assert one != two
    assert one == transcribe(client, silence(9)).text


def coded(kind, codec, seconds):
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as out:
        stream = out.add_stream(codec, rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, seconds * 16_000), "<i2"), format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux([packet for part in (frame, None) for packet in stream.encode(part)])
    return file.getvalue()


@pytest.mark.parametrize(("kind", "codec"), [("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus")])
def test_a_recording_lasts_as_long_as_its_header_says(client, kind, codec):
    data = coded(kind, codec, 11)

    got = transcribe(client, data, model="whisper-1", response_format="verbose_json", file=(f"a.{kind}", data))

    assert got.duration == pytest.approx(11, abs=0.1)


def test_what_is_no_recording_is_heard_all_the_same_and_lasts_by_its_size(client):
    assert transcribe(client, b"", file=("a.mp3", b"anything" * 1500)).usage.seconds == 3


@pytest.mark.parametrize("data", [b"fLaC" + bytes(60), silence()[:-9], b"ID3\x04\x00\x00\x00\x00\x00\x00"])
def test_a_damaged_recording_is_refused(client, data):
    with pytest.raises(openai.BadRequestError, match="could not be decoded"):
        transcribe(client, data)


@pytest.mark.parametrize(
    ("text", "segments", "kind", "message"),
    [
        (b"hi", [], TypeError, "text must be a str, not bytes"),
        (None, [], TypeError, "text must be a str, not NoneType"),
        ("hi", ["hi "], TypeError, "a segment must be a tuple of text, start, end and perhaps speaker, not str"),
        ("hi", [7], TypeError, "not int"),
        ("hi", [("hi", 0)], ValueError, "perhaps speaker, not 2 fields"),
        ("hi", [("hi", 0, 1, "A", "B")], ValueError, "not 5 fields"),
        ("hi", [(0, 1, "hi")], TypeError, "text and speaker of a segment must be str"),
        ("hi", [("hi", 0, 1, None)], TypeError, "text and speaker of a segment must be str"),
        ("hi", [("hi", "0", 1)], TypeError, "the start of a segment must be a number of seconds, not str"),
        ("hi", [("hi", 0, None)], TypeError, "the end of a segment must be a number"),
        ("hi", [("hi", -1, 1)], ValueError, "the start of a segment must be 0 s or more, not -1"),
        ("hi", [("hi", 0, float("nan"))], ValueError, "must be 0 s or more, not nan"),
        ("hi", [("hi", 2, 1)], ValueError, "must not end before it starts"),
    ],
)
def test_what_cannot_be_said_is_refused_at_once(text, segments, kind, message):
    fake = FakeOpenAI()
    fake.say("as before")

    with pytest.raises(kind, match=message):
        fake.say(text, segments=segments)

    with fake.client() as client:
        assert transcribe(client, silence()).text == "as before"


def test_a_segment_may_be_a_list_and_may_take_no_time(fake, client):
    fake.say("hi", segments=[["hi", 1, 1]])

    verbose = transcribe(client, silence(), model="whisper-1", response_format="verbose_json")

    assert [(s.text.strip(), s.start, s.end) for s in verbose.segments] == [("hi", 1, 1)]


# -- faults


def test_faults_come_in_their_order_and_then_it_works(fake, client):
    fake.fail_next(429, retry_after=0.5)
    fake.fail_next(500, times=2)

    with pytest.raises(openai.RateLimitError) as throttled:
        vectors(client, ["a"])
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            vectors(client, ["a"])

    assert throttled.value.response.headers["retry-after"] == "0.5"
    assert throttled.value.code == "rate_limit_exceeded"
    assert vectors(client, ["a"]).shape == (1, 8)
    assert (fake.asked, fake.billed) == (4, 1)


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ({"status": 401}, "invalid_api_key", "Incorrect API key"),
        ({"status": 429, "code": "insufficient_quota"}, "insufficient_quota", "exceeded your current quota"),
        ({"status": 503, "code": "slow_down"}, "slow_down", "had an error"),
        ({"status": 418, "body": {"error": {"code": "tea", "message": "short and stout"}}}, "tea", "short and stout"),
        ({"status": 502, "body": "<html>", "headers": {"Content-Type": "text/html"}}, None, "<html>"),
        ({"status": 502, "body": b"\x00"}, None, "\x00"),
    ],
)
def test_a_fault_looks_as_it_was_described(fake, client, fault, code, message):
    fake.fail_next(**fault)

    with pytest.raises(openai.APIStatusError) as caught:
        vectors(client, ["a"])

    assert (caught.value.status_code, caught.value.code) == (fault["status"], code)
    assert message in caught.value.response.text
    assert caught.value.request_id == "req_fake_000001"
    for name, value in fault.get("headers", {}).items():
        assert caught.value.response.headers[name] == value


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ({"status": "429"}, TypeError, "status must be an int, not str"),
        ({"status": True}, TypeError, "status must be an int, not bool"),
        ({"status": 200}, ValueError, "status must be that of an error, 400 to 599, not 200"),
        ({"status": 600}, ValueError, "status must be that of an error, 400 to 599, not 600"),
        ({"status": 500, "times": 0}, ValueError, "times must be at least 1, not 0"),
        ({"status": 500, "times": 1.0}, TypeError, "times must be an int, not float"),
        ({"status": 429, "retry_after": -1}, ValueError, "retry_after must be 0 s or more, not -1"),
        ({"status": 429, "retry_after": float("inf")}, ValueError, "retry_after must be 0 s or more, not inf"),
        ({"status": 429, "retry_after": "1"}, TypeError, "retry_after must be a number of seconds, not str"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_at_once(fake, client, fault, kind, message):
    with pytest.raises(kind, match=message):
        fake.fail_next(**fault)

    assert vectors(client, ["a"]).shape == (1, 8)


def test_a_changed_reply_is_billed_but_not_delivered(fake, client):
    fake.mutate = lambda request, reply: Reply(200, reply.headers, reply.body.replace(b'"index": 1', b'"index": 0'))

    reply = client.embeddings.create(model="tiny", input=["a", "b"])

    assert [item.index for item in reply.data] == [0, 0]
    assert (fake.billed, fake.delivered) == (2, 0)


# -- the ledger


def test_the_ledger_counts_texts_and_what_was_paid_again(fake, client):
    vectors(client, ["a", "b"])
    vectors(client, ["b", "c"])
    transcribe(client, silence(), language="en")
    with pytest.raises(openai.NotFoundError):
        vectors(client, ["a"], "nobody")

    assert (fake.asked, fake.billed, fake.delivered, fake.paid_again, fake.peak) == (4, 5, 5, 1, 1)
    first, _, speech, _ = fake.requests
    assert (first.method, first.path, first.endpoint, first.model) == ("POST", "/v1/embeddings", "embeddings", "tiny")
    assert (first.inputs, first.fields["encoding_format"]) == (("a", "b"), "base64")
    assert (speech.model, speech.fields["language"], len(speech.inputs)) == ("gpt-transcribe", ["en"], 1)


def test_the_ledger_takes_what_is_no_request_at_all(fake):
    with fake.serve() as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        for content_type, body in [("application/json", b"{"), ("application/json", b"[]"), ("multipart/x", b"")]:
            with socket.create_connection((host, int(port)), timeout=5) as wire:
                head = (
                    f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nConnection: close\r\n"
                )
                wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                assert wire.makefile("rb").readline().split()[1] == b"400"

    assert [(asked.inputs, asked.fields, asked.model) for asked in fake.requests] == [((), {}, None)] * 3


def test_peak_is_the_most_at_the_same_time(fake, client):
    meet = threading.Barrier(3)

    def wait(_request, reply):
        meet.wait(10)
        return reply

    fake.mutate = wait
    threads = [threading.Thread(target=vectors, args=(client, [str(number)])) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert fake.peak == 3


# -- ways in


def test_the_async_client_reaches_the_same_server(fake, client):
    async def twin():
        async with fake.async_client() as other:
            return await other.embeddings.create(model="tiny", input="a")

    assert anyio.run(twin).data[0].embedding == pytest.approx(vectors(client, "a")[0].tolist())
    assert fake.paid_again == 1


def test_a_socket_serves_many_requests_over_one_connection(fake):
    with fake.serve() as url, openai.OpenAI(base_url=url, api_key="sk-x") as client:
        assert vectors(client, ["a"]).shape == vectors(client, ["b"]).shape == (1, 8)
        assert transcribe(client, silence()).text
        assert client.models.retrieve("tiny").owned_by == "openai"


def test_no_connection_outlives_the_server(fake):
    with fake.serve() as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        held = HTTPConnection(host, int(port), timeout=5)
        held.request("GET", "/v1/models")
        assert held.getresponse().read().endswith(b"}\n")
    with held.sock as wire:
        assert wire.recv(1) == b""


def test_a_client_that_kept_its_connection_notices_that_the_server_is_gone(fake):
    with ExitStack() as stack:
        with fake.serve() as url:
            client = stack.enter_context(openai.OpenAI(base_url=url, api_key="sk-x", max_retries=0))
            vectors(client, ["a"])
        with pytest.raises(openai.APIConnectionError):
            vectors(client, ["a"])

    assert fake.asked == 1


def test_a_client_that_hangs_up_is_no_news(fake, capfd):
    reached, done = threading.Event(), threading.Event()

    def late(_request, reply):
        reached.set()
        done.wait(10)
        return Reply(reply.status, reply.headers, bytes(5_000_000))

    fake.mutate = late
    with fake.serve() as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as wire:
            wire.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reached.wait(10)
        done.set()

    assert capfd.readouterr() == ("", "")


# -- the fixture


def test_the_fixture_stands_in_for_the_real_server(fake_openai):
    fake_openai.fail_next(429, retry_after=0)

    with openai.OpenAI(max_retries=1) as client:
        assert len(client.embeddings.create(model="text-embedding-3-small", input="a").data) == 1

    assert fake_openai.asked == 2
    assert os.environ["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")


def test_the_plugin_imports_nothing_heavy():
    program = (
        "import sys, voxvec._pytest_plugin; print([m for m in ('openai', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603

    assert done.stdout.strip() == "[]"
