"""One SQLite file of rows, and the connections to it.

Knows how a file is made, recognised, locked, noticed to be gone, and set aside. Raises whatever
goes wrong; what becomes of a call then is decided above. Any number of readers, one writer a
process, never a read transaction that turns into a write.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from voxvec.caches import place
from voxvec.caches.forking import watch
from voxvec.caches.schema import Connection, committing, create, is_damage, is_ours

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

__all__ = ["BusyError", "DamagedError", "Store"]

READ_WAIT = 2.0
"""How long a reader waits for somebody else's lock [s]."""
WRITE_WAIT = 5.0
"""How long a writer waits for somebody else's lock, to begin and again to commit [s]."""
FORK_WAIT = 10.0
"""How long a fork waits for reads and writes to end [s]."""

_BUSY = "another process keeps it locked"
_ALWAYS = ("PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON")
# As much as SQLite allows by default; it is address space, not memory.
_MAPPED = "PRAGMA mmap_size = 2147418112"
# A batch of 2,048 vectors of 1,536 dims stays in memory until it is committed: pages that have to
# leave early lock readers out early.
_WRITER = "PRAGMA cache_size = -32768"


class BusyError(Exception):
    """Somebody else kept the lock for too long."""


class DamagedError(Exception):
    """The file is broken, not just out of reach.

    Attributes:
        identity: Which file.
    """

    def __init__(self, reason: str, identity: place.Identity | None) -> None:
        super().__init__(reason)
        self.identity = identity


def _is_busy(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _close(connections: Iterable[Connection]) -> None:
    for connection in list(connections):
        connection.close()


class Store:
    """The file at a path, opened when first needed.

    Args:
        path: Absolute path.
        power: Whether a commit is to survive a power failure, at the price of one more sync.

    Attributes:
        journal_mode: How the file is kept whole; None before it was first opened.
        journal_reason: Why so; None before it was first opened.
    """

    def __init__(self, path: Path, *, power: bool) -> None:
        self._path = path
        self._sync = "PRAGMA synchronous = FULL" if power else "PRAGMA synchronous = NORMAL"
        self.journal_mode: str | None = None
        self.journal_reason: str | None = None
        self._state = threading.Condition(threading.RLock())
        self._idle: list[Connection] = []
        self._reading = 0
        self._turn = threading.RLock()
        self._waits = 0
        self._writer: Connection | None = None
        self._lost = False
        self._open: set[Connection] = set()
        weakref.finalize(self, _close, self._open)
        watch(self)

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """A connection to read with, this thread's own for the time being.

        Raises:
            BusyError: Somebody else kept the lock too long.
            CacheError: What stands at the path is not ours; it was not touched.
            DamagedError: The file is broken.
            NewerError: The file is ours, of a later version.
            sqlite3.Error: It cannot be opened or read.
            OSError: It cannot be made.
        """
        with self._waiting(self._state):
            connection = self._take()
            self._reading += 1
        try:
            with self._naming(connection.identity):
                yield connection
        finally:
            with self._state:
                self._reading -= 1
                self._state.notify_all()
                self._give(connection)

    @contextmanager
    def _waiting(self, lock: AbstractContextManager[object]) -> Generator[None]:
        """Hold the lock; those who queue behind one that waited in vain have waited as long as it has."""
        seen = self._waits
        with lock:
            if self._waits != seen:
                raise BusyError(_BUSY)
            try:
                yield
            except BusyError:
                self._waits += 1
                raise

    @contextmanager
    def _naming(self, identity: place.Identity | None) -> Generator[None]:
        """Turn SQLite's codes into names."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if _is_busy(error):
                raise BusyError(_BUSY) from None
            if is_damage(error):
                raise DamagedError(str(error), identity) from None
            raise

    def _take(self) -> Connection:
        self._stand()
        current = place.identity(self._path)
        while self._idle:
            connection = self._idle.pop()
            if connection.identity == current:
                return connection
            self._drop(connection)
        connection = self._connect(READ_WAIT)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _give(self, connection: Connection) -> None:
        if connection in self._open and connection.identity == place.identity(self._path):
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _stand(self) -> None:
        if self._lost:
            raise BusyError("this process was forked in the middle of a read or write")

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """A connection within a write transaction, committed at the end.

        Raises:
            BusyError: Somebody else kept the lock too long.
            CacheError: What stands at the path is not ours; it was not touched.
            DamagedError: The file is broken.
            NewerError: The file is ours, of a later version.
            sqlite3.Error: It cannot be opened, written or committed; nothing was changed.
            OSError: It cannot be made.
        """
        with self._waiting(self._turn):
            connection = self._begin()
            with self._naming(connection.identity), committing(connection):
                yield connection

    def _begin(self) -> Connection:
        while True:
            connection = self._writer or self._open_writer()
            with self._naming(connection.identity):
                connection.execute("BEGIN IMMEDIATE")
            # Asked under the lock, for nobody moves a file aside while somebody has that.
            if connection.identity == place.identity(self._path):
                return connection
            connection.execute("ROLLBACK")
            self._close_writer()

    def _open_writer(self) -> Connection:
        with self._state:
            self._stand()
            connection = self._connect(WRITE_WAIT)
        connection.execute(self._sync)
        connection.execute(_WRITER)
        self._writer = connection
        return connection

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._drop(self._writer)
            self._writer = None

    def _connect(self, wait: float) -> Connection:
        place.prepare(self._path)
        here = place.identity(self._path)
        # mode=rw: SQLite never makes the file itself, with everybody's permissions.
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=wait,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        connection.identity = here
        try:
            with self._naming(here):
                self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._open.add(connection)
        return connection

    def _set_up(self, connection: Connection) -> None:
        local = place.is_local(self._path)
        for pragma in _ALWAYS:
            connection.execute(pragma)
        if not is_ours(connection, self._path):
            if not create(connection):
                is_ours(connection, self._path)  # somebody else was faster, or it raises
            elif self._wanted(local=local) == "wal":
                # Best effort: if others have it open already, it stays as it is.
                with suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if local:
            connection.execute(_MAPPED)
        self._note_journal(connection, local=local)

    def _wanted(self, *, local: bool | None) -> str:
        return "truncate" if local is False else place.journal_mode_for(sqlite3.sqlite_version_info)[0]

    def _note_journal(self, connection: Connection, *, local: bool | None) -> None:
        mode, why = place.journal_mode_for(sqlite3.sqlite_version_info)
        (found,) = connection.execute("PRAGMA journal_mode").fetchone()
        if found == "wal":
            # Never switched back: others may have it open.
            self.journal_mode = "wal"
            self.journal_reason = why if mode == "wal" else f"the file was made with a write-ahead log; {why}"
            return
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        self.journal_mode = "truncate"
        if local is False:
            self.journal_reason = "the file is on a network file system, where a write-ahead log does not work"
        else:
            self.journal_reason = why if mode != "wal" else "the file was made without a write-ahead log"

    def move_aside(self, damaged: place.Identity | None) -> Path | None:
        """Rename the damaged file, so that the next use makes a new one.

        Returns:
            Its new path; None if somebody else has done it already.

        Raises:
            BusyError: It is in use; it stays where it is for now.
            OSError: It cannot be renamed.
        """
        with self._turn, self._state:
            while self._idle:
                self._drop(self._idle.pop())
            self._close_writer()
            if damaged != place.identity(self._path):
                return None
            return self._move_locked()

    def _move_locked(self) -> Path:
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw", uri=True, timeout=READ_WAIT, isolation_level=None
        )
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            # Broken beyond locking is no reason to leave it there.
            if not is_damage(error):
                connection.close()
                raise BusyError("it is damaged, and in use") from None
        try:
            return place.move_aside(self._path)
        finally:
            connection.close()

    def close(self) -> None:
        """Close what is not in use; the next use opens the file again."""
        with self._turn, self._state:
            while self._idle:
                self._drop(self._idle.pop())
            self._close_writer()
            # Those in use are closed when they are given back.
            self._open.clear()

    def hold(self) -> None:
        """Come to rest for a fork: all handles closed, so that the child inherits none."""
        self._turn.acquire()
        self._state.acquire()
        deadline = time.monotonic() + FORK_WAIT
        while self._reading and (left := deadline - time.monotonic()) > 0:
            self._state.wait(left)
        while self._idle:
            self._drop(self._idle.pop())
        if self._writer is not None and not self._writer.in_transaction:
            self._close_writer()

    def release(self, *, child: bool) -> None:
        """Go on after a fork."""
        if child:
            self._reading = 0
        if child and self._open:
            # Handles caught in use stand for locks that only the parent has: neither use nor close them.
            _inherited.append(set(self._open))
            self._open.clear()
            self._lost = True
        self._state.release()
        self._turn.release()


_inherited: list[set[Connection]] = []
