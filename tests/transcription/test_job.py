import hashlib
import json
from decimal import Decimal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from voxvec import models, rows
from voxvec.errors import AudioError, ConfigError, InputError, ResponseError
from voxvec.models import TranscriptionModel
from voxvec.transcription import request
from voxvec.transcription.audio import Audio
from voxvec.transcription.job import Settings, TranscriptionJob

ANYTHING = TranscriptionModel(name="anything", family="anything")


def recording(sound=b"sound", *, container="wav", seconds=6.0, name=None):
    return Audio(sound, name, container, seconds, hashlib.sha256(sound).hexdigest())


def settings(model="gpt-transcribe", **changes):
    model = models.find(model, kind="transcription") if isinstance(model, str) else model
    return Settings(**{"model": model, "task": "transcriptions", "fields": request.fields(model), **changes})


def job(model="gpt-transcribe", audio=None, **changes):
    return TranscriptionJob(audio or recording(), settings(model, **changes))


def answered(model="gpt-transcribe", body=None, *, audio=None, requests=1, content_type="application/json", **changes):
    """A job with its answer, and the row that it makes of it."""
    asked = job(model, audio, **changes)
    raw = json.dumps({"text": "hello there"} if body is None else body).encode()
    row = asked.receive(asked.read(raw, content_type), raw, content_type, requests)
    return asked, row


def document(asked, payload, *, kind=rows.Kind.DOCUMENT, width=None):
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    width = len(raw) if width is None else width
    return rows.pack(asked.name, raw, kind=kind, width=width, tokens=None, model="gpt-transcribe")


# -- the key

short = st.text("ab", max_size=3)
whole = st.fixed_dictionaries(
    {
        "sound": st.binary(max_size=2),
        "container": st.sampled_from(["wav", "mp3"]),
        "fields": st.lists(st.tuples(short, short), max_size=3).map(tuple),
        "origin": short,
        "namespace": short,
        "task": st.sampled_from(["transcriptions", "translations"]),
    }
)


def key(about):
    audio = recording(about["sound"], container=about["container"])
    rest = {name: about[name] for name in ("fields", "origin", "namespace", "task")}
    return TranscriptionJob(audio, Settings(model=ANYTHING, **rest)).name


@given(whole, whole)
def test_keys_are_equal_just_when_sound_server_and_every_parameter_are(one, other):
    assert (one == other) == (key(one) == key(other))


@given(whole, st.data())
def test_a_change_of_any_single_part_changes_the_key(about, data):
    part = data.draw(st.sampled_from(sorted(about)))
    changed = {**about, part: data.draw(whole)[part]}
    assume(changed != about)

    assert key(about) != key(changed)


@given(st.lists(short, min_size=2, max_size=6).filter(lambda parts: len(parts) % 2 == 0), st.integers(0, 12))
@example(["a", "b"], 1)
def test_moving_a_border_between_two_fields_changes_the_key(parts, at):
    joined = "".join(parts)
    at = min(at, len(joined))
    moved = [joined[:at], joined[at:], *[""] * (len(parts) - 2)]
    assume(moved != parts)

    def with_fields(flat):
        return key({**DEFAULT, "fields": tuple(zip(flat[::2], flat[1::2], strict=True))})

    assert with_fields(parts) != with_fields(moved)


DEFAULT = {"sound": b"", "container": "wav", "origin": "", "namespace": "", "task": "transcriptions"}


def test_keys_never_change_because_caches_outlive_versions():
    fields = (("model", "gpt-transcribe"), ("response_format", "json"))
    asked = job(fields=fields, origin="https://api.openai.com/v1", namespace="tenant")

    assert asked.name.hex() == "eb4a3713662b73275ee44472f165e4dae49f35cdb626a0815507112c51b70636"


def test_neither_the_name_of_the_file_nor_its_length_nor_the_callers_spelling_is_part_of_the_key():
    one = TranscriptionJob(recording(name="a.wav", seconds=3.0), settings(language="ko"))
    other = TranscriptionJob(recording(name="b.wav", seconds=None), settings(language=None))

    assert one.name == other.name


@pytest.mark.parametrize("changes", [{"fields": (("prompt", "\ud83d"),)}, {"namespace": "x\udc00"}])
def test_half_a_character_is_refused_before_anything_is_sent(changes):
    with pytest.raises(InputError, match=r"lone surrogate.*nothing was sent") as caught:
        job(**changes)

    assert caught.value.billed == "no"


# -- what is sent


def test_names_with_brackets_are_collected_into_lists_and_the_order_is_kept():
    fields = (("model", "m"), ("keywords[]", "b"), ("prompt", "p"), ("keywords[]", "a"), ("languages[]", "ko"))

    body = job(fields=fields).body()

    assert body == {"model": "m", "keywords": ["b", "a"], "prompt": "p", "languages": ["ko"]}
    assert list(body) == ["model", "keywords", "prompt", "languages"]


@pytest.mark.parametrize("task", ["transcriptions", "translations"])
def test_the_task_decides_on_the_path(task):
    assert job("whisper-1", task=task).path == f"/audio/{task}"


def test_the_upload_has_a_plain_name_and_the_sound_as_it_is():
    asked = job(audio=recording(b"\0\xff", container="mp3", name="녹음.wav"))

    assert asked.file() == ("audio.mp3", b"\0\xff", "audio/mpeg")


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (recording(container="aiff", name="a.aif"), r"a\.aif is aiff, which gpt-4o-transcribe does not take"),
        (recording(bytes(25_165_825)), r"25,165,825 bytes, gpt-4o-transcribe takes 25,165,824"),
        (recording(seconds=1400.1), r"lasts 1400\.1 s, gpt-4o-transcribe takes 1400 s"),
        (recording(seconds=0.099), r"lasts 0\.099 s"),
    ],
)
def test_a_recording_that_the_model_does_not_take_makes_no_job(audio, message):
    with pytest.raises(AudioError, match=message) as caught:
        TranscriptionJob(audio, settings("gpt-4o-transcribe"))

    assert "nothing was sent" in str(caught.value)
    assert caught.value.billed == "no"


# -- plan


def test_a_plan_tells_what_is_still_to_do():
    asked = job(audio=recording(bytes(1000), container="mp3", seconds=120.0))

    plan = asked.plan()

    assert (plan.model, plan.container, plan.bytes, plan.seconds) == ("gpt-transcribe", "mp3", 1000, 120.0)
    assert (plan.requests, plan.cached, plan.cost) == (1, False, Decimal("0.009"))
    assert plan.fields == (("model", "gpt-transcribe"), ("response_format", "json"))


@pytest.mark.parametrize(("model", "seconds"), [("gpt-4o-transcribe", 60.0), ("gpt-transcribe", None), (ANYTHING, 9.0)])
def test_a_plan_names_no_cost_that_it_cannot_know(model, seconds):
    assert job(model, recording(seconds=seconds)).plan().cost is None


def test_a_plan_for_an_answer_that_is_known_costs_nothing():
    _, row = answered()
    again = job()
    again.fill(row)

    assert (again.plan().requests, again.plan().cached, again.plan().cost) == (0, True, 0)


# -- answers


def test_there_is_no_result_before_there_is_an_answer():
    with pytest.raises(ConfigError, match="no answer yet"):
        job().result()


@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", b'{"text": "cut', b'{"error": {"message": "no"}}', b"[]"])
def test_what_is_no_transcript_is_an_error_and_leaves_the_job_open(body):
    asked = job()

    with pytest.raises(ResponseError) as caught:
        asked.read(body, "application/json")

    assert caught.value.billed == "maybe"
    assert not asked.answered()


def test_text_without_times_is_one_estimated_segment_over_the_whole_recording():
    transcript = answered(requests=3)[0].result()

    [segment] = transcript.segments
    assert (segment.text, segment.start, segment.end, segment.timing) == ("hello there", 0.0, 6.0, "estimated")
    assert transcript.warnings == ("gpt-transcribe gave no times: the one segment spans the whole recording",)
    assert (transcript.duration, transcript.usage.requests, transcript.cached) == (6.0, 3, False)
    with pytest.raises(ConfigError, match="allow_estimated=True"):
        transcript.to_srt()
    assert "00:00:00,000 --> 00:00:06,000" in transcript.to_srt(allow_estimated=True)


def test_without_any_length_the_estimate_goes_by_the_text():
    [segment] = answered(body={"text": "x" * 30}, audio=recording(seconds=None))[0].result().segments

    assert segment.end == pytest.approx(2.0)


def test_the_servers_own_length_goes_before_that_of_the_header():
    assert answered(body={"text": "a", "duration": 5.5})[0].result().duration == 5.5


def test_silence_is_an_empty_transcript_with_a_warning():
    transcript = answered(body={"text": "  "})[0].result()

    assert (transcript.text, transcript.segments, transcript.complete) == ("", (), True)
    assert transcript.warnings == ("no speech was recognised",)


def test_times_of_the_server_are_taken_as_measured_and_bring_no_warning():
    body = {
        "text": "hello there",
        "language": "english",
        "duration": 6.0,
        "segments": [{"id": 0, "start": 0.5, "end": 2.0, "text": " hello there"}],
        "words": [{"word": "hello", "start": 0.5, "end": 1.0}, {"word": "there", "start": 1.0, "end": 2.0}],
    }

    transcript = answered("whisper-1", body)[0].result()

    assert [(part.start, part.end, part.timing) for part in transcript.segments] == [(0.5, 2.0, "server")]
    assert [(word.text, word.timing) for word in transcript.words] == [("hello", "server"), ("there", "server")]
    assert (transcript.language, transcript.warnings) == ("en", ())


@pytest.mark.parametrize(
    ("body", "named", "language"),
    [
        ({"text": "a", "languages": [{"code": "ja"}]}, "ko", "ja"),
        ({"text": "a", "languages": []}, "ko", "ko"),
        ({"text": "a"}, None, None),
    ],
)
def test_the_language_is_the_one_heard_or_else_the_one_named(body, named, language):
    assert answered(body=body, language=named)[0].result().language == language


def tokens(output):
    usage = {"type": "tokens", "input_tokens": 110, "output_tokens": output, "total_tokens": 110 + output}
    return {"text": "hello", "usage": {**usage, "input_token_details": {"audio_tokens": 100, "text_tokens": 10}}}


@pytest.mark.parametrize(("output", "complete"), [(1949, True), (1950, False), (2000, False)])
def test_a_text_as_long_as_answers_can_be_is_called_cut_off(output, complete):
    transcript = answered("gpt-4o-transcribe", tokens(output))[0].result()

    assert transcript.complete == complete
    assert any("cut off" in warning for warning in transcript.warnings) != complete


def test_a_model_without_a_known_cap_is_never_called_cut_off():
    assert answered(ANYTHING, tokens(10**6))[0].result().complete


def test_remarks_about_the_model_and_the_parsers_come_before_our_own():
    model = ANYTHING.replace(remarks=("offline, English only",))

    assert answered(model, {"text": "a\ufffd"})[0].result().warnings == (
        "offline, English only",
        "some characters of the text arrived damaged and stand as \ufffd",
        "anything gave no times: the one segment spans the whole recording",
    )


@pytest.mark.parametrize(
    ("model", "body", "cost"),
    [
        ("gpt-transcribe", {"text": "a"}, "0.00045"),
        ("gpt-transcribe", {"text": "a", "usage": {"type": "duration", "seconds": 7}}, "0.000525"),
        ("gpt-4o-transcribe", tokens(20), "0.000825"),  # 100 × 6.00 + 10 × 2.50 + 20 × 10.00 per million
        ("gpt-4o-transcribe", {"text": "a"}, None),
        (ANYTHING, tokens(20), None),
    ],
)
def test_the_cost_is_exact_or_unknown(model, body, cost):
    found = answered(model, body)[0].result().cost

    assert found == (None if cost is None else Decimal(cost))
    assert found is None or isinstance(found, Decimal)


# -- caches


@given(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.sampled_from(["application/json", "application/json; charset=utf-8", None]),
)
@example("\ufeff", None)
def test_a_row_gives_back_the_same_transcript_for_nothing(text, content_type):
    body = {"text": text, "segments": [{"start": 0, "end": 1, "text": text}], "usage": {"seconds": 6}}
    bought, row = answered(body=body, content_type=content_type)
    again = job()

    assert again.fill(row) == []
    first, second = bought.result(), again.result()
    assert (second.text, second.segments, second.words) == (first.text, first.segments, first.words)
    assert (second.language, second.duration, second.complete) == (first.language, first.duration, first.complete)
    assert (second.cached, second.cost, second.usage.requests, second.usage.seconds) == (True, 0, 0, None)


@pytest.mark.parametrize("body", [{"text": ""}, tokens(2000)], ids=["silent", "cut-off"])
def test_an_answer_that_fell_short_is_kept_with_all_that_is_said_about_it(body):
    bought, row = answered("gpt-4o-transcribe", body)
    again = job("gpt-4o-transcribe")

    assert again.fill(row) == []
    first, second = bought.result(), again.result()
    assert second.warnings == first.warnings != ()
    assert (second.text, second.complete, second.cost) == (first.text, first.complete, 0)


def test_plain_text_and_bytes_that_are_no_utf_8_survive_the_cache():
    for body, content_type, text in [(b"hello\n", "text/plain", "hello"), (b'{"text": "a\xff"}', None, "a\ufffd")]:
        asked, again = job(), job()
        row = asked.receive(asked.read(body, content_type), body, content_type, 1)

        assert (again.fill(row), again.result().text) == ([], text)


def test_an_unknown_key_leaves_the_job_open():
    asked = job()

    assert (asked.fill({}), asked.answered()) == ([], False)


@given(st.data())
def test_a_row_with_any_byte_changed_is_thrown_out(data):
    asked, found = answered()
    blob = bytearray(found[asked.name])
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    again = job()

    assert (again.fill({asked.name: bytes(blob)}), again.answered()) == ([asked.name], False)


@pytest.mark.parametrize("size", [0, 1, 47, 60, -1])
def test_a_row_that_is_cut_off_is_thrown_out(size):
    asked, found = answered()
    again = job()

    assert again.fill({asked.name: found[asked.name][:size]}) == [asked.name]
    assert not again.answered()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"9" * 5_000, id="long"),
        [],
        None,
        {},
        {"body": '{"text": "a"}'},
        {"body": 5, "content_type": None},
        {"body": "\ud800", "content_type": None},
        {"body": '{"text": "a"}', "content_type": 5},
        {"body": "", "content_type": "application/json"},
        {"body": "<html></html>", "content_type": "text/html"},
        {"body": '{"error": "no"}', "content_type": "application/json"},
    ],
)
def test_a_planted_row_that_holds_no_answer_is_thrown_out(payload):
    asked = job()

    assert asked.fill({asked.name: document(asked, payload)}) == [asked.name]
    assert not asked.answered()


def test_a_vector_in_a_transcripts_place_is_thrown_out():
    asked = job()
    payload = json.dumps({"body": '{"text": "a"}', "content_type": None}).encode()
    payload += b" " * (-len(payload) % 4)
    row = document(asked, payload, kind=rows.Kind.VECTOR, width=len(payload) // 4)

    assert asked.fill({asked.name: row}) == [asked.name]
    assert not asked.answered()


def test_the_row_of_another_recording_is_thrown_out():
    other, found = answered(audio=recording(b"other"))
    asked = job()

    assert asked.fill({asked.name: found[other.name]}) == [asked.name]
    assert not asked.answered()
