import asyncio
import contextlib
import io
import json
import logging
import pickle
import re
import threading
import wave
from decimal import Decimal
from pathlib import Path

import anyio
import httpx
import httpx2
import pytest

import voxvec
from voxvec import models, rows
from voxvec._threads import in_thread
from voxvec.caches import MemoryCache, SqliteCache
from voxvec.errors import (
    AudioError,
    AuthError,
    ConfigError,
    InputError,
    NetworkError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ResponseError,
    ServerError,
    ServiceTimeoutError,
    VoxvecError,
    VoxvecWarning,
)
from voxvec.local.exchange import Reply
from voxvec.policy import Retry
from voxvec.transcription import Transcriber

OPENAI = "https://api.openai.com/v1"


def wav(seconds=2.0, *, pitch=0, rate=1000):
    """A WAV with one level all along; another pitch makes it another recording."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(rate)
        out.writeframes(bytes([128 + pitch]) * round(seconds * rate))
    return file.getvalue()


@pytest.fixture
def server(httpx2_mock, clock):
    """The route of OpenAI's transcriptions, answering "hello"; retries wait in virtual time."""
    route = httpx2_mock.post(f"{OPENAI}/audio/transcriptions")
    route.side_effect = [hello()] * 9
    return route


def hello(**more):
    return httpx.Response(200, json={"text": "hello", **more})


def fault(status, code=None, **headers):
    return httpx.Response(
        status, json={"error": {"message": "no", "type": "x", "code": code}}, headers={"x-request-id": "r1", **headers}
    )


class Held:
    """Holds back the answers of a fake until told to let go."""

    def __init__(self, fake):
        self.arrived, self.go = threading.Event(), threading.Event()
        fake.mutate = self

    def __call__(self, request, reply):
        self.arrived.set()
        assert self.go.wait(20)
        return reply


# -- what is asked


@pytest.mark.parametrize(
    ("model", "wishes", "sent"),
    [
        ("gpt-transcribe", {}, {"response_format": ["json"]}),
        ("gpt-4o-transcribe", {}, {"response_format": ["json"]}),
        (
            "whisper-1",
            {},
            {"response_format": ["verbose_json"], "timestamp_granularities[]": ["segment", "word"]},
        ),
        ("gpt-4o-transcribe-diarize", {}, {"response_format": ["diarized_json"], "chunking_strategy": ["auto"]}),
        (
            "gpt-4o-transcribe-diarize",
            {"speakers": True},
            {"response_format": ["diarized_json"], "chunking_strategy": ["auto"]},
        ),
        ("gpt-transcribe", {"language": "Korean"}, {"response_format": ["json"], "languages[]": ["ko"]}),
        ("gpt-4o-transcribe", {"language": "ko-KR"}, {"response_format": ["json"], "language": ["ko"]}),
        ("gpt-transcribe", {"language": "auto"}, {"response_format": ["json"]}),
        (
            "gpt-transcribe",
            {"prompt": "About café.", "keywords": ["b", "a"]},
            {"response_format": ["json"], "prompt": ["About café."], "keywords[]": ["b", "a"]},
        ),
        ("gpt-4o-transcribe", {"temperature": 0}, {"response_format": ["json"], "temperature": ["0.0"]}),
        ("gpt-transcribe", {"prompt": " ", "keywords": ()}, {"response_format": ["json"]}),
    ],
)
def test_the_richest_json_is_asked_for_and_wishes_go_where_the_model_takes_them(twins, fake, model, wishes, sent):
    twins.transcriber(model, fake=fake).transcribe(wav(), **wishes)

    [asked] = fake.requests
    assert asked.fields == {"model": [model], **sent}
    assert (asked.method, asked.path) == ("POST", "/v1/audio/transcriptions")


def test_every_attempt_sends_the_same_bytes_all_of_them(twins, server):
    server.side_effect = [fault(500), httpx2.ReadError("cut"), fault(429), hello()]
    sound = wav(1.5)

    transcript = twins.transcriber().transcribe(sound, language="ko", keywords=["b", "a"])

    assert len(server.calls) == transcript.usage.requests == 4
    for call in server.calls:
        boundary = re.search("boundary=(.+)", call.request.headers["content-type"])[1].encode()
        fields = [(b"model", b"gpt-transcribe"), (b"response_format", b"json"), (b"languages[]", b"ko")]
        fields += [(b"keywords[]", b"b"), (b"keywords[]", b"a")]
        parts = [b'form-data; name="%s"\r\n\r\n%s' % field for field in fields]
        parts.append(b'form-data; name="file"; filename="audio.wav"\r\nContent-Type: audio/wav\r\n\r\n' + sound)
        body = b"".join(b"--%s\r\nContent-Disposition: %s\r\n" % (boundary, part) for part in parts)
        assert call.request.content == body + b"--%s--\r\n" % boundary
        assert int(call.request.headers["content-length"]) == len(call.request.content)
        assert call.request.headers["authorization"].startswith("Bearer ")


FRAME = b"\xff\xfb\x90\x00" + bytes(413)
FLAC = b"fLaC\x80\x00\x00\x22" + bytes(10) + (8000 << 44 | 7 << 36 | 16000).to_bytes(8) + bytes(16)


@pytest.mark.case("F65", "I13")
@pytest.mark.parametrize(
    ("sound", "head"),
    [
        (wav(), (b"audio.wav", b"audio/wav")),
        (FRAME * 20, (b"audio.mp3", b"audio/mpeg")),
        (FLAC, (b"audio.flac", b"audio/flac")),
    ],
    ids=["wav", "mp3", "flac"],
)
def test_the_upload_is_named_by_what_it_is_and_not_by_its_file(twins, server, tmp_path, sound, head):
    transcriber = twins.transcriber()
    for name in ['회의 "녹음".MP3', "UPPER.WAV", "none"]:
        (tmp_path / name).write_bytes(sound)
        transcriber.transcribe(tmp_path / name)

        [sent] = re.findall(rb'filename="(.*?)"\r\nContent-Type: (.*?)\r\n', server.calls.last.request.content)
        assert sent == head


class Recorder(io.BytesIO):
    """A file that notes what is done to it, and is written over while the request is under way."""

    name = "회의.wav"
    sought = False

    def seek(self, *to):
        self.sought = True
        return super().seek(*to)


def test_a_file_is_read_once_from_where_it_stands_and_kept(twins, server):
    sound = wav()
    file = Recorder(b"skip" + sound)
    file.read(4)

    def overwrite(request):
        file.getbuffer()[:] = bytes(len(sound) + 4)
        return fault(500) if server.call_count < 1 else hello()

    server.side_effect = overwrite

    assert twins.transcriber().transcribe(file).text == "hello"
    assert [call.request.content.count(sound) for call in server.calls] == [1, 1]
    assert not file.sought
    assert not file.closed
    assert file.read() == b""


def test_every_way_to_give_a_recording_is_the_same_recording(twins, fake, tmp_path):
    sound, path = wav(), tmp_path / "a.wav"
    path.write_bytes(sound)
    transcriber = twins.transcriber(fake=fake, cache=MemoryCache())

    with path.open("rb") as file:
        ways = [sound, bytearray(sound), memoryview(sound), io.BytesIO(sound), path, str(path), file]
        texts = {transcriber.transcribe(way).text for way in ways}

    assert len(texts) == fake.asked == 1


def test_a_users_own_headers_arrive(twins, fake):
    client = twins.openai_client(fake, default_headers={"X-Team": "ears"}, organization="org-1")

    twins.transcriber(client=client).transcribe(wav())

    assert fake.requests[0].headers["x-team"] == "ears"
    assert fake.requests[0].headers["openai-organization"] == "org-1"


def test_an_azure_deployment_is_asked_at_its_own_path_as_the_model_behind_it(twins, fake):
    models.register_deployment("my-ears", "whisper-1")
    client = twins.openai_client(
        fake, twins.azure_class, azure_endpoint="https://res.openai.azure.com", api_version="2024-10-21"
    )

    transcript = twins.transcriber("my-ears", client=client).transcribe(wav())

    [asked] = fake.requests
    assert asked.path == "/openai/deployments/my-ears/audio/transcriptions"
    assert asked.fields["response_format"] == ["verbose_json"]
    assert (transcript.model, transcript.segments[0].timing) == ("my-ears", "server")


# -- what is refused before anything is sent


@pytest.mark.parametrize(
    ("model", "wishes", "complaint"),
    [
        ("gpt-transcribe", {"language": "Klingon"}, ConfigError("Klingon")),
        ("gpt-transcribe", {"language": "Latin"}, ConfigError("does not take Latin")),
        ("gpt-transcribe", {"speakers": True}, ConfigError("does not tell speakers apart")),
        ("gpt-transcribe", {"keywords": "cat"}, InputError("must be a list")),
        ("gpt-transcribe", {"keywords": ["cat", "a<b"]}, InputError("keyword 1")),
        ("gpt-transcribe", {"prompt": "half \ud83d"}, InputError("lone surrogate")),
        ("gpt-4o-transcribe", {"keywords": ["cat"]}, ConfigError("takes no keywords")),
        ("gpt-4o-transcribe", {"temperature": 1.5}, ConfigError("from 0 to 1")),
        ("gpt-4o-transcribe", {"temperature": float("nan")}, ConfigError("from 0 to 1")),
        ("gpt-4o-transcribe-diarize", {"prompt": "hi"}, ConfigError("takes no prompt")),
        ("ice", {"temperature": 0.5}, ConfigError("takes no temperature")),
        ("ice", {"language": "ko"}, ConfigError("cannot be told the language")),
    ],
)
def test_what_the_model_would_ignore_or_reject_is_refused(twins, fake, model, wishes, complaint):
    models.register(models.TranscriptionModel(name="ice", temperature=False, language_parameter=None))
    transcriber = twins.transcriber(model, fake=fake)

    for method in (transcriber.transcribe, transcriber.plan):
        with pytest.raises(type(complaint), match=str(complaint)) as caught:
            method(wav(), **wishes)

        assert "nothing was sent" in str(caught.value)
        assert (caught.value.billed, fake.asked) == ("no", 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", r"empty \(0 bytes\)"),
        (lambda: wav(0), r"lasts 0\.000 s"),
        (lambda: wav(0.05), r"lasts 0\.050 s, gpt-4o-transcribe takes 0\.1 s or more"),
        (lambda: wav(1401, rate=10), r"lasts 1401\.0 s, gpt-4o-transcribe takes 1400 s"),
        (lambda: wav()[:-9], "cut off"),
        (lambda: wav()[:30], "damaged"),
        (lambda: b"FORM" + bytes(4) + b"AIFF" + bytes(90), "nothing was sent"),
        (lambda: b"\0\1\2\3 noise", "of an unknown kind"),
        (lambda: io.StringIO("text"), 'mode "rb"'),
        (io.BytesIO, r"empty \(0 bytes\)"),
        (lambda: 5, "not int"),
        (lambda: None, "not NoneType"),
        (lambda: "https://host/a.wav", "is a URL, which is not fetched"),
        (lambda: "missing.wav", "cannot be read"),
        (lambda: Path(__file__).parent, "is a directory"),
    ],
)
def test_a_recording_that_cannot_be_sent_is_refused(twins, fake, make, message):
    transcriber = twins.transcriber("gpt-4o-transcribe", fake=fake)

    for method in (transcriber.transcribe, transcriber.plan):
        with pytest.raises(AudioError, match=message) as caught:
            method(make())

        assert "nothing was sent" in str(caught.value)
        assert (caught.value.billed, fake.asked) == ("no", 0)


def test_a_web_page_saved_as_mp3_is_called_what_it_is(twins, fake, tmp_path):
    path = tmp_path / "talk.mp3"
    path.write_text("<!DOCTYPE html><title>Sign in</title>")

    with pytest.raises(AudioError, match=r"'talk\.mp3' is a web page"):
        twins.transcriber(fake=fake).transcribe(path)

    assert fake.asked == 0


@pytest.mark.case("F59")
def test_a_recording_over_the_models_size_is_refused_and_not_read_to_its_end(twins, fake, tmp_path):
    model = models.find("gpt-transcribe").replace(max_bytes=1000)
    path, file = tmp_path / "long.wav", io.BytesIO(wav(50))
    path.write_bytes(wav(50))

    for audio in (path, file, wav(50)):
        with pytest.raises(AudioError, match=r"1,000.*nothing was sent"):
            twins.transcriber(model, fake=fake).transcribe(audio)

    assert (file.tell(), fake.asked) == (1001, 0)


def test_a_container_the_model_does_not_take_is_refused(twins, fake):
    model = models.find("gpt-transcribe").replace(containers=("mp3",))

    with pytest.raises(AudioError, match=r"is wav, which gpt-transcribe does not take.*convert it to one of mp3"):
        twins.transcriber(model, fake=fake).transcribe(wav())

    assert fake.asked == 0


def test_a_code_that_only_the_model_knows_is_sent_as_it_is(twins, fake):
    models.register(models.find("gpt-transcribe").replace(name="trek", languages=("tlh-x",)))

    transcript = twins.transcriber("trek", fake=fake).transcribe(wav(), language="tlh-x")

    assert fake.requests[0].fields["languages[]"] == ["tlh-x"]
    assert transcript.language is None


# -- what comes back


def test_text_for_a_silent_recording_is_one_estimated_segment_and_doubted(twins, fake):
    fake.say("Good morning.", code="en")

    transcript = twins.transcriber(fake=fake).transcribe(wav(3))

    assert [(part.text, part.start, part.end, part.timing) for part in transcript.segments] == [
        ("Good morning.", 0.0, 3.0, "estimated")
    ]
    assert "is silent" in transcript.warnings[0]
    assert "gave no times" in transcript.warnings[1]
    assert (transcript.language, transcript.duration, transcript.words) == ("en", 3.0, ())
    with pytest.raises(ConfigError, match="allow_estimated"):
        transcript.to_srt()
    assert "00:00:03,000" in transcript.to_srt(allow_estimated=True)


def test_whispers_segments_and_words_are_measured(twins, fake):
    fake.say("one two three", segments=[("one two", 0.2, 1.0), ("three", 1.5, 2.0)], language="korean")

    transcript = twins.transcriber("whisper-1", fake=fake).transcribe(wav(3))

    assert [(part.text, part.start, part.end, part.timing) for part in transcript.segments] == [
        ("one two", 0.2, 1.0, "server"),
        ("three", 1.5, 2.0, "server"),
    ]
    assert [(word.text, word.timing) for word in transcript.words] == [
        (word, "server") for word in ("one", "two", "three")
    ]
    assert [len(part.words) for part in transcript.segments] == [2, 1]
    assert (transcript.language, transcript.duration, transcript.warnings) == ("ko", 3.0, ())
    assert transcript.to_srt().startswith("1\n00:00:00,200 --> ")


def test_speakers_are_told_apart(twins, fake):
    fake.say("hi you", segments=[("hi", 0.0, 1.0, "A"), ("you", 1.0, 2.0, "B")])

    transcript = twins.transcriber("gpt-4o-transcribe-diarize", fake=fake).transcribe(wav(40), speakers=True)

    assert [(part.speaker, part.text, part.timing) for part in transcript.segments] == [
        ("A", "hi", "server"),
        ("B", "you", "server"),
    ]


def test_a_server_that_answers_in_plain_text_is_understood(twins, server):
    server.side_effect = [httpx.Response(200, text="hello\nthere\n")]

    transcript = twins.transcriber().transcribe(wav())

    assert (transcript.text, transcript.segments[0].timing) == ("hello\nthere", "estimated")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"json": {"error": {"message": "model is loading"}}}, "model is loading"),
        ({"json": {"error": "busy"}}, "busy"),
        ({"html": "<!DOCTYPE html><p>Sign in"}, "a web page"),
        ({"content": b""}, "an empty body"),
        ({"content": b'{"text": "cut o', "headers": {"content-type": "application/json"}}, "cut off"),
        ({"json": {"task": "transcribe"}}, "without a text"),
        ({"json": ["hello"]}, "no object"),
        ({"content": b"RIFF\0\0", "headers": {"content-type": "audio/wav"}}, "neither JSON nor plain text"),
    ],
)
def test_an_answer_that_is_no_transcript_is_asked_for_once_more_and_never_kept(twins, server, answer, message):
    headers = {"x-request-id": "req_7", **answer.get("headers", {})}
    server.side_effect = lambda request: httpx.Response(200, **{**answer, "headers": headers})
    cache = MemoryCache()

    with pytest.raises(ResponseError, match=message) as caught:
        twins.transcriber(cache=cache).transcribe(wav())

    error = caught.value
    assert (server.call_count, cache.stats().rows) == (2, 0)
    assert (error.kind, error.billed, error.attempts, error.status, error.request_id) == (
        "malformed",
        "maybe",
        2,
        200,
        "req_7",
    )


def test_a_second_answer_that_is_right_makes_up_for_a_first_that_was_not(twins, server):
    server.side_effect = [httpx.Response(200, json={"error": "busy"}), hello()]

    transcript = twins.transcriber().transcribe(wav())

    assert (transcript.text, transcript.usage.requests) == ("hello", 2)


def test_what_a_user_must_know_about_a_model_stands_in_every_transcript(twins, fake):
    model = models.find("whisper-1").replace(remarks=("only for tests",))

    assert twins.transcriber(model, fake=fake).transcribe(wav()).warnings == ("only for tests",)


@pytest.mark.parametrize(
    ("model", "seconds", "cost"),
    [
        ("gpt-transcribe", 2.5, "0.000225"),  # 3 s charged at 0.0045 a minute
        ("whisper-1", 60.0, "0.006"),
        ("gpt-4o-transcribe", 60.0, "0.00523"),  # 600 audio tokens at 6.00, 163 of text at 10.00 per million
        ("gpt-4o-mini-transcribe", 60.0, None),
        ("unheard-of", 60.0, None),
    ],
)
def test_the_cost_is_exact_or_unknown(twins, fake, model, seconds, cost):
    fake.say("a " * 122)
    if model == "unheard-of":
        models.register(models.TranscriptionModel(name=model))
    elif cost is None:
        models.register(models.find(model).replace(audio_input_price=None, input_price=None), overwrite=True)

    transcript = twins.transcriber(model, fake=fake).transcribe(wav(seconds))

    assert transcript.cost == (None if cost is None else Decimal(cost))
    assert transcript.usage.requests == 1


# -- failures


def test_a_rejection_is_waited_out_and_the_same_recording_sent_again(twins, server, clock):
    server.side_effect = [fault(429, **{"retry-after": "7"}), hello()]

    transcript = twins.transcriber().transcribe(wav())

    assert (transcript.text, transcript.usage.requests) == ("hello", 2)
    assert 7 <= sum(clock.waits) < 8


def test_more_patience_than_allowed_is_not_taken(twins, server, clock):
    server.side_effect = [fault(429, **{"retry-after": "3600"})]

    with pytest.raises(RateLimitError) as caught:
        twins.transcriber().transcribe(wav())

    assert (caught.value.retry_after, caught.value.billed, clock.waits) == (3600, "no", [])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (fault(429, "insufficient_quota"), (QuotaError, "quota", "no")),
        (fault(401, "invalid_api_key"), (AuthError, "refused", "no")),
        (fault(400), (RefusedError, "refused", "no")),
        (fault(404), (RefusedError, "refused", "no")),
        (fault(413), (RefusedError, "refused", "no")),
        (fault(307, location="https://elsewhere.example/v1"), (RefusedError, "refused", "no")),
        (fault(500, **{"x-should-retry": "false"}), (ServerError, "transient", "maybe")),
        (httpx2.ReadTimeout("late"), (ServiceTimeoutError, "late", "maybe")),
        (httpx2.WriteTimeout("late"), (ServiceTimeoutError, "late", "maybe")),
    ],
)
def test_what_is_final_or_may_be_paid_twice_is_asked_once(twins, server, clock, answer, expected):
    server.side_effect = [answer, hello()]
    cache = MemoryCache()

    with pytest.raises(expected[0]) as caught:
        twins.transcriber(cache=cache).transcribe(wav())

    assert (server.call_count, clock.waits, cache.stats().rows) == (1, [], 0)
    assert (type(caught.value), caught.value.kind, caught.value.billed) == expected
    assert caught.value.attempts == 1


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([httpx2.ReadError("cut"), httpx2.RemoteProtocolError("gone")], (NetworkError, "maybe")),
        ([httpx2.ConnectError("no route")] * 4, (NetworkError, "no")),
        ([fault(500)] * 4, (ServerError, "maybe")),
        ([fault(503)] * 4, (ServerError, "no")),
        ([fault(500), httpx2.ReadError("cut"), httpx2.ReadError("cut")], (NetworkError, "maybe")),
    ],
)
def test_faults_are_tried_again_and_then_told(twins, server, faults, expected):
    server.side_effect = [*faults, hello()]

    with pytest.raises(expected[0]) as caught:
        twins.transcriber().transcribe(wav())

    assert (type(caught.value), caught.value.billed) == expected
    assert caught.value.attempts == server.call_count == len(faults)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    "faults", [[httpx2.ReadError("cut")], [httpx2.ConnectTimeout("slow")] * 3, [fault(500), fault(502), fault(503)]]
)
def test_faults_that_pass_go_unnoticed(twins, server, faults):
    server.side_effect = [*faults, hello()]

    assert twins.transcriber().transcribe(wav()).usage.requests == len(faults) + 1


def test_a_user_may_allow_a_second_request_after_a_time_out_or_forbid_all(twins, server):
    server.side_effect = [httpx2.ReadTimeout("late"), hello(), fault(500), hello()]

    assert twins.transcriber(retry=Retry(late=1)).transcribe(wav()).text == "hello"
    with pytest.raises(ServerError):
        twins.transcriber(retry=Retry(attempts=1)).transcribe(wav())


def test_a_deadline_forbids_waits_that_would_outlast_it(twins, server, clock):
    server.side_effect = [fault(429, **{"retry-after": "30"}), hello()]

    with pytest.raises(RateLimitError):
        twins.transcriber(deadline=10).transcribe(wav())

    assert (server.call_count, clock.waits) == (1, [])


def test_a_deadline_bounds_all_attempts_together(twins, server, clock):
    def slow(request):
        clock.seconds += 4
        return fault(500)

    server.side_effect = slow

    with pytest.raises(ServerError) as caught:
        twins.transcriber(deadline=7, retry=Retry(first=0)).transcribe(wav())

    assert caught.value.attempts == 2


@pytest.mark.parametrize(("settings", "longest"), [({}, 60.0), ({"timeout": 9.5}, 9.5), ({"deadline": 3.0}, 3.0)])
def test_the_time_for_a_request_is_the_users_or_follows_from_the_size(twins, server, settings, longest):
    twins.transcriber(**settings).transcribe(wav(0.5))

    read = server.calls[0].request.extensions["timeout"]["read"]
    assert read == pytest.approx(longest, abs=0.01)


def test_a_long_recording_gets_more_time(twins, server):
    twins.transcriber().transcribe(wav(10, rate=2**20))

    assert server.calls[0].request.extensions["timeout"]["read"] == pytest.approx(80, abs=0.1)


# -- the cache


def test_the_same_recording_with_the_same_wishes_is_bought_once(twins, fake, tmp_path):
    named = tmp_path / "회의.wav"
    named.write_bytes(wav())
    settings = {"fake": fake, "cache": tmp_path / "transcripts.db"}
    first = twins.transcriber(**settings).transcribe(wav(), language="ko", keywords=["a"])

    for language, audio in [("ko", wav()), ("Korean", named), ("ko-KR", io.BytesIO(wav()))]:
        again = twins.transcriber(**settings, timeout=7, workers=1).transcribe(
            audio, language=language, keywords=["a"], prompt=""
        )
        assert (again.text, again.segments, again.language) == (first.text, first.segments, first.language)
        assert (again.cached, again.cost, again.usage.requests) == (True, 0, 0)

    assert (first.cached, fake.asked) == (False, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"wishes": {"language": "en"}},
        {"wishes": {"prompt": "other"}},
        {"wishes": {"keywords": ["b", "a"]}},
        {"wishes": {"temperature": 0.5}},
        {"settings": {"model": "other"}},
        {"settings": {"namespace": "tenant"}},
        {"base_url": "http://other.voxvec/v1"},
        {"pitch": 1},
        {"method": "translate"},
    ],
    ids="-".join,
)
def test_any_other_wish_server_tenant_or_sound_is_bought_anew(twins, fake, changes):
    about = {"languages": None, "keywords": True, "temperature": True, "translates": True, "containers": None}
    for name in ("ears", "other"):
        models.register(models.find("gpt-transcribe").replace(name=name, **about))
    cache = MemoryCache()
    wishes = {"language": "ko", "prompt": "about", "keywords": ["a", "b"], "temperature": 0.0}

    def ask(settings=None, wishes=wishes, base_url="http://fake.voxvec/v1", pitch=0, method="transcribe"):
        client = twins.openai_client(fake, base_url=base_url)
        transcriber = twins.transcriber(**{"model": "ears", "client": client, "cache": cache, **(settings or {})})
        if method == "translate":
            wishes = {name: wishes[name] for name in ("prompt", "temperature")}
        return getattr(transcriber, method)(wav(pitch=pitch), **wishes)

    ask()
    if "wishes" in changes:
        changes = {"wishes": {**wishes, **changes["wishes"]}}
    other = ask(**changes)

    assert (other.cached, fake.asked, cache.stats().rows) == (False, 2, 2)
    assert ask().cached
    assert fake.asked == 2


def test_another_key_finds_what_the_first_one_bought(twins, fake):
    cache = MemoryCache()
    for key in ("sk-first-aaaaaaaa", "sk-second-bbbbbb"):
        client = twins.openai_client(fake, api_key=key, base_url="http://fake.voxvec/v1")
        twins.transcriber(client=client, cache=cache).transcribe(wav())

    assert fake.asked == 1


@pytest.mark.parametrize("cut_off", [True, False], ids=["cut-off", "empty"])
def test_an_answer_that_fell_short_is_paid_for_once_and_its_warnings_stay(twins, server, cut_off):
    usage = {"type": "tokens", "input_tokens": 10, "output_tokens": 2000, "input_token_details": {}}
    server.side_effect = lambda request: hello(usage=usage) if cut_off else httpx.Response(200, json={"text": ""})
    cache = MemoryCache()
    transcriber = twins.transcriber("gpt-4o-transcribe", cache=cache)

    transcript = transcriber.transcribe(wav())

    assert transcript.complete != cut_off
    assert ("cut off" if cut_off else "no speech") in transcript.warnings[-1]
    again = transcriber.transcribe(wav())
    assert (again.text, again.warnings, again.complete) == (transcript.text, transcript.warnings, transcript.complete)
    assert (again.cached, again.cost, server.call_count, cache.stats().rows) == (True, 0, 1, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key, row: row[:-1] + bytes([row[-1] ^ 1]),
        lambda key, row: b"",
        lambda key, row: pickle.dumps(Transcriber),
        lambda key, row: rows.pack(key, b"[1]", kind=rows.Kind.DOCUMENT, width=3, tokens=None, model=""),
        lambda key, row: rows.pack(key, bytes(8), kind=rows.Kind.VECTOR, width=2, tokens=None, model=""),
        lambda key, row: rows.pack(bytes(32), b"{}", kind=rows.Kind.DOCUMENT, width=2, tokens=None, model=""),
    ],
    ids=["flipped", "empty", "pickle", "list", "vector", "stranger"],
)
@pytest.mark.parametrize("method", ["transcribe", "plan"])
def test_a_damaged_or_planted_row_is_thrown_out_and_bought_again(twins, fake, spoil, method):
    cache = MemoryCache()
    transcriber = twins.transcriber(fake=fake, cache=cache)
    text = transcriber.transcribe(wav()).text
    [(key, row)] = cache._rows.items()
    cache._rows[key] = spoil(key, row)

    if method == "plan":
        assert transcriber.plan(wav()).requests == 1
        assert (cache.stats().rows, cache.stats().damaged) == (0, 1)
    again = transcriber.transcribe(wav())

    assert (again.text, again.cached, fake.asked) == (text, False, 2)
    assert cache.stats().damaged == 1
    assert transcriber.transcribe(wav()).cached


# -- callers at the same time


def test_callers_at_the_same_time_share_one_request(twins, fake, waiting):
    held, transcriber = Held(fake), twins.transcriber(fake=fake)
    futures = [in_thread(transcriber.transcribe, wav()) for _ in range(2)]
    assert held.arrived.wait(20)
    assert waiting.wait(20)
    held.go.set()
    found = [future.result(20) for future in futures]

    assert (fake.asked, found[0].text) == (1, found[1].text)
    assert sorted(transcript.cached for transcript in found) == [False, True]
    assert sorted(transcript.cost for transcript in found) == [0, Decimal("0.00015")]


def test_different_recordings_at_the_same_time_are_asked_for_side_by_side(twins, fake):
    together = threading.Barrier(2)
    fake.mutate = lambda request, reply: (together.wait(20), reply)[1]
    transcriber = twins.transcriber(fake=fake)
    futures = [in_thread(transcriber.transcribe, wav(pitch=pitch)) for pitch in (0, 1)]

    assert [future.result(20).cached for future in futures] == [False, False]


def test_no_more_requests_are_on_their_way_than_workers(twins, fake):
    transcriber = twins.transcriber(fake=fake, workers=1)
    futures = [in_thread(transcriber.transcribe, wav(pitch=pitch)) for pitch in range(4)]

    assert [future.result(20).cached for future in futures] == [False] * 4
    assert (fake.asked, fake.peak) == (4, 1)


def test_when_the_one_who_asks_fails_the_other_asks_for_itself(twins, fake, waiting):
    held, transcriber = Held(fake), twins.transcriber(fake=fake)

    def refuse_first(request, reply):
        if fake.asked > 1:
            return reply
        held(request, reply)
        return Reply(400, {"content-type": "application/json"}, b'{"error": {"message": "no"}}')

    fake.mutate = refuse_first
    futures = [in_thread(transcriber.transcribe, wav()) for _ in range(2)]
    assert held.arrived.wait(20)
    assert waiting.wait(20)
    held.go.set()
    outcomes = [future.exception(20) or future.result() for future in futures]

    assert fake.asked == 2
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RefusedError", "Transcript"]


class Interrupted(BaseException):
    """Ctrl-C, or a task that is cancelled, seen from inside."""


@pytest.mark.parametrize("twin", ["sync"], indirect=True)
def test_when_the_one_who_asks_is_interrupted_the_other_asks_for_itself(twins, fake, waiting):
    held, transcriber = Held(fake), twins.transcriber(fake=fake)

    def interrupt_first(request, reply):
        if fake.asked > 1:
            return reply
        held(request, reply)
        raise Interrupted

    fake.mutate = interrupt_first
    futures = [in_thread(transcriber.transcribe, wav()) for _ in range(2)]
    assert held.arrived.wait(20)
    assert waiting.wait(20)
    held.go.set()
    outcomes = [future.exception(20) or future.result() for future in futures]

    assert fake.asked == 2
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Interrupted", "Transcript"]


class Silent(httpx2.AsyncBaseTransport):
    """Never answers the first request."""

    def __init__(self, fake):
        self.arrived, self._rest = threading.Event(), fake.async_transport()

    async def handle_async_request(self, request):
        if not self.arrived.is_set():
            self.arrived.set()
            await anyio.sleep_forever()
        return await self._rest.handle_async_request(request)


@pytest.mark.parametrize("twin", ["async"], indirect=True)
def test_when_the_task_that_asks_is_cancelled_the_other_asks_for_itself(twins, fake, waiting):
    silent = Silent(fake)
    client = twins.openai_client(http_client=httpx2.AsyncClient(transport=silent))
    transcriber = twins.transcriber(client=client)
    owner = twins.portal.start_task_soon(twins.bare(transcriber).transcribe, wav())
    assert silent.arrived.wait(20)
    waiter = in_thread(transcriber.transcribe, wav())
    assert waiting.wait(20)
    owner.cancel()

    assert waiter.result(20).cached is False
    assert owner.cancelled()
    assert fake.asked == 1


@pytest.mark.parametrize("twin", ["async"], indirect=True)
def test_an_answer_that_comes_although_its_task_was_cancelled_is_stored(twins, fake, until):
    held, cache = Held(fake), MemoryCache()
    transcriber = twins.transcriber(fake=fake, cache=cache)
    # What answers is a thread, which cannot be cancelled.
    owner = twins.portal.start_task_soon(twins.bare(transcriber).transcribe, wav())
    assert held.arrived.wait(20)
    owner.cancel()
    held.go.set()
    until(lambda: cache.stats().rows)

    assert transcriber.transcribe(wav()).cached
    assert fake.asked == 1


async def cancelled_natively(when, work):
    task = asyncio.ensure_future(work)
    await asyncio.to_thread(when.wait, 20)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("natively", [True, False])
@pytest.mark.parametrize("twin", ["async"], indirect=True)
def test_a_task_that_is_cancelled_while_it_stores_still_stores_what_it_paid_for(twins, fake, until, natively):
    storing, go = threading.Event(), threading.Event()

    class SlowCache(MemoryCache):
        def set_many(self, rows):
            storing.set()
            assert go.wait(20)
            super().set_many(rows)

    cache = SlowCache()
    transcriber = twins.transcriber(fake=fake, cache=cache)
    work = twins.bare(transcriber).transcribe
    if natively:
        twins.portal.call(lambda: cancelled_natively(storing, work(wav())))
    else:
        owner = twins.portal.start_task_soon(work, wav())
        assert storing.wait(20)
        owner.cancel()
    go.set()
    until(lambda: cache.stats().rows)

    assert transcriber.transcribe(wav()).cached
    assert fake.asked == 1


def test_a_deadline_holds_for_those_who_wait_for_another_too(twins, fake, clock):
    held, transcriber = Held(fake), twins.transcriber(fake=fake, deadline=5)
    owner = in_thread(transcriber.transcribe, wav())
    assert held.arrived.wait(20)

    with pytest.raises(ServiceTimeoutError, match="deadline") as caught:
        transcriber.transcribe(wav())

    held.go.set()
    assert caught.value.billed == "no"
    assert owner.result(20).text
    assert fake.asked == 1


# -- translate, identify, plan


def test_a_translation_is_english_and_is_asked_for_at_its_own_path(twins, fake):
    fake.say("좋은 아침", translation="Good morning", language="korean", code="ko")

    transcript = twins.transcriber("whisper-1", fake=fake).translate(wav(), prompt="Radio.", temperature=0.5)

    [asked] = fake.requests
    assert asked.path == "/v1/audio/translations"
    assert asked.fields == {
        "model": ["whisper-1"],
        "response_format": ["verbose_json"],
        "prompt": ["Radio."],
        "temperature": ["0.5"],
    }
    assert (transcript.text, transcript.language, transcript.segments[0].timing) == ("Good morning", "en", "server")


def test_a_translation_is_english_even_if_the_server_does_not_say_so(twins, httpx2_mock):
    httpx2_mock.post(f"{OPENAI}/audio/translations").mock(hello())

    assert twins.transcriber("whisper-1").translate(wav()).language == "en"


@pytest.mark.parametrize(("named", "language"), [("Korean", "ko"), ("zh-Hant-TW", "zh"), ("auto", None), (None, None)])
def test_where_the_server_names_no_language_the_callers_holds(twins, server, named, language):
    assert twins.transcriber().transcribe(wav(), language=named).language == language


@pytest.mark.parametrize("model", ["gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-transcribe-diarize"])
def test_a_model_that_does_not_translate_is_never_asked_to(twins, fake, model):
    with pytest.raises(ConfigError, match=r"does not translate speech, nothing was sent") as caught:
        twins.transcriber(model, fake=fake).translate(wav())

    assert (caught.value.billed, fake.asked) == ("no", 0)


@pytest.mark.parametrize("model", ["gpt-transcribe", "whisper-1"])
def test_the_language_is_identified_and_the_transcript_kept(twins, fake, model):
    fake.say("좋은 아침", language="korean", code="ko")
    transcriber = twins.transcriber(model, fake=fake, cache=MemoryCache())

    assert transcriber.identify_language(wav()) == "ko"
    assert transcriber.transcribe(wav()).cached
    assert fake.asked == 1


def test_a_model_that_cannot_tell_gives_none_and_one_known_to_be_unable_is_not_asked(twins, fake, server):
    assert twins.transcriber().identify_language(wav()) is None
    with pytest.raises(ConfigError, match=r"does not say which language it heard; nothing was sent"):
        twins.transcriber("gpt-4o-transcribe", fake=fake).identify_language(wav())

    assert (server.call_count, fake.asked) == (1, 0)


def test_a_plan_asks_nobody_and_tells_what_would_be_sent(twins, fake):
    sound = wav(120)
    transcriber = twins.transcriber(fake=fake, cache=MemoryCache())

    plan = transcriber.plan(sound, language="ko", keywords=["a"])

    assert (plan.model, plan.container, plan.bytes, plan.seconds) == ("gpt-transcribe", "wav", len(sound), 120.0)
    assert (plan.requests, plan.cached, plan.cost) == (1, False, Decimal("0.009"))
    assert plan.fields == (
        ("model", "gpt-transcribe"),
        ("response_format", "json"),
        ("languages[]", "ko"),
        ("keywords[]", "a"),
    )
    assert fake.asked == 0


def test_a_plan_knows_what_is_bought_already(twins, fake):
    transcriber = twins.transcriber("gpt-4o-transcribe", fake=fake, cache=MemoryCache())
    before = transcriber.plan(wav())
    transcriber.transcribe(wav())
    after = transcriber.plan(wav())

    assert (before.requests, before.cached, before.cost) == (1, False, None)
    assert (after.requests, after.cached, after.cost) == (0, True, 0)
    assert fake.asked == 1


def test_planning_needs_no_key(twins):
    assert twins.transcriber(base_url="https://api.example/v1").plan(wav()).requests == 1


# -- the client itself


def test_without_key_and_client_the_error_names_both_ways_out(twins):
    with pytest.raises(
        ConfigError, match=r"OPENAI_API_KEY or pass api_key=.*client=voxvec\.local\.client\(\)"
    ) as caught:
        twins.transcriber(base_url="https://api.example/v1").transcribe(wav())

    assert caught.value.billed == "no"


@pytest.mark.parametrize(
    "settings",
    [{"timeout": 0}, {"timeout": -1}, {"deadline": 0}, {"workers": 0}, {"base_url": "ftp://host"}, {"cache": 5}],
)
def test_settings_that_cannot_work_are_refused_when_the_client_is_made(twins, key, settings):
    with pytest.raises(ConfigError):
        twins.transcriber(api_key=key, **settings)


def test_an_embedding_model_is_no_ear(twins, key):
    with pytest.raises(ConfigError, match="an embedding model"):
        twins.transcriber("text-embedding-3-small", api_key=key)


def test_a_client_of_the_other_kind_is_refused(twins, key):
    with pytest.raises(ConfigError, match=r"client must be an openai\.(Async)?OpenAI"):
        twins.transcriber(client=twins.wrong_openai_class(api_key=key))


def test_a_client_and_a_key_contradict_each_other(twins, fake, key):
    with pytest.raises(ConfigError, match="not both"):
        twins.transcriber(client=twins.openai_client(fake), api_key=key)


def test_a_closed_client_sends_nothing_and_leaves_the_users_own_open(twins, fake):
    client = twins.openai_client(fake)
    transcriber = twins.transcriber(client=client)
    transcriber.transcribe(wav())

    transcriber.close()
    transcriber.close()

    with pytest.raises(ConfigError, match=r"closed.*Nothing was sent"):
        transcriber.transcribe(wav())
    assert not client.is_closed()
    assert twins.transcriber(client=client).transcribe(wav()).text
    assert fake.asked == 2


async def within(transcriber, audio):
    async with transcriber as entered:
        return await entered.transcribe(audio)


def test_a_client_is_closed_by_leaving_its_with_block(twins, fake):
    transcriber = twins.transcriber(fake=fake)

    if twins.portal is None:
        with transcriber as entered:
            assert entered.transcribe(wav()).text
    else:
        assert twins.portal.call(within, twins.bare(transcriber), wav()).text

    with pytest.raises(ConfigError, match="closed"):
        transcriber.transcribe(wav())


def test_a_model_that_goes_away_is_announced_once_and_in_the_users_own_line(twins, key, monkeypatch):
    monkeypatch.setattr(models, "_registry", models._Registry())

    with pytest.warns(VoxvecWarning, match=r"whisper-1 is shut down on 2027-02-26; use gpt-transcribe instead") as told:
        twins.transcriber("whisper-1", api_key=key)
    twins.transcriber("whisper-1", api_key=key)

    assert [Path(warning.filename).name for warning in told] == ["conftest.py"]


def test_an_unknown_model_is_warned_about_and_used_as_it_comes(twins, fake):
    with pytest.warns(VoxvecWarning, match="not known to voxvec"):
        transcriber = twins.transcriber("ears-of-tomorrow", fake=fake)

    with pytest.raises(RefusedError, match="ears-of-tomorrow"):
        transcriber.transcribe(wav(), speakers=True, keywords=["a"], temperature=0.5)

    assert fake.requests[0].fields["response_format"] == ["diarized_json"]


def test_a_transcriber_shows_its_model_and_cannot_be_pickled(twins, key):
    transcriber = twins.bare(twins.transcriber("whisper-1", api_key=key))

    assert repr(transcriber) == f"{type(transcriber).__name__}('whisper-1')"
    with pytest.raises(TypeError, match="cannot be pickled; make one in each process"):
        pickle.dumps(transcriber)


def test_results_and_plans_and_errors_are_pickled_whole(twins, server):
    server.side_effect = [hello(), fault(413)]
    transcriber = twins.transcriber()
    plan, transcript = transcriber.plan(wav()), transcriber.transcribe(wav())
    with pytest.raises(RefusedError) as caught:
        transcriber.transcribe(wav(3))
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 -- our own bytes

    assert pickle.loads(pickle.dumps((plan, transcript))) == (plan, transcript)  # noqa: S301 -- our own bytes
    assert (str(again), vars(again)) == (str(caught.value), vars(caught.value))


def test_the_key_is_nowhere(twins, server, tmp_path, caplog, key):
    caplog.set_level(logging.DEBUG)
    echo = {"error": {"message": f"bad key {key}, Bearer {key}", "code": key}}
    server.side_effect = [hello(), httpx.Response(401, json=echo), httpx2.ReadError(key), httpx2.ReadError(key)]
    cache = tmp_path / "transcripts.db"
    transcriber = twins.transcriber(client=twins.openai_client(), cache=cache)
    traces = [repr(transcriber), repr(transcriber.transcribe(wav())), repr(transcriber.plan(wav()))]

    for pitch in (1, 2):
        with pytest.raises(VoxvecError) as caught:
            transcriber.transcribe(wav(pitch=pitch))
        error = caught.value
        traces += [str(error), repr(error), repr(vars(error)), pickle.dumps(error).decode("latin-1"), repr(error.args)]
        assert error.__cause__ is error.__context__ is None
    traces += [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()]

    assert server.call_count == 4
    assert key in repr(server.calls[0].request.headers.raw)
    assert not [trace for trace in [*traces, caplog.text] if key in trace]


# -- over a real socket


def test_a_client_of_its_own_finds_its_way_over_a_socket(twins, fake, monkeypatch, key):
    fake.say("good morning", language="korean", code="ko")
    fake.fail_next(500)
    with fake.serve() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", key)
        transcriber = twins.transcriber("whisper-1", retry=Retry(first=0.0), base_url=None)
        transcript = transcriber.transcribe(wav(), language="ko")
        transcriber.close()

    assert (transcript.text, transcript.language, transcript.usage.requests) == ("good morning", "ko", 2)
    assert fake.requests[1].headers["authorization"] == f"Bearer {key}"


def test_a_server_that_stays_silent_costs_one_request_and_no_more_than_the_time_allowed(twins, fake, key):
    held = Held(fake)
    with fake.serve() as url:
        transcriber = twins.transcriber(api_key=key, base_url=url, timeout=0.5)
        with pytest.raises(ServiceTimeoutError) as caught:
            transcriber.transcribe(wav())
        held.go.set()
        transcriber.close()

    assert (caught.value.billed, caught.value.attempts, fake.asked) == ("maybe", 1, 1)


def test_the_same_file_keeps_vectors_and_transcripts(fake, tmp_path):
    with (
        SqliteCache(tmp_path / "both.db") as cache,
        voxvec.Embedder("text-embedding-3-small", client=fake.client(), cache=cache) as embedder,
        Transcriber(client=fake.client(), cache=cache) as transcriber,
    ):
        embedder.embed(["hello"])
        transcriber.transcribe(wav())

        assert embedder.embed(["hello"]).cached == 1
        assert transcriber.transcribe(wav()).cached
    assert fake.asked == 2


def test_a_transcript_is_saved_as_json_that_can_be_read_again(twins, fake, tmp_path):
    transcript = twins.transcriber("whisper-1", fake=fake).transcribe(wav())
    transcript.save(tmp_path / "a.json")

    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["model"] == "whisper-1"
    assert type(transcript).from_json((tmp_path / "a.json").read_bytes()) == transcript
