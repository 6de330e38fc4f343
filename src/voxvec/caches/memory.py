"""Rows in this process's memory, the least recently used leaving first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from voxvec.caches.contract import CacheStats
from voxvec.caches.forking import ForkableLock
from voxvec.errors import ConfigError
from voxvec.rows import width_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MemoryCache"]


class MemoryCache:
    """Rows in memory, shared by the threads of this process and gone with it.

    When the rows outgrow ``max_bytes``, the least recently used leave. A vector gives way to one
    at least as wide, never to a narrower one.

    Args:
        max_bytes: Room for keys and rows [bytes]; Python's own overhead, about 0.2 KB a row, comes on top.

    Raises:
        ConfigError: ``max_bytes`` is negative.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self._max_bytes = _checked(max_bytes)
        self._rows: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = ForkableLock()
        self._bytes = self._hits = self._misses = self._stored = self._dropped = self._damaged = 0

    def __repr__(self) -> str:
        return f"MemoryCache(max_bytes={self._max_bytes})"

    def get_many(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]:
        """Rows of those keys that are known; an unknown key is absent from the answer."""
        wanted = dict.fromkeys(keys)
        with self._lock:
            found = {key: row for key in wanted if (row := self._rows.get(key)) is not None}
            for key in found:
                self._rows.move_to_end(key)
            self._hits += len(found)
            self._misses += len(wanted) - len(found)
        return found

    def set_many(self, rows: Mapping[bytes, bytes], /) -> None:
        """Keep these rows, all that fit."""
        with self._lock:
            for key, row in rows.items():
                self._set(key, row)
            self._shrink(self._max_bytes)

    def _set(self, key: bytes, row: bytes) -> None:
        if len(key) + len(row) > self._max_bytes:
            self._dropped += 1
            return
        self._stored += 1
        known = self._rows.get(key)
        if known is None or width_of(row) >= width_of(known):
            self._forget(key)
            # A copy, should the caller's bytes be a bytearray that it goes on using.
            self._rows[key] = bytes(row)
            self._bytes += len(key) + len(row)

    def _forget(self, key: bytes) -> int:
        row = self._rows.pop(key, None)
        if row is None:
            return 0
        self._bytes -= len(key) + len(row)
        return 1

    def _shrink(self, max_bytes: int) -> int:
        before = len(self._rows)
        while self._bytes > max_bytes:
            self._forget(next(iter(self._rows)))
        return before - len(self._rows)

    def discard(self, keys: Sequence[bytes], /) -> None:
        """Forget these rows, which turned out damaged; an unknown key is fine."""
        with self._lock:
            self._damaged += sum(self._forget(key) for key in keys)

    def stats(self) -> CacheStats:
        """How it is doing."""
        with self._lock:
            return CacheStats(
                rows=len(self._rows),
                bytes=self._bytes,
                hits=self._hits,
                misses=self._misses,
                stored=self._stored,
                dropped=self._dropped,
                damaged=self._damaged,
            )

    def clear(self) -> int:
        """Forget all rows, and say how many those were."""
        return self.prune(max_bytes=0)

    def prune(self, *, max_bytes: int) -> int:
        """Forget the least recently used rows until the rest takes no more than this.

        Args:
            max_bytes: Room to be left in use [bytes]. The limit for rows to come stays what it was.

        Returns:
            How many rows were forgotten.

        Raises:
            ConfigError: ``max_bytes`` is negative.
        """
        with self._lock:
            return self._shrink(_checked(max_bytes))


def _checked(max_bytes: int) -> int:
    if max_bytes < 0:
        raise ConfigError(f"max_bytes must be 0 or more, not {max_bytes}")
    return max_bytes
