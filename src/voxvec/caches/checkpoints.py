"""Checkpoints of a write-ahead log that no write can meet.

SQLite 3.7.0 to 3.51.2 may corrupt a file when one connection writes and another checkpoints at the same instant (see
`voxvec.caches.place.journal_mode_for`). A file that was made with a log is never switched back, since others may have
it open. So where the linked SQLite is affected, each of our writes, and the checkpoint after it, holds a lock on a
file beside it.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if os.name != "nt":  # there the log is only checkpointed by whoever closes the file last, alone with it
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["LOCK", "alone"]

LOCK = "-lock"
"""What the lock's file is called besides the cache's name."""
_LOOK = 0.005  # [s]


@contextmanager
def alone(path: Path, wait: float) -> Generator[bool]:
    """Keep other processes from doing the same meanwhile.

    Args:
        path: The cache file.
        wait: How long to wait for the lock [s].

    Yields:
        Whether this process is alone; never so where there are no such locks.

    Raises:
        TimeoutError: Others kept it.
    """
    if os.name == "nt":
        yield False
        return
    flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(path.with_name(path.name + LOCK), flags, 0o600)
    try:
        _acquire(lock, time.monotonic() + wait)
        yield True
    finally:
        os.close(lock)


def _acquire(lock: int, until: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TimeoutError from None
            time.sleep(_LOOK)
        else:
            return
