"""The key as it is held in memory: a text to whoever sends it, nothing to whoever shows it."""

from __future__ import annotations

from typing import NoReturn, overload

__all__ = ["hidden"]


class _Key(str):
    __slots__ = ()

    # Debuggers, error trackers and ``traceback`` show the variables of every frame by their repr.
    def __repr__(self) -> str:
        return "<key>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key cannot be pickled; read it anew in each process")


@overload
def hidden(key: str) -> str: ...
@overload
def hidden(key: str | None) -> str | None: ...
def hidden(key: str | None) -> str | None:
    """The same text, which shows and pickles no longer; what is no text stays as it is."""
    return _Key(key) if isinstance(key, str) else key
