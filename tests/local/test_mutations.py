"""Every way to spoil an answer does: what is broken is refused, what is benign is read as if nothing were."""

import copy
import functools
import io
import json
import wave

import numpy as np
import pytest

from voxvec.embedding.wire import decode
from voxvec.errors import ResponseError
from voxvec.local.exchange import Request
from voxvec.testing import MUTATIONS, FakeOpenAI, Fault
from voxvec.transcription.wire import parse

FAKE = FakeOpenAI(models={"tiny": 8})
OF_VECTORS = [mutation for mutation in MUTATIONS.values() if "embeddings" in mutation.of]
# One vector for every text is wrong only for who knows that the texts differ.
OF_VECTORS_ALONE = [mutation for mutation in OF_VECTORS if mutation.name != "one-for-all"]
OF_SPEECH = [mutation for mutation in MUTATIONS.values() if "speech" in mutation.of]


@functools.cache
def embeddings(count, form):
    texts = [f"text {number}" for number in range(count)]
    body = json.dumps({"model": "tiny", "input": texts, "encoding_format": form}).encode()
    return FAKE(Request("POST", "/v1/embeddings", {}, body))


@functools.cache
def speech(kind):
    recording = io.BytesIO()
    with wave.open(recording, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(64_000))
    parts = {"model": b"whisper-1", "response_format": kind.encode()}
    lines = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value
        for name, value in parts.items()
    ]
    lines.append(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + recording.getvalue())
    headers = {"content-type": "multipart/form-data; boundary=x"}
    return FAKE(Request("POST", "/v1/audio/transcriptions", headers, b"\r\n".join([*lines, b"--x--\r\n"])))


def read(reply, count):
    return decode(reply.body, count, 8, content_type=reply.headers.get("content-type"), unit=True).vectors


def test_there_are_many_and_each_has_its_name_and_says_what_it_does():
    assert len(MUTATIONS) >= 80
    assert all(mutation.name == name and mutation.what for name, mutation in MUTATIONS.items())
    assert len({mutation.what for mutation in MUTATIONS.values()}) == len(MUTATIONS)
    assert {True, False} == {mutation.benign for mutation in OF_VECTORS} == {mutation.benign for mutation in OF_SPEECH}


@pytest.mark.parametrize("form", ["base64", "float"])
@pytest.mark.parametrize("mutation", OF_VECTORS_ALONE, ids=lambda mutation: mutation.name)
def test_a_broken_answer_is_refused_and_a_benign_one_read_right(mutation, form):
    for count in (1, 2, 3, 6):
        honest = embeddings(count, form)
        spoilt = Fault(spoil=mutation.name).spoilt(honest)

        if mutation.benign:
            assert np.array_equal(read(spoilt, count), read(honest, count))
        else:
            with pytest.raises(ResponseError):
                read(spoilt, count)


def test_one_vector_can_stand_for_every_text():
    honest = embeddings(3, "base64")

    vectors = read(Fault(spoil="one-for-all").spoilt(honest), 3)

    assert np.array_equal(vectors, read(honest, 3)[[0, 0, 0]])


@pytest.mark.parametrize("kind", ["json", "verbose_json"])
@pytest.mark.parametrize("mutation", OF_SPEECH, ids=lambda mutation: mutation.name)
def test_a_broken_transcript_is_refused_and_a_benign_one_has_its_text(mutation, kind):
    honest = speech(kind)
    spoilt = Fault(spoil=mutation.name).spoilt(honest)

    if mutation.benign:
        text = parse(honest.body, "application/json").text
        assert parse(spoilt.body, spoilt.headers["content-type"]).text == text
        assert text
    else:
        with pytest.raises(ResponseError):
            parse(spoilt.body, spoilt.headers["content-type"])


@pytest.mark.parametrize("mutation", OF_VECTORS, ids=lambda mutation: mutation.name)
def test_an_answer_is_spoilt_in_the_same_way_every_time_and_itself_stays_as_it_is(mutation):
    answer = embeddings(3, "base64").json()
    before = copy.deepcopy(answer)

    once, twice = mutation(answer), mutation(answer)

    assert repr(once) == repr(twice)
    assert answer == before


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("nan", {"text": "hello"}, "'nan' spoils embeddings, and this answer is none"),
        ("nan", "hello", "'nan' spoils embeddings"),
        ("text-null", {"data": []}, "'text-null' spoils speech, and this answer is none"),
    ],
)
def test_what_cannot_be_spoilt_that_way_is_told(name, answer, message):
    with pytest.raises(ValueError, match=message):
        MUTATIONS[name](answer)


def test_a_plain_text_can_be_spoilt_as_a_whole():
    assert MUTATIONS["half-json"]("hello!") == b"hel"
    assert Fault(spoil="html").spoilt(speech("text")).headers["content-type"] == "text/html"


def test_the_list_cannot_be_changed():
    with pytest.raises(TypeError):
        MUTATIONS["mine"] = MUTATIONS["nan"]
