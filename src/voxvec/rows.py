"""What a cached row looks like: one answer of a server as bytes that prove themselves.

A row carries its own key, its length and a checksum, so whoever reads it knows whether it
is whole, of a known version, and the one that was asked for. Anything else is a miss, and
no byte of it is ever executed. Nothing here knows where rows are kept.

Layout of version 1, little-endian::

    offset  bytes
         0      4  b"vvrw"
         4      1  version of the layout: 1
         5      1  kind: 1 float32 vector, 2 JSON document
         6      2  n, bytes of the model's name
         8      4  width: dims of a vector, bytes of a document
        12      4  tokens it cost, 0xFFFFFFFF if unknown
        16     32  key
        48      n  name of the model as served, UTF-8, then zeros up to a multiple of 8
         …      …  payload: the vector's float32 numbers, or the document in UTF-8
        -4      4  CRC-32 (as in zlib) of everything before
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import NamedTuple

__all__ = ["KEY_BYTES", "Kind", "Row", "pack", "unpack", "width_of"]

KEY_BYTES = 32
"""Length of every key [bytes]."""

_MAGIC, _VERSION = b"vvrw", 1
_HEAD = struct.Struct("<4sBBHII32s")
_SUM = struct.Struct("<I")
_WIDTH = struct.Struct("<I")
_WIDTH_AT, _KEY_AT = 8, 16
_START = _MAGIC + bytes([_VERSION])
_UNKNOWN = 0xFFFFFFFF
_LONGEST_NAME = 0xFFFF
_SHORTEST = _HEAD.size + _SUM.size


class Kind(IntEnum):
    """What the payload of a row is."""

    VECTOR = 1
    """``width`` float32 numbers, little-endian."""
    DOCUMENT = 2
    """A JSON document in UTF-8, ``width`` bytes long."""


# By plain number: looking up a member of an enum costs as much as the rest of the head.
_KINDS = {1: (Kind.VECTOR, 4), 2: (Kind.DOCUMENT, 1)}


class Row(NamedTuple):
    """One row that was found whole.

    Attributes:
        kind: What the payload is.
        width: Dims of a vector, bytes of a document.
        tokens: Tokens the server counted for it; None if unknown.
        model: Name of the model as served.
        payload: Read-only view of the row's bytes, not a copy; a vector's begins at a multiple of 8.
    """

    kind: Kind
    width: int
    tokens: int | None
    model: str
    payload: memoryview


def pack(key: bytes, payload: bytes | memoryview, *, kind: Kind, width: int, tokens: int | None, model: str) -> bytes:
    """Make a row.

    Args:
        key: Digest the row is found by, 32 bytes.
        payload: ``width`` float32 numbers (little-endian), or a document of ``width`` bytes.
        kind: Which of the two.
        width: Dims of a vector, bytes of a document; below 2**32.
        tokens: Tokens the server counted for it, below 2**32 - 1; None if unknown.
        model: Name of the model as served, at most 65,535 bytes of UTF-8.

    Returns:
        The row, whatever `unpack` needs to prove it.

    Raises:
        ValueError: The arguments contradict each other or do not fit; the message names which.
    """
    name = model.encode("utf-8", "surrogatepass")
    _check_head(key, tokens, len(name))
    _check_payload(memoryview(payload).nbytes, kind, width)
    head = _HEAD.pack(_MAGIC, _VERSION, kind, len(name), width, _UNKNOWN if tokens is None else tokens, key)
    start = head + name + bytes(-len(name) % 8)
    return b"".join((start, payload, _SUM.pack(zlib.crc32(payload, zlib.crc32(start)))))


def _check_head(key: bytes, tokens: int | None, name: int) -> None:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    if tokens is not None and not 0 <= tokens < _UNKNOWN:
        raise ValueError(f"tokens must be from 0 to {_UNKNOWN - 1} or None, not {tokens}")
    if name > _LONGEST_NAME:
        raise ValueError(f"a model's name has at most {_LONGEST_NAME} bytes, not {name}")


def _check_payload(size: int, kind: Kind, width: int) -> None:
    if not 0 <= width <= _UNKNOWN or size != width * _KINDS[kind.value][1]:
        raise ValueError(f"a {kind.name.lower()} of width {width} cannot have {size} bytes")


def unpack(key: bytes, blob: bytes) -> Row | None:
    """Read a row, if it is whole and the right one.

    Args:
        key: Key it was asked for by.
        blob: What the cache gave for that key; any bytes at all.

    Returns:
        The row, or None if the bytes are damaged, of another version, or another key's row.
    """
    if len(blob) < _SHORTEST or blob[:5] != _START or blob[_KEY_AT : _KEY_AT + KEY_BYTES] != key:
        return None
    view = memoryview(blob)
    end = len(blob) - _SUM.size
    if zlib.crc32(view[:end]) != _SUM.unpack_from(blob, end)[0]:
        return None
    _, _, number, length, width, tokens, _ = _HEAD.unpack_from(blob)
    kind, unit = _KINDS.get(number, (None, 0))
    begin = _HEAD.size + length + -length % 8
    if kind is None or end - begin != width * unit:
        return None
    try:
        model = blob[_HEAD.size : _HEAD.size + length].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return Row(kind, width, None if tokens == _UNKNOWN else tokens, model, view[begin:end])


def width_of(blob: bytes) -> int:
    """Width that a row's head claims; 0 for bytes that are no row of this version."""
    if len(blob) < _SHORTEST or blob[:5] != _START:
        return 0
    width: int = _WIDTH.unpack_from(blob, _WIDTH_AT)[0]
    return width
