"""Threads and tasks by themselves: one beside the caller, many in order, one object per event loop.

`voxvec._run` builds its lanes on this.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from contextvars import Context

    from anyio.lowlevel import RunVar

__all__ = ["Apart", "PerLoop", "aside", "in_order", "in_thread", "in_turn"]

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 -- an item of work
R = TypeVar("R")


def in_thread(work: Callable[..., R], *args: object) -> Future[R]:
    """Run something in a thread of its own, with the caller's context variables.

    The thread is a daemon: a program that is told to end does not wait for a server.
    """
    future: Future[R] = Future()
    context = copy_context()
    threading.Thread(target=_fill, args=(future, context, work, args), daemon=True, name="voxvec").start()
    return future


def _fill(future: Future[R], context: Context, work: Callable[..., R], args: tuple[object, ...]) -> None:
    try:
        future.set_result(context.run(work, *args))
    except BaseException as error:  # noqa: BLE001 -- raised again by whoever asks for the result
        future.set_exception(error)
    finally:
        del future  # the traceback of its error holds this frame: they would keep each other


async def aside(work: Callable[..., R], *args: object) -> R:
    """Run something that blocks for a short while, such as a look into a cache, without holding up the event loop."""
    import anyio.to_thread  # noqa: PLC0415 -- as above

    return await anyio.to_thread.run_sync(work, *args)


def in_order(items: Iterable[I], work: Callable[[I], R], ahead: int, held: int | None = None) -> Iterator[R]:
    """Work on items side by side, and yield the results in order.

    Args:
        items: What to work on; no more is read than is begun.
        work: Does one, in a thread.
        ahead: Most items that are worked on at a time.
        held: Most items that are begun and not yielded yet, so that a slow one does not hold up the others; ``ahead``
            if None.
    """
    running: deque[Future[R]] = deque()
    over: SimpleQueue[object] = SimpleQueue()
    source, failure = iter(items), None
    more, busy = True, 0
    while more or running:
        while more and busy < ahead and len(running) < (held or ahead) and not (running and running[0].done()):
            try:
                item = next(source)
            except StopIteration:
                more = False
            except Exception as error:  # noqa: BLE001 -- the source's own, raised below after what came before it
                more, failure = False, error
            else:
                running.append(in_thread(work, item))
                running[-1].add_done_callback(over.put)
                busy += 1
        if running and running[0].done():
            yield running.popleft().result()
        elif running:
            over.get()
            busy -= 1
        while not over.empty():
            over.get()
            busy -= 1
    if failure is not None:
        raise failure


_apart: set[asyncio.Task[None]] = set()  # a loop refers to its tasks weakly


class Apart(Generic[R]):
    """A task of its own, outside any group: whoever waits for it may be cancelled, and it goes on all the same.

    Args:
        work: What to do.
        args: Its arguments.
    """

    def __init__(self, work: Callable[..., Awaitable[R]], *args: object) -> None:
        import asyncio  # noqa: PLC0415 -- as above

        import anyio  # noqa: PLC0415 -- as above

        self._scope, self._over = anyio.CancelScope(), anyio.Event()
        self._value: list[R] = []
        self._error: Exception | None = None
        task = asyncio.create_task(self._run(work, args))
        _apart.add(task)
        task.add_done_callback(_apart.discard)

    async def _run(self, work: Callable[..., Awaitable[R]], args: tuple[object, ...]) -> None:
        try:
            with self._scope:
                self._value.append(await work(*args))
        except Exception as error:  # noqa: BLE001 -- raised again by whoever asks for the result
            self._error = error
        finally:
            self._over.set()
            del self, work, args  # the traceback of its error holds this frame: they would keep each other

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end, whichever."""
        return self._over.is_set()

    async def result(self) -> R:
        """What came of it; raises what it raised."""
        await self._over.wait()
        if self._error is not None:
            raise self._error
        if not self._value:
            import asyncio  # noqa: PLC0415 -- as above

            raise asyncio.CancelledError
        return self._value[0]

    async def end(self) -> None:
        """Cancel it, and wait until it has put away what is paid for and given back what it held."""
        import anyio  # noqa: PLC0415 -- as above

        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._over.wait()


async def in_turn(
    items: AsyncIterator[I], work: Callable[[I], Awaitable[R]], ahead: int, held: int | None = None
) -> AsyncIterator[R]:
    """Do what `in_order` does, with tasks.

    They are in no group, because a generator must not be suspended inside one; whoever leaves early ends them.
    """
    import anyio  # noqa: PLC0415 -- as above

    running: deque[Apart[R]] = deque()
    failure: Exception | None = None
    more, busy, news = True, 0, anyio.Event()

    async def one(item: I) -> R:
        nonlocal busy
        try:
            return await work(item)
        finally:
            busy -= 1
            news.set()

    try:
        while more or running:
            while more and busy < ahead and len(running) < (held or ahead) and not (running and running[0].is_over):
                try:
                    item = await anext(items, None)
                except Exception as error:  # noqa: BLE001 -- the source's own, raised below after what came before it
                    failure, item = error, None
                if item is None:
                    more = False
                else:
                    running.append(Apart(one, item))
                    busy += 1
            if running and running[0].is_over:
                yield await running.popleft().result()
            elif running:
                await news.wait()
                news = anyio.Event()
        if failure is not None:
            raise failure
    finally:
        for each in running:
            await each.end()


class _Mark:
    """Stands for an event loop, and lives no longer than it: not all kinds of loops can be referred to weakly."""


_variables: dict[str, RunVar[tuple[int, _Mark]]] = {}


def _mark() -> _Mark:
    """The running loop's mark; a child process that goes on with a loop of its parent gets another."""
    from anyio.lowlevel import RunVar  # noqa: PLC0415 -- as above

    # No lock, which a fork could catch: loops in several threads may begin at once, and agree on the variable.
    marks = _variables.setdefault("voxvec", RunVar("voxvec"))
    pid, mark = marks.get((0, None))
    if mark is None or pid != os.getpid():
        mark = _Mark()
        marks.set((os.getpid(), mark))
    return mark


class PerLoop(Generic[T]):
    """One object per event loop, made when first asked for: what belongs to a loop must not be used in another.

    The objects hang on this one and not on the loop, so that they end with whichever ends first.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[_Mark, T] = WeakKeyDictionary()

    def get(self) -> T:
        """The running loop's object."""
        mark = _mark()
        if mark not in self._made:
            self._made[mark] = self._make()
        return self._made[mark]

    def drop(self) -> T | None:
        """Forget the running loop's object, if there is one, and return it."""
        return self._made.pop(_mark(), None)
