"""What a test orders from the fake server, checked when it is ordered: a wrong order must not look like a wrong answer.

Pure.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from voxvec.local.brain import HeardSegment
from voxvec.local.mutations import MUTATIONS

if TYPE_CHECKING:
    from voxvec.local.faults import Fault

__all__ = [
    "check_callable",
    "check_error",
    "check_fault",
    "check_rate",
    "check_rule",
    "check_seconds",
    "check_text",
    "models",
    "segment",
]

_ERRORS: Final = range(400, 600)
_STATUSES: Final = range(200, 600)
_INTERIM: Final = (100, *range(102, 200))
_RESETS: Final = ("before", "headers", "body")


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
    start, end = check_seconds(fields[1], "the start of a segment"), check_seconds(fields[2], "the end of a segment")
    if start > end:
        raise ValueError(f"a segment must not end before it starts: {given!r}")
    return HeardSegment(text, start, end, speaker)


def check_error(status: object, times: object, retry_after: object) -> None:
    """Let the order of an error pass.

    Raises:
        TypeError: A number is none.
        ValueError: A number is out of range.
    """
    if _integer(status, "status", 0) not in _ERRORS:
        raise ValueError(f"status must be that of an error, 400 to 599, not {status}")
    _integer(times, "times", 1)
    if retry_after is not None:
        check_seconds(retry_after, "retry_after")


def check_fault(fault: Fault) -> None:
    """Let a fault pass that can be done.

    Raises:
        TypeError: A field is of another type.
        ValueError: A field is out of range, or goes together with no other that is set.
    """
    if fault.status is not None and _integer(fault.status, "status", 0) not in _STATUSES:
        raise ValueError(f"status must be 200 to 599, not {fault.status}")
    if fault.status is None and (fault.retry_after, fault.code, fault.body) != (None, None, None):
        raise ValueError("retry_after, code and body belong to an answer with a status of its own: set status")
    if fault.retry_after is not None:
        check_seconds(fault.retry_after, "retry_after")
    check_seconds(fault.delay, "delay")
    _check_spoil(fault)
    _check_wire(fault)
    _check_company(fault)


def _check_spoil(fault: Fault) -> None:
    spoil = fault.spoil
    if isinstance(spoil, str) and spoil not in MUTATIONS:
        near = difflib.get_close_matches(spoil, MUTATIONS, 3)
        raise ValueError(f"spoil must be a name in MUTATIONS or a function, not {spoil!r}; near: {near}")
    if spoil is not None and not isinstance(spoil, str) and not callable(spoil):
        raise TypeError(f"spoil must be a name in MUTATIONS or a function, not {_type(spoil)}")


def _check_wire(fault: Fault) -> None:
    if fault.trickle is not None:
        _check_trickle(fault.trickle)
    for name in ("cut", "content_length"):
        if getattr(fault, name) is not None:
            _integer(getattr(fault, name), name, -(2**63))
    if fault.content_length == 0:
        raise ValueError("content_length is how much too much the header says; 0 would be right")
    if fault.reset not in (None, *_RESETS):
        raise ValueError(f"reset must be one of {', '.join(map(repr, _RESETS))}, not {fault.reset!r}")
    _check_bytes(fault.raw, "raw")
    if not all(status in _INTERIM for status in fault.interim):
        raise ValueError(f"interim must be statuses from 100 to 199 without 101, not {fault.interim!r}")


def _check_trickle(given: object) -> None:
    pair = cast("tuple[object, ...]", given) if isinstance(given, tuple) else ()
    if len(pair) != 2:  # noqa: PLR2004 -- a pair
        raise TypeError(f"trickle must be a tuple of bytes and seconds, not {given!r}")
    _integer(pair[0], "the bytes of trickle", 1)
    check_seconds(pair[1], "the pause of trickle")


def _check_bytes(value: object, what: str) -> None:
    if value is not None and not isinstance(value, bytes):
        raise TypeError(f"{what} must be bytes, not {_type(value)}")


def _check_company(fault: Fault) -> None:
    answers = [name for name in ("status", "spoil", "raw", "silent") if getattr(fault, name) not in (None, False)]
    if len(answers) > 1:
        raise ValueError(f"{' and '.join(answers)} are different answers; order one")
    endings = [name for name in ("cut", "reset", "content_length") if getattr(fault, name) is not None]
    if len(endings) > 1 or (endings and answers in (["raw"], ["silent"])):
        raise ValueError(f"{' and '.join([*answers, *endings])} cannot both happen to one answer; order one")
    if fault.before_body and answers not in (["status"], ["raw"], ["silent"]):
        raise ValueError("before_body needs an answer that does not depend on the body: set status, raw or silent")
    if not fault.happens:
        raise ValueError("a fault needs at least one thing that goes wrong")


def check_rule(fault: object, numbers: Iterable[object], times: object, chance: object, asked: int) -> None:
    """Let the order of a fault pass: for which requests, how many of them and how likely.

    Args:
        fault: What is to happen.
        numbers: Of the requests, from 1.
        times: How many requests; None for any number.
        chance: Probability for each request.
        asked: How many requests have been answered already.

    Raises:
        TypeError: One is of another type.
        ValueError: One is out of range.
    """
    if not getattr(fault, "happens", False):
        raise TypeError(f"fault must be a Fault, not {_type(fault)}")
    for number in numbers:
        if _integer(number, "at", 1) <= asked:
            raise ValueError(f"request {number} is over: {asked} have been asked already")
    if times is not None:
        _integer(times, "times", 1)
    if not isinstance(chance, (int, float)) or isinstance(chance, bool):
        raise TypeError(f"chance must be a number, not {_type(chance)}")
    if not 0 < chance <= 1:
        raise ValueError(f"chance must be above 0 and at most 1, not {chance}")


def check_callable(value: object, what: str) -> None:
    """Let a function pass, or None.

    Raises:
        TypeError: It cannot be called.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{what} must be a function, not {_type(value)}")


def check_rate(value: object, what: str, *, optional: bool = True) -> None:
    """Let a number above 0 pass, or None.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above 0.
    """
    if value is None and optional:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{what} must be a number, not {_type(value)}")
    if not 0 < value < math.inf:
        raise ValueError(f"{what} must be above 0, not {value}")


def _integer(value: object, what: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be an int, not {_type(value)}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, not {value}")
    return value


def check_seconds(value: object, what: str) -> float:
    """Let a length of time pass [s].

    Raises:
        TypeError: It is no number.
        ValueError: It is below 0 or infinite.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{what} must be a number of seconds, not {_type(value)}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{what} must be 0 s or more, not {value}")
    return value


def _type(value: object) -> str:
    return type(value).__name__
