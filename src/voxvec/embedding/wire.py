"""Bytes of an answer to float32, checked: how many vectors, whose, how long, finite, not zero.

The servers that speak this protocol differ, and a wrong vector looks like a right one. So an answer is taken as a
claim, and every part of it that can be checked is checked before anybody sees a number.
"""

from __future__ import annotations

import binascii
import math
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

import jiter
import numpy as np
import pybase64

from voxvec.errors import ResponseError, redact

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Decoded", "decode", "largest_reply"]

_UNKNOWN_DIMS = 8_192  # twice the longest vectors of any model known
_FLOAT_CHARS = 48  # a float64 with sign, exponent and comma on a line of its own, indented four deep


class Decoded(NamedTuple):
    """A checked answer.

    Attributes:
        vectors: In the order asked, shape ``(n, dims)``, float32.
        tokens: What the server counted, or None if it did not.
        model: What the server calls itself, or None.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int | None
    model: str | None


def largest_reply(n: int, dims: int | None) -> int:
    """Size that no honest answer with ``n`` vectors exceeds, however it is laid out [bytes].

    A guard against bodies that do not end, not a check.
    """
    return n * ((dims or _UNKNOWN_DIMS) * _FLOAT_CHARS + 256) + 2**20


def decode(
    body: bytes,
    n: int,
    dims: int | None,
    *,
    out: npt.NDArray[np.float32] | None = None,
    content_type: str | None = None,
) -> Decoded:
    """Read an answer of ``/embeddings``.

    Args:
        body: What came.
        n: How many texts were asked for.
        dims: How long the vectors must be; None takes any one length.
        out: Where to put the vectors, shape ``(n, dims)``; of no worth if an error is raised.
        content_type: Media type that the server claimed, for the message.

    Raises:
        ResponseError: The answer breaks the contract; ``positions`` count from the first text of the request.

    Source:
        https://platform.openai.com/docs/api-reference/embeddings: base64 is little-endian float32.
    """
    reply = _parse(body, content_type)
    items = _items(reply, n)
    order = _order(items, n)
    vectors = _place(items, order, dims, out)
    _check_numbers(vectors)
    usage, model = reply.get("usage"), reply.get("model")
    return Decoded(vectors, _tokens(usage), model if isinstance(model, str) and model else None)


def _bad(what: str, *positions: int) -> NoReturn:
    raise ResponseError(
        f"the server answered with success, but {what}. Nothing of the answer was used; it was probably billed",
        kind="malformed",
        billed="maybe",
        status=200,
        positions=positions,
    )


def _object(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _parse(body: bytes, content_type: str | None) -> dict[str, object]:
    try:
        reply = _object(jiter.from_json(body, cache_mode="keys"))
    except ValueError:
        reply = None
    if reply is None:
        start = redact(body[:80].decode("utf-8", "replace"))
        _bad(f"what came is no JSON object ({content_type or 'no content type'}): {start!r}")
    if reply.get("error"):
        _bad(f"what came is an error: {redact(str(reply['error']))[:300]}")
    return reply


def _items(reply: dict[str, object], n: int) -> list[dict[str, object]]:
    data = reply.get("data")
    items = [_object(item) for item in cast("list[object]", data)] if isinstance(data, list) else [None]
    whole = [item for item in items if item is not None]
    if len(whole) != len(items):
        _bad("there is no list of vectors in it")
    if len(items) != n:
        _bad(f"there are {len(items)} vectors in it for {n} texts")
    return whole


def _order(items: list[dict[str, object]], n: int) -> list[int]:
    """Which text each item belongs to. Without any index the order of the items is taken, half an index is none."""
    claims = [item.get("index") for item in items]
    if all(claim is None for claim in claims):
        return list(range(n))
    order = [claim for claim in claims if isinstance(claim, int) and not isinstance(claim, bool)]
    if len(order) != n or sorted(order) != list(range(n)):
        missing = sorted(set(range(n)).difference(order))
        _bad(f"its indexes are not 0 to {n - 1}, each once; missing: {missing[:10]}", *missing)
    return order


def _place(
    items: list[dict[str, object]], order: list[int], dims: int | None, out: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    first = _vector(items[0].get("embedding"), order[0])
    width = len(first) if dims is None else dims
    if width == 0:
        _bad("its vectors are empty")
    vectors = np.empty((len(items), width), np.float32) if out is None else out
    for item, position in zip(items, order, strict=True):
        row = _vector(item.get("embedding"), position)
        if len(row) != width:
            _bad(f"vector {position} has {len(row)} dimensions instead of {width}", position)
        vectors[position] = row
    return vectors


def _vector(value: object, position: int) -> npt.NDArray[np.float32]:
    if isinstance(value, str):
        return _from_base64(value, position)
    numbers = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(number, float | int) and not isinstance(number, bool) for number in numbers):
        _bad(f"vector {position} is neither base64 nor a list of numbers", position)
    try:
        with np.errstate(over="ignore"):
            return np.asarray(numbers, np.float64).astype(np.float32)
    except OverflowError:
        _bad(f"vector {position} holds a number that is no float", position)


def _from_base64(text: str, position: int) -> npt.NDArray[np.float32]:
    try:
        raw = pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _bad(f"vector {position} is no valid base64", position)
    if len(raw) % 4:
        _bad(f"vector {position} has {len(raw)} bytes, which is no whole number of float32", position)
    row = np.frombuffer(raw, np.dtype("<f4"))
    return row if sys.byteorder == "little" else row.astype(np.float32)


def _check_numbers(vectors: npt.NDArray[np.float32]) -> None:
    # One product per row finds NaN, infinity and zero at once, and leaves the exact question to the rows it finds.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    for position in map(int, np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))):
        row = vectors[position]
        if not np.isfinite(row).all():
            _bad(f"vector {position} holds a number that is not finite", position)
        if not row.any():
            _bad(f"vector {position} is zero", position)


def _tokens(value: object) -> int | None:
    """What was counted; servers that do not count send nothing, null or 0."""
    usage = _object(value) or {}
    for name in ("prompt_tokens", "total_tokens"):
        count = usage.get(name)
        if isinstance(count, int | float) and not isinstance(count, bool) and math.isfinite(count) and count > 0:
            return int(count)
    return None
