import base64
import json

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.local.exchange import Reply, Request
from voxvec.local.fake_brain import FakeBrain
from voxvec.local.responder import Responder

brain = FakeBrain({"tiny": 4}, len)
respond = Responder(brain)


def embeddings(**body):
    return respond(Request("POST", "/v1/embeddings", {}, json.dumps(body).encode()))


def form(path, files, **fields):
    request = httpx2.Request("POST", f"http://x{path}", data=fields, files=files)
    headers = {name.lower(): value for name, value in request.headers.items()}
    return respond(Request("POST", path, headers, request.read()))


def error(reply):
    return reply.status, reply.json()["error"]


@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=9), st.integers(1, 4))
def test_both_encodings_hold_the_same_vectors_in_the_order_of_the_texts(texts, dims):
    floats = embeddings(model="tiny", input=texts, dimensions=dims).json()
    packed = embeddings(model="tiny", input=texts, dimensions=dims, encoding_format="base64").json()

    rows = np.array([item["embedding"] for item in floats["data"]], dtype=np.float32)
    for row, item in zip(rows, packed["data"], strict=True):
        assert np.array_equal(row, np.frombuffer(base64.b64decode(item["embedding"]), "<f4"))
    assert rows.shape == (len(texts), dims)
    assert [item["index"] for item in floats["data"]] == list(range(len(texts)))
    assert floats["usage"] == {"prompt_tokens": sum(map(len, texts)), "total_tokens": sum(map(len, texts))}


def test_a_reply_looks_like_openai_s():
    body = embeddings(model="tiny", input="cat", dimensions=2).body.decode()
    x, y = json.loads(body)["data"][0]["embedding"]

    assert body == (
        '{\n  "object": "list",\n  "data": [\n    {\n      "object": "embedding",\n      "index": 0,\n'
        f'      "embedding": [\n        {x},\n        {y}\n      ]\n    }}\n  ],\n  "model": "tiny",\n'
        '  "usage": {\n    "prompt_tokens": 3,\n    "total_tokens": 3\n  }\n}\n'
    )


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"input": "a"}, 400, "model", None),
        ({"model": 7, "input": "a"}, 400, "model", None),
        ({"model": "nobody", "input": "a"}, 404, None, "model_not_found"),
        ({"model": "whisper-1", "input": "a"}, 400, "model", "invalid_value"),
        ({"model": "tiny"}, 400, "input", "missing_required_parameter"),
        ({"model": "tiny", "input": ""}, 400, "input", "invalid_value"),
        ({"model": "tiny", "input": []}, 400, "input", "invalid_value"),
        ({"model": "tiny", "input": ["a", ""]}, 400, "input", "invalid_value"),
        ({"model": "tiny", "input": [1, 2]}, 400, "input", "invalid_type"),
        ({"model": "tiny", "input": [[1, 2]]}, 400, "input", "invalid_type"),
        ({"model": "tiny", "input": ["a"] * 2049}, 400, "input", "array_above_max_length"),
        ({"model": "tiny", "input": "a", "encoding_format": "hex"}, 400, "encoding_format", "invalid_value"),
        ({"model": "tiny", "input": "a", "dimensions": 5}, 400, "dimensions", "invalid_value"),
        ({"model": "tiny", "input": "a", "dimensions": True}, 400, "dimensions", "invalid_type"),
        ({"model": "text-embedding-ada-002", "input": "a", "dimensions": 9}, 400, "dimensions", None),
        ({"model": "text-embedding-3-small", "input": "a" * 8193}, 400, "input", "context_length_exceeded"),
        ({"model": "text-embedding-3-small", "input": ["a" * 8000] * 38}, 400, "input", "max_tokens_per_request"),
    ],
)
def test_what_openai_refuses_is_refused(body, status, param, code):
    got, problem = error(embeddings(**body))

    assert (got, problem["param"], problem["code"]) == (status, param, code)
    assert problem["message"]
    assert problem["type"] == "invalid_request_error"


def test_the_text_that_is_too_long_is_named_with_its_tokens():
    _, problem = error(embeddings(model="text-embedding-3-small", input=["a", "a" * 8193, "a" * 8200]))

    assert problem["message"] == (
        "This model's maximum context length is 8192 tokens, however 'input[2]' has 8200 tokens. "
        "Please reduce your prompt."
    )


def test_the_refusal_of_an_unknown_model_can_end_with_a_hint():
    asked = Request("GET", "/v1/models/nobody")

    assert error(respond(asked))[1]["message"].endswith("have access to it.")
    assert error(Responder(brain, hint=" Try `tiny`.")(asked))[1]["message"].endswith("access to it. Try `tiny`.")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body):
    assert respond(Request("POST", "/embeddings", {}, body)).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/", 404),
        ("GET", "/v1/embeddings", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models/nobody", 404),
        ("GET", "/v1/models", 200),
        ("GET", "/openai/deployments/x/models/tiny", 200),
    ],
)
def test_paths_and_methods_are_told_apart(method, path, status):
    assert respond(Request(method, path)).status == status


def test_models_are_listed_with_the_day_they_go():
    models = {model["id"]: model for model in respond(Request("GET", "/v1/models")).json()["data"]}

    assert models["tiny"] == {"id": "tiny", "object": "model", "created": 1_704_067_200, "owned_by": "voxvec"}
    assert models["whisper-1"]["shutdown_date"] == "2027-02-26"


def test_a_refusal_tells_clients_not_to_try_again():
    assert respond(Request("GET", "/")).headers["x-should-retry"] == "false"


# -- speech


def transcribe(data, model="whisper-1", name="a.wav", endpoint="transcriptions", **fields):
    return form(f"/v1/audio/{endpoint}", {"file": (name, data)}, model=model, **fields)


@pytest.fixture
def seconds(wav):
    return lambda number: wav(np.zeros(int(number * 8000)), rate=8000)


def test_whisper_gives_segments_and_words_with_times(seconds):
    got = transcribe(
        seconds(10),
        response_format="verbose_json",
        **{"timestamp_granularities[]": ["word", "segment"]},
    ).json()

    assert (got["task"], got["language"], got["duration"]) == ("transcribe", "english", 10.0)
    assert got["text"] == " ".join(segment["text"].strip() for segment in got["segments"])
    assert [word["word"].lower() for word in got["words"]] == got["text"].lower().replace(".", "").split()
    assert all(0 <= word["start"] < word["end"] <= 10.0001 for word in got["words"])
    assert got["usage"] == {"type": "duration", "seconds": 10}


def test_granularities_choose_what_is_told(seconds):
    words = transcribe(seconds(1), response_format="verbose_json", **{"timestamp_granularities[]": ["word"]}).json()
    plain = transcribe(seconds(1), response_format="verbose_json").json()

    assert "words" in words
    assert "segments" not in words
    assert "segments" in plain
    assert "words" not in plain


def test_subtitles_and_text_are_no_json(seconds):
    srt, vtt, text = (transcribe(seconds(2), response_format=name).body.decode() for name in ("srt", "vtt", "text"))

    assert srt == f"1\n00:00:00,000 --> 00:00:02,000\n{text}\n"
    assert vtt == f"WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n{text}\n"


def test_each_model_counts_what_it_charges_for(seconds):
    tokens = transcribe(seconds(3), "gpt-4o-transcribe", prompt="a b").json()["usage"]
    duration = transcribe(seconds(2.5), "gpt-transcribe").json()["usage"]

    assert tokens["type"] == "tokens"
    assert tokens["input_token_details"] == {"text_tokens": 2, "audio_tokens": 30}
    assert tokens["total_tokens"] == tokens["input_tokens"] + tokens["output_tokens"]
    assert duration == {"type": "duration", "seconds": 3}


def test_gpt_transcribe_names_the_language_or_echoes_the_hint(seconds):
    assert transcribe(seconds(1), "gpt-transcribe").json()["languages"] == [{"code": "en"}]
    assert transcribe(seconds(1), "gpt-transcribe", **{"languages[]": ["ko", "ja"]}).json()["languages"] == [
        {"code": "ko"},
        {"code": "ja"},
    ]


def test_diarized_segments_have_speakers(seconds):
    got = transcribe(seconds(1), "gpt-4o-transcribe-diarize", response_format="diarized_json").json()

    assert [(s["speaker"], s["id"], s["type"]) for s in got["segments"]] == [("A", "seg_0", "transcript.text.segment")]


def test_translation_is_english_and_counts_nothing(seconds):
    got = transcribe(seconds(1), endpoint="translations", response_format="verbose_json").json()

    assert (got["task"], got["language"]) == ("translate", "english")
    assert "usage" not in got


@pytest.mark.parametrize(
    ("model", "fields", "param", "code"),
    [
        ("", {}, "model", None),
        ("tiny", {}, "model", "invalid_value"),
        ("gpt-transcribe", {"response_format": "verbose_json"}, "response_format", "unsupported_value"),
        ("whisper-1", {"response_format": "yaml"}, "response_format", "unsupported_value"),
        ("whisper-1", {"timestamp_granularities[]": "word"}, "timestamp_granularities", "invalid_value"),
        ("whisper-1", {"name": "a.exe"}, "file", None),
        ("whisper-1", {"data": b"RIFF\x00\x00\x00\x00WAVEnonsense"}, "file", None),
        ("whisper-1", {"language": "xx"}, "language", "invalid_value"),
        ("gpt-transcribe", {"languages[]": "xx"}, "languages", "invalid_value"),
        ("gpt-transcribe", {"keywords[]": "a<b"}, "keywords", "invalid_value"),
        ("gpt-transcribe", {"stream": "true"}, "stream", "unsupported_value"),
        ("gpt-transcribe", {"endpoint": "translations"}, "model", "unsupported_model"),
        ("whisper-1", {"seconds": 0.05}, "file", "audio_too_short"),
        ("gpt-4o-transcribe", {"seconds": 1401}, None, "invalid_value"),
        ("gpt-4o-transcribe-diarize", {"seconds": 31}, "chunking_strategy", "missing_required_parameter"),
    ],
)
def test_what_a_model_cannot_do_is_refused(seconds, model, fields, param, code):
    data = fields.pop("data", None) or seconds(fields.pop("seconds", 1))
    status, problem = error(transcribe(data, model, **fields))

    assert (status, problem["param"], problem["code"]) == (400, param, code)


def test_a_model_is_not_asked_for_what_it_ignores(seconds):
    assert transcribe(seconds(1), "whisper-1", stream="true", **{"keywords[]": "<"}).status == 200


def test_keywords_a_model_takes_are_no_problem(seconds):
    assert transcribe(seconds(1), "gpt-transcribe", **{"keywords[]": ["Łódź", "voxvec"]}).status == 200


def test_a_missing_or_too_large_recording_is_refused():
    too_large = transcribe(bytes(26_214_401))
    no_file = form("/v1/audio/transcriptions", {"other": ("a.wav", b"x")}, model="whisper-1")
    no_form = respond(Request("POST", "/v1/audio/transcriptions", {"content-type": "application/json"}, b"{}"))

    assert (too_large.status, too_large.json()["error"]["type"]) == (413, "server_error")
    assert error(no_file)[1]["param"] == "file"
    assert no_form.status == 400


def test_a_request_without_anything_is_a_value():
    assert Request("GET", "/v1/models") == Request("GET", "/v1/models", {}, b"")
    assert Reply(204).body == b""
