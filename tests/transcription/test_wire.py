import contextlib
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.errors import ResponseError
from voxvec.transcription.transcript import Segment, Usage, Word
from voxvec.transcription.wire import parse

JSON = "application/json"


def read(content_type=JSON, /, **fields):
    return parse(json.dumps(fields).encode(), content_type)


def refused(body, content_type=JSON):
    with pytest.raises(ResponseError) as caught:
        parse(body, content_type)
    assert caught.value.kind == "malformed"
    assert caught.value.billed == "maybe"
    return str(caught.value)


def times(spans):
    return [(span.start, span.end) for span in spans]


def test_json_of_gpt_transcribe_has_text_language_and_seconds():
    parsed = read(text="Hallo.\n", languages=[{"code": "nb"}], usage={"type": "duration", "seconds": 6})

    assert parsed.text == "Hallo."
    assert parsed.language == "no"
    assert parsed.usage == Usage(seconds=6, requests=1)
    assert parsed.segments == parsed.words == parsed.warnings == ()
    assert parsed.duration is None


def test_json_of_gpt_4o_transcribe_has_tokens():
    parsed = read(
        text="Hi",
        usage={
            "type": "tokens",
            "input_tokens": 14,
            "output_tokens": 45,
            "total_tokens": 59,
            "input_token_details": {"audio_tokens": 10, "text_tokens": 4},
        },
    )

    assert parsed.usage == Usage(input_tokens=14, output_tokens=45, audio_tokens=10, text_tokens=4, requests=1)


def test_verbose_json_nests_words_into_the_segments_they_fall_in():
    parsed = read(
        task="transcribe",
        text=" Hello there. Bye.",
        language="english",
        duration="4.5",
        segments=[
            {"id": 0, "start": 0.0, "end": 2.0, "text": " Hello there.", "avg_logprob": -0.2, "no_speech_prob": 0.1},
            {"id": 1, "start": 2.0, "end": 4.5, "text": " Bye.", "compression_ratio": 1.2},
        ],
        words=[
            {"word": "Hello", "start": 0.1, "end": 0.5},
            {"word": "there", "start": 0.5, "end": 1.9},
            {"word": "Bye", "start": 1.9, "end": 2.6},
        ],
    )

    hello, there, bye = parsed.words
    assert parsed.language == "en"
    assert parsed.duration == 4.5
    assert parsed.segments == (
        Segment("Hello there.", 0.0, 2.0, "server", words=(hello, there), avg_logprob=-0.2, no_speech_prob=0.1),
        Segment("Bye.", 2.0, 4.5, "server", words=(bye,), compression_ratio=1.2),
    )
    assert bye == Word("Bye", 1.9, 2.6, "server")
    assert parsed.warnings == ()


def test_diarized_json_has_speakers_and_ids_that_are_strings():
    parsed = read(
        task="transcribe",
        text="A: Hi. B: Yes.",
        duration=3,
        segments=[
            {"type": "transcript.text.segment", "id": "seg_1", "start": 0, "end": 1, "speaker": "A", "text": "Hi."},
            {"type": "transcript.text.segment", "id": "seg_2", "start": 1, "end": 3, "speaker": 2, "text": "Yes."},
        ],
    )

    assert [(part.speaker, part.text) for part in parsed.segments] == [("A", "Hi."), ("2", "Yes.")]


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "text/html", "TEXT/PLAIN", None])
def test_plain_text_loses_its_newline(content_type):
    assert parse("\ufeff 안녕하세요 [음악]\n".encode(), content_type).text == "안녕하세요 [음악]"
    assert parse(b"\n", content_type).text == ""


def test_vllm_answers_json_to_text_and_sends_nulls():
    assert parse(b'{"text":"Hi.\\n"}', "text/plain").text == "Hi."

    parsed = read(
        text="Hi.",
        language="en",
        duration="1.5",
        words=None,
        segments=[{"id": 0, "start": 0.0, "end": 1.5, "text": "Hi.", "no_speech_prob": None, "tokens": [1]}],
    )
    assert parsed.segments == (Segment("Hi.", 0.0, 1.5, "server"),)
    assert parsed.duration == 1.5


def test_whisper_cpp_nests_words_and_cuts_them_into_tokens():
    pieces = [(" And", 0.9), (" f", 0.8), ("ellow", 0.4), (",", 0.7), (" so", None), ("ld", None)]
    parsed = read(
        text=" And fellow, sold\n",
        language="english",
        segments=[
            {
                "id": 0,
                "start": 0.0,
                "end": 3.0,
                "text": " And fellow, sold",
                "words": [
                    {"word": text, "start": i / 2, "end": (i + 1) / 2, "probability": sure, "t_dtw": -1}
                    for i, (text, sure) in enumerate(pieces)
                ],
            }
        ],
    )

    assert parsed.words == parsed.segments[0].words
    assert parsed.words == (
        Word("And", 0.0, 0.5, "server", 0.9),
        Word("fellow,", 0.5, 2.0, "server", 0.4),
        Word("sold", 2.0, 3.0, "server"),
    )


def test_pieces_of_a_script_without_spaces_stay_apart():
    pieces = [{"word": text, "start": i, "end": i + 1} for i, text in enumerate(["你", "好", " GPT"])]

    spaced = read(text="x", language="zh", segments=[{"start": 0, "end": 3, "text": "你好 GPT", "words": pieces}])
    no_space = read(text="x", segments=[{"start": 0, "end": 3, "text": "你好", "words": pieces[:2]}])

    assert [word.text for word in spaced.words] == ["你", "好", "GPT"]
    assert [word.text for word in no_space.words] == ["你", "好"]


def test_a_piece_without_an_end_does_not_take_the_words_end_away():
    pieces = [{"word": " a", "start": 0, "end": 1}, {"word": "b", "start": 1}, {"word": " c", "start": 2, "end": 3}]

    parsed = read(text="ab c", segments=[{"start": 0, "end": 3, "text": "ab c", "words": pieces}])

    assert times(parsed.words) == [(0, 1), (2, 3)]


def test_localai_calls_a_word_text_and_once_counted_in_nanoseconds():
    parsed = read(
        text="Hi you",
        segments=[{"id": 0, "start": 0, "end": 1_500_000_000, "text": "Hi you", "tokens": None}],
        words=[{"text": "Hi", "start": 10_000_000, "end": 700_000_000}, {"text": "you", "start": 700_000_000}],
    )

    assert times(parsed.segments) == [pytest.approx((0.0, 1.5))]
    assert times(parsed.words) == [pytest.approx((0.01, 0.7)), pytest.approx((0.7, 0.7))]
    assert [word.timing for word in parsed.words] == ["server", "estimated"]


def test_words_without_segments_get_one_segment_around_them():
    parsed = read(
        text="Hi you.", words=[{"word": "Hi", "start": 0.2, "end": 0.5}, {"word": "you", "start": 0.6, "end": 1}]
    )

    assert parsed.segments == (Segment("Hi you.", 0.2, 1.0, "server", words=parsed.words),)
    unsure = read(text="Hi you.", words=[{"word": "Hi", "start": 0.2, "end": 0.5}, {"word": "you", "start": 0.6}])
    assert unsure.segments[0].timing == "estimated"


def test_segments_without_any_time_are_not_kept():
    parsed = read(text="Hi.", segments=[{"text": "Hi.", "start": None, "end": None}], words=[{"word": "Hi"}])

    assert parsed.segments == ()
    assert parsed.words == ()


def test_a_missing_time_comes_from_the_neighbours_and_is_called_estimated():
    texts = [("a", 0.0, 1.0), ("b", None, None), ("c", 3.0, None), ("d", None, 5.0), ("e", 6, None)]
    segments = [{"text": text, "start": start, "end": end} for text, start, end in texts]

    parsed = read(text="a b c d e", duration=9, segments=segments)

    assert times(parsed.segments) == [(0, 1), (1, 3), (3, 6), (6, 6), (6, 9)]
    assert [part.timing for part in parsed.segments] == ["server", *["estimated"] * 4]


def test_times_that_do_not_add_up_are_put_right_and_said_so():
    segments = [
        {"text": "late", "start": 4.0, "end": 31.0},
        {"text": "early", "start": -2.0, "end": 1.0},
        {"text": "backwards", "start": 3.0, "end": 2.0},
        {"text": "after", "start": 40.0, "end": 41.0},
        {"text": "  ", "start": 0.0, "end": 1.0},
    ]

    parsed = read(text="…", duration=5, segments=segments)

    assert [part.text for part in parsed.segments] == ["early", "backwards", "late", "after"]
    assert times(parsed.segments) == [(0, 1), (3, 3), (4, 5), (5, 5)]
    assert parsed.warnings == (
        "6 of the server's times were out of order or outside the recording, and were put right",
    )


def test_rounding_beyond_the_end_is_not_worth_a_warning():
    parsed = read(text="a", duration=10.99, segments=[{"text": "a", "start": 0, "end": 11.0}])

    assert times(parsed.segments) == [(0, 10.99)]
    assert parsed.warnings == ()


@pytest.mark.parametrize(
    ("language", "texts", "text"),
    [
        ("en", ["Hi.", "Bye."], "Hi. Bye."),
        ("en", [" Hi.", " Bye."], "Hi. Bye."),
        ("japanese", ["はい。", "どうも。"], "はい。どうも。"),
    ],
)
def test_a_missing_text_is_put_together_from_the_segments(language, texts, text):
    assert read(language=language, segments=[{"text": part} for part in texts]).text == text


def test_unknown_values_are_left_out():
    parsed = read(
        text="x",
        language="klingon",
        languages=[],
        duration=math.inf,
        usage={"seconds": -1, "input_tokens": True, "output_tokens": -4, "input_token_details": 7},
        segments=[3, {"text": "x", "start": "0.5", "end": 10**400, "speaker": True, "avg_logprob": "?"}],
        words={"word": "x"},
    )

    assert parsed.language is None
    assert parsed.duration is None
    assert parsed.usage == Usage(requests=1)
    assert parsed.segments == (Segment("x", 0.5, 0.5, "estimated"),)


def test_the_language_may_be_named_in_several_places():
    assert read(text="x", language="??", languages=["ko"]).language == "ko"
    assert read(text="x", detected_language="welsh").language == "cy"


def test_characters_that_arrived_damaged_are_shown_and_said_so():
    for body in (b'{"text": "a\xff"}', b'{"text": "a\\ud800"}'):
        parsed = parse(body, JSON)

        assert parsed.text == "a\ufffd"
        assert parsed.warnings == ("some characters of the text arrived damaged and stand as \ufffd",)
    assert parse(b'{"text": "\\ud83d\\udc4d"}', JSON).text == "👍"


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"", JSON, "an empty body"),
        (b"", None, "content type missing"),
        (b'{"text": "hel', JSON, "damaged or cut off"),
        (b'{"text": "hel', "text/plain", "damaged or cut off"),
        (b"[" * 100_000, JSON, "damaged or cut off"),
        (b'["a"]', JSON, "no object"),
        (b'"a"', JSON, "no object"),
        (b"null", JSON, "no object"),
        (b"{}", JSON, "without a text"),
        (b'{"text": 7}', JSON, "without a text"),
        (b'{"text": null}', JSON, "without a text"),
        (b'{"error": "no\\nmodel"}', JSON, "an error instead, 'no model'"),
        (b'{"error": {"message": "busy"}, "text": ""}', JSON, "an error instead, 'busy'"),
        (b'{"error": {"code": 3}}', JSON, "an error instead, 'unnamed'"),
        (b"<!DOCTYPE html><html>", "text/html", "a web page"),
        (b"\n<html>", None, "a web page"),
        (b"\x00\x01", "text/plain", "bytes that are no text"),
        (b"\xff\xfe", None, "bytes that are no text"),
        (b"data: {}\n\n", "text/event-stream", "neither JSON nor plain text"),
        (b"\x89PNG", "image/png", "content type image/png"),
    ],
)
def test_what_is_no_transcript_is_refused_with_its_type_and_beginning(body, content_type, reason):
    assert reason in refused(body, content_type)


def test_a_refusal_shows_eighty_characters_of_a_web_page_and_no_control_characters():
    message = refused(b"<\x1b[31m" + b"x" * 500, "text/\x1bhtml")

    assert message.isprintable()
    assert "x" * 70 in message
    assert "x" * 80 not in message


@pytest.mark.case("F50")
@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b'{"text": "said in private', JSON), (b"said in private", "audio/wav"), (b"said in private\x00", "text/plain")],
)
def test_a_refusal_does_not_show_what_may_have_been_said(body, content_type):
    with pytest.raises(ResponseError) as caught:
        parse(body, content_type)

    assert "private" not in str(caught.value)
    assert caught.value.__context__ is None


numbers = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400) | st.integers(0, 10**11)
spans = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "text": st.text(max_size=9) | st.none(),
            "word": st.text(max_size=9),
            "start": numbers,
            "end": numbers,
            "speaker": numbers,
            "probability": numbers,
        },
    )
    | st.integers(),
    max_size=6,
)
replies = st.fixed_dictionaries(
    {"text": st.text() | st.none()},
    optional={
        "duration": numbers,
        "language": st.sampled_from(["ja", "english", "?"]) | numbers,
        "segments": st.none()
        | st.lists(
            spans.flatmap(
                lambda words: st.fixed_dictionaries(
                    {"text": st.text(max_size=9), "words": st.just(words)}, optional={"start": numbers, "end": numbers}
                )
            ),
            max_size=4,
        ),
        "words": st.none() | spans,
        "usage": st.dictionaries(st.sampled_from(["seconds", "input_tokens", "output_tokens"]), numbers),
    },
)
values = st.recursive(numbers | st.booleans(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=20)
shapes = st.dictionaries(
    st.sampled_from(["text", "segments", "words", "language", "languages", "usage", "duration", "error"]), values
)


def check(parsed):
    assert parsed.text == parsed.text.strip()
    for list_ in (parsed.segments, parsed.words):
        bounds = times(list_)
        assert bounds == sorted(bounds)
        assert all(0 <= a <= b <= (math.inf if parsed.duration is None else parsed.duration) for a, b in bounds)
        assert all(b < 1e10 for _, b in bounds)
    if parsed.segments:
        assert sorted(w.start for part in parsed.segments for w in part.words) == [w.start for w in parsed.words]
    assert pickle.loads(pickle.dumps(parsed)) == parsed  # noqa: S301 -- our own bytes
    assert "\ud800" not in parsed.text


@given(replies)
def test_any_reply_gives_times_in_order_within_the_recording(reply):
    try:
        parsed = read(**reply)
    except ResponseError:
        assert reply["text"] is None
    else:
        check(parsed)


@given(
    st.binary() | (values | shapes).map(lambda v: json.dumps(v).encode()), st.sampled_from([JSON, "text/plain", None])
)
def test_any_bytes_give_a_transcript_or_a_response_error(body, content_type):
    with contextlib.suppress(ResponseError):
        check(parse(body, content_type))


@given(replies, st.integers(0, 400))
def test_half_a_reply_is_refused(reply, cut):
    body = json.dumps(reply).encode()

    refused(body[: min(cut, len(body) - 1)])
