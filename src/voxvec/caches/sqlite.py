"""Rows in one SQLite file, shared by threads, processes and runs.

A cache is never the reason a call fails: what cannot be read is a miss, what cannot be written
is dropped and counted, and one warning says so. Only a misconfiguration is refused.

The file is long because it holds what users read about the cache, and everything by which it never fails a call.
"""

from __future__ import annotations

import sqlite3
import time
import warnings
import weakref
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from voxvec.caches import place
from voxvec.caches.backlog import MOST_ROWS, Backlog
from voxvec.caches.contract import CacheStats
from voxvec.caches.forking import ForkableLock
from voxvec.caches.leases import Leases
from voxvec.caches.schema import Connection, NewerError, number
from voxvec.caches.store import SHORT_WAIT, BusyError, DamagedError, ForkedError, Store
from voxvec.errors import CacheError, ConfigError, VoxvecWarning
from voxvec.rows import width_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ["SqliteCache"]

_T = TypeVar("_T")


def _find(keys: int) -> str:
    marks = ",".join("?" * keys)
    # typeof: a file is no proof that the column holds what we put there.
    return f"SELECT key, value FROM rows WHERE key IN ({marks}) AND typeof(value) = 'blob'"  # noqa: S608 -- only marks


# Two sizes, the last block padded with its last key: 500 at once is fastest, but takes 0.3 ms however few are real.
_FIND = {500: _find(500), 50: _find(50)}
_SET = (
    "INSERT INTO rows (key, width, size, stored, value) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
    "width = excluded.width, size = excluded.size, stored = excluded.stored, value = excluded.value "
    "WHERE excluded.width >= rows.width"
)
_DISCARD = "DELETE FROM rows WHERE key = ?"
_REMOVE = "DELETE FROM rows WHERE id = ?"
_LAST = "SELECT coalesce(max(id), 0) FROM rows"
# Steps are small enough that nobody waits long behind one.
_OLDEST = "SELECT id, size FROM rows WHERE id <= ? ORDER BY id LIMIT 1000"
_OLDER = "SELECT id FROM rows WHERE id > ? AND stored < ? ORDER BY id LIMIT 1000"
_VACUUM = "PRAGMA incremental_vacuum(256)"

_MISUSE = (sqlite3.ProgrammingError, sqlite3.InterfaceError)
_SICK = (BusyError, DamagedError, ForkedError, NewerError, OSError, sqlite3.DatabaseError)
_LOCKED = (
    "is out of use ({}): answers in it are bought again, new ones wait in memory until it can be written, "
    f"{MOST_ROWS:,} rows at most"
)
_OUT_OF_USE = "is out of use ({}): answers in it are bought again, and new ones are not kept"


class _Kept:
    """A running call, and the last row before its own."""

    behind = 2**62


class SqliteCache:
    """Rows in one SQLite file, for any number of threads and processes of one machine.

    The file is made at the first use, readable by its owner only, in a folder that is made the
    same way if it is missing. Old rows leave in the order they came. A vector gives way to one at
    least as wide, never to a narrower one. Pickling carries the settings, not the rows.

    A damaged file is renamed to ``<name>.damaged-N`` and a new one begun; a file of a later
    version is left alone, and so are full, read-only and locked ones: rows that cannot be read
    are bought again, rows that cannot be written are dropped. While another process keeps the file
    locked, up to 1,000 rows wait for the next write, or for the end. One `VoxvecWarning` tells.

    Args:
        path: The file; ``~`` is your home.
        max_bytes: Room the rows may take; beyond it the oldest leave, but never those just
            stored, nor what a running call of this process has stored [bytes]. None for no limit.
        durability: ``"normal"``: what was stored survives the end of the process, however it
            ends; with a write-ahead log a power failure may take the last rows. ``"power"``: it
            survives that too, and storing takes longer.

    Raises:
        ConfigError: The path can be no file's, ``max_bytes`` is negative, or there is no such durability.
        CacheError: At the first use, not here: the file is not ours, or the place is not safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        durability: Literal["normal", "power"] = "normal",
    ) -> None:
        if durability not in {"normal", "power"}:
            raise ConfigError(f'durability must be "normal" or "power", not {durability!r}')
        _check(max_bytes=max_bytes)
        self._path = place.find(path)
        self._max_bytes = max_bytes
        self._durability: Literal["normal", "power"] = durability
        self._store = Store(self._path, sync="FULL" if durability == "power" else "NORMAL")
        self._backlog = Backlog()
        self._leases = Leases(self._path)
        weakref.finalize(self, _write_out, self._store, self._backlog)
        self._lock = ForkableLock()
        self._counts: Counter[str] = Counter()
        self._said = False
        self._running: set[_Kept] = set()

    def __repr__(self) -> str:
        return f"SqliteCache({str(self._path)!r})"

    def __reduce__(self) -> tuple[Callable[..., SqliteCache], tuple[str]]:
        return partial(SqliteCache, max_bytes=self._max_bytes, durability=self._durability), (str(self._path),)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write the rows that wait, if that is possible now, and close the file; a later call opens it again."""
        waiting = len(self._backlog)
        written = _write_out(self._store, self._backlog)
        self._count(stored=written, dropped=waiting - written)
        self._leases.close()
        self._store.close()

    @property
    def path(self) -> Path:
        """The file, as an absolute path."""
        return self._path

    @property
    def journal_reason(self) -> str:
        """Why the file has the journal mode it has; opens it.

        Raises:
            CacheError: The file cannot be used.
        """
        return self._insist(self._reason)

    def _reason(self) -> str:
        with self._store.reading():
            return self._store.journal_reason or ""

    # Using it

    def get_many(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]:
        """Rows of those keys that are known; an unknown key is absent from the answer.

        Raises:
            CacheError: At the first use: the file is not ours, or the place is not safe.
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, bytes] = {}
        if wanted:
            self._attempt(lambda: self._get(wanted, found))
            self._backlog.look(wanted, found)
        self._count(hits=len(found), misses=len(wanted) - len(found))
        return found

    def _get(self, wanted: list[bytes], found: dict[bytes, bytes]) -> bool:
        with self._store.reading() as connection:
            for block in _blocks(wanted):
                found.update(connection.execute(_FIND[len(block)], block))
        return True

    def set_many(self, rows: Mapping[bytes, bytes], /) -> None:
        """Keep these rows, in one transaction.

        Raises:
            CacheError: At the first use: the file is not ours, or the place is not safe.
        """
        if not rows:
            return
        late = len(self._backlog) > 0
        together = self._backlog.with_waiting(rows) if late else rows
        try:
            known = self._attempt(lambda: _set(self._store, together, SHORT_WAIT if late else None), wait=True)
        except BusyError:
            self._count(dropped=self._backlog.wait(rows))
            return
        if known is None:
            self._count(dropped=len(rows))
            return
        self._backlog.written(together)
        self._leases.let_go(together)
        self._count(stored=len(together))
        limit = self._max_bytes
        if limit is not None:
            oldest = self._oldest_kept(known)
            self._attempt(lambda: self._shrink(limit, up_to=oldest))

    @contextmanager
    def keeping(self) -> Generator[None]:
        """While a call runs, nothing that is stored meanwhile leaves for want of room."""
        call = _Kept()
        with self._lock:
            self._running.add(call)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(call)

    def _oldest_kept(self, known: int) -> int:
        """The last row that may leave, when everything behind ``known`` has just been stored."""
        with self._lock:
            for call in self._running:
                call.behind = min(known, call.behind)
            return min([known, *(call.behind for call in self._running)])

    def discard(self, keys: Sequence[bytes], /) -> None:
        """Forget these rows, which turned out damaged; an unknown key is fine.

        Raises:
            CacheError: At the first use: the file is not ours, or the place is not safe.
        """
        if keys:
            self._backlog.forget(keys)
            self._count(damaged=self._attempt(lambda: self._discard(keys)) or 0)

    def _discard(self, keys: Sequence[bytes]) -> int:
        with self._store.writing() as connection:
            return connection.executemany(_DISCARD, ((key,) for key in keys)).rowcount

    def lease(self, keys: Sequence[bytes], seconds: float, /) -> Mapping[bytes, bytes | None]:
        """Take on the buying of these, so that no other process buys them meanwhile; see `Leasing`."""
        mine = self._leases.take(keys, seconds)
        found: dict[bytes, bytes] = {}
        if mine:
            # Only now, for what was bought before this moment is stored, and what is bought after it is ours.
            self._attempt(lambda: self._get(mine, found))
            self._backlog.look(mine, found)
        return {key: found.get(key) for key in mine}

    def release(self, keys: Sequence[bytes], /) -> None:
        """Leave these to others."""
        self._leases.let_go(keys)

    # Looking after it

    def stats(self) -> CacheStats:
        """How it is doing.

        Raises:
            CacheError: The file cannot be used.
        """
        rows, size = self._insist(self._size)
        with self._lock:
            counts = dict(self._counts)
        return CacheStats(
            rows=rows,
            bytes=size,
            hits=counts.get("hits", 0),
            misses=counts.get("misses", 0),
            stored=counts.get("stored", 0),
            dropped=counts.get("dropped", 0),
            damaged=counts.get("damaged", 0),
            waiting=len(self._backlog),
            path=self._path,
            journal_mode=self._store.journal_mode,
        )

    def _size(self) -> tuple[int, int]:
        with self._store.reading() as connection:
            return number(connection, "SELECT count(*) FROM rows"), _in_use(connection)

    def clear(self) -> int:
        """Forget all rows, and say how many those were.

        Raises:
            CacheError: The file cannot be used.
        """
        return self.prune(max_bytes=0) + self._backlog.clear()

    def prune(self, *, max_bytes: int | None = None, older_than: float | None = None) -> int:
        """Forget old rows, the oldest first, and give the room back to the disk.

        It goes in small steps, so that others can work meanwhile.

        Args:
            max_bytes: Room to be left in use [bytes]; what is empty takes some too. None for no limit.
            older_than: Forget rows stored longer ago than this [s]. None for any age.

        Returns:
            How many rows were forgotten.

        Raises:
            ConfigError: A limit is negative.
            CacheError: The file cannot be used; steps that were done stay done.
        """
        _check(max_bytes=max_bytes, older_than=older_than)
        removed = 0
        if older_than is not None:
            before = time.time() - older_than
            removed += self._insist(lambda: self._remove_older(before))
        if max_bytes is not None:
            removed += self._insist(lambda: self._shrink(max_bytes))
        self._insist(self._give_back)
        return removed

    def _remove_older(self, before: float) -> int:
        last = removed = 0
        while True:
            with self._store.writing() as connection:
                old = connection.execute(_OLDER, (last, before)).fetchall()
                connection.executemany(_REMOVE, old)
            if not old:
                return removed
            last, removed = old[-1][0], removed + len(old)

    def _shrink(self, max_bytes: int, *, up_to: int = 2**62) -> int:
        removed = 0
        while True:
            with self._store.writing() as connection:
                old = _surplus(connection, _in_use(connection) - max_bytes, up_to)
                connection.executemany(_REMOVE, old)
            if not old:
                return removed
            removed += len(old)

    def _give_back(self) -> bool:
        while True:
            with self._store.writing() as connection:
                connection.execute(_VACUUM).fetchall()
                if not number(connection, "PRAGMA freelist_count"):
                    return True

    # Being no reason for a call to fail

    def _attempt(self, action: Callable[[], _T], *, wait: bool = False) -> _T | None:
        """Do it, once more if the file had to be replaced; None if it cannot be done.

        Raises:
            BusyError: It can perhaps be done later; only if it may ``wait``.
        """
        try:
            return self._repairing(action)
        except _MISUSE:
            raise
        except CacheError as error:
            # What was fine at the first use is no longer anybody's mistake.
            if self._store.journal_mode is None:
                raise
            self._say(_OUT_OF_USE.format(error))
        except BusyError as error:
            self._say(_LOCKED.format(error))
            if wait:
                raise
        except _SICK as error:
            self._say(_OUT_OF_USE.format(error))
        return None

    def _insist(self, action: Callable[[], _T]) -> _T:
        try:
            return self._repairing(action)
        except _SICK as error:
            raise CacheError(f"the cache {self._path} cannot be used now: {error}") from None

    def _repairing(self, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except DamagedError as error:
            aside = self._store.move_aside(error.identity)
        if aside is not None:
            self._say(f"was damaged: it is now at {aside}, and a new one was begun")
        return action()

    def _say(self, what: str) -> None:
        with self._lock:
            said, self._said = self._said, True
        if not said:
            warnings.warn(f"the cache {self._path} {what}", VoxvecWarning, stacklevel=4)

    def _count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)


def _set(store: Store, rows: Mapping[bytes, bytes], wait: float | None) -> int:
    """Write rows, and say what the last one before them was."""
    now = int(time.time())
    with store.writing(wait) as connection:
        last = number(connection, _LAST)
        values = ((key, width_of(row), len(key) + len(row), now, row) for key, row in rows.items())
        connection.executemany(_SET, values)
    return last


def _write_out(store: Store, backlog: Backlog) -> int:
    """Write what waits or give it up, in less than a second, and say how many rows were written."""
    rows = backlog.with_waiting({})
    if not rows:
        return 0
    backlog.clear()
    # Nobody listens any more: this is the end of the cache, perhaps that of the process.
    with suppress(CacheError, *_SICK):
        _set(store, rows, SHORT_WAIT)
        return len(rows)
    return 0


def _blocks(keys: list[bytes]) -> Iterator[list[bytes]]:
    at = 0
    while at < len(keys):
        size = 500 if len(keys) - at >= 500 else 50  # noqa: PLR2004 -- the two sizes of _FIND
        block = keys[at : at + size]
        yield block + block[-1:] * (size - len(block))
        at += size


def _surplus(connection: Connection, surplus: int, up_to: int) -> list[tuple[int]]:
    """The oldest rows that take this much room, a thousand at most."""
    rows: list[tuple[int]] = []
    if surplus <= 0:
        return rows
    for row, size in connection.execute(_OLDEST, (up_to,)).fetchall():
        rows.append((row,))
        surplus -= size
        if surplus <= 0:
            break
    return rows


def _in_use(connection: Connection) -> int:
    pages = number(connection, "PRAGMA page_count") - number(connection, "PRAGMA freelist_count")
    return pages * number(connection, "PRAGMA page_size")


def _check(**limits: float | None) -> None:
    for name, limit in limits.items():
        if limit is not None and limit < 0:
            raise ConfigError(f"{name} must be 0 or more, not {limit}")
