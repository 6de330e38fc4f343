from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxvec as vv
from voxvec import tokens
from voxvec.errors import AudioError, ConfigError, InputError
from voxvec.models import TranscriptionModel
from voxvec.transcription import request
from voxvec.transcription.request import check_audio, cost, fields, file_name, translation_fields
from voxvec.transcription.transcript import Usage

text_only = TranscriptionModel(
    name="text-only",
    containers=("wav", "mp3", "flac"),
    formats=("json", "text"),
    segment_times=False,
    word_times=False,
    speakers=False,
    prompt="context",
    keywords=True,
    language_parameter="languages",
    languages=("en", "ko", "no"),
    translates=False,
    max_bytes=1000,
    max_seconds=60,
    price_per_minute=Decimal("0.0045"),
)
timed = TranscriptionModel(
    name="timed",
    formats=("json", "text", "srt", "verbose_json", "vtt"),
    segment_times=True,
    word_times=True,
    speakers=False,
    prompt="continuation",
    keywords=False,
    languages=("en", "jw"),
    temperature=True,
    translates=True,
)
diarizing = TranscriptionModel(
    name="diarizing",
    formats=("json", "text", "diarized_json"),
    segment_times=True,
    speakers=True,
    prompt="none",
    keywords=False,
    language_parameter=None,
    temperature=False,
    chunking_strategy="required",
)
unknown = TranscriptionModel(name="unknown")


def test_a_model_with_times_is_asked_for_segments_and_words():
    assert fields(timed) == (
        ("model", "timed"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "segment"),
        ("timestamp_granularities[]", "word"),
    )
    assert fields(timed.replace(word_times=None))[2:] == (("timestamp_granularities[]", "segment"),)


def test_everything_a_model_takes_becomes_a_field():
    assert fields(text_only, language="Korean", prompt="A meeting.", keywords=["voxvec", "한국"], temperature=0) == (
        ("model", "text-only"),
        ("response_format", "json"),
        ("languages[]", "ko"),
        ("prompt", "A meeting."),
        ("keywords[]", "voxvec"),
        ("keywords[]", "한국"),
        ("temperature", "0.0"),
    )


def test_a_diarizing_model_is_asked_for_speakers_and_cuts_the_recording_itself():
    expected = (("model", "diarizing"), ("response_format", "diarized_json"), ("chunking_strategy", "auto"))

    assert fields(diarizing, speakers=True) == expected
    assert fields(diarizing) == expected


@pytest.mark.parametrize(
    ("formats", "asked"),
    [(("text", "json"), "json"), (("text",), "text"), (("srt",), "json"), (("json", "verbose_json"), "verbose_json")],
)
def test_the_richest_format_the_model_has_is_asked_for(formats, asked):
    assert ("response_format", asked) in fields(TranscriptionModel(name="m", formats=formats))


def test_what_is_not_known_about_a_model_passes():
    assert fields(unknown, language="yoruba", prompt="p", keywords=["k"], speakers=True, temperature=1) == (
        ("model", "unknown"),
        ("response_format", "diarized_json"),
        ("language", "yo"),
        ("prompt", "p"),
        ("keywords[]", "k"),
        ("temperature", "1.0"),
    )
    assert translation_fields(unknown)[0] == ("model", "unknown")


@pytest.mark.parametrize("model", [text_only, timed, diarizing, unknown])
def test_what_is_not_given_is_not_sent(model):
    assert fields(model, language="auto", prompt=" ", keywords=[], temperature=None) == fields(model)


@pytest.mark.parametrize(
    ("model", "asked", "reason"),
    [
        (diarizing, {"language": "ko"}, "diarizing cannot be told the language.*leave language out"),
        (text_only, {"language": "yo"}, "does not take Yoruba"),
        (text_only, {"language": "xx"}, "no language 'xx' is known"),
        (diarizing, {"prompt": "p"}, "diarizing takes no prompt.*leave prompt out"),
        (timed, {"keywords": ["k"]}, "timed takes no keywords.*or write the words into prompt"),
        (diarizing, {"keywords": ["k"]}, "leave keywords out$"),
        (timed, {"speakers": True}, "timed does not tell speakers apart"),
        (diarizing, {"temperature": 0.5}, "diarizing takes no temperature"),
        (timed, {"temperature": 1.1}, "from 0 to 1, not 1.1"),
        (timed, {"temperature": -0.1}, "from 0 to 1"),
        (timed, {"temperature": float("nan")}, "from 0 to 1, not nan"),
    ],
)
def test_what_a_model_would_ignore_or_refuse_is_refused_before_sending(model, asked, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        fields(model, **asked)

    assert "nothing was sent" in str(caught.value)
    assert caught.value.billed == "no"


@pytest.mark.parametrize("ask", [fields, translation_fields])
def test_a_prompt_that_is_certainly_longer_than_the_model_reads_is_refused(ask):
    short = timed.replace(max_prompt_tokens=3)

    assert ("prompt", "of Dr. Lee") in ask(short, prompt="of Dr. Lee")
    assert ("prompt", "a " * 99) in ask(timed, prompt="a " * 99)
    with pytest.raises(InputError, match=r"4 words .* read the last 3 .* nothing was sent") as caught:
        ask(short, prompt="ask for Dr. Lee")
    assert caught.value.billed == "no"


def test_a_prompt_never_has_fewer_tokens_than_words():
    tokenizer = tokens.exact("cl100k_base")
    if tokenizer is None:
        pytest.skip("tiktoken is not installed")

    @given(st.text())
    def check(text):
        assert len(request._WORD.findall(text)) <= tokenizer.count(text)

    check()


@pytest.mark.parametrize("bad", ["", "  ", "a\nb", "a\r", "<b>", "a>b"])
@pytest.mark.parametrize("model", [text_only, unknown])
def test_a_keyword_that_would_spoil_the_request_is_named_by_its_position(model, bad):
    with pytest.raises(InputError, match=r"keyword 1 cannot .* nothing was sent") as caught:
        fields(model, keywords=["fine", bad])

    assert caught.value.positions == (1,)


def test_one_text_for_keywords_is_refused():
    with pytest.raises(InputError, match="put it into a list"):
        fields(text_only, keywords="voxvec")


@given(st.lists(st.text(st.characters(exclude_characters="<>\r\n"), min_size=1).filter(str.strip)))
def test_every_keyword_arrives_as_it_was_given_and_in_order(keywords):
    sent = fields(text_only, keywords=keywords)

    assert [value for name, value in sent if name == "keywords[]"] == keywords


def test_a_translation_asks_for_times_but_not_which():
    assert translation_fields(timed, prompt="Hi", temperature=0.2) == (
        ("model", "timed"),
        ("response_format", "verbose_json"),
        ("prompt", "Hi"),
        ("temperature", "0.2"),
    )
    assert translation_fields(diarizing.replace(prompt="free")) == (("model", "diarizing"), ("response_format", "json"))


def test_a_model_that_does_not_translate_is_refused():
    with pytest.raises(ConfigError, match=r"text-only does not translate.*nothing was sent"):
        translation_fields(text_only)


@pytest.mark.parametrize(
    ("container", "sent"),
    [
        ("ogg", ("audio.ogg", "audio/ogg")),
        ("mp3", ("audio.mp3", "audio/mpeg")),
        ("m4a", ("audio.m4a", "audio/mp4")),
        ("mkv", ("audio.mkv", "video/x-matroska")),
    ],
)
def test_a_file_is_sent_under_a_plain_name_and_its_type(container, sent):
    assert file_name(container) == sent


def test_a_recording_the_model_takes_passes():
    check_audio(text_only, container="wav", size=1000, seconds=60)
    check_audio(text_only, container="wav", size=1, seconds=None)
    check_audio(unknown, container="caf", size=10**12, seconds=10**6)


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        ({"container": "ogg"}, "is ogg, which text-only does not take.*convert it to one of flac, mp3, wav"),
        ({"size": 1001}, "1,001 bytes, text-only takes 1,000;.*compress it, cut it"),
        ({"seconds": 60.5}, "lasts 60.5 s, text-only takes 60 s;.*cut it"),
        ({"seconds": 0.0}, r"lasts 0.000 s, text-only takes 0.1 s or more"),
    ],
)
@pytest.mark.parametrize("name", [None, "talk.wav"])
def test_a_recording_the_model_does_not_take_is_refused_saying_what_it_takes(audio, reason, name):
    with pytest.raises(AudioError, match=reason) as caught:
        check_audio(text_only, **{"container": "wav", "size": 9, "seconds": 1.0, "name": name, **audio})

    assert str(caught.value).startswith(name or "the recording")
    assert "nothing was sent" in str(caught.value)


by_token = TranscriptionModel(name="by-token", input_price=Decimal(2), output_price=Decimal(10))
by_kind = by_token.replace(audio_input_price=Decimal(6))


@pytest.mark.parametrize(
    ("model", "seconds", "usage", "dollars"),
    [
        (text_only, 90, None, "0.00675"),
        (text_only, 90.0, Usage(seconds=120, requests=1), "0.009"),
        (text_only, 60, Usage(requests=1), "0.0045"),
        (text_only, 0, None, "0"),
        (text_only, None, None, None),
        (text_only, None, Usage(requests=1), None),
        (unknown, 60, None, None),
        (unknown, 60, Usage(seconds=60, input_tokens=5, output_tokens=5), None),
        (by_token, 60, None, None),
        (by_token, 60, Usage(input_tokens=1000, output_tokens=100), "0.003"),
        (by_token, 60, Usage(output_tokens=100), None),
        (by_token, 60, Usage(input_tokens=100), None),
        (by_kind, 60, Usage(input_tokens=1000, audio_tokens=900, text_tokens=100, output_tokens=100), "0.0066"),
        (by_kind, 60, Usage(input_tokens=1000, output_tokens=100), None),
        (by_kind.replace(price_per_minute=Decimal("0.006")), 60, Usage(input_tokens=1, output_tokens=1), "0.006"),
    ],
)
def test_the_cost_is_exact_or_unknown_but_never_guessed(model, seconds, usage, dollars):
    assert cost(model, seconds=seconds, usage=usage) == (None if dollars is None else Decimal(dollars))


@pytest.mark.parametrize("wish", [{"prompt": 7}, {"prompt": b"names"}, {"language": 7}])
def test_a_wish_that_is_no_text_is_refused(wish):
    with pytest.raises(InputError, match=r"must be a text, not (int|bytes); nothing was sent"):
        fields(text_only, **wish)


def test_keywords_may_come_from_a_generator():
    sent = fields(text_only, keywords=(word for word in ("Seoul", "Busan")))

    assert [value for name, value in sent if name == "keywords[]"] == ["Seoul", "Busan"]


@pytest.mark.parametrize("client", [vv.Transcriber, vv.AsyncTranscriber])
def test_only_a_transcription_model_makes_a_transcriber(client):
    with pytest.raises(ConfigError, match="TranscriptionModel"):
        client(vv.models.find("text-embedding-3-small"))
