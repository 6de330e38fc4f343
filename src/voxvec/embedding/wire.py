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

__all__ = ["Decoded", "decode", "largest_reply", "malformed"]

_BOM = b"\xef\xbb\xbf"
_UNIT = (0.98**2, 1.02**2)  # squared length of a vector that is meant to have length 1, however coarse its numbers
_PLAUSIBLE = (1e-24, 1e24)  # squared length of a vector of any model: further out there are only misread bytes
_SWAPPED = 16  # how many vectors of odd length are looked at from the other end
_MANY = 16  # dims from which no honest vector has length 1 when its bytes are reversed
_UNKNOWN_DIMS = 8_192  # twice the longest vectors of any model known
_FLOAT_CHARS = 48  # a float64 with sign, exponent and comma on a line of its own, indented four deep


class Decoded(NamedTuple):
    """A checked answer.

    Attributes:
        vectors: In the order asked, shape ``(n, dims)``, float32.
        tokens: What the server counted, or None if it did not, or if it cannot be.
        model: What the server calls itself, or None.
        miscounted: Whether it counted something that cannot be.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int | None
    model: str | None
    miscounted: bool = False


def malformed(what: str, *positions: int, code: str | None = None) -> NoReturn:
    """Raise the error of an answer that breaks the contract.

    Raises:
        ResponseError: Always; ``positions`` count from the first text of the request.
    """
    raise ResponseError(
        f"the server answered with success, but {what}. Nothing of the answer was used; it was probably billed",
        kind="malformed",
        billed="maybe",
        status=200,
        code=code,
        positions=positions,
    )


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
    most_tokens: int = 2**31,
    unit: bool = False,
) -> Decoded:
    """Read an answer of ``/embeddings``.

    Args:
        body: What came.
        n: How many texts were asked for.
        dims: How long the vectors must be; None takes any one length.
        out: Where to put the vectors, shape ``(n, dims)``; of no worth if an error is raised.
        content_type: Media type that the server claimed, for the message.
        most_tokens: What the server can have counted at most [tokens].
        unit: Whether every vector must have length 1, give or take 2 %.

    Raises:
        ResponseError: The answer breaks the contract; ``positions`` count from the first text of the request.

    Source:
        https://platform.openai.com/docs/api-reference/embeddings: base64 is little-endian float32.
    """
    reply = _parse(body, content_type)
    items = _items(reply, n)
    order = _order(items, n)
    vectors = _place(items, order, dims, out)
    _check_numbers(vectors, unit=unit)
    model = reply.get("model")
    tokens, miscounted = _tokens(reply.get("usage"), n, most_tokens)
    return Decoded(vectors, tokens, redact(model)[:200] if isinstance(model, str) and model else None, miscounted)


def _object(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _parse(body: bytes, content_type: str | None) -> dict[str, object]:
    try:
        # An object that says two things under one name says nothing.
        parsed = jiter.from_json(body.removeprefix(_BOM), cache_mode="keys", catch_duplicate_keys=True)
        reply = _object(parsed)
    except ValueError:
        reply = None
    if reply is None:
        start = redact(body[:320].decode("utf-8", "replace"))[:80]
        malformed(f"what came is no JSON object ({content_type or 'no content type'}): {start!r}")
    if error := reply.get("error"):
        code = (_object(error) or {}).get("code")
        said = redact(str(error))[:300]
        malformed(f"what came is an error: {said}", code=redact(code)[:100] if isinstance(code, str) else None)
    return reply


def _items(reply: dict[str, object], n: int) -> list[dict[str, object]]:
    data = reply.get("data")
    items = [_object(item) for item in cast("list[object]", data)] if isinstance(data, list) else [None]
    whole = [item for item in items if item is not None]
    if len(whole) != len(items):
        malformed("there is no list of vectors in it")
    if len(items) != n:
        missing = _missing([item.get("index") for item in whole], n)
        named = f"; missing: {missing[:10]}" if missing else ""
        malformed(f"there are {len(items)} vectors in it for {n} texts{named}", *missing)
    return whole


def _missing(claims: list[object], n: int) -> list[int]:
    """Indexes that no item claims; none if none claims any."""
    claimed = {claim for claim in claims if isinstance(claim, int)}
    return sorted(set(range(n)).difference(claimed)) if claimed else []


def _order(items: list[dict[str, object]], n: int) -> list[int]:
    """Which text each item belongs to. Without any index the order of the items is taken, half an index is none."""
    claims = [item.get("index") for item in items]
    if all(claim is None for claim in claims):
        return list(range(n))
    order = [claim for claim in claims if isinstance(claim, int) and not isinstance(claim, bool)]
    if len(order) != n or sorted(order) != list(range(n)):
        missing = _missing(claims, n)
        malformed(f"its indexes are not 0 to {n - 1}, each once; missing: {missing[:10]}", *missing)
    return order


def _place(
    items: list[dict[str, object]], order: list[int], dims: int | None, out: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    first = _vector(items[0].get("embedding"), order[0])
    width = len(first) if dims is None else dims
    if width == 0:
        malformed("its vectors are empty")
    vectors = np.empty((len(items), width), np.float32) if out is None else out
    for item, position in zip(items, order, strict=True):
        row = _vector(item.get("embedding"), position)
        if len(row) != width:
            malformed(f"vector {position} has {len(row)} dimensions instead of {width}", position)
        vectors[position] = row
    return vectors


def _vector(value: object, position: int) -> npt.NDArray[np.float32]:
    if isinstance(value, str):
        return _from_base64(value, position)
    numbers = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(number, float | int) and not isinstance(number, bool) for number in numbers):
        malformed(f"vector {position} is neither base64 nor a list of numbers", position)
    try:
        with np.errstate(over="ignore"):
            return np.asarray(numbers, np.float64).astype(np.float32)
    except OverflowError:
        malformed(f"vector {position} holds a number that is no float", position)


def _from_base64(text: str, position: int) -> npt.NDArray[np.float32]:
    try:
        raw = pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        malformed(f"vector {position} is no valid base64", position)
    if len(raw) % 4:
        malformed(f"vector {position} has {len(raw)} bytes, which is no whole number of float32", position)
    row = np.frombuffer(raw, np.dtype("<f4"))
    return row if sys.byteorder == "little" else row.astype(np.float32)


def _check_numbers(vectors: npt.NDArray[np.float32], *, unit: bool) -> None:
    # One product per row finds NaN, infinity and zero at once, and leaves the exact question to the rows it finds.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    for position in map(int, np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))):
        row = vectors[position]
        if not np.isfinite(row).all():
            malformed(f"vector {position} holds a number that is not finite", position)
        if not row.any():
            malformed(f"vector {position} is zero", position)
    odd = np.flatnonzero(~_within(squares, _UNIT))
    if len(odd):
        _check_lengths(vectors, squares, odd, unit=unit)


def _within(squares: npt.NDArray[np.float32], bounds: tuple[float, float]) -> npt.NDArray[np.bool_]:
    return (squares >= bounds[0]) & (squares <= bounds[1])


def _check_lengths(
    vectors: npt.NDArray[np.float32], squares: npt.NDArray[np.float32], odd: npt.NDArray[np.intp], *, unit: bool
) -> None:
    """Tell misread vectors from those of a model whose vectors have any length."""
    # Of few numbers, honest ones may look like it by chance.
    some = odd[: _SWAPPED if unit or vectors.shape[1] >= _MANY else 0]
    with np.errstate(over="ignore", invalid="ignore"):
        swapped = vectors[some].byteswap()
        reversed_ = some[_within(np.einsum("ij,ij->i", swapped, swapped), _UNIT)]
    if len(reversed_):
        malformed(f"the bytes of vector {reversed_[0]} are in the wrong order (big-endian)", int(reversed_[0]))
    wild = odd[~_within(squares[odd], _PLAUSIBLE)]
    if len(wild):
        malformed(f"vector {wild[0]} has a length that no model gives", int(wild[0]))
    if unit:
        position = int(odd[0])
        malformed(
            f"vector {position} has length {math.sqrt(squares[position]):.3g}, and the model's have length 1; if that "
            "is not so here, describe the model with unit_length='unknown'",
            position,
        )


def _tokens(value: object, least: int, most: int) -> tuple[int | None, bool]:
    """What was counted, if it can be, and whether anything else was; servers that do not count send nothing or 0."""
    usage = {} if value is None else _object(value)
    if usage is None:
        return None, True
    said = [usage.get("prompt_tokens"), usage.get("total_tokens")]
    for count in said:
        if isinstance(count, int | float) and not isinstance(count, bool) and least <= count <= most:
            return int(count), False
    return None, any(count is not None and count != 0 for count in said)
