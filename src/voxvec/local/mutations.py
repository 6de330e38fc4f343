"""Ways in which an answer with status 200 can be other than it should, each with a name.

Every one has been sent by some server or proxy, or is one slip away from it. They are pure and repeatable; the same
answer is spoilt in the same way every time, and however few vectors it holds.

The file is long because it is a list.
"""

from __future__ import annotations

import base64
import copy
import gzip
import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from voxvec.local.exchange import Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy.typing as npt

__all__ = ["MUTATIONS", "Mutation"]

Json: TypeAlias = Any  # an answer, as the json module reads it
_Change: TypeAlias = "Callable[[Json], Json | bytes | Reply]"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way to spoil an answer; call it with the answer's JSON, and it returns another, or bytes, or a whole reply.

    Attributes:
        name: Its name in `MUTATIONS`.
        what: What it does, in words.
        of: What it can be done to: ``"embeddings"``, ``"speech"`` (transcripts in JSON) or both.
        benign: Whether the answer is still right, so that a client should take it.
        change: What does it.
    """

    name: str
    what: str
    of: tuple[str, ...]
    benign: bool
    change: _Change

    def __call__(self, reply: Json) -> Json | bytes | Reply:
        """Spoil an answer; the one given stays as it is.

        Raises:
            ValueError: It is not the kind of answer that this can be done to.
        """
        made: Json = copy.deepcopy(reply)
        kind = ("embeddings" if "data" in reply else "speech") if isinstance(reply, dict) else "text"
        if len(self.of) == 1 and kind not in self.of:
            raise ValueError(f"{self.name!r} spoils {self.of[0]}, and this answer is none")
        return self.change(made)


# -- tools


def _middle(data: list[Json]) -> int:
    return len(data) // 2


def _data(change: Callable[[list[Json]], Json]) -> _Change:
    """Change the list of vectors."""
    return lambda reply: {**reply, "data": change(reply["data"])}


def _row(**changes: Json) -> _Change:
    """Change one vector's object; `...` takes a field out, a function gets the field's value."""

    def change(data: list[Json]) -> Json:
        row = data[_middle(data)]
        for name, value in changes.items():
            row[name] = value(row.get(name)) if callable(value) else value
        data[_middle(data)] = {name: value for name, value in row.items() if value is not ...}
        return data

    return _data(change)


def _indexes(number: Callable[[int, int], Json]) -> _Change:
    """Give every vector another index, out of its position and their count."""

    def change(data: list[Json]) -> Json:
        for at, row in enumerate(data):
            row["index"] = number(at, len(data))
        return [{name: value for name, value in row.items() if value is not ...} for row in data]

    return _data(change)


def _floats(vector: Json) -> npt.NDArray[np.float32]:
    if isinstance(vector, str):
        return np.frombuffer(base64.b64decode(vector), "<f4")
    return np.array(vector, np.float32)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _values(change: Callable[[list[float]], list[float]]) -> Callable[[Json], Json]:
    """Change the numbers of a vector, and leave it written as it was."""

    def changed(vector: Json) -> Json:
        made = change(_floats(vector).tolist())
        return _base64(np.array(made, "<f4").tobytes()) if isinstance(vector, str) else made

    return changed


def _all(change: Callable[[Json], Json]) -> _Change:
    """Change every vector."""
    return _data(lambda data: [{**row, "embedding": change(row["embedding"])} for row in data])


def _some(value: float) -> Callable[[Json], Json]:
    """Put another number into the middle of a vector."""
    return _values(lambda row: [*row[: len(row) // 2], value, *row[len(row) // 2 + 1 :]])


def _listed(last: Json) -> Callable[[Json], Json]:
    """Write a vector as a list, with something else at its end."""
    return lambda vector: [*_floats(vector).tolist()[:-1], last]


def _numbers(change: Callable[[list[float]], Json]) -> Callable[[Json], Json]:
    """Write something else in place of a vector, out of its numbers."""
    return lambda vector: change(_floats(vector).tolist())


def _binary(change: Callable[[bytes], str]) -> Callable[[Json], Json]:
    """Write a text in place of a vector, out of its bytes."""
    return lambda vector: change(_floats(vector).tobytes())


_LIST: Final = _numbers(lambda row: row)


def _as(form: str) -> Callable[[Json], Json]:
    """Write a vector in another binary form."""
    return lambda vector: _base64(_floats(vector).astype(form).tobytes())


def _text(reply: Json) -> bytes:
    return reply.encode("utf-8") if isinstance(reply, str) else json_reply(reply).body


def _body(change: Callable[[bytes], bytes]) -> _Change:
    """Change the bytes."""
    return lambda reply: change(_text(reply))


def _usage(value: Json) -> _Change:
    return lambda reply: {**reply, "usage": value}


def _usages(value: Json) -> _Change:
    return lambda reply: {**reply, "usage": dict.fromkeys(reply.get("usage") or ("total_tokens",), value)}


def _without(*names: str) -> _Change:
    return lambda reply: {name: value for name, value in reply.items() if name not in names}


def _digits(count: int) -> _Change:
    """Put a number that long at the end of a list; Python itself refuses to write it."""
    marked = _row(embedding=_listed(0.12345))

    def change(reply: Json) -> bytes:
        return json_reply(marked(reply)).body.replace(b"0.12345", b"9" * count)

    return change


def _mixed(data: list[Json]) -> Json:
    return [{**row, "embedding": (_as("<f4") if at else _LIST)(row["embedding"])} for at, row in enumerate(data)]


def _missing(data: list[Json]) -> Json:
    del data[_middle(data)]
    return data


def _renumbered(data: list[Json]) -> Json:
    return [{**row, "index": at} for at, row in enumerate(_missing(data))]


def _twice(data: list[Json]) -> Json:
    """Two vectors claim the same index."""
    if len(data) == 1:
        return data * 2
    data[-1]["index"] = data[0]["index"]
    return data


def _copied(data: list[Json]) -> Json:
    return [*data[: max(1, len(data) - 1)], data[0]]


def _one_for_all(data: list[Json]) -> Json:
    return [{**row, "embedding": data[0]["embedding"]} for row in data]


def _half_indexed(data: list[Json]) -> Json:
    if len(data) == 1:
        data = [*data, dict(data[0])]
    del data[-1]["index"]
    return data


def _reversed_times(reply: Json) -> Json:
    for part in [*reply.get("segments", ()), *reply.get("words", ())]:
        part["start"], part["end"] = part["end"], part["start"]
    return reply


def _nan_times(reply: Json) -> Json:
    for part in [*reply.get("segments", ()), *reply.get("words", ())]:
        part["start"] = part["end"] = float("nan")
    return reply


def _said(value: Json) -> _Change:
    """Put something else where the text should be, and take away whatever it could be told from."""
    bare = _without("text", "segments", "words")

    def change(reply: Json) -> Json:
        rest: Json = bare(reply)
        return rest if value is ... else {**rest, "text": value}

    return change


_ERROR: Final = {"error": {"message": "The engine is currently overloaded.", "type": "server_error", "code": None}}
_HTML: Final = b"<html><head><title>504 Gateway Time-out</title></head><body>504 Gateway Time-out</body></html>"

# -- the list


def _list() -> Iterable[Mutation]:
    vectors, speech, both = ("embeddings",), ("speech",), ("embeddings", "speech")
    broken: Mapping[str, tuple[str, tuple[str, ...], _Change]] = {
        # How many there are, and whose.
        "missing": ("a vector is missing", vectors, _data(_missing)),
        "missing-renumbered": (
            "a vector is missing, and the rest is numbered without a gap",
            vectors,
            _data(_renumbered),
        ),
        "extra": ("there is a vector too many", vectors, _data(lambda data: [*data, {**data[0], "index": len(data)}])),
        "no-vectors": ("the list of vectors is empty", vectors, _data(lambda _: [])),
        "data-null": ("the list of vectors is null", vectors, _data(lambda _: None)),
        "data-missing": ("there is no list of vectors", vectors, _without("data")),
        "data-object": (
            "the vectors are in an object",
            vectors,
            _data(lambda data: {str(i): r for i, r in enumerate(data)}),
        ),
        "row-null": ("a vector's object is null", vectors, _data(lambda data: [*data[:-1], None])),
        "row-bare": (
            "vectors stand there without their objects",
            vectors,
            _data(lambda data: [r["embedding"] for r in data]),
        ),
        "duplicated": ("two vectors claim the same index", vectors, _data(_twice)),
        "copied": ("the first vector stands again in place of the last", vectors, _data(_copied)),
        "index-beyond": ("the last index is too large", vectors, _indexes(lambda at, n: n if at == n - 1 else at)),
        "index-negative": ("the last index is -1", vectors, _indexes(lambda at, n: -1 if at == n - 1 else at)),
        "index-from-1": ("indexes begin with 1", vectors, _indexes(lambda at, _: at + 1)),
        "index-bool": (
            "the first indexes are false and true",
            vectors,
            _indexes(lambda at, _: at == 1 if at in {0, 1} else at),
        ),
        "index-float": ("indexes are 0.0, 1.0, ...", vectors, _indexes(lambda at, _: float(at))),
        "index-text": ("indexes are texts", vectors, _indexes(lambda at, _: str(at))),
        "index-huge": ("the last index has 30 digits", vectors, _indexes(lambda at, n: 10**30 if at == n - 1 else at)),
        "half-indexed": ("only some vectors have an index", vectors, _data(_half_indexed)),
        # What is in one of them.
        "nan": ("a number is NaN", vectors, _row(embedding=_some(float("nan")))),
        "nan-literal": ("a number of a list is NaN", vectors, _row(embedding=_listed(float("nan")))),
        "infinite": ("a number is infinite", vectors, _row(embedding=_some(float("inf")))),
        "infinite-literal": ("a number of a list is -Infinity", vectors, _row(embedding=_listed(float("-inf")))),
        "zero": ("a vector is zero", vectors, _row(embedding=_values(lambda row: [0.0] * len(row)))),
        "beyond-float32": ("a number is 1e39", vectors, _row(embedding=_listed(1e39))),
        "beyond-float64": ("a number has 401 digits", vectors, _row(embedding=_listed(10**400))),
        "beyond-int": ("a number has 5,000 digits", vectors, _digits(5000)),
        "number-null": ("a number is null", vectors, _row(embedding=_listed(None))),
        "number-bool": ("a number is true", vectors, _row(embedding=_listed(last=True))),
        "number-text": ("a number is a text", vectors, _row(embedding=_listed("0.5"))),
        "number-list": ("a number is a list", vectors, _row(embedding=_listed([0.5]))),
        "vector-null": ("a vector is null", vectors, _row(embedding=None)),
        "vector-missing": ("a vector's object has no vector", vectors, _row(embedding=...)),
        "vector-empty": ("a vector is an empty list", vectors, _row(embedding=[])),
        "vector-object": (
            "a vector is an object",
            vectors,
            _row(embedding=_numbers(lambda row: dict(enumerate(row)))),
        ),
        "vector-nested": ("a vector is a list in a list", vectors, _row(embedding=_numbers(lambda row: [row]))),
        "narrow": ("a vector is one number short", vectors, _row(embedding=_values(lambda row: row[:-1]))),
        "wide": ("a vector has one number too many", vectors, _row(embedding=_values(lambda row: [*row, 0.5]))),
        "all-narrow": ("every vector is one number short", vectors, _all(_values(lambda row: row[:-1]))),
        "all-wide": ("every vector has a number too many", vectors, _all(_values(lambda row: [*row, 0.5]))),
        "float16": ("vectors are written as float16", vectors, _all(_as("<f2"))),
        "float64": ("vectors are written as float64", vectors, _all(_as("<f8"))),
        "swapped-bytes": ("the bytes of every number are in the wrong order", vectors, _all(_as(">f4"))),
        "one-for-all": ("every text gets the vector of the first", vectors, _data(_one_for_all)),
        "base64-cut": (
            "the last byte of a vector is missing",
            vectors,
            _row(embedding=_binary(lambda raw: _base64(raw[:-1]))),
        ),
        "base64-short": (
            "the last character of a vector is missing",
            vectors,
            _row(embedding=_binary(lambda raw: _base64(raw)[:-1])),
        ),
        "base64-garbled": (
            "a vector is no base64",
            vectors,
            _row(embedding=_binary(lambda raw: "!" + _base64(raw)[1:])),
        ),
        "base64-foreign": (
            "a vector holds a letter beyond ASCII",
            vectors,
            _row(embedding=_binary(lambda raw: "é" + _base64(raw)[1:])),
        ),
        "base64-twice": (
            "a vector is base64 of its base64",
            vectors,
            _row(embedding=_binary(lambda raw: _base64(_base64(raw).encode()))),
        ),
        # The transcript.
        "text-null": ("the text is null", speech, _said(None)),
        "text-missing": ("there is no text", speech, _said(...)),
        "text-number": ("the text is a number", speech, _said(7)),
        "text-list": ("the text is a list", speech, _said(["hello"])),
        "text-object": ("the text is an object", speech, _said({"text": "hello"})),
        # The whole body.
        "error": ("an error object", both, lambda _: _ERROR),
        "error-beside": ("an error object beside the rest", both, lambda reply: {**reply, **_ERROR}),
        "html": ("the web page of a proxy", both, lambda _: Reply(200, {"content-type": "text/html"}, _HTML)),
        "html-as-json": ("a web page that is called JSON", both, lambda _: _HTML),
        "half-json": ("the first half of the JSON", both, _body(lambda body: body[: len(body) // 2])),
        "empty": ("no byte at all", both, lambda _: b""),
        "null": ("the JSON null", both, lambda _: b"null"),
        "list": ("the answer in a list", both, lambda reply: [reply]),
        "string": ("the answer as a JSON string", both, lambda reply: json.dumps(json.dumps(reply)).encode()),
        "object-empty": ("an empty object", both, lambda _: {}),
        "trailing": ("more behind the JSON", both, _body(lambda body: body + b"}")),
        "two-documents": ("the same JSON twice", both, _body(lambda body: body * 2)),
        "event-stream": (
            "a stream of events",
            both,
            _body(lambda body: b"data: " + body.replace(b"\n", b"") + b"\n\n"),
        ),
        "deep": ("200,000 brackets", both, lambda _: b"[" * 200_000),
        "deep-object": ("100,000 objects in each other", both, lambda _: b'{"data":' * 100_000),
        "utf-16": ("UTF-16 instead of UTF-8", both, _body(lambda body: body.decode().encode("utf-16"))),
        "no-utf-8": (
            "a byte that is no UTF-8",
            vectors,
            _body(lambda body: body.replace(b'"object"', b'"obj\xffct"', 1)),
        ),
        "duplicate-keys": (
            "the list of vectors stands there twice",
            vectors,
            _body(lambda body: body.rstrip()[:-1] + b',"data":[]}'),
        ),
        "gzipped": ("gzip that nothing announces", both, _body(lambda body: gzip.compress(body, mtime=0))),
        "binary": ("bytes that are no text", both, lambda _: bytes(range(256))),
    }
    benign: Mapping[str, tuple[str, tuple[str, ...], _Change]] = {
        "shuffled": (
            "vectors in another order, their indexes right",
            vectors,
            _data(lambda data: [*data[1::2], *data[0::2]][::-1]),
        ),
        "no-index": ("no vector has an index", vectors, _indexes(lambda _at, _n: ...)),
        "null-index": ("every index is null", vectors, _indexes(lambda _at, _n: None)),
        "floats": ("lists of numbers, whatever was asked for", vectors, _all(_LIST)),
        "base64": ("base64, whatever was asked for", vectors, _all(_as("<f4"))),
        "mixed": ("the first vector a list, the others base64", vectors, _data(_mixed)),
        "other-model": (
            "another model says that it answered",
            vectors,
            lambda reply: {**reply, "model": "somebody-else"},
        ),
        "no-model": ("no model says that it answered", vectors, _without("model")),
        "bare": (
            "only what is needed: index and vector",
            vectors,
            lambda reply: {"data": [{k: row[k] for k in ("index", "embedding")} for row in reply["data"]]},
        ),
        "no-usage": ("nothing is said of usage", both, _without("usage")),
        "usage-null": ("usage is null", both, _usage(None)),
        "usage-empty": ("usage is an empty object", both, _usage({})),
        "usage-text": ("usage is a text", both, _usage("much")),
        "usage-zero": ("every count is 0", both, _usages(0)),
        "usage-negative": ("every count is -1", both, _usages(-1)),
        "usage-huge": ("every count is 10 to the 30th", both, _usages(10**30)),
        "usage-strings": ("every count is a text", both, _usages("7")),
        "usage-infinite": ("every count is Infinity", both, _usages(float("inf"))),
        "more-fields": ("fields nobody knows", both, lambda reply: {"x": None, **reply, "y": {"z": [1]}}),
        "one-line": ("no white space", both, lambda reply: json.dumps(reply, separators=(",", ":")).encode()),
        "bom": ("a byte order mark before the JSON", both, _body(lambda body: b"\xef\xbb\xbf" + body)),
        "spacious": ("white space around", both, _body(lambda body: b" \r\n\t" + body + b"\r\n\r\n")),
        "nan-times": ("every time is NaN", speech, _nan_times),
        "reversed-times": ("segments and words end before they begin", speech, _reversed_times),
    }
    for kinds, good in ((broken, False), (benign, True)):
        for name, (what, of, change) in kinds.items():
            yield Mutation(name, what, of, good, change)


MUTATIONS: Final[Mapping[str, Mutation]] = MappingProxyType({mutation.name: mutation for mutation in _list()})
