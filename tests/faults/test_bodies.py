"""Bodies that no honest server sends: their cost is bounded, and what comes of them is a typed error or the truth."""

import json
import time

import pytest

import voxvec as vv
from voxvec import ResponseError
from voxvec.embedding.wire import decode
from voxvec.transcription import request
from voxvec.transcription.wire import parse

VECTOR = {"object": "list", "data": [{"index": 0, "embedding": [0.6, 0.8]}], "model": "tiny"}
SPEECH = {"text": "Hi."}
LONG = 200_000


def hostile(honest):
    """Bodies by name, around an honest one."""
    body = json.dumps(honest).encode()
    inner = body[:-1]
    return {
        "arrays": b"[" * LONG,
        "arrays-closed": b"[" * LONG + b"]" * LONG,
        "objects": b'{"a":' * LONG,
        "arrays-in-a-field": inner + b', "more": ' + b"[" * LONG + b"]" * LONG + b"}",
        "digits": inner + b', "more": ' + b"1" * 5_000 + b"}",
        "many-digits": inner + b', "more": ' + b"1" * 1_000_000 + b"}",
        "many-decimals": inner + b', "more": 0.' + b"1" * 1_000_000 + b"}",
        "exponent": inner + b', "more": 1e' + b"9" * 100_000 + b"}",
        "escapes": inner + b', "more": "' + b"\\u0041" * LONG + b'"}',
        "open-string": inner + b', "more": "' + b"a" * LONG,
        "commas": inner + b"," * LONG + b"}",
        "blanks": body + b" " * LONG,
        "utf-16": body.decode().encode("utf-16"),
        "utf-16-be": body.decode().encode("utf-16-be"),
        "utf-32": body.decode().encode("utf-32"),
        "mark": b"\xef\xbb\xbf" + body,
        "no-utf-8": inner + b', "more": "\xff\xfe"}',
        "same-key-twice": body[:-1] + b", " + body[1:],
        "trailing-bytes": body + b"x" * LONG,
        "trailing-nul": body + b"\0",
        "keys": inner + b"".join(b', "k%d": 0' % n for n in range(50_000)) + b"}",
    }


@pytest.mark.case("B02")
@pytest.mark.parametrize("name", hostile(VECTOR))
def test_a_hostile_body_is_read_right_or_refused_as_vectors_in_no_time(name):
    body, start = hostile(VECTOR)[name], time.perf_counter()

    try:
        vectors = decode(body, 1, 2).vectors.tolist()
    except ResponseError:
        vectors = None

    # Generous: it takes 2 ms, and quadratic work on 200 thousand bytes takes minutes.
    assert time.perf_counter() - start < 5
    assert vectors is None or vectors == [[pytest.approx(0.6), pytest.approx(0.8)]]
    assert vectors is not None or name not in {"blanks", "mark", "keys", "escapes", "many-decimals"}


@pytest.mark.case("B02")
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
@pytest.mark.parametrize("name", hostile(SPEECH))
def test_a_hostile_body_is_read_right_or_refused_as_a_transcript_in_no_time(name, content_type):
    body, start = hostile(SPEECH)[name], time.perf_counter()

    try:
        text = parse(body, content_type).text
    except ResponseError:
        text = None

    assert time.perf_counter() - start < 5
    # What is no JSON object may be plain text, if it is not called JSON.
    assert text in {None, "Hi."} or (content_type != "application/json" and text == body.decode().strip())
    assert text is not None or name not in {"blanks", "mark", "keys", "escapes", "many-decimals"}


@pytest.mark.case("B02")
def test_an_object_that_says_two_things_under_one_name_gives_no_vector():
    body = b'{"data": [{"embedding": [1.0, 0.0]}], "data": [{"embedding": [0.0, 1.0]}]}'

    with pytest.raises(ResponseError, match="no JSON object"):
        decode(body, 1, 2)


@pytest.mark.case("B03")
@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_literal_that_is_no_number_is_no_vector(literal):
    with pytest.raises(ResponseError, match="vector 1 holds a number that is not finite") as caught:
        decode(f'{{"data": [{{"embedding": [1, 0]}}, {{"embedding": [{literal}, 0]}}]}}'.encode(), 2, 2)

    assert caught.value.positions == (1,)


def spoken(**times):
    segments = [{"text": "One.", "start": 0.0, "end": 1.0}, {"text": "Two.", **times}]
    return parse(json.dumps({"text": "One. Two.", "duration": 3.0, "segments": segments}).encode(), "application/json")


@pytest.mark.case("B08")
@pytest.mark.parametrize(
    "times",
    [
        {"start": float("nan"), "end": float("nan")},
        {"start": 1.0, "end": float("inf")},
        {"start": 2.5, "end": 1.5},
        {"start": 1.0, "end": None},
        {},
    ],
)
def test_a_time_that_cannot_be_leaves_the_text_and_is_not_called_measured(times):
    parsed = spoken(**times)

    assert parsed.text == "One. Two."
    assert [part.timing for part in parsed.segments] == ["server", "estimated"]
    assert all(0 <= part.start <= part.end <= 3 for part in parsed.segments)


@pytest.mark.case("B08")
def test_a_time_beyond_the_end_is_cut_to_it_with_a_warning():
    parsed = spoken(start=1.0, end=30.0)

    assert parsed.segments[1].end == 3.0
    assert "1 of the server's times were out of order" in parsed.warnings[0]


@pytest.mark.slow
@pytest.mark.case("B08")
def test_fifty_thousand_segments_take_seconds():
    count = 50_000
    segments = [{"start": count - n, "end": 0, "text": "a", "words": [{"word": "a", "start": n}]} for n in range(count)]
    body = json.dumps({"text": "a", "segments": segments}).encode()
    start = time.perf_counter()

    parsed = parse(body, "application/json")

    assert time.perf_counter() - start < 60  # it takes 2 s; were it quadratic, hours
    assert len(parsed.segments) == count
    assert parsed.warnings


FORMATS = [("json",), ("json", "text", "srt", "vtt"), ("srt", "text"), ("vtt",), ("verbose_json", "srt"), ()]


@pytest.mark.case("B10")
@pytest.mark.parametrize("formats", FORMATS)
def test_subtitles_are_never_asked_for(formats):
    fields = dict(request.fields(vv.TranscriptionModel(name="x", formats=formats)))

    assert fields["response_format"] in {"json", "verbose_json", "diarized_json", "text"}


@pytest.mark.case("B10")
@pytest.mark.parametrize(
    "body",
    [
        "1\n00:00:00,000 --> 00:00:01,000\nHi.\n",
        "WEBVTT\n\n00:00.000 --> 00:01.000\nHi.\n",
        "\ufeffWEBVTT - a title\n\n",
        "1\r\n00:01.000 --> 00:02.000\r\nHi.",
    ],
)
def test_subtitles_that_come_unasked_are_no_transcript(body):
    with pytest.raises(ResponseError, match="subtitles, which were not asked for"):
        parse(body.encode(), "text/plain")


@pytest.mark.case("B10")
@pytest.mark.parametrize("text", ["1 apple a day.", "WEBVTTERS", "12:30 --> noon", "00:00:01 is early."])
def test_a_text_with_numbers_in_it_is_one(text):
    assert parse(text.encode(), "text/plain").text == text


@pytest.mark.case("F57")
@pytest.mark.parametrize("content_type", ["text/plain", "text/html", None])
def test_a_web_page_is_no_text(content_type):
    page = b"<html><body>504 Gateway Time-out</body></html>"

    with pytest.raises(ResponseError, match=r"a web page .*504 Gateway Time-out"):
        parse(page, content_type)


@pytest.mark.case("F11")
def test_an_error_in_place_of_a_transcript_carries_its_code():
    with pytest.raises(ResponseError, match="busy") as caught:
        parse(b'{"error": {"message": "busy", "code": "engine_overloaded"}}', "application/json")

    assert caught.value.code == "engine_overloaded"
