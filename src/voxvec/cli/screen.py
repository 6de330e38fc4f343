"""What a user sees: results on stdout, remarks and progress on stderr; times, money and columns."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from decimal import Decimal

__all__ = ["Json", "clock", "columns", "count", "money", "progress", "say", "show", "show_json", "visible"]

Json: TypeAlias = "str | float | bool | Sequence[Json] | Mapping[str, Json] | None"


def show(text: str) -> None:
    """Print a result."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def show_json(value: Json) -> None:
    """Print a result for machines: one JSON object."""
    show(json.dumps(value, ensure_ascii=False, indent=2))


def say(remark: str) -> None:
    """Print a remark or an error, in one line."""
    sys.stderr.write(f"voxvec: {' '.join(visible(remark).split())}\n")


def visible(text: str) -> str:
    """The text without what a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


def clock(seconds: float) -> str:
    """A time for reading, such as ``1:02:03.4`` or ``0:05.0``.

    Args:
        seconds: The time [s].
    """
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{start}:{tenths // 10:02}.{tenths % 10}"


def count(n: int, thing: str) -> str:
    """How many there are of something, such as ``1 text`` or ``2,000 texts``."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def money(dollars: Decimal | None) -> str:
    """A price, to its last digit."""
    return "cost unknown" if dollars is None else f"${dollars.normalize():f}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Lines whose cells stand below each other; never cut, however narrow the terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


@contextmanager
def progress(what: str, total: int, *, hidden: bool = False) -> Generator[Callable[[int, int], None]]:
    """Show how far long work is, on stderr and only if that is a terminal.

    Args:
        what: What is done.
        total: Of how many; a single one is not worth a bar.
        hidden: Whether results are shown meanwhile, which a bar would garble.

    Yields:
        A function to be called with how many are done, and of how many.
    """
    if hidden or total <= 1 or not sys.stderr.isatty():
        yield _ignore
        return
    from rich.console import Console  # noqa: PLC0415 -- takes 60 ms, and most commands need no bar
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Redirecting stdout would send results to stderr.
    with Progress(*parts, console=Console(stderr=True), transient=True, redirect_stdout=False) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda done, of: bars.update(bar, completed=done, total=of)


def _ignore(done: int, of: int) -> None:
    """Show nothing."""
