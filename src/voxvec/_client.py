"""What the clients of both rooms are made of: a door, a lane and a cache.

Nothing is opened before the first request, so that making a client is cheap and settings can be looked at without a
key. After a fork the child gets a door and a lane of its own: two processes on one connection would read each
other's answers.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxvec._door import AsyncDoor, Door, new_async_client, new_client, origin_of
from voxvec._run import AsyncLane, Lane
from voxvec._threads import PerLoop
from voxvec.caches.opening import open_cache
from voxvec.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    import openai

    from voxvec.caches.contract import Cache
    from voxvec.policy import Pace, Retry

__all__ = ["AsyncClient", "Client", "Setup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a user says about server, cache and manners.

    Attributes:
        api_key: Key for a client of our own.
        base_url: Root of the API for a client of our own.
        timeout: Longest time for one request [s]; None where it follows from the request.
        cache: The cache, if any.
        retry: When to ask again.
        pace: How fast to ask.
        deadline: Longest time for one call [s].
        workers: Most requests on their way at a time.
    """

    api_key: str | None
    base_url: str | None
    timeout: float | None
    cache: Cache | str | os.PathLike[str] | None
    retry: Retry
    pace: Pace
    deadline: float | None
    workers: int

    def __post_init__(self) -> None:
        for name in ("timeout", "deadline"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0 s, not {value}")
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, not {self.workers}")


class _NoCache:
    """A cache that knows nothing."""

    def get_many(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]:
        del keys
        return {}

    def set_many(self, rows: Mapping[bytes, bytes], /) -> None:
        del rows

    def discard(self, keys: Sequence[bytes], /) -> None:
        del keys


class _Base:
    def __init__(self, client: openai.OpenAI | openai.AsyncOpenAI | None, setup: Setup) -> None:
        if client is not None and (setup.api_key is not None or setup.base_url is not None):
            raise ConfigError("pass either client= or api_key= and base_url=, not both: the client has its own")
        self.setup = setup
        self.origin = origin_of(setup.base_url) if client is None else origin_of(str(client.base_url))
        self.cache: Cache = open_cache(setup.cache) or _NoCache()
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError("this client was closed; make a new one. Nothing was sent")


class Client(_Base):
    """Door, lane and cache for threads.

    Args:
        client: The user's own; None makes one at the first request.
        setup: The rest.
    """

    def __init__(self, client: openai.OpenAI | None, setup: Setup) -> None:
        if client is not None:
            import openai  # noqa: PLC0415 -- imported already, where there is a client

            if not isinstance(client, openai.OpenAI):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
                raise ConfigError(
                    f"client must be an openai.OpenAI, not {type(client).__name__}; for tasks use the Async twin"
                )
        super().__init__(client, setup)
        self._client = client
        self._locks: dict[int, threading.Lock] = {}
        self._pid: int | None = None
        self._door: Door | None = None
        self._lane: Lane | None = None

    def lane(self) -> Lane:
        """What this process's calls share."""
        with self._mine():
            if self._lane is None:
                self._lane = Lane(self.setup.retry, self.setup.pace, self.setup.workers)
            return self._lane

    def door(self) -> Door:
        """What this process sends through; what is cached needs none, and so no key."""
        with self._mine():
            if self._door is None:
                own = new_client(self.setup.api_key, self.setup.base_url) if self._client is None else self._client
                self._door = Door(own, own=self._client is None)
            return self._door

    @contextmanager
    def _mine(self) -> Generator[None]:
        """One thread at a time; after a fork the child starts anew."""
        self._check_open()
        pid = os.getpid()
        # Each process has its lock: the parent's may have been held by a thread that does not exist here.
        with self._locks.setdefault(pid, threading.Lock()):
            if self._pid != pid:
                self._check_unshared()
                self._pid, self._door, self._lane = pid, None, None
            yield

    def _check_unshared(self) -> None:
        if self._client is not None and self._pid is not None:
            raise ConfigError(
                "client= was used before the fork, and two processes cannot share its connections; "
                "make a client in the child process. Nothing was sent"
            )

    def close(self) -> None:
        """Close the connections that are ours; a client that was passed in stays open."""
        self._closed = True
        if self._door is not None and self._pid == os.getpid():
            self._door.close()


class AsyncClient(_Base):
    """Door, lane and cache for tasks; each event loop has its own door and lane.

    Args:
        client: The user's own; None makes one per event loop, at its first request.
        setup: The rest.
    """

    def __init__(self, client: openai.AsyncOpenAI | None, setup: Setup) -> None:
        if client is not None:
            import openai  # noqa: PLC0415 -- as in the twin

            if not isinstance(client, openai.AsyncOpenAI):  # pyright: ignore[reportUnnecessaryIsInstance] -- as above
                raise ConfigError(
                    f"client must be an openai.AsyncOpenAI, not {type(client).__name__}; for threads use the sync twin"
                )
        super().__init__(client, setup)
        self._client = client
        self._lanes = PerLoop(lambda: AsyncLane(setup.retry, setup.pace, setup.workers))
        self._doors = PerLoop(self._make_door)

    def _make_door(self) -> AsyncDoor:
        own = new_async_client(self.setup.api_key, self.setup.base_url) if self._client is None else self._client
        return AsyncDoor(own, own=self._client is None)

    def lane(self) -> AsyncLane:
        """What this event loop's calls share."""
        self._check_open()
        return self._lanes.get()

    def door(self) -> AsyncDoor:
        """What this event loop sends through; what is cached needs none, and so no key."""
        self._check_open()
        return self._doors.get()

    async def close(self) -> None:
        """Close this loop's connections, if they are ours; a client that was passed in stays open."""
        self._closed = True
        door = self._doors.peek()
        if door is not None:
            await door.close()
