"""What a test orders from the fake server, checked when it is ordered: a wrong order must not look like a wrong answer.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, cast

from voxvec.local.brain import HeardSegment

__all__ = ["check_fault", "check_text", "models", "segment"]

_FAULTS: Final = range(400, 600)


def models(given: object) -> dict[str, int]:
    """Names and dims of further models.

    Raises:
        TypeError: They are no mapping from str to int.
        ValueError: A model would have no dims.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"models must be a mapping from names to dims, such as {{'tiny': 8}}, not {_type(given)}")
    made: dict[str, int] = {}
    for name, dims in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a model must be a str, not {_type(name)}")
        made[name] = _integer(dims, f"the dims of {name!r}", 1)
    return made


def check_text(text: object) -> None:
    """Let a transcript pass.

    Raises:
        TypeError: It is no str.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {_type(text)}")


def segment(given: object) -> HeardSegment:
    """A segment out of its text, start [s], end [s] and perhaps speaker.

    Raises:
        TypeError: It is no sequence, or one of these is of another type.
        ValueError: It has fewer or more fields, or ends before it starts.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"a segment must be a tuple of text, start, end and perhaps speaker, not {_type(given)}")
    fields = cast("Sequence[object]", given)
    if len(fields) not in {3, 4}:
        raise ValueError(f"a segment has text, start, end and perhaps speaker, not {len(fields)} fields: {given!r}")
    text, speaker = fields[0], fields[3] if len(fields) == 4 else "A"  # noqa: PLR2004 -- that many with a speaker
    if not isinstance(text, str) or not isinstance(speaker, str):
        raise TypeError(f"text and speaker of a segment must be str: {given!r}")
    start, end = _seconds(fields[1], "the start of a segment"), _seconds(fields[2], "the end of a segment")
    if start > end:
        raise ValueError(f"a segment must not end before it starts: {given!r}")
    return HeardSegment(text, start, end, speaker)


def check_fault(status: object, times: object, retry_after: object) -> None:
    """Let a fault pass.

    Raises:
        TypeError: A number is none.
        ValueError: A number is out of range.
    """
    if _integer(status, "status", 0) not in _FAULTS:
        raise ValueError(f"status must be that of an error, 400 to 599, not {status}")
    _integer(times, "times", 1)
    if retry_after is not None:
        _seconds(retry_after, "retry_after")


def _integer(value: object, what: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be an int, not {_type(value)}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, not {value}")
    return value


def _seconds(value: object, what: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{what} must be a number of seconds, not {_type(value)}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{what} must be 0 s or more, not {value}")
    return value


def _type(value: object) -> str:
    return type(value).__name__
