"""What the clients of both rooms are made of: a door, a lane and a cache.

Nothing is opened before the first request, so that making a client is cheap and settings can be looked at without a
key. After a fork the child gets a door and a lane of its own: two processes on one connection would read each
other's answers.
"""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar, runtime_checkable
from urllib.parse import urlencode

from voxvec._door import AsyncDoor, Door
from voxvec._endpoint import check_url, new_async_client, new_client, origin_of
from voxvec._run import AsyncLane, Lane
from voxvec._threads import PerLoop, aside
from voxvec.caches.contract import Leasing
from voxvec.caches.opening import open_cache
from voxvec.errors import CacheError, ConfigError, VoxvecWarning
from voxvec.policy import Pace, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    import openai

    from voxvec.caches.contract import Cache

__all__ = ["AsyncClient", "Client", "Setup"]

R = TypeVar("R")


_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "api_key": ((str, type(None)), "a text or None"),
    "base_url": ((str, type(None)), "a text or None"),
    "timeout": ((int, float, type(None)), "a number of seconds or None"),
    "retry": ((Retry,), "a Retry"),
    "pace": ((Pace,), "a Pace"),
    "deadline": ((int, float, type(None)), "a number of seconds or None"),
    "workers": ((int,), "a whole number"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a user says about server, cache and manners. It holds the key, so it neither shows it nor is pickled.

    Attributes:
        api_key: Key for a client of our own.
        base_url: Root of the API for a client of our own.
        allow_insecure: Whether that may be an address to which key and texts go unencrypted.
        timeout: Longest time for one request [s]; None where it follows from the request.
        cache: The cache, if any.
        retry: When to ask again.
        pace: How fast to ask.
        deadline: Longest time for one call [s].
        workers: Most requests on their way at a time.
    """

    api_key: str | None = field(repr=False)
    base_url: str | None
    allow_insecure: bool = False
    timeout: float | None
    cache: Cache | str | os.PathLike[str] | None
    retry: Retry
    pace: Pace
    deadline: float | None
    workers: int

    def __post_init__(self) -> None:
        for name, (kinds, words) in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                said = type(value).__name__ if name == "api_key" else repr(value)
                raise ConfigError(f"{name} must be {words}, not {said:.80}")
        if not isinstance(self.allow_insecure, bool):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
            raise ConfigError(f"allow_insecure must be True or False, not {self.allow_insecure!r:.80}")
        for name in ("timeout", "deadline"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0 s, not {value}")
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, not {self.workers}")

    def __reduce__(self) -> NoReturn:
        raise TypeError("Setup holds the key and cannot be pickled; make a client in each process")


class _NoCache:
    """A cache that knows nothing."""

    def get_many(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]:
        del keys
        return {}

    def set_many(self, rows: Mapping[bytes, bytes], /) -> None:
        del rows

    def discard(self, keys: Sequence[bytes], /) -> None:
        del keys


class _Mild:
    """A cache whose failures cost what it would have saved, but never a call or an answer that is paid for.

    Args:
        cache: The cache, which may be a stranger's.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.leases = isinstance(cache, Leasing)
        self._said = threading.Lock()  # taken by whoever warns, for good

    def get_many(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]:
        return self._try(lambda: dict(self._cache.get_many(keys)), {}, "gave no rows")

    def set_many(self, rows: Mapping[bytes, bytes], /) -> None:
        self._try(lambda: self._cache.set_many(rows), None, "kept no rows")

    def discard(self, keys: Sequence[bytes], /) -> None:
        self._try(lambda: self._cache.discard(keys), None, "discarded no rows")

    def lease(self, keys: Sequence[bytes], seconds: float, /) -> Mapping[bytes, bytes | None]:
        cache, everything = self._cache, dict[bytes, bytes | None].fromkeys(keys)
        if not isinstance(cache, Leasing):
            return everything
        return self._try(lambda: dict(cache.lease(keys, seconds)), everything, "leased nothing")

    def release(self, keys: Sequence[bytes], /) -> None:
        cache = self._cache
        if isinstance(cache, Leasing):
            self._try(lambda: cache.release(keys), None, "released nothing")

    def _try(self, action: Callable[[], R], otherwise: R, outcome: str) -> R:
        try:
            return action()
        except CacheError:
            raise  # its settings are wrong, which the user wants to hear
        except Exception as error:  # noqa: BLE001 -- a stranger's cache may raise anything
            kind = type(error).__name__
        if self._said.acquire(blocking=False):
            # The type alone: what it says may hold rows, or the password of a server.
            warnings.warn(
                f"the cache {type(self._cache).__name__} {outcome}: it raised {kind}. "
                "What it does not give back is bought again",
                VoxvecWarning,
                stacklevel=4,
            )
        return otherwise


def _origin_of_client(client: openai.OpenAI | openai.AsyncOpenAI) -> str:
    """Which server, and what its address says beside: a query may route to another model, and is part of every key.

    But not Azure's, which is the version of the protocol.
    """
    query = sorted((name, str(value)) for name, value in client.default_query.items() if name != "api-version")
    return origin_of(str(client.base_url)) + (f"?{urlencode(query)}" if query else "")


@runtime_checkable
class _Keeping(Protocol):
    def keeping(self) -> AbstractContextManager[None]: ...


@runtime_checkable
class _Closing(Protocol):
    def close(self) -> None: ...


class _Base:
    def __init__(self, client: openai.OpenAI | openai.AsyncOpenAI | None, setup: Setup) -> None:
        if client is not None and (setup.api_key is not None or setup.base_url is not None):
            raise ConfigError("pass either client= or api_key= and base_url=, not both: the client has its own")
        self.setup = setup
        if client is None:
            check_url(setup.base_url, allow_insecure=setup.allow_insecure)
        self.origin = origin_of(setup.base_url) if client is None else _origin_of_client(client)
        cache = open_cache(setup.cache)
        # Not by its truth: a cache that counts its rows is false while it is empty.
        mild = None if cache is None else _Mild(cache)
        self.cache: Cache = mild or _NoCache()
        # Where other processes may be buying the same.
        self.leasing: Leasing | None = mild if mild is not None and mild.leases else None
        given: object = cache
        self._keeping = given if isinstance(given, _Keeping) else None
        # What was opened here is closed here; what was passed in may serve others.
        ours: object = None if cache is setup.cache else cache
        self._opened = ours if isinstance(ours, _Closing) else None
        self._closed = False

    def keeping(self) -> AbstractContextManager[None]:
        """For the time of a call: what it stores does not leave a full cache."""
        return nullcontext() if self._keeping is None else self._keeping.keeping()

    @property
    def keeps(self) -> bool:
        """Whether there is a cache, so that an answer is worth having though nobody waits for it."""
        return not isinstance(self.cache, _NoCache)

    def _close_cache(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError("this client was closed; make a new one. Nothing was sent")


def _check_sender(sender: int | None) -> int:
    """The process that sends through the user's client, which must be the one that did before."""
    if sender not in {None, os.getpid()}:
        raise ConfigError(
            "client= was used before the fork, and two processes cannot share its connections; "
            "make a client in the child process. Nothing was sent"
        )
    return os.getpid()


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
        self._sender: int | None = None  # the process that first sent through the user's client
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
                self._door = self._make_door()
            return self._door

    def _make_door(self) -> Door:
        if self._client is None:
            setup = self.setup
            return Door(new_client(setup.api_key, setup.base_url, allow_insecure=setup.allow_insecure), own=True)
        self._sender = _check_sender(self._sender)
        return Door(self._client, own=False)

    @contextmanager
    def _mine(self) -> Generator[None]:
        """One thread at a time; after a fork the child starts anew."""
        self._check_open()
        pid = os.getpid()
        # Each process has its lock: the parent's may have been held by a thread that does not exist here.
        with self._locks.setdefault(pid, threading.Lock()):
            if self._pid != pid:
                self._pid, self._door, self._lane = pid, None, None
            yield

    def close(self) -> None:
        """Close the connections and the cache that are ours; a client or a cache that was passed in stays open."""
        self._closed = True
        if self._door is not None and self._pid == os.getpid():
            self._door.close()
        self._close_cache()


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
        self._sender: int | None = None  # as in the twin
        self._lanes = PerLoop(lambda: AsyncLane(setup.retry, setup.pace, setup.workers))
        self._doors = PerLoop(self._make_door)

    def _make_door(self) -> AsyncDoor:
        if self._client is None:
            setup = self.setup
            own = new_async_client(setup.api_key, setup.base_url, allow_insecure=setup.allow_insecure)
            return AsyncDoor(own, own=True)
        self._sender = _check_sender(self._sender)
        return AsyncDoor(self._client, own=False)

    def lane(self) -> AsyncLane:
        """What this event loop's calls share."""
        self._check_open()
        return self._lanes.get()

    def door(self) -> AsyncDoor:
        """What this event loop sends through; what is cached needs none, and so no key."""
        self._check_open()
        return self._doors.get()

    async def close(self) -> None:
        """Close this loop's connections and the cache, if they are ours; what was passed in stays open."""
        self._closed = True
        self._lanes.drop()
        door = self._doors.drop()
        if door is not None:
            await door.close()
        if self._opened is not None:
            await aside(self._close_cache)
