"""Rows that could not be written yet, because somebody else kept the file locked.

They wait for the next write, and are found meanwhile. Bounded, so that a lock that is never let go costs rows and not
memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxvec.caches.forking import ForkableLock
from voxvec.rows import width_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Backlog"]

MOST_ROWS = 1_000
"""Rows that wait at most."""
MOST_BYTES = 32 * 2**20
"""Room they take at most [bytes]."""


class Backlog:
    """Rows that wait to be written, the first to come the first to leave."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._bytes = 0
        self._lock = ForkableLock()

    def __len__(self) -> int:
        return len(self._rows)

    def with_waiting(self, rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """What waits and these, the wider of two for one key."""
        with self._lock:
            together = dict(self._rows)
        for key, row in rows.items():
            if width_of(row) >= width_of(together.get(key, b"")):
                together[key] = row
        return together

    def look(self, keys: Iterable[bytes], found: dict[bytes, bytes]) -> None:
        """Add to what the file gave what it does not have yet."""
        if self._rows:
            with self._lock:
                waiting = {key: self._rows[key] for key in keys if key in self._rows}
            for key, row in waiting.items():
                if width_of(row) >= width_of(found.get(key, b"")):
                    found[key] = row

    def wait(self, rows: Mapping[bytes, bytes]) -> int:
        """Let these wait, and say how many there was no room for."""
        dropped = 0
        with self._lock:
            for key, row in rows.items():
                if width_of(row) < width_of(self._rows.get(key, b"")):
                    continue
                self._forget(key)
                if len(self._rows) < MOST_ROWS and self._bytes + len(row) <= MOST_BYTES:
                    self._rows[key] = bytes(row)
                    self._bytes += len(row)
                else:
                    dropped += 1
        return dropped

    def written(self, rows: Mapping[bytes, bytes]) -> int:
        """Note that these are in the file, and say how many of them had been waiting."""
        if not self._rows:
            return 0
        with self._lock:
            narrower = [key for key, row in rows.items() if width_of(self._rows.get(key, b"")) <= width_of(row)]
            return sum(map(self._forget, narrower))

    def forget(self, keys: Iterable[bytes]) -> int:
        """Give these up, and say how many were waiting."""
        if not self._rows:
            return 0
        with self._lock:
            return sum(map(self._forget, keys))

    def clear(self) -> int:
        """Give all up, and say how many those were."""
        return self.forget(list(self._rows))

    def _forget(self, key: bytes) -> int:
        row = self._rows.pop(key, None)
        if row is None:
            return 0
        self._bytes -= len(row)
        return 1
