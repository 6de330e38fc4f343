"""How a long call shows how far it is."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from voxvec.errors import ConfigError, VoxvecWarning

__all__ = ["Progress", "Tell", "reporter"]

Progress: TypeAlias = bool | Callable[[int, int], None]
"""True for a line on standard error, or a function that is told what is done and of how many."""


Tell: TypeAlias = Callable[[Callable[[], int]], None]
"""Takes a function that counts what is done; it is called only if anybody wants to know."""


def reporter(progress: Progress, total: int, what: str) -> Tell:
    """What to call whenever something got done, with a function that counts how much is.

    Args:
        progress: What the user asked for.
        total: How many there are in all.
        what: What they are, for the line.
    """
    if not progress or not total:
        return lambda _: None
    if progress is not True and not callable(progress):
        raise ConfigError(
            f"progress must be True, False or a function of what is done and of how many, not {progress!r}"
        )
    show = partial(_line, what=what) if progress is True else progress
    shown, said = -1, False

    def tell(count: Callable[[], int]) -> None:
        nonlocal shown, said
        done = count()
        # What is done is told when a part comes and when all have come, which is often the same.
        if done != shown:
            shown = done
            try:
                show(done, total)
            except Exception as error:  # noqa: BLE001 -- a stranger's function may raise anything
                kind = type(error).__name__
            else:
                return
            if not said:  # the type alone: what it says may hold anything
                said = True
                warnings.warn(f"showing progress raised {kind}; the call goes on", VoxvecWarning, stacklevel=2)

    return tell


def _line(done: int, total: int, what: str) -> None:
    end = "\n" if done >= total or not sys.stderr.isatty() else ""
    start = "\r" if sys.stderr.isatty() else ""
    print(f"{start}{done:,} of {total:,} {what} ({done / total:.0%})", end=end, file=sys.stderr, flush=True)  # noqa: T201 -- it was asked for
