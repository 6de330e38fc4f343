"""What may be embedded: any column of texts in, a plain list out, with every text that cannot be sent named.

Pure. pandas, polars and NumPy are recognised by what their objects can do, never imported.
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

from voxvec.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["as_list", "check", "note", "refused", "walk"]

_SHOWN = 10


def as_list(texts: Iterable[str]) -> list[Any]:
    """The texts as a list, unchecked.

    Raises:
        InputError: It is a single text, or nothing that can be gone through.
    """
    _refuse_whole(texts, "embed()")
    for method in ("to_list", "to_pylist", "tolist"):  # polars and pandas, Arrow, NumPy
        convert = getattr(texts, method, None)
        if callable(convert):
            values = convert()
            return [*values] if isinstance(values, list) else [values]
    return [*texts] if isinstance(texts, list | tuple) else list(walk(texts))


def walk(texts: Iterable[str], verb: str = "embed()") -> Iterator[Any]:
    """The texts one by one, unchecked; what their source raises is told how far it came.

    Raises:
        InputError: It is a single text, or nothing that can be gone through.
    """
    _refuse_whole(texts, verb)
    try:
        source = iter(texts)
    except TypeError:
        raise InputError(f"texts must be an iterable of str, not {type(texts).__name__}. Nothing was sent") from None
    return _walk(source)


def _walk(source: Iterator[Any]) -> Iterator[Any]:
    position = 0
    while True:
        try:
            text = next(source)
        except StopIteration:
            return
        except Exception as error:
            note(error, position)
            raise
        yield text
        position += 1


def note(error: Exception, position: int) -> None:
    """Write on the error of a source of texts where it was raised."""
    error.add_note(f"voxvec: raised by the iterable of texts, instead of text {position}")


def _refuse_whole(texts: object, verb: str) -> None:
    if isinstance(texts, str | bytes | bytearray):
        raise InputError(f"{verb} takes many texts; for one, use embed_one(text). Nothing was sent")
    if hasattr(texts, "columns"):
        raise InputError("texts must be one column, not a table of several; pick one. Nothing was sent")


def check(texts: Sequence[object]) -> dict[int, str]:
    """Positions of the texts that cannot be sent, each with the reason."""
    return {position: reason for position, text in enumerate(texts) if (reason := _fault(text))}


def _fault(text: object) -> str:
    if not isinstance(text, str):
        kind = type(text).__name__
        hint = ": tokens are not taken, give the text" if kind in {"list", "tuple"} else ""
        return "is missing" if _is_missing(text) else f"is of type {kind}{hint}"
    if not text:
        return "is empty"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "holds a lone surrogate, which no encoding can carry"
    return ""


def _is_missing(text: object) -> bool:
    # By name, because pandas' NA refuses to be compared even with itself.
    return text is None or type(text).__name__ in {"NAType", "NaTType"} or (isinstance(text, float) and isnan(text))


def refused(faults: dict[int, str], *, keepable: bool = True) -> InputError:
    """The error that names all of them.

    Args:
        faults: Reasons by position.
        keepable: Whether the call has the choice to go on without them.
    """
    named = "; ".join(f"text {position} {reason}" for position, reason in list(faults.items())[:_SHOWN])
    more = f"; … ({len(faults)} in all)" if len(faults) > _SHOWN else ""
    instead = ', or pass on_error="keep" to go on without them' if keepable else ""
    return InputError(f"{named}{more}. Nothing was sent or billed; leave them out{instead}", positions=sorted(faults))
