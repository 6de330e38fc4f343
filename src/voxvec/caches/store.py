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
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Literal, Protocol

from voxvec.caches import checkpoints, place
from voxvec.caches.forking import watch
from voxvec.caches.schema import Connection, committing, create, harden, is_damage, is_ours, number

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

__all__ = ["BusyError", "DamagedError", "ForkedError", "Store"]

READ_WAIT = 2.0
"""How long a reader waits for somebody else's lock [s]."""
WRITE_WAIT = 2.0
"""How long a writer waits for somebody else's lock, to begin and again to commit [s]."""
SHORT_WAIT = 0.25
"""How long it waits when somebody has just waited in vain [s]."""
FORK_WAIT = 10.0
"""How long a fork waits for reads and writes to end [s]."""

_BUSY = "another process keeps it locked"
# As much as SQLite allows by default; it is address space, not memory.
_MAPPED = "PRAGMA mmap_size = 2147418112"
# A batch of 2,048 vectors of 1,536 dims stays in memory until it is committed: pages that have to
# leave early lock readers out early.
_WRITER = "PRAGMA cache_size = -32768"
_LOG_PAGES = 256  # length of a write-ahead log after which it is emptied: 8 MiB


class BusyError(Exception):
    """Somebody else kept the lock for too long."""


class ForkedError(Exception):
    """The process was forked in the middle of a read or write, and has no handles to trust."""


class DamagedError(Exception):
    """The file is broken, not just out of reach.

    Attributes:
        identity: Which file.
    """

    def __init__(self, reason: str, identity: place.Identity | None) -> None:
        super().__init__(reason)
        self.identity = identity


class _Lock(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...  # noqa: FBT001 -- the standard library's
    def release(self) -> None: ...


def _is_busy(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _close(connections: Iterable[Connection]) -> None:
    for connection in list(connections):
        connection.close()


class Store:
    """The file at a path, opened when first needed.

    Args:
        path: Absolute path.
        sync: How much a commit waits for the disk, as SQLite's ``synchronous`` has it: ``"FULL"`` survives a power
            failure, ``"NORMAL"`` may lose the last commits of a write-ahead log to it, ``"OFF"`` the file.

    Attributes:
        journal_mode: How the file is kept whole; None before it was first opened.
        journal_reason: Why so; None before it was first opened.
    """

    def __init__(self, path: Path, *, sync: Literal["FULL", "NORMAL", "OFF"]) -> None:
        self._path = path
        self._sync = sync
        self.journal_mode: str | None = None
        self.journal_reason: str | None = None
        self._state = threading.Condition(threading.RLock())
        self._idle: list[Connection] = []
        self._reading = 0
        self._turn = threading.RLock()
        self._waits = 0
        self._writer: Connection | None = None
        self._lost = False
        self._guarded = False  # whether the write-ahead log needs `checkpoints`
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
            ForkedError: This process has no handles to trust.
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
    def _waiting(self, lock: _Lock, wait: float = -1) -> Generator[None]:
        """Hold the lock; those who queue behind one that waited in vain have waited as long as it has."""
        seen = self._waits
        if not lock.acquire(timeout=wait):
            raise BusyError("another thread is writing to it")
        try:
            if self._waits != seen:
                raise BusyError(_BUSY)
            try:
                yield
            except BusyError:
                self._waits += 1
                raise
        finally:
            lock.release()

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
        while self._idle:
            connection = self._idle.pop()
            if self._stands(connection):
                return connection
            self._drop(connection)
        connection = self._connect(READ_WAIT)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _stands(self, connection: Connection) -> bool:
        """Whether its file is still the one at the path, and its log the one beside it."""
        if connection.identity != place.identity(self._path):
            return False
        # Somebody who removes a log in use parts us from those who open the file after that.
        return connection.log is None or connection.log == self._log()

    def _log(self) -> place.Identity | None:
        return place.identity(self._path.with_name(self._path.name + "-wal"))

    def _give(self, connection: Connection) -> None:
        if connection in self._open and self._stands(connection):
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _stand(self) -> None:
        if self._lost:
            raise ForkedError("this process was forked in the middle of a read or write")

    @contextmanager
    def writing(self, wait: float | None = None) -> Generator[Connection]:
        """A connection within a write transaction, committed at the end.

        Args:
            wait: How long to wait for another thread, and again for another process [s]; if None, as long as it takes
                for a thread and `WRITE_WAIT` for a process.

        Raises:
            BusyError: Somebody else kept the lock too long.
            CacheError: What stands at the path is not ours; it was not touched.
            DamagedError: The file is broken.
            ForkedError: This process has no handles to trust.
            NewerError: The file is ours, of a later version.
            sqlite3.Error: It cannot be opened, written or committed; nothing was changed.
            OSError: It cannot be made.
        """
        turn, wait = (-1, WRITE_WAIT) if wait is None else (wait, wait)
        with self._waiting(self._turn, turn), self._alone(wait) as alone:
            connection = self._begin(wait)
            with self._naming(connection.identity), committing(connection):
                yield connection
            if alone:
                self._empty_log(connection)

    @contextmanager
    def _alone(self, wait: float) -> Generator[bool]:
        """Beside no other writer, where a checkpoint must not meet one."""
        if self._writer is None:
            self._open_writer()
        try:
            with checkpoints.alone(self._path, wait) if self._guarded else nullcontext(False) as alone:
                yield alone
        except TimeoutError:
            raise BusyError(_BUSY) from None

    def _empty_log(self, connection: Connection) -> None:
        """Checkpoint a log that has grown, as SQLite would do by itself."""
        with suppress(OSError, sqlite3.Error):  # there will be other writes
            if self._path.with_name(self._path.name + "-wal").stat().st_size > _LOG_PAGES * 32768:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _begin(self, wait: float) -> Connection:
        while True:
            connection = self._writer or self._open_writer()
            connection.wait_for_locks(wait)
            with self._naming(connection.identity):
                connection.execute("BEGIN IMMEDIATE")
            # Asked under the lock, for nobody moves a file aside while somebody has that.
            if self._stands(connection):
                return connection
            connection.execute("ROLLBACK")
            with self._state:  # all of them, or what they hold of a removed log would be in the way
                self._rest()

    def _open_writer(self) -> Connection:
        with self._state:
            self._stand()
            connection = self._connect(WRITE_WAIT)
        # Without a log, NORMAL would be a risk to the file: a journal whose end was not synced may come back after a
        # power failure, with records of the next one over its own.
        sync = "FULL" if self._sync == "NORMAL" and self.journal_mode != "wal" else self._sync
        connection.execute(f"PRAGMA synchronous = {sync}")
        connection.execute(_WRITER)
        self._writer = connection
        return connection

    def _rest(self) -> None:
        """Close what is not in use."""
        while self._idle:
            self._drop(self._idle.pop())
        self._close_writer()

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
        harden(connection)
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
        if self.journal_mode == "wal":
            number(connection, "SELECT count(*) FROM sqlite_master")  # the first look opens the log
            connection.log = self._log()

    def _wanted(self, *, local: bool | None) -> str:
        return "truncate" if local is False else place.journal_mode_for(sqlite3.sqlite_version_info)[0]

    def _note_journal(self, connection: Connection, *, local: bool | None) -> None:
        mode, why = place.journal_mode_for(sqlite3.sqlite_version_info)
        (found,) = connection.execute("PRAGMA journal_mode").fetchone()
        if found == "wal":
            # Never switched back: others may have it open.
            self._guarded = mode != "wal"
            connection.execute(f"PRAGMA wal_autocheckpoint = {0 if self._guarded else _LOG_PAGES}").fetchall()
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
            self._rest()
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
            self._rest()
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
