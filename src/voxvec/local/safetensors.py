"""Reads weights from a ``safetensors`` file, without copying and without trusting it.

Pure: bytes in, arrays out. Every length, type and offset is checked before it is used.

Source:
    The format's description at https://github.com/huggingface/safetensors: eight bytes of
    header length (little-endian), a JSON object, then the numbers.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

__all__ = ["parse"]

_TYPES: Final[dict[str, np.dtype[Any]]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8")}
_PREFIX: Final = 8


def parse(data: bytes | memoryview) -> dict[str, npt.NDArray[Any]]:
    """Arrays by name, as read-only views into ``data``.

    Raises:
        ValueError: The bytes are no such file, or say something that cannot be.
    """
    size = int.from_bytes(data[:_PREFIX], "little")
    if len(data) < _PREFIX or size > len(data) - _PREFIX:
        raise ValueError("the header is longer than the file")
    header = _object(bytes(data[_PREFIX : _PREFIX + size]))
    numbers = memoryview(data)[_PREFIX + size :].toreadonly()
    return {name: _array(name, entry, numbers) for name, entry in header.items() if name != "__metadata__"}


def _object(raw: bytes) -> dict[str, Any]:
    try:
        header: Any = json.loads(raw)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")  # noqa: TRY004 -- it is the file that is wrong
    return cast("dict[str, Any]", header)


def _array(name: str, entry: Any, numbers: memoryview) -> npt.NDArray[Any]:
    try:
        dtype, shape, (start, end) = _TYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        plausible = all(isinstance(number, int) and number >= 0 for number in (*shape, start, end))
    except (KeyError, TypeError, ValueError):
        plausible, dtype, shape, start, end = False, np.dtype("<f4"), (), 0, 0
    if not plausible or not start <= end <= len(numbers) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r} is described in a way that cannot be")
    array: npt.NDArray[Any] = np.frombuffer(numbers[start:end], dtype)
    return array.reshape(shape)
