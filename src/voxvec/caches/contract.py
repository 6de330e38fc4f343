"""What a cache is, for those who use one and those who write one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Cache", "CacheStats", "Leasing"]


@runtime_checkable
class Cache(Protocol):
    """Rows by key. Any object with these three methods will do.

    They are called from any thread, many keys at a time. Keys are digests of 32 bytes, rows are
    opaque bytes that carry their own checksum: the caller verifies what it gets, so a cache may
    lose rows, or give back damaged ones, and do no harm. A cache that cannot be reached gives no
    rows and drops what it is told to keep; it does not raise for that.
    """

    def get_many(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]:
        """Rows of those keys that are known; an unknown key is absent from the answer."""
        ...

    def set_many(self, rows: Mapping[bytes, bytes], /) -> None:
        """Keep these rows, all that can be kept, before returning."""
        ...

    def discard(self, keys: Sequence[bytes], /) -> None:
        """Forget these rows, which turned out damaged; an unknown key is fine."""
        ...


@runtime_checkable
class Leasing(Protocol):
    """What a cache may offer besides, so that of several processes that share it only one buys each answer.

    Called like the methods of `Cache`. A cache that cannot tell grants what is asked for.
    """

    def lease(self, keys: Sequence[bytes], seconds: float, /) -> Mapping[bytes, bytes | None]:
        """Take on the buying of these.

        Args:
            keys: What is about to be bought.
            seconds: How long at most; a lease ends sooner when its row is stored, or it is released, or the process
                that holds it is known to have died [s].

        Returns:
            Those that nobody else is buying, each with the row that the cache has for it by now; None for no row.
        """
        ...

    def release(self, keys: Sequence[bytes], /) -> None:
        """Leave these to others; what is not held is fine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """How a cache is doing.

    ``rows`` and ``bytes`` describe what is kept, the other counts what this object did in this
    process since it was made.

    Attributes:
        rows: Rows kept.
        bytes: Room they take: keys and rows in memory, pages in use in a file [bytes].
        hits: Keys that were found.
        misses: Keys that were not.
        stored: Rows taken in; one that gives way to a wider one already there counts too.
        dropped: Rows that could not be kept, so their answers will be bought again.
        damaged: Rows that were discarded as damaged.
        waiting: Rows that wait to be written, while another process keeps the file locked.
        path: File they are in; None in memory.
        journal_mode: How the file is kept whole, such as ``"wal"`` or ``"truncate"``; None in memory.
    """

    rows: int
    bytes: int
    hits: int
    misses: int
    stored: int
    dropped: int
    damaged: int
    waiting: int = 0
    path: Path | None = None
    journal_mode: str | None = None
