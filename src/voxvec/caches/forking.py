"""Caches in a process that forks.

A fork copies memory but no threads: a lock held by another thread stays locked for ever in
the child, and an SQLite handle copied along believes in file locks that the child does not
own. So everything registered here is brought to rest before a fork, and let go on both sides.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ForkableLock", "watch"]


class Forkable(Protocol):
    """Something that must be at rest while the process forks."""

    def hold(self) -> None:
        """Come to rest, and stay there until `release`."""
        ...

    def release(self, *, child: bool) -> None:
        """Go on; ``child`` tells on which side of the fork."""
        ...


_registering = threading.Lock()
_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_held: list[Forkable] = []


def watch(thing: Forkable) -> None:
    """Hold it at every fork, for as long as it lives."""
    with _registering:
        _watched.add(thing)


def _before() -> None:
    _registering.acquire()
    for thing in list(_watched):
        thing.hold()
        _held.append(thing)


def _after(*, child: bool) -> None:
    while _held:
        _held.pop().release(child=child)
    _registering.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(child=False),
        after_in_child=lambda: _after(child=True),
    )


class ForkableLock:
    """A re-entrant lock that no fork catches locked by somebody else."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        watch(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def hold(self) -> None:
        """Take it until the fork is over."""
        self._lock.acquire()

    def release(self, *, child: bool) -> None:  # noqa: ARG002 -- both sides are alike here
        """Let it go."""
        self._lock.release()
