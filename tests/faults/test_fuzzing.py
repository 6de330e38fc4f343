"""Thousands of spoilt answers and rows for each decoder: what comes out is refused, or what the bytes really say.

The oracles below read the same bytes again, slowly and with the standard library alone.
"""

import base64
import copy
import json
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxvec import ResponseError, rows
from voxvec.embedding.job import EmbeddingJob
from voxvec.embedding.settings import Settings
from voxvec.embedding.wire import decode
from voxvec.models import EmbeddingModel
from voxvec.transcription.wire import parse

pytestmark = [pytest.mark.slow, pytest.mark.case("S24")]


def examples(count):
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


N, DIMS = 3, 4
VECTORS = [[0.5, 0.5, 0.5, 0.5], [0.6, 0.8, 0.0, 0.0], [-0.8, 0.0, 0.6, 0.0]]


def encoded(numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def answer(encode):
    data = [{"object": "embedding", "index": at, "embedding": encode(row)} for at, row in enumerate(VECTORS)]
    usage = {"prompt_tokens": 6, "total_tokens": 6}
    return {"object": "list", "data": data, "model": "tiny", "usage": usage}


SEGMENTS = [
    {"id": 0, "start": 0.0, "end": 1.5, "text": " Hello there.", "avg_logprob": -0.2, "speaker": "A"},
    {"id": 1, "start": 1.5, "end": 3.0, "text": " Bye.", "words": [{"word": " Bye.", "start": 1.6, "end": 2.9}]},
]
SPEECH = {
    "task": "transcribe",
    "language": "english",
    "duration": 3.0,
    "text": "Hello there. Bye.",
    "segments": SEGMENTS,
    "words": [{"word": "Hello", "start": 0.1, "end": 0.6}, {"word": "there", "start": 0.6, "end": 1.2}],
    "usage": {"type": "duration", "seconds": 3},
}

# Bytes that mean something, so that most changes do not end in the same complaint.
pieces = st.binary(max_size=4) | st.sampled_from(
    [
        *(char.encode() for char in '{}[]",:.-0123456789eE \\/+=tfn'),
        *(
            b"null",
            b"true",
            b"false",
            b"NaN",
            b"Infinity",
            b"-1",
            b"1e39",
            b"1e999",
            b"9" * 50,
            b"0.0",
            b'""',
            b"[]",
            b"{}",
        ),
        *(
            b'"index"',
            b'"embedding"',
            b'"data"',
            b'"error"',
            b'"text"',
            b'"start"',
            b"\\ud800",
            b"\\u0000",
            b"\xff",
            b"\0",
        ),
    ]
)
edits = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 8), pieces), max_size=4)


def edited(body, changes):
    for at, length, piece in changes:
        start = at % (len(body) + 1)
        body = body[:start] + piece + body[start + length :]
    return body


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["index", "embedding", 10**30, 10**400, 1e39, -0.0, "NaN", *map(encoded, VECTORS)])
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=4), v), max_leaves=5
)
changes = st.lists(
    st.tuples(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.sampled_from("setdroptwice"), values), max_size=3
)


def restructured(document, steps):
    """The document with values deep inside it replaced, dropped, doubled or exchanged."""
    document = copy.deepcopy(document)
    for path, kind, value in steps:
        parent, inner = None, document
        for choice in path:
            if not isinstance(inner, dict | list) or not inner:
                break
            names = list(inner) if isinstance(inner, dict) else range(len(inner))
            parent, name = inner, list(names)[choice % len(names)]
            inner = inner[name]
        if parent is None:
            continue
        if kind == "d":
            del parent[name]
        elif kind == "t" and isinstance(parent, list):
            parent.append(inner)
        elif kind == "w" and isinstance(parent, list):
            parent[name], parent[-1] = parent[-1], parent[name]
        else:
            parent[name] = value
    return json.dumps(document).encode()


def bodies(*documents):
    def spoilt(document):
        return edits.map(lambda done: edited(json.dumps(document).encode(), done)) | changes.map(
            lambda steps: restructured(document, steps)
        )

    return st.one_of(
        st.binary(max_size=60), values.map(lambda value: json.dumps(value).encode()), *map(spoilt, documents)
    )


class InvalidError(Exception):
    """The oracle finds no answer in the bytes."""


def unambiguous(pairs):
    named = dict(pairs)
    if len(named) != len(pairs):
        raise InvalidError
    return named


def read_vectors(body):
    """What the bytes say, by the contract."""
    try:
        reply = json.loads(body.removeprefix(b"\xef\xbb\xbf").decode(), object_pairs_hook=unambiguous)
    except (ValueError, RecursionError):
        raise InvalidError from None
    if not isinstance(reply, dict) or reply.get("error") or not isinstance(reply.get("data"), list):
        raise InvalidError
    items = reply["data"]
    if len(items) != N or not all(isinstance(item, dict) for item in items):
        raise InvalidError
    places = [item.get("index") for item in items]
    if places == [None] * N:
        places = list(range(N))
    if sorted(map(repr, places)) != list(map(repr, range(N))):  # neither 0.0 nor False is 0
        raise InvalidError
    placed = sorted(zip(places, items, strict=True), key=lambda pair: pair[0])
    return [read_vector(item.get("embedding")) for _, item in placed]


def read_vector(value):
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
            row = struct.unpack(f"<{DIMS}f", raw)
        except (ValueError, struct.error):
            raise InvalidError from None
    elif isinstance(value, list) and all(type(number) in {int, float} for number in value):
        try:
            with np.errstate(over="ignore"):
                row = [float(np.float32(float(number))) for number in value]
        except OverflowError:
            raise InvalidError from None
    else:
        raise InvalidError
    if len(row) != DIMS or not all(map(math.isfinite, row)) or not any(row):
        raise InvalidError
    return list(row)


def is_legible(vectors):
    """Whether nothing but the lengths of the vectors can be held against them."""
    return all(1e-11 < math.hypot(*vector) < 1e11 for vector in vectors)


@pytest.mark.case("B01")
@examples(4000)
@given(bodies(answer(encoded), answer(list)))
def test_vectors_are_those_of_the_bytes_or_none(body):
    try:
        said = read_vectors(body)
    except InvalidError:
        said = None
    decoded = refusal = None
    try:
        decoded = decode(body, N, DIMS, most_tokens=1000)
    except ResponseError as error:
        refusal = error

    if refusal is None:
        assert decoded.vectors.tolist() == said
        assert decoded.tokens is None or N <= decoded.tokens <= 1000
        assert decoded.model is None or (decoded.model and decoded.model.isprintable())
    else:
        assert set(refusal.positions) <= set(range(N))
        # What is whole is not refused, but for what only a lenient reader of JSON or base64 takes.
        strict = ("no JSON object", "no valid base64", "big-endian")
        assert said is None or not is_legible(said) or any(words in str(refusal) for words in strict)


@pytest.mark.case("B08")
@examples(3000)
@given(bodies(SPEECH), st.sampled_from(["application/json", "text/plain", None]))
def test_a_transcript_is_that_of_the_bytes_or_none(body, content_type):
    try:
        parsed = parse(body, content_type)
    except ResponseError:
        return

    assert parsed.text == parsed.text.strip()
    parsed.text.encode()
    for spans in (parsed.segments, parsed.words):
        times = [(span.start, span.end) for span in spans]
        end = math.inf if parsed.duration is None else parsed.duration
        assert times == sorted(times)
        assert all(0 <= first <= last <= end and math.isfinite(last) for first, last in times)
    said = body.decode("utf-8-sig", "replace")
    try:
        document = json.loads(said)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("text"), str):
        whole = document["text"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert parsed.text == whole.strip()
    elif document is None:
        assert parsed.text == said.strip()  # plain text, as it came


KEY, PAYLOAD = bytes(range(32)), np.array(VECTORS[0], "<f4").tobytes()
ROW = rows.pack(KEY, PAYLOAD, kind=rows.Kind.VECTOR, width=DIMS, tokens=2, model="tiny")
DOCUMENT = rows.pack(KEY, b'{"a": 1}', kind=rows.Kind.DOCUMENT, width=8, tokens=None, model="tiny")


@examples(1000)
@given(st.sampled_from([ROW, DOCUMENT]), edits)
def test_a_row_that_was_touched_is_none(row, done):
    touched = edited(row, done)

    assert (rows.unpack(KEY, touched) is None) == (touched != row)


fields = st.tuples(
    st.sampled_from([b"vvrw", b"vvrx", b"\x80\x04\x95\x00"]),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 9) | st.just(0xFFFF),
    st.integers(0, 20) | st.just(0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from([KEY, bytes(32)]),
)


def sealed(head, rest):
    """A row with a right checksum, whatever it says."""
    start = struct.pack("<4sBBHII32s", *head) + rest
    return start + struct.pack("<I", zlib.crc32(start))


@examples(1000)
@given(fields, st.binary(max_size=90))
def test_a_planted_row_holds_what_it_says_or_is_none(head, rest):
    row = rows.unpack(KEY, sealed(head, rest))

    if row is not None:
        assert (head[0], head[1], head[6]) == (b"vvrw", 1, KEY)
        assert len(row.payload) == row.width * {rows.Kind.VECTOR: 4, rows.Kind.DOCUMENT: 1}[row.kind]
    assert rows.width_of(sealed(head, rest)) in {0, head[4]}


@examples(1000)
@given(st.binary(max_size=200) | st.lists(st.floats(width=32), max_size=6))
def test_what_a_cache_gives_is_a_vector_or_a_miss(found):
    model = EmbeddingModel(name="tiny", dims=DIMS)
    job = EmbeddingJob(["ant"], Settings(model=model))
    [name] = job.open()
    if isinstance(found, list):
        payload = struct.pack(f"<{len(found)}f", *found)
        found = rows.pack(name, payload, kind=rows.Kind.VECTOR, width=len(found), tokens=None, model="tiny")

    job.fill({name: found})

    if job.knows(name):
        [vector] = job.result().array.tolist()
        assert len(vector) == DIMS
        assert all(map(math.isfinite, vector))
        assert any(vector)
