"""What our files look like inside: how one is made, and how it is told from any other."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from voxvec.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from voxvec.caches.place import Identity

__all__ = ["Connection", "NewerError", "committing", "create", "harden", "is_damage", "is_ours", "number"]

APPLICATION = 0x766F7876
"""``application_id`` of our files: "voxv"."""
SCHEMA = 1
"""``user_version`` of our files."""

_TABLE = (
    "CREATE TABLE rows (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, width INTEGER NOT NULL, "
    "size INTEGER NOT NULL, stored INTEGER NOT NULL, value BLOB NOT NULL)"
)
# Pages of 32 KiB hold four or five vectors of 1,536 dims; rows of 6 KB on pages of 4 KiB spill
# over, which costs a quarter of the room and a third of the speed.
_PAGES = "PRAGMA page_size = 32768"
_VACUUM = "PRAGMA auto_vacuum = INCREMENTAL"


class NewerError(Exception):
    """The file was made by a later version of voxvec."""


class Connection(sqlite3.Connection):
    """A connection that knows which file it was opened on, and with which write-ahead log."""

    identity: Identity | None = None
    log: Identity | None = None
    _wait: float | None = None

    def wait_for_locks(self, seconds: float) -> None:
        """Wait this long for somebody else's lock from now on [s]."""
        if seconds != self._wait:
            self._wait = seconds
            self.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}").fetchall()


# What our statements need, and SQLite asks for while it prepares one, so that nothing of it costs a read any time.
_ON_ROWS = {sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
_ANYWHERE = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_PRAGMA}
_MAKING = {sqlite3.SQLITE_CREATE_TABLE: "rows", sqlite3.SQLITE_CREATE_INDEX: "sqlite_autoindex_rows_1"}
_LONGEST = 256 << 20  # several times the longest answer that is read [bytes]
_FUNCTIONS = {"coalesce", "count", "max", "typeof"}


def harden(connection: Connection) -> None:
    """Have SQLite refuse whatever the file could make our statements do besides: triggers, views, other files."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    connection.set_authorizer(_allow)


def _allow(action: int, first: str | None, second: str | None, database: str | None, inner: str | None) -> int:
    fine = (
        action in _ANYWHERE
        or (action in _ON_ROWS and first in {"rows", "sqlite_master"})
        or (action in _MAKING and first == _MAKING[action])
        or (action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS)
    )
    # The last is the trigger or view that asks; none is ours.
    return sqlite3.SQLITE_OK if fine and database in {None, "main"} and inner is None else sqlite3.SQLITE_DENY


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite says that the file is broken, not just out of reach."""
    # Absent from what the sqlite3 module raises by itself, such as for values of a wrong type.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@contextmanager
def committing(connection: Connection) -> Generator[None]:
    """Commit at the end, if it is still open, or take everything back."""
    try:
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.rollback()
        raise


def number(connection: Connection, question: str) -> int:
    """The one number that answers a question."""
    answer: int = connection.execute(question).fetchone()[0]
    return answer


def is_ours(connection: Connection, path: Path) -> bool:
    """Whether the file has our rows; False if it is empty.

    Raises:
        CacheError: It has something else.
        NewerError: It has rows of a later version.
    """
    try:
        connection.execute("BEGIN")
        application = number(connection, "PRAGMA application_id")
        # Both are asked: SQLite takes a file of one byte for an empty one.
        empty = application == 0 and number(connection, "PRAGMA page_count") == 0 and path.stat().st_size == 0
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        application, empty = 0, False  # no database at all
    if application != APPLICATION and not empty:
        raise CacheError(f"{path} is no cache of voxvec, and was not touched; choose another path for the cache")
    try:
        return not empty and _has_rows(connection, path)
    finally:
        connection.rollback()


def _has_rows(connection: Connection, path: Path) -> bool:
    if number(connection, "PRAGMA user_version") > SCHEMA:
        raise NewerError("a later version of voxvec made it")
    # A trigger or view that somebody planted would run with our statements.
    found = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    if found != [_TABLE]:
        raise CacheError(f"{path} was changed by another program; remove it, or choose another path for the cache")
    return True


def create(connection: Connection) -> bool:
    """Make an empty file ours; False if somebody else has put something there."""
    connection.execute(_PAGES)
    # Not IMMEDIATE, which would already lay out the first page. The next statement writes, and is
    # inside, for by itself it would leave a file behind that is neither empty nor ours.
    connection.execute("BEGIN")
    with committing(connection):
        connection.execute(_VACUUM)
        if number(connection, "SELECT count(*) FROM sqlite_master"):
            connection.rollback()
            return False
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute(_TABLE)
    return True
