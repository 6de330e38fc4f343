"""Which process is buying what, so that no other buys it meanwhile.

A lease is a row in a file of its own beside the cache: the name, until when, and who. That file holds no answers and is
never waited for: commits to it are not synced, and whatever goes wrong with it grants everything, so that at worst
something is bought twice. A holder that has died is noticed where its process can be looked for, and else when its time
is over.
"""

from __future__ import annotations

import os
import platform
import secrets
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from voxvec.caches.place import SIDE_FILES
from voxvec.caches.schema import NewerError
from voxvec.caches.store import SHORT_WAIT, BusyError, DamagedError, ForkedError, Store
from voxvec.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from voxvec.caches.schema import Connection

__all__ = ["LEASES", "LONGEST", "REST", "Leases"]

LEASES = "-leases"
"""What the file is called besides the cache's name."""
LONGEST = 3600.0
"""No lease holds longer, whatever the clocks say [s]."""

REST = 30.0
"""How long a file that could not be used is left alone [s]."""

_SICK = (BusyError, CacheError, DamagedError, ForkedError, NewerError, OSError, sqlite3.DatabaseError)
_OTHERS = "SELECT key, stored, value FROM rows WHERE value <> ?"
_TAKE = (
    "INSERT INTO rows (key, width, size, stored, value) VALUES (?, 0, 0, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET stored = excluded.stored, value = excluded.value"
)
_LET_GO = "DELETE FROM rows WHERE key = ? AND value = ?"
_REMOVE = "DELETE FROM rows WHERE key = ?"


class Leases:
    """The names that one cache object holds, and those that others do.

    Args:
        path: The cache file.
    """

    def __init__(self, path: Path) -> None:
        self._store = Store(path.with_name(path.name + LEASES), sync="OFF")
        self._salt = secrets.token_hex(8)
        self._held: dict[bytes, bytes] = {}  # by name, as whom; a forked child is somebody else
        self._sick_until = 0.0

    def take(self, keys: Sequence[bytes], seconds: float) -> list[bytes]:
        """Take on these for a while, and say which of them nobody else has."""
        if time.monotonic() < self._sick_until:
            return list(keys)
        me = _holder(self._salt)
        try:
            with self._store.writing(SHORT_WAIT) as connection:
                others = _others(connection, me)
                mine = [key for key in keys if key not in others]
                until = time.time() + min(seconds, LONGEST)
                connection.executemany(_TAKE, ((key, until, me) for key in mine))
        except DamagedError as error:
            self._set_aside(error)
            return list(keys)
        except _SICK:
            self._sick_until = time.monotonic() + REST
            return list(keys)
        self._held.update(dict.fromkeys(mine, me))
        return mine

    def let_go(self, keys: Iterable[bytes]) -> None:
        """Give up those of these that are held."""
        if not self._held:
            return
        held = [(key, holder) for key in keys if (holder := self._held.pop(key, None)) is not None]
        if not held or time.monotonic() < self._sick_until:
            return
        try:
            with self._store.writing(SHORT_WAIT) as connection:
                connection.executemany(_LET_GO, held)
        except DamagedError as error:
            self._set_aside(error)
        except _SICK:  # they end by themselves
            self._sick_until = time.monotonic() + REST

    def _set_aside(self, error: DamagedError) -> None:
        with suppress(*_SICK):
            aside = self._store.move_aside(error.identity)
            if aside is not None:
                for end in ("", *SIDE_FILES):  # there is nothing in it that anybody would miss
                    aside.with_name(aside.name + end).unlink(missing_ok=True)

    def close(self) -> None:
        """Give up all, and close the file."""
        self.let_go(list(self._held))
        self._store.close()


def _others(connection: Connection, me: bytes) -> set[bytes]:
    """What others hold; what nobody holds any more is cleared away."""
    now, living, held = time.time(), dict[bytes, bool](), set[bytes]()
    over: list[tuple[bytes]] = []
    for key, until, holder in connection.execute(_OTHERS, (me,)).fetchall():
        if holder not in living:
            living[holder] = _lives(holder)
        # A time too far off was set by a clock that was wrong.
        if now < until <= now + LONGEST and living[holder]:
            held.add(key)
        else:
            over.append((key,))
    connection.executemany(_REMOVE, over)
    return held


def _node() -> str:
    """Where process ids mean the same."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _holder(salt: str) -> bytes:
    return f"{_node()}/{os.getpid()}/{salt}".encode("utf-8", "surrogateescape")


def _lives(holder: bytes) -> bool:
    """Whether a holder is still there, as far as can be told."""
    node, _, rest = holder.decode("utf-8", "surrogateescape").rpartition("/")[0].rpartition("/")
    # Elsewhere the number is another process's; on Windows asking would end the process.
    if node != _node() or os.name == "nt" or not rest.isdecimal():
        return True
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
