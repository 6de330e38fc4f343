"""What may be embedded: any column of texts in, a plain list out, with every text that cannot be sent named.

Pure. pandas, polars and NumPy are recognised by what their objects can do, never imported.
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

from voxvec.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["as_list", "check", "refused"]

_SHOWN = 10


def as_list(texts: Iterable[str]) -> list[Any]:
    """The texts as a list, unchecked.

    Raises:
        InputError: It is a single text, or nothing that can be gone through.
    """
    if isinstance(texts, str | bytes | bytearray):
        raise InputError("embed() takes many texts; for one, use embed_one(text). Nothing was sent")
    if hasattr(texts, "columns"):
        raise InputError("texts must be one column, not a table of several; pick one. Nothing was sent")
    for method in ("to_list", "to_pylist", "tolist"):  # polars and pandas, Arrow, NumPy
        convert = getattr(texts, method, None)
        if callable(convert):
            values = convert()
            return [*values] if isinstance(values, list) else [values]
    try:
        return list(texts)
    except TypeError:
        raise InputError(f"texts must be an iterable of str, not {type(texts).__name__}. Nothing was sent") from None


def check(texts: Sequence[object]) -> dict[int, str]:
    """Positions of the texts that cannot be sent, each with the reason."""
    return {position: reason for position, text in enumerate(texts) if (reason := _fault(text))}


def _fault(text: object) -> str:
    if not isinstance(text, str):
        return "is missing" if _is_missing(text) else f"is of type {type(text).__name__}"
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
